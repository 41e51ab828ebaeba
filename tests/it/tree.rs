//! The tree of limits in the real kernel: kernel → group → agent → run, by the simulator's bill.

mod caps;
mod cli;
mod groups;
mod own;
mod rates;
mod runs;
mod sessions;
mod shares;
mod tokens;

use aex_tests::harness::Kernel;
use aex_tests::http::{Connection, Response, request};
use aex_tests::sim::Behaviour;
use serde_json::{Value, json};

use crate::common::hello;

/// The contract's 250 ms, four times over.
const CUT_LIMIT_MS: u64 = 1_000;

/// `aex group create NAME …`.
fn make_group(kernel: &Kernel, name: &str, options: &[&str]) {
    kernel.aex_json(&[&["group", "create", name], options].concat());
}

/// An agent with more money and requests than it can need.
fn member(kernel: &Kernel, name: &str, options: &[&str]) -> String {
    kernel.create_agent(name, "1.00", 1_000_000, options)
}

/// A scope of `aex tree --json`, if it has not ended.
fn find_scope(kernel: &Kernel, name: &str) -> Option<Value> {
    let tree = kernel.aex_json(&["tree"]);
    let scopes = tree["scopes"].as_array().expect("scopes");
    scopes.iter().find(|scope| scope["name"] == name).cloned()
}

fn scope(kernel: &Kernel, name: &str) -> Value {
    find_scope(kernel, name).unwrap_or_else(|| panic!("{name} is not in the tree"))
}

/// A limit of a scope, as `aex group show`, `aex agent show` and `/v1/aex/me` tell it.
fn limit(view: &Value, key: &str) -> Value {
    let limits = view["limits"].as_array().expect("limits");
    let is_it = |one: &&Value| {
        one["limit"]
            .as_str()
            .unwrap()
            .starts_with(&format!("{key}="))
    };
    let found = limits.iter().find(is_it).cloned();
    found.unwrap_or_else(|| panic!("no {key} in {view}"))
}

struct Run {
    name: String,
    token: String,
}

fn make_run(kernel: &Kernel, token: &str, limits: &Value) -> Run {
    let answer = kernel.post("/v1/aex/runs", token, limits);
    assert_eq!(answer.status, 201, "{}", answer.text());
    let made = answer.json();
    let text = |name: &str| made[name].as_str().expect(name).to_owned();
    Run {
        name: text("run"),
        token: text("token"),
    }
}

/// `DELETE /v1/aex/runs/NAME`.
fn end_run(kernel: &Kernel, token: &str, name: &str) -> Response {
    let authorization = format!("Bearer {token}");
    let target = format!("/v1/aex/runs/{name}");
    kernel.raw(&request(
        "DELETE",
        &target,
        &[("authorization", &authorization)],
        b"",
    ))
}

/// What the request would hold, and that it would pass.
fn quote(kernel: &Kernel, token: &str, body: &Value) -> Value {
    let answer = kernel.post("/v1/aex/quote", token, &json!({"request": body}));
    let quote = answer.json();
    assert_eq!(quote["passes"], true, "{}", answer.text());
    quote
}

/// A stream that goes on for longer than any test.
fn endless() -> Behaviour {
    Behaviour {
        chunk_delay_ms: 20,
        natural_tokens: Some(4000),
        ..Behaviour::default()
    }
}

fn streamed(more: &Value) -> Value {
    let mut body = hello(json!({"stream": true}));
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// The answer, or nothing where the worker died with the connection.
fn try_chat(kernel: &Kernel, token: &str, body: &Value) -> Option<Response> {
    let mut connection = Connection::tcp(kernel.addr).ok()?;
    connection
        .send(&Kernel::chat_bytes(token, body, &[]))
        .ok()?;
    connection.response().ok()
}

/// By the limit of a scope above the token's own: which kind, when to come again, and nothing else.
#[track_caller]
fn assert_above(answer: &Response, kind: &str) {
    let figures = answer.json()["error"]["aex"].clone();
    assert_eq!(figures, json!({ "scope": kind }), "{}", answer.text());
    let told = |name: &&(String, String)| name.0.starts_with("x-ratelimit-");
    assert!(answer.headers.iter().find(told).is_none(), "{answer:?}");
}

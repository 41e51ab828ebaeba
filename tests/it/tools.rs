//! Capabilities one by one, and each way to smuggle a tool past its rules: in the request, and in the
//! answer, plain and streamed.

mod answer;
mod request;

use aex_tests::harness::Kernel;
use aex_tests::http::Response;
use aex_tests::sim::Sim;
use serde_json::{Value, json};

use crate::common::{assert_error, sim};

const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/v1/responses";
/// On this machine and free: hosted tools and media are let through to it.
const MODEL: &str = "sim-free";

#[expect(clippy::needless_pass_by_value, reason = "callers write json!({...})")]
fn body(route: &str, more: Value) -> Value {
    let mut body = match route {
        CHAT => json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}),
        RESPONSES => json!({"input": "hi", "max_output_tokens": 20}),
        "/v1/completions" => json!({"prompt": "hi", "max_tokens": 20}),
        _ => json!({"input": "hi"}),
    };
    body["model"] = json!(MODEL);
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn function(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}})
}

fn flat(name: &str) -> Value {
    json!({"type": "function", "name": name, "parameters": {"type": "object"}})
}

fn said(part: Value) -> Value {
    json!({"messages": [{"role": "user", "content": [part]}]})
}

#[track_caller]
fn assert_forbidden(answer: &Response, capability: &str) {
    assert_error(answer, 403, "capability_not_allowed");
    let told = format!("Capability not allowed: {capability}");
    assert_eq!(answer.detail(), told);
}

struct Case {
    what: &'static str,
    route: &'static str,
    more: Value,
    told: &'static str,
}

fn case(what: &'static str, route: &'static str, more: Value, told: &'static str) -> Case {
    Case {
        what,
        route,
        more,
        told,
    }
}

/// Each is refused, and the provider hears nothing of it.
fn all_refused(kernel: &Kernel, sim: &Sim, token: &str, cases: &[Case]) {
    let before = sim.bill().log.len();
    for Case {
        what,
        route,
        more,
        told,
    } in cases
    {
        let answer = kernel.post(route, token, &body(route, more.clone()));
        assert_eq!(answer.status, 403, "{what}: {}", answer.text());
        assert_forbidden(&answer, told);
    }
    assert_eq!(sim.bill().log.len(), before);
}

#[test]
fn each_capability_has_a_request_that_it_refuses_and_one_that_it_lets_go() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let audio =
        said(json!({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}));
    let file = said(json!({"type": "file", "file": {"file_id": "file-1"}}));
    let image =
        said(json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}));
    let tools = json!({"tools": [function("f")]});
    let form = json!({"response_format": {"type": "json_object"}});
    for (options, route, refused, told, allowed) in [
        ("--allowed-providers si*", CHAT, None, "", json!({})),
        (
            "--allowed-routes embeddings",
            CHAT,
            Some(json!({})),
            "route chat_completions",
            json!(null),
        ),
        (
            "--allowed-routes chat-completions",
            CHAT,
            None,
            "",
            json!({}),
        ),
        (
            "--no-streaming",
            CHAT,
            Some(json!({"stream": true})),
            "streaming",
            json!({}),
        ),
        (
            "--no-tools",
            CHAT,
            Some(tools.clone()),
            "tools",
            form.clone(),
        ),
        (
            "--allowed-tools a,f_*",
            CHAT,
            Some(tools.clone()),
            "tool f",
            json!({"tools": [function("f_1"), function("a")]}),
        ),
        (
            "--denied-tools f*",
            CHAT,
            Some(tools.clone()),
            "tool f",
            json!({"tools": [function("a")]}),
        ),
        (
            "--no-hosted-tools",
            CHAT,
            Some(json!({"web_search_options": {}})),
            "hosted tool web_search_options",
            tools.clone(),
        ),
        (
            "--no-vision",
            CHAT,
            Some(image.clone()),
            "vision",
            json!({}),
        ),
        (
            "--no-audio",
            CHAT,
            Some(audio.clone()),
            "audio",
            image.clone(),
        ),
        (
            "--no-files",
            CHAT,
            Some(file.clone()),
            "files",
            audio.clone(),
        ),
        (
            "--no-structured-output",
            CHAT,
            Some(form),
            "structured output",
            json!({"response_format": {"type": "text"}}),
        ),
        (
            "--no-structured-output",
            RESPONSES,
            Some(json!({"text": {"format": {"type": "json_schema"}}})),
            "structured output",
            json!({"text": {"verbosity": "low"}}),
        ),
        (
            "--no-parallel-tool-calls",
            CHAT,
            Some(json!({"tools": [function("f")], "parallel_tool_calls": true})),
            "parallel tool calls",
            tools.clone(),
        ),
        (
            "--max-choices 2",
            CHAT,
            Some(json!({"n": 3})),
            "choices above 2",
            json!({"n": 2}),
        ),
        (
            "--max-choices 2",
            "/v1/completions",
            Some(json!({"best_of": 3})),
            "choices above 2",
            json!({"best_of": 2}),
        ),
        (
            "--temperature 0.2..1.5",
            CHAT,
            Some(json!({"temperature": 1.5001})),
            "temperature outside 0.2..1.5",
            json!({"temperature": 1.5}),
        ),
        (
            "--temperature 0.2..1.5",
            RESPONSES,
            Some(json!({"temperature": 0})),
            "temperature outside 0.2..1.5",
            json!({}),
        ),
        (
            "--temperature ..1",
            "/v1/completions",
            Some(json!({"temperature": 2})),
            "temperature outside ..1",
            json!({"temperature": 1}),
        ),
    ] {
        let name = format!(
            "agent-{}",
            kernel.sqlite_number("SELECT COUNT(*) FROM agents")
        );
        let words: Vec<&str> = options.split(' ').collect();
        let token = kernel.create_agent(&name, "1.00", 1000, &words);
        if let Some(refused) = refused {
            let answer = kernel.post(route, &token, &body(route, refused));
            assert_eq!(answer.status, 403, "{options}: {}", answer.text());
            assert_forbidden(&answer, told);
        }
        if !allowed.is_null() {
            let answer = kernel.post(route, &token, &body(route, allowed));
            assert_eq!(answer.status, 200, "{options}: {}", answer.text());
        }
    }
}

#[test]
fn a_setting_is_shown_changed_and_cleared_and_a_useless_one_refused() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent(
        "a",
        "1.00",
        1000,
        &["--allowed-models", "sim-*", "--max-choices", "1"],
    );
    assert_eq!(
        kernel.agent("a")["settings"]["capabilities"],
        json!({"max_choices": 1})
    );
    let two = body(CHAT, json!({"n": 2}));
    assert_forbidden(&kernel.chat(&token, &two), "choices above 1");
    let other = json!({"model": "gpt-oss-20b", "messages": [{"role": "user", "content": "hi"}]});
    assert_error(&kernel.chat(&token, &other), 403, "model_not_allowed");
    let changed = kernel.aex_json(&[
        "agent",
        "set",
        "a",
        "--clear",
        "max-choices",
        "--temperature",
        "0..1",
    ]);
    assert_eq!(
        changed["settings"]["capabilities"],
        json!({"min_temperature_milli": 0, "max_temperature_milli": 1000})
    );
    assert_eq!(kernel.chat(&token, &two).status, 200);
    kernel.sqlite("UPDATE agents SET capabilities = '{\"max_choices\":1}' WHERE name = 'a'");
    assert_forbidden(&kernel.chat(&token, &two), "choices above 1");
    kernel.sqlite("UPDATE agents SET capabilities = '{\"max_chioces\":1}' WHERE name = 'a'");
    assert!(
        kernel.chat(&token, &two).status >= 500,
        "what cannot be read lets nothing through"
    );
    kernel.sqlite("UPDATE agents SET capabilities = NULL WHERE name = 'a'");
    assert_eq!(kernel.chat(&token, &two).status, 200);
    for (option, value) in [
        ("--allowed-models", "gpt-9*"),
        ("--allowed-providers", "nobody"),
        ("--allowed-tools", "sp@m"),
        ("--denied-tools", "é*"),
    ] {
        let output = kernel.aex(&["agent", "set", "a", option, value]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && text.contains("match"),
            "{option}: {text}"
        );
    }
    let both = [
        "agent",
        "set",
        "a",
        "--allowed-tools",
        "rm_all",
        "--denied-tools",
        "RM_*",
    ];
    assert!(!kernel.aex(&both).status.success());
    let listed = kernel.aex_json(&["agent", "set", "a", "--allowed-providers", "sim"]);
    assert_eq!(
        listed["settings"]["capabilities"]["allowed_providers"],
        json!(["sim"])
    );
    kernel.audit();
}

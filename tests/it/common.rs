//! What several themes need.

use aex_tests::harness::{Kernel, wait_for};
use aex_tests::http::{Connection, Response};
use aex_tests::sim::{Bill, Sim, SimConfig};
use serde_json::{Value, json};

pub(crate) const MODEL: &str = "gpt-oss-20b";
/// 30 and 60 USD per million tokens: a few calls are worth cents.
pub(crate) const DEAR_MODEL: &str = "sim-large";

pub(crate) fn sim() -> Sim {
    Sim::start(SimConfig::default()).unwrap()
}

/// A short chat request; `more` is laid over it.
#[expect(clippy::needless_pass_by_value, reason = "callers write json!({...})")]
pub(crate) fn hello(more: Value) -> Value {
    let mut body = json!({
        "model": MODEL,
        "messages": [{"role": "user", "content": "Say hello."}],
        "max_tokens": 20,
    });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// Sends a request and waits until the provider has it. Dropping the connection hangs up.
pub(crate) fn in_flight(kernel: &Kernel, sim: &Sim, token: &str, body: &Value) -> Connection {
    let mut connection = kernel.connect();
    connection
        .send(&Kernel::chat_bytes(token, body, &[]))
        .unwrap();
    wait_for("the request at the provider", || {
        (sim.bill().in_flight == 1).then_some(())
    });
    connection
}

/// What the simulator would charge, in picodollars, at the prices of the tests' models.yaml.
pub(crate) fn bill_pico(bill: &Bill) -> i64 {
    let cost: u128 = bill
        .models
        .iter()
        .map(|(name, model)| match name.as_str() {
            "gpt-oss-20b" | "openai/gpt-oss-20b" => {
                model.cost_pico(Kernel::INPUT_PICO, Kernel::CACHED_PICO, Kernel::OUTPUT_PICO)
            }
            "vendor/sim-large" => model.cost_pico(30_000_000, 30_000_000, 60_000_000),
            "sim-free" => 0,
            other => panic!("no price for {other}"),
        })
        .sum();
    i64::try_from(cost).unwrap()
}

/// What the ledger says that an agent spent, in picodollars.
pub(crate) fn spent_pico(kernel: &Kernel, agent: &str) -> i64 {
    kernel.sqlite_number(&format!(
        "SELECT spent_micro * 1000000 + carry_pico FROM agents WHERE name='{agent}'"
    ))
}

/// The answer is an error that AEX made, in the form that the seed's scripts and the SDKs read.
#[track_caller]
pub(crate) fn assert_error(answer: &Response, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    let body = answer.json();
    let detail = body["detail"].as_str().expect("a detail");
    assert!(!detail.is_empty());
    assert_eq!(body["error"]["message"], detail, "{body}");
    assert_eq!(body["error"]["code"], code, "{body}");
    assert!(body["error"]["type"].is_string(), "{body}");
    assert!(body["error"].get("param").is_some(), "{body}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    if matches!(status, 401..=403 | 423) {
        assert_eq!(answer.header("x-should-retry"), Some("false"));
        let text = answer.text().to_lowercase();
        for word in ["429", "rate limit", "too many requests"] {
            assert!(!text.contains(word), "{word:?} in {text}");
        }
    }
}

/// `Retry-After` is an integer from 1 to 60.
#[track_caller]
pub(crate) fn assert_retry_after(answer: &Response) {
    let seconds: u64 = answer
        .header("retry-after")
        .expect("a Retry-After")
        .parse()
        .expect("an integer");
    assert!((1..=60).contains(&seconds), "{seconds}");
}

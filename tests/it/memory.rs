//! What is left of keys and prompts in the programs' memory when their request has ended: nothing.

use std::time::Duration;

use aex_tests::harness::{Kernel, root_or_skip, wait_for, wait_until};
use aex_tests::sim::{Behaviour, Sim};
use serde_json::{Value, json};

use crate::common::{hello, sim};
use crate::secrets::memory_holds;

const OWN: &str = "sk-fake-own-key-canary-in-memory-5550123";
/// Connections end, and what they held is freed, a moment after their request.
const MOMENT: Duration = Duration::from_secs(3);
/// Kept connections are closed when they were idle for 5 s, those to providers for 30 s.
const IDLE: Duration = Duration::from_secs(60);

fn programs(kernel: &Kernel) -> Vec<u32> {
    let mut all = kernel.worker_pids();
    all.push(kernel.pid("aex-admin"));
    all.push(kernel.pid("aex-egress"));
    all
}

fn holders(kernel: &Kernel, needle: &str) -> Vec<u32> {
    let mut all = programs(kernel);
    all.retain(|&pid| memory_holds(pid, needle));
    all
}

#[track_caller]
fn gone_within(kernel: &Kernel, needle: &str, limit: Duration, after: &str) {
    let gone = wait_until(limit, || holders(kernel, needle).is_empty().then_some(()));
    let left = holders(kernel, needle);
    assert!(
        gone.is_some(),
        "after {after} {left:?} of {:?}",
        programs(kernel)
    );
}

fn with_own_key(kernel: &Kernel, token: &str, more: Value) -> u16 {
    let headers = [("x-aex-provider-key", OWN)];
    let mut connection = kernel.connect();
    let bytes = Kernel::chat_bytes(token, &hello(more), &headers);
    connection.send(&bytes).unwrap();
    let answer = connection.response().unwrap();
    let close = answer.header("connection");
    assert_eq!(close, Some("close"), "its connection ends with it");
    // And is ended by the worker: the client only waits for it.
    assert!(connection.response().is_err());
    answer.status
}

fn debugging(sim: &Sim) -> Kernel {
    (Kernel::builder().default_models(sim))
        .env("AEX_LOG", "debug")
        .start()
}

#[test]
fn an_own_key_is_gone_with_its_request() {
    if !root_or_skip("an_own_key_is_gone_with_its_request") {
        return;
    }
    let sim = sim();
    let kernel = debugging(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &["--allow-passthrough"]);
    let other = kernel.create_agent("b", "1.00", 1000, &[]);

    // The search finds what is there: while it is carried, a worker and the egress have it.
    sim.behave(Behaviour {
        hang: true,
        times: Some(1),
        ..Behaviour::default()
    });
    let mut connection = kernel.connect();
    let headers = [("x-aex-provider-key", OWN)];
    let bytes = Kernel::chat_bytes(&token, &hello(json!({})), &headers);
    connection.send(&bytes).unwrap();
    wait_for("the request at the provider", || {
        (sim.bill().in_flight == 1).then_some(())
    });
    let having = holders(&kernel, OWN);
    assert_eq!(having.len(), 2, "{having:?}");
    assert!(having.contains(&kernel.pid("aex-egress")), "{having:?}");
    assert!(!having.contains(&kernel.pid("aex-admin")), "{having:?}");
    drop(connection);
    assert!(kernel.aex(&["agent", "sever", "a"]).status.success());
    assert!(kernel.aex(&["agent", "resume", "a"]).status.success());
    kernel.settled();
    gone_within(&kernel, OWN, MOMENT, "a hang-up");

    for _ in 0..5 {
        assert_eq!(with_own_key(&kernel, &token, json!({})), 200);
    }
    gone_within(&kernel, OWN, MOMENT, "plain answers");
    assert_eq!(with_own_key(&kernel, &token, json!({"stream": true})), 200);
    gone_within(&kernel, OWN, MOMENT, "a stream");
    assert_eq!(with_own_key(&kernel, &token, json!({"model": "none"})), 404);
    assert_eq!(with_own_key(&kernel, &token, json!({"top_k": "x"})), 400);
    assert_eq!(with_own_key(&kernel, &other, json!({})), 403);
    assert_eq!(with_own_key(&kernel, "aex_no-token", json!({})), 401);
    gone_within(&kernel, OWN, MOMENT, "refusals");
    sim.behave(Behaviour {
        status: Some(401),
        echo_authorization: true,
        times: Some(2),
        ..Behaviour::default()
    });
    for _ in 0..2 {
        let _ = with_own_key(&kernel, &token, json!({}));
    }
    sim.behave(Behaviour {
        drop: true,
        times: Some(1),
        ..Behaviour::default()
    });
    let _ = with_own_key(&kernel, &token, json!({}));
    gone_within(
        &kernel,
        OWN,
        MOMENT,
        "a provider that echoes it, and one that breaks off",
    );
    kernel.settled();
    assert!(!kernel.logs().contains(OWN));
    let events = kernel.aex(&["ledger", "tail", "-n", "1000", "--json"]);
    assert!(!String::from_utf8_lossy(&events.stdout).contains(OWN));
}

#[test]
fn requests_with_the_operators_key_still_share_connections() {
    let sim = sim();
    let kernel = (Kernel::builder().default_models(&sim)).workers(1).start();
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let mut connection = kernel.connect();
    for _ in 0..3 {
        let bytes = Kernel::chat_bytes(&token, &hello(json!({})), &[]);
        connection.send(&bytes).unwrap();
        let answer = connection.response().unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("connection"), None);
    }
}

#[test]
fn a_prompt_is_gone_when_its_connections_are() {
    const PROMPT: &str = "a-prompt-canary-that-stays-in-no-memory-8861";
    if !root_or_skip("a_prompt_is_gone_when_its_connections_are") {
        return;
    }
    let sim = sim();
    let kernel = debugging(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let words = |text: &str| json!([{"role": "user", "content": text}]);
    sim.behave(Behaviour {
        delay_ms: 20_000,
        times: Some(1),
        ..Behaviour::default()
    });
    let mut connection = kernel.connect();
    let body = hello(json!({"messages": words(PROMPT)}));
    connection
        .send(&Kernel::chat_bytes(&token, &body, &[]))
        .unwrap();
    wait_for("the request at the provider", || {
        (sim.bill().in_flight == 1).then_some(())
    });
    let having = holders(&kernel, PROMPT);
    assert!(!having.is_empty(), "the search finds what is there");
    assert!(!having.contains(&kernel.pid("aex-admin")), "{having:?}");
    assert_eq!(connection.response().unwrap().status, 200);
    drop(connection);
    let long = format!("{PROMPT} {}", "words ".repeat(40_000));
    for more in [
        json!({"messages": words(PROMPT)}),
        json!({"messages": words(PROMPT), "stream": true}),
        json!({"messages": words(&long)}),
        json!({"messages": words(PROMPT), "top_k": PROMPT}),
        json!({"messages": words(PROMPT), "model": PROMPT}),
    ] {
        let _ = kernel.chat(&token, &hello(more));
    }
    kernel.settled();
    gone_within(&kernel, PROMPT, IDLE, "prompts");
    assert!(!kernel.logs().contains(PROMPT));
}

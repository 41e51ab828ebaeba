//! Tokens and requests of any 60 seconds, of an agent, a group and the kernel.

use std::time::Duration;

use aex_tests::harness::{Kernel, wait_until};
use aex_tests::sim::{Behaviour, Sim};
use serde_json::{Value, json};

use super::{assert_above, make_group, member, quote};
use crate::common::{assert_error, assert_retry_after, hello, sim};

const WINDOW_MS: i64 = 60_000;
const RPM: usize = 10;

/// Sends `count` at the same moment, the tokens in turn; how many got 200. The others must be 429.
fn at_once(
    kernel: &Kernel,
    tokens: &[&str],
    count: usize,
    body: &Value,
    by: Option<&str>,
) -> usize {
    let answers: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|number| scope.spawn(move || kernel.chat(tokens[number % tokens.len()], body)))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        assert_error(answer, 429, "rate_limit_exceeded");
        assert_retry_after(answer);
        match by {
            Some(kind) => assert_above(answer, kind),
            None => assert_eq!(answer.json()["error"]["aex"]["limit"], 100),
        }
    }
    answers.iter().filter(|answer| answer.status == 200).count()
}

#[test]
fn of_fifty_requests_of_a_hundred_tokens_a_hundred_a_minute_let_one_pass() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let limit = ["--max-tokens-per-minute", "100"];
    let alone = member(&kernel, "alone", &limit);
    make_group(&kernel, "team", &limit);
    let one = member(&kernel, "one", &["--group", "team"]);
    let two = member(&kernel, "two", &["--group", "team"]);
    let other = member(&kernel, "other", &[]);

    let input = quote(&kernel, &alone, &hello(json!({"max_tokens": 1})))["input_tokens"].clone();
    let body = hello(json!({"max_tokens": 100 - input.as_u64().unwrap()}));
    sim.behave(Behaviour {
        delay_ms: 200,
        fill: true,
        ..Behaviour::default()
    });
    let passes_one = |tokens: &[&str], by: Option<&str>| {
        sim.reset();
        assert_eq!(at_once(&kernel, tokens, 50, &body, by), 1, "{by:?}");
        kernel.settled();
        assert_eq!(at_once(&kernel, tokens, 4, &body, by), 0, "{by:?}");
        assert_eq!(sim.bill().requests, 1);
    };
    passes_one(&[&alone], None);
    passes_one(&[&one, &two], Some("group"));
    // The kernel's counts what was used before, too.
    assert_eq!(kernel.chat(&other, &hello(json!({}))).status, 200);
    kernel.settled();
    kernel.aex_json(&["group", "set", "kernel", "--max-tokens-per-minute", "100"]);
    assert_eq!(at_once(&kernel, &[&other], 4, &body, Some("kernel")), 0);
    kernel.audit();
}

#[test]
fn a_limit_of_one_model_is_of_that_model_alone() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    make_group(
        &kernel,
        "team",
        &["--limit", "requests/minute@model:sim-free=1"],
    );
    let token = member(&kernel, "one", &["--group", "team"]);
    let free = hello(json!({"model": "sim-free"}));
    assert_eq!(kernel.chat(&token, &free).status, 200);
    let answer = kernel.chat(&token, &free);
    assert_error(&answer, 429, "rate_limit_exceeded");
    assert_above(&answer, "group");
    for _ in 0..3 {
        assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200);
    }
}

/// The kernel's scope, or a group's.
fn over_any_minute(name: &str, by: &str) {
    let sim = sim();
    // It mostly waits.
    let kernel = Kernel::builder().default_models(&sim).out_of_turn().start();
    if name != "kernel" {
        make_group(&kernel, name, &[]);
    }
    kernel.aex_json(&["group", "set", name, "--rpm", "10"]);
    let group: &[&str] = if name == "kernel" {
        &[]
    } else {
        &["--group", name]
    };
    let one = member(&kernel, "one", group);
    let two = member(&kernel, "two", group);
    let tokens = [one.as_str(), two.as_str()];
    let body = hello(json!({}));
    // Not all at one moment, so that they come free one after the other.
    assert_eq!(at_once(&kernel, &tokens, 5, &body, Some(by)), 5);
    kernel.settled();
    assert_eq!(at_once(&kernel, &tokens, 50, &body, Some(by)), 5);
    assert_eq!(sim.bill().requests, RPM as u64);
    restart(&kernel);
    assert_eq!(at_once(&kernel, &tokens, 20, &body, Some(by)), 0);

    // Asking all the time costs nothing.
    let all_served = wait_until(Duration::from_secs(90), || {
        let answer = kernel.chat(tokens[0], &body);
        assert!(matches!(answer.status, 200 | 429), "{}", answer.text());
        (sim.bill().requests >= 2 * RPM as u64).then_some(())
    });
    assert!(all_served.is_some(), "{:?}", sent_ms(&sim));
    restart(&kernel);
    assert_eq!(at_once(&kernel, &tokens, 20, &body, Some(by)), 0);
    let sent_ms = sent_ms(&sim);
    for minute in sent_ms.windows(RPM + 1) {
        assert!(minute[RPM] - minute[0] >= WINDOW_MS, "{sent_ms:?}");
    }
    kernel.audit();
}

fn restart(kernel: &Kernel) {
    let output = kernel.aex(&["daemon", "restart"]);
    assert!(output.status.success(), "{output:?}");
}

/// When each request came, by the simulator's clock.
fn sent_ms(sim: &Sim) -> Vec<i64> {
    sim.bill().log.iter().map(|request| request.at_ms).collect()
}

#[test]
fn never_eleven_of_ten_in_any_minute_across_a_restart() {
    std::thread::scope(|scope| {
        let group = scope.spawn(|| over_any_minute("team", "group"));
        over_any_minute("kernel", "kernel");
        group.join().unwrap();
    });
}

#[test]
fn who_asks_again_and_again_of_what_is_down_is_bounded_as_everybody_is() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 3, &[]);
    drop(sim);
    let statuses: Vec<u16> = (0..6)
        .map(|_| kernel.chat(&token, &hello(json!({}))).status)
        .collect();
    assert_eq!(statuses, [502, 502, 502, 429, 429, 429]);
    assert_eq!(kernel.agent("a")["spent_micro"], 0);
    kernel.audit();
}

//! Rates over any 60 seconds, and concurrency.

use std::time::Duration;

use aex_admin_proto::clock;
use aex_tests::harness::{Kernel, wait_for, wait_until};
use aex_tests::sim::Behaviour;
use serde_json::json;

use crate::common::{assert_error, assert_retry_after, hello, sim};

const WINDOW_MS: u64 = 60_000;

/// No edge of any window lets requests through twice: each slot comes free 60 s after its own use.
#[test]
fn requests_per_minute_hold_over_any_sixty_seconds() {
    const RPM: usize = 3;
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("paced", "1.00", RPM as u64, &[]);
    let mut sent_ms = Vec::new();
    for turn in 0..RPM {
        let spaced = wait_until(Duration::from_secs(10), || {
            let due = sent_ms
                .first()
                .map_or(0, |first| first + 2000 * turn as u64);
            (clock::boot_ms() >= due).then_some(())
        });
        assert!(spaced.is_some());
        sent_ms.push(clock::boot_ms());
        assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200);
    }
    // Refused requests do not count, so asking all the time costs nothing.
    for first in sent_ms.clone() {
        let served_ms = wait_until(Duration::from_secs(75), || {
            let asked_ms = clock::boot_ms();
            let answer = kernel.chat(&token, &hello(json!({})));
            if answer.status == 200 {
                return Some(asked_ms);
            }
            assert_error(&answer, 429, "rate_limit_exceeded");
            assert_eq!(answer.detail(), "RPM Rate limit exceeded");
            assert_retry_after(&answer);
            None
        });
        let waited_ms = served_ms.expect("the slot comes free") - first;
        // The slot is taken a moment after the request was sent, and freed as much later.
        assert!(
            (WINDOW_MS..WINDOW_MS + 1500).contains(&waited_ms),
            "{waited_ms}"
        );
    }
    assert_eq!(sim.bill().requests, 2 * RPM as u64);
}

#[test]
fn fifty_at_once_do_not_pass_a_limit_of_ten() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("burst", "1.00", 10, &[]);
    let served = at_once(&kernel, &token, 50);
    assert_eq!((served, sim.bill().requests), (10, 10));
    // A provider's failure keeps its slot.
    sim.behave(Behaviour {
        status: Some(500),
        ..Behaviour::default()
    });
    let token = kernel.create_agent("unlucky", "1.00", 1, &[]);
    assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 500);
    assert_error(
        &kernel.chat(&token, &hello(json!({}))),
        429,
        "rate_limit_exceeded",
    );
}

#[test]
fn fifty_at_once_do_not_pass_a_token_limit() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let limit = ["--max-tokens-per-minute", "1000"];
    let token = kernel.create_agent("burst", "1.00", 1000, &limit);
    at_once(&kernel, &token, 50);
    kernel.settled();
    let total = sim.bill().total();
    assert!(
        total.prompt_tokens + total.completion_tokens <= 1000,
        "{total:?}"
    );
    assert!(total.requests >= 5, "{total:?}");
    // More than the whole window holds: waiting cannot help.
    let answer = kernel.chat(&token, &hello(json!({"max_tokens": 5000})));
    assert_error(&answer, 429, "rate_limit_exceeded");
    assert_eq!(answer.header("x-should-retry"), Some("false"));
}

#[test]
fn concurrency_is_bounded() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    sim.behave(Behaviour {
        delay_ms: 400,
        ..Behaviour::default()
    });
    let token = kernel.create_agent("narrow", "1.00", 1000, &["--max-concurrency", "3"]);
    let served = at_once(&kernel, &token, 12);
    assert!(served >= 3, "{served}");
    assert!(
        sim.bill().peak_in_flight <= 3,
        "{}",
        sim.bill().peak_in_flight
    );
    wait_for("the three to end", || {
        (sim.bill().in_flight == 0).then_some(())
    });
    assert_eq!(
        kernel.chat(&token, &hello(json!({}))).status,
        200,
        "slots come back"
    );
}

/// Sends `count` requests at the same moment; how many got 200. The others must be 429.
fn at_once(kernel: &Kernel, token: &str, count: usize) -> usize {
    let answers: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|_| scope.spawn(|| kernel.chat(token, &hello(json!({})))))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        assert_error(answer, 429, "rate_limit_exceeded");
    }
    answers.iter().filter(|answer| answer.status == 200).count()
}

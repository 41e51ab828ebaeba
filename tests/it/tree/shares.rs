//! `--max-held`: one child cannot hold what its siblings need.

use aex_tests::harness::Kernel;
use serde_json::json;

use super::{assert_above, endless, make_group, member, quote, streamed};
use crate::common::{DEAR_MODEL, assert_error, sim};

fn abrupt(sim: &aex_tests::sim::Sim) -> Kernel {
    // Nobody is to wait for the money that comes free.
    Kernel::builder()
        .default_models_and(sim, "on_disconnect: abort\nhold_wait: 0s")
        .start()
}

#[test]
fn half_of_the_slots_are_left_to_a_sibling() {
    let sim = sim();
    let kernel = abrupt(&sim);
    sim.behave(endless());
    make_group(
        &kernel,
        "team",
        &["--max-concurrency", "4", "--max-held", "50%"],
    );
    let [greedy, modest] =
        ["greedy", "modest"].map(|name| member(&kernel, name, &["--group", "team"]));
    let body = streamed(&json!({"max_tokens": 4000}));
    let mut open = Vec::new();
    for token in [&greedy, &modest] {
        for _ in 0..2 {
            let events = kernel.chat_stream(token, &body);
            assert_eq!(events.head.status, 200);
            open.push(events);
        }
        let refused = kernel.chat(token, &body);
        assert_error(&refused, 429, "rate_limit_exceeded");
        assert_above(&refused, "group");
    }
    assert_eq!(sim.bill().peak_in_flight, 4);
    drop(open);
    kernel.settled();
    kernel.audit();
}

#[test]
fn half_of_the_money_is_left_to_a_sibling() {
    let sim = sim();
    let kernel = abrupt(&sim);
    sim.behave(endless());
    make_group(&kernel, "team", &["--max-held", "50%"]);
    let [greedy, modest] =
        ["greedy", "modest"].map(|name| member(&kernel, name, &["--group", "team"]));
    let body = streamed(&json!({"model": DEAR_MODEL, "max_tokens": 1000}));
    let hold = quote(&kernel, &greedy, &body)["hold_micro"]
        .as_u64()
        .unwrap();
    // Four of them are all that there is, in all or today.
    let micro = 4 * hold;
    let usd = format!("{}.{:06}", micro / 1_000_000, micro % 1_000_000);
    for (option, clear) in [
        ("--budget", ["--clear", "budget"]),
        ("--budget-per-day", ["--drop-limit", "money/day"]),
    ] {
        kernel.aex_json(&["group", "set", "team", option, &usd]);
        let mut open = Vec::new();
        for token in [&greedy, &modest] {
            for _ in 0..2 {
                let events = kernel.chat_stream(token, &body);
                assert_eq!(events.head.status, 200, "{option}: {:?}", events.head);
                open.push(events);
            }
            let refused = kernel.chat(token, &body);
            assert_error(&refused, 429, "budget_held");
        }
        assert_eq!(sim.bill().in_flight, 4, "{option}");
        kernel.aex_json(&["group", "set", "team", clear[0], clear[1]]);
        drop(open);
        kernel.settled();
        // What was spent counts in the budget: the next round begins with a group that has none.
    }
    kernel.audit();
}

//! Groups: their days, their pauses, agents that move, and what cannot be done.

use aex_admin_proto::clock;
use aex_tests::harness::{Kernel, wait_for};
use aex_tests::sim::Behaviour;
use serde_json::json;

use super::{assert_above, limit, make_group, make_run, member, scope, streamed};
use crate::common::{DEAR_MODEL, assert_error, bill_pico, hello, in_flight, sim, spent_pico};

const DAY_MS: i64 = 86_400_000;
/// Asia/Kolkata is always 5:30 ahead.
const AHEAD_MS: i64 = 19_800_000;

/// When the day ends there.
fn midnight_ms(now_ms: i64) -> i64 {
    ((now_ms + AHEAD_MS) / DAY_MS + 1) * DAY_MS - AHEAD_MS
}

#[test]
fn a_groups_day_is_counted_in_its_zone_and_its_figures_are_its_own() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    make_group(
        &kernel,
        "team",
        &[
            "--budget-per-day",
            "0.004321",
            "--time-zone",
            "Asia/Kolkata",
        ],
    );
    let one = member(&kernel, "one", &["--group", "team"]);
    let two = kernel.create_agent("two", "1.00", 1000, &["--group", "team"]);
    let own = member(
        &kernel,
        "own",
        &["--budget-per-day", "0.001", "--time-zone", "Asia/Kolkata"],
    );
    let dear = hello(json!({"model": DEAR_MODEL}));
    let before_ms = midnight_ms(clock::wall_ms());
    let day = || limit(&kernel.aex_json(&["group", "show", "team"]), "money/day");

    let untouched = day();
    assert_eq!(
        (&untouched["used"], &untouched["held"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(untouched["left"], 4321);
    assert_eq!(kernel.chat(&one, &dear).status, 200);
    kernel.settled();
    let used = spent_pico(&kernel, "one") / 1_000_000;
    assert!(used > 1000, "{used}");
    let after = day();
    assert_eq!(
        (&after["used"], &after["left"]),
        (&json!(used), &json!(4321 - used))
    );

    sim.behave(Behaviour {
        delay_ms: 60_000,
        ..Behaviour::default()
    });
    let open = in_flight(&kernel, &sim, &one, &hello(json!({})));
    let held = day();
    let holds = held["held"].as_i64().unwrap();
    assert!(holds > 0, "{held}");
    assert_eq!(held["left"], 4321 - used - holds);

    // Another of the group learns that there is a group, and nothing else of it.
    let refused = kernel.chat(
        &two,
        &hello(json!({"model": DEAR_MODEL, "max_tokens": 100})),
    );
    assert_error(&refused, 402, "insufficient_budget");
    assert_above(&refused, "group");
    for hidden in ["team", "4321", "day"] {
        assert!(!refused.text().contains(hidden), "{}", refused.text());
    }
    let refused = kernel.chat(&own, &dear);
    assert_error(&refused, 402, "insufficient_budget");
    let figures = refused.json()["error"]["aex"].clone();
    assert_eq!(
        (&figures["scope"], &figures["limit"]),
        (&json!("own"), &json!("money/day"))
    );
    assert_eq!(figures["remaining"], 1000);
    assert!(figures["needed"].as_i64().unwrap() > 1000, "{figures}");
    // It may have become midnight.
    let midnights = [before_ms, midnight_ms(clock::wall_ms())];
    for resets in [&figures["resets_at_ms"], &held["resets_at_ms"]] {
        assert!(midnights.contains(&resets.as_i64().unwrap()), "{resets}");
    }
    drop(open);
    kernel.aex_json(&["group", "sever", "team"]);
    kernel.settled();
    kernel.audit();
}

#[test]
fn a_charge_stays_with_the_group_where_it_was_held() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    for name in ["old", "new"] {
        make_group(
            &kernel,
            name,
            &["--budget", "0.50", "--budget-per-day", "0.50"],
        );
    }
    let token = member(&kernel, "a", &["--group", "old"]);
    sim.behave(Behaviour {
        delay_ms: 10,
        chunk_delay_ms: 20,
        natural_tokens: Some(100),
        times: Some(1),
        ..Behaviour::default()
    });
    let body = streamed(&json!({"model": DEAR_MODEL, "max_tokens": 100}));
    let mut events = kernel.chat_stream(&token, &body);
    assert!(events.nth(3).is_some());
    let moved = kernel.aex_json(&["agent", "set", "a", "--group", "new"]);
    assert_eq!(moved["group"], "new");
    let view = |name| {
        let view = scope(&kernel, name);
        let day = limit(&view, "money/day");
        (
            view["spent_micro"].clone(),
            view["reserved_micro"].clone(),
            day["used"].clone(),
        )
    };
    assert!(
        view("old").1.as_i64().unwrap() > 0,
        "what is open stays where it was held"
    );
    assert_eq!(view("new"), (json!(0), json!(0), json!(0)));
    assert!(events.by_ref().last().is_some() && events.complete);
    kernel.settled();
    let first = bill_pico(&sim.bill()) / 1_000_000;
    assert_eq!(view("old"), (json!(first), json!(0), json!(first)));
    assert_eq!(view("new").0, 0);

    assert_eq!(
        kernel
            .chat(&token, &hello(json!({"model": DEAR_MODEL})))
            .status,
        200
    );
    kernel.settled();
    let second = bill_pico(&sim.bill()) / 1_000_000 - first;
    assert_eq!(view("old").0, first);
    assert_eq!(view("new"), (json!(second), json!(0), json!(second)));
    assert_eq!(scope(&kernel, "a")["spent_micro"], first + second);
    kernel.audit();
}

#[test]
fn a_pause_holds_for_all_below_and_only_what_is_empty_can_be_deleted() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    make_group(&kernel, "house", &[]);
    make_group(&kernel, "room", &["--parent", "house"]);
    let token = member(&kernel, "a", &["--group", "room"]);
    let run = make_run(&kernel, &token, &json!({}));
    let outside = member(&kernel, "outside", &[]);
    let body = hello(json!({}));

    kernel.aex_json(&["group", "pause", "house"]);
    for paused in [&token, &run.token] {
        assert_error(&kernel.chat(paused, &body), 423, "agent_paused");
    }
    assert_eq!(kernel.chat(&outside, &body).status, 200);
    kernel.aex_json(&["group", "resume", "house"]);
    assert_eq!(kernel.chat(&run.token, &body).status, 200);

    let refused = |args: &[&str], code: i32, why: &str| {
        let output = kernel.aex(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(why), "{args:?}: {said}");
    };
    refused(&["group", "delete", "house"], 5, "group room");
    refused(&["group", "delete", "room"], 5, "agent a");
    refused(&["group", "delete", "kernel"], 2, "kernel");
    refused(&["group", "create", "room"], 5, "aex group set room");
    refused(&["group", "show", "nobody"], 4, "aex group list");
    refused(
        &["group", "set", "house", "--parent", "room"],
        2,
        "below itself",
    );
    refused(
        &["group", "set", "kernel", "--parent", "room"],
        2,
        "no parent",
    );
    refused(&["agent", "set", "a", "--group", "nobody"], 4, "nobody");
    refused(
        &["group", "set", "room", "--limit", "tokens/day@model:nope=5"],
        2,
        "no such model",
    );
    refused(
        &["group", "set", "room", "--limit", "tokens@provider:nope=5"],
        2,
        "no such provider",
    );
    refused(
        &["group", "set", "room", "--time-zone", "Mars/Olympus"],
        2,
        "time zone",
    );

    kernel.aex_json(&["agent", "set", "a", "--group", "kernel"]);
    for name in ["room", "house"] {
        kernel.aex_json(&["group", "delete", name]);
    }
    assert_eq!(kernel.chat(&token, &body).status, 200);
    refused(&["group", "create", "room"], 5, "taken by a deleted group");
    refused(&["agent", "set", "a", "--group", "room"], 4, "deleted");
    wait_for("the last settle", || kernel.holds_nothing().then_some(()));
    kernel.audit();
}

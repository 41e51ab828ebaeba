//! What a token's holder may ask: itself, and what a request would come to. Nothing is held or booked.

use aex_tests::harness::Kernel;
use aex_tests::sim::Behaviour;
use serde_json::{Value, json};

use super::{limit, make_group, make_run, member, quote};
use crate::common::{MODEL, assert_error, hello, in_flight, sim};

/// All that the ledger has.
fn booked(kernel: &Kernel) -> String {
    kernel.sqlite(
        "SELECT * FROM agents; SELECT * FROM nodes; SELECT * FROM counters; \
         SELECT COUNT(*) FROM events; SELECT COUNT(*) FROM holds;",
    )
}

fn read_only(kernel: &Kernel, agent: &str) -> String {
    let reply = kernel.aex_json(&["token", "create", agent, "--read-only"]);
    reply["token"].as_str().expect("a token").to_owned()
}

#[test]
fn me_shows_the_tokens_own_scope_and_nothing_above_it() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    make_group(&kernel, "secret-team", &["--budget", "0.777777"]);
    let options = [
        "--group",
        "secret-team",
        "--budget-per-day",
        "0.40",
        "--max-tokens",
        "5000",
    ];
    let token = kernel.create_agent("a", "0.543210", 1000, &options);
    let looks = read_only(&kernel, "a");
    let run = make_run(
        &kernel,
        &token,
        &json!({"budget_micro": 1234, "max_tokens": 300}),
    );

    assert_eq!(kernel.chat(&run.token, &hello(json!({}))).status, 200);
    kernel.settled();
    let before = booked(&kernel);
    let me = kernel.get("/v1/aex/me", &token);
    assert_eq!(me.status, 200, "{}", me.text());
    assert_eq!(kernel.get("/v1/aex/me", &looks).json(), me.json());
    let own = me.json();
    assert_eq!((&own["kind"], &own["name"]), (&json!("agent"), &json!("a")));
    assert_eq!(own["budget_micro"], 543_210);
    assert_eq!(own["parent"], Value::Null);
    let tokens = limit(&own, "tokens");
    assert!(tokens["used"].as_i64().unwrap() > 20, "{tokens}");
    assert_eq!(tokens["left"], 5000 - tokens["used"].as_i64().unwrap());
    assert!(limit(&own, "money/day")["resets_at_ms"].is_i64());
    assert!(
        !me.text().contains("secret") && !me.text().contains("777777"),
        "{}",
        me.text()
    );

    let of_run = kernel.get("/v1/aex/me", &run.token);
    let own = of_run.json();
    assert_eq!(
        (&own["kind"], &own["name"]),
        (&json!("run"), &json!(run.name))
    );
    assert_eq!(own["budget_micro"], 1234);
    assert_eq!(limit(&own, "tokens")["used"], tokens["used"]);
    for hidden in ["543210", "5000", "secret", "400000", "777777"] {
        assert!(
            !of_run.text().contains(hidden),
            "{hidden} in {}",
            of_run.text()
        );
    }
    assert_eq!(booked(&kernel), before);

    // What is held is told while it is.
    sim.behave(Behaviour {
        delay_ms: 60_000,
        ..Behaviour::default()
    });
    let open = in_flight(&kernel, &sim, &token, &hello(json!({})));
    let me = kernel.get("/v1/aex/me", &token).json();
    assert_eq!(me["in_flight"], 1);
    assert!(me["reserved_micro"].as_i64().unwrap() > 0, "{me}");
    assert!(limit(&me, "tokens")["held"].as_i64().unwrap() > 20, "{me}");
    drop(open);
    assert_error(
        &kernel.get("/v1/aex/me", "aex_wrong"),
        401,
        "invalid_api_key",
    );
    kernel.aex_json(&["agent", "sever", "a"]);
    kernel.settled();
}

#[test]
fn a_quote_says_what_would_be_held_and_holds_nothing() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    make_group(&kernel, "team", &["--max-tokens-per-minute", "1000"]);
    let token = kernel.create_agent("a", "0.001", 1, &["--group", "team"]);
    let ask = |token: &str, body: Value| kernel.post("/v1/aex/quote", token, &body);
    let before = booked(&kernel);

    let told = quote(&kernel, &token, &hello(json!({})));
    assert_eq!(
        (&told["output_cap"], &told["provider"]),
        (&json!(20), &json!("sim"))
    );
    let (hold, input) = (
        told["hold_micro"].as_u64().unwrap(),
        told["input_tokens"].as_u64().unwrap(),
    );
    let pico = input * Kernel::INPUT_PICO + 20 * Kernel::OUTPUT_PICO;
    assert_eq!(hold, pico.div_ceil(1_000_000), "{told}");
    for (route, field) in [
        ("/v1/completions", json!({"prompt": "x", "max_tokens": 20})),
        (
            "/v1/responses",
            json!({"input": "x", "max_output_tokens": 20}),
        ),
    ] {
        let mut request = field;
        request["model"] = json!(MODEL);
        let answer = ask(&token, json!({"route": route, "request": request}));
        assert_eq!(answer.json()["passes"], true, "{}", answer.text());
        assert_eq!(answer.json()["output_cap"], 20, "{}", answer.text());
    }

    for (request, status, code) in [
        (
            hello(json!({"max_tokens": 10_000})),
            402,
            "insufficient_budget",
        ),
        (
            hello(json!({"max_tokens": 1000})),
            429,
            "rate_limit_exceeded",
        ),
        (hello(json!({"model": "nope"})), 404, "model_not_found"),
        (
            hello(json!({"max_tokens": 100_000})),
            400,
            "invalid_request",
        ),
    ] {
        let answer = ask(&token, json!({ "request": request }));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let told = answer.json();
        assert_eq!(told["passes"], false, "{told}");
        assert_eq!(
            (&told["status"], &told["code"]),
            (&json!(status), &json!(code)),
            "{told}"
        );
        assert!(!told["detail"].as_str().unwrap().is_empty());
        match status {
            402 => assert_eq!(told["aex"]["scope"], "a", "{told}"),
            429 => assert_eq!(told["aex"], json!({"scope": "group"}), "{told}"),
            _ => {}
        }
    }
    for bad in [
        json!({}),
        json!({"request": {"model": 7}}),
        json!({"request": "text"}),
        json!({"request": hello(json!({})), "route": "/v1/files"}),
        json!({"request": hello(json!({})), "more": 1}),
    ] {
        assert_error(&ask(&token, bad), 400, "invalid_request");
    }
    assert_error(
        &ask("aex_wrong", json!({"request": hello(json!({}))})),
        401,
        "invalid_api_key",
    );
    assert_eq!(booked(&kernel), before);
    assert_eq!(sim.bill().requests, 0);
    // The only request of the minute is still there.
    assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200);
    kernel.settled();
    kernel.audit();
}

#[test]
fn a_read_only_token_looks_and_does_nothing() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = member(&kernel, "a", &[]);
    let looks = read_only(&kernel, "a");
    let run = make_run(&kernel, &token, &json!({}));
    let before = booked(&kernel);

    let refused = kernel.chat(&looks, &hello(json!({})));
    assert_error(&refused, 403, "capability_not_allowed");
    assert!(refused.detail().contains("read-only"), "{}", refused.text());
    let refused = kernel.post("/v1/aex/runs", &looks, &json!({}));
    assert_error(&refused, 403, "capability_not_allowed");
    let refused = super::end_run(&kernel, &looks, &run.name);
    assert_error(&refused, 403, "capability_not_allowed");

    assert_eq!(kernel.get("/v1/aex/me", &looks).json()["name"], "a");
    assert_eq!(kernel.get("/v1/models", &looks).status, 200);
    // What its agent would get.
    let own = quote(&kernel, &token, &hello(json!({})));
    assert_eq!(quote(&kernel, &looks, &hello(json!({}))), own);
    assert_eq!(booked(&kernel), before);
    assert_eq!(sim.bill().requests, 0);
}

//! What is charged for what: the simulator's own bill against the ledger.

use aex_tests::harness::{Kernel, wait_for};
use aex_tests::sim::{Behaviour, Ended, Sim};
use serde_json::{Value, json};

use crate::common::{assert_error, bill_pico, hello, in_flight, sim, spent_pico};

/// A kernel on `sim` with one rich agent.
pub(crate) fn rich(sim: &Sim) -> (Kernel, String) {
    let kernel = Kernel::on(sim);
    let token = kernel.create_agent("rich", "5.00", 10_000, &[]);
    (kernel, token)
}

/// Sends one request and returns what it was charged and billed, in picodollars.
pub(crate) fn charged(
    kernel: &Kernel,
    sim: &Sim,
    token: &str,
    behaviour: Behaviour,
    body: &Value,
) -> (i64, i64) {
    let (spent, bill) = (spent_pico(kernel, "rich"), bill_pico(&sim.bill()));
    sim.behave(behaviour);
    if body["stream"] == true {
        let mut events = kernel.chat_stream(token, body);
        events.by_ref().for_each(drop);
    } else {
        let _ = kernel.chat(token, body);
    }
    kernel.settled();
    sim.behave(Behaviour::default());
    wait_for("the simulator's end", || {
        (sim.bill().in_flight == 0).then_some(())
    });
    (
        spent_pico(kernel, "rich") - spent,
        bill_pico(&sim.bill()) - bill,
    )
}

#[test]
fn a_budget_is_an_exact_decimal() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    for (text, micro) in [
        ("2.01", 2_010_000),
        ("0.000001", 1),
        ("5", 5_000_000),
        ("19.99", 19_990_000),
    ] {
        let name = format!("agent-{micro}");
        let reply = kernel.aex_json(&["agent", "create", &name, text, "1"]);
        assert_eq!(reply["budget_micro"], micro, "{text}");
        let stored = kernel.sqlite_number(&format!(
            "SELECT budget_micro FROM agents WHERE name='{name}'"
        ));
        assert_eq!(stored, micro);
    }
}

#[test]
fn every_shape_of_usage_is_charged_to_the_picodollar() {
    let sim = sim();
    let (kernel, token) = rich(&sim);
    let cases: [(&str, Behaviour, Value); 7] = [
        ("as it comes", Behaviour::default(), json!({})),
        (
            "cached",
            Behaviour {
                cached_tokens: 6,
                ..Behaviour::default()
            },
            json!({}),
        ),
        ("three choices", Behaviour::default(), json!({"n": 3})),
        (
            "reasoning",
            Behaviour {
                reasoning_tokens: 7,
                ..Behaviour::default()
            },
            json!({}),
        ),
        (
            "groq's two",
            Behaviour {
                x_groq: true,
                ..Behaviour::default()
            },
            json!({}),
        ),
        (
            "comments",
            Behaviour {
                comments: true,
                ..Behaviour::default()
            },
            json!({}),
        ),
        (
            "bundled",
            Behaviour {
                tokens_per_chunk: Some(9),
                ..Behaviour::default()
            },
            json!({}),
        ),
    ];
    for (name, behaviour, more) in cases {
        for stream in [false, true] {
            let mut body = hello(more.clone());
            body["stream"] = json!(stream);
            let (charge, bill) = charged(&kernel, &sim, &token, behaviour.clone(), &body);
            assert_eq!(charge, bill, "{name}, stream {stream}");
            assert!(bill > 0);
        }
    }
    kernel.audit();
}

#[test]
fn a_thousandth_of_a_cent_adds_up() {
    let sim = sim();
    let (kernel, token) = rich(&sim);
    let body = hello(json!({"max_tokens": 1, "messages": [{"role": "user", "content": "a"}]}));
    for _ in 0..50 {
        assert_eq!(kernel.chat(&token, &body).status, 200);
    }
    // Each costs 0.9 micro-dollars: rounded singly it would be 50 or nothing.
    assert_eq!(spent_pico(&kernel, "rich"), 50 * (8 * 75_000 + 300_000));
    assert_eq!(
        kernel.sqlite_number("SELECT spent_micro FROM agents WHERE name='rich'"),
        45
    );
    kernel.audit();
}

#[test]
fn a_missing_or_unbelievable_usage_is_not_free() {
    let sim = sim();
    let (kernel, token) = rich(&sim);
    let bent = |usage: Value| Behaviour {
        usage: Some(usage),
        ..Behaviour::default()
    };
    let cases = [
        (
            "missing",
            Behaviour {
                omit_usage: true,
                ..Behaviour::default()
            },
        ),
        ("null", bent(json!(null))),
        (
            "negative",
            bent(json!({"prompt_tokens": -5, "completion_tokens": -5})),
        ),
        (
            "fractional",
            bent(json!({"prompt_tokens": 1.5, "completion_tokens": 2})),
        ),
        (
            "text",
            bent(json!({"prompt_tokens": "1", "completion_tokens": "2"})),
        ),
        (
            "absurd",
            bent(json!({"prompt_tokens": 1u64 << 62, "completion_tokens": 1})),
        ),
        ("no object", bent(json!([1, 2]))),
    ];
    for (name, behaviour) in cases {
        for stream in [false, true] {
            let body = hello(json!({"stream": stream}));
            let (charge, bill) = charged(&kernel, &sim, &token, behaviour.clone(), &body);
            assert!(
                charge >= bill && bill > 0,
                "{name}, stream {stream}: {charge} of {bill}"
            );
            assert!(
                charge < 100 * bill,
                "{name}, stream {stream}: {charge} of {bill}"
            );
        }
    }
    kernel.audit();
}

#[test]
fn an_explicit_zero_is_not_missing() {
    let sim = sim();
    let (kernel, token) = rich(&sim);
    let zero = Behaviour {
        usage: Some(json!({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0})),
        ..Behaviour::default()
    };
    let (charge, _) = charged(&kernel, &sim, &token, zero, &hello(json!({})));
    assert_eq!(charge, 0);
}

#[test]
fn a_bill_above_the_hold_is_booked_and_stops_the_agent() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    for stream in [false, true] {
        sim.reset();
        let name = format!("overrun-{stream}");
        let token = kernel.create_agent(&name, "0.0005", 1000, &[]);
        // The provider ignores the cap: 20 tokens asked for, 5000 billed.
        sim.behave(Behaviour {
            ignore_cap: true,
            natural_tokens: Some(5000),
            ..Behaviour::default()
        });
        let body = hello(json!({"stream": stream}));
        if stream {
            let last = kernel.chat_stream(&token, &body).last().unwrap();
            assert_eq!(last.json()["error"]["code"], "upstream_error");
        } else {
            assert_eq!(kernel.chat(&token, &body).status, 200);
        }
        kernel.settled();
        let (spent, bill) = (spent_pico(&kernel, &name), bill_pico(&sim.bill()));
        // A stream is cut on its way, and what nobody told is bounded.
        assert!(
            spent == bill || (stream && spent > bill),
            "{spent} of {bill}"
        );
        assert!(
            spent > 500 * 1_000_000,
            "the test means it to pass the budget"
        );
        assert_error(&kernel.chat(&token, &body), 402, "insufficient_budget");
    }
    let overruns = kernel.aex_json(&["metrics"])["overruns"].as_u64();
    assert_eq!(overruns, Some(2));
    let flagged =
        kernel.sqlite("SELECT COUNT(*) FROM events WHERE CAST(detail AS TEXT) LIKE '%overrun%'");
    assert_ne!(flagged, "0", "the event says so");
    kernel.audit();
}

#[test]
fn an_answer_far_above_its_cap_without_a_usage_is_no_cheap_one() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    sim.behave(Behaviour {
        ignore_cap: true,
        omit_usage: true,
        natural_tokens: Some(5000),
        tokens_per_chunk: Some(4096),
        ..Behaviour::default()
    });
    for (name, body) in [
        ("plain", hello(json!({}))),
        ("streamed", hello(json!({"stream": true}))),
    ] {
        sim.reset();
        let token = kernel.create_agent(name, "0.0005", 1000, &[]);
        if name == "plain" {
            assert_eq!(kernel.chat(&token, &body).status, 200);
        } else {
            kernel.chat_stream(&token, &body).for_each(drop);
        }
        kernel.settled();
        let (spent, bill) = (spent_pico(&kernel, name), bill_pico(&sim.bill()));
        assert!(spent >= bill, "{name}: {spent} of {bill}");
        assert_error(&kernel.chat(&token, &body), 402, "insufficient_budget");
    }
    kernel.audit();
}

#[test]
fn who_hangs_up_in_mid_stream_pays() {
    let sim = sim();
    for (on_disconnect, ended) in [("drain", Ended::Complete), ("abort", Ended::Cut)] {
        let more = format!("on_disconnect: {on_disconnect}\n");
        let kernel = Kernel::builder().default_models_and(&sim, &more).start();
        let token = kernel.create_agent("rich", "5.00", 1000, &[]);
        sim.reset();
        sim.behave(Behaviour {
            chunk_delay_ms: 10,
            natural_tokens: Some(100),
            ..Behaviour::default()
        });
        let body = hello(json!({"stream": true, "max_tokens": 100}));
        let mut events = kernel.chat_stream(&token, &body);
        assert!(events.nth(3).is_some());
        drop(events);
        kernel.settled();
        wait_for("the provider's end", || {
            (sim.bill().in_flight == 0).then_some(())
        });
        let (bill, spent) = (sim.bill(), spent_pico(&kernel, "rich"));
        assert_eq!(bill.log[0].ended, ended, "{on_disconnect}");
        assert!(bill_pico(&bill) > 0);
        if ended == Ended::Complete {
            assert_eq!(spent, bill_pico(&bill));
        } else {
            assert!(spent >= bill_pico(&bill), "{spent} of {}", bill_pico(&bill));
        }
        kernel.audit();
    }
}

#[test]
fn who_hangs_up_before_the_answer_pays() {
    let sim = sim();
    let (kernel, token) = rich(&sim);
    sim.behave(Behaviour {
        delay_ms: 300,
        ..Behaviour::default()
    });
    drop(in_flight(&kernel, &sim, &token, &hello(json!({}))));
    kernel.settled();
    assert_eq!(spent_pico(&kernel, "rich"), bill_pico(&sim.bill()));
    kernel.audit();
}

#[test]
fn a_refusing_provider_costs_nothing_and_keeps_its_answer() {
    let sim = sim();
    let (kernel, token) = rich(&sim);
    for status in [400, 404, 422, 429, 500, 503, 529] {
        sim.behave(Behaviour {
            status: Some(status),
            headers: [
                ("retry-after".to_owned(), "7".to_owned()),
                ("x-ratelimit-limit-requests".to_owned(), "9".to_owned()),
            ]
            .into(),
            ..Behaviour::default()
        });
        let answer = kernel.chat(&token, &hello(json!({"stream": status % 2 == 0})));
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("retry-after"), Some("7"));
        assert_eq!(answer.header("x-ratelimit-limit-requests"), Some("9"));
        let body = answer.json();
        assert_eq!(
            body["error"]["type"], "sim_error",
            "the provider's own body: {body}"
        );
        assert!(body["detail"].is_string(), "{body}");
    }
    kernel.settled();
    assert_eq!(spent_pico(&kernel, "rich"), 0);
    kernel.audit();
}

#[test]
fn a_provider_that_nobody_knows_the_end_of_is_charged() {
    let sim = sim();
    let (kernel, token) = rich(&sim);
    let cut = Behaviour {
        cut_after_chunks: Some(5),
        ..Behaviour::default()
    };
    let gateway = |status| Behaviour {
        status: Some(status),
        ..Behaviour::default()
    };
    for (name, behaviour, stream) in [
        ("cut stream", cut.clone(), true),
        ("cut answer", cut, false),
        ("502", gateway(502), false),
        ("504", gateway(504), false),
        (
            "unreadable",
            Behaviour {
                raw_body: Some("{".into()),
                ..Behaviour::default()
            },
            false,
        ),
    ] {
        let body = hello(json!({"stream": stream}));
        let (charge, bill) = charged(&kernel, &sim, &token, behaviour, &body);
        assert!(charge >= bill && charge > 0, "{name}: {charge} of {bill}");
    }
    kernel.audit();
}

#[test]
fn an_unreachable_provider_costs_nothing() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("rich", "5.00", 1000, &[]);
    drop(sim);
    let answer = kernel.chat(&token, &hello(json!({})));
    assert_error(&answer, 502, "upstream_error");
    kernel.settled();
    assert_eq!(spent_pico(&kernel, "rich"), 0);
    assert_eq!(kernel.agent("rich")["reserved_micro"], 0);
    kernel.audit();
}

#[test]
fn a_cap_that_cannot_be_afforded_is_answered_with_one_that_can() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("poor", "0.001", 1000, &[]);
    let refusal = kernel.chat(&token, &hello(json!({"max_tokens": 60_000})));
    assert_error(&refusal, 402, "insufficient_budget");
    let figures = refusal.json()["error"]["aex"].clone();
    let affordable = figures["affordable_output_tokens"]
        .as_u64()
        .expect("figures");
    assert!((100..=3333).contains(&affordable), "{figures}");
    // Asking for as much is granted.
    let answer = kernel.chat(&token, &hello(json!({"max_tokens": affordable})));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(sim.bill().requests, 1);
}

#[test]
fn free_models_cost_nothing_and_unpriced_ones_are_refused() {
    let sim = sim();
    let yaml = format!(
        "providers:
  sim: {{ base_url: 'http://{}/v1' }}
  far: {{ base_url: 'https://provider.invalid/v1' }}
models:
  sim-free: {{ provider: sim, price: free }}
  local: {{ provider: sim }}
  mystery: {{ provider: far }}
",
        sim.addr
    );
    let kernel = Kernel::builder().models_yaml(yaml).start();
    let token = kernel.create_agent("penniless", "0.000001", 1000, &[]);
    for model in ["sim-free", "local"] {
        assert_eq!(
            kernel.chat(&token, &hello(json!({"model": model}))).status,
            200,
            "{model}"
        );
    }
    kernel.settled();
    assert_eq!(spent_pico(&kernel, "penniless"), 0);
    let refusal = kernel.chat(&token, &hello(json!({"model": "mystery"})));
    assert_error(&refusal, 403, "model_not_priced");
    assert_eq!(refusal.detail(), "Model not priced");
}

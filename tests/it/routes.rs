//! The routes beside chat, and what holds on all of them: exact charges, streams as they came, prompts
//! counted where their bytes would refuse, streams that outrun their hold.

use std::thread;

use aex_tests::harness::{Kernel, process, wait_for};
use aex_tests::http::Event;
use aex_tests::sim::{Behaviour, Sim};
use serde_json::{Value, json};

use crate::common::{MODEL, assert_error, bill_pico, sim, spent_pico};

const ROUTES: [&str; 4] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
];

/// A short request of a route; `more` is laid over it.
#[expect(clippy::needless_pass_by_value, reason = "callers write json!({...})")]
fn small(route: &str, more: Value) -> Value {
    let mut body = match route {
        "/v1/chat/completions" => {
            json!({"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 20})
        }
        "/v1/completions" => json!({"prompt": "Say hello.", "max_tokens": 20}),
        "/v1/embeddings" => json!({"input": ["Say hello.", "And more."]}),
        _ => json!({"input": "Say hello.", "max_output_tokens": 20}),
    };
    body["model"] = json!(MODEL);
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

#[test]
fn every_route_is_charged_what_the_provider_bills() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    for route in ROUTES {
        let before = (spent_pico(&kernel, "a"), bill_pico(&sim.bill()));
        let answer = kernel.post(route, &token, &small(route, json!({})));
        assert_eq!(answer.status, 200, "{route}: {}", answer.text());
        let cost: i64 = answer.header("x-aex-cost-micro").unwrap().parse().unwrap();
        assert!(cost >= 0 && answer.header("x-aex-request-id").is_some());
        kernel.settled();
        let charged = spent_pico(&kernel, "a") - before.0;
        assert_eq!(charged, bill_pico(&sim.bill()) - before.1, "{route}");
        assert!(charged > 0, "{route}");
        let received = sim.bill().log.last().unwrap().clone();
        assert_eq!(received.path, route);
    }
    let events = kernel.sqlite(
        "SELECT COUNT(*) FROM events WHERE action='usage.commit' \
         AND json_extract(CAST(detail AS TEXT), '$.basis')='exact'",
    );
    assert_eq!(events, "4");
    kernel.audit();
}

#[test]
fn a_responses_stream_comes_as_it_was_sent_and_tells_its_usage_at_the_end() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let body = small("/v1/responses", json!({"stream": true}));
    let events: Vec<Event> = kernel.post_stream("/v1/responses", &token, &body).collect();
    let kinds: Vec<String> = events
        .iter()
        .map(|event| event.json()["type"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(kinds[0], "response.created");
    assert_eq!(kinds.last().unwrap(), "response.incomplete", "{kinds:?}");
    let deltas = kinds
        .iter()
        .filter(|kind| kind.ends_with("output_text.delta"));
    assert_eq!(deltas.count(), 20);
    assert!(!events.last().unwrap().json()["response"]["usage"].is_null());
    kernel.settled();
    assert_eq!(spent_pico(&kernel, "a"), bill_pico(&sim.bill()));
    let received = sim.bill().log[0].body.clone();
    assert_eq!(received.get("stream_options"), None);
    assert_eq!(received["max_output_tokens"], 20);
    kernel.audit();
}

/// A model with a public tokenizer, at a price at which a few thousand tokens are a cent.
const COUNTED: &str = "  counted:
    provider: sim
    price: { input_per_mtok: 10, output_per_mtok: 10 }
    tokenizer: o200k_base
    hidden_output: false
  counted-older:
    provider: sim
    price: { input_per_mtok: 10, output_per_mtok: 10 }
    tokenizer: cl100k_base
    hidden_output: false
";

fn counting_kernel(sim: &Sim) -> Kernel {
    Kernel::builder().default_models_and(sim, COUNTED).start()
}

#[test]
fn a_prompt_that_fits_by_its_tokens_is_not_refused_for_its_bytes() {
    let sim = sim();
    let kernel = counting_kernel(&sim);
    // 20,000 bytes are 0.20 USD, their 4,000 tokens 0.04.
    let text = "word ".repeat(4000);
    for route in ROUTES {
        let agent = route.replace('/', "-");
        let token = kernel.create_agent(&agent[1..], "0.10", 1000, &[]);
        let field = match route {
            "/v1/chat/completions" => json!({"messages": [{"role": "user", "content": text}]}),
            "/v1/completions" => json!({"prompt": text}),
            _ => json!({"input": text}),
        };
        for model in ["counted", "counted-older"] {
            let mut body = small(route, field.clone());
            body["model"] = json!(model);
            let answer = kernel.post(route, &token, &body);
            assert_eq!(answer.status, 200, "{route}: {}", answer.text());
        }
        let mut body = small(route, field);
        body["model"] = json!("counted");
        let answer = kernel.post(route, &token, &body);
        assert_error(&answer, 402, "insufficient_budget");
    }
    // The text of a model without a tokenizer is bounded by its bytes.
    let token = kernel.create_agent("bytes", "0.10", 1000, &[]);
    let body = json!({"model": "sim-large", "prompt": text, "max_tokens": 20});
    assert_error(
        &kernel.post("/v1/completions", &token, &body),
        402,
        "insufficient_budget",
    );
    kernel.settled();
    kernel.audit();
}

#[test]
fn both_tokenizers_together_take_at_most_110_mb_of_a_worker() {
    const MOST_KB: u64 = 110 * 1024;
    let sim = sim();
    let kernel = Kernel::builder()
        .workers(1)
        .default_models_and(&sim, COUNTED)
        .start();
    let token = kernel.create_agent("a", "0.10", 1000, &[]);
    let worker = kernel.worker_pids()[0];
    // Its own memory: the program's file, with the tables as they are shipped, is shared by all workers.
    let resident = || process::status_kb(worker, "RssAnon:").unwrap();
    let before_kb = resident();
    for model in ["counted", "counted-older"] {
        let mut body = small("/v1/completions", json!({"prompt": "word ".repeat(4000)}));
        body["model"] = json!(model);
        assert_eq!(kernel.post("/v1/completions", &token, &body).status, 200);
    }
    let more_kb = resident() - before_kb;
    println!("both tokenizers: {more_kb} kB");
    assert!((10_000..=MOST_KB).contains(&more_kb), "{more_kb} kB");
}

#[test]
fn a_stream_that_outruns_its_hold_ends_with_one_error() {
    // The contract's 250 ms, four times over.
    const LIMIT_MS: u64 = 1_000;
    let sim = sim();
    let kernel = Kernel::on(&sim);
    for route in ["/v1/chat/completions", "/v1/completions", "/v1/responses"] {
        let agent = route.replace('/', "-");
        let token = kernel.create_agent(&agent[1..], "1.00", 1000, &[]);
        sim.reset();
        sim.behave(Behaviour {
            ignore_cap: true,
            natural_tokens: Some(100_000),
            chunk_delay_ms: 2,
            ..Behaviour::default()
        });
        let body = small(route, json!({"stream": true}));
        let mut events = kernel.post_stream(route, &token, &body);
        let seen: Vec<Event> = events.by_ref().collect();
        assert!(events.complete, "{route}: a well-formed end");
        let (error, rest) = seen.split_last().unwrap();
        assert_eq!(
            error.json()["error"]["code"],
            "upstream_error",
            "{route}: {error:?} after {}",
            rest.len()
        );
        assert!(rest.iter().all(|event| event.json().get("error").is_none()));
        // Each event is a token; from the 21st on it is more than was held.
        let outran_ms = rest[rest.len().min(20 + 5) - 1].at_ms;
        assert!(error.at_ms - outran_ms < LIMIT_MS, "{route}");
        wait_for("the provider's stream to be ended", || {
            (sim.bill().in_flight == 0).then_some(())
        });
        kernel.settled();
        let (spent, bill) = (spent_pico(&kernel, &agent[1..]), bill_pico(&sim.bill()));
        assert!(spent >= bill, "{route}: {spent} of {bill}");
    }
    kernel.audit();
}

#[test]
fn a_coding_agents_large_caps_wait_for_each_other_and_are_not_refused() {
    const CALLS: usize = 12;
    let sim = sim();
    let kernel = Kernel::on(&sim);
    // Each holds two cents, and costs a hundredth of one: two of them fit at a time.
    let token = kernel.create_agent("coder", "0.05", 1000, &[]);
    sim.behave(Behaviour {
        delay_ms: 30,
        ..Behaviour::default()
    });
    let body = small("/v1/chat/completions", json!({"max_tokens": 65_536}));
    thread::scope(|scope| {
        let calls: Vec<_> = (0..CALLS)
            .map(|_| scope.spawn(|| kernel.chat(&token, &body).status))
            .collect();
        for call in calls {
            assert_eq!(call.join().unwrap(), 200);
        }
    });
    assert!(sim.bill().peak_in_flight <= 2);
    kernel.settled();
    assert_eq!(spent_pico(&kernel, "coder"), bill_pico(&sim.bill()));
    kernel.audit();
}

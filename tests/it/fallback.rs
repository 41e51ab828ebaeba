//! A model with two targets: whatever the first one does, the client sees one sound answer, and both bills
//! together are within what was charged, and that within the budget.

use aex_tests::harness::{Kernel, wait_for};
use aex_tests::http::Response;
use aex_tests::sim::{Behaviour, Sim};
use serde_json::{Value, json};

use crate::common::{assert_error, bill_pico, hello, sim, spent_pico};

/// The first target's name there: 30 and 60 USD per million tokens.
const A: &str = "vendor/sim-large";
/// The second's, at the price of `gpt-oss-20b`.
const B: &str = "openai/gpt-oss-20b";
const KEY: &str = "order-4712-attempt-canary";

/// Two providers, the first of which has a second to answer. It is named as one that has a name of its own
/// for the output cap.
struct Two {
    a: Sim,
    b: Sim,
    kernel: Kernel,
    token: String,
}

fn yaml(a: &str, b: &str, routing: &str, more_b: &str) -> String {
    format!(
        "providers:
  openai: {{ base_url: 'http://{a}/v1', request_timeout: 1s }}
  b: {{ base_url: 'http://{b}/v1'{more_b} }}
models:
  gpt-oss-20b:
    routing: {routing}
    targets:
      - provider: openai
        model: {A}
        price: {{ input_per_mtok: 30, output_per_mtok: 60 }}
        max_output_tokens: 4096
      - provider: b
        model: {B}
        price: {{ input_per_mtok: 0.075, cached_input_per_mtok: 0.0375, output_per_mtok: 0.30 }}
        max_output_tokens: 65536
"
    )
}

impl Two {
    fn with(budget: &str, routing: &str, more_b: &str, options: &[&str]) -> Self {
        let (a, b) = (sim(), sim());
        let text = yaml(&a.addr.to_string(), &b.addr.to_string(), routing, more_b);
        let kernel = Kernel::builder()
            .models_yaml(text)
            .env("OPENAI_API_KEY", Kernel::SIM_KEY)
            .start();
        let token = kernel.create_agent("rich", budget, 1000, options);
        Self {
            a,
            b,
            kernel,
            token,
        }
    }

    fn rich() -> Self {
        Self::with("5.00", "ordered", "", &[])
    }

    fn ask(&self, stream: bool) -> Response {
        self.kernel
            .chat(&self.token, &hello(json!({ "stream": stream })))
    }

    fn spent(&self) -> i64 {
        spent_pico(&self.kernel, "rich")
    }

    fn bills(&self) -> i64 {
        bill_pico(&self.a.bill()) + bill_pico(&self.b.bill())
    }

    /// Both bills are within the charge, and the ledger holds.
    #[track_caller]
    fn assert_paid(&self, what: &str) {
        self.kernel.settled();
        wait_for("both simulators' end", || {
            let open = self.a.bill().in_flight + self.b.bill().in_flight;
            (open == 0).then_some(())
        });
        let (spent, bills) = (self.spent(), self.bills());
        assert!(bills <= spent, "{what}: {spent} charged of {bills}");
        let budget = self.kernel.agent("rich")["budget_micro"].as_i64().unwrap();
        assert!(spent <= budget * 1_000_000, "{what}: {spent} of {budget}");
        self.kernel.audit();
    }
}

fn status(status: u16) -> Behaviour {
    Behaviour {
        status: Some(status),
        ..Behaviour::default()
    }
}

fn drops() -> Behaviour {
    Behaviour {
        drop: true,
        ..Behaviour::default()
    }
}

fn hangs() -> Behaviour {
    Behaviour {
        hang: true,
        ..Behaviour::default()
    }
}

fn cut() -> Behaviour {
    Behaviour {
        cut_after_chunks: Some(3),
        ..Behaviour::default()
    }
}

#[track_caller]
fn assert_served_by(answer: &Response, provider: &str, model: &str, stream: bool) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("x-aex-provider"), Some(provider));
    assert_eq!(answer.header("x-aex-model"), Some(model));
    let text = answer.text();
    if stream {
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
        assert!(!text.contains("\"error\""), "{text}");
        assert_eq!(text.matches("[DONE]").count(), 1, "{text}");
    } else {
        let body = answer.json();
        assert!(
            body["choices"][0]["message"]["content"].is_string(),
            "{body}"
        );
    }
}

#[test]
fn a_first_target_that_gives_no_answer_is_followed_by_the_second() {
    let two = Two::rich();
    // What it did, how often it is charged: a refusal never, what nobody knows at its ceiling.
    let cases: [(&str, Behaviour, bool); 8] = [
        ("429", status(429), false),
        ("500", status(500), false),
        ("503", status(503), false),
        ("408", status(408), false),
        ("502", status(502), true),
        ("504", status(504), true),
        ("cut before the first byte", drops(), true),
        ("slow", hangs(), true),
    ];
    for (name, behaviour, charged) in cases {
        for stream in [false, true] {
            let before = (two.spent(), bill_pico(&two.b.bill()));
            // A breaker that is open would spare the first target: it is to be asked each time.
            two.a.behave(Behaviour::default());
            wait_for("the first target's turn", || {
                let answer = two.ask(false);
                (answer.header("x-aex-provider") == Some("openai")).then_some(())
            });
            two.kernel.settled();
            let asked = (two.spent(), bill_pico(&two.b.bill()));
            let requests = (two.a.bill().requests, two.b.bill().requests);
            two.a.behave(behaviour.clone());
            let answer = two.ask(stream);
            assert_served_by(&answer, "b", B, stream);
            two.assert_paid(name);
            let since = (
                two.a.bill().requests - requests.0,
                two.b.bill().requests - requests.1,
            );
            assert_eq!(since, (1, 1), "{name}");
            let of_b = bill_pico(&two.b.bill()) - asked.1;
            let charge = two.spent() - asked.0;
            assert_eq!(charge > of_b, charged, "{name}: {charge} for {of_b}");
            assert!(before.0 < asked.0);
        }
    }
}

#[test]
fn a_first_target_that_is_dead_costs_nothing() {
    let mut two = Two::rich();
    let addr = two.a.addr;
    two.a = sim();
    assert_ne!(addr, two.a.addr);
    for stream in [false, true] {
        assert_served_by(&two.ask(stream), "b", B, stream);
    }
    two.assert_paid("dead");
    assert_eq!(two.spent(), bill_pico(&two.b.bill()));
}

#[test]
fn a_slow_first_target_is_left_when_its_first_byte_is_late() {
    let two = Two::rich();
    let (a, b) = (two.a.addr.to_string(), two.b.addr.to_string());
    let text = yaml(&a, &b, "ordered", ", first_byte_timeout: 200ms")
        .replace("request_timeout: 1s", "first_byte_timeout: 200ms");
    two.kernel.write_config(&text);
    two.kernel.aex_json(&["config", "reload"]);
    two.a.behave(hangs());
    for stream in [false, true] {
        assert_served_by(&two.ask(stream), "b", B, stream);
    }
    // The last target has the time that its provider has.
    two.b.behave(Behaviour {
        delay_ms: 600,
        ..Behaviour::default()
    });
    assert_served_by(&two.ask(false), "b", B, false);
    two.assert_paid("late");
    assert!(two.spent() > bill_pico(&two.b.bill()));
}

#[test]
fn a_stream_that_is_only_a_head_is_no_answer_yet() {
    let two = Two::rich();
    let (a, b) = (two.a.addr.to_string(), two.b.addr.to_string());
    let text =
        yaml(&a, &b, "ordered", "").replace("request_timeout: 1s", "first_byte_timeout: 300ms");
    two.kernel.write_config(&text);
    two.kernel.aex_json(&["config", "reload"]);
    for hang in [false, true] {
        two.a.behave(Behaviour {
            mute: true,
            hang,
            ..Behaviour::default()
        });
        assert_served_by(&two.ask(true), "b", B, true);
        two.assert_paid("mute");
    }
    assert_eq!((two.a.bill().requests, two.b.bill().requests), (2, 2));
    // Where the next one cannot answer either, there is one error, and it is no stream.
    two.b.behave(status(503));
    assert_eq!(two.ask(true).status, 503);
    two.b.behave(Behaviour {
        mute: true,
        ..Behaviour::default()
    });
    let streamed = two.ask(true);
    assert_eq!(
        streamed.status, 200,
        "the last one's head is passed on as it comes"
    );
    assert!(
        streamed.text().contains("upstream_error"),
        "{}",
        streamed.text()
    );
    two.assert_paid("mute twice");
}

#[test]
fn after_the_first_byte_there_is_no_second_target() {
    let two = Two::rich();
    two.a.behave(cut());
    let streamed = two.ask(true);
    assert_eq!(streamed.status, 200);
    assert_eq!(streamed.header("x-aex-provider"), Some("openai"));
    let text = streamed.text();
    assert!(text.contains("\"content\""), "{text}");
    let last = text.trim_end().rsplit("data: ").next().unwrap();
    let last: Value = serde_json::from_str(last).unwrap();
    assert_eq!(last["error"]["code"], "upstream_error", "{text}");
    assert_error(&two.ask(false), 502, "upstream_error");
    two.assert_paid("cut");
    assert_eq!(two.b.bill().requests, 0);
}

#[test]
fn a_refusal_of_the_request_itself_is_the_answer() {
    let two = Two::rich();
    for refused in [400, 404, 409, 422] {
        two.a.behave(status(refused));
        let answer = two.ask(false);
        assert_eq!(answer.status, refused);
        assert_eq!(answer.json()["error"]["type"], "sim_error");
    }
    two.assert_paid("refused");
    assert_eq!(two.b.bill().requests, 0);
    assert_eq!(two.spent(), 0);
}

#[test]
fn the_last_target_s_error_is_the_answer() {
    let two = Two::rich();
    two.a.behave(status(500));
    two.b.behave(Behaviour {
        headers: [("retry-after".to_owned(), "7".to_owned())].into(),
        ..status(429)
    });
    let answer = two.ask(false);
    assert_eq!(answer.status, 429, "{}", answer.text());
    assert_eq!(answer.header("retry-after"), Some("7"));
    assert_eq!(answer.header("x-aex-provider"), Some("b"));
    assert_eq!(answer.json()["error"]["type"], "sim_error");
    two.a.behave(drops());
    two.b.behave(drops());
    assert_error(&two.ask(true), 502, "upstream_error");
    two.assert_paid("both");
    assert_eq!(two.b.bill().requests, 2);
}

#[test]
fn both_dead_is_one_error_and_costs_nothing() {
    let (a, b) = (sim(), sim());
    let text = yaml(&a.addr.to_string(), &b.addr.to_string(), "ordered", "");
    drop((a, b));
    let kernel = Kernel::builder().models_yaml(text).start();
    let token = kernel.create_agent("rich", "5.00", 1000, &[]);
    for stream in [false, true] {
        let answer = kernel.chat(&token, &hello(json!({ "stream": stream })));
        assert_error(&answer, 502, "upstream_error");
    }
    kernel.settled();
    assert_eq!(spent_pico(&kernel, "rich"), 0);
    kernel.audit();
}

#[test]
fn a_target_that_the_agent_may_not_use_is_not_tried() {
    let two = Two::with("5.00", "ordered", ", keys: passthrough", &[]);
    two.a.behave(status(503));
    let answer = two.ask(false);
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["error"]["type"], "sim_error");
    assert_eq!(two.b.bill().requests, 0);
    // A key of its own is for the first provider that takes one: the second is not shown it.
    two.kernel
        .aex_json(&["agent", "set", "rich", "--allow-passthrough"]);
    let headers = [("x-aex-provider-key", "sk-fake-own-key-0123456789")];
    let own = || {
        two.kernel
            .chat_with(&two.token, &hello(json!({})), &headers)
    };
    for _ in 0..6 {
        assert_eq!(own().status, 503);
    }
    two.a.behave(Behaviour::default());
    assert_served_by(&own(), "openai", A, false);
    assert_eq!(two.b.bill().requests, 0);
    two.assert_paid("keys");
}

#[test]
fn a_budget_for_one_hold_pays_one_attempt() {
    // The first target's hold of this request is less than 0.006 USD, and more than half of it.
    let two = Two::with("0.006", "ordered", "", &[]);
    two.a.behave(status(500));
    assert_served_by(&two.ask(false), "b", B, false);
    two.assert_paid("a refused attempt leaves its money to the next");

    let two = Two::with("0.006", "ordered", "", &[]);
    // Both attempts dear: what nobody knows of the first leaves too little for the second.
    let dear = yaml(
        &two.a.addr.to_string(),
        &two.b.addr.to_string(),
        "ordered",
        "",
    )
    .replace(
        "input_per_mtok: 0.075, cached_input_per_mtok: 0.0375, output_per_mtok: 0.30",
        "input_per_mtok: 30, output_per_mtok: 60",
    );
    two.kernel.write_config(&dear);
    two.kernel.aex_json(&["config", "reload"]);
    two.a.behave(drops());
    assert_error(&two.ask(false), 502, "upstream_error");
    two.assert_paid("an unknown attempt keeps its money");
    assert_eq!(two.b.bill().requests, 0);
    assert!(two.spent() > 0);
}

#[test]
fn each_target_is_asked_in_its_own_words() {
    let two = Two::rich();
    two.a.behave(status(500));
    assert_served_by(&two.ask(true), "b", B, true);
    let (a, b) = (two.a.bill().log[0].clone(), two.b.bill().log[0].clone());
    assert_eq!(a.body["model"], A);
    assert_eq!(a.body["max_completion_tokens"], 20, "{}", a.body);
    assert!(a.body.get("max_tokens").is_none(), "{}", a.body);
    assert_eq!(b.body["model"], B);
    assert_eq!(b.body["max_tokens"], 20, "{}", b.body);
    assert!(b.body.get("max_completion_tokens").is_none(), "{}", b.body);
    assert_eq!(a.body["messages"], b.body["messages"]);
    // The first one's key is not the second's to see.
    assert!(a.header("authorization").is_some());
    assert!(b.header("authorization").is_none());
    two.assert_paid("words");
    let first = "SELECT COUNT(*) FROM events WHERE action = 'hold.open' AND \
                 CAST(detail AS TEXT) LIKE '%\"attempt\":{\"number\":2,\"first\":\"%'";
    assert_eq!(two.kernel.sqlite_number(first), 1, "the ledger says so");
}

#[test]
fn what_earlier_attempts_cost_is_in_the_cost_of_the_answer() {
    let two = Two::rich();
    two.a.behave(status(502));
    let answer = two.ask(false);
    assert_served_by(&answer, "b", B, false);
    two.assert_paid("cost");
    let told: i64 = answer.header("x-aex-cost-micro").unwrap().parse().unwrap();
    assert_eq!(told, two.spent() / 1_000_000);
}

#[test]
fn a_target_that_fails_again_and_again_is_left_alone_for_a_while() {
    let two = Two::rich();
    two.a.behave(status(500));
    for asked in 1..=5 {
        assert_served_by(&two.ask(false), "b", B, false);
        assert_eq!(two.a.bill().requests, asked);
    }
    assert_served_by(&two.ask(false), "b", B, false);
    assert_eq!(two.a.bill().requests, 5, "its breaker is open");
    let metrics = two.kernel.aex_json(&["metrics"]);
    assert_eq!(metrics["breakers"][0]["upstream_model"], A, "{metrics}");
    assert_eq!(metrics["breakers"][0]["failures"], 5, "{metrics}");
    two.a.behave(Behaviour::default());
    wait_for("the first target to be used again", || {
        let answer = two.ask(false);
        (answer.header("x-aex-provider") == Some("openai")).then_some(())
    });
    two.assert_paid("breaker");
    let metrics = two.kernel.aex_json(&["metrics"]);
    assert!(metrics.get("breakers").is_none(), "{metrics}");
}

#[test]
fn a_target_that_asks_for_a_pause_gets_it() {
    let two = Two::rich();
    two.a.behave(Behaviour {
        headers: [("retry-after".to_owned(), "50".to_owned())].into(),
        ..status(429)
    });
    for _ in 0..3 {
        assert_served_by(&two.ask(false), "b", B, false);
    }
    assert_eq!(two.a.bill().requests, 1);
    // It is no reason to refuse: where nothing else is left it is asked all the same.
    two.a.behave(Behaviour::default());
    two.b.behave(status(500));
    assert_served_by(&two.ask(false), "openai", A, false);
    two.assert_paid("pause");
}

#[test]
fn the_cheapest_target_is_tried_first() {
    let two = Two::with("5.00", "cheapest", "", &[]);
    assert_served_by(&two.ask(false), "b", B, false);
    assert_eq!(two.a.bill().requests, 0);
    two.b.behave(status(500));
    assert_served_by(&two.ask(false), "openai", A, false);
    two.assert_paid("cheapest");
    let models = two.kernel.aex_json(&["models"]);
    assert_eq!(models["models"][0]["routing"], "cheapest", "{models}");
    assert_eq!(models["models"][0]["fallbacks"][0]["provider"], "b");
}

#[test]
fn one_key_is_one_request_whatever_its_attempts() {
    let two = Two::rich();
    let ask = |stream| {
        let body = hello(json!({ "stream": stream, "seed": u8::from(stream) }));
        let key = if stream { "streamed" } else { KEY };
        let headers = [("idempotency-key", key)];
        two.kernel.chat_with(&two.token, &body, &headers)
    };
    for (behaviour, stream) in [(status(500), false), (status(502), true)] {
        two.a.behave(behaviour);
        let first = ask(stream);
        assert_served_by(&first, "b", B, stream);
        two.assert_paid("answered");
        let asked = (two.a.bill().requests, two.b.bill().requests);
        let again = ask(stream);
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
        assert_eq!(again.body, first.body);
        for name in ["x-aex-request-id", "x-aex-provider", "x-aex-model"] {
            assert_eq!(again.header(name), first.header(name), "{name}");
        }
        assert_eq!((two.a.bill().requests, two.b.bill().requests), asked);
    }
    two.assert_paid("replayed");
    let report = two.kernel.aex_json(&["audit", "--strict"]);
    assert_eq!(report["ok"], true, "two attempts are one request: {report}");
}

#[test]
fn a_key_stands_for_a_charged_attempt_though_the_next_was_released() {
    let two = Two::rich();
    two.a.behave(status(502));
    two.b.behave(status(500));
    let ask = || {
        let headers = [("idempotency-key", KEY)];
        two.kernel
            .chat_with(&two.token, &hello(json!({})), &headers)
    };
    assert_eq!(ask().status, 500);
    two.kernel.settled();
    let spent = two.spent();
    assert!(spent > 0);
    for sim in [&two.a, &two.b] {
        sim.behave(Behaviour::default());
    }
    let again = ask();
    assert_error(&again, 409, "idempotency_conflict");
    assert!(
        again.detail().contains("was not kept"),
        "{}",
        again.detail()
    );
    assert_eq!((two.a.bill().requests, two.b.bill().requests), (1, 1));
    assert_eq!(two.spent(), spent);
    two.assert_paid("released");

    // Where nothing was charged the key is free again.
    let headers = [("idempotency-key", "another-key")];
    for sim in [&two.a, &two.b] {
        sim.behave(status(500));
    }
    let body = hello(json!({}));
    assert_eq!(
        two.kernel.chat_with(&two.token, &body, &headers).status,
        500
    );
    two.kernel.settled();
    for sim in [&two.a, &two.b] {
        sim.behave(Behaviour::default());
    }
    assert_eq!(
        two.kernel.chat_with(&two.token, &body, &headers).status,
        200
    );
    two.assert_paid("free again");
}

#[test]
fn a_client_that_left_is_not_tried_for_elsewhere() {
    let two = Two::rich();
    two.a.behave(Behaviour {
        delay_ms: 300,
        ..status(500)
    });
    let connection = crate::common::in_flight(&two.kernel, &two.a, &two.token, &hello(json!({})));
    drop(connection);
    two.assert_paid("left");
    assert_eq!(two.b.bill().requests, 0);
    assert_eq!(two.spent(), 0);
}

#[test]
fn a_large_body_is_sent_again_whole() {
    let two = Two::with("50.00", "ordered", "", &[]);
    two.a.behave(status(500));
    let words = "hello ".repeat(40_000);
    let body = hello(json!({"messages": [{"role": "user", "content": words}], "max_tokens": 5}));
    let answer = two.kernel.chat(&two.token, &body);
    assert_served_by(&answer, "b", B, false);
    let sizes = [&two.a, &two.b].map(|sim| {
        sim.bill().log[0]
            .header("content-length")
            .map(str::to_owned)
    });
    assert!(sizes.iter().all(Option::is_some), "{sizes:?}");
    two.assert_paid("large");
}

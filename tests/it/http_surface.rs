//! What a client sees over HTTP: routes, headers, bodies, streams.

use aex_tests::harness::Kernel;
use aex_tests::http::request;
use aex_tests::sim::{Behaviour, Sim, SimConfig};
use aex_tests::tls::Pki;
use serde_json::json;

use crate::common::{assert_error, bill_pico, hello, sim, spent_pico};

#[test]
fn an_answer_is_the_providers_with_aex_headers() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let raw = r#"{"id":"x",  "choices":[],"usage":{"prompt_tokens":10,"completion_tokens":2},"odd":1.50}"#;
    sim.behave(Behaviour {
        raw_body: Some(raw.into()),
        headers: [
            ("x-request-id".to_owned(), "req-1".to_owned()),
            ("set-cookie".to_owned(), "a=b".to_owned()),
            ("openai-organization".to_owned(), "org-secret".to_owned()),
            ("x-aex-cost-micro".to_owned(), "99".to_owned()),
        ]
        .into(),
        ..Behaviour::default()
    });
    let answer = kernel.chat(&token, &hello(json!({})));
    assert_eq!(answer.status, 200);
    assert_eq!(answer.text(), raw, "byte for byte");
    assert_eq!(answer.header("x-request-id"), Some("req-1"));
    assert_eq!(answer.header("set-cookie"), None);
    assert_eq!(answer.header("openai-organization"), None);
    let cost = answer.header("x-aex-cost-micro").unwrap();
    assert_eq!(
        cost, "1",
        "0.75 + 0.6 micro-dollars, the fraction carried over"
    );
    assert_eq!(answer.header("x-aex-remaining-micro"), Some("999998"));
    assert_eq!(answer.header("x-aex-request-id").unwrap().len(), 32);
    assert_eq!(
        answer.header("x-aex-output-cap"),
        None,
        "the client set one"
    );
}

#[test]
fn what_reaches_the_provider_is_what_was_judged() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let body = json!({
        "model": "sim-large",
        "messages": [{"role": "user", "content": "Say hello."}],
        "max_tokens": 9, "n": 2, "seed": 3, "temperature": 0.25, "user": "u", "stop": ["x"],
        "stream": true,
    });
    let headers = [
        ("cookie", "session=1"),
        ("openai-organization", "org-agent"),
        ("x-stainless-lang", "python"),
        ("accept-encoding", "gzip"),
    ];
    let mut connection = kernel.connect();
    connection
        .send(&Kernel::chat_bytes(&token, &body, &headers))
        .unwrap();
    connection.events().unwrap().for_each(drop);
    let received = sim.bill().log[0].clone();
    let mut wanted = body.clone();
    wanted["model"] = json!("vendor/sim-large");
    wanted["stream_options"] = json!({"include_usage": true});
    assert_eq!(received.body, wanted);
    for (name, _) in headers {
        let passed = received.header(name).filter(|&value| value != "identity");
        assert_eq!(passed, None, "{name}");
    }
    let all = format!("{:?}", received.headers);
    assert!(!all.contains(&token) && !all.contains("x-aex"), "{all}");
}

#[test]
fn a_missing_cap_is_set_and_told() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let mut body = hello(json!({}));
    body.as_object_mut().unwrap().remove("max_tokens");
    let answer = kernel.chat(&token, &body);
    let cap = answer.header("x-aex-output-cap").expect("told").to_owned();
    assert_eq!(cap, "4096", "default_output_tokens");
    assert_eq!(sim.bill().log[0].body["max_tokens"], 4096);
    // A poor agent's cap is what its money pays for.
    let token = kernel.create_agent("poor", "0.0005", 1000, &[]);
    let answer = kernel.chat(&token, &body);
    let cap: u64 = answer
        .header("x-aex-output-cap")
        .expect("told")
        .parse()
        .unwrap();
    assert!((16..1667).contains(&cap), "{cap}");
}

#[test]
fn a_usage_chunk_is_for_those_who_asked() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    for asked in [false, true] {
        let mut body = hello(json!({"stream": true}));
        if asked {
            body["stream_options"] = json!({"include_usage": true});
        }
        let mut events = kernel.chat_stream(&token, &body);
        let content_type = events
            .head
            .header("content-type")
            .unwrap_or_default()
            .to_owned();
        assert!(
            content_type.starts_with("text/event-stream"),
            "{content_type}"
        );
        let all: Vec<_> = events.by_ref().collect();
        assert!(events.complete);
        assert_eq!(all.last().unwrap().data, "[DONE]");
        let usages = all
            .iter()
            .filter(|event| event.json()["choices"] == json!([]))
            .count();
        assert_eq!(usages, usize::from(asked));
    }
    kernel.settled();
    assert_eq!(
        spent_pico(&kernel, "a"),
        bill_pico(&sim.bill()),
        "asked for upstream all the same"
    );
}

#[test]
fn an_answer_that_takes_too_long_says_so_and_costs_its_hold() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let good = std::fs::read_to_string(&kernel.places.config_file).unwrap();
    let short = good.replacen("    base_url:", "    request_timeout: 1s\n    base_url:", 1);
    kernel.write_config(&short);
    let _ = kernel.aex_json(&["config", "reload"]);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    sim.behave(Behaviour {
        chunk_delay_ms: 100,
        natural_tokens: Some(100),
        ..Behaviour::default()
    });
    let body = hello(json!({"stream": true, "max_tokens": 100}));
    let mut events = kernel.chat_stream(&token, &body);
    let last = events.by_ref().last().unwrap().json();
    assert!(events.complete);
    assert_eq!(last["error"]["code"], "upstream_error", "{last}");
    let text = last["error"]["message"].as_str().unwrap();
    assert!(text.contains("in time"), "{last}");
    kernel.settled();
    assert!(spent_pico(&kernel, "a") >= bill_pico(&sim.bill()));
    kernel.audit();
}

#[test]
fn a_stream_is_not_held_back() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    sim.behave(Behaviour {
        chunk_delay_ms: 30,
        ..Behaviour::default()
    });
    let events: Vec<_> = kernel
        .chat_stream(&token, &hello(json!({"stream": true})))
        .collect();
    let times: Vec<u64> = events.iter().map(|event| event.at_ms).collect();
    // 20 tokens at 30 ms: a buffering hop would give them in a heap.
    let apart = times
        .windows(2)
        .filter(|pair| pair[1] - pair[0] >= 15)
        .count();
    assert!(apart >= 15, "{times:?}");
}

#[test]
fn a_cut_stream_ends_with_an_error_event() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    sim.behave(Behaviour {
        cut_after_chunks: Some(5),
        ..Behaviour::default()
    });
    let mut events = kernel.chat_stream(&token, &hello(json!({"stream": true})));
    let all: Vec<_> = events.by_ref().collect();
    let last = all.last().unwrap().json();
    assert_eq!(last["error"]["code"], "upstream_error", "{last}");
    assert!(all.iter().all(|event| event.data != "[DONE]"));
    assert!(events.complete, "then a clean end");
}

#[test]
fn the_operators_key_trouble_is_a_502() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &["--allow-passthrough"]);
    for status in [401, 402, 403] {
        sim.behave(Behaviour {
            status: Some(status),
            echo_authorization: true,
            ..Behaviour::default()
        });
        let answer = kernel.chat(&token, &hello(json!({})));
        assert_error(&answer, 502, "upstream_error");
        assert!(!answer.text().contains(Kernel::SIM_KEY));
    }
    // Under the agent's own key it is the agent's to know.
    let own = [("x-aex-provider-key", "sk-fake-own-key")];
    sim.behave(Behaviour {
        status: Some(401),
        ..Behaviour::default()
    });
    assert_eq!(
        kernel.chat_with(&token, &hello(json!({})), &own).status,
        401
    );
    kernel.settled();
    assert_eq!(spent_pico(&kernel, "a"), 0);
}

#[test]
fn models_are_those_an_agent_may_call() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let all = kernel.create_agent("all", "1.00", 1000, &[]);
    let one = kernel.create_agent("one", "1.00", 1000, &["--allowed-models", "sim-free"]);
    let list = |token: &str| -> Vec<String> {
        let answer = kernel.get("/v1/models", token);
        let body = answer.json();
        assert_eq!((answer.status, &body["object"]), (200, &json!("list")));
        let ids = body["data"].as_array().unwrap();
        ids.iter()
            .map(|model| model["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let mut models = list(&all);
    models.sort();
    assert_eq!(models, ["gpt-oss-20b", "sim-free", "sim-large"]);
    assert_eq!(list(&one), ["sim-free"]);
    let model = kernel.get("/v1/models/sim-large", &all).json();
    assert_eq!(
        (&model["object"], &model["owned_by"]),
        (&json!("model"), &json!("sim"))
    );
    assert_error(
        &kernel.get("/v1/models/sim-large", &one),
        404,
        "model_not_found",
    );
    assert_error(&kernel.get("/v1/models", "nobody"), 401, "invalid_api_key");
    assert_eq!(sim.bill().requests, 0);
}

#[test]
fn health_needs_no_token() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    for route in ["/healthz", "/readyz"] {
        let answer = kernel.raw(&request("GET", route, &[], b""));
        assert_eq!(answer.status, 200, "{route}: {}", answer.text());
    }
}

#[test]
fn one_connection_carries_many_requests() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let mut connection = kernel.connect();
    let good = Kernel::chat_bytes(&token, &hello(json!({})), &[]);
    let refused = Kernel::chat_bytes(&token, &hello(json!({"model": "nope"})), &[]);
    for (bytes, status) in [(&good, 200), (&refused, 404), (&good, 200), (&good, 200)] {
        connection.send(bytes).unwrap();
        assert_eq!(connection.response().unwrap().status, status);
    }
    // Expect: 100-continue, as curl sends it.
    let body = hello(json!({})).to_string();
    let authorization = format!("Bearer {token}");
    let headers = [
        ("authorization", authorization.as_str()),
        ("content-type", "application/json"),
        ("expect", "100-continue"),
    ];
    connection
        .send(&request(
            "POST",
            "/v1/chat/completions",
            &headers,
            body.as_bytes(),
        ))
        .unwrap();
    assert_eq!(connection.response().unwrap().status, 200);
}

#[test]
fn https_with_a_private_ca() {
    let pki = Pki::make().unwrap();
    let sim = Sim::start(SimConfig {
        tls: Some(pki.server_config().unwrap()),
        ..SimConfig::default()
    })
    .unwrap();
    let other = Pki::make().unwrap();
    for (ca, status) in [(&pki.ca_pem, 200), (&other.ca_pem, 502)] {
        let mut kernel = Kernel::builder()
            .env("SIM_API_KEY", Kernel::SIM_KEY)
            .prepare();
        let ca_file = kernel.places.config_file.with_file_name("ca.pem");
        std::fs::write(&ca_file, ca).unwrap();
        let yaml = format!(
            "providers:\n  sim: {{ base_url: 'https://localhost:{}/v1', ca_file: '{}' }}\n\
             models:\n  gpt-oss-20b: {{ provider: sim, price: free }}\n",
            sim.addr.port(),
            ca_file.display()
        );
        kernel.write_config(&yaml);
        kernel.start_again();
        let token = kernel.create_agent("a", "1.00", 1000, &[]);
        let answer = kernel.chat(&token, &hello(json!({})));
        assert_eq!(answer.status, status, "{}", answer.text());
        if status == 200 {
            let mut events = kernel.chat_stream(&token, &hello(json!({"stream": true})));
            events.by_ref().for_each(drop);
            assert!(events.complete);
        }
    }
    assert_eq!(sim.bill().requests, 2);
}

//! Bad input gets its 4xx in the error form; nothing of it is forwarded, nothing is lost.

use aex_admin_proto::clock;
use aex_tests::harness::{Kernel, process, wait_for};
use aex_tests::http::{Response, request};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::common::{assert_error, hello, sim, spent_pico};

fn post(kernel: &Kernel, token: &str, body: &[u8]) -> Response {
    let authorization = format!("Bearer {token}");
    let headers = [
        ("authorization", authorization.as_str()),
        ("content-type", "application/json"),
    ];
    kernel.raw(&request("POST", "/v1/chat/completions", &headers, body))
}

const MESSAGES: &str = r#""messages":[{"role":"user","content":"hi"}]"#;

#[test]
fn bad_bodies() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 100_000, &[]);
    let with = |fields: &str| format!(r#"{{"model":"gpt-oss-20b",{MESSAGES},{fields}}}"#);
    let nested = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let bodies: Vec<Vec<u8>> = [
        String::new(),
        "not json".into(),
        "[]".into(),
        "null".into(),
        "\"text\"".into(),
        "{".into(),
        "{}".into(),
        r#"{"model":"gpt-oss-20b"}"#.into(),
        format!("{{{MESSAGES}}}"),
        format!(r#"{{"model":7,{MESSAGES}}}"#),
        format!(r#"{{"model":"",{MESSAGES}}}"#),
        r#"{"model":"gpt-oss-20b","messages":{}}"#.into(),
        r#"{"model":"gpt-oss-20b","messages":[]}"#.into(),
        r#"{"model":"gpt-oss-20b","messages":["hi"]}"#.into(),
        with(r#""max_tokens":0"#),
        with(r#""max_tokens":-1"#),
        with(r#""max_tokens":1.5"#),
        with(r#""max_tokens":"10""#),
        with(r#""max_tokens":true"#),
        with(r#""max_tokens":1e999"#),
        with(r#""max_tokens":99999999999999999999"#),
        with(r#""max_tokens":5,"max_completion_tokens":5"#),
        with(r#""n":0"#),
        with(r#""n":129"#),
        with(r#""n":"2""#),
        with(r#""stream":"true""#),
        with(r#""stream":1"#),
        with(r#""stream_options":{"include_usage":true}"#),
        with(r#""max_tokens":5,"max_tokens":50000"#),
        with(r#""max_tokens":5,"m\u0061x_tokens":50000"#),
        with(r#""model":"sim-free""#),
        with(r#""n_predict":5000"#),
        with(r#""min_tokens":5000"#),
        with(r#""extra_body":{}"#),
        with(r#""no_such_parameter":1"#),
        with(&format!(r#""metadata":{nested}"#)),
        with(r#""max_tokens":5"#) + "{}",
        with(r#""max_tokens":5"#) + " x",
    ]
    .into_iter()
    .map(String::into_bytes)
    .chain([b"{\"model\":\"gpt-oss-20b\xff\"}".to_vec()])
    .collect();
    for body in bodies {
        let answer = post(&kernel, &token, &body);
        let start = String::from_utf8_lossy(&body[..body.len().min(120)]).into_owned();
        assert_eq!(answer.status, 400, "{start}: {}", answer.text());
        assert_error(&answer, 400, "invalid_request");
    }
    assert_eq!(sim.bill().requests, 0, "something was forwarded");
    assert_eq!(
        kernel.chat(&token, &hello(json!({}))).status,
        200,
        "and it serves on"
    );
    kernel.settled();
    kernel.audit();
}

#[test]
fn an_unknown_parameter_is_named_with_the_way_out() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let answer = kernel.chat(&token, &hello(json!({"top_k": 5})));
    assert_error(&answer, 400, "invalid_request");
    let detail = answer.detail();
    assert!(
        detail.contains("top_k") && detail.contains("extra_params"),
        "{detail}"
    );
    // Free models take the unknown ones, but never one that raises output.
    let free = |more| kernel.chat(&token, &hello(more)).status;
    assert_eq!(free(json!({"model": "sim-free", "top_k": 5})), 200);
    for raising in ["n_predict", "num_predict", "min_tokens", "ignore_eos"] {
        assert_eq!(
            free(json!({"model": "sim-free", raising: 5})),
            400,
            "{raising}"
        );
    }
    assert_eq!(sim.bill().requests, 1);
}

#[test]
fn a_large_body_of_nobody_is_not_waited_for() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n\
                authorization: Bearer aex-not-a-token\r\ncontent-type: application/json\r\n\
                content-length: 10000000\r\n\r\n{";
    let started_ms = clock::boot_ms();
    // Nothing more of the body ever comes.
    assert_error(&kernel.raw(head.as_bytes()), 401, "invalid_api_key");
    assert!(clock::boot_ms() - started_ms < 10_000);
}

#[test]
fn bodies_too_large() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let body = hello(json!({"user": "x".repeat(50_000_000)})).to_string();
    let started_ms = clock::boot_ms();
    assert_error(
        &post(&kernel, &token, body.as_bytes()),
        413,
        "body_too_large",
    );
    // Without a length it is known only on the way.
    let mut bytes = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    .into_bytes();
    for _ in 0..50 {
        bytes.extend(format!("{:x}\r\n{}\r\n", 1_000_000, "y".repeat(1_000_000)).into_bytes());
    }
    assert_error(&kernel.raw(&bytes), 413, "body_too_large");
    assert!(clock::boot_ms() - started_ms < 20_000);
    assert_eq!(sim.bill().requests, 0);
    for pid in kernel.worker_pids() {
        let peak = process::status_kb(pid, "VmHWM:").unwrap();
        assert!(peak < 80_000, "{peak} kB in a worker");
    }
}

#[test]
fn wrong_types_of_content() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let authorization = format!("Bearer {token}");
    let body = hello(json!({})).to_string();
    for (name, value) in [
        ("content-type", "text/plain"),
        ("content-type", "application/x-www-form-urlencoded"),
        ("content-encoding", "gzip"),
    ] {
        let mut headers = vec![("authorization", authorization.as_str()), (name, value)];
        if name != "content-type" {
            headers.push(("content-type", "application/json"));
        }
        let bytes = request("POST", "/v1/chat/completions", &headers, body.as_bytes());
        assert_error(&kernel.raw(&bytes), 415, "unsupported_media_type");
    }
    assert_eq!(sim.bill().requests, 0);
}

#[test]
fn unknown_routes() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let authorization = format!("Bearer {token}");
    let headers = [
        ("authorization", authorization.as_str()),
        ("content-type", "application/json"),
    ];
    let body = hello(json!({})).to_string();
    for target in [
        "/",
        "/chat/completions",
        "//v1/chat/completions",
        "/v1//chat/completions",
        "/v1/%63hat/completions",
        "/v1/chat/completions/",
        "/v1/chat/../chat/completions",
        "/V1/chat/completions",
        "/v1/files",
        "/v1/batches",
        "/v1/images/generations",
        "/v1/audio/speech",
        "/v1/realtime",
        "http://127.0.0.1/v1/chat/completions",
    ] {
        let bytes = request("POST", target, &headers, body.as_bytes());
        let answer = kernel.raw(&bytes);
        assert_error(&answer, 404, "not_found");
    }
    for method in ["GET", "PUT", "DELETE", "PATCH"] {
        let answer = kernel.raw(&request(method, "/v1/chat/completions", &headers, b""));
        assert_eq!(answer.status, 405, "{method}");
        assert!(answer.json()["detail"].is_string());
    }
    assert_eq!(sim.bill().requests, 0);
}

#[test]
fn tokens_missing_malformed_and_expired() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let good = kernel.create_agent("a", "1.00", 1000, &[]);
    let short = kernel.create_agent("short", "1.00", 1000, &["--ttl", "1s"]);
    let body = hello(json!({})).to_string();
    let ask = |headers: &[(&str, &str)]| {
        let mut all = vec![("content-type", "application/json")];
        all.extend(headers);
        kernel.raw(&request(
            "POST",
            "/v1/chat/completions",
            &all,
            body.as_bytes(),
        ))
    };
    let refused = |answer: &Response, detail: &str| {
        assert_error(answer, 401, "invalid_api_key");
        assert_eq!(answer.detail(), detail);
    };
    refused(&ask(&[]), "Not authenticated");
    let twice = format!("Bearer {good}");
    let long = format!("Bearer {}", "x".repeat(5000));
    for malformed in [
        "",
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        &good,
        "Bearer a b",
        "Bearer unknown",
        &long,
    ] {
        refused(&ask(&[("authorization", malformed)]), "Invalid API token");
    }
    refused(
        &ask(&[("authorization", &twice), ("authorization", &twice)]),
        "Invalid API token",
    );
    // No other door.
    for name in ["x-api-key", "api-key"] {
        refused(&ask(&[(name, &good)]), "Not authenticated");
    }
    let by_query = format!("/v1/chat/completions?api_key={good}");
    let answer = kernel.raw(&request("POST", &by_query, &[], body.as_bytes()));
    assert!((400..500).contains(&answer.status), "{}", answer.status);

    wait_for("the token to expire", || {
        let answer = kernel.chat(&short, &hello(json!({})));
        (answer.status != 200).then(|| refused(&answer, "API token has expired"))
    });
    kernel.aex_json(&["agent", "delete", "a"]);
    refused(&kernel.chat(&good, &hello(json!({}))), "Invalid API token");
    assert_eq!(spent_pico(&kernel, "a"), 0);
}

#[test]
fn slow_heads_are_cut_and_hold_nobody_up() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let started_ms = clock::boot_ms();
    let mut slow: Vec<_> = (0..20).map(|_| kernel.connect()).collect();
    for connection in &mut slow {
        connection
            .send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-slow:")
            .unwrap();
    }
    assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200);
    for mut connection in slow {
        // Either an answer that says so, or the end of the connection.
        if let Ok(answer) = connection.response() {
            assert!((400..500).contains(&answer.status), "{}", answer.status);
        }
    }
    let taken_ms = clock::boot_ms() - started_ms;
    assert!((1000..30_000).contains(&taken_ms), "{taken_ms}");
}

#[test]
fn oversized_heads_are_refused() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let big = "x".repeat(200_000);
    let many: String = (0..500).map(|n| format!("x-{n}: 1\r\n")).collect();
    for head in [format!("x-big: {big}\r\n"), many] {
        let mut connection = kernel.connect();
        let bytes = format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{head}\r\n");
        let _ = connection.send(bytes.as_bytes());
        if let Ok(answer) = connection.response() {
            assert!((400..500).contains(&answer.status), "{}", answer.status);
        }
    }
    assert_eq!(
        kernel.raw(&request("GET", "/healthz", &[], b"")).status,
        200
    );
}

#[test]
fn without_the_admin_nothing_is_forwarded() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let (daemon, admin) = (kernel.pid("daemon"), kernel.pid("aex-admin"));
    // A stopped supervisor starts nothing again.
    process::send_signal(daemon, Signal::SIGSTOP);
    process::send_signal(admin, Signal::SIGKILL);
    wait_for("the admin's end", || {
        (!process::is_alive(admin)).then_some(())
    });
    let answer = kernel.chat(&token, &hello(json!({})));
    let ready = kernel.raw(&request("GET", "/readyz", &[], b""));
    let health = kernel.raw(&request("GET", "/healthz", &[], b""));
    process::send_signal(daemon, Signal::SIGCONT);
    assert_error(&answer, 503, "kernel_unavailable");
    assert!(answer.header("retry-after").is_some());
    assert_eq!((ready.status, health.status), (503, 200));
    assert_eq!(sim.bill().requests, 0);
    wait_for("a new admin", || {
        (kernel.chat(&token, &hello(json!({}))).status == 200).then_some(())
    });
    kernel.settled();
    kernel.audit();
}

/// An admin that hangs is as good as none: 503 within the waits that the configuration allows, and
/// what it granted too late is given back.
#[test]
fn a_hung_admin_is_a_503_in_time_and_holds_nothing_after() {
    let sim = sim();
    let kernel = Kernel::builder()
        .default_models_and(&sim, "hold_wait: 200ms\nlock_wait: 300ms\n")
        .start();
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let admin = kernel.pid("aex-admin");
    process::send_signal(admin, Signal::SIGSTOP);
    let start_boot_ms = clock::boot_ms();
    let answer = kernel.chat(&token, &hello(json!({})));
    let waited_ms = clock::boot_ms() - start_boot_ms;
    process::send_signal(admin, Signal::SIGCONT);
    assert_error(&answer, 503, "kernel_unavailable");
    // 200 ms, 300 ms and 3 s, with four times their slack.
    assert!(waited_ms < 14_000, "{waited_ms} ms");
    kernel.settled();
    assert_eq!(sim.bill().requests, 0);
    assert_eq!(spent_pico(&kernel, "a"), 0);
    kernel.audit();
}

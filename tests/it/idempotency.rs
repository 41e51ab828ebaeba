//! `Idempotency-Key`: one provider call and one charge per agent and key, and the answer given again.

use std::fs;

use aex_tests::harness::{Kernel, process, wait_for};
use aex_tests::http::Response;
use aex_tests::sim::{Behaviour, Sim};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::common::{assert_error, assert_retry_after, bill_pico, hello, sim, spent_pico};

const KEY: &str = "order-4711-attempt-canary";

fn ask(kernel: &Kernel, token: &str, key: &str, body: &Value) -> Response {
    kernel.chat_with(token, body, &[("idempotency-key", key)])
}

/// The answer, once its request is not running any more.
fn ask_until_ended(kernel: &Kernel, token: &str, key: &str, body: &Value) -> Response {
    wait_for("the first request's end", || {
        let answer = ask(kernel, token, key, body);
        if answer.status != 409 || !answer.detail().contains("still running") {
            return Some(answer);
        }
        assert_error(&answer, 409, "idempotency_conflict");
        assert_retry_after(&answer);
        None
    })
}

#[track_caller]
fn assert_replays(again: &Response, first: &Response) {
    assert_eq!(again.status, first.status, "{}", again.text());
    assert_eq!(again.body, first.body);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    for name in ["content-type", "x-aex-request-id"] {
        assert_eq!(again.header(name), first.header(name), "{name}");
    }
    assert!(again.header("x-aex-remaining-micro").is_some());
}

#[track_caller]
fn assert_not_kept(answer: &Response) {
    assert_error(answer, 409, "idempotency_conflict");
    assert!(
        answer.detail().contains("was not kept"),
        "{}",
        answer.detail()
    );
    assert_eq!(answer.header("x-should-retry"), Some("false"));
}

/// One call, one charge, and the ledger says so.
#[track_caller]
fn assert_charged_once(kernel: &Kernel, sim: &Sim, agent: &str) {
    kernel.settled();
    assert_eq!(sim.bill().requests, 1);
    assert_eq!(spent_pico(kernel, agent), bill_pico(&sim.bill()));
    let commits =
        format!("SELECT COUNT(*) FROM events WHERE action = 'usage.commit' AND agent = '{agent}'");
    assert_eq!(kernel.sqlite_number(&commits), 1);
    kernel.audit();
}

fn spool_files(kernel: &Kernel) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(kernel.places.spool()).unwrap();
    entries
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .collect()
}

/// Runs `act` while a worker is stopped, so that the others alone can answer.
fn without(worker: u32, act: impl FnOnce()) {
    process::send_signal(worker, Signal::SIGSTOP);
    act();
    process::send_signal(worker, Signal::SIGCONT);
}

#[test]
fn sixty_four_equal_requests_at_once_are_one_call_and_one_charge() {
    let sim = sim();
    sim.behave(Behaviour {
        delay_ms: 200,
        ..Behaviour::default()
    });
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let body = hello(json!({}));
    let answers: Vec<Response> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..64)
            .map(|_| scope.spawn(|| ask_until_ended(&kernel, &token, KEY, &body)))
            .collect();
        asking
            .into_iter()
            .map(|asking| asking.join().unwrap())
            .collect()
    });
    let replayed = |answer: &&Response| answer.header("idempotent-replayed").is_some();
    assert_eq!(answers.iter().filter(replayed).count(), 63);
    let first = answers.iter().find(|answer| !replayed(answer)).unwrap();
    assert_eq!(first.status, 200);
    for again in answers.iter().filter(replayed) {
        assert_replays(again, first);
        assert_eq!(again.header("x-aex-cost-micro"), Some("0"));
    }
    assert_charged_once(&kernel, &sim, "a");
    let requests = "SELECT COUNT(*) FROM events WHERE action = 'hold.open'";
    assert_eq!(kernel.sqlite_number(requests), 1);
}

#[test]
fn each_worker_gives_the_answer_again_plain_and_streamed() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    for stream in [false, true] {
        sim.reset();
        let name = if stream { "streamed" } else { "plain" };
        let token = kernel.create_agent(name, "1.00", 2, &[]);
        let body = hello(json!({ "stream": stream }));
        let first = ask(&kernel, &token, KEY, &body);
        assert_eq!(first.status, 200);
        assert_replays(&ask_until_ended(&kernel, &token, KEY, &body), &first);
        // More than the two requests of its minute.
        for worker in kernel.worker_pids() {
            without(worker, || {
                for _ in 0..2 {
                    assert_replays(&ask(&kernel, &token, KEY, &body), &first);
                }
            });
        }
        let other = ask(
            &kernel,
            &token,
            KEY,
            &hello(json!({"stream": stream, "seed": 1})),
        );
        assert_error(&other, 409, "idempotency_conflict");
        assert!(
            other.detail().contains("another request"),
            "{}",
            other.detail()
        );
        assert_eq!(other.header("x-should-retry"), Some("false"));
        assert_charged_once(&kernel, &sim, name);
    }
}

#[test]
fn a_client_that_hangs_up_finds_its_answer() {
    let sim = sim();
    sim.behave(Behaviour {
        chunk_delay_ms: 10,
        ..Behaviour::default()
    });
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let body = hello(json!({"stream": true}));
    let mut connection = kernel.connect();
    let headers = [("idempotency-key", KEY)];
    connection
        .send(&Kernel::chat_bytes(&token, &body, &headers))
        .unwrap();
    let mut events = connection.events().unwrap();
    let begun = events.next().unwrap().data;
    drop(events);
    let found = ask_until_ended(&kernel, &token, KEY, &body);
    assert_eq!(found.status, 200);
    let text = found.text();
    assert!(text.starts_with(&format!("data: {begun}")), "{text}");
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    assert!(
        !text.contains("\"usage\":{"),
        "it did not ask for it: {text}"
    );
    let content_type = found.header("content-type").unwrap();
    assert!(
        content_type.starts_with("text/event-stream"),
        "{content_type}"
    );
    assert_charged_once(&kernel, &sim, "a");
}

#[test]
fn what_is_released_is_forgotten_and_what_is_charged_is_not() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let body = hello(json!({}));
    let fails = |status| {
        sim.behave(Behaviour {
            status: Some(status),
            times: Some(1),
            ..Behaviour::default()
        });
    };
    fails(500);
    assert_eq!(ask(&kernel, &token, KEY, &body).status, 500);
    kernel.settled();
    let second = ask(&kernel, &token, KEY, &body);
    assert_eq!(second.status, 200);
    assert_eq!(second.header("idempotent-replayed"), None);
    fails(502);
    let lost = ask(&kernel, &token, "another", &body);
    assert_eq!(lost.status, 502);
    kernel.settled();
    let spent = spent_pico(&kernel, "a");
    let requests = sim.bill().requests;
    for _ in 0..3 {
        let again = ask(&kernel, &token, "another", &body);
        assert_not_kept(&again);
        let id = again.header("x-aex-request-id");
        assert_eq!(
            id,
            lost.header("x-aex-request-id"),
            "it says which was charged"
        );
    }
    assert_eq!(
        (spent_pico(&kernel, "a"), sim.bill().requests),
        (spent, requests)
    );
    kernel.audit();
}

#[test]
fn a_key_is_its_agents_own_and_a_rotated_token_opens_nothing() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let one = kernel.create_agent("one", "1.00", 1000, &[]);
    let two = kernel.create_agent("two", "1.00", 1000, &[]);
    let first = ask(&kernel, &one, KEY, &hello(json!({})));
    let other = ask(&kernel, &two, KEY, &hello(json!({"seed": 7})));
    assert_eq!((first.status, other.status), (200, 200));
    assert_eq!(other.header("idempotent-replayed"), None);
    assert_replays(
        &ask_until_ended(&kernel, &one, KEY, &hello(json!({}))),
        &first,
    );
    let rotated = kernel.aex_json(&["agent", "rotate-token", "one"]);
    let token = rotated["token"].as_str().unwrap();
    assert_not_kept(&ask(&kernel, token, KEY, &hello(json!({}))));
    assert_eq!(sim.bill().requests, 2);
    kernel.audit();
}

#[test]
fn a_key_outlives_every_program() {
    let sim = sim();
    let mut kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let body = hello(json!({}));
    let first = ask(&kernel, &token, KEY, &body);
    assert_eq!(first.status, 200);
    for program in ["aex-admin", "aex-proxy-0", "aex-egress"] {
        let pid = kernel.pid(program);
        process::send_signal(pid, Signal::SIGKILL);
        wait_for("its end", || (!process::is_alive(pid)).then_some(()));
        let again = wait_for("an answer", || {
            let mut connection = aex_tests::http::Connection::tcp(kernel.addr).ok()?;
            let headers = [("idempotency-key", KEY)];
            connection
                .send(&Kernel::chat_bytes(&token, &body, &headers))
                .ok()?;
            connection
                .response()
                .ok()
                .filter(|answer| answer.status != 503)
        });
        assert_replays(&again, &first);
    }
    kernel.stop();
    kernel.start_again();
    assert_replays(&ask(&kernel, &token, KEY, &body), &first);
    assert_charged_once(&kernel, &sim, "a");
}

#[test]
fn a_worker_killed_in_mid_request_leaves_a_key_that_is_charged_and_not_carried_out_again() {
    let sim = sim();
    sim.behave(Behaviour {
        hang: true,
        ..Behaviour::default()
    });
    let kernel = Kernel::builder().workers(1).default_models(&sim).start();
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let body = hello(json!({}));
    let mut connection = kernel.connect();
    let headers = [("idempotency-key", KEY)];
    connection
        .send(&Kernel::chat_bytes(&token, &body, &headers))
        .unwrap();
    wait_for("the request at the provider", || {
        (sim.bill().in_flight == 1).then_some(())
    });
    process::send_signal(kernel.pid("aex-proxy-0"), Signal::SIGKILL);
    sim.behave(Behaviour::default());
    kernel.settled();
    assert_not_kept(&ask_until_ended(&kernel, &token, KEY, &body));
    assert_eq!(sim.bill().requests, 1);
    assert!(spent_pico(&kernel, "a") >= bill_pico(&sim.bill()));
    kernel.audit();
}

#[test]
fn without_the_header_nothing_is_kept_and_with_it_nothing_in_clear() {
    const PROMPT: &str = "a prompt that nobody but its provider reads";
    let sim = sim();
    let kernel = Kernel::builder()
        .default_models(&sim)
        .env("AEX_LOG", "debug")
        .start();
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let body = hello(json!({"messages": [{"role": "user", "content": PROMPT}]}));
    assert_eq!(kernel.chat(&token, &body).status, 200);
    kernel
        .chat_stream(&token, &hello(json!({"stream": true})))
        .for_each(drop);
    kernel.settled();
    assert!(spool_files(&kernel).is_empty());
    let rows = "SELECT COUNT(*) FROM idempotency";
    assert_eq!(kernel.sqlite_number(rows), 0);
    let marked = "SELECT COUNT(*) FROM events WHERE detail LIKE '%idempotency%'";
    assert_eq!(kernel.sqlite_number(marked), 0);

    let first = ask(&kernel, &token, KEY, &body);
    assert_replays(&ask_until_ended(&kernel, &token, KEY, &body), &first);
    let bad = kernel.chat_with(&token, &body, &[("idempotency-key", "two words canary")]);
    assert_error(&bad, 400, "invalid_request");
    assert_eq!(kernel.sqlite_number(rows), 1);
    let files = spool_files(&kernel);
    assert_eq!(files.len(), 1);
    let answer = first.json()["choices"][0]["message"]["content"].clone();
    let answer = answer.as_str().unwrap();
    assert!(answer.len() >= 8, "{answer}");
    let in_clear = |haystack: &[u8], needle: &str| {
        (haystack.windows(needle.len())).any(|window| window == needle.as_bytes())
    };
    for needle in [
        PROMPT,
        answer,
        token.as_str(),
        KEY,
        "chat.completion",
        "content-type",
    ] {
        assert!(!in_clear(&files[0], needle), "{needle} in the spool");
    }
    let ledger = [
        fs::read(&kernel.places.ledger).unwrap(),
        fs::read(kernel.places.ledger.with_extension("db-wal")).unwrap_or_default(),
    ];
    let logs = kernel.logs().into_bytes();
    for needle in [PROMPT, answer, token.as_str(), KEY, "canary"] {
        assert!(!in_clear(&logs, needle), "{needle} in a log");
        assert!(
            !ledger.iter().any(|file| in_clear(file, needle)),
            "{needle} in the ledger"
        );
    }
    kernel.audit();
}

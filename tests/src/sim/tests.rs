use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::http::{Connection, Events, Response, request};
use crate::tls::Pki;

const POST: &str = "POST";
const CHAT: &str = "/v1/chat/completions";

fn sim() -> Sim {
    Sim::start(SimConfig::default()).unwrap()
}

fn hello(extra: &Value) -> Value {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hello"}]});
    for (name, value) in extra.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn post(sim: &Sim, path: &str, body: &Value) -> Response {
    let mut connection = Connection::tcp(sim.addr).unwrap();
    let key = [("authorization", "Bearer sk-sim-fake-1")];
    let body = body.to_string();
    connection
        .send(&request(POST, path, &key, body.as_bytes()))
        .unwrap();
    connection.response().unwrap()
}

fn stream(sim: &Sim, body: &Value) -> Events {
    let mut connection = Connection::tcp(sim.addr).unwrap();
    let body = body.to_string();
    connection
        .send(&request(POST, CHAT, &[], body.as_bytes()))
        .unwrap();
    connection.events().unwrap()
}

fn wait_for(sim: &Sim, holds: impl Fn(&Bill) -> bool) -> Bill {
    crate::harness::wait_for("the simulator's bill", || Some(sim.bill()).filter(&holds))
}

#[test]
fn a_plain_answer_is_billed_as_it_says() {
    let sim = sim();
    let answer = post(&sim, CHAT, &hello(&json!({"max_tokens": 5})));
    assert_eq!(answer.status, 200);
    let usage = &answer.json()["usage"];
    let bill = sim.bill();
    assert_eq!(usage["prompt_tokens"], bill.models["m"].prompt_tokens);
    assert_eq!(usage["completion_tokens"], 5);
    assert_eq!(bill.models["m"].completion_tokens, 5);
    assert_eq!(bill.total().cost_pico(10, 5, 100), 8 * 10 + 5 * 100);
    let logged = &bill.log[0];
    assert_eq!(logged.header("authorization"), Some("Bearer sk-sim-fake-1"));
    assert_eq!(logged.body["max_tokens"], 5);
    assert_eq!(logged.ended, Ended::Complete);
    assert_eq!((bill.in_flight, bill.peak_in_flight), (0, 1));
}

#[test]
fn a_stream_is_real_chunks_with_usage_when_asked_for() {
    let sim = sim();
    sim.behave(Behaviour {
        chunk_delay_ms: 5,
        ..Behaviour::default()
    });
    let body = hello(&json!({"stream": true, "stream_options": {"include_usage": true}}));
    let mut events = stream(&sim, &body);
    let all: Vec<_> = events.by_ref().collect();
    assert!(events.complete);
    assert_eq!(all.last().unwrap().data, "[DONE]");
    let usage = all[all.len() - 2].json();
    assert_eq!(usage["choices"], json!([]));
    let billed = wait_for(&sim, |bill| bill.in_flight == 0).models["m"];
    assert_eq!(
        usage["usage"]["completion_tokens"],
        billed.completion_tokens
    );
    assert!(
        all.last().unwrap().at_ms > all[0].at_ms + 50,
        "came at once"
    );
}

#[test]
fn who_hangs_up_is_billed_until_then_and_no_further() {
    let sim = sim();
    sim.behave(Behaviour {
        chunk_delay_ms: 5,
        natural_tokens: Some(100_000),
        ..Behaviour::default()
    });
    let mut events = stream(&sim, &hello(&json!({"stream": true})));
    assert!(events.nth(3).is_some());
    drop(events);
    let bill = wait_for(&sim, |bill| bill.in_flight == 0);
    assert_eq!(bill.log[0].ended, Ended::Cut);
    let completion = bill.models["m"].completion_tokens;
    assert!((3..50_000).contains(&completion), "{completion} tokens");
}

#[test]
fn a_cut_stream_has_no_proper_end() {
    let sim = sim();
    for streamed in [true, false] {
        sim.behave(Behaviour {
            cut_after_chunks: Some(3),
            ..Behaviour::default()
        });
        let body = hello(&json!({"stream": streamed}));
        if streamed {
            let mut events = stream(&sim, &body);
            // The opening event carries no content.
            assert_eq!(events.by_ref().count(), 1 + 3);
            assert!(!events.complete);
        } else {
            let answer = post(&sim, CHAT, &body);
            assert!(!answer.complete && !answer.body.is_empty());
        }
        wait_for(&sim, |bill| bill.in_flight == 0);
        assert_eq!(sim.bill().log.last().unwrap().ended, Ended::Cut);
    }
    assert_eq!(sim.bill().models["m"].completion_tokens, 3 + 20);
}

#[test]
fn an_error_bills_nothing_and_may_echo_the_key() {
    let sim = sim();
    let behaviour = json!({
        "status": 429, "times": 1, "echo_authorization": true, "headers": {"retry-after": "7"}
    });
    assert_eq!(post(&sim, "/_sim/behaviour", &behaviour).status, 200);
    let answer = post(&sim, CHAT, &hello(&json!({})));
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (429, Some("7"))
    );
    assert!(answer.text().contains("sk-sim-fake-1"));
    assert!(sim.bill().models.is_empty());
    assert_eq!(post(&sim, CHAT, &hello(&json!({}))).status, 200);
    assert_eq!(
        post(&sim, "/_sim/behaviour", &json!({"statsu": 1})).status,
        400
    );
    sim.reset();
    assert_eq!(sim.bill().requests, 0);
}

#[test]
fn a_hung_request_is_billed_and_ends_when_its_client_leaves() {
    let sim = sim();
    sim.behave(Behaviour {
        hang: true,
        ..Behaviour::default()
    });
    let mut connection = Connection::tcp(sim.addr).unwrap();
    let body = hello(&json!({})).to_string();
    connection
        .send(&request(POST, CHAT, &[], body.as_bytes()))
        .unwrap();
    wait_for(&sim, |bill| bill.in_flight == 1);
    drop(connection);
    let bill = wait_for(&sim, |bill| bill.in_flight == 0);
    assert_eq!(bill.models["m"].completion_tokens, 20);
}

#[test]
fn every_route_is_billed_and_misbehaves_alike() {
    let sim = sim();
    let bodies = [
        (CHAT, hello(&json!({"max_tokens": 5}))),
        (
            "/v1/completions",
            json!({"model": "m", "prompt": "a", "max_tokens": 5}),
        ),
        (
            "/v1/responses",
            json!({"model": "m", "input": "a", "max_output_tokens": 5}),
        ),
        ("/v1/embeddings", json!({"model": "m", "input": "a"})),
    ];
    for (path, body) in &bodies {
        assert_eq!(post(&sim, path, body).status, 200, "{path}");
        for behaviour in [json!({"status": 503}), json!({"cut_after_chunks": 1})] {
            post(&sim, "/_sim/behaviour", &behaviour);
            let answer = post(&sim, path, body);
            assert!(answer.status == 503 || !answer.complete, "{path}");
        }
        sim.behave(Behaviour::default());
    }
    let bill = wait_for(&sim, |bill| bill.in_flight == 0);
    assert_eq!((bill.requests, bill.models["m"].requests), (12, 8));
    assert_eq!(bill.models["m"].completion_tokens, 2 * 3 * 5);
}

#[test]
fn greed_shows_in_the_bill() {
    let sim = sim();
    sim.behave(Behaviour {
        greedy: true,
        ..Behaviour::default()
    });
    let body = r#"{"model": "m", "messages": [], "max_tokens": 9, "max_tokens": 5, "store": true,
        "service_tier": "priority", "web_search_options": {}}"#;
    let mut connection = Connection::tcp(sim.addr).unwrap();
    connection
        .send(&request(POST, CHAT, &[], body.as_bytes()))
        .unwrap();
    let usage = connection.response().unwrap().json()["usage"].clone();
    assert_eq!(
        (&usage["prompt_tokens"], &usage["completion_tokens"]),
        (&json!(40), &json!(9))
    );
    let bill = sim.bill().models["m"];
    assert_eq!((bill.prompt_tokens, bill.completion_tokens), (80, 18));
    assert_eq!((bill.fees, bill.kept), (1, 1));
}

#[test]
fn the_log_is_bounded() {
    let sim = sim();
    let mut connection = Connection::tcp(sim.addr).unwrap();
    let body = hello(&json!({"max_tokens": 1})).to_string();
    let bytes = request(POST, CHAT, &[], body.as_bytes());
    for _ in 0..1005 {
        connection.send(&bytes).unwrap();
        assert_eq!(connection.response().unwrap().status, 200);
    }
    let bill = sim.bill();
    assert_eq!((bill.requests, bill.log.len()), (1005, 1000));
    assert_eq!(bill.models["m"].completion_tokens, 1005);
}

#[test]
fn it_serves_tls_under_the_private_ca() {
    let pki = Pki::make().unwrap();
    let sim = Sim::start(SimConfig {
        tls: Some(pki.server_config().unwrap()),
        ..SimConfig::default()
    })
    .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    let ca = rustls_pki_types::pem::PemObject::from_pem_slice(pki.ca_pem.as_bytes()).unwrap();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "localhost".try_into().unwrap();
    let client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut tls = rustls::StreamOwned::new(client, TcpStream::connect(sim.addr).unwrap());
    let mut bytes = request("GET", "/v1/models", &[("connection", "close")], b"");
    tls.write_all(&bytes).unwrap();
    bytes.clear();
    tls.read_to_end(&mut bytes).unwrap();
    assert!(bytes.starts_with(b"HTTP/1.1 200"));
}

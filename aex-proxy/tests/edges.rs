//! Requests that never become a reservation, and a worker whose admin comes and goes.

#![allow(
    clippy::unwrap_used,
    reason = "a test stops where something is not as it must be"
)]

mod common;

use std::time::Duration;

use common::{CHAT, Client, FakeAdmin, Reply, TOKEN, World, body, chat, request, soon};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PLAIN: &str = r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}"#;

#[tokio::test]
async fn bad_requests_get_their_answer_and_reach_nobody() {
    let world = World::start().await;
    let large = body(&format!(r#","user":"{}""#, "x".repeat(100_000)));
    for (method, path, text, expected) in [
        ("POST", "/v1/files", "{}", (404, "not_found")),
        ("POST", "/chat/completions", "{}", (404, "not_found")),
        ("GET", CHAT, "", (405, "method_not_allowed")),
        ("PUT", CHAT, "{}", (405, "method_not_allowed")),
        (
            "POST",
            "/v1/chat/completions?key=1",
            "{}",
            (400, "invalid_request"),
        ),
        ("POST", CHAT, "", (400, "invalid_request")),
        ("POST", CHAT, "not json", (400, "invalid_request")),
        ("POST", CHAT, "[]", (400, "invalid_request")),
        ("POST", CHAT, r#"{"model":1}"#, (400, "invalid_request")),
        ("POST", CHAT, &large, (413, "body_too_large")),
    ] {
        let answer = world.ask(request(method, path, text)).await;
        assert_eq!(
            answer.error(),
            (expected.0, expected.1.into()),
            "{method} {path} {text:.40}"
        );
    }
    assert_eq!(
        world.ask(request("GET", CHAT, "")).await.header("allow"),
        "POST"
    );

    for (name, value, expected) in [
        (
            "content-type",
            "text/plain",
            (415, "unsupported_media_type"),
        ),
        ("content-encoding", "gzip", (415, "unsupported_media_type")),
        ("authorization", "Basic abc", (401, "invalid_api_key")),
        ("x-aex-provider-key", "two words", (400, "invalid_request")),
    ] {
        let mut request = chat(&body(""));
        request.headers_mut().insert(name, value.parse().unwrap());
        let answer = world.ask(request).await;
        assert_eq!(
            answer.error(),
            (expected.0, expected.1.into()),
            "{name}: {value}"
        );
    }
    let mut nobody = chat(&body(""));
    nobody.headers_mut().remove("authorization");
    assert_eq!(
        world.ask(nobody).await.json()["detail"],
        "Not authenticated"
    );

    assert!(world.admin.calls("worker.reserve").is_empty());
    assert!(world.egress.seen().is_empty());
}

#[tokio::test]
async fn a_body_of_50_megabytes_is_refused_and_its_sender_sees_why() {
    let world = World::start().await;
    let huge = "x".repeat(50 * 1024 * 1024);
    assert_eq!(
        world.chat(&huge).await.error(),
        (413, "body_too_large".into())
    );
    // The same without a length at the head.
    let chunk = format!("{:x}\r\n{}\r\n", huge.len(), huge);
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {TOKEN}\r\ncontent-type: \
         application/json\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let answer = world
        .raw(format!("{head}{chunk}0\r\n\r\n").as_bytes())
        .await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer:.200}");
}

#[tokio::test]
async fn a_client_that_waits_for_continue_is_not_asked_to_send_what_is_refused() {
    let world = World::start().await;
    let head = |token: &str, length: usize| {
        format!(
            "POST {CHAT} HTTP/1.1\r\nhost: a\r\nauthorization: {token}\r\ncontent-type: \
             application/json\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let good = format!("Bearer {TOKEN}");
    let refused = world.raw(head("Basic x", 10).as_bytes()).await;
    assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
    let too_large = world.raw(head(&good, 1_000_000).as_bytes()).await;
    assert!(too_large.starts_with("HTTP/1.1 413 "), "{too_large}");

    world.egress.answers(Reply::whole(200, PLAIN));
    let text = body("");
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream
        .write_all(head(&good, text.len()).as_bytes())
        .await
        .unwrap();
    let mut interim = [0; 25];
    soon("100 Continue", stream.read_exact(&mut interim))
        .await
        .unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    soon("the answer", stream.read_exact(&mut status))
        .await
        .unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
}

#[tokio::test]
async fn old_clients_and_closing_ones_are_served() {
    let world = World::start().await;
    let text = body("");
    for (version, more) in [("1.0", ""), ("1.1", "connection: close\r\n")] {
        world.egress.answers(Reply::whole(200, PLAIN));
        let answer = world
            .raw(
                format!(
                    "POST {CHAT} HTTP/{version}\r\nhost: a\r\nauthorization: Bearer {TOKEN}\r\n\
                     content-type: application/json\r\n{more}content-length: {}\r\n\r\n{text}",
                    text.len()
                )
                .as_bytes(),
            )
            .await;
        assert!(
            answer.starts_with(&format!("HTTP/{version} 200")),
            "{answer}"
        );
        assert!(answer.ends_with(PLAIN), "{answer}");
    }
}

#[tokio::test]
async fn a_head_that_does_not_come_is_a_408_in_the_error_form() {
    let directory = tempfile::tempdir().unwrap();
    let admin = FakeAdmin::start(directory.path().join("worker.sock"));
    let world = World::around(directory, admin, |options| {
        options.head_limit = Duration::from_millis(100);
    });
    let answer = world
        .raw(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains(r#"{"detail":"#), "{answer}");
}

#[tokio::test]
async fn health_models_and_readiness() {
    let world = World::start().await;
    let get = |path: &'static str| world.ask(request("GET", path, ""));
    assert_eq!(get("/healthz").await.status, 200);
    assert_eq!(get("/readyz").await.status, 200);
    let list = get("/v1/models").await.json();
    assert_eq!(
        list,
        json!({"object": "list", "data": [
            {"id": "small", "object": "model", "created": 7, "owned_by": "fake"},
            {"id": "vendor/large", "object": "model", "created": 8, "owned_by": "fake"},
        ]})
    );
    assert_eq!(
        get("/v1/models/vendor/large").await.json()["id"],
        "vendor/large"
    );
    assert_eq!(
        get("/v1/models/vendor%2Flarge").await.json()["id"],
        "vendor/large"
    );
    assert_eq!(
        get("/v1/models/none").await.error(),
        (404, "model_not_found".into())
    );

    world
        .admin
        .refuses_models(&json!({"refusal": "token_expired"}));
    assert_eq!(
        get("/v1/models").await.json()["detail"],
        "API token has expired"
    );
    world.admin.is_not_ready("the egress has no configuration");
    let answer = get("/readyz").await;
    assert_eq!(answer.error(), (503, "kernel_unavailable".into()));
    assert_eq!(answer.json()["detail"], "the egress has no configuration");
}

#[tokio::test]
async fn without_an_admin_it_is_a_503_and_nothing_is_forwarded() {
    let world = World::start().await;
    world.admin.go_away();
    let answer = world.chat(&body("")).await;
    assert_eq!(answer.error(), (503, "kernel_unavailable".into()));
    assert_eq!(answer.header("retry-after"), "1");
    assert!(world.egress.seen().is_empty());
    assert_eq!(world.ask(request("GET", "/healthz", "")).await.status, 200);
    assert_eq!(world.ask(request("GET", "/readyz", "")).await.status, 503);
}

#[tokio::test]
async fn a_request_waits_for_an_admin_that_restarts_and_its_hold_is_claimed_again() {
    let mut world = World::start().await;
    let (chunks, reply) = Reply::open(200, "application/json");
    world.egress.answers(reply);
    let mut first = Client::connect(world.address).await;
    let first = tokio::spawn(async move { first.send(chat(&body(""))).await });
    world.egress.asked().await;

    world.admin.go_away();
    let mut second = Client::connect(world.address).await;
    let second = tokio::spawn(async move { second.send(chat(&body(""))).await });
    world.egress.answers(Reply::whole(200, PLAIN));
    world.admin.come_back();

    let claim = world.admin.called("worker.reclaim").await;
    assert_eq!(claim["tickets"][0], "v2.1.fake.ticket");
    assert_eq!(second.await.unwrap().status(), 200);
    chunks.send(Ok(PLAIN.into())).await.unwrap();
    drop(chunks);
    assert_eq!(first.await.unwrap().status(), 200);
    world.admin.called_times("worker.settle", 2).await;
}

#[tokio::test]
async fn an_answer_is_given_while_the_admin_is_away_and_settled_when_it_is_back() {
    let mut world = World::start().await;
    let (chunks, reply) = Reply::open(200, "application/json");
    world.egress.answers(reply);
    let mut client = Client::connect(world.address).await;
    let response = tokio::spawn(async move { client.send(chat(&body(""))).await });
    world.egress.asked().await;
    world.admin.go_away();
    chunks.send(Ok(PLAIN.into())).await.unwrap();
    drop(chunks);
    let answer = common::Answer::of(response.await.unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, PLAIN));
    assert_eq!(answer.header("x-aex-cost-micro"), "");
    assert_eq!(world.admin.calls("worker.settle").len(), 0);
    world.admin.come_back();
    let settle = world.admin.called("worker.settle").await;
    assert_eq!(settle["id"], answer.header("x-aex-request-id"));
    assert_eq!(settle["observed"]["complete"], true);
}

#[tokio::test]
async fn a_worker_told_to_stop_finishes_what_it_has() {
    let mut world = World::start().await;
    let (chunks, reply) = Reply::open(200, "text/event-stream");
    world.egress.answers(reply);
    let idle = TcpStream::connect(world.address).await.unwrap();
    let mut client = Client::connect(world.address).await;
    let response = client.send(chat(&body(r#","stream":true"#))).await;
    world.tell_to_stop();
    chunks.send(Ok("data: [DONE]\n\n".into())).await.unwrap();
    drop(chunks);
    assert_eq!(common::Answer::of(response).await.body, "data: [DONE]\n\n");
    let address = world.address;
    drop((idle, client));
    assert_eq!(
        world.admin.called("worker.settle").await["observed"]["complete"],
        true
    );
    world.stopped().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_kept_connection_carries_one_more_request_and_is_told_that_it_was_the_last() {
    let mut world = World::start().await;
    world.egress.answers(Reply::whole(200, PLAIN));
    let mut client = Client::connect(world.address).await;
    let first = common::Answer::of(client.send(chat(&body(""))).await).await;
    assert_eq!(
        (first.status.as_u16(), first.header("connection")),
        (200, "")
    );
    world.tell_to_stop();
    world.stops().await;
    world.egress.answers(Reply::whole(200, PLAIN));
    let last = common::Answer::of(client.send(chat(&body(""))).await).await;
    assert_eq!(
        (last.status.as_u16(), last.header("connection")),
        (200, "close")
    );
    assert_eq!(last.body, PLAIN);
    world.stopped().await;
}

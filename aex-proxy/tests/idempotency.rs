//! Requests with an `Idempotency-Key`: what is told to the admin, kept, and given again.

#![allow(
    clippy::unwrap_used,
    reason = "a test stops where something is not as it must be"
)]

mod common;

use std::path::Path;

use aex_admin_proto::worker::{Replay, ReserveReply};
use aex_admin_proto::{HoldId, IdempotencyConflict, Refusal};
use bytes::Bytes;
use common::{Answer, Client, FakeAdmin, Reply, World, body, chat, soon};
use http::{HeaderValue, Request};
use http_body_util::{BodyExt, Full};

const PLAIN: &str = r#"{"id":"c","choices":[{"message":{"content":"hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2}}"#;
const TEXT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"hey\"}}],\"usage\":null}\n\n";
const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const STREAM: &str = r#","stream":true"#;

/// A worker that keeps answers in `spool` below its directory.
async fn world() -> World {
    let directory = tempfile::tempdir().unwrap();
    let admin = FakeAdmin::start(directory.path().join("worker.sock"));
    let spool = directory.path().join("spool");
    let world = World::around(directory, admin, |options| options.spool = Some(spool));
    world.admin.called("worker.settings").await;
    world
}

fn keyed(key: &str, body: &str) -> Request<Full<Bytes>> {
    let mut request = chat(body);
    let key = HeaderValue::from_bytes(key.as_bytes()).unwrap();
    request.headers_mut().append("idempotency-key", key);
    request
}

/// The id of the hold that was asked for last.
fn last_hold(world: &World) -> HoldId {
    let reserve = world.admin.calls("worker.reserve").pop().unwrap();
    serde_json::from_value(reserve["id"].clone()).unwrap()
}

/// From now on the admin says that this request was carried out.
fn replays(world: &World, id: HoldId) {
    let before = Replay {
        id,
        remaining_micro: Some(77),
    };
    world.admin.reserve_answers(ReserveReply::Replay(before));
}

fn kept(world: &World) -> usize {
    files(&world.directory.path().join("spool"))
}

fn files(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

#[tokio::test]
async fn a_plain_answer_is_given_again_as_it_was() {
    let world = world().await;
    let reply = Reply::whole(200, PLAIN)
        .with("x-request-id", "theirs")
        .with("idempotent-replayed", "true");
    world.egress.answers(reply);
    let first = world.ask(keyed("k", &body(""))).await;
    assert_eq!((first.status.as_u16(), first.body.as_str()), (200, PLAIN));
    assert_eq!(first.header("idempotent-replayed"), "");
    replays(&world, last_hold(&world));
    let again = world.ask(keyed("k", &body(""))).await;
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    assert_eq!(again.header("content-type"), "application/json");
    assert_eq!(again.header("x-request-id"), "theirs");
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(again.header("x-aex-cost-micro"), "0");
    assert_eq!(again.header("x-aex-remaining-micro"), "77");
    assert_eq!(
        again.header("x-aex-request-id"),
        first.header("x-aex-request-id")
    );
    assert_eq!(world.egress.seen().len(), 1);
    assert_eq!(world.admin.calls("worker.settle").len(), 1);
}

#[tokio::test]
async fn a_stream_is_given_again_as_the_client_saw_it() {
    let world = world().await;
    world
        .egress
        .answers(Reply::events(&[TEXT, TEXT, USAGE, DONE]));
    let first = world.ask(keyed("k", &body(STREAM))).await;
    assert_eq!(first.body, [TEXT, TEXT, DONE].concat());
    // The settle is what tells that it is kept.
    world.admin.called("worker.settle").await;
    replays(&world, last_hold(&world));
    let again = world.ask(keyed("k", &body(STREAM))).await;
    assert_eq!(again.body, first.body);
    assert_eq!(again.header("content-type"), "text/event-stream");
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(again.header("x-aex-cost-micro"), "");
    assert_eq!(again.header("x-aex-remaining-micro"), "77");
}

#[tokio::test]
async fn a_client_that_hung_up_finds_the_whole_answer() {
    let world = world().await;
    let (chunks, reply) = Reply::open(200, "text/event-stream");
    world.egress.answers(reply);
    let mut client = Client::connect(world.address).await;
    let sending = client.send(keyed("k", &body(STREAM)));
    chunks.send(Ok(Bytes::from(TEXT))).await.unwrap();
    let mut response = sending.await;
    soon("a chunk", response.body_mut().frame())
        .await
        .unwrap()
        .unwrap();
    drop((response, client));
    for event in [TEXT, USAGE, DONE] {
        chunks.send(Ok(Bytes::from(event))).await.unwrap();
    }
    drop(chunks);
    world.admin.called("worker.settle").await;
    replays(&world, last_hold(&world));
    let again = world.ask(keyed("k", &body(STREAM))).await;
    assert_eq!(again.body, [TEXT, TEXT, DONE].concat());
}

#[tokio::test]
async fn nothing_is_kept_of_a_failure_or_without_a_key() {
    let world = world().await;
    world.egress.answers(Reply::whole(200, PLAIN));
    world.chat(&body("")).await;
    assert!(
        world.admin.calls("worker.reserve")[0]
            .get("idempotency")
            .is_none()
    );
    for status in [400, 429, 500, 502] {
        world.egress.answers(Reply::whole(status, "{}"));
        world.ask(keyed("k", &body(""))).await;
    }
    world.egress.answers(Reply::events(&[TEXT]));
    world.ask(keyed("k", &body(STREAM))).await;
    world.admin.called_times("worker.settle", 6).await;
    assert_eq!(kept(&world), 0);
    replays(&world, last_hold(&world));
    let answer = world.ask(keyed("k", &body(""))).await;
    assert_eq!(answer.error(), (409, "idempotency_conflict".to_owned()));
    assert_eq!(answer.header("x-should-retry"), "false");
    assert!(answer.body.contains("was not kept"), "{}", answer.body);
}

#[tokio::test]
async fn an_answer_opens_for_its_own_key_alone() {
    let world = world().await;
    world.egress.answers(Reply::whole(200, PLAIN));
    world.ask(keyed("k", &body(""))).await;
    replays(&world, last_hold(&world));
    // Should the admin be wrong about whose hold it is, nobody reads another's answer.
    let mut other = keyed("k", &body(""));
    let token = HeaderValue::from_static("Bearer another-token");
    other.headers_mut().insert("authorization", token);
    assert_eq!(world.ask(other).await.status, 409);
    assert_eq!(world.ask(keyed("k2", &body(""))).await.status, 409);
    assert_eq!(world.ask(chat(&body(""))).await.status, 409);
    assert_eq!(world.ask(keyed("k", &body(""))).await.status, 200);
}

#[tokio::test]
async fn the_admin_is_told_digests_of_key_route_and_body() {
    let world = world().await;
    let mut claims = Vec::new();
    for (key, more) in [("k", ""), ("k", ""), ("k2", ""), ("k", " ")] {
        world.egress.answers(Reply::whole(200, PLAIN));
        world.ask(keyed(key, &format!("{}{more}", body("")))).await;
        claims.push(world.admin.calls("worker.reserve").pop().unwrap()["idempotency"].clone());
    }
    assert_eq!(claims[0], claims[1]);
    assert_ne!(claims[0]["key"], claims[2]["key"]);
    assert_eq!(claims[0]["request"], claims[2]["request"]);
    assert_ne!(claims[0]["request"], claims[3]["request"]);
}

#[tokio::test]
async fn a_key_is_one_visible_word() {
    let world = world().await;
    let long = "x".repeat(256);
    for bad in ["", "two words", "caf\u{e9}", long.as_str()] {
        let answer = world.ask(keyed(bad, &body(""))).await;
        assert_eq!(answer.error(), (400, "invalid_request".to_owned()), "{bad}");
        assert_eq!(answer.json()["error"]["param"], "idempotency-key");
    }
    let mut twice = keyed("a", &body(""));
    let second = HeaderValue::from_static("a");
    twice.headers_mut().append("idempotency-key", second);
    assert_eq!(world.ask(twice).await.status, 400);
    world.egress.answers(Reply::whole(200, PLAIN));
    let answer = world.ask(keyed(&long[..255], &body(""))).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn each_conflict_says_which_it_is_and_what_to_do() {
    let world = world().await;
    for (conflict, part, header) in [
        (
            IdempotencyConflict::AnotherRequest,
            "new key",
            ("x-should-retry", "false"),
        ),
        (
            IdempotencyConflict::StillRunning,
            "still running",
            ("retry-after", "1"),
        ),
    ] {
        let refusal = Refusal::IdempotencyConflict { conflict };
        world.admin.reserve_answers(ReserveReply::Refused(refusal));
        let answer = world.ask(keyed("k", &body(""))).await;
        assert_eq!(answer.error(), (409, "idempotency_conflict".to_owned()));
        assert!(answer.body.contains(part), "{}", answer.body);
        assert_eq!(answer.header(header.0), header.1);
    }
}

#[tokio::test]
async fn a_spool_that_cannot_be_written_costs_the_replay_alone() {
    let world = world().await;
    let spool = world.directory.path().join("spool");
    std::fs::remove_dir(&spool).unwrap();
    std::fs::write(&spool, "in the way").unwrap();
    world.egress.answers(Reply::whole(200, PLAIN));
    let first: Answer = world.ask(keyed("k", &body(""))).await;
    assert_eq!((first.status.as_u16(), first.body.as_str()), (200, PLAIN));
    replays(&world, last_hold(&world));
    assert_eq!(world.ask(keyed("k", &body(""))).await.status, 409);
}

//! Requests that are carried: plain, streamed, broken, and left by their clients.

#![allow(
    clippy::unwrap_used,
    reason = "a test stops where something is not as it must be"
)]

mod common;

use std::io;

use aex_admin_proto::egress::Failure;
use aex_admin_proto::worker::{Observed, OnDisconnect, ReserveReply, Usage, UsageSeen};
use aex_admin_proto::{Refusal, TokenDigest};
use bytes::Bytes;
use common::{Answer, Client, Reply, TOKEN, World, body, chat, soon};
use http_body_util::BodyExt;
use serde_json::json;

const PLAIN: &str = r#"{"id":"c","choices":[{"message":{"content":"hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2}}"#;
const TEXT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"hey\"}}],\"usage\":null}\n\n";
const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const STREAM: &str = r#","stream":true"#;

fn exact() -> UsageSeen {
    UsageSeen::Reported(Usage {
        prompt: 5,
        output: 2,
        ..Usage::default()
    })
}

/// What a settle says, its defaults filled in.
fn observed(settle: &serde_json::Value) -> Observed {
    serde_json::from_value(settle["observed"].clone()).unwrap()
}

#[tokio::test]
async fn a_plain_request_is_held_forwarded_settled_and_answered() {
    let world = World::start().await;
    let reply = Reply::whole(200, PLAIN)
        .with("x-request-id", "theirs")
        .with("set-cookie", "a=b");
    world.egress.answers(reply);
    let answer = world.chat(&body(r#","temperature":0.5"#)).await;

    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, PLAIN);
    assert_eq!(answer.header("x-aex-cost-micro"), "12");
    assert_eq!(answer.header("x-aex-remaining-micro"), "888");
    assert_eq!(answer.header("x-aex-output-cap"), "64");
    assert_eq!(answer.header("x-request-id"), "theirs");
    assert_eq!(answer.header("set-cookie"), "");

    let reserve = &world.admin.calls("worker.reserve")[0];
    let digest = serde_json::to_value(TokenDigest::of(TOKEN.as_bytes())).unwrap();
    assert_eq!(reserve["token"], digest);
    assert_eq!(reserve["model"], "small");
    assert_eq!(reserve["facts"]["messages"], 1);
    assert_eq!(reserve["id"], answer.header("x-aex-request-id"));

    let seen = &world.egress.seen()[0];
    assert_eq!(seen.path, "/chat/completions");
    assert_eq!(seen.headers["x-aex-ticket"], "v2.1.fake.ticket");
    assert_eq!(seen.headers["content-length"], seen.body.len().to_string());
    assert!(!seen.headers.contains_key("authorization"));
    assert!(!seen.headers.contains_key("x-aex-provider-key"));
    assert_eq!(
        seen.body,
        r#"{"model":"vendor/small","messages":[{"role":"user","content":"hi"}],"temperature":0.5,"max_tokens":64,"store":false}"#
    );

    let settle = &world.admin.calls("worker.settle")[0];
    assert_eq!(settle["id"], reserve["id"]);
    assert_eq!(settle["ticket"], "v2.1.fake.ticket");
    assert_eq!(
        observed(settle),
        Observed {
            status: Some(200),
            complete: true,
            usage: exact(),
            own_output_tokens: 5,
            ..Observed::default()
        }
    );
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let world = World::start().await;
    let mut client = Client::connect(world.address).await;
    for _ in 0..20 {
        world.egress.answers(Reply::whole(200, PLAIN));
        let answer = Answer::of(client.send(chat(&body(""))).await).await;
        assert_eq!(answer.status, 200);
    }
    assert_eq!(world.admin.calls("worker.settle").len(), 20);
}

#[tokio::test]
async fn a_stream_is_relayed_at_once_and_its_usage_chunk_hidden() {
    let world = World::start().await;
    let (chunks, reply) = Reply::open(200, "text/event-stream; charset=utf-8");
    world.egress.answers(reply);
    let mut client = Client::connect(world.address).await;
    let response = client.send(chat(&body(STREAM))).await;
    assert_eq!(response.headers()["x-aex-remaining-micro"], "900");
    assert_eq!(response.headers()["x-aex-output-cap"], "64");
    let mut stream = response.into_body();
    for _ in 0..3 {
        // Each chunk arrives before the next is sent: nothing is held back.
        chunks.send(Ok(TEXT.into())).await.unwrap();
        let frame = soon("a chunk", stream.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), TEXT);
    }
    chunks.send(Ok(USAGE.into())).await.unwrap();
    chunks.send(Ok(DONE.into())).await.unwrap();
    drop(chunks);
    let rest = soon("the end", stream.collect()).await.unwrap().to_bytes();
    assert_eq!(rest, DONE);
    // The end came after the settle.
    let observed = observed(&world.admin.calls("worker.settle")[0]);
    assert_eq!((observed.usage, observed.complete), (exact(), true));
    let options = &world.egress.seen()[0].json()["stream_options"];
    assert_eq!(options, &json!({"include_usage": true}));
}

#[tokio::test]
async fn a_client_that_asked_for_usage_gets_its_chunk() {
    let world = World::start().await;
    world.egress.answers(Reply::events(&[TEXT, USAGE, DONE]));
    let asked = body(r#","stream":true,"stream_options":{"include_usage":true}"#);
    assert_eq!(world.chat(&asked).await.body, [TEXT, USAGE, DONE].concat());
}

#[tokio::test]
async fn a_client_that_hangs_up_in_mid_stream_is_read_to_the_end_and_pays() {
    let world = World::start().await;
    let (chunks, reply) = Reply::open(200, "text/event-stream");
    world.egress.answers(reply);
    let mut client = Client::connect(world.address).await;
    let response = client.send(chat(&body(STREAM))).await;
    chunks.send(Ok(TEXT.into())).await.unwrap();
    let mut stream = response.into_body();
    soon("a chunk", stream.frame()).await.unwrap().unwrap();
    drop((stream, client));
    for _ in 0..100 {
        // Far more than the queues between provider and client hold.
        soon("the provider being read", chunks.send(Ok(TEXT.into())))
            .await
            .unwrap();
    }
    chunks.send(Ok(USAGE.into())).await.unwrap();
    chunks.send(Ok(DONE.into())).await.unwrap();
    drop(chunks);
    let observed = observed(&world.admin.called("worker.settle").await);
    assert_eq!((observed.usage, observed.complete), (exact(), true));
}

#[tokio::test]
async fn a_client_that_hangs_up_is_cut_off_where_the_grant_says_so() {
    let world = World::start().await;
    world
        .admin
        .grants(|grant| grant.on_disconnect = OnDisconnect::Abort);
    let (chunks, reply) = Reply::open(200, "text/event-stream");
    world.egress.answers(reply);
    let mut client = Client::connect(world.address).await;
    let response = client.send(chat(&body(STREAM))).await;
    drop((response, client));
    soon("the provider's stream being dropped", chunks.closed()).await;
    let observed = observed(&world.admin.called("worker.settle").await);
    assert!(!observed.complete);
    assert_eq!(observed.failure, Some(Failure::WorkerGone));
}

#[tokio::test]
async fn a_client_that_hangs_up_before_a_plain_answer_pays_too() {
    let world = World::start().await;
    let (chunks, reply) = Reply::open(200, "application/json");
    world.egress.answers(reply);
    let mut client = Client::connect(world.address).await;
    let response = tokio::spawn(async move { client.send(chat(&body(""))).await });
    world.egress.asked().await;
    response.abort();
    chunks.send(Ok(PLAIN.into())).await.unwrap();
    drop(chunks);
    let settle = world.admin.called("worker.settle").await;
    assert_eq!(observed(&settle).usage, exact());
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_is_cancelled_and_nothing_is_forwarded() {
    let world = World::start().await;
    world.admin.holds_reserves();
    let mut client = Client::connect(world.address).await;
    let waiting = tokio::spawn(async move { client.send(chat(&body(""))).await });
    let reserve = world.admin.called("worker.reserve").await;
    waiting.abort();
    let cancel = world.admin.called("worker.cancel").await;
    assert_eq!(cancel["id"], reserve["id"]);
    assert!(world.egress.seen().is_empty());
    assert!(world.admin.calls("worker.settle").is_empty());
}

#[tokio::test]
async fn a_refusal_is_answered_and_nothing_is_forwarded() {
    let world = World::start().await;
    let refusal = Refusal::InsufficientBudget {
        scope: "atlas".into(),
        needed_micro: 50,
        remaining_micro: 3,
        affordable_output_tokens: 2,
    };
    world.admin.reserve_answers(ReserveReply::Refused(refusal));
    let answer = world.chat(&body("")).await;
    assert_eq!(answer.error(), (402, "insufficient_budget".into()));
    assert_eq!(answer.json()["detail"], "Insufficient budget");
    assert_eq!(answer.json()["error"]["aex"]["affordable_output_tokens"], 2);
    assert_eq!(answer.header("x-should-retry"), "false");
    assert!(!answer.header("x-aex-request-id").is_empty());
    assert!(world.egress.seen().is_empty());
}

#[tokio::test]
async fn an_own_key_goes_to_the_egress_and_its_refusal_to_the_agent() {
    let world = World::start().await;
    for (own_key, expected) in [(true, 401), (false, 502)] {
        world
            .egress
            .answers(Reply::whole(401, r#"{"error":{"message":"bad key"}}"#));
        let mut request = chat(&body(""));
        if own_key {
            let value = "sk-fake-own".parse().unwrap();
            request.headers_mut().insert("x-aex-provider-key", value);
        }
        let answer = world.ask(request).await;
        assert_eq!(answer.status, expected);
    }
    let seen = world.egress.seen();
    assert_eq!(seen[0].headers["x-aex-provider-key"], "sk-fake-own");
    assert!(!seen[1].headers.contains_key("x-aex-provider-key"));
    let reserves = world.admin.calls("worker.reserve");
    assert_eq!(reserves[0]["facts"]["own_key"], true);
    assert!(!reserves[0].to_string().contains("sk-fake-own"));
}

#[tokio::test]
async fn a_providers_error_keeps_status_headers_and_body_and_gains_a_detail() {
    let world = World::start().await;
    let error = r#"{"error":{"message":"slow down","code":null}}"#;
    world
        .egress
        .answers(Reply::whole(429, error).with("retry-after", "17"));
    let answer = world.chat(&body(STREAM)).await;
    assert_eq!(answer.status, 429);
    assert_eq!(answer.header("retry-after"), "17");
    assert_eq!(
        answer.body,
        r#"{"detail":"slow down","error":{"message":"slow down","code":null}}"#
    );
    assert_eq!(
        world.admin.calls("worker.settle")[0]["observed"]["status"],
        429
    );
}

#[tokio::test]
async fn a_stream_cut_by_the_provider_ends_with_an_error_event() {
    let world = World::start().await;
    for (severed, code) in [(false, "upstream_error"), (true, "agent_paused")] {
        if severed {
            world.admin.severs();
        }
        let (chunks, reply) = Reply::open(200, "text/event-stream");
        world.egress.answers(reply);
        let mut client = Client::connect(world.address).await;
        let response = client.send(chat(&body(STREAM))).await;
        let half = Bytes::from(format!("{TEXT}data: {{\"cho"));
        chunks.send(Ok(half)).await.unwrap();
        let mut stream = response.into_body();
        let first = soon("a chunk", stream.frame()).await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), TEXT);
        chunks
            .send(Err(io::ErrorKind::ConnectionReset.into()))
            .await
            .unwrap();
        // A clean end of the body, after one event.
        let rest = soon("the end", stream.collect()).await.unwrap().to_bytes();
        let rest = String::from_utf8(rest.to_vec()).unwrap();
        let event = rest
            .strip_prefix("data: ")
            .unwrap()
            .strip_suffix("\n\n")
            .unwrap();
        let event: serde_json::Value = serde_json::from_str(event).unwrap();
        assert_eq!(event["error"]["code"], code);
    }
    let observed = observed(&world.admin.calls("worker.settle")[0]);
    assert_eq!(
        (observed.complete, observed.usage),
        (false, UsageSeen::Missing)
    );
}

#[tokio::test]
async fn a_plain_answer_that_breaks_off_is_a_502() {
    let world = World::start().await;
    let (chunks, reply) = Reply::open(200, "application/json");
    world.egress.answers(reply);
    chunks
        .send(Ok(Bytes::from_static(b"{\"cho")))
        .await
        .unwrap();
    chunks
        .send(Err(io::ErrorKind::ConnectionReset.into()))
        .await
        .unwrap();
    assert_eq!(
        world.chat(&body("")).await.error(),
        (502, "upstream_error".into())
    );
}

#[tokio::test]
async fn what_the_egress_says_of_its_failures_is_told() {
    let world = World::start().await;
    for (failure, expected) in [
        ("connect", (502, "upstream_error")),
        ("timeout", (504, "upstream_error")),
        ("ticket", (503, "kernel_unavailable")),
        ("severed", (423, "agent_paused")),
    ] {
        world
            .egress
            .answers(Reply::whole(502, "").with("x-aex-egress-failure", failure));
        let answer = world.chat(&body("")).await;
        assert_eq!(answer.error(), (expected.0, expected.1.into()), "{failure}");
        let settles = world.admin.calls("worker.settle");
        let observed = &settles.last().unwrap()["observed"];
        assert_eq!(observed["failure"], failure);
        assert_eq!(observed["status"], json!(null));
    }
}

#[tokio::test]
async fn without_an_egress_it_is_a_503_and_settled_as_never_sent() {
    let world = World::start().await;
    world.egress.go_away();
    let answer = world.chat(&body("")).await;
    assert_eq!(answer.error(), (503, "kernel_unavailable".into()));
    assert_eq!(answer.header("retry-after"), "1");
    let settle = world.admin.called("worker.settle").await;
    assert_eq!(settle["observed"]["failure"], "connect");
}

#[tokio::test]
async fn a_slow_reader_stops_the_provider() {
    let world = World::start().await;
    world
        .admin
        .grants(|grant| grant.max_response_bytes = u64::MAX);
    let (chunks, reply) = Reply::open(200, "text/event-stream");
    world.egress.answers(reply);
    let mut client = Client::connect(world.address).await;
    let response = client.send(chat(&body(STREAM))).await;
    let large = Bytes::from(format!("data: \"{}\"\n\n", "x".repeat(1024 * 1024)));
    let mut taken = 0;
    // What is between provider and reader is bounded: sooner or later a send has to wait.
    while let Ok(sent) = tokio::time::timeout(
        std::time::Duration::from_secs(1),
        chunks.send(Ok(large.clone())),
    )
    .await
    {
        sent.unwrap();
        taken += 1;
        assert!(
            taken < 100,
            "the worker reads on for a client that does not"
        );
    }
    drop(response);
}

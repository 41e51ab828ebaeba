//! A provider that repeats the operator's key in the bodies of its answers.

use std::path::Path;

use aex_admin_proto::egress::{Exchange, Failure};
use aex_admin_proto::ticket::KeyMode;
use http_body_util::BodyExt;

use crate::admin::{Admin, ticket, ticket_with};
use crate::forwarding::World;
use crate::provider::Provider;
use crate::worker::{Got, Worker, post, read};
use crate::{OPERATOR_KEY, OWN_KEY, tls};

fn masked(text: &str) -> String {
    text.replace(OPERATOR_KEY, &"*".repeat(OPERATOR_KEY.len()))
}

async fn whole_answers(socket: &Path, admin: &Admin) {
    let sent =
        format!("{{\"saw\":\"Bearer {OPERATOR_KEY}\"}} Bearer {OPERATOR_KEY}, Bearer sk-canary");
    for status in [200, 400, 404, 422, 429, 500, 503] {
        let path = format!("/key/{status}");
        let (id, ticket) = ticket("sim", &path);
        let got = post(socket, &path, &ticket, "x").await;
        assert_eq!(got.status, status);
        assert!(got.is_whole);
        assert_eq!(got.body, masked(&sent), "{status}");
        assert_eq!(got.headers["content-length"], sent.len().to_string());
        assert!(!got.everything().contains(OPERATOR_KEY));
        let exchange = admin.ended(id).await;
        assert!(exchange.complete);
        assert_eq!(exchange.bytes_down, sent.len() as u64);
    }
    for status in [401, 402, 403] {
        let path = format!("/key/{status}");
        let (id, ticket) = ticket("sim", &path);
        let got = post(socket, &path, &ticket, "x").await;
        assert_eq!(got.status, status);
        assert!(got.body.contains("The provider refused the operator's key"));
        assert!(!got.everything().contains("canary"));
        assert_eq!(admin.ended(id).await.status, Some(status));
    }
}

/// The first write ends within the key. What came before it is there at once; then all the rest.
async fn in_two(
    socket: &Path,
    provider: &Provider,
    admin: &Admin,
    path: &str,
) -> (String, Got, Exchange) {
    let (id, ticket) = ticket("sim", path);
    let mut worker = Worker::connect(socket).await;
    let headers = [("x-aex-ticket", ticket.as_str())];
    let mut answer = worker.head(path, &headers, "x").await.unwrap();
    let mut first = String::new();
    while !first.ends_with("Bearer ") {
        let frame = answer.frame().await.unwrap().unwrap();
        first.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
    provider.go_on();
    let rest = read(answer).await;
    (first, rest, admin.ended(id).await)
}

async fn streams(socket: &Path, provider: &Provider, admin: &Admin) {
    let sent = format!("data: {{\"saw\":\"Bearer {OPERATOR_KEY}\"}}\n\n");
    let before = "data: {\"saw\":\"Bearer ";
    let (first, rest, exchange) = in_two(socket, provider, admin, "/key/stream").await;
    assert_eq!(first, before);
    assert_eq!(first + &rest.body, masked(&sent));
    assert!(rest.is_whole && exchange.complete);
    assert_eq!(exchange.bytes_down, sent.len() as u64);
}

#[tokio::test]
async fn the_operators_key_is_masked_in_every_body() {
    let world = World::new().await;
    whole_answers(&world.egress.socket, &world.admin).await;
    streams(&world.egress.socket, &world.provider, &world.admin).await;
    let receipts = format!("{:?}", world.admin.state.borrow().receipts);
    assert!(!receipts.contains("canary"));
    assert!(!world.home.log().contains("canary"));
    let journal = std::fs::read_to_string(world.home.run().join("egress.journal")).unwrap();
    assert!(!journal.contains("canary"));
}

#[tokio::test]
async fn the_operators_key_is_masked_in_every_body_over_http_2() {
    let world = tls::World::new(&["h2"], tls::its_own).await;
    whole_answers(&world.egress.socket, &world.admin).await;
    streams(&world.egress.socket, &world.provider, &world.admin).await;
    for seen in world.provider.seen() {
        assert_eq!(seen.version, http::Version::HTTP_2);
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_within_the_key_is_handed_on_as_far_as_it_came() {
    let world = World::new().await;
    let (socket, admin) = (&world.egress.socket, &world.admin);
    let (first, rest, exchange) = in_two(socket, &world.provider, admin, "/key/cut").await;
    assert!(!rest.is_whole);
    let sent = format!("data: {{\"saw\":\"Bearer {OPERATOR_KEY}\"}}\n\n");
    let came = &sent[..sent.len() - 12];
    assert_eq!(first + &rest.body, came);
    assert_eq!(exchange.failure, Some(Failure::Reset));
    assert_eq!(exchange.bytes_down, came.len() as u64);
}

#[tokio::test]
async fn an_own_key_is_the_agents_to_see() {
    let world = World::new().await;
    let (_, ticket) = ticket_with("sim", "/key/200", |claims| claims.key = KeyMode::Own);
    let mut worker = Worker::connect(&world.egress.socket).await;
    let headers = [
        ("x-aex-ticket", ticket.as_str()),
        ("x-aex-provider-key", OWN_KEY),
    ];
    let got = worker.post("/key/200", &headers, "x").await;
    assert!(got.body.contains(OWN_KEY));
}

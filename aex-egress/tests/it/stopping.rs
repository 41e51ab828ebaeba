//! SIGTERM, and a second process.

use http_body_util::BodyExt;
use tokio::net::UnixStream;

use crate::admin::{ticket, ticket_with};
use crate::forwarding::World;
use crate::worker::Worker;

#[tokio::test]
async fn a_stop_lets_an_exchange_finish_and_tells_of_it() {
    let mut world = World::new().await;
    let (id, ticket) = ticket_with("sim", "/endless", |c| c.max_response_bytes = u64::MAX);
    let mut worker = Worker::connect(&world.egress.socket).await;
    let headers = [("x-aex-ticket", ticket.as_str())];
    let mut answer = worker.head("/endless", &headers, "x").await.unwrap();
    answer.frame().await.unwrap().unwrap();
    world.egress.terminate();
    while UnixStream::connect(&world.egress.socket).await.is_ok() {
        answer.frame().await.unwrap().unwrap();
    }
    // It no longer accepts, and still serves what it has.
    for _ in 0..100 {
        answer.frame().await.unwrap().unwrap();
    }
    worker.vanish();
    drop(answer);
    let status = world.egress.exit().await;
    assert!(status.success(), "{status:?}");
    world.admin.ended(id).await;
    assert!(!world.egress.socket.exists());
}

#[tokio::test]
async fn an_idle_process_stops_at_once() {
    let mut world = World::new().await;
    let ticket = ticket("sim", "/echo").1;
    let mut worker = Worker::connect(&world.egress.socket).await;
    let headers = [("x-aex-ticket", ticket.as_str())];
    assert_eq!(worker.post("/echo", &headers, "x").await.status, 200);
    world.egress.terminate();
    assert!(world.egress.exit().await.success());
}

#[tokio::test]
async fn a_kept_connection_carries_one_more_request_and_is_told_that_it_was_the_last() {
    let mut world = World::new().await;
    let mut worker = Worker::connect(&world.egress.socket).await;
    let first = ticket("sim", "/echo").1;
    let headers = [("x-aex-ticket", first.as_str())];
    let got = worker.post("/echo", &headers, "x").await;
    assert!(!got.everything().contains("\"connection\": \"close\""));
    world.egress.terminate();
    while UnixStream::connect(&world.egress.socket).await.is_ok() {}
    let last = ticket("sim", "/echo").1;
    let headers = [("x-aex-ticket", last.as_str())];
    let got = worker.post("/echo", &headers, "x").await;
    assert_eq!(got.status, 200);
    assert!(got.everything().contains("\"connection\": \"close\""));
    assert!(world.egress.exit().await.success());
}

#[tokio::test]
async fn a_second_process_leaves_the_first_alone() {
    let world = World::new().await;
    let status = world.home.command().status().unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(world.home.log().contains("another aex-egress is using"));
    let ticket = ticket("sim", "/echo").1;
    assert_eq!(world.post("/echo", &ticket, "x").await.status, 200);
}

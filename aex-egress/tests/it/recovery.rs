//! Voids, cuts, and what is known after a kill.

use std::time::Duration;

use aex_admin_proto::egress::{Ending, Failure};
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::admin::ticket;
use crate::forwarding::World;
use crate::worker::{Worker, post, read};

#[tokio::test]
async fn a_voided_ticket_can_never_be_redeemed() {
    let mut world = World::new().await;
    let (id, voided) = ticket("sim", "/echo");
    world.admin.void(id);
    // The journal is new, so certainty is not claimed; but it is dead all the same.
    assert_eq!(world.admin.ending(id).await, Ending::Unknown);
    let got = world.post("/echo", &voided, "x").await;
    assert_eq!(got.failure(), Some("ticket"));

    world.egress.kill();
    world.egress = world.home.start().await;
    let (_, other) = ticket("sim", "/echo");
    world
        .admin
        .until("the new process", |state| {
            let said = state.said.as_ref()?;
            (said.pid == world.egress.pid() && said.acting_on == Some(1)).then_some(())
        })
        .await;
    assert_eq!(world.post("/echo", &voided, "x").await.status, 403);
    assert_eq!(world.post("/echo", &other, "x").await.status, 200);
    assert_eq!(world.provider.seen().len(), 1);
}

#[tokio::test]
async fn a_void_after_the_end_gets_the_true_ending_again() {
    let world = World::new().await;
    world.admin.state.send_modify(|state| state.is_deaf = true);
    let (id, ticket) = ticket("sim", "/echo");
    world.post("/echo", &ticket, "four").await;
    let first = world.admin.ended(id).await;
    world.admin.void(id);
    // The first call is not answered; a new connection brings what is owed, and the void's answer.
    world.admin.state.send_modify(|state| state.is_deaf = false);
    let mut world = world;
    world.admin.stop().await;
    world.admin.start_again();
    let again = world.admin.nth_ending(id, 1).await;
    assert_eq!(again, Ending::Ended(first));
}

#[tokio::test]
async fn a_cut_ends_an_exchange_before_its_head() {
    let world = World::new().await;
    let (id, ticket) = ticket("sim", "/hang");
    let (got, ()) = tokio::join!(world.post("/hang", &ticket, "x"), async {
        while world.provider.seen().is_empty() {
            tokio::task::yield_now().await;
        }
        world.admin.cut(id);
    });
    assert_eq!(got.failure(), Some("severed"));
    assert_eq!(world.admin.ended(id).await.failure, Some(Failure::Severed));
    world.provider.abandoned().await;
}

#[tokio::test]
async fn a_cut_ends_a_stream_whose_worker_does_not_read() {
    let world = World::new().await;
    let (id, ticket) = ticket("sim", "/endless");
    let mut worker = Worker::connect(&world.egress.socket).await;
    let headers = [("x-aex-ticket", ticket.as_str())];
    let mut answer = worker.head("/endless", &headers, "x").await.unwrap();
    answer.frame().await.unwrap().unwrap();
    world.admin.cut(id);
    // The cut itself is at once; the rest of the second is for a busy machine.
    let ended = timeout(Duration::from_secs(1), world.admin.ended(id));
    let exchange = ended.await.expect("the cut took too long");
    assert_eq!(exchange.failure, Some(Failure::Severed));
    world.provider.abandoned().await;
    assert!(!read(answer).await.is_whole);
}

#[tokio::test]
async fn a_kill_in_mid_exchange_is_known_afterwards() {
    let mut world = World::new().await;
    let (open, hanging) = ticket("sim", "/hang");
    let (done, used) = ticket("sim", "/echo");
    assert_eq!(world.post("/echo", &used, "x").await.status, 200);
    let mut worker = Worker::connect(&world.egress.socket).await;
    let headers = [("x-aex-ticket", hanging.as_str())];
    tokio::select! {
        _ = worker.head("/hang", &headers, "x") => panic!("an answer of /hang"),
        () = async {
            while world.provider.seen().len() < 2 {
                tokio::task::yield_now().await;
            }
        } => {}
    }
    world.egress.kill();
    world.egress = world.home.start().await;
    let exchange = world.admin.ended(open).await;
    assert_eq!(exchange.failure, Some(Failure::EgressGone));
    assert!(exchange.sent && !exchange.complete);
    assert!(matches!(world.admin.ending(done).await, Ending::Ended(_)));
    world
        .admin
        .until("the new process", |state| {
            let said = state.said.as_ref()?;
            (said.pid == world.egress.pid() && said.acting_on == Some(1)).then_some(())
        })
        .await;
    for (path, ticket) in [("/hang", &hanging), ("/echo", &used)] {
        let got = world.post(path, ticket, "x").await;
        assert_eq!(got.failure(), Some("ticket"), "{path}");
    }
    assert_eq!(world.provider.seen().len(), 2);
}

#[tokio::test]
async fn serving_goes_on_without_admin_and_receipts_come_later() {
    let mut world = World::new().await;
    world.admin.stop().await;
    let mut ids = Vec::new();
    for _ in 0..30 {
        let (id, ticket) = ticket("sim", "/echo");
        let got = post(&world.egress.socket, "/echo", &ticket, "x").await;
        assert_eq!(got.status, 200);
        ids.push(id);
    }
    assert_eq!(world.admin.receipts_of(ids[0]), 0);
    world.admin.start_again();
    for id in ids {
        assert!(world.admin.ended(id).await.complete);
    }
    let said = world.admin.state.borrow().said.clone().unwrap();
    assert_eq!(said.operator_keys, ["sim"]);
}

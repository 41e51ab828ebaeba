//! What goes through, and how an exchange ends.

use aex_admin_proto::clock::boot_ms;
use aex_admin_proto::egress::{Ending, Failure};
use aex_admin_proto::ticket::KeyMode;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::admin::{Admin, provider_config, ticket, ticket_with};
use crate::egress::{Egress, Home};
use crate::provider::Provider;
use crate::worker::{Worker, post};
use crate::{OPERATOR_KEY, OWN_KEY};

pub(crate) struct World {
    pub(crate) home: Home,
    pub(crate) provider: Provider,
    pub(crate) admin: Admin,
    pub(crate) egress: Egress,
}

impl World {
    pub(crate) async fn new() -> Self {
        let home = Home::new();
        let provider = Provider::start().await;
        let admin = Admin::start(&home.run(), vec![provider_config("sim", &provider.url())]);
        let egress = home.start().await;
        admin.acting_on(1).await;
        Self {
            home,
            provider,
            admin,
            egress,
        }
    }

    pub(crate) async fn post(&self, path: &str, ticket: &str, body: &str) -> crate::worker::Got {
        post(&self.egress.socket, path, ticket, body).await
    }
}

#[tokio::test]
async fn a_request_passes_with_the_operators_key_and_nothing_of_the_agents() {
    let world = World::new().await;
    let (id, ticket) = ticket("sim", "/echo");
    let mut worker = Worker::connect(&world.egress.socket).await;
    let headers = [
        ("x-aex-ticket", ticket.as_str()),
        ("content-type", "application/json"),
        ("accept", "application/json"),
        ("cookie", "a=b"),
        ("authorization", "Bearer agent-token"),
        ("x-aex-provider-key", OWN_KEY),
        ("host", "evil.example"),
    ];
    let got = worker.post("/echo", &headers, "{\"a\": 1}").await;
    assert_eq!(got.status, 200);
    assert_eq!(got.body, "{\"a\": 1}");
    assert_eq!(got.headers["x-request-id"], "r-1");
    assert_eq!(got.headers["x-ratelimit-remaining-requests"], "9");
    assert_eq!(got.headers["content-length"], "8");
    assert!(!got.headers.contains_key("set-cookie"));
    assert!(!got.headers.contains_key("openai-organization"));
    assert!(!got.everything().contains("canary"));

    let seen = &world.provider.seen()[0];
    assert_eq!(seen.path, "/v1/echo");
    assert_eq!(
        seen.headers["authorization"],
        format!("Bearer {OPERATOR_KEY}")
    );
    assert_eq!(seen.headers["host"], world.provider.address.to_string());
    assert_eq!(seen.headers["accept-encoding"], "identity");
    let mut names: Vec<_> = seen.headers.keys().map(|n| n.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "accept",
            "accept-encoding",
            "authorization",
            "content-length",
            "content-type",
            "host",
            "user-agent"
        ]
    );

    let exchange = world.admin.ended(id).await;
    assert!(exchange.sent && exchange.complete);
    assert_eq!(exchange.status, Some(200));
    assert_eq!(exchange.failure, None);
    assert_eq!((exchange.bytes_up, exchange.bytes_down), (8, 8));
    assert!(exchange.head_boot_ms <= boot_ms());
    let said = world.admin.state.borrow().said.clone().unwrap();
    assert_eq!(said.operator_keys, ["sim"]);
    assert_eq!(said.pid, world.egress.pid());
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let world = World::new().await;
    let mut worker = Worker::connect(&world.egress.socket).await;
    for _ in 0..20 {
        let (_, ticket) = ticket("sim", "/echo");
        let got = worker
            .post("/echo", &[("x-aex-ticket", &ticket)], "x")
            .await;
        assert_eq!(got.status, 200);
    }
    assert_eq!(world.provider.connections(), 1);
}

#[tokio::test]
async fn an_own_key_travels_only_when_the_ticket_says_so() {
    let world = World::new().await;
    let mut worker = Worker::connect(&world.egress.socket).await;
    let (_, own) = ticket_with("sim", "/echo", |claims| claims.key = KeyMode::Own);
    let headers = [
        ("x-aex-ticket", own.as_str()),
        ("x-aex-provider-key", OWN_KEY),
    ];
    assert_eq!(worker.post("/echo", &headers, "").await.status, 200);
    let seen = world.provider.seen();
    assert_eq!(
        seen[0].headers["authorization"],
        format!("Bearer {OWN_KEY}")
    );
    assert!(!seen[0].headers.contains_key("x-aex-provider-key"));

    let (_, none) = ticket_with("sim", "/echo", |claims| claims.key = KeyMode::None);
    let headers = [
        ("x-aex-ticket", none.as_str()),
        ("x-aex-provider-key", OWN_KEY),
    ];
    assert_eq!(worker.post("/echo", &headers, "").await.status, 200);
    assert!(
        !world.provider.seen()[1]
            .headers
            .contains_key("authorization")
    );

    let (id, own) = ticket_with("sim", "/echo", |claims| claims.key = KeyMode::Own);
    let got = worker.post("/echo", &[("x-aex-ticket", &own)], "").await;
    assert_eq!(got.failure(), Some("not_configured"));
    assert!(!world.admin.ended(id).await.sent);
    assert_eq!(world.provider.seen().len(), 2);
}

#[tokio::test]
async fn a_stream_is_told_of_at_its_head_and_ends_once() {
    let world = World::new().await;
    let (id, ticket) = ticket("sim", "/three-events");
    let got = world.post("/three-events", &ticket, "x").await;
    assert!(got.is_whole);
    assert!(got.body.starts_with("data: 0\n\n") && got.body.contains("data: 2\n\n"));
    let exchange = world.admin.ended(id).await;
    assert!(exchange.complete);
    assert_eq!(exchange.bytes_down, got.body.len() as u64);
    let receipts = world.admin.state.borrow().receipts.clone();
    let head_boot_ms = exchange.head_boot_ms;
    assert_eq!(receipts[0].ending, Ending::Opened { head_boot_ms });
    assert_eq!(world.admin.receipts_of(id), 2);
}

#[tokio::test]
async fn a_refused_operator_key_is_echoed_nowhere() {
    let world = World::new().await;
    let (id, ticket_401) = ticket("sim", "/401");
    let got = world.post("/401", &ticket_401, "x").await;
    assert_eq!(got.status, 401);
    assert!(got.body.contains("The provider refused the operator's key"));
    assert_eq!(got.headers["content-type"], "application/json");
    assert!(!got.headers.contains_key("www-authenticate"));
    let exchange = world.admin.ended(id).await;
    assert_eq!((exchange.status, exchange.failure), (Some(401), None));
    assert!(!got.everything().contains("canary"));

    // Elsewhere the body is the provider's, but a header with the key in it is not passed.
    let (_, ticket_429) = ticket("sim", "/429");
    let got = world.post("/429", &ticket_429, "x").await;
    assert_eq!(got.headers["retry-after"], "3");
    assert!(!got.everything().contains("canary"));

    let receipts = format!("{:?}", world.admin.state.borrow().receipts);
    assert!(!receipts.contains("canary"));
    assert!(!world.home.log().contains("canary"));
    let journal = std::fs::read_to_string(world.home.run().join("egress.journal")).unwrap();
    assert!(!journal.contains("canary"));
}

#[tokio::test]
async fn a_refused_own_key_is_the_agents_to_see() {
    let world = World::new().await;
    let (_, ticket) = ticket_with("sim", "/401", |claims| claims.key = KeyMode::Own);
    let mut worker = Worker::connect(&world.egress.socket).await;
    let headers = [
        ("x-aex-ticket", ticket.as_str()),
        ("x-aex-provider-key", OWN_KEY),
    ];
    let got = worker.post("/401", &headers, "x").await;
    assert_eq!(got.status, 401);
    assert!(got.body.contains("Incorrect API key provided"));
}

#[tokio::test]
async fn a_redirect_is_handed_back_and_not_followed() {
    let world = World::new().await;
    let (_, ticket) = ticket("sim", "/moved");
    let got = world.post("/moved", &ticket, "x").await;
    assert_eq!(got.status, 307);
    assert_eq!(world.provider.seen().len(), 1);
}

#[tokio::test]
async fn a_broken_answer_is_broken_for_the_worker_too() {
    let world = World::new().await;
    let (id, ticket) = ticket("sim", "/one-then-cut");
    let got = world.post("/one-then-cut", &ticket, "x").await;
    assert!(got.body.contains("data: 0"));
    assert!(!got.is_whole, "a cut answer looks whole");
    let exchange = world.admin.ended(id).await;
    assert_eq!(exchange.failure, Some(Failure::Reset));
    assert!(exchange.sent && !exchange.complete);
}

#[tokio::test]
async fn an_answer_beyond_its_limit_is_cut() {
    let world = World::new().await;
    let limit = |claims: &mut aex_admin_proto::ticket::Claims| claims.max_response_bytes = 3000;
    let (id, known) = ticket_with("sim", "/big", limit);
    let got = world.post("/big", &known, "x").await;
    assert_eq!(got.failure(), Some("response_too_large"));
    assert_eq!(
        world.admin.ended(id).await.failure,
        Some(Failure::ResponseTooLarge)
    );

    let (id, unknown) = ticket_with("sim", "/endless", limit);
    let got = world.post("/endless", &unknown, "x").await;
    assert!(!got.is_whole && got.body.len() <= 3000);
    assert_eq!(
        world.admin.ended(id).await.failure,
        Some(Failure::ResponseTooLarge)
    );
    world.provider.abandoned().await;
}

#[tokio::test]
async fn a_deadline_ends_an_exchange_before_and_after_its_head() {
    let world = World::new().await;
    let soon = |claims: &mut aex_admin_proto::ticket::Claims| {
        claims.deadline_boot_ms = boot_ms() + 300;
    };
    let (id, before) = ticket_with("sim", "/hang", soon);
    let got = world.post("/hang", &before, "x").await;
    assert_eq!((got.status.as_u16(), got.failure()), (504, Some("timeout")));
    let exchange = world.admin.ended(id).await;
    assert_eq!(
        (exchange.failure, exchange.sent),
        (Some(Failure::Timeout), true)
    );

    let (id, after) = ticket_with("sim", "/endless", |claims| {
        soon(claims);
        claims.max_response_bytes = u64::MAX;
    });
    let got = world.post("/endless", &after, "x").await;
    assert!(!got.is_whole);
    assert_eq!(world.admin.ended(id).await.failure, Some(Failure::Timeout));
}

#[tokio::test]
async fn the_providers_own_time_limit_counts_too() {
    let world = World::new().await;
    let mut config = provider_config("sim", &world.provider.url());
    config.request_timeout_ms = 300;
    world.admin.configure(2, vec![config]);
    world.admin.acting_on(2).await;
    let (id, ticket) = ticket("sim", "/hang");
    assert_eq!(
        world.post("/hang", &ticket, "x").await.failure(),
        Some("timeout")
    );
    assert_eq!(world.admin.ended(id).await.failure, Some(Failure::Timeout));
}

#[tokio::test]
async fn a_worker_that_goes_away_ends_its_exchange_and_the_providers() {
    let world = World::new().await;
    let (id, ticket) = ticket("sim", "/endless");
    let mut worker = Worker::connect(&world.egress.socket).await;
    let headers = [("x-aex-ticket", ticket.as_str())];
    let mut answer = worker.head("/endless", &headers, "x").await.unwrap();
    answer.frame().await.unwrap().unwrap();
    worker.vanish();
    drop(answer);
    let exchange = world.admin.ended(id).await;
    assert_eq!(exchange.failure, Some(Failure::WorkerGone));
    assert_eq!(exchange.status, Some(200));
    world.provider.abandoned().await;
}

#[tokio::test]
async fn a_worker_that_goes_away_while_it_waits_ends_its_exchange_too() {
    let world = World::new().await;
    let (id, ticket) = ticket("sim", "/hang");
    let mut worker = Worker::connect(&world.egress.socket).await;
    let headers = [("x-aex-ticket", ticket.as_str())];
    tokio::select! {
        _ = worker.head("/hang", &headers, "x") => panic!("an answer of /hang"),
        () = async {
            while world.provider.seen().is_empty() {
                tokio::task::yield_now().await;
            }
        } => {}
    }
    worker.vanish();
    let exchange = world.admin.ended(id).await;
    assert_eq!(exchange.failure, Some(Failure::WorkerGone));
    assert!(exchange.sent);
    world.provider.abandoned().await;
}

#[tokio::test]
async fn a_large_body_passes_and_a_slow_reader_holds_the_provider_back() {
    let world = World::new().await;
    let body = "x".repeat(900_000);
    let (id, large) = ticket("sim", "/echo");
    let got = world.post("/echo", &large, &body).await;
    assert_eq!(got.body.len(), body.len());
    assert_eq!(world.admin.ended(id).await.bytes_up, 900_000);

    let (id, slow) = ticket_with("sim", "/endless", |claims| {
        claims.max_response_bytes = u64::MAX;
        claims.deadline_boot_ms = boot_ms() + 700;
    });
    let mut worker = Worker::connect(&world.egress.socket).await;
    let headers = [("x-aex-ticket", slow.as_str())];
    let answer = worker.head("/endless", &headers, "x").await.unwrap();
    // Nobody reads until the deadline: only so much is on its way by then.
    let exchange = world.admin.ended(id).await;
    assert_eq!(exchange.failure, Some(Failure::Timeout));
    assert!(
        exchange.bytes_down < 8 * 1024 * 1024,
        "{}",
        exchange.bytes_down
    );
    drop(answer);
}

#[tokio::test]
async fn a_connection_that_the_provider_closed_meanwhile_costs_nothing() {
    let home = Home::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let admin = Admin::start(&home.run(), vec![provider_config("sim", &url)]);
    let egress = home.start().await;
    admin.acting_on(1).await;
    for _ in 0..20 {
        let (id, ticket) = ticket("sim", "/x");
        let (got, ()) = tokio::join!(post(&egress.socket, "/x", &ticket, ""), async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            stream.write_all(answer).await.unwrap();
            // It promised to keep the connection, and closes it.
        });
        assert_eq!((got.status.as_u16(), got.body.as_str()), (200, "ok"));
        assert!(admin.ended(id).await.complete);
    }
}

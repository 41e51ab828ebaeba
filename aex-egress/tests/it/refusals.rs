//! What does not go through: nothing reaches the provider.

use aex_admin_proto::clock::boot_ms;
use aex_admin_proto::egress::{Failure, KeyPolicy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};

use crate::admin::{provider_config, ticket, ticket_with};
use crate::forwarding::World;
use crate::worker::Worker;

#[tokio::test]
async fn without_its_own_unused_ticket_nothing_is_forwarded() {
    let world = World::new().await;
    let used = ticket("sim", "/echo").1;
    assert_eq!(world.post("/echo", &used, "x").await.status, 200);
    let expired = ticket_with("sim", "/echo", |c| c.expires_boot_ms = boot_ms() - 1).1;
    let get = ticket_with("sim", "/echo", |c| c.method = "GET".into()).1;
    let good = || ticket("sim", "/echo").1;
    let (other_path, query, doubled, provider) = (good(), good(), good(), good());
    let forged = good().replace("v2.1.", "v2.1.e");
    let mut worker = Worker::connect(&world.egress.socket).await;
    type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);
    let cases: &[Case<'_>] = &[
        ("missing", "/echo", &[]),
        ("noise", "/echo", &[("x-aex-ticket", "v2.1.a.b")]),
        ("used", "/echo", &[("x-aex-ticket", &used)]),
        ("forged", "/echo", &[("x-aex-ticket", &forged)]),
        ("expired", "/echo", &[("x-aex-ticket", &expired)]),
        ("method", "/echo", &[("x-aex-ticket", &get)]),
        ("path", "/three-events", &[("x-aex-ticket", &other_path)]),
        ("query", "/echo?a=b", &[("x-aex-ticket", &query)]),
        (
            "twice",
            "/echo",
            &[("x-aex-ticket", &doubled), ("x-aex-ticket", &doubled)],
        ),
        (
            "provider",
            "/echo",
            &[("x-aex-ticket", &provider), ("x-aex-provider", "other")],
        ),
    ];
    for (name, path, headers) in cases {
        let got = worker.post(path, headers, "body").await;
        assert_eq!(got.status, 403, "{name}");
        assert_eq!(got.failure(), Some("ticket"), "{name}");
    }
    assert_eq!(world.provider.seen().len(), 1, "only the good one");
    // A refused presentation does not use a ticket up.
    assert_eq!(world.post("/echo", &doubled, "x").await.status, 200);
}

#[tokio::test]
async fn a_ticket_presented_many_times_at_once_is_used_once() {
    let world = World::new().await;
    let ticket = ticket("sim", "/echo").1;
    let all = (0..20).map(|_| world.post("/echo", &ticket, "x"));
    let all = futures_util::future::join_all(all).await;
    let served = all.iter().filter(|got| got.status == 200).count();
    assert_eq!(served, 1);
    assert_eq!(world.provider.seen().len(), 1);
}

#[tokio::test]
async fn an_unreachable_provider_was_sent_nothing() {
    let world = World::new().await;
    // A port that was free a moment ago.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let providers = vec![
        provider_config("sim", &world.provider.url()),
        provider_config("closed", &closed),
    ];
    world.admin.configure(2, providers);
    world.admin.acting_on(2).await;
    let free = |c: &mut aex_admin_proto::ticket::Claims| {
        c.key = aex_admin_proto::ticket::KeyMode::None;
    };
    for (provider, failure) in [
        ("closed", Failure::Connect),
        ("nowhere", Failure::NotConfigured),
    ] {
        let (id, ticket) = ticket_with(provider, "/echo", free);
        let got = world.post("/echo", &ticket, &"x".repeat(500_000)).await;
        assert_eq!(got.status, 502, "{provider}");
        assert_eq!(got.failure(), Some(failure.as_str()));
        let exchange = world.admin.ended(id).await;
        assert_eq!(exchange.failure, Some(failure));
        assert!(!exchange.sent && exchange.status.is_none());
    }
    assert_eq!(world.provider.connections(), 0);
}

#[tokio::test]
async fn a_body_over_its_limit_or_without_a_length_is_refused() {
    let world = World::new().await;
    let (id, small) = ticket_with("sim", "/echo", |c| c.max_body_bytes = 10);
    let got = world.post("/echo", &small, "12345678901").await;
    assert_eq!(got.failure(), Some("request_body"));
    assert!(!world.admin.ended(id).await.sent);

    let (id, chunked) = ticket("sim", "/echo");
    let mut stream = UnixStream::connect(&world.egress.socket).await.unwrap();
    let request = format!(
        "POST /echo HTTP/1.1\r\nx-aex-ticket: {chunked}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n1\r\nx\r\n0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.contains("x-aex-egress-failure: request_body"),
        "{answer}"
    );
    assert!(!world.admin.ended(id).await.sent);
    assert_eq!(world.provider.seen().len(), 0);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_whole_request() {
    let world = World::new().await;
    let (id, ticket) = ticket("sim", "/echo");
    let mut stream = UnixStream::connect(&world.egress.socket).await.unwrap();
    let request =
        format!("POST /echo HTTP/1.1\r\nx-aex-ticket: {ticket}\r\ncontent-length: 100\r\n\r\nhalf");
    stream.write_all(request.as_bytes()).await.unwrap();
    drop(stream);
    let exchange = world.admin.ended(id).await;
    assert!(
        matches!(
            exchange.failure,
            Some(Failure::RequestBody | Failure::WorkerGone)
        ),
        "{exchange:?}"
    );
    assert_eq!(world.provider.seen().len(), 0, "no whole request");
}

#[tokio::test]
async fn a_forbidden_key_keeps_the_old_configuration_in_force() {
    let world = World::new().await;
    let mut strict = provider_config("sim", &world.provider.url());
    strict.keys = KeyPolicy::Passthrough;
    world.admin.configure(2, vec![strict]);
    let problem = world
        .admin
        .until("the problem", |state| state.said.as_ref()?.problem.clone())
        .await;
    assert!(
        problem.contains("SIM_API_KEY") && problem.contains("passthrough"),
        "{problem}"
    );
    assert!(!problem.contains("canary"));
    let said = world.admin.state.borrow().said.clone().unwrap();
    assert_eq!(said.acting_on, Some(1));
    let ticket = ticket("sim", "/echo").1;
    assert_eq!(world.post("/echo", &ticket, "x").await.status, 200);

    world
        .admin
        .configure(3, vec![provider_config("sim", &world.provider.url())]);
    world.admin.acting_on(3).await;
    let said = world.admin.state.borrow().said.clone().unwrap();
    assert_eq!(said.problem, None);
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused_whole() {
    let world = World::new().await;
    let plain = provider_config("far", "http://api.example/v1");
    let mut no_ca = provider_config("ca", "https://127.0.0.1:1");
    no_ca.ca_file = Some("/nonexistent/ca.pem".into());
    for (generation, bad, part) in [(2, plain, "https://"), (3, no_ca, "ca.pem")] {
        let good = provider_config("sim", &world.provider.url());
        world.admin.configure(generation, vec![good, bad]);
        world
            .admin
            .until(part, |state| {
                state
                    .said
                    .as_ref()?
                    .problem
                    .as_ref()
                    .filter(|problem| problem.contains(part))
                    .map(drop)
            })
            .await;
    }
}

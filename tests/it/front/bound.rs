//! A token that is bound to a user, stolen by another one: it is worth nothing to its thief, who is told
//! nothing, and its operator is.

use std::path::PathBuf;

use aex_tests::harness::Kernel;
use aex_tests::sim::Sim;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{ALICE, Ask, Got, MALLORY, open_directory};
use crate::common::{assert_error, hello, sim};

struct Host {
    sim: Sim,
    kernel: Kernel,
    socket: PathBuf,
    _directory: TempDir,
}

impl Host {
    fn new() -> Self {
        let (sim, directory) = (sim(), open_directory());
        let socket = directory.path().join("agents.sock");
        let listen = format!("unix:{}", socket.display());
        let builder = Kernel::builder().default_models(&sim);
        let kernel = builder.options(&["--listen", &listen]).start();
        Self {
            sim,
            kernel,
            socket,
            _directory: directory,
        }
    }

    fn agent(&self, name: &str, options: &[&str]) -> String {
        self.kernel.create_agent(name, "1.00", 1_000_000, options)
    }

    fn ask<'a>(&self, uid: u32, token: &'a str) -> Ask<'a> {
        Ask::over(&self.socket, uid, token)
    }

    fn chat(&self, uid: u32, token: &str) -> Got {
        self.ask(uid, token).chat(hello(json!({}))).send()
    }

    fn wrong_peers(&self) -> u64 {
        self.kernel.aex_json(&["metrics"])["wrong_peers"]
            .as_u64()
            .unwrap()
    }
}

fn alice() -> [&'static str; 2] {
    ["--uid", "60001"]
}

/// One request of each kind that carries a token.
fn every_ask<'a>(host: &Host, uid: u32, token: &'a str) -> Vec<Ask<'a>> {
    let ask = || host.ask(uid, token);
    // More than a worker reads of a stranger's.
    let large = hello(json!({"messages": [{"role": "user", "content": "x".repeat(200_000)}]}));
    vec![
        ask().chat(hello(json!({}))),
        ask().chat(large),
        ask()
            .chat(hello(json!({})))
            .with(&["-H", "idempotency-key: k1"]),
        ask().at("/v1/models"),
        ask().at("/v1/models/gpt-oss-20b"),
        ask().at("/v1/aex/me"),
        ask()
            .at("/v1/aex/quote")
            .post(json!({"request": hello(json!({}))})),
        ask().at("/v1/aex/runs").post(json!({})),
        ask().at("/v1/aex/runs/a%2F7").method("DELETE"),
        ask().at("/v1/aex/tokens"),
        ask().at("/v1/aex/tokens/rotate").post(json!({})),
        ask().at("/v1/aex/tokens/1").method("DELETE"),
    ]
}

#[test]
fn a_stolen_token_is_worth_nothing_tells_nothing_and_is_told() {
    let mut host = Host::new();
    let token = host.agent("a", &alice());
    // Its owner has been served, so that there would be an answer to give once more.
    let owners = host.ask(ALICE, &token).chat(hello(json!({})));
    assert_eq!(
        owners.with(&["-H", "idempotency-key: k1"]).send().status,
        200
    );
    let before = host.sim.bill().requests;

    let nobodys = format!("aex_{}", "A".repeat(43));
    let unknown = every_ask(&host, MALLORY, &nobodys);
    let stolen = every_ask(&host, MALLORY, &token);
    let count = stolen.len() as u64;
    for (stolen, unknown) in stolen.into_iter().zip(unknown) {
        let (url, stolen) = (stolen.url.clone(), stolen.send());
        assert_eq!(
            (stolen.status, &*stolen.detail()),
            (401, "Invalid API token"),
            "{url}"
        );
        assert_eq!(
            stolen,
            unknown.send(),
            "{url}: as of a token that nobody has"
        );
    }
    assert_eq!(host.sim.bill().requests, before, "nothing was forwarded");
    assert_eq!(host.wrong_peers(), count);

    // Over TCP nobody knows who asks: not even its owner has it there. Nor root, over the socket.
    assert_error(
        &host.kernel.chat(&token, &hello(json!({}))),
        401,
        "invalid_api_key",
    );
    assert_eq!(host.chat(0, &token).status, 401);
    assert_eq!(host.chat(ALICE, &token).status, 200);

    host.kernel.settled();
    host.kernel.stop();
    let told = host.kernel.sqlite(
        "SELECT json_extract(detail, '$.rule'), SUM(json_extract(detail, '$.count')) FROM events \
         WHERE action = 'request.refused' AND agent = 'a' GROUP BY json_extract(detail, '$.rule')",
    );
    assert_eq!(told, format!("uid|{}", count + 2));
}

#[test]
fn a_binding_is_inherited_by_agents_of_a_group_their_runs_and_helpers() {
    let host = Host::new();
    host.kernel
        .aex_json(&["group", "create", "team", "--uid", "60001"]);
    let token = host.agent("a", &["--group", "team"]);
    assert_eq!(host.chat(ALICE, &token).status, 200);
    assert_eq!(host.chat(MALLORY, &token).status, 401);

    let run = host
        .ask(ALICE, &token)
        .at("/v1/aex/runs")
        .post(json!({}))
        .send();
    assert_eq!(run.status, 201, "{run:?}");
    let helper = run.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(host.chat(ALICE, &helper).status, 200);
    assert_eq!(host.chat(MALLORY, &helper).status, 401);
    let further = host
        .kernel
        .aex_json(&["token", "create", "a", "--read-only"]);
    let further = further["token"].as_str().unwrap();
    let look = |uid| host.ask(uid, further).at("/v1/aex/me").send().status;
    assert_eq!((look(ALICE), look(MALLORY)), (200, 401));

    // All on the path must hold: bound to two users it is nobody's.
    let set = |options: &[&str]| {
        host.kernel
            .aex_json(&[&["agent", "set", "a"], options].concat())
    };
    set(&["--uid", "60002"]);
    assert_eq!(host.chat(ALICE, &token).status, 401);
    assert_eq!(host.chat(MALLORY, &token).status, 401);
    set(&["--clear", "uid"]);
    assert_eq!(host.chat(ALICE, &token).status, 200);
    host.kernel
        .aex_json(&["group", "set", "team", "--clear", "uid"]);
    assert_eq!(host.chat(MALLORY, &token).status, 200);
    assert_eq!(host.kernel.chat(&token, &hello(json!({}))).status, 200);
    host.kernel.settled();
    host.kernel.audit();
}

#[test]
fn its_operator_sees_to_whom_a_token_is_bound() {
    let host = Host::new();
    let cert = "ab".repeat(32);
    host.agent("a", &["--uid", "root", "--client-cert", &cert]);
    let agent = host.kernel.agent("a");
    assert_eq!(agent["settings"]["uid"], 0);
    assert_eq!(agent["settings"]["client_cert"], cert);
    let shown = |args: &[&str]| String::from_utf8(host.kernel.aex(args).stdout).unwrap();
    let show = shown(&["agent", "show", "a"]);
    assert!(show.contains("0 (root)") && show.contains(&cert), "{show}");
    for table in [shown(&["agent", "list"]), shown(&["tree"])] {
        assert!(table.contains("uid 0, cert abababababab…"), "{table}");
    }

    // Where it is to be used is told with it.
    let made = host.kernel.aex_json(&["token", "create", "a"]);
    let url = made["base_url"].as_str().unwrap();
    assert!(url.starts_with("http+unix://%2F"), "{url}");

    // It is explained as its owner's request, and says so.
    let request = host.kernel.home().join("request.json");
    std::fs::write(&request, hello(json!({})).to_string()).unwrap();
    let request = request.to_str().unwrap();
    let explained = host
        .kernel
        .aex_json(&["policy", "explain", "--agent", "a", request]);
    assert_eq!(explained["outcome"], "passes");
    let assumes = explained["assumes"].as_array().unwrap();
    assert_eq!(assumes.len(), 1);
    assert_eq!(assumes[0]["peer"], json!({"uid": 0, "client_cert": cert}));
    let text = shown(&["policy", "explain", "--agent", "a", request]);
    assert!(
        text.contains("assumed: the token comes from uid 0"),
        "{text}"
    );

    // And what it has had is rehearsed as it was, whoever is proposed.
    let proposed = host.kernel.home().join("scopes.yaml");
    std::fs::write(&proposed, "agents: { a: { uid: 60001 } }\n").unwrap();
    let proposed = proposed.to_str().unwrap();
    let rehearsed: Value = host.kernel.aex_json(&["policy", "rehearse", proposed]);
    assert!(rehearsed.is_object(), "{rehearsed}");
}

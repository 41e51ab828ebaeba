use aex_admin_proto::operator::{Front, TlsPlaces, WorkerView};
use serde_json::json;

use super::*;

#[test]
fn the_socket_of_a_base_url_is_found_again() {
    let path = "/tmp/a b%41/ä.sock";
    let at = format!("unix:{path}").parse().unwrap();
    let url = Listening { at, tls: false }.base_url();
    assert_eq!(socket_of(&url), Some(PathBuf::from(path)));
    assert_eq!(socket_of(&default_base_url()), None);
}

#[test]
fn a_daemon_is_reached_by_tcp_first() {
    let ways = |listen: &str, listeners: &[&str], is_tls: bool| {
        let places = TlsPlaces {
            cert: "/c".into(),
            key: "/k".into(),
            client_ca: None,
        };
        Ways::of_daemon(&DaemonState {
            pid: 1,
            listen: listen.into(),
            workers: 1,
            listeners: listeners.iter().map(|text| (*text).to_owned()).collect(),
            front: Front {
                tls: is_tls.then_some(places),
                plain_http: false,
            },
        })
    };
    let url = |ways: Ways| ways.base_url().unwrap();
    let both = ["unix:/run/x.sock", "127.0.0.1:9000"];
    assert_eq!(url(ways(both[1], &both, true)), "https://127.0.0.1:9000/v1");
    let unix = ways(both[0], &both[..1], true);
    assert_eq!(url(unix.clone()), "http+unix://%2Frun%2Fx.sock/v1");
    assert_eq!(unix.unix_base_url(), unix.base_url());
    // One that was written by an older version.
    assert_eq!(
        url(ways("127.0.0.1:9001", &[], false)),
        "http://127.0.0.1:9001/v1"
    );
}

/// A worker of everybody's, and one of each group.
fn status() -> Status {
    let worker = |group: Option<&str>, at: &str| WorkerView {
        worker: 1,
        pid: 1,
        in_flight: 0,
        sandbox: Default::default(),
        group: group.map(str::to_owned),
        listeners: vec![Listening {
            at: at.parse().unwrap(),
            tls: false,
        }],
    };
    let scope = |id: &str, kind: &str, name: &str, parent: Option<&str>| -> ScopeView {
        let view = json!({
            "id": id, "kind": kind, "name": name, "parent": parent, "state": "active",
            "budget_micro": null, "spent_micro": 0, "reserved_micro": 0, "remaining_micro": null,
            "rpm": null, "settings": {}, "created_at_ms": 0, "expires_at_ms": null, "in_flight": 0,
            "requests_last_minute": 0, "tokens_last_minute": 0, "limits": [],
        });
        serde_json::from_value(view).unwrap()
    };
    Status {
        version: String::new(),
        boundary: "enforced".into(),
        ready: true,
        why: None,
        pid: 1,
        uptime_ms: 0,
        egress_pid: None,
        operator_keys: Vec::new(),
        workers: vec![
            worker(Some("red"), "unix:/run/aex/agents/red.sock"),
            worker(Some("blue"), "192.0.2.1:80"),
            worker(None, "192.0.2.1:9000"),
            worker(None, "unix:/tmp/evil.sock"),
            worker(Some("red"), "unix:/tmp/evil.sock"),
            worker(None, "127.0.0.1:9100"),
        ],
        agents: 2,
        open_holds: 0,
        waiting: 0,
        events: 0,
        ledger: String::new(),
        config_generation: 1,
        sandbox: Default::default(),
        egress_sandbox: None,
        scopes: vec![
            scope("s1", "kernel", "kernel", None),
            scope("s2", "group", "red", Some("s1")),
            scope("s3", "group", "inner", Some("s2")),
            scope("a1", "agent", "helper", Some("s3")),
            scope("a2", "agent", "other", Some("s1")),
        ],
    }
}

#[test]
fn an_agent_is_sent_to_workers_of_its_own_groups_and_of_everybody_alone() {
    let status = status();
    let held = |at: &Listen| {
        ["127.0.0.1:9100", "unix:/run/aex/agents/red.sock"].contains(&at.to_string().as_str())
    };
    let helper = Ways::of_workers(&status, "helper", held);
    // Its group's own alone, so that no worker of everybody's is told its token.
    let own = Some("http+unix://%2Frun%2Faex%2Fagents%2Fred.sock/v1");
    assert_eq!(helper.base_url().as_deref(), own);
    assert_eq!(helper.unix_base_url().as_deref(), own);
    assert_eq!(helper.all().len(), 1);
    // A group's name is no agent's.
    for agent in ["other", "red", ""] {
        let ways = Ways::of_workers(&status, agent, held);
        assert_eq!(ways.base_url().as_deref(), Some("http://127.0.0.1:9100/v1"));
        assert_eq!(ways.unix_base_url(), None, "{agent}");
        assert_eq!(ways.all().len(), 1);
    }
    assert_eq!(
        Ways::of_workers(&status, "other", |_| false).base_url(),
        None
    );
}

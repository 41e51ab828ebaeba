//! Who may say what to whom: roles of sockets, other users, tickets.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use aex_admin_proto::egress::{FAILURE_HEADER, TICKET_HEADER};
use aex_admin_proto::rpc::code;
use aex_admin_proto::{HoldId, TokenDigest};
use aex_tests::harness::{Kernel, program, root_or_skip};
use aex_tests::http::{Connection, Response, request};
use serde_json::{Value, json};

use crate::common::{hello, sim};

/// One JSON-RPC call over a connection of its own.
fn call(socket: &Path, method: &str, params: &Value) -> Value {
    ask(&UnixStream::connect(socket).unwrap(), method, params)
}

/// The next call of a connection.
fn ask(mut stream: &UnixStream, method: &str, params: &Value) -> Value {
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let frame = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    stream.write_all(format!("{frame}\n").as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|problem| panic!("{method}: {problem}: {line:?}"))
}

#[test]
fn each_socket_takes_its_own_methods_alone() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let places = &kernel.places;
    let name = json!({"name": "a"});
    let create = json!({"name": "b", "budget_micro": 1, "rpm": 1});
    let reserve = reserve_params(&token, HoldId::random().unwrap());
    let models = json!({"token": TokenDigest::of(token.as_bytes())});
    let foreign = [
        (places.worker_socket(), "agent.create", create.clone()),
        (places.worker_socket(), "agent.show", name.clone()),
        (
            places.worker_socket(),
            "agent.set",
            json!({"name": "a", "budget_micro": 9_000_000}),
        ),
        (places.worker_socket(), "kernel.status", json!({})),
        (places.worker_socket(), "ledger.tail", json!({})),
        (places.worker_socket(), "egress.orders", json!({"pid": 1})),
        (
            places.worker_socket(),
            "egress.receipts",
            json!({"receipts": []}),
        ),
        (places.egress_role_socket(), "agent.create", create.clone()),
        (
            places.egress_role_socket(),
            "worker.reserve",
            reserve.clone(),
        ),
        (places.egress_role_socket(), "kernel.status", json!({})),
        (places.auditor_socket(), "agent.create", create),
        (places.auditor_socket(), "agent.pause", name.clone()),
        (places.auditor_socket(), "config.reload", json!({})),
        (places.auditor_socket(), "worker.reserve", reserve.clone()),
        (places.operator_socket(), "worker.reserve", reserve),
        (places.operator_socket(), "egress.orders", json!({"pid": 1})),
    ];
    let before = kernel.aex_json(&["metrics"])["role_violations"]
        .as_u64()
        .unwrap();
    for (socket, method, params) in &foreign {
        let answer = call(socket, method, params);
        let place = format!("{} {method}: {answer}", socket.display());
        assert_eq!(answer["error"]["code"], code::NOT_PERMITTED, "{place}");
        assert!(answer.get("result").is_none(), "{place}");
    }
    let after = kernel.aex_json(&["metrics"])["role_violations"]
        .as_u64()
        .unwrap();
    assert_eq!(after - before, foreign.len() as u64, "each is counted");

    for (socket, method, params) in [
        (places.worker_socket(), "worker.models", models),
        (places.auditor_socket(), "agent.show", name.clone()),
        (places.auditor_socket(), "ledger.audit", json!({})),
        (places.operator_socket(), "agent.show", name),
    ] {
        let answer = call(&socket, method, &params);
        assert!(answer.get("error").is_none(), "{method}: {answer}");
    }
    assert!(
        kernel.aex(&["agent", "show", "b"]).status.code() == Some(4),
        "none was made"
    );
    kernel.audit();
}

#[test]
fn a_worker_that_says_it_is_many_leaves_operators_their_view() {
    let kernel = Kernel::on(&sim());
    let long = format!("unix:/{}.sock", "x".repeat(100));
    let listeners = vec![json!({"at": long, "tls": false}); 500];
    let settings = json!({"known": null, "worker": 0, "pid": 1, "listeners": listeners});
    let held: Vec<UnixStream> = (0..100)
        .map(|_| {
            let stream = UnixStream::connect(kernel.places.worker_socket()).unwrap();
            let answer = ask(&stream, "worker.settings", &settings);
            assert!(answer["result"]["generation"].is_number(), "{answer}");
            stream
        })
        .collect();
    let status = call(
        &kernel.places.operator_socket(),
        "kernel.status",
        &json!({}),
    );
    let workers = status["result"]["workers"].as_array().unwrap();
    assert_eq!(workers.len(), 32);
    for worker in workers {
        assert!(worker["listeners"].as_array().unwrap().len() <= 16);
    }
    drop(held);
}

#[test]
fn frames_that_are_none_end_in_an_error_and_harm_nobody() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    for socket in [
        kernel.places.worker_socket(),
        kernel.places.operator_socket(),
        kernel.places.auditor_socket(),
        kernel.places.egress_role_socket(),
    ] {
        let answer = call(&socket, "no.such.method", &json!({}));
        assert_eq!(answer["error"]["code"], code::METHOD_NOT_FOUND, "{answer}");
        for bytes in [
            &b"not json\n"[..],
            b"[]\n",
            b"{}\n",
            b"\n",
            b"\xff\xfe\n",
            &[b'x'; 2 << 20],
        ] {
            let mut stream = UnixStream::connect(&socket).unwrap();
            // The other side may close in the middle of it.
            let _ = stream.write_all(bytes);
        }
    }
    assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200);
    kernel.audit();
}

#[test]
fn another_uid_is_refused_on_each_socket() {
    if !root_or_skip("another_uid_is_refused_on_each_socket") {
        return;
    }
    let sim = sim();
    let kernel = Kernel::on(&sim);
    // A program that anybody can run, and sockets that anybody can reach: what is left is the check
    // of the peer itself.
    let open = tempfile::tempdir().unwrap();
    let knock = open.path().join("aex-knock");
    // By another process: a file that this one has open for writing cannot be run while some other
    // test's child has not yet let go of the descriptor.
    let copied = Command::new("cp")
        .arg(program("aex-knock"))
        .arg(&knock)
        .status();
    assert!(copied.unwrap().success());
    let home = kernel.home();
    for path in [
        open.path(),
        &knock,
        home.parent().unwrap(),
        home,
        &kernel.places.run,
    ] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let rpc =
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"rpc.discover\",\"params\":{}}\n".to_vec();
    let http = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec();
    for (socket, bytes) in [
        (kernel.places.operator_socket(), &rpc),
        (kernel.places.auditor_socket(), &rpc),
        (kernel.places.worker_socket(), &rpc),
        (kernel.places.egress_role_socket(), &rpc),
        (kernel.places.egress_socket(), &http),
    ] {
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(
            !knocked(&knock, 0, &socket, bytes).is_empty(),
            "{}",
            socket.display()
        );
        let answer = knocked(&knock, 65534, &socket, bytes);
        let text = String::from_utf8_lossy(&answer);
        assert!(!text.contains("\"result\""), "{}: {text}", socket.display());
        assert!(
            answer.is_empty() || text.contains("error"),
            "{}: {text}",
            socket.display()
        );
    }
}

#[test]
fn another_uid_is_told_that_it_may_not_and_nothing_else() {
    if !root_or_skip("another_uid_is_told_that_it_may_not_and_nothing_else") {
        return;
    }
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let open = tempfile::tempdir().unwrap();
    let aex = open.path().join("aex");
    fs::copy(program("aex"), &aex).unwrap();
    for path in [open.path(), &aex] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    // A closed home does not look like one where nothing runs.
    for line in [
        "daemon status",
        "daemon stop",
        "daemon start",
        "config check",
    ] {
        let output = Command::new(&aex)
            .args(line.split(' '))
            .env("AEX_HOME", kernel.home())
            .env_remove("AEX_SOCKET")
            .uid(65534)
            .gid(65534)
            .current_dir("/")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(5), "{line}: {output:?}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains("not permitted"), "{line}: {told}");
    }
    assert!(kernel.status().ready);
}

/// What a process of that uid gets for an answer.
fn knocked(knock: &Path, uid: u32, socket: &Path, bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new(knock)
        .arg(socket)
        .uid(uid)
        .gid(uid)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    child.wait_with_output().unwrap().stdout
}

fn reserve_params(token: &str, id: HoldId) -> Value {
    json!({
        "id": id,
        "token": TokenDigest::of(token.as_bytes()),
        "route": "chat_completions",
        "model": "gpt-oss-20b",
        "facts": {"body_bytes": 100, "ascii_bytes": 10, "messages": 1, "output_cap": 20, "choices": 1},
    })
}

/// A grant, taken as a worker takes it.
fn grant(kernel: &Kernel, token: &str) -> Value {
    let params = reserve_params(token, HoldId::random().unwrap());
    let answer = call(&kernel.places.worker_socket(), "worker.reserve", &params);
    let granted = answer["result"]["granted"].clone();
    assert!(granted["ticket"].is_string(), "{answer}");
    granted
}

fn egress(kernel: &Kernel, target: &str, ticket: Option<&str>) -> Response {
    let mut connection = Connection::unix(&kernel.places.egress_socket()).unwrap();
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(ticket.map(|ticket| (TICKET_HEADER, ticket)));
    let body = hello(json!({})).to_string();
    connection
        .send(&request("POST", target, &headers, body.as_bytes()))
        .unwrap();
    connection.response().unwrap()
}

#[test]
fn the_egress_forwards_nothing_without_its_own_ticket() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let grant_a = grant(&kernel, &token);
    let (ticket, path) = (
        grant_a["ticket"].as_str().unwrap(),
        grant_a["path"].as_str().unwrap(),
    );
    let refused = |ticket: Option<&str>, target: &str, why: &str| {
        let answer = egress(&kernel, target, ticket);
        assert_eq!(answer.status, 403, "{why}: {}", answer.text());
        assert_eq!(answer.header(FAILURE_HEADER), Some("ticket"), "{why}");
    };
    refused(None, path, "no ticket");
    refused(Some(""), path, "an empty one");
    refused(Some("v2.1.AAAA.AAAA"), path, "an invented one");
    refused(Some(ticket), "/models", "for another path");
    refused(Some(ticket), &format!("{path}?x=1"), "for another target");
    // Of `id;provider;method;path;key;max_body_bytes;…`.
    for (field, value) in [(1, "other"), (4, "none"), (5, "1099511627776")] {
        refused(Some(&forged(ticket, field, value)), path, value);
    }
    assert_eq!(sim.bill().requests, 0, "something was forwarded");

    assert_eq!(egress(&kernel, path, Some(ticket)).status, 200);
    refused(Some(ticket), path, "a used one");
    assert_eq!(sim.bill().requests, 1);
}

/// The claims of a ticket.
fn claims(ticket: &str) -> Vec<&str> {
    let [_version, _key, claims, _mac] = ticket.split('.').collect::<Vec<_>>()[..] else {
        panic!("a ticket has four parts")
    };
    claims.split(';').collect()
}

/// The ticket with one claim changed and its signature kept.
fn forged(ticket: &str, field: usize, value: &str) -> String {
    let mut changed = claims(ticket);
    assert_ne!(changed[field], value);
    let claims = changed.join(";");
    changed[field] = value;
    ticket.replace(&claims, &changed.join(";"))
}

#[test]
fn a_worker_that_lies_about_a_settle_is_charged() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let granted = grant(&kernel, &token);
    let ticket = granted["ticket"].as_str().unwrap();
    assert_eq!(
        egress(&kernel, granted["path"].as_str().unwrap(), Some(ticket)).status,
        200
    );
    // It says that nothing was sent; the egress's receipt says otherwise.
    let lie = json!({
        "id": claims(ticket)[0], "ticket": ticket,
        "observed": {"failure": "connect", "complete": false, "usage": "missing"},
    });
    let _ = call(&kernel.places.worker_socket(), "worker.settle", &lie);
    kernel.settled();
    let bill = crate::common::bill_pico(&sim.bill());
    let spent = crate::common::spent_pico(&kernel, "a");
    assert!(spent >= bill && bill > 0, "{spent} of {bill}");
    kernel.audit();
}

#[test]
fn an_undispatched_hold_of_a_vanished_worker_is_released() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let granted = grant(&kernel, &token);
    // Its connection is gone: the ticket is voided at the egress, and only then is the hold released.
    let ended = aex_tests::harness::wait_until(Duration::from_secs(90), || {
        (kernel.status().open_holds == 0).then_some(())
    });
    assert!(ended.is_some(), "the hold stays open");
    assert_eq!(crate::common::spent_pico(&kernel, "a"), 0);
    let late = egress(
        &kernel,
        granted["path"].as_str().unwrap(),
        granted["ticket"].as_str(),
    );
    assert_eq!((late.status, sim.bill().requests), (403, 0));
    kernel.audit();
}

#[test]
fn the_home_is_private() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    fn check(path: &Path) {
        let metadata = fs::symlink_metadata(path).unwrap();
        let mode = metadata.permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{} is {mode:o}", path.display());
        if metadata.is_dir() {
            assert_eq!(mode, 0o700, "{}", path.display());
            for entry in fs::read_dir(path).unwrap() {
                check(&entry.unwrap().path());
            }
        }
    }
    check(kernel.home());
    let status = kernel.aex_json(&["status"]);
    assert!(status.to_string().contains("advisory"), "{status}");
}

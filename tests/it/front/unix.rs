//! Listeners on Unix sockets: the same HTTP, for every user that can reach them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use aex_tests::harness::{Kernel, wait_for};
use aex_tests::http::Connection;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::{ALICE, Ask, open_directory, replace_daemon};
use crate::common::{hello, sim};

fn chat_over(socket: &Path, token: &str) -> u16 {
    let mut connection = Connection::unix(socket).unwrap();
    let request = Kernel::chat_bytes(token, &hello(json!({})), &[]);
    connection.send(&request).unwrap();
    connection.response().unwrap().status
}

fn kill_now(pid: u32) {
    kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
}

/// Why a start fails. Nothing is left running then, which the kernel's end checks.
fn start_fails(listen: &str) -> String {
    let kernel = Kernel::builder()
        .default_models(&sim())
        .listen(listen)
        .prepare();
    let output = kernel.daemon_start();
    assert!(!output.status.success(), "{listen}");
    assert_eq!(kernel.aex(&["daemon", "status"]).status.code(), Some(3));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn both_kinds_of_listener_are_served_and_outlive_workers_and_restarts() {
    let (sim, directory) = (sim(), open_directory());
    let socket = directory.path().join("agents.sock");
    let listen = format!("unix:{}", socket.display());
    let builder = Kernel::builder().default_models(&sim);
    let mut kernel = builder.options(&["--listen", &listen]).start();
    let token = kernel.create_agent("a", "1.00", 1000, &[]);

    // Open to every user, although all else that the supervisor makes is its own.
    let meta = fs::metadata(&socket).unwrap();
    assert_eq!(meta.permissions().mode() & 0o777, 0o666);
    let asked = Ask::over(&socket, ALICE, &token)
        .chat(hello(json!({})))
        .send();
    assert_eq!((asked.status, &*asked.version), (200, "1.1"), "{asked:?}");
    assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200);
    let status = kernel.aex_json(&["daemon", "status"]);
    let tcp = format!("{}", kernel.addr);
    assert_eq!(status["listeners"], json!([tcp, listen]));
    assert_eq!(status["base_url"], format!("http://{tcp}/v1"));

    for pid in kernel.worker_pids() {
        kill_now(pid);
        assert_eq!(chat_over(&socket, &token), 200);
    }
    kernel.aex_json(&["daemon", "restart"]);
    assert_eq!(fs::metadata(&socket).unwrap().ino(), meta.ino());
    assert_eq!(chat_over(&socket, &token), 200);

    kernel.stop();
    assert!(!socket.exists(), "it goes with the daemon");
    kernel.start_again();
    assert_eq!(chat_over(&socket, &token), 200);
    kernel.settled();
    kernel.audit();
}

#[test]
fn a_kernel_may_listen_on_unix_sockets_alone() {
    let (sim, directory) = (sim(), open_directory());
    let socket = directory.path().join("only.sock");
    let listen = format!("unix:{}", socket.display());
    let kernel = Kernel::builder()
        .default_models(&sim)
        .listen(&listen)
        .start();
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    assert_eq!(chat_over(&socket, &token), 200);
    let status = kernel.aex_json(&["status"]);
    let base_url = status["base_url"].as_str().unwrap();
    let path = socket.to_str().unwrap().replace('/', "%2F");
    assert_eq!(base_url, format!("http+unix://{path}/v1"));
    // Another start finds it ready, over the same socket.
    let again = kernel.aex_json(&["daemon", "start", "--listen", &listen]);
    assert_eq!(again["already_running"], true);
    let tcp = replace_daemon(&kernel, &["--listen", "127.0.0.1:0"]);
    assert_eq!(tcp["listeners"].as_array().map(Vec::len), Some(1));
    assert!(!socket.exists());
}

#[test]
fn a_socket_of_a_daemon_that_was_killed_is_replaced() {
    let (sim, directory) = (sim(), open_directory());
    let socket = directory.path().join("a.sock");
    let listen = format!("unix:{}", socket.display());
    let mut kernel = Kernel::builder()
        .default_models(&sim)
        .listen(&listen)
        .start();
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let workers = kernel.worker_pids();
    kill_now(kernel.pid("daemon"));
    // They hold the socket open, and are ended by the next start.
    wait_for("the supervisor's end", || {
        let status = kernel.aex(&["daemon", "status", "--json"]);
        let status: Value = serde_json::from_slice(&status.stdout).unwrap();
        (status["running"] == false).then_some(())
    });
    assert!(socket.exists() && !workers.is_empty());
    kernel.start_again();
    assert_eq!(chat_over(&socket, &token), 200);
}

#[test]
fn places_where_no_socket_should_be_are_refused_by_name() {
    let directory = open_directory();
    let at = |path: &Path| format!("unix:{}", path.display());
    let missing = start_fails(&at(&directory.path().join("none/a.sock")));
    assert!(missing.contains("there is no directory"), "{missing}");

    let file = directory.path().join("file.sock");
    fs::write(&file, "mine").unwrap();
    let taken = start_fails(&at(&file));
    assert!(taken.contains("is no socket"), "{taken}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");

    let other = directory.path().join("other.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&other).unwrap();
    let taken = start_fails(&at(&other));
    assert!(taken.contains("something else listens there"), "{taken}");
    assert!(other.exists());

    let open = directory.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let others = start_fails(&at(&open.join("a.sock")));
    assert!(others.contains("others can write"), "{others}");
}

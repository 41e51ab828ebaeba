//! The real program: takes a listener over, leaves no core file, drains on SIGTERM.

#![allow(
    clippy::unwrap_used,
    reason = "a test stops where something is not as it must be"
)]

mod common;

use std::io::{Seek, Write};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use common::{Client, FakeAdmin, FakeEgress, Reply, body, chat, request, soon};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::Pid;
use tokio::task::spawn_blocking;

/// Ends the program when a test fails.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(listener: &TcpListener, home: &std::path::Path, child_fd: i32) -> Program {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aex-proxy"));
    let parent_fd: OwnedFd = listener.try_clone().unwrap().into();
    let mappings = vec![FdMapping {
        parent_fd,
        child_fd,
    }];
    command
        .args(["--worker", "1", "--listen-fd", &child_fd.to_string()])
        .env_clear()
        .env("AEX_HOME", home)
        .stdin(Stdio::null())
        .fd_mappings(mappings)
        .unwrap();
    Program(command.spawn().unwrap())
}

#[tokio::test]
async fn the_program_serves_on_an_inherited_listener_and_drains_when_told_to_stop() {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().join("run");
    std::fs::create_dir(&run).unwrap();
    let admin = FakeAdmin::start(run.join("worker.sock"));
    let egress = FakeEgress::start(run.join("egress.sock"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut program = start(&listener, directory.path(), 7);

    let settings = admin.called("worker.settings").await;
    assert_eq!(settings["pid"], program.0.id());
    let mut client = Client::connect(address).await;
    assert_eq!(
        client.send(request("GET", "/healthz", "")).await.status(),
        200
    );
    // Not even a core file that somebody asks for: the hard limit.
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", program.0.id())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    assert_eq!(core.split_whitespace().nth(5), Some("0"));

    let (chunks, reply) = Reply::open(200, "text/event-stream");
    egress.answers(reply);
    let mut client = Client::connect(address).await;
    let response = client.send(chat(&body(r#","stream":true"#))).await;
    kill(
        Pid::from_raw(program.0.id().try_into().unwrap()),
        Signal::SIGTERM,
    )
    .unwrap();
    chunks.send(Ok("data: [DONE]\n\n".into())).await.unwrap();
    drop(chunks);
    assert_eq!(common::Answer::of(response).await.body, "data: [DONE]\n\n");
    drop(client);
    let exit = spawn_blocking(move || program.0.wait().unwrap());
    assert!(soon("the program's end", exit).await.unwrap().success());
}

/// With these listeners from descriptor 3 on.
fn with_listeners(listeners: Vec<OwnedFd>, home: &std::path::Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aex-proxy"));
    let count = listeners.len().to_string();
    let mappings = listeners.into_iter().zip(3..);
    let mappings = mappings.map(|(parent_fd, child_fd)| FdMapping {
        parent_fd,
        child_fd,
    });
    command
        .args(["--listen-fd", "3", "--listen-fds", &count])
        .args(args)
        .env_clear()
        .env("AEX_HOME", home)
        .stdin(Stdio::null())
        .fd_mappings(mappings.collect())
        .unwrap();
    command
}

/// Something outside shuts the shared sockets down, as a worker without a sandbox could.
#[tokio::test]
async fn a_listener_that_was_shut_down_is_told_once_and_the_last_one_ends_the_program() {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().join("run");
    std::fs::create_dir(&run).unwrap();
    let _admin = FakeAdmin::start(run.join("worker.sock"));
    let _egress = FakeEgress::start(run.join("egress.sock"));
    let listeners = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = (listeners.each_ref()).map(|listener| listener.local_addr().unwrap());
    let handed = listeners.each_ref().map(|one| one.try_clone().unwrap());
    let handed = handed.into_iter().map(OwnedFd::from).collect();
    let mut command = with_listeners(handed, directory.path(), &[]);
    let log = directory.path().join("log");
    command.stderr(std::fs::File::create(&log).unwrap());
    let mut program = Program(command.spawn().unwrap());
    let told = || {
        let text = std::fs::read_to_string(&log).unwrap();
        text.matches("systemctl start aex.target").count()
    };
    let end = |listener: &TcpListener| shutdown(listener.as_raw_fd(), Shutdown::Both).unwrap();
    let serves = async |address| {
        let mut client = Client::connect(address).await;
        client.send(request("GET", "/healthz", "")).await.status() == 200
    };
    assert!(serves(addresses[0]).await && serves(addresses[1]).await);

    end(&listeners[0]);
    let seen = async {
        while told() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("the line", seen).await;
    // Several turns of a loop that tries again.
    for _ in 0..20 {
        assert!(serves(addresses[1]).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(told(), 1);

    end(&listeners[1]);
    let exit = spawn_blocking(move || program.0.wait().unwrap());
    let exit = soon("the program's end", exit).await.unwrap();
    // As its units say: not started again.
    assert_eq!(exit.code(), Some(78));
    assert_eq!(told(), 2);
}

#[tokio::test]
async fn listeners_are_taken_by_their_kind_and_only_a_unix_socket_tells_who_asks() {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().join("run");
    std::fs::create_dir(&run).unwrap();
    let admin = FakeAdmin::start(run.join("worker.sock"));
    let _egress = FakeEgress::start(run.join("egress.sock"));
    let path = directory.path().join("agents.sock");
    let unix = UnixListener::bind(&path).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let mut command = with_listeners(vec![unix.into(), tcp.into()], directory.path(), &[]);
    let _program = Program(command.spawn().unwrap());

    let ask = request("GET", "/v1/models", "");
    let stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    soon("an answer", sender.send_request(ask.clone()))
        .await
        .unwrap();
    let known = admin.called("worker.models").await;
    let uid = nix::unistd::geteuid().as_raw();
    assert_eq!(known["peer"], serde_json::json!({ "uid": uid }));
    Client::connect(address).await.send(ask).await;
    let calls = admin.called_times("worker.models", 2).await;
    assert_eq!(calls[1].get("peer"), None, "{calls:?}");
}

#[test]
fn plain_http_beyond_loopback_is_refused_by_the_worker_itself() {
    let home = tempfile::tempdir().unwrap();
    let beyond = || vec![TcpListener::bind("0.0.0.0:0").unwrap().into()];
    let mut plain = with_listeners(beyond(), home.path(), &[]);
    let output = plain.output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("--plain-http") && said.contains("clear text"),
        "{said}"
    );

    for (name, value, because) in [
        ("AEX_PLAIN_HTTP", "0", "clear text"),
        ("AEX_TLS_CERT", "/none", "go together"),
    ] {
        let mut command = with_listeners(beyond(), home.path(), &[]);
        let output = command.env(name, value).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(because), "{said}");
    }
}

#[test]
fn what_is_no_listener_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let file: OwnedFd = tempfile::tempfile().unwrap().into();
    let output = with_listeners(vec![file], home.path(), &[])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("no listening"),
        "{said}"
    );
}

#[test]
fn without_a_listener_the_program_says_what_to_do() {
    let output = Command::new(env!("CARGO_BIN_EXE_aex-proxy"))
        .env_clear()
        .env("AEX_HOME", "/nonexistent")
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("--listen-fd"), "{said}");
}

#[test]
fn the_program_tells_what_a_worker_sees_in_a_request() {
    for (body, exit, document) in [
        (
            r#"{"model":"m","prompt":"hi"}"#,
            0,
            r#"{"model":"m","facts":{"body_bytes":27,"#,
        ),
        (
            r#"{"model":"m"}"#,
            1,
            r#"{"invalid":{"message":"prompt is missing","param":"prompt"}}"#,
        ),
    ] {
        let mut input = tempfile::tempfile().unwrap();
        input.write_all(body.as_bytes()).unwrap();
        input.rewind().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_aex-proxy"))
            .args(["facts", "--route", "/v1/completions"])
            .env_clear()
            .stdin(input)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(exit), "{output:?}");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.starts_with(document), "{said}");
        assert!(said.ends_with("}\n"), "{said}");
    }
}

#[test]
fn a_check_of_tls_files_answers_in_one_plain_line() {
    let check = |cert: &str| {
        Command::new(env!("CARGO_BIN_EXE_aex-proxy"))
            .args([
                "--check-tls",
                "--tls-cert",
                cert,
                "--tls-key",
                "/nowhere/key",
            ])
            .env_clear()
            .output()
            .unwrap()
    };
    let output = check("/nowhere/cert");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "aex-proxy: /nowhere/cert: No such file or directory (os error 2)\n"
    );
}

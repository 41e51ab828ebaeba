//! What the process keeps from others.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;

use nix::unistd::getuid;

use crate::admin::{Admin, provider_config, ticket};
use crate::egress::Home;
use crate::forwarding::World;
use crate::provider::Provider;
use crate::worker::{Worker, post};

#[tokio::test]
async fn sockets_and_files_are_private_and_no_core_is_dumped() {
    let world = World::new().await;
    let run = world.home.run();
    for name in ["egress.sock", "egress.journal", "egress.journal.lock"] {
        let mode = std::fs::metadata(run.join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(world.egress.status_field("Umask:"), "0077");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", world.egress.pid())).unwrap();
    let core = limits.lines().find(|l| l.starts_with("Max core file size"));
    assert_eq!(core.unwrap().split_whitespace().nth(4), Some("0"));
}

fn owner_of_environ(pid: u32) -> u32 {
    std::fs::metadata(format!("/proc/{pid}/environ"))
        .unwrap()
        .uid()
}

/// Who runs the process under test where the test itself is root.
const NOBODY: u32 = 65_534;

/// A home and a program that another user can use; this user's own, where this is not root.
fn anothers(home: &Home) -> (std::process::Command, u32) {
    if !getuid().is_root() {
        return (home.command(), getuid().as_raw());
    }
    let program = home.path().join("aex-egress");
    std::fs::copy(env!("CARGO_BIN_EXE_aex-egress"), &program).unwrap();
    for path in [home.path(), &home.run(), &program] {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let mut command = home.command_of(&program);
    command.current_dir(home.path()).uid(NOBODY).gid(NOBODY);
    (command, NOBODY)
}

#[tokio::test]
async fn its_memory_is_closed_to_its_own_user_and_its_socket_to_others() {
    let home = Home::new();
    let (command, uid) = anothers(&home);
    let mut control = std::process::Command::new("/bin/sleep");
    let mut control = control.arg("60").uid(uid).spawn().unwrap();
    let egress = home.start_as(command).await;
    // What is not dumpable belongs to root in /proc, whoever runs it; other processes do not.
    let owners = (
        owner_of_environ(egress.pid()),
        owner_of_environ(control.id()),
    );
    control.kill().unwrap();
    control.wait().unwrap();
    assert_eq!(owners, (0, uid));
    if !getuid().is_root() {
        eprintln!("SKIPPED: only root can try the socket as another user");
        return;
    }
    let mut worker = Worker::connect(&egress.socket).await;
    let answer = worker.head("/echo", &[], "").await;
    assert!(answer.is_err(), "another user got an answer");
    assert!(home.log().contains("another user was refused"));
}

#[tokio::test]
async fn it_stays_small() {
    let world = World::new().await;
    for _ in 0..200 {
        let ticket = ticket("sim", "/echo").1;
        assert_eq!(world.post("/echo", &ticket, "x").await.status, 200);
    }
    let rss_kib = world.egress.peak_rss_kib();
    assert!(rss_kib < 25 * 1024, "{rss_kib} KiB");
}

#[tokio::test]
async fn keys_come_by_descriptor() {
    let home = Home::new();
    let provider = Provider::start().await;
    let admin = Admin::start(&home.run(), vec![provider_config("sim", &provider.url())]);
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"SIM_API_KEY=sk-by-fd-fake\n").unwrap();
    drop(writer);
    let pipe = std::fs::read_link(format!("/proc/self/fd/{}", reader.as_raw_fd())).unwrap();
    // A shell moves the child's standard input to a descriptor of its own.
    let program = home.command().get_program().to_owned();
    let mut command = std::process::Command::new("/bin/sh");
    command
        .env_clear()
        .env("AEX_HOME", home.path())
        .args([
            "-c",
            "exec \"$0\" --keys-fd 3 --threads 2 3<&0 </dev/null 2>\"$AEX_HOME/log\"",
        ])
        .arg(program)
        .stdin(reader);
    let egress = home.start_as(command).await;
    admin.acting_on(1).await;
    let ticket = ticket("sim", "/echo").1;
    assert_eq!(
        post(&egress.socket, "/echo", &ticket, "x").await.status,
        200
    );
    assert_eq!(
        provider.seen()[0].headers["authorization"],
        "Bearer sk-by-fd-fake"
    );
    // Only root may look; a process that is not dumpable shows others nothing.
    if let Ok(descriptors) = std::fs::read_dir(format!("/proc/{}/fd", egress.pid())) {
        for entry in descriptors {
            let target = std::fs::read_link(entry.unwrap().path()).unwrap_or_default();
            assert_ne!(target, pipe, "the keys' pipe is still open");
        }
    }
}

//! `aex daemon`: what is started with what, what happens when something dies, and that nothing stays.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use aex_admin_proto::clock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::fake_programs::{Programs, alive};
use crate::{expect_exit, stderr, stdout, wait_until};

fn answers(address: &str) -> bool {
    let mut answer = String::new();
    TcpStream::connect(address).is_ok_and(|mut stream| {
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.starts_with("HTTP/1.1 200")
    })
}

#[test]
fn a_start_gives_each_program_its_own_and_a_stop_leaves_nothing() {
    let programs = Programs::new();
    // A descriptor that the caller left open must end with the caller.
    let (_reader, writer) = std::io::pipe().unwrap();
    nix::fcntl::fcntl(
        &writer,
        nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()),
    )
    .unwrap();
    let address = programs.start("2");
    assert!(answers(&address));
    let seen = programs.seen();
    let of = |me: &str| seen.iter().find(|seen| seen["me"] == me).unwrap();
    assert_eq!(of("aex-admin")["args"], json!(["serve"]));
    assert_eq!(of("aex-egress")["args"], json!(["--keys-fd", "3"]));
    assert_eq!(
        of("aex-proxy-2")["args"],
        json!(["--worker", "2", "--listen-fd", "3", "--listen-fds", "1"])
    );
    assert_eq!(of("aex-egress")["keys"], "GROQ_API_KEY=sk-fake-groq\n");
    for seen in &seen {
        let home = programs.home.to_str().unwrap();
        assert_eq!(seen["env"]["AEX_HOME"], home);
        assert_eq!(seen["cwd"], home);
        assert!(!seen["env"].to_string().contains("fake"), "{seen}");
        // 0 to 2, the inherited one, and the one that lists them: the lock is not among them.
        assert!(seen["fds"].as_array().unwrap().len() <= 5, "{seen}");
    }
    for file in [
        "logs/daemon.log",
        "logs/aex-proxy-1.log",
        "run/daemon.json",
        "run/aex-admin.pid",
    ] {
        let mode = fs::metadata(programs.home.join(file)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }

    let again = programs.aex(&["daemon", "start"]);
    expect_exit(&again, 0);
    assert!(stdout(&again).contains("already running"));
    assert!(!stderr(&again).contains("not taken"), "{}", stderr(&again));
    let other = programs.aex(&["daemon", "start", "--listen", "127.0.0.1:1"]);
    expect_exit(&other, 0);
    let told = stderr(&other);
    assert!(
        told.contains("not taken") && told.contains("aex daemon restart"),
        "{told}"
    );
    assert!(stdout(&other).contains(&address));
    let status = programs.aex(&["daemon", "status", "--json"]);
    expect_exit(&status, 0);
    let status: Value = serde_json::from_str(&stdout(&status)).unwrap();
    assert_eq!(status["phase"], "ready");
    assert_eq!(status["programs"].as_array().unwrap().len(), 4);
    assert!(
        status["programs"]
            .as_array()
            .unwrap()
            .iter()
            .all(|p| p["running"] == true),
        "{status}"
    );

    expect_exit(&programs.aex(&["daemon", "stop"]), 0);
    assert!(programs.nothing_runs());
    assert!(!answers(&address));
    let ended = fs::read_to_string(programs.home.join("ended")).unwrap();
    let ended: Vec<&str> = ended.lines().collect();
    assert_eq!(ended[2..], ["aex-egress", "aex-admin"], "{ended:?}");
    let left: Vec<_> = fs::read_dir(programs.home.join("run")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    expect_exit(&programs.aex(&["daemon", "stop"]), 0);
    expect_exit(&programs.aex(&["daemon", "status"]), 3);
}

#[test]
fn a_taken_port_is_named_and_nothing_is_started() {
    let programs = Programs::new();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let output = programs.aex(&["daemon", "start", "--listen", &address.to_string()]);
    expect_exit(&output, 1);
    let told = stderr(&output);
    assert!(
        told.contains(&format!("port {} is taken", address.port())),
        "{told}"
    );
    assert!(programs.seen().is_empty());
    expect_exit(&programs.aex(&["daemon", "status"]), 3);
}

#[test]
fn a_bad_configuration_is_told_with_its_place() {
    let programs = Programs::new();
    let config = programs.home.join("config/models.yaml");
    fs::write(&config, "bad").unwrap();
    let good = programs.aex(&["config", "check", "--json", "/dev/null"]);
    expect_exit(&good, 0);
    let good: Value = serde_json::from_str(&stdout(&good)).unwrap();
    assert_eq!((&good["ok"], &good["models"]), (&json!(true), &json!(2)));
    let expected = format!("{}:3:5: unknown key", config.display());
    for line in ["daemon start", "daemon start --foreground", "config check"] {
        let output = programs.aex(&line.split(' ').collect::<Vec<_>>());
        expect_exit(&output, 1);
        assert!(
            stderr(&output).contains(&expected),
            "{line}: {}",
            stderr(&output)
        );
    }
    fs::remove_file(&config).unwrap();
    let output = programs.aex(&["daemon", "start"]);
    expect_exit(&output, 1);
    assert!(stderr(&output).contains("aex init"));
    expect_exit(&programs.aex(&["config", "check", "/no/such/file"]), 4);
    assert!(programs.seen().is_empty());
}

#[test]
fn a_program_that_cannot_run_fails_the_start_with_its_last_words() {
    let programs = Programs::new();
    programs.touch("die-aex-admin");
    let output = programs.aex(&["daemon", "start", "--listen", "127.0.0.1:0"]);
    expect_exit(&output, 1);
    assert!(stderr(&output).contains("cannot open the ledger: made up"));
    assert!(programs.nothing_runs());
    expect_exit(&programs.aex(&["daemon", "status"]), 3);
}

#[test]
fn a_kernel_that_will_not_become_ready_says_why_and_is_taken_down() {
    let programs = Programs::new();
    programs.touch("never-ready");
    let output = programs.aex(&[
        "daemon",
        "start",
        "--listen",
        "127.0.0.1:0",
        "--workers",
        "1",
    ]);
    expect_exit(&output, 1);
    assert!(
        stderr(&output).contains("GROQ_API_KEY is there"),
        "{}",
        stderr(&output)
    );
    assert!(programs.nothing_runs());
}

#[test]
fn a_daemon_that_is_failing_says_so_at_once() {
    let programs = Programs::new();
    let _ = programs.start("1");
    programs.touch("never-ready");
    expect_exit(&programs.aex(&["daemon", "restart"]), 1);
    let asked_ms = clock::boot_ms();
    let start = programs.aex(&["daemon", "start"]);
    expect_exit(&start, 1);
    let told = stderr(&start);
    assert!(
        told.contains("GROQ_API_KEY is there") && told.contains("aex config reload"),
        "{told}"
    );
    // Not after the minute for which it waits for a start by somebody else.
    let took_ms = clock::boot_ms() - asked_ms;
    assert!(took_ms < 30_000, "{took_ms} ms");
    let status = programs.aex(&["daemon", "status"]);
    expect_exit(&status, 1);
    assert!(stdout(&status).contains("failing"), "{}", stdout(&status));
    expect_exit(&programs.aex(&["daemon", "stop"]), 0);
}

#[test]
fn a_worker_that_dies_is_started_again_behind_the_same_port() {
    let programs = Programs::new();
    let address = programs.start("2");
    let (first, second) = (programs.pid("aex-proxy-1"), programs.pid("aex-proxy-2"));
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    assert!(answers(&address), "the other worker serves on");
    wait_until("a new worker", || {
        programs.pid("aex-proxy-1") != first && answers(&address)
    });
    assert_eq!(programs.pid("aex-proxy-2"), second);

    // The egress gets the keys again.
    let egress = programs.pid("aex-egress");
    kill(Pid::from_raw(egress), Signal::SIGKILL).unwrap();
    wait_until("a new egress with the keys", || {
        let seen = programs.seen();
        let last = seen.iter().rev().find(|seen| seen["me"] == "aex-egress");
        let last = last.unwrap();
        last["pid"] != egress && last["keys"] == "GROQ_API_KEY=sk-fake-groq\n"
    });
    let logs = programs.aex(&["daemon", "logs"]);
    expect_exit(&logs, 0);
    assert!(
        stdout(&logs).contains("aex-proxy-1 ended"),
        "{}",
        stdout(&logs)
    );
}

#[test]
fn a_restart_keeps_port_keys_and_supervisor() {
    let programs = Programs::new();
    let address = programs.start("1");
    let (daemon, admin) = (programs.pid("daemon"), programs.pid("aex-admin"));
    // The caller of the restart has no key: the daemon's own are used again.
    let restart = || {
        programs
            .command(&["daemon", "restart", "--json"])
            .env_remove("GROQ_API_KEY")
            .output()
            .unwrap()
    };
    let output = restart();
    expect_exit(&output, 0);
    let answer: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(answer["listen"], address.as_str());
    assert!(answers(&address));
    assert_eq!(programs.pid("daemon"), daemon);
    assert_ne!(programs.pid("aex-admin"), admin);
    wait_until("each program once more", || programs.seen().len() == 6);
    let seen = programs.seen();
    assert!(
        seen.iter()
            .filter(|seen| seen["me"] == "aex-egress")
            .all(|seen| seen["keys"] == "GROQ_API_KEY=sk-fake-groq\n")
    );

    // A bad configuration does not take the running kernel down.
    fs::write(programs.home.join("config/models.yaml"), "bad").unwrap();
    let output = restart();
    expect_exit(&output, 1);
    assert!(
        stderr(&output).contains("models.yaml:3:5: unknown key"),
        "{}",
        stderr(&output)
    );
    assert!(answers(&address));
    assert_eq!(programs.seen().len(), 6);

    // Another number of workers is a whole new daemon on the same port.
    fs::write(programs.home.join("config/models.yaml"), "good").unwrap();
    expect_exit(&programs.aex(&["daemon", "restart", "--workers", "2"]), 0);
    assert_ne!(programs.pid("daemon"), daemon);
    assert!(answers(&address));
    programs.pid("aex-proxy-2");
}

#[test]
fn a_restart_of_nothing_says_that_nothing_is_kept() {
    let programs = Programs::new();
    let mut restart = vec!["daemon", "restart", "--workers", "1"];
    restart.extend(["--listen", "127.0.0.1:0"]);
    let output = programs.aex(&restart);
    expect_exit(&output, 0);
    assert!(
        stderr(&output).contains("no daemon ran"),
        "{}",
        stderr(&output)
    );
    let output = programs.aex(&["daemon", "restart"]);
    expect_exit(&output, 0);
    assert!(
        !stderr(&output).contains("no daemon ran"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn what_a_killed_supervisor_left_is_ended_by_the_next_start_and_by_a_stop() {
    let programs = Programs::new();
    let address = programs.start("1");
    let killed = |programs: &Programs| {
        let daemon = programs.pid("daemon");
        let orphan = programs.pid("aex-proxy-1");
        kill(Pid::from_raw(daemon), Signal::SIGKILL).unwrap();
        wait_until("the supervisor is gone", || !alive(&daemon.to_string()));
        assert!(alive(&orphan.to_string()));
        let status = programs.aex(&["daemon", "status"]);
        expect_exit(&status, 3);
        assert!(
            stdout(&status).contains("aex-proxy-1"),
            "{}",
            stdout(&status)
        );
        orphan
    };
    let orphan = killed(&programs);
    let next = ["daemon", "start", "--workers", "1", "--listen", &address];
    expect_exit(&programs.aex(&next), 0);
    assert!(!alive(&orphan.to_string()));
    assert!(answers(&address));

    killed(&programs);
    let stop = programs.aex(&["daemon", "stop"]);
    expect_exit(&stop, 0);
    let told = "ended what it had left: aex-proxy-1, aex-egress, aex-admin";
    assert!(stdout(&stop).contains(told), "{}", stdout(&stop));
    assert!(programs.nothing_runs());
    let again = programs.aex(&["daemon", "stop", "--json"]);
    let again: Value = serde_json::from_str(&stdout(&again)).unwrap();
    assert_eq!(again["ended_orphans"], json!([]));
}

#[test]
fn a_start_names_providers_without_a_key_and_keys_that_came_too_late() {
    let programs = Programs::new();
    programs.touch("speaks");
    let start = |late: bool, options: &[&str]| {
        let mut command = programs.command(&["daemon", "start", "--listen", "127.0.0.1:0"]);
        command.args(["--workers", "1"]).args(options);
        if late {
            command.env("OPENAI_API_KEY", "sk-fake-openai");
        }
        let output = command.output().unwrap();
        expect_exit(&output, 0);
        output
    };
    let first = stderr(&start(false, &[]));
    let file = programs.home.join("keys/openai");
    for part in ["no key for provider openai", file.to_str().unwrap()] {
        assert!(first.contains(part), "{first}");
    }
    assert!(!first.contains("provider groq") && !first.contains("ollama"));

    let late = stderr(&start(true, &[]));
    assert!(
        late.contains("OPENAI_API_KEY of this environment was not taken"),
        "{late}"
    );
    assert!(
        !late.contains("sk-fake") && !late.contains("GROQ"),
        "{late}"
    );

    let json = start(true, &["--json"]);
    assert!(!stderr(&json).contains("OPENAI"), "{}", stderr(&json));
    let json: Value = serde_json::from_str(&stdout(&json)).unwrap();
    let warnings = json["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "{json}");
    assert!(warnings[0].as_str().unwrap().starts_with("OPENAI_API_KEY"));
}

#[test]
fn in_the_foreground_it_ends_with_its_signal_and_a_second_one_uses_force() {
    let programs = Programs::new();
    programs.touch("stubborn-aex-proxy-1");
    let mut child = programs
        .command(&[
            "daemon",
            "start",
            "--foreground",
            "--listen",
            "127.0.0.1:0",
            "--workers",
            "1",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut ready = [0; 12];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut ready)
        .unwrap();
    assert_eq!(&ready, b"AEX is ready");
    let daemon = Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(daemon, Signal::SIGINT).unwrap();
    wait_until("it is stopping", || {
        fs::read_to_string(programs.home.join("run/daemon.json"))
            .is_ok_and(|state| state.contains("stopping"))
    });
    kill(daemon, Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(programs.nothing_runs());
}

#[test]
fn a_missing_program_is_named() {
    let programs = Programs::new();
    fs::remove_file(programs.directory().join("aex-egress")).unwrap();
    let output = programs.aex(&["daemon", "start"]);
    expect_exit(&output, 1);
    assert!(
        stderr(&output).contains("aex-egress is missing"),
        "{}",
        stderr(&output)
    );
}

//! `aex run`: what the command gets, what becomes of its token, and how it exits.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::fake_admin::{FakeAdmin, agent, token_reply};
use crate::{expect_exit, stderr, stdout};

fn admin() -> FakeAdmin {
    FakeAdmin::start(|method, params| match (method, params["name"].as_str()) {
        ("token.create", Some("a")) => Ok(token_reply()),
        ("token.create", _) => Err((-32002, "no such agent: nobody")),
        _ => Ok(
            json!({"id": 7, "agent": "a", "label": "run", "created_at_ms": 0,
                       "expires_at_ms": null, "revoked": true}),
        ),
    })
    .listens_on("127.0.0.1:4321")
}

fn revoked(admin: &FakeAdmin) -> bool {
    admin.asked().last() == Some(&("token.revoke".to_owned(), json!({"id": 7})))
}

#[test]
fn the_command_gets_a_token_and_no_provider_key() {
    let admin = admin();
    let output = admin
        .command(&["run", "-a", "a", "--ttl", "10m", "--", "env"])
        .env("GROQ_API_KEY", "sk-fake")
        .env("OPENAI_API_KEY", "sk-fake")
        .env("ANTHROPIC_AUTH_TOKEN", "sk-fake")
        .env("AWS_SECRET_ACCESS_KEY", "sk-fake")
        .env("OPENAI_ORG_ID", "sk-fake")
        .env("KEPT", "yes")
        .output()
        .unwrap();
    expect_exit(&output, 0);
    let env = stdout(&output);
    assert!(!env.contains("sk-fake"), "{env}");
    let home = format!("AEX_HOME={}", admin.home().display());
    for line in [
        "OPENAI_API_KEY=aex_fake-token",
        "OPENAI_BASE_URL=http://127.0.0.1:4321/v1",
        "OPENAI_API_BASE=http://127.0.0.1:4321/v1",
        "KEPT=yes",
        &home,
    ] {
        assert!(
            env.lines().any(|found| found == line),
            "{line} not in {env}"
        );
    }
    let asked = json!({"name": "a", "ttl_s": 600, "label": "run"});
    assert!(admin.asked().contains(&("token.create".to_owned(), asked)));
    assert_eq!(stderr(&output), "");
    assert!(revoked(&admin));
}

#[test]
fn of_a_pause_is_warned_and_the_command_runs() {
    let admin = FakeAdmin::start(|method, _: &Value| match method {
        "agent.show" => {
            let mut paused = agent();
            paused["state"] = "paused".into();
            Ok(paused)
        }
        _ => Ok(token_reply()),
    })
    .listens_on("127.0.0.1:9000");
    let output = admin.aex(&["run", "-a", "a", "--", "sh", "-c", "echo up; exit 3"]);
    expect_exit(&output, 3);
    assert_eq!(stdout(&output), "up\n");
    assert_eq!(
        stderr(&output),
        "aex: a is paused: its requests are refused until aex agent resume a\n"
    );
    assert!(revoked(&admin));
}

#[test]
fn the_command_needs_no_dashes_before_it_and_has_its_options() {
    let admin = admin();
    let output = admin.aex(&["run", "-a", "a", "echo", "--json", "-a", "b"]);
    expect_exit(&output, 0);
    assert_eq!(stdout(&output), "--json -a b\n");
    assert!(revoked(&admin));
}

#[test]
fn over_tls_it_is_told_once_that_clients_must_trust_the_certificate() {
    let tls = json!({"cert": "/etc/fake/cert.pem", "key": "/etc/fake/key.pem"});
    let admin = admin().daemon(&json!({
        "pid": 1, "listen": "127.0.0.1:4321", "workers": 1, "tls": tls
    }));
    let run = ["run", "-a", "a", "--", "env"];
    let output = admin.aex(&run);
    expect_exit(&output, 0);
    let told = stderr(&output);
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(
        told.contains("/etc/fake/cert.pem") && told.contains("SSL_CERT_FILE"),
        "{told}"
    );
    // What is trusted stays the caller's to say.
    assert!(!stdout(&output).contains("SSL_CERT_FILE"));
    let knows = admin
        .command(&run)
        .env("SSL_CERT_FILE", "/etc/fake/ca.pem")
        .output()
        .unwrap();
    expect_exit(&knows, 0);
    assert_eq!(stderr(&knows), "");
}

#[test]
fn the_exit_code_is_the_commands_own() {
    for (script, code) in [("exit 7", 7), ("exit 2", 2), ("kill -KILL $$", 137)] {
        let admin = admin();
        expect_exit(
            &admin.aex(&["run", "-a", "a", "--", "sh", "-c", script]),
            code,
        );
        assert!(revoked(&admin), "{script}");
    }
}

#[test]
fn own_failures_are_125_to_127() {
    let admin = admin();
    let output = admin.aex(&["run", "-a", "nobody", "--", "true"]);
    expect_exit(&output, 125);
    assert!(stderr(&output).contains("no such agent"));
    expect_exit(&admin.aex(&["run", "-a", "a"]), 125);
    expect_exit(&admin.aex(&["run", "-a", "a", "--", "/etc/passwd"]), 126);
    assert!(revoked(&admin));
    expect_exit(
        &admin.aex(&["run", "-a", "a", "--", "/no/such/command"]),
        127,
    );
    assert!(revoked(&admin));
    let gone = admin
        .command(&["--socket", "/nowhere", "run", "-a", "a", "--", "true"])
        .output()
        .unwrap();
    expect_exit(&gone, 125);
}

#[test]
fn a_signal_goes_to_the_command_and_its_token_still_ends() {
    let admin = admin();
    let script = "trap 'echo told; exit 9' TERM; echo up; while :; do sleep 0.02; done";
    let mut child = admin
        .command(&["run", "-a", "a", "--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "up");
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "told");
    assert_eq!(child.wait().unwrap().code(), Some(9));
    assert!(revoked(&admin));
}

#[test]
fn a_token_that_cannot_be_revoked_is_told_and_changes_no_exit_code() {
    let admin = FakeAdmin::start(|method, _: &Value| match method {
        "token.create" => Ok(token_reply()),
        _ => Err((-32004, "the ledger is locked")),
    });
    let output = admin.aex(&["run", "-a", "a", "--", "sh", "-c", "exit 6"]);
    expect_exit(&output, 6);
    assert!(stderr(&output).contains("aex token revoke 7"));
}

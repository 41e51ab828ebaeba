//! `aex doctor`: what is right it calls right, and each thing that is wrong it finds and names.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use aex_tests::harness::Kernel;
use serde_json::Value;

use crate::common::sim;

/// The findings of one check, as `state: text`; and the exit code.
fn doctor(kernel: &Kernel, args: &[&str]) -> (Vec<Value>, Option<i32>) {
    let output = kernel.aex(&[&["--json", "doctor"], args].concat());
    let document: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let findings = document["findings"].as_array().unwrap().clone();
    (findings, output.status.code())
}

#[track_caller]
fn finds(findings: &[Value], check: &str, state: &str, says: &str) {
    let is_it = |finding: &&Value| {
        finding["check"] == check
            && finding["state"] == state
            && finding["says"].as_str().unwrap().contains(says)
    };
    assert!(
        findings.iter().any(|finding| is_it(&finding)),
        "no {state} {check}: {says} in {findings:#?}"
    );
}

#[test]
fn what_is_right_is_called_right_and_what_is_wrong_is_named() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let (findings, exit) = doctor(&kernel, &[]);
    assert_eq!(exit, Some(0), "{findings:#?}");
    finds(&findings, "kernel", "ok", "it answers");
    finds(&findings, "files", "ok", "closed to other users");
    finds(&findings, "providers", "ok", "sim answers at 127.0.0.1");
    finds(&findings, "boundary", "warning", "advisory");
    finds(&findings, "clock", "ok", "");
    let text = kernel.aex(&["doctor"]);
    assert_eq!(text.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&text.stdout).contains("Nothing fails"));

    let ledger = &kernel.places.ledger;
    fs::set_permissions(ledger, fs::Permissions::from_mode(0o644)).unwrap();
    let (findings, exit) = doctor(&kernel, &[]);
    assert_eq!(exit, Some(1));
    finds(
        &findings,
        "files",
        "failed",
        "aex.db is open to other users",
    );
    fs::set_permissions(ledger, fs::Permissions::from_mode(0o600)).unwrap();

    // Strict from the next start on: a key that lies there is named before that fails.
    let config = fs::read_to_string(&kernel.places.config_file).unwrap();
    kernel.write_config(&format!("keys: passthrough\n{config}"));
    let key = kernel.places.keys.join("sim");
    fs::write(&key, "sk-fake-operator").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let (findings, exit) = doctor(&kernel, &[]);
    assert_eq!(exit, Some(1));
    finds(&findings, "keys", "failed", "keys/sim");
    let told = format!("{findings:?}");
    assert!(!told.contains("sk-fake-operator"), "{told}");
    fs::remove_file(&key).unwrap();

    kernel.write_config(&config);
    assert!(kernel.aex(&["daemon", "stop"]).status.success());
    let (findings, exit) = doctor(&kernel, &[]);
    assert_eq!(exit, Some(1));
    finds(&findings, "kernel", "failed", "cannot reach the kernel");
    finds(&findings, "config", "ok", "models.yaml is good");
}

#[test]
fn as_another_user_it_proves_what_that_user_can_do() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    assert_eq!(kernel.aex(&["doctor", "--as", "0"]).status.code(), Some(2));
    if !nix::unistd::geteuid().is_root() {
        let refused = kernel.aex(&["doctor", "--as", "65534"]);
        assert_eq!(refused.status.code(), Some(5), "{refused:?}");
        return;
    }
    // A uid that nobody has: the other tests' directories are not its own.
    let (findings, exit) = doctor(&kernel, &["--as", "64242"]);
    // Without a rule that bars it, it reaches the provider past AEX; that is what it must say.
    assert_eq!(exit, Some(1));
    finds(&findings, "ways around", "failed", "can reach sim");
    finds(&findings, "agents' way", "ok", "can reach AEX");
    let failed: Vec<&Value> = (findings.iter())
        .filter(|finding| finding["state"] == "failed")
        .collect();
    assert_eq!(failed.len(), 1, "{failed:#?}");
    for (check, says) in [
        ("sockets", "admin.sock"),
        ("sockets", "worker.sock"),
        ("files", "aex.db"),
        ("memory", "/mem"),
    ] {
        finds(&findings, check, "ok", says);
    }
}

//! What holds the programs in, as they say it and as the kernel of the machine says it.

use std::fs;

use aex_admin_proto::operator::Status;
use aex_tests::harness::{Kernel, root_or_skip};
use serde_json::json;

use crate::common::{hello, sim};

fn line_of(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_whitespace().nth(1))
        .unwrap_or_default()
        .to_owned()
}

fn pids(kernel: &Kernel) -> Vec<u32> {
    let mut pids = kernel.worker_pids();
    pids.push(kernel.pid("aex-admin"));
    pids.push(kernel.pid("aex-egress"));
    pids
}

fn held(status: &Status) -> Vec<aex_admin_proto::sandbox::InForce> {
    let mut all = vec![status.sandbox, status.egress_sandbox.unwrap()];
    all.extend(status.workers.iter().map(|worker| worker.sandbox));
    all
}

#[test]
fn every_program_is_shut_in_and_says_so() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let status = kernel.status();
    let all = held(&status);
    assert_eq!(all.len(), 4);
    for held in &all {
        assert!(held.seccomp && held.no_new_privs, "{held}");
        assert!(held.not_dumpable && held.no_core, "{held}");
        assert!(!held.switched_off, "{held}");
    }
    for pid in pids(&kernel) {
        assert_eq!(line_of(pid, "Seccomp:"), "2", "{pid}");
        assert_eq!(line_of(pid, "NoNewPrivs:"), "1", "{pid}");
    }
    let text = String::from_utf8(kernel.aex(&["status"]).stdout).unwrap();
    assert!(text.contains("seccomp, no new privileges"), "{text}");
    assert!(kernel.logs().contains("sandbox: "), "it is logged");
}

#[test]
fn it_can_be_switched_off_and_that_is_said() {
    let sim = sim();
    let kernel = (Kernel::builder().default_models(&sim))
        .env("AEX_SANDBOX", "off")
        .start();
    for held in held(&kernel.status()) {
        assert!(held.switched_off && !held.seccomp, "{held}");
        assert_eq!(held.landlock_abi, None, "{held}");
        assert!(held.no_new_privs && held.not_dumpable, "{held}");
    }
    for pid in pids(&kernel) {
        assert_eq!(line_of(pid, "Seccomp:"), "0", "{pid}");
    }
    let text = String::from_utf8(kernel.aex(&["status"]).stdout).unwrap();
    assert!(text.contains("off by AEX_SANDBOX"), "{text}");
}

#[test]
fn a_backup_goes_where_its_caller_may_write() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("b.db");
    let file = file.to_str().unwrap();
    let made = kernel.aex_json(&["ledger", "backup", file]);
    assert_eq!(made["path"], file);
    assert_eq!(
        fs::metadata(file).unwrap().len(),
        made["bytes"].as_u64().unwrap()
    );
    let names: Vec<_> = fs::read_dir(elsewhere.path()).unwrap().collect();
    assert_eq!(names.len(), 1, "nothing is left beside it: {names:?}");
    // aex-admin itself does not write there.
    let params = json!({"path": format!("{file}.2")}).to_string();
    let refused = kernel.aex(&["rpc", "ledger.backup", &params]);
    assert_eq!(refused.status.code(), Some(5));
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("aex ledger backup FILE"), "{why}");
    // And gives a part of no other copy than the last.
    let gone = kernel.aex(&["rpc", "ledger.backup_part", r#"{"id":1,"offset":0}"#]);
    assert_eq!(gone.status.code(), Some(5));
}

#[test]
fn a_ca_file_that_cannot_be_read_says_where_it_may_lie() {
    if !root_or_skip("a_ca_file_that_cannot_be_read_says_where_it_may_lie") {
        return;
    }
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("ca.pem");
    fs::write(&file, "nothing").unwrap();
    let config = fs::read_to_string(&kernel.places.config_file).unwrap();
    let far = format!(
        "  far: {{ base_url: 'https://provider.invalid', ca_file: '{}' }}\nmodels:",
        file.display()
    );
    kernel.write_config(&config.replacen("models:", &far, 1));
    let refused = kernel.aex(&["config", "reload"]);
    assert!(!refused.status.success());
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("beside models.yaml"), "{why}");
    assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200);
}

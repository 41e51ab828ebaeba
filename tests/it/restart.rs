//! A restart that cannot work leaves what works as it is; and commands that follow end with their
//! reader.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Output, Stdio};

use aex_tests::harness::{Kernel, wait_for};
use serde_json::json;

use crate::common::{hello, sim};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_could_not_start_does_not_take_the_place_of_what_runs() {
    let sim = sim();
    // It is started with a key in its environment; `kernel.aex` has none.
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let good = std::fs::read_to_string(&kernel.places.config_file).unwrap();
    let stays = |args: &[&str], exit: i32, why: &str| {
        let output = kernel.aex(&[&["daemon", "restart"], args].concat());
        assert_eq!(output.status.code(), Some(exit), "{args:?}: {output:?}");
        let told = said(&output);
        assert!(
            told.contains("not restarted") && told.contains(why),
            "{told}"
        );
        assert_eq!(
            kernel.chat(&token, &hello(json!({}))).status,
            200,
            "{args:?}"
        );
    };
    // A new daemon would have to be started for it.
    stays(&["--workers", "1"], 5, "SIM_API_KEY");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    stays(&["--listen", &address], 1, "is taken");
    kernel.write_config(&format!("{good}foo: 1\n"));
    stays(&["--workers", "1"], 1, "`foo`");
    stays(&[], 1, "`foo`");
    // What the running egress alone can see.
    let far = "  far: { base_url: 'https://provider.invalid', ca_file: /nowhere.pem }\nmodels:";
    let strict = "    keys: passthrough\nmodels:";
    for (bent, why) in [(far, "/nowhere.pem"), (strict, "passthrough")] {
        kernel.write_config(&good.replacen("models:", bent, 1));
        stays(&[], 1, why);
        let whole_new = kernel
            .command(&["daemon", "restart", "--workers", "1"])
            .env("SIM_API_KEY", Kernel::SIM_KEY)
            .output()
            .unwrap();
        assert_eq!(whole_new.status.code(), Some(1), "{whole_new:?}");
        assert!(said(&whole_new).contains(why), "{whole_new:?}");
        assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200);
    }
    kernel.write_config(&good);
    assert_eq!(kernel.aex(&["daemon", "restart"]).status.code(), Some(0));
    assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200);
}

#[test]
fn what_follows_ends_with_its_reader() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let _ = kernel.create_agent("a", "1.00", 1000, &[]);
    for args in [
        ["ledger", "tail", "-f"].as_slice(),
        &["daemon", "logs", "-f"],
        &["metrics", "--watch"],
    ] {
        let mut child = kernel
            .command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.next().is_some(), "{args:?}");
        // As `head -1` does, while nothing happens any more.
        drop(lines);
        let ended = wait_for("its end", || child.try_wait().unwrap());
        assert_eq!(ended.code(), Some(0), "{args:?}");
    }
}

#[test]
fn a_token_that_could_not_be_shown_can_be_replaced() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = kernel
        .command(&["agent", "create", "a", "1.00", "9"])
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        said(&output).contains("aex agent rotate-token a"),
        "{output:?}"
    );
    assert!(kernel.aex_json(&["agent", "rotate-token", "a"])["token"].is_string());
}

#[test]
fn a_strict_audit_says_the_same_by_its_document_and_its_exit_code() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    kernel.sqlite("UPDATE agents SET rpm = 7");
    assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200);
    for (args, exit, ok) in [
        (["audit", "--json"].as_slice(), 0, true),
        (&["audit", "--json", "--strict"], 1, false),
    ] {
        let output = kernel.aex(args);
        assert_eq!(output.status.code(), Some(exit), "{args:?}");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["ok"], ok, "{report}");
    }
}

#[test]
fn a_home_that_sockets_cannot_be_made_in_is_refused_by_its_length() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("h".repeat(100));
    let output = std::process::Command::new(aex_tests::harness::program("aex"))
        .arg("init")
        .env("AEX_HOME", &home)
        .env_remove("AEX_SOCKET")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let told = said(&output);
    assert!(
        told.contains("bytes too long") && told.contains("AEX_HOME"),
        "{told}"
    );
}

#[test]
fn a_directory_with_somebodys_files_does_not_become_a_home() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.txt"), "").unwrap();
    let output = std::process::Command::new(aex_tests::harness::program("aex"))
        .arg("init")
        .env("AEX_HOME", dir.path())
        .env_remove("AEX_SOCKET")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said(&output).contains("no home of AEX"), "{output:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

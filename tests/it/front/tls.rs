//! TLS on TCP: HTTP/1.1 and HTTP/2 by ALPN, clients' certificates, certificates that change, and plain HTTP
//! beyond loopback.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use aex_tests::harness::{Kernel, wait_for};
use aex_tests::sim::{Behaviour, Sim};
use aex_tests::tls::{Client, Pki};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tempfile::TempDir;

use super::{ALICE, Ask, open_directory, replace_daemon};
use crate::common::{hello, sim};

/// Files as an operator has them, where every user can read all but the key.
struct Files {
    directory: TempDir,
    pki: Pki,
}

impl Files {
    fn new() -> Self {
        let files = Self {
            directory: open_directory(),
            pki: Pki::make().unwrap(),
        };
        files.write("ca.pem", &files.pki.ca_pem, 0o644);
        files.lay(&files.pki);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Replaced as a whole, as certificate managers do.
    fn write(&self, name: &str, text: &str, mode: u32) {
        let fresh = self.path(&format!("{name}.new"));
        fs::write(&fresh, text).unwrap();
        fs::set_permissions(&fresh, Permissions::from_mode(mode)).unwrap();
        fs::rename(fresh, self.path(name)).unwrap();
    }

    /// The server's pair.
    fn lay(&self, pki: &Pki) {
        self.write("key.pem", &pki.key_pem, 0o600);
        self.write("cert.pem", &pki.cert_pem, 0o644);
    }

    /// A client's pair, readable for ALICE.
    fn client(&self, name: &str, client: &Client) -> [String; 2] {
        let (cert, key) = (format!("{name}.crt"), format!("{name}.key"));
        self.write(&cert, &client.cert_pem, 0o644);
        self.write(&key, &client.key_pem, 0o644);
        [self.text(&cert), self.text(&key)]
    }

    fn options(&self) -> Vec<String> {
        let (cert, key) = (self.text("cert.pem"), self.text("key.pem"));
        ["--tls-cert", &cert, "--tls-key", &key]
            .map(str::to_owned)
            .to_vec()
    }

    fn with_clients(&self) -> Vec<String> {
        let ca = ["--tls-client-ca".to_owned(), self.text("ca.pem")];
        self.options().into_iter().chain(ca).collect()
    }

    fn ask<'a>(&self, kernel: &Kernel, token: &'a str) -> Ask<'a> {
        Ask {
            uid: ALICE,
            url: format!("https://{}", kernel.addr),
            token,
            method: "GET",
            body: None,
            socket: None,
            more: ["--cacert".to_owned(), self.text("ca.pem")].to_vec(),
        }
    }
}

fn start(sim: &Sim, options: &[String]) -> Kernel {
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let builder = Kernel::builder().default_models(sim).workers(1);
    builder.options(&options).start()
}

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn agents_are_served_over_tls_by_both_versions_of_http() {
    let (sim, files) = (sim(), Files::new());
    let kernel = start(&sim, &files.options());
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let url = format!("https://{}/v1", kernel.addr);
    assert_eq!(kernel.aex_json(&["status"])["base_url"], url);
    assert_eq!(kernel.aex_json(&["daemon", "status"])["base_url"], url);

    for (option, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let ask = || files.ask(&kernel, &token).with(&[option]);
        let got = ask().chat(hello(json!({}))).send();
        assert_eq!((got.status, &*got.version), (200, version), "{got:?}");
        let streamed = ask().chat(hello(json!({"stream": true}))).send();
        assert_eq!(streamed.status, 200);
        assert!(streamed.body.contains("data: [DONE]"), "{}", streamed.body);
        // The same table of errors.
        let refused = ask().at("/v1/files").post(json!({})).send();
        assert_eq!(
            (refused.status, refused.json()["error"]["code"].as_str()),
            (404, Some("not_found"))
        );
        let large =
            hello(json!({"messages": [{"role": "user", "content": "x".repeat(11_000_000)}]}));
        assert_eq!(ask().chat(large).send().status, 413);
        let unknown = files
            .ask(&kernel, "aex_unknown")
            .with(&[option])
            .at("/v1/models")
            .send();
        assert_eq!(
            (unknown.status, &*unknown.detail()),
            (401, "Invalid API token")
        );
    }
    // TLS 1.2 is taken, nothing older.
    let old = files
        .ask(&kernel, &token)
        .with(&["--tls-max", "1.2"])
        .at("/v1/models");
    assert_eq!(old.send().status, 200);
    let older = files
        .ask(&kernel, &token)
        .with(&["--tls-max", "1.1"])
        .at("/v1/models");
    assert!(older.try_send().is_err());
    // Plain HTTP finds nobody there.
    let mut plain = kernel.connect();
    let _ = plain.send(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(plain.response().is_err());
    kernel.settled();
    kernel.audit();
}

#[test]
fn a_token_that_is_bound_to_a_certificate_is_taken_with_that_one_alone() {
    let (sim, files) = (sim(), Files::new());
    let kernel = start(&sim, &files.with_clients());
    let owner = files.pki.client("owner").unwrap();
    let [cert, key] = files.client("owner", &owner);
    let [other_cert, other_key] = files.client("other", &files.pki.client("other").unwrap());
    let foreign = Pki::make().unwrap();
    let [foreign_cert, foreign_key] = files.client("foreign", &foreign.client("owner").unwrap());

    let token = kernel.create_agent("a", "1.00", 1000, &["--client-cert", &cert]);
    let free = kernel.create_agent("free", "1.00", 1000, &[]);
    let ask = |token, pair: &[&str]| {
        let shown = match pair {
            [cert, key] => vec!["--cert", *cert, "--key", *key],
            _ => vec![],
        };
        files
            .ask(&kernel, token)
            .with(&shown)
            .chat(hello(json!({})))
    };
    for version in ["--http2", "--http1.1"] {
        let status = |token, pair: &[&str]| ask(token, pair).with(&[version]).send().status;
        assert_eq!(status(&token, &[&cert, &key]), 200);
        assert_eq!(status(&token, &[&other_cert, &other_key]), 401);
        assert_eq!(status(&token, &[]), 401);
        assert_eq!(status(&free, &[]), 200);
        assert_eq!(status(&free, &[&other_cert, &other_key]), 200);
    }
    // A certificate of another CA is no certificate, whoever's token comes with it.
    for token in [&token, &free] {
        assert!(
            ask(token, &[&foreign_cert, &foreign_key])
                .try_send()
                .is_err()
        );
    }
    assert_eq!(kernel.aex_json(&["metrics"])["wrong_peers"], 4);
    let shown = kernel.agent("a")["settings"]["client_cert"].clone();
    kernel.aex_json(&[
        "agent",
        "set",
        "free",
        "--client-cert",
        shown.as_str().unwrap(),
    ]);
    assert_eq!(ask(&free, &[&cert, &key]).send().status, 200);
    assert_eq!(ask(&free, &[]).send().status, 401);
    kernel.settled();
}

#[test]
fn a_certificate_is_renewed_without_a_restart_and_a_bad_one_is_not_taken() {
    let (sim, files) = (sim(), Files::new());
    let kernel = start(&sim, &files.options());
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let trusts = |ca: &Path| {
        let mut ask = files.ask(&kernel, &token).at("/v1/models");
        ask.more = vec!["--cacert".into(), ca.to_str().unwrap().into()];
        ask.try_send().is_ok_and(|got| got.status == 200)
    };
    let old_ca = files.path("ca.pem");
    assert!(trusts(&old_ca));
    let workers = kernel.worker_pids();

    // A key that does not fit, then one that is open to others: the old pair stays in force.
    let renewed = Pki::make().unwrap();
    files.write("new-ca.pem", &renewed.ca_pem, 0o644);
    let new_ca = files.path("new-ca.pem");
    for (text, mode) in [(&renewed.key_pem, 0o600), (&files.pki.key_pem, 0o644)] {
        let refused = || kernel.logs().matches("the old one stays").count();
        let before = refused();
        files.write("key.pem", text, mode);
        wait_for("the refusal in the log", || {
            (refused() > before).then_some(())
        });
        assert!(trusts(&old_ca) && !trusts(&new_ca));
    }

    files.lay(&renewed);
    wait_for("the new certificate", || trusts(&new_ca).then_some(()));
    assert!(!trusts(&old_ca));
    assert_eq!(kernel.worker_pids(), workers, "nothing was restarted");

    // On a signal, without a change.
    let read_again = || kernel.logs().matches("certificate was read again").count();
    let before = read_again();
    kill(
        Pid::from_raw(workers[0].try_into().unwrap()),
        Signal::SIGHUP,
    )
    .unwrap();
    wait_for("the files to be read", || {
        (read_again() > before).then_some(())
    });
    assert!(trusts(&new_ca));
    assert!(!kernel.logs().contains("PRIVATE KEY"));
}

#[test]
fn a_worker_without_tls_has_nothing_to_do_on_a_hangup() {
    let sim = sim();
    let kernel = Kernel::builder().default_models(&sim).workers(1).start();
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let pids = kernel.worker_pids();
    kill(Pid::from_raw(pids[0].try_into().unwrap()), Signal::SIGHUP).unwrap();
    assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200);
    assert_eq!(kernel.worker_pids(), pids);
}

#[test]
fn plain_http_beyond_loopback_is_refused_unless_it_is_asked_for_by_name() {
    let sim = sim();
    let kernel = Kernel::builder()
        .default_models(&sim)
        .listen("0.0.0.0:0")
        .prepare();
    let refused = kernel.daemon_start();
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(
        said(&refused).contains("--plain-http"),
        "{}",
        said(&refused)
    );
    assert_eq!(kernel.aex(&["daemon", "status"]).status.code(), Some(3));
    drop(kernel);

    let builder = Kernel::builder().default_models(&sim).listen("0.0.0.0:0");
    let kernel = builder.options(&["--plain-http"]).start();
    let url = kernel.aex_json(&["status"])["base_url"].clone();
    assert_eq!(url, format!("http://127.0.0.1:{}/v1", kernel.addr.port()));
    // It runs with TLS from now on, on the same port, and says so; then it may not go back by the way.
    let files = Files::new();
    let options = files.options();
    let tls: Vec<&str> = options.iter().map(String::as_str).collect();
    let restarted = replace_daemon(&kernel, &tls);
    let url = restarted["base_url"].as_str().unwrap();
    assert_eq!(url, format!("https://127.0.0.1:{}/v1", kernel.addr.port()));
}

#[test]
fn files_that_cannot_be_used_are_told_before_anything_starts() {
    let (sim, files) = (sim(), Files::new());
    let kernel = Kernel::builder().default_models(&sim).prepare();
    let start = || {
        let options = files.options();
        let tls: Vec<&str> = options.iter().map(String::as_str).collect();
        kernel.aex(&[&["daemon", "start", "--listen", "127.0.0.1:0"], &tls[..]].concat())
    };
    let refused = |because: &str| {
        let output = start();
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(because), "{}", said(&output));
        assert_eq!(kernel.aex(&["daemon", "status"]).status.code(), Some(3));
    };
    fs::set_permissions(files.path("key.pem"), Permissions::from_mode(0o644)).unwrap();
    refused("chmod 0600");
    files.write("key.pem", &Pki::make().unwrap().key_pem, 0o600);
    refused("key.pem: the certificate and the key do not belong together");
    fs::remove_file(files.path("cert.pem")).unwrap();
    refused(&format!(
        "aex: TLS: {}: No such file",
        files.text("cert.pem")
    ));
}

#[test]
fn a_stream_over_http2_is_finished_when_its_worker_is_told_to_stop() {
    let (sim, files) = (sim(), Files::new());
    let mut kernel = start(&sim, &files.options());
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    sim.behave(Behaviour {
        chunk_delay_ms: 20,
        natural_tokens: Some(100),
        ..Behaviour::default()
    });
    let ask = files.ask(&kernel, &token).with(&["--http2", "-N"]);
    let slow = ask.chat(hello(json!({"stream": true, "max_tokens": 200})));
    let got = std::thread::scope(|scope| {
        let streaming = scope.spawn(|| slow.try_send());
        wait_for("the stream at the provider", || {
            (sim.bill().in_flight == 1).then_some(())
        });
        kernel.stop();
        streaming.join().unwrap().unwrap()
    });
    assert_eq!((got.status, &*got.version), (200, "2"));
    assert!(got.body.contains("data: [DONE]"), "{}", got.body);
}

/// Two requests of one curl, two seconds apart: how many connections each made.
fn connects(files: &Files, kernel: &Kernel, token: &str, more: &[&str]) -> String {
    let url = format!("https://{}/v1/chat/completions", kernel.addr);
    let authorization = format!("authorization: Bearer {token}");
    let ca = files.text("ca.pem");
    let body = hello(json!({})).to_string();
    let mut curl = std::process::Command::new("curl");
    curl.args(["-sS", "--http2", "--cacert", &ca, "--rate", "30/m"])
        .args(["-H", &authorization, "-H", "content-type: application/json"])
        .args(["-w", "%{http_code} %{http_version} %{num_connects}\n"])
        .args(["-d", &body])
        .args(more);
    for _ in 0..2 {
        curl.args(["-o", "/dev/null", &url]);
    }
    let output = curl.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn an_own_key_ends_its_connection_over_http2_too() {
    const OWN: &str = "sk-fake-own-key-canary-over-http2-77120";
    let (sim, files) = (sim(), Files::new());
    let kernel = start(&sim, &files.options());
    let token = kernel.create_agent("a", "1.00", 1000, &["--allow-passthrough"]);
    assert_eq!(connects(&files, &kernel, &token, &[]), "200 2 1\n200 2 0\n");
    let own = format!("x-aex-provider-key: {OWN}");
    let ended = connects(&files, &kernel, &token, &["-H", &own]);
    assert_eq!(ended, "200 2 1\n200 2 1\n");
    if !aex_tests::harness::root_or_skip("an_own_key_ends_its_connection_over_http2_too") {
        return;
    }
    let mut programs = kernel.worker_pids();
    programs.extend([kernel.pid("aex-admin"), kernel.pid("aex-egress")]);
    wait_for("the key to be gone from all memory", || {
        let holds = |pid: &u32| crate::secrets::memory_holds(*pid, OWN);
        (!programs.iter().any(holds)).then_some(())
    });
}

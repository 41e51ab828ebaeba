//! The agents' side of a shared host: Unix sockets, tokens that are bound to a user or a certificate, a
//! tenant's own tokens, TLS and HTTP/2.

mod bound;
mod own_tokens;
mod tls;
mod unix;

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use aex_tests::harness::Kernel;
use serde_json::Value;
use tempfile::TempDir;

/// Two users who trust neither each other nor the kernel's. They need no name.
const ALICE: u32 = 60_001;
const MALLORY: u32 = 60_002;

/// A directory that every user of the host can reach.
fn open_directory() -> TempDir {
    let directory = tempfile::Builder::new();
    let directory = { directory }.prefix("aex-front-").tempdir().unwrap();
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    directory
}

/// `aex daemon restart` with options that need a whole new daemon, and so its key once more.
fn replace_daemon(kernel: &Kernel, options: &[&str]) -> Value {
    let mut restart = kernel.command(&["daemon", "restart", "--json"]);
    restart.args(options).env("SIM_API_KEY", Kernel::SIM_KEY);
    let output = restart.output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What a user sends with curl.
struct Ask<'a> {
    uid: u32,
    url: String,
    token: &'a str,
    method: &'a str,
    body: Option<Value>,
    socket: Option<PathBuf>,
    more: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Got {
    status: u16,
    /// As curl writes it: `1.1`, `2`.
    version: String,
    body: String,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    fn detail(&self) -> String {
        self.json()["detail"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

impl<'a> Ask<'a> {
    /// Over a Unix socket.
    fn over(socket: &Path, uid: u32, token: &'a str) -> Self {
        Self {
            uid,
            url: "http://localhost".to_owned(),
            token,
            method: "GET",
            body: None,
            socket: Some(socket.to_owned()),
            more: Vec::new(),
        }
    }

    fn at(mut self, path: &str) -> Self {
        self.url.push_str(path);
        self
    }

    fn method(mut self, method: &'a str) -> Self {
        self.method = method;
        self
    }

    fn post(mut self, body: Value) -> Self {
        self.method = "POST";
        self.body = Some(body);
        self
    }

    fn chat(self, body: Value) -> Self {
        self.at("/v1/chat/completions").post(body)
    }

    fn with(mut self, options: &[&str]) -> Self {
        self.more
            .extend(options.iter().map(|&option| option.to_owned()));
        self
    }

    /// The answer, or what curl says of none.
    fn try_send(self) -> Result<Got, String> {
        let mut curl = Command::new("curl");
        curl.args([
            "-sS",
            "--max-time",
            "60",
            "-w",
            "\n%{http_code} %{http_version}",
        ])
        .args([
            "-X",
            self.method,
            "-H",
            &format!("authorization: Bearer {}", self.token),
        ])
        .args(&self.more)
        .env_clear()
        .uid(self.uid)
        .gid(self.uid)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
        if let Some(socket) = &self.socket {
            curl.arg("--unix-socket").arg(socket);
        }
        if self.body.is_some() {
            curl.args([
                "-H",
                "content-type: application/json",
                "--data-binary",
                "@-",
            ]);
        }
        let mut child = curl.arg(&self.url).spawn().expect("curl is installed");
        let body = self.body.map(|body| body.to_string()).unwrap_or_default();
        // A refusal may come before everything is sent.
        let _ = child.stdin.take().unwrap().write_all(body.as_bytes());
        let output = child.wait_with_output().unwrap();
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, told) = text.rsplit_once('\n').unwrap();
        let (status, version) = told.split_once(' ').unwrap();
        Ok(Got {
            status: status.parse().unwrap(),
            version: version.to_owned(),
            body: body.to_owned(),
        })
    }

    #[track_caller]
    fn send(self) -> Got {
        self.try_send().unwrap_or_else(|why| panic!("{why}"))
    }
}

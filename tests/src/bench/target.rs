//! The servers under load: the simulator itself, nginx in front of it, AEX in front of it.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Kernel, process, program, wait_until};
use crate::http::{Connection, request};

const START_LIMIT: Duration = Duration::from_secs(10);
/// No agent of the benchmark comes near these.
const BUDGET_USD: &str = "100000";
const RPM: u64 = 100_000_000;

/// A child process that ends with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            process::send_signal(self.0.id(), Signal::SIGTERM);
        }
        // Both programs end on SIGTERM; there is nothing to do about one that cannot be waited for.
        let _ = self.0.wait();
    }
}

/// `aex-sim` as a process of its own.
pub struct SimProcess {
    pub addr: SocketAddr,
    child: Running,
}

impl SimProcess {
    /// # Errors
    /// It does not start.
    pub fn start(threads: usize) -> io::Result<Self> {
        let mut child = Running(
            Command::new(program("aex-sim"))
                .args(["--listen", "127.0.0.1:0", "--threads", &threads.to_string()])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()?,
        );
        let out = child.0.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        let ready: Value = serde_json::from_str(&line).unwrap_or_default();
        let addr = ready["listen"]
            .as_str()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| io::Error::other("aex-sim did not say where it listens"))?;
        Ok(Self { addr, child })
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// # Errors
    /// It does not answer, or refuses the behaviour.
    pub fn behave(&self, behaviour: &Value) -> io::Result<()> {
        let mut connection = Connection::tcp(self.addr)?;
        let body = behaviour.to_string();
        connection.send(&request("POST", "/_sim/behaviour", &[], body.as_bytes()))?;
        let answer = connection.response().map_err(io::Error::other)?;
        if answer.status != 200 {
            return Err(io::Error::other(answer.text()));
        }
        Ok(())
    }
}

/// nginx as a plain reverse proxy with kept-alive connections to the simulator.
pub struct Nginx {
    pub addr: SocketAddr,
    child: Running,
    _dir: TempDir,
}

impl Nginx {
    /// Nothing where nginx is not installed.
    ///
    /// # Errors
    /// It is there and does not start.
    pub fn start(sim: SocketAddr) -> io::Result<Option<Self>> {
        if Command::new("nginx").arg("-v").output().is_err() {
            return Ok(None);
        }
        let dir = tempfile::Builder::new().prefix("aex-nginx-").tempdir()?;
        // Let go again at once: nginx takes it within the second.
        let addr = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let config = dir.path().join("nginx.conf");
        std::fs::write(&config, nginx_conf(dir.path(), addr, sim))?;
        let errors = std::fs::File::create(dir.path().join("stderr"))?;
        let child = Running(
            Command::new("nginx")
                .arg("-p")
                .arg(dir.path())
                .arg("-c")
                .arg(&config)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(errors)
                .spawn()?,
        );
        wait_until(START_LIMIT, || TcpStream::connect(addr).ok()).ok_or_else(|| {
            let said = std::fs::read_to_string(dir.path().join("stderr")).unwrap_or_default();
            io::Error::other(format!("nginx does not start: {said}"))
        })?;
        Ok(Some(Self {
            addr,
            child,
            _dir: dir,
        }))
    }

    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let master = self.child.0.id();
        let mut pids = process::children(master);
        pids.push(master);
        pids
    }
}

fn nginx_conf(dir: &Path, listen: SocketAddr, upstream: SocketAddr) -> String {
    let mut conf = String::from("daemon off;\nworker_processes 2;\n");
    let dir = dir.display();
    // Writing to a String cannot fail.
    let _ = write!(
        conf,
        "pid {dir}/nginx.pid;\nerror_log {dir}/error.log;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n  access_log off;\n"
    );
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        let _ = writeln!(conf, "  {kind}_temp_path {dir}/{kind};");
    }
    let _ = write!(
        conf,
        "  keepalive_requests 1000000000;\n\
         \x20 upstream sim {{ server {upstream}; keepalive 128; keepalive_requests 1000000000; }}\n\
         \x20 server {{\n    listen {listen};\n    location / {{\n      proxy_pass http://sim;\n\
         \x20     proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n\
         \x20     proxy_buffering off;\n    }}\n  }}\n}}\n"
    );
    conf
}

/// AEX: the real daemon, with an agent whose budget and rate are on and never reached.
pub struct Aex {
    pub kernel: Kernel,
    pub token: String,
    /// Of a run below an agent in a group, four scopes deep, each with every kind of limit.
    pub tree_token: String,
}

/// Of each scope of the tree. None is ever reached.
const TREE_LIMITS: [&str; 10] = [
    "--budget-per-day",
    "100000",
    "--max-tokens",
    "900000000000",
    "--max-tokens-per-minute",
    "900000000000",
    "--max-concurrency",
    "100000",
    "--limit",
    "requests/minute@provider:sim=900000000",
];

impl Aex {
    #[must_use]
    pub fn start(sim: SocketAddr, workers: u32) -> Self {
        let kernel = Kernel::builder()
            .default_models_at(sim)
            .workers(workers)
            .start();
        let token = kernel.create_agent("bench", BUDGET_USD, RPM, &[]);
        let tree_token = Self::grow(&kernel);
        Self {
            kernel,
            token,
            tree_token,
        }
    }

    fn grow(kernel: &Kernel) -> String {
        let rpm = RPM.to_string();
        let group = [
            "group", "create", "team", "--rpm", &rpm, "--budget", BUDGET_USD,
        ];
        kernel.aex_json(&[&group[..], &TREE_LIMITS].concat());
        let options = [&["--group", "team"], &TREE_LIMITS[..]].concat();
        let _ = kernel.create_agent("deep", BUDGET_USD, RPM, &options);
        let run = r#"{"parent": "deep", "run": {"budget_micro": 1000000000, "rpm": 100000000,
            "settings": {"max_tokens_per_minute": 900000000000, "max_concurrency": 100000, "limits":
            ["money/day=1000.00", "tokens=900000000000", "requests/minute@provider:sim=900000000"]}}}"#;
        let made = kernel.aex_json(&["rpc", "run.create", run]);
        made["token"].as_str().expect("a run's token").to_owned()
    }

    /// The supervisor and all that it runs.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let mut pids: Vec<u32> = self
            .kernel
            .daemon_state()
            .map(|state| state.pid)
            .into_iter()
            .collect();
        if let Some(&daemon) = pids.first() {
            pids.extend(process::children(daemon));
        }
        pids
    }
}

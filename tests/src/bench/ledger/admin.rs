//! `aex-admin serve` alone in a home of its own: no supervisor, no worker, no egress.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aex_admin_proto::client::Client;
use aex_admin_proto::operator::{Status, method};
use aex_admin_proto::places::Places;
use nix::sys::signal::Signal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::sleep;

use super::lost;
use crate::bench::load::now_us;
use crate::harness::{process, program};

/// One provider that nobody connects to, and one model whose charge is never hidden.
const MODELS: &str = "providers:
  sim:
    base_url: http://127.0.0.1:1/v1
models:
  gpt-oss-20b:
    provider: sim
    price: { input_per_mtok: 0.075, cached_input_per_mtok: 0.0375, output_per_mtok: 0.30 }
    max_output_tokens: 65536
    context_window: 131072
";

const START_LIMIT_US: u64 = 120_000_000;
/// Between two looks for the socket: the resolution of a start's time.
const LOOK: Duration = Duration::from_millis(1);
/// More than any answer should take.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(60);

/// Where an `aex-admin` lives.
pub struct Home {
    pub places: Places,
    /// Gone with this value; none for one that is kept.
    _dir: Option<TempDir>,
}

impl Home {
    /// A home below `parent`, on whose disk the ledger then is.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn below(parent: &Path) -> io::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("aex-bench-")
            .tempdir_in(parent)?;
        let home = Self::at(dir.path())?;
        Ok(Self {
            _dir: Some(dir),
            ..home
        })
    }

    /// A home that stays.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn at(path: &Path) -> io::Result<Self> {
        let places = Places::user(path);
        let config = places.config_file.parent().unwrap_or(path);
        fs::create_dir_all(config)?;
        fs::write(&places.config_file, MODELS)?;
        Ok(Self { places, _dir: None })
    }

    fn log(&self) -> PathBuf {
        self.places.home.join("aex-admin.log")
    }
}

/// The running process, and an operator's connection to it.
pub struct Admin {
    child: Child,
    operator: Client,
    /// From its spawn to its first answered `kernel.status`.
    pub start_us: u64,
}

impl Admin {
    /// Starts it. Needs a tokio runtime.
    ///
    /// # Errors
    /// It does not start; what it said is in the error.
    pub async fn start(home: &Home) -> io::Result<Self> {
        let log = File::create(home.log())?;
        let before_us = now_us();
        let mut child = Command::new(program("aex-admin"))
            .arg("serve")
            .env("AEX_HOME", &home.places.home)
            .env("AEX_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let operator = match connect(&mut child, &home.places.operator_socket(), before_us).await {
            Ok(operator) => operator,
            Err(error) => {
                // Not started, and nobody else would end it.
                let _ = child.kill();
                let _ = child.wait();
                let said = fs::read_to_string(home.log()).unwrap_or_default();
                return Err(io::Error::other(format!("aex-admin: {error}: {said}")));
            }
        };
        let mut admin = Self {
            child,
            operator,
            start_us: 0,
        };
        let _: Status = admin.ask(method::STATUS, &json!({})).await?;
        admin.start_us = now_us() - before_us;
        Ok(admin)
    }

    /// One call as an operator.
    ///
    /// # Errors
    /// It is refused, or not answered.
    pub async fn ask<P: Serialize, R: DeserializeOwned>(
        &self,
        method: &str,
        params: &P,
    ) -> io::Result<R> {
        self.operator
            .call(method, params, CALL_LIMIT)
            .await
            .map_err(lost)
    }

    /// CPU time of all its threads so far.
    #[must_use]
    pub fn cpu_ms(&self) -> u64 {
        process::cpu_ms(self.child.id()).unwrap_or(0)
    }

    #[must_use]
    pub fn rss_kb(&self) -> u64 {
        process::status_kb(self.child.id(), "VmRSS:").unwrap_or(0)
    }

    /// Ends it as a power cut would end the process: nothing is tidied up.
    pub fn kill(mut self) {
        // It is waited for when this is dropped.
        let _ = self.child.kill();
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            process::send_signal(self.child.id(), Signal::SIGTERM);
        }
        // There is nothing to do about one that cannot be waited for.
        let _ = self.child.wait();
    }
}

async fn connect(child: &mut Child, socket: &Path, since_us: u64) -> io::Result<Client> {
    loop {
        match Client::connect(socket).await {
            Ok(client) => return Ok(client),
            Err(error) if now_us() - since_us > START_LIMIT_US => return Err(error),
            Err(_) => {}
        }
        if let Some(status) = child.try_wait()? {
            return Err(io::Error::other(format!("ended with {status}")));
        }
        sleep(LOOK).await;
    }
}

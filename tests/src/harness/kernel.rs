//! One running kernel: its home, its commands, its HTTP address, its end.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use aex_admin_proto::operator::{DaemonState, Status};
use aex_admin_proto::places::Places;
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::interpose::{Interposed, Steering};
use super::{process, program, wait_until};
use crate::sim::Sim;

/// Kernels at once in one test process.
const MAX_KERNELS: usize = 2;
/// How long the programs may take to go away.
const STOP_LIMIT: Duration = Duration::from_secs(45);
/// How long [`Kernel::look`] waits for its answer.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

static RUNNING: Mutex<usize> = Mutex::new(0);
static ONE_ENDED: Condvar = Condvar::new();

/// The right to run a kernel now.
struct Turn;

impl Turn {
    fn wait() -> Self {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        while *running >= MAX_KERNELS {
            running = ONE_ENDED
                .wait(running)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *running += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ONE_ENDED.notify_one();
    }
}

/// What a kernel is started with.
pub struct KernelBuilder {
    models_yaml: String,
    workers: u32,
    listen: String,
    options: Vec<String>,
    env: Vec<(String, String)>,
    interposed: bool,
    takes_turn: bool,
}

impl KernelBuilder {
    /// The whole of `config/models.yaml`.
    #[must_use]
    pub fn models_yaml(mut self, text: impl Into<String>) -> Self {
        self.models_yaml = text.into();
        self
    }

    /// The simulator as provider `sim`, with three models; its fake operator key in the environment.
    #[must_use]
    pub fn default_models(self, sim: &Sim) -> Self {
        self.default_models_at(sim.addr)
    }

    /// As [`KernelBuilder::default_models`], for a simulator in another process.
    #[must_use]
    pub fn default_models_at(self, sim: SocketAddr) -> Self {
        self.models_yaml(Kernel::sim_models(sim, ""))
            .env("SIM_API_KEY", Kernel::SIM_KEY)
    }

    /// As [`KernelBuilder::default_models`], with more lines at the file's end.
    #[must_use]
    pub fn default_models_and(self, sim: &Sim, more: &str) -> Self {
        self.models_yaml(Kernel::sim_models(sim.addr, more))
            .env("SIM_API_KEY", Kernel::SIM_KEY)
    }

    #[must_use]
    pub fn workers(mut self, workers: u32) -> Self {
        self.workers = workers;
        self
    }

    #[must_use]
    pub fn listen(mut self, listen: impl Into<String>) -> Self {
        self.listen = listen.into();
        self
    }

    /// More options of `aex daemon start`.
    #[must_use]
    pub fn options(mut self, options: &[&str]) -> Self {
        self.options
            .extend(options.iter().map(|&option| option.to_owned()));
        self
    }

    /// A variable of `aex daemon start`.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Its programs can be steered by [`Kernel::steer`].
    #[must_use]
    pub fn interposed(mut self) -> Self {
        self.interposed = true;
        self
    }

    /// Runs beside as many others as there are: for a kernel that mostly waits. The test bounds them.
    #[must_use]
    pub fn out_of_turn(mut self) -> Self {
        self.takes_turn = false;
        self
    }

    /// Starts it; returns when it says that it is ready.
    ///
    /// # Panics
    /// It does not start. Its logs are printed.
    #[must_use]
    pub fn start(self) -> Kernel {
        let mut kernel = self.prepare();
        let output = kernel.daemon_start();
        if !output.status.success() {
            kernel.show_logs();
            panic!("aex daemon start failed: {}", said(&output));
        }
        kernel.note_running();
        kernel
    }

    /// The home alone, with its configuration; nothing runs.
    ///
    /// # Panics
    /// The temporary directory cannot be written.
    #[must_use]
    pub fn prepare(self) -> Kernel {
        let turn = self.takes_turn.then(Turn::wait);
        let dir = tempfile::Builder::new()
            .prefix("aex-test-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()
            .expect("a temporary directory");
        let places = Places::user(&dir.path().join("home"));
        let interposed = self
            .interposed
            .then(|| Interposed::install(&dir.path().join("programs")));
        let kernel = Kernel {
            _dir: dir,
            interposed,
            places,
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            workers: self.workers,
            listen: self.listen,
            options: self.options,
            env: self.env,
            seen_pids: Vec::new(),
            _turn: turn,
        };
        let output = kernel.aex(&["init"]);
        assert!(output.status.success(), "aex init: {}", said(&output));
        if !self.models_yaml.is_empty() {
            kernel.write_config(&self.models_yaml);
        }
        kernel
    }
}

fn said(output: &Output) -> String {
    format!(
        "{} {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A kernel in a home of its own. Dropped, it is stopped, and nothing of it may be left.
pub struct Kernel {
    _dir: TempDir,
    interposed: Option<Interposed>,
    pub places: Places,
    /// Where agents connect to.
    pub addr: SocketAddr,
    workers: u32,
    listen: String,
    options: Vec<String>,
    env: Vec<(String, String)>,
    /// All pids that were ever seen, so that each can be looked for at the end.
    seen_pids: Vec<u32>,
    _turn: Option<Turn>,
}

impl Kernel {
    /// The operator's key in the tests. Long and odd enough to be searched for in memory.
    pub const SIM_KEY: &str = "sk-sim-fake-operator-key-0123456789-canary";
    /// Picodollars a token of `gpt-oss-20b`.
    pub const INPUT_PICO: u64 = 75_000;
    pub const CACHED_PICO: u64 = 37_500;
    pub const OUTPUT_PICO: u64 = 300_000;

    #[must_use]
    pub fn builder() -> KernelBuilder {
        KernelBuilder {
            models_yaml: String::new(),
            workers: 2,
            listen: "127.0.0.1:0".into(),
            options: Vec::new(),
            env: Vec::new(),
            interposed: false,
            takes_turn: true,
        }
    }

    /// A kernel on `sim`, as most tests want it.
    #[must_use]
    pub fn on(sim: &Sim) -> Self {
        Self::builder().default_models(sim).start()
    }

    fn sim_models(sim: SocketAddr, more: &str) -> String {
        format!(
            "providers:
  sim:
    base_url: http://{}/v1
models:
  gpt-oss-20b:
    provider: sim
    price: {{ input_per_mtok: 0.075, cached_input_per_mtok: 0.0375, output_per_mtok: 0.30 }}
    max_output_tokens: 65536
    context_window: 131072
  sim-large:
    provider: sim
    upstream_model: vendor/sim-large
    price: {{ input_per_mtok: 30, output_per_mtok: 60 }}
    max_output_tokens: 4096
    context_window: 131072
  sim-free:
    provider: sim
    price: free
    max_output_tokens: 4096
    context_window: 131072
{more}
",
            sim
        )
    }

    #[must_use]
    pub fn home(&self) -> &Path {
        &self.places.home
    }

    /// The file of one of its programs.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        match &self.interposed {
            Some(interposed) => interposed.program(name),
            None => program(name),
        }
    }

    /// Steers a program of a kernel that is [`KernelBuilder::interposed`].
    ///
    /// # Panics
    /// It is not.
    #[must_use]
    pub fn steer(&self, program: &str) -> Steering {
        let interposed = self.interposed.as_ref().expect("an interposed kernel");
        interposed.steering(program)
    }

    /// # Panics
    /// The file cannot be written.
    pub fn write_config(&self, text: &str) {
        fs::write(&self.places.config_file, text).expect("models.yaml can be written");
    }

    /// `aex` with this home and nothing of the tester's own environment that matters.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.program("aex"));
        command
            .args(args)
            .stdin(Stdio::null())
            .current_dir(self._dir.path())
            .env("AEX_HOME", self.home())
            .env_remove("AEX_SOCKET");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().ends_with("_API_KEY") {
                command.env_remove(name);
            }
        }
        command
    }

    /// Runs `aex`.
    ///
    /// # Panics
    /// It cannot be run at all.
    #[must_use]
    pub fn aex(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("aex can be run")
    }

    /// Runs `aex … --json`, which must succeed, and gives its document.
    ///
    /// # Panics
    /// It fails, or prints something else.
    pub fn aex_json(&self, args: &[&str]) -> Value {
        let args = [args, &["--json"]].concat();
        let output = self.aex(&args);
        assert!(output.status.success(), "aex {args:?}: {}", said(&output));
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|problem| panic!("aex {args:?}: {problem}: {}", said(&output)))
    }

    /// `aex daemon start` with all that it was built with, however it ends.
    ///
    /// # Panics
    /// It cannot be run at all.
    #[must_use]
    pub fn daemon_start(&self) -> Output {
        let workers = self.workers.to_string();
        self.command(&[
            "daemon",
            "start",
            "--listen",
            &self.listen,
            "--workers",
            &workers,
        ])
        .args(&self.options)
        .envs(self.env.iter().map(|(name, value)| (name, value)))
        .output()
        .expect("aex can be run")
    }

    /// Starts it again after [`Kernel::stop`], with the same workers and environment.
    ///
    /// # Panics
    /// It does not start.
    pub fn start_again(&mut self) {
        let output = self.daemon_start();
        assert!(output.status.success(), "start: {}", said(&output));
        self.note_running();
    }

    /// # Panics
    /// It does not stop.
    pub fn stop(&mut self) {
        self.note_running();
        let output = self.aex(&["daemon", "stop"]);
        assert!(output.status.success(), "stop: {}", said(&output));
    }

    /// What the supervisor says of itself; nothing when it does not run.
    #[must_use]
    pub fn daemon_state(&self) -> Option<DaemonState> {
        let text = fs::read(self.places.daemon_state()).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn note_running(&mut self) {
        if let Some(state) = self.daemon_state() {
            // A kernel may listen on Unix sockets alone.
            self.addr = state.listen.parse().unwrap_or(self.addr);
            self.seen_pids.push(state.pid);
            self.seen_pids.extend(process::children(state.pid));
            self.seen_pids.sort_unstable();
            self.seen_pids.dedup();
        }
    }

    /// `kernel.status` by `aex rpc`.
    ///
    /// # Panics
    /// The kernel does not answer.
    #[must_use]
    pub fn status(&self) -> Status {
        let output = self.aex(&["rpc", "kernel.status"]);
        assert!(output.status.success(), "rpc: {}", said(&output));
        serde_json::from_slice(&output.stdout).expect("a status")
    }

    /// `kernel.status` over the operator's socket, without a process for it; nothing while nobody
    /// answers.
    #[must_use]
    pub fn look(&self) -> Option<Status> {
        #[derive(serde::Deserialize)]
        struct Answer {
            result: Status,
        }
        let mut socket = UnixStream::connect(self.places.operator_socket()).ok()?;
        socket.set_read_timeout(Some(LOOK_LIMIT)).ok()?;
        socket
            .write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"kernel.status\"}\n")
            .ok()?;
        let mut line = String::new();
        BufReader::new(socket).read_line(&mut line).ok()?;
        let answer: Answer = serde_json::from_str(&line).ok()?;
        Some(answer.result)
    }

    /// The pid of `aex-admin`, `aex-egress`, or a worker (`aex-proxy-0` is the first); just after a restart
    /// once it is known.
    ///
    /// # Panics
    /// It does not run.
    #[must_use]
    pub fn pid(&self, program: &str) -> u32 {
        wait_until(STOP_LIMIT, || self.find_pid(program))
            .unwrap_or_else(|| panic!("{program} does not run: {:?}", self.status()))
    }

    fn find_pid(&self, program: &str) -> Option<u32> {
        let status = self.status();
        match program {
            "aex-admin" => Some(status.pid),
            "aex-egress" => status.egress_pid,
            "daemon" => self.daemon_state().map(|state| state.pid),
            worker => worker
                .strip_prefix("aex-proxy-")
                .and_then(|index| index.parse::<usize>().ok())
                .and_then(|index| status.workers.get(index))
                .map(|worker| worker.pid),
        }
    }

    /// Pids of all workers that the kernel knows.
    #[must_use]
    pub fn worker_pids(&self) -> Vec<u32> {
        self.status().workers.iter().map(|w| w.pid).collect()
    }

    /// A new agent; its token.
    ///
    /// # Panics
    /// It is refused.
    #[must_use]
    pub fn create_agent(&self, name: &str, budget: &str, rpm: u64, options: &[&str]) -> String {
        let rpm = rpm.to_string();
        let args = [&["agent", "create", name, budget, &rpm], options].concat();
        let reply = self.aex_json(&args);
        reply["token"].as_str().expect("a token").to_owned()
    }

    /// `aex agent show NAME --json`.
    #[must_use]
    pub fn agent(&self, name: &str) -> Value {
        self.aex_json(&["agent", "show", name])
    }

    /// Runs the real sqlite3 shell on the ledger.
    ///
    /// # Panics
    /// The shell is not installed, or refuses the statement.
    pub fn sqlite(&self, sql: &str) -> String {
        let output = Command::new("sqlite3")
            .args(["-batch", "-cmd", ".timeout 5000"])
            .arg(&self.places.ledger)
            .arg(sql)
            .stdin(Stdio::null())
            .output()
            .expect("the sqlite3 shell is installed");
        assert!(output.status.success(), "sqlite3 {sql}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }

    /// One number from the ledger; 0 for NULL.
    #[must_use]
    pub fn sqlite_number(&self, sql: &str) -> i64 {
        let text = self.sqlite(sql);
        if text.is_empty() {
            return 0;
        }
        text.parse()
            .unwrap_or_else(|_| panic!("{sql} gave {text:?}"))
    }

    /// The ledger holds: the kernel's own audit passes, and so does the seed's sum, by the shell.
    ///
    /// # Panics
    /// It does not.
    pub fn audit(&self) {
        let report = self.aex_json(&["audit"]);
        assert_eq!(report["ok"], true, "{report}");
        let wrong = self.sqlite(
            "SELECT name, spent_micro FROM agents a WHERE spent_micro <> (SELECT \
             COALESCE(SUM(cost_micro), 0) FROM events WHERE action='usage.commit' AND agent=a.name)",
        );
        assert_eq!(wrong, "", "spent_micro is not the sum of the commits");
    }

    /// Waits until no hold is open.
    ///
    /// # Panics
    /// One stays open.
    pub fn settled(&self) {
        super::wait_for("all holds to end", || self.holds_nothing().then_some(()));
    }

    /// No hold is open, and the ledger says so too: the kernel's own figure changes a moment before
    /// the commit.
    #[must_use]
    pub fn holds_nothing(&self) -> bool {
        self.look().is_some_and(|status| status.open_holds == 0)
            && self.sqlite_number("SELECT COUNT(*) FROM holds") == 0
    }

    /// All log files together.
    #[must_use]
    pub fn logs(&self) -> String {
        let mut all = String::new();
        for path in self.log_files() {
            let text = fs::read(&path).unwrap_or_default();
            all.push_str(&format!("--- {}\n", path.display()));
            all.push_str(&String::from_utf8_lossy(&text));
        }
        all
    }

    fn log_files(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.places.logs) else {
            return Vec::new();
        };
        let mut files: Vec<_> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        files.sort();
        files
    }

    #[expect(
        clippy::print_stderr,
        reason = "a failed test shows what the programs said"
    )]
    fn show_logs(&self) {
        eprintln!("{}", self.logs());
    }

    /// Ends it, and returns the pids that outlived it.
    fn end(&mut self) -> Vec<u32> {
        if let Some(interposed) = &self.interposed {
            interposed.lift_all();
        }
        self.note_running();
        // In a test that failed already, a second panic would end all the others.
        let stopped = self.command(&["daemon", "stop"]).output();
        let left = || -> Vec<u32> {
            let alive = |pid: &&u32| process::is_alive(**pid) && is_ours(**pid);
            self.seen_pids.iter().filter(alive).copied().collect()
        };
        if stopped.is_ok_and(|stopped| stopped.status.success()) {
            let _ = wait_until(STOP_LIMIT, || left().is_empty().then_some(()));
        }
        let left = left();
        for &pid in &left {
            process::send_signal(pid, Signal::SIGKILL);
        }
        left
    }
}

/// The pid may have been given to another process meanwhile.
fn is_ours(pid: u32) -> bool {
    process::name(pid).is_some_and(|name| name.starts_with("aex"))
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let left = self.end();
        if std::thread::panicking() {
            self.show_logs();
        } else {
            assert!(left.is_empty(), "still running after the stop: {left:?}");
        }
    }
}

//! A directory with a copy of `aex` and fake programs beside it, and a home of their own. The fakes
//! note what they were given, and the fake worker answers HTTP on the listener that it inherits.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::{bare, stdout, wait_until};

const FAKE: &str = r#"
import json, os, select, signal, socket, sys
name = os.path.basename(sys.argv[0])
if sys.argv[1] == "config-check":
    assert sys.argv[2:4] == ["--json", "--file"]
    if "bad" in open(sys.argv[4]).read():
        sys.stderr.write(sys.argv[4] + ":3:5: unknown key\n")
        sys.exit(1)
    print('{"providers": 1, "models": 2, "warnings": ["made up"]}')
    sys.exit(0)
home = os.environ["AEX_HOME"]
me = name + ("-" + sys.argv[2] if name == "aex-proxy" else "")
def has(what): return os.path.exists(os.path.join(home, what))
def end(*_):
    with open(os.path.join(home, "ended"), "a") as f: f.write(me + "\n")
    os._exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if has("stubborn-" + me) else end)
keys = os.fdopen(3).read() if name == "aex-egress" else ""
seen = {"me": me, "pid": os.getpid(), "args": sys.argv[1:], "env": dict(os.environ), "keys": keys,
        "cwd": os.getcwd(), "fds": sorted(int(n) for n in os.listdir("/proc/self/fd"))}
with open(os.path.join(home, "seen"), "a") as f: f.write(json.dumps(seen) + "\n")
if has("die-" + me):
    print("cannot open the ledger: made up", flush=True)
    sys.exit(7)
if name == "aex-admin" and (has("never-ready") or has("speaks")):
    status = {"version": "0", "boundary": "advisory", "ready": False, "why": "GROQ_API_KEY is there",
              "pid": 1, "uptime_ms": 1, "egress_pid": 2, "operator_keys": ["groq"], "agents": 0,
              "workers": [{"worker": 1, "pid": 3, "in_flight": 0}], "open_holds": 0, "waiting": 0,
              "events": 0, "ledger": "x", "config_generation": 1}
    admin = socket.socket(socket.AF_UNIX)
    admin.bind(os.path.join(home, "run/admin.sock"))
    admin.listen()
    model = lambda provider, loopback: {
        "name": provider, "provider": provider, "upstream_model": "m", "price_source": "catalogue",
        "loopback": loopback}
    models = {"models": [model("groq", False), model("openai", False), model("ollama", True)]}
    while True:
        connection, _ = admin.accept()
        for line in connection.makefile():
            call = json.loads(line)
            result = models if call["method"] == "models.list" else status
            answer = {"jsonrpc": "2.0", "id": call["id"], "result": result}
            connection.sendall(json.dumps(answer).encode() + b"\n")
if name != "aex-proxy":
    while True: signal.pause()
ready = not has("die-aex-admin") and not has("never-ready")
listener = socket.socket(fileno=3)
def admin_listens():
    if not has("speaks"): return True
    try:
        with socket.socket(socket.AF_UNIX) as admin: admin.connect(os.path.join(home, "run/admin.sock"))
        return True
    except OSError: return False
while True:
    select.select([listener], [], [])
    try: connection, _ = listener.accept()
    except BlockingIOError: continue
    connection.setblocking(True)
    connection.recv(65536)
    status = b"200 OK" if ready and admin_listens() else b"503 Service Unavailable"
    connection.sendall(b"HTTP/1.1 " + status + b"\r\ncontent-length: 2\r\n\r\nok")
    connection.close()
"#;

pub(crate) struct Programs {
    directory: TempDir,
    pub(crate) home: PathBuf,
}

impl Programs {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let aex = directory.path().join("aex");
        fs::copy(env!("CARGO_BIN_EXE_aex"), aex).unwrap();
        for name in ["aex-admin", "aex-egress", "aex-proxy"] {
            let path = directory.path().join(name);
            fs::write(&path, format!("#!{} -IS\n{FAKE}", python().display())).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let home = directory.path().join("home");
        let programs = Self { directory, home };
        assert!(programs.aex(&["init"]).status.success());
        programs
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = bare(&self.directory.path().join("aex"));
        command
            .env("AEX_HOME", &self.home)
            .env("GROQ_API_KEY", "sk-fake-groq")
            .env("OTHER_SECRET", "fake-secret")
            .args(arguments);
        command
    }

    pub(crate) fn aex(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Starts it on a free port, waits until every program has noted itself, and gives the address.
    pub(crate) fn start(&self, workers: &str) -> String {
        let output = self.aex(&[
            "daemon",
            "start",
            "--json",
            "--listen",
            "127.0.0.1:0",
            "--workers",
            workers,
        ]);
        crate::expect_exit(&output, 0);
        let answer: Value = serde_json::from_str(&stdout(&output)).unwrap();
        let programs = 2 + workers.parse::<usize>().unwrap();
        wait_until("all programs", || self.seen().len() == programs);
        answer["listen"].as_str().unwrap().to_owned()
    }

    pub(crate) fn touch(&self, name: &str) {
        fs::write(self.home.join(name), "").unwrap();
    }

    /// What each program that was started had been given, in order.
    pub(crate) fn seen(&self) -> Vec<Value> {
        fs::read_to_string(self.home.join("seen"))
            .unwrap_or_default()
            .split_inclusive('\n')
            // The last line may be half written.
            .filter_map(|line| serde_json::from_str(line.strip_suffix('\n')?).ok())
            .collect()
    }

    pub(crate) fn pid(&self, program: &str) -> i32 {
        let file = self.home.join(format!("run/{program}.pid"));
        let mut pid = None;
        wait_until("a pid file", || {
            pid = fs::read_to_string(&file)
                .ok()
                .and_then(|text| text.trim().parse().ok());
            pid.is_some()
        });
        pid.unwrap()
    }

    /// Every program that ever was started here has ended.
    pub(crate) fn nothing_runs(&self) -> bool {
        self.seen()
            .iter()
            .all(|seen| !alive(&seen["pid"].to_string()))
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        // After a failed test too: the programs must not outlive it.
        let _ = self.command(&["daemon", "stop"]).output();
    }
}

pub(crate) fn alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").unwrap().1.starts_with('Z'))
}

/// Python itself, without a launcher in front: the kernel must name the process after the script.
fn python() -> PathBuf {
    let found = Command::new("python3")
        .args(["-c", "import sys; print(sys.executable)"])
        .output()
        .expect("these tests need python3");
    PathBuf::from(stdout(&found).trim())
        .canonicalize()
        .expect("python3 says where it lies")
}

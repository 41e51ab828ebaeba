//! A socket that answers JSON-RPC calls from a table, and remembers what it was asked.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::bare;

type Answers = Arc<dyn Fn(&str, &Value) -> Result<Value, (i32, &'static str)> + Send + Sync>;

pub(crate) struct FakeAdmin {
    home: TempDir,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl FakeAdmin {
    pub(crate) fn start(
        answers: impl Fn(&str, &Value) -> Result<Value, (i32, &'static str)> + Send + Sync + 'static,
    ) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("run")).unwrap();
        let listener = UnixListener::bind(home.path().join("run/admin.sock")).unwrap();
        let asked: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let (answers, log): (Answers, _) = (Arc::new(answers), Arc::clone(&asked));
        // Ends with the test's process; each connection is the life of one command.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (answers, log) = (Arc::clone(&answers), Arc::clone(&log));
                std::thread::spawn(move || serve(&stream.unwrap(), &answers, &log));
            }
        });
        Self { home, asked }
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// As if a supervisor listened there.
    pub(crate) fn listens_on(self, address: &str) -> Self {
        self.daemon(&json!({"pid": 1, "listen": address, "workers": 1}))
    }

    /// As if a supervisor said this of itself.
    pub(crate) fn daemon(self, state: &Value) -> Self {
        std::fs::write(self.home().join("run/daemon.json"), state.to_string()).unwrap();
        self
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = bare(Path::new(env!("CARGO_BIN_EXE_aex")));
        command.env("AEX_HOME", self.home()).args(arguments);
        command
    }

    pub(crate) fn aex(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Methods and parameters, in order.
    pub(crate) fn asked(&self) -> Vec<(String, Value)> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(stream: &UnixStream, answers: &Answers, log: &Mutex<Vec<(String, Value)>>) {
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        let call: Value = serde_json::from_str(&line).unwrap();
        let method = call["method"].as_str().unwrap();
        log.lock()
            .unwrap()
            .push((method.to_owned(), call["params"].clone()));
        let answer = match answers(method, &call["params"]) {
            Ok(result) => json!({"jsonrpc": "2.0", "id": call["id"], "result": result}),
            Err((code, message)) => json!({
                "jsonrpc": "2.0", "id": call["id"], "error": {"code": code, "message": message}
            }),
        };
        let mut stream = stream;
        if stream.write_all(format!("{answer}\n").as_bytes()).is_err() {
            return;
        }
    }
}

pub(crate) fn token_reply() -> Value {
    json!({
        "name": "a", "token": "aex_fake-token", "token_id": 7, "expires_at_ms": null,
        "budget_micro": 2_010_000, "rpm": 30, "settings": {}
    })
}

pub(crate) fn agent() -> Value {
    json!({
        "name": "a", "state": "active", "budget_micro": 2_010_000, "spent_micro": 12_345,
        "reserved_micro": 1, "remaining_micro": 1_997_654, "rpm": 30, "settings": {},
        "created_at_ms": 0, "in_flight": 1, "requests_last_minute": 2, "tokens_last_minute": 300
    })
}

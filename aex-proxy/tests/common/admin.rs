//! A fake `aex-admin`: answers the workers' methods, records each call, breaks when told to.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use aex_admin_proto::rpc::{Answer, Incoming, RpcError};
use aex_admin_proto::worker::{Grant, ReserveReply, SettleReply};
use aex_admin_proto::{frame, worker};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::soon;

type Calls = Vec<(String, Value)>;

struct State {
    reserve: ReserveReply,
    settle: SettleReply,
    ready: Value,
    models: Value,
    /// Reserves stay unanswered until they are cancelled or released.
    hold_reserves: bool,
    max_body_bytes: u64,
    held: Vec<(u64, mpsc::UnboundedSender<Vec<u8>>)>,
}

pub struct FakeAdmin {
    path: PathBuf,
    state: Arc<Mutex<State>>,
    calls: Arc<watch::Sender<Calls>>,
    task: JoinHandle<()>,
}

impl Drop for FakeAdmin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn answer(id: u64, result: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode(&Answer::result(id, result), &mut out).unwrap();
    out
}

impl FakeAdmin {
    pub fn start(path: PathBuf) -> Self {
        let state = Arc::new(Mutex::new(State {
            reserve: ReserveReply::Granted(Box::new(super::grant())),
            settle: SettleReply {
                basis: worker::Basis::Exact,
                cost_micro: 12,
                cost_pico: 12_000_000,
                remaining_micro: Some(888),
                severed: false,
            },
            ready: json!({"ready": true, "why": null}),
            models: json!({"models": [
                {"id": "small", "owned_by": "fake", "created": 7},
                {"id": "vendor/large", "owned_by": "fake", "created": 8},
            ]}),
            hold_reserves: false,
            max_body_bytes: 100_000,
            held: Vec::new(),
        }));
        let calls = Arc::new(watch::Sender::new(Vec::new()));
        let task = Self::listen(&path, &state, &calls);
        Self {
            path,
            state,
            calls,
            task,
        }
    }

    fn listen(
        path: &PathBuf,
        state: &Arc<Mutex<State>>,
        calls: &Arc<watch::Sender<Calls>>,
    ) -> JoinHandle<()> {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).unwrap();
        let (state, calls) = (Arc::clone(state), Arc::clone(calls));
        tokio::spawn(async move {
            // Its connections end with it.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(connection(stream, Arc::clone(&state), Arc::clone(&calls)));
            }
        })
    }

    /// Goes away, with its socket.
    pub fn go_away(&self) {
        self.task.abort();
        std::fs::remove_file(&self.path).unwrap();
    }

    pub fn come_back(&mut self) {
        self.task = Self::listen(&self.path, &self.state, &self.calls);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    pub fn reserve_answers(&self, reply: ReserveReply) {
        self.change(|state| state.reserve = reply);
    }

    pub fn grants(&self, change: impl FnOnce(&mut Grant)) {
        let mut grant = super::grant();
        change(&mut grant);
        self.reserve_answers(ReserveReply::Granted(Box::new(grant)));
    }

    pub fn severs(&self) {
        self.change(|state| state.settle.severed = true);
    }

    pub fn is_not_ready(&self, why: &str) {
        let ready = json!({"ready": false, "why": why});
        self.change(|state| state.ready = ready);
    }

    pub fn refuses_models(&self, refusal: &Value) {
        let refused = json!({"refused": refusal});
        self.change(|state| state.models = refused);
    }

    pub fn holds_reserves(&self) {
        self.change(|state| state.hold_reserves = true);
    }

    /// Answers the reserves that wait.
    pub fn release_reserves(&self) {
        self.change(|state| {
            let reply = serde_json::to_value(&state.reserve).unwrap();
            for (id, out) in state.held.drain(..) {
                out.send(answer(id, &reply)).unwrap();
            }
        });
    }

    pub fn calls(&self, method: &str) -> Vec<Value> {
        let calls = self.calls.borrow();
        let of_method = calls.iter().filter(|(name, _)| name == method);
        of_method.map(|(_, params)| params.clone()).collect()
    }

    /// Waits for the first call of a method and gives its parameters.
    pub async fn called(&self, method: &str) -> Value {
        self.called_times(method, 1).await.swap_remove(0)
    }

    pub async fn called_times(&self, method: &str, times: usize) -> Vec<Value> {
        let mut calls = self.calls.subscribe();
        let enough =
            |calls: &Calls| calls.iter().filter(|(name, _)| name == method).count() >= times;
        soon(method, calls.wait_for(enough)).await.unwrap();
        drop(calls);
        self.calls(method)
    }
}

async fn connection(
    stream: UnixStream,
    state: Arc<Mutex<State>>,
    calls: Arc<watch::Sender<Calls>>,
) {
    let (reader, mut writer) = stream.into_split();
    let (out, mut to_write) = mpsc::unbounded_channel::<Vec<u8>>();
    let writing = async move {
        while let Some(bytes) = to_write.recv().await {
            writer.write_all(&bytes).await.unwrap();
        }
    };
    let reading = async move {
        let mut lines = BufReader::new(reader).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let call: Incoming<'_> = serde_json::from_str(&line).unwrap();
            let params: Value = serde_json::from_str(call.params.unwrap().get()).unwrap();
            let reply = reply(&call, &params, &state, &out);
            calls.send_modify(|calls| calls.push((call.method.to_string(), params)));
            if let Some(reply) = reply {
                out.send(reply).unwrap();
            }
        }
    };
    tokio::join!(reading, writing);
}

fn reply(
    call: &Incoming<'_>,
    params: &Value,
    state: &Mutex<State>,
    out: &mpsc::UnboundedSender<Vec<u8>>,
) -> Option<Vec<u8>> {
    let mut state = state.lock().unwrap();
    let Some(id) = call.id else {
        // The one notification: a cancelled wait ends.
        let cancelled = json!({"refused": {"refusal": "cancelled"}});
        for (id, out) in state.held.drain(..) {
            out.send(answer(id, &cancelled)).unwrap();
        }
        return None;
    };
    let result = match &*call.method {
        worker::SETTINGS if params["known"].is_null() => json!({
            "generation": 1,
            "max_body_bytes": state.max_body_bytes,
            "drain_timeout_ms": 10_000,
            "reserve_limit_ms": 10_000,
        }),
        // A long poll in which nothing happens.
        worker::SETTINGS => return None,
        worker::RESERVE if state.hold_reserves => {
            state.held.push((id, out.clone()));
            return None;
        }
        worker::RESERVE => serde_json::to_value(&state.reserve).unwrap(),
        worker::SETTLE => serde_json::to_value(&state.settle).unwrap(),
        worker::RECLAIM => json!({"ended": []}),
        worker::READY => state.ready.clone(),
        worker::MODELS => state.models.clone(),
        other => {
            let error = RpcError::new(-32601, format!("no method {other}"));
            let mut bytes = Vec::new();
            frame::encode(&Answer::error(Some(id), &error), &mut bytes).unwrap();
            return Some(bytes);
        }
    };
    Some(answer(id, &result))
}

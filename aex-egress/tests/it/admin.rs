//! A fake `aex-admin`: seals tickets, answers `egress.orders` and keeps the receipts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aex_admin_proto::HoldId;
use aex_admin_proto::clock::boot_ms;
use aex_admin_proto::egress::{
    EgressConfig, Ending, Exchange, KeyPolicy, ORDERS, Orders, OrdersParams, ProviderConfig,
    RECEIPTS, Receipt, ReceiptsParams, SharedTicketKey,
};
use aex_admin_proto::rpc::{Answer, Incoming};
use aex_admin_proto::ticket::{Claims, KeyMode, TicketKey};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::PATIENCE;

const SECRET: [u8; 32] = [7; 32];

#[derive(Clone, Default)]
pub(crate) struct State {
    pub(crate) config: Option<EgressConfig>,
    void: Vec<HoldId>,
    cut: Vec<HoldId>,
    pub(crate) receipts: Vec<Receipt>,
    /// What the egress said last of itself.
    pub(crate) said: Option<OrdersParams>,
    /// Receipts are taken, but not acknowledged.
    pub(crate) is_deaf: bool,
}

pub(crate) struct Admin {
    pub(crate) path: PathBuf,
    pub(crate) state: Arc<watch::Sender<State>>,
    serving: JoinHandle<()>,
}

pub(crate) fn provider_config(name: &str, base_url: &str) -> ProviderConfig {
    ProviderConfig {
        name: name.into(),
        base_url: base_url.into(),
        keys: KeyPolicy::Either,
        ca_file: None,
        connect_timeout_ms: 2_000,
        request_timeout_ms: 60_000,
    }
}

impl Admin {
    pub(crate) fn start(dir: &Path, providers: Vec<ProviderConfig>) -> Self {
        let state = Arc::new(watch::Sender::new(State::default()));
        let path = dir.join("egress-admin.sock");
        let serving = tokio::spawn(serve(path.clone(), Arc::clone(&state)));
        let admin = Self {
            path,
            state,
            serving,
        };
        admin.configure(1, providers);
        admin
    }

    /// Goes away, with every connection.
    pub(crate) async fn stop(&mut self) {
        self.serving.abort();
        let _ = (&mut self.serving).await;
        let _ = std::fs::remove_file(&self.path);
    }

    pub(crate) fn start_again(&mut self) {
        self.serving = tokio::spawn(serve(self.path.clone(), Arc::clone(&self.state)));
    }

    pub(crate) fn configure(&self, generation: u64, providers: Vec<ProviderConfig>) {
        let config = EgressConfig {
            generation,
            ticket_key: SharedTicketKey {
                id: 1,
                secret: hex::encode(SECRET),
            },
            providers,
        };
        self.state.send_modify(|state| state.config = Some(config));
    }

    pub(crate) fn void(&self, id: HoldId) {
        self.state.send_modify(|state| state.void.push(id));
    }

    pub(crate) fn cut(&self, id: HoldId) {
        self.state.send_modify(|state| state.cut.push(id));
    }

    /// Waits until something is so.
    pub(crate) async fn until<T>(&self, what: &str, mut so: impl FnMut(&State) -> Option<T>) -> T {
        let mut state = self.state.subscribe();
        let found = async {
            loop {
                if let Some(found) = so(&state.borrow_and_update()) {
                    return found;
                }
                state.changed().await.unwrap();
            }
        };
        match timeout(PATIENCE, found).await {
            Ok(found) => found,
            Err(_) => panic!("{what} never came"),
        }
    }

    pub(crate) async fn acting_on(&self, generation: u64) {
        self.until("the configuration", |state| {
            (state.said.as_ref()?.acting_on == Some(generation)).then_some(())
        })
        .await;
    }

    /// The `nth` receipt of a hold, other than that its stream opened.
    pub(crate) async fn nth_ending(&self, id: HoldId, nth: usize) -> Ending {
        self.until("the receipt", |state| {
            state
                .receipts
                .iter()
                .filter(|receipt| receipt.id == id)
                .map(|receipt| receipt.ending.clone())
                .filter(|ending| !matches!(ending, Ending::Opened { .. }))
                .nth(nth)
        })
        .await
    }

    pub(crate) async fn ending(&self, id: HoldId) -> Ending {
        self.nth_ending(id, 0).await
    }

    pub(crate) async fn ended(&self, id: HoldId) -> Exchange {
        match self.ending(id).await {
            Ending::Ended(exchange) => exchange,
            other => panic!("not an ended exchange: {other:?}"),
        }
    }

    pub(crate) fn receipts_of(&self, id: HoldId) -> usize {
        let state = self.state.borrow();
        state.receipts.iter().filter(|r| r.id == id).count()
    }
}

/// A ticket with the usual terms, and the hold that it is of.
pub(crate) fn ticket(provider: &str, path: &str) -> (HoldId, String) {
    ticket_with(provider, path, |_| {})
}

pub(crate) fn ticket_with(
    provider: &str,
    path: &str,
    change: impl FnOnce(&mut Claims),
) -> (HoldId, String) {
    let mut claims = Claims {
        id: HoldId::random().unwrap(),
        provider: provider.into(),
        method: "POST".into(),
        path: path.into(),
        key: KeyMode::Operator,
        max_body_bytes: 1024 * 1024,
        max_response_bytes: 1024 * 1024,
        deadline_boot_ms: boot_ms() + 60_000,
        expires_boot_ms: boot_ms() + 30_000,
    };
    change(&mut claims);
    (claims.id, TicketKey::new(1, SECRET).seal(&claims))
}

async fn serve(path: PathBuf, state: Arc<watch::Sender<State>>) {
    let listener = UnixListener::bind(path).unwrap();
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(connection(stream, Arc::clone(&state)));
    }
}

async fn connection(stream: UnixStream, state: Arc<watch::Sender<State>>) {
    let (reader, mut writer) = stream.into_split();
    let (answers, mut to_write) = mpsc::channel::<Vec<u8>>(16);
    let mut calls = tokio::task::JoinSet::new();
    let mut lines = BufReader::new(reader).lines();
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let Ok(Some(line)) = line else { return };
                let (state, answers) = (Arc::clone(&state), answers.clone());
                calls.spawn(async move { answer(&line, &state, &answers).await });
            }
            Some(answer) = to_write.recv() => {
                if writer.write_all(&answer).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn answer(line: &str, state: &watch::Sender<State>, answers: &mpsc::Sender<Vec<u8>>) {
    let call: Incoming<'_> = serde_json::from_str(line).unwrap();
    let params = call.params.unwrap().get();
    let id = call.id.unwrap();
    let text = match call.method.as_ref() {
        ORDERS => {
            let params = serde_json::from_str(params).unwrap();
            serde_json::to_string(&Answer::result(id, &orders(params, state).await))
        }
        RECEIPTS => {
            let params: ReceiptsParams = serde_json::from_str(params).unwrap();
            state.send_modify(|state| state.receipts.extend(params.receipts));
            if state.borrow().is_deaf {
                return;
            }
            serde_json::to_string(&Answer::result(id, &serde_json::json!({})))
        }
        other => panic!("no such method: {other}"),
    };
    let _ = answers.send((text.unwrap() + "\n").into_bytes()).await;
}

async fn orders(params: OrdersParams, state: &watch::Sender<State>) -> Orders {
    state.send_modify(|state| state.said = Some(params.clone()));
    let mut changes = state.subscribe();
    let wait = async {
        loop {
            let mut orders = Orders::default();
            state.send_if_modified(|state| {
                orders.void = std::mem::take(&mut state.void);
                orders.cut = std::mem::take(&mut state.cut);
                false
            });
            let config = state.borrow().config.clone();
            orders.config = config.filter(|config| {
                // A refused configuration is not offered again by itself.
                Some(config.generation) != params.acting_on && params.problem.is_none()
                    || params.problem.is_some() && config.generation > 1
            });
            if orders.config.is_some() || !orders.void.is_empty() || !orders.cut.is_empty() {
                return orders;
            }
            changes.changed().await.unwrap();
        }
    };
    timeout(Duration::from_secs(20), wait)
        .await
        .unwrap_or_default()
}

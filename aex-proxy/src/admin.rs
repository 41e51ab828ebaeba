//! The worker's side of `aex-admin`: reserve, settle, settings, and what is in hand.
//!
//! Owns the patience with an admin that is away or restarts. Decides nothing about requests.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aex_admin_proto::client::{CallError, Client};
use aex_admin_proto::listen::Listening;
use aex_admin_proto::peer::Peer;
use aex_admin_proto::rpc::code;
use aex_admin_proto::worker::{
    CANCEL, CancelParams, Grant, ME, MODELS, MeReply, ModelsParams, ModelsReply, Observed, POLL_MS,
    QUOTE, QuoteReply, READY, RECLAIM, RESERVE, RUN, RUN_END, ReadyReply, ReclaimParams,
    ReclaimReply, ReserveParams, ReserveReply, RunEndParams, RunParams, RunReply, SETTINGS, SETTLE,
    SettingsParams, SettleReply, TOKEN_REVOKE, TOKEN_ROTATE, TOKENS, TokenRevokeParams,
    TokenRotateParams, TokensReply, WHOSE, WhoseReply, WorkerSettings,
};
use aex_admin_proto::{HoldId, TokenDigest, clock};
use memchr::memchr2;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tokio::time::{Instant, sleep, timeout_at};

/// How long a request waits for an admin that is away, as while it restarts.
const AWAY: Duration = Duration::from_secs(5);
/// A reserve may wait for held money; how long is the admin's to say, within this.
const DEFAULT_RESERVE_MS: u64 = 10_000;
/// How long an answer is kept back for its settle.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);
const SHORT_CALL: Duration = Duration::from_secs(5);
const READY_LIMIT: Duration = Duration::from_secs(1);
const POLL_LIMIT: Duration = Duration::from_millis(POLL_MS + 10_000);
/// A settle is repeated until this long after its exchange's deadline; by then the egress's receipt
/// has told the admin.
const SETTLE_GRACE_MS: u64 = 60_000;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// Tickets in one call: it must fit into a frame.
const TICKETS_PER_CALL: usize = 512;
/// In force until the admin says otherwise.
const DEFAULT_MAX_BODY_BYTES: u64 = 10 * 1024 * 1024;
const DEFAULT_DRAIN_MS: u64 = 30_000;

/// The admin gave no answer to go by.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    #[error("the kernel cannot be reached; try again shortly")]
    Away,
    /// The admin's own public text.
    #[error("{0}")]
    Said(String),
}

struct Inner {
    client: Client,
    worker: u32,
    listeners: Vec<Listening>,
    max_body_bytes: AtomicU64,
    drain_timeout_ms: AtomicU64,
    reserve_limit_ms: AtomicU64,
    /// Tickets of the exchanges in hand.
    in_hand: Mutex<HashMap<HoldId, Arc<RawValue>>>,
}

/// A handle; clones are the same.
#[derive(Clone)]
pub struct Admin {
    inner: Arc<Inner>,
}

/// A hold that this worker carries. Its ticket is re-claimed after a reconnect until this is dropped.
pub struct Held {
    admin: Admin,
    id: HoldId,
    ticket: Arc<RawValue>,
    deadline_boot_ms: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.admin.in_hand().remove(&self.id);
    }
}

impl Held {
    fn settle_params<'a>(&'a self, observed: &'a Observed) -> Settle<'a> {
        Settle {
            id: self.id,
            ticket: &self.ticket,
            observed,
        }
    }
}

/// [`SettleParams`], with the ticket as it is written: it is long, and known to need no escapes.
///
/// [`SettleParams`]: aex_admin_proto::worker::SettleParams
#[derive(Serialize)]
struct Settle<'a> {
    id: HoldId,
    ticket: &'a RawValue,
    observed: &'a Observed,
}

/// A ticket as JSON.
fn as_json(ticket: &str) -> Arc<RawValue> {
    // A ticket needs no escapes; whatever does is written the long way.
    let plain = memchr2(b'"', b'\\', ticket.as_bytes()).is_none();
    let quoted = plain.then(|| RawValue::from_string(["\"", ticket, "\""].concat()).ok());
    quoted
        .flatten()
        .unwrap_or_else(|| to_raw_value(ticket).expect("a text always serialises"))
        .into()
}

impl Admin {
    /// Connects in the background. Needs a tokio runtime.
    #[must_use]
    pub fn new(socket: &Path, worker: u32, listeners: Vec<Listening>) -> Self {
        Self {
            inner: Arc::new(Inner {
                client: Client::new(socket),
                worker,
                listeners,
                max_body_bytes: AtomicU64::new(DEFAULT_MAX_BODY_BYTES),
                drain_timeout_ms: AtomicU64::new(DEFAULT_DRAIN_MS),
                reserve_limit_ms: AtomicU64::new(DEFAULT_RESERVE_MS),
                in_hand: Mutex::default(),
            }),
        }
    }

    #[must_use]
    pub fn max_body_bytes(&self) -> u64 {
        self.inner.max_body_bytes.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.inner.drain_timeout_ms.load(Ordering::Relaxed))
    }

    fn in_hand(&self) -> MutexGuard<'_, HashMap<HoldId, Arc<RawValue>>> {
        self.inner
            .in_hand
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a hold. Asked again with the same id when the connection breaks: it is idempotent.
    ///
    /// # Errors
    /// No answer; then the wait, if there is one, is cancelled.
    pub async fn reserve(&self, params: &ReserveParams) -> Result<ReserveReply, Unavailable> {
        let limit_ms = self.inner.reserve_limit_ms.load(Ordering::Relaxed);
        let end = Instant::now() + Duration::from_millis(limit_ms);
        let reply = loop {
            if let Err(away) = self.connected(end).await {
                break Err(away);
            }
            match self.inner.client.call_by(RESERVE, params, end).await {
                Err(CallError::Lost) if Instant::now() < end => {}
                Ok(reply) => break Ok(reply),
                Err(error) => break Err(unavailable(&error, "reserve")),
            }
        };
        if reply.is_err() {
            self.cancel(params.id);
        }
        reply
    }

    async fn connected(&self, end: Instant) -> Result<(), Unavailable> {
        if self.inner.client.is_connected() {
            return Ok(());
        }
        let mut connection = self.inner.client.connections();
        let end = end.min(Instant::now() + AWAY);
        match timeout_at(end, connection.wait_for(|&number| number != 0)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Unavailable::Away),
        }
    }

    /// Ends the wait of a reserve whose client has left. A hold granted meanwhile stays one.
    pub fn cancel(&self, id: HoldId) {
        // The only failure is a message too long for a frame, which this is not.
        let _ = self.inner.client.notify(CANCEL, &CancelParams { id });
    }

    /// Takes a granted hold in hand.
    #[must_use]
    pub fn hold(&self, id: HoldId, grant: &Grant) -> Held {
        let ticket = as_json(&grant.ticket);
        self.in_hand().insert(id, Arc::clone(&ticket));
        Held {
            admin: self.clone(),
            id,
            ticket,
            deadline_boot_ms: grant.deadline_boot_ms,
        }
    }

    /// Settles a hold. Nothing when the admin does not answer in time: it is then told in the
    /// background, until long after the deadline.
    pub async fn settle(&self, held: Arc<Held>, observed: Observed) -> Option<SettleReply> {
        match self.try_settle(&held.settle_params(&observed)).await {
            Settled::Reply(reply) => Some(reply),
            Settled::Refused => None,
            Settled::Again => {
                tokio::spawn(self.clone().settle_later(held, observed));
                None
            }
        }
    }

    async fn try_settle(&self, params: &Settle<'_>) -> Settled {
        let call = self.inner.client.call_until(SETTLE, params, SETTLE_LIMIT);
        match call.await {
            Ok(reply) => Settled::Reply(reply),
            Err(error) if is_final(&error) => {
                tracing::warn!(id = %params.id, %error, "settle refused");
                Settled::Refused
            }
            Err(error) => {
                tracing::warn!(id = %params.id, %error, "settle not answered, it will be repeated");
                Settled::Again
            }
        }
    }

    async fn settle_later(self, held: Arc<Held>, observed: Observed) {
        let params = held.settle_params(&observed);
        let give_up = held.deadline_boot_ms.saturating_add(SETTLE_GRACE_MS);
        let mut pause = FIRST_PAUSE;
        while clock::boot_ms() < give_up {
            sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
            match self.try_settle(&params).await {
                Settled::Again => {}
                Settled::Reply(_) | Settled::Refused => return,
            }
        }
        tracing::error!(id = %params.id, "settle given up; the egress's receipt decides");
    }

    /// # Errors
    /// No answer.
    pub async fn models(&self, token: TokenDigest, peer: Peer) -> Result<ModelsReply, Unavailable> {
        let params = ModelsParams { token, peer };
        let call = self.inner.client.call_until(MODELS, &params, SHORT_CALL);
        call.await.map_err(|error| unavailable(&error, "models"))
    }

    /// Whether a token is one, and whose.
    ///
    /// # Errors
    /// No answer.
    pub async fn whose(&self, token: TokenDigest, peer: Peer) -> Result<WhoseReply, Unavailable> {
        let params = ModelsParams { token, peer };
        let call = self.inner.client.call_until(WHOSE, &params, SHORT_CALL);
        call.await.map_err(|error| unavailable(&error, "whose"))
    }

    /// # Errors
    /// No answer.
    pub async fn me(&self, token: TokenDigest, peer: Peer) -> Result<MeReply, Unavailable> {
        let params = ModelsParams { token, peer };
        let call = self.inner.client.call_until(ME, &params, SHORT_CALL);
        call.await.map_err(|error| unavailable(&error, "me"))
    }

    /// # Errors
    /// No answer.
    pub async fn quote(&self, params: &ReserveParams) -> Result<QuoteReply, Unavailable> {
        let call = self.inner.client.call_until(QUOTE, params, SHORT_CALL);
        call.await.map_err(|error| unavailable(&error, "quote"))
    }

    /// # Errors
    /// No answer.
    pub async fn tokens(&self, token: TokenDigest, peer: Peer) -> Result<TokensReply, Unavailable> {
        let params = ModelsParams { token, peer };
        let call = self.inner.client.call_until(TOKENS, &params, SHORT_CALL);
        call.await.map_err(|error| unavailable(&error, "tokens"))
    }

    /// Asked once: with the answer of a first call that was lost goes the token that asked.
    ///
    /// # Errors
    /// No answer.
    pub async fn rotate_token(
        &self,
        params: &TokenRotateParams,
    ) -> Result<TokensReply, Unavailable> {
        let call = self.inner.client.call(TOKEN_ROTATE, params, SHORT_CALL);
        call.await.map_err(|error| unavailable(&error, "rotate"))
    }

    /// # Errors
    /// No answer.
    pub async fn revoke_token(
        &self,
        params: &TokenRevokeParams,
    ) -> Result<TokensReply, Unavailable> {
        let call = self.inner.client.call(TOKEN_REVOKE, params, SHORT_CALL);
        call.await.map_err(|error| unavailable(&error, "revoke"))
    }

    /// # Errors
    /// No answer.
    pub async fn create_run(&self, params: &RunParams) -> Result<RunReply, Unavailable> {
        let call = self.inner.client.call_until(RUN, params, SHORT_CALL);
        call.await.map_err(|error| unavailable(&error, "run"))
    }

    /// # Errors
    /// No answer.
    pub async fn end_run(&self, params: &RunEndParams) -> Result<RunReply, Unavailable> {
        let call = self.inner.client.call_until(RUN_END, params, SHORT_CALL);
        call.await.map_err(|error| unavailable(&error, "run_end"))
    }

    /// # Errors
    /// No answer within a second.
    pub async fn ready(&self) -> Result<ReadyReply, Unavailable> {
        let nothing = serde_json::Map::new();
        let call = self.inner.client.call_until(READY, &nothing, READY_LIMIT);
        call.await.map_err(|error| unavailable(&error, "ready"))
    }

    /// Keeps the settings up to date, and claims what is in hand after each reconnect. Never ends.
    pub async fn follow(self) {
        let connections = self.inner.client.connections();
        let mut connected_to = 0;
        let mut known = None;
        loop {
            let number = *connections.borrow();
            if number != connected_to {
                known = None;
            }
            let introduces = known.is_none();
            match self.poll_settings(known).await {
                Ok(settings) => {
                    known = Some(settings.generation);
                    self.take_up(&settings);
                    if introduces {
                        connected_to = *connections.borrow();
                        self.reclaim().await;
                    }
                }
                Err(CallError::Lost | CallError::Timeout | CallError::NotConnected(_)) => {
                    known = None;
                }
                Err(error) => {
                    tracing::warn!(%error, "settings refused");
                    known = None;
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    async fn poll_settings(&self, known: Option<u64>) -> Result<WorkerSettings, CallError> {
        let params = SettingsParams {
            known,
            worker: self.inner.worker,
            pid: std::process::id(),
            sandbox: aex_sandbox::in_force(),
            listeners: self.inner.listeners.clone(),
        };
        self.inner.client.call(SETTINGS, &params, POLL_LIMIT).await
    }

    fn take_up(&self, settings: &WorkerSettings) {
        let inner = &self.inner;
        inner
            .max_body_bytes
            .store(settings.max_body_bytes, Ordering::Relaxed);
        inner
            .drain_timeout_ms
            .store(settings.drain_timeout_ms, Ordering::Relaxed);
        self.inner
            .reserve_limit_ms
            .store(settings.reserve_limit_ms, Ordering::Relaxed);
    }

    async fn reclaim(&self) {
        let tickets: Vec<String> = (self.in_hand().values())
            .filter_map(|ticket| serde_json::from_str(ticket.get()).ok())
            .collect();
        for lot in tickets.chunks(TICKETS_PER_CALL) {
            let params = ReclaimParams {
                tickets: lot.to_vec(),
            };
            let call = self.inner.client.call(RECLAIM, &params, SHORT_CALL);
            let reply: Result<ReclaimReply, _> = call.await;
            match reply {
                Ok(reply) if reply.ended.is_empty() => {}
                Ok(reply) => tracing::info!(ended = reply.ended.len(), "holds in hand had ended"),
                // A broken connection is claimed on again at the next one.
                Err(error) => tracing::warn!(%error, "re-claim failed"),
            }
        }
    }
}

enum Settled {
    Reply(SettleReply),
    /// Asking again would change nothing.
    Refused,
    Again,
}

fn is_final(error: &CallError) -> bool {
    match error {
        CallError::Rpc(error) => !matches!(error.code, code::UNAVAILABLE | code::INTERNAL),
        CallError::Frame(_) | CallError::Answer(_) => true,
        CallError::NotConnected(_) | CallError::Lost | CallError::Timeout | CallError::Busy => {
            false
        }
    }
}

fn unavailable(error: &CallError, method: &str) -> Unavailable {
    match error {
        CallError::Rpc(said) if said.code == code::UNAVAILABLE => {
            Unavailable::Said(said.message.clone())
        }
        CallError::NotConnected(_) | CallError::Lost | CallError::Timeout => Unavailable::Away,
        error => {
            tracing::warn!(%error, method, "the admin refused a call");
            Unavailable::Said("the kernel cannot decide; try again shortly".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use aex_admin_proto::worker::SettleParams;

    use super::*;

    #[test]
    fn a_settle_is_written_as_its_wire_type_is() {
        let id = HoldId::from([7; 16]);
        let observed = Observed::default();
        for ticket in ["v2.1.abc-_.def", "", "a\"b", "a\\nb", "a\nb", "\u{e9}"] {
            let written = serde_json::to_string(&Settle {
                id,
                ticket: &as_json(ticket),
                observed: &observed,
            });
            let params = SettleParams {
                id,
                ticket: ticket.to_owned(),
                observed: observed.clone(),
            };
            assert_eq!(written.unwrap(), serde_json::to_string(&params).unwrap());
        }
    }
}

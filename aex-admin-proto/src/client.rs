//! The async JSON-RPC client: pipelines calls over one Unix socket, coalesces their writes, and
//! connects again when the other side comes back.
//!
//! It never repeats a call by itself: a call whose connection broke ends as [`CallError::Lost`], and
//! the caller, who knows whether the method is idempotent, uses [`Client::call_until`] to ask again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep, timeout_at};

use crate::clock;
use crate::frame::{self, Decoder, FrameError};
use crate::quiet::QuietStream;
use crate::rpc::{Outgoing, Reply, RpcError};

/// Most calls under way at once; one more is refused as [`CallError::Busy`].
pub const MAX_IN_FLIGHT: usize = 4096;

const FIRST_RETRY: Duration = Duration::from_millis(5);
const LAST_RETRY: Duration = Duration::from_millis(250);
/// A connection that lasted this long was a good one.
const STEADY_MS: u64 = 1_000;

#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no connection, and none came in time. The call was not sent.
    #[error("not connected to {0}")]
    NotConnected(PathBuf),
    /// The connection broke, or time ran out, after the call was sent: it may have been carried out.
    #[error("no answer: the connection was lost")]
    Lost,
    #[error("no answer in time")]
    Timeout,
    #[error("too many calls under way")]
    Busy,
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error("call cannot be framed: {0}")]
    Frame(#[from] FrameError),
    #[error("answer is not of the expected form: {0}")]
    Answer(serde_json::Error),
}

/// A result as its text: who called knows what it should be.
type Answered = Result<Box<str>, CallError>;

#[derive(Default)]
struct Shared {
    /// Frames not written yet.
    out: Vec<u8>,
    waiting: HashMap<u64, oneshot::Sender<Answered>>,
    next_id: u64,
}

struct Inner {
    path: PathBuf,
    shared: Mutex<Shared>,
    to_write: Notify,
    /// Number of the connection that is up, counted from 1; 0 while there is none.
    connection: watch::Sender<u64>,
}

/// A handle; clones share the connection. The tasks behind it end when the last handle is dropped.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    _alive: Arc<watch::Sender<()>>,
}

impl Client {
    /// A client that connects in the background, and again whenever the connection breaks. Needs a
    /// tokio runtime.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self::start(path, None)
    }

    /// A client whose first connection is up; for commands that should fail at once.
    ///
    /// # Errors
    /// The connect's own error.
    pub async fn connect(path: &Path) -> std::io::Result<Self> {
        let stream = UnixStream::connect(path).await?;
        Ok(Self::start(path, Some(stream)))
    }

    fn start(path: &Path, first: Option<UnixStream>) -> Self {
        let inner = Arc::new(Inner {
            path: path.to_owned(),
            shared: Mutex::new(Shared::default()),
            to_write: Notify::new(),
            connection: watch::Sender::new(u64::from(first.is_some())),
        });
        let (alive, mut dropped) = watch::channel(());
        let keeper = Arc::clone(&inner);
        tokio::spawn(async move {
            tokio::select! {
                () = keep_connected(&keeper, first) => {}
                _ = dropped.changed() => {}
            }
        });
        Self {
            inner,
            _alive: Arc::new(alive),
        }
    }

    /// Watches the connection: its number, counted from 1, or 0 while there is none.
    #[must_use]
    pub fn connections(&self) -> watch::Receiver<u64> {
        self.inner.connection.subscribe()
    }

    /// One call, sent at most once. `limit` covers waiting for a connection and for the answer.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call<P, R>(
        &self,
        method: &str,
        params: &P,
        limit: Duration,
    ) -> Result<R, CallError>
    where
        P: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        self.call_by(method, params, Instant::now() + limit).await
    }

    /// As [`Client::call`], within a point in time.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call_by<P, R>(
        &self,
        method: &str,
        params: &P,
        end: Instant,
    ) -> Result<R, CallError>
    where
        P: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        if !self.is_connected() && timeout_at(end, self.connected()).await.is_err() {
            return Err(CallError::NotConnected(self.inner.path.clone()));
        }
        let answer = self.send(method, params)?;
        match timeout_at(end, answer).await {
            Ok(answer) => serde_json::from_str(&answer.unwrap_or(Err(CallError::Lost))?)
                .map_err(CallError::Answer),
            Err(_) => Err(CallError::Timeout),
        }
    }

    /// As [`Client::call`], but sent again when the connection breaks before the answer. For methods
    /// that are idempotent.
    ///
    /// # Errors
    /// See [`CallError`]; never [`CallError::Lost`].
    pub async fn call_until<P, R>(
        &self,
        method: &str,
        params: &P,
        limit: Duration,
    ) -> Result<R, CallError>
    where
        P: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        let end = Instant::now() + limit;
        loop {
            match self.call_by(method, params, end).await {
                Err(CallError::Lost) if Instant::now() < end => {}
                Err(CallError::Lost) => return Err(CallError::Timeout),
                done => return done,
            }
        }
    }

    /// A call that wants no answer. Lost in silence when there is no connection.
    ///
    /// # Errors
    /// The message cannot be framed.
    pub fn notify<P: Serialize + ?Sized>(
        &self,
        method: &str,
        params: &P,
    ) -> Result<(), FrameError> {
        if !self.is_connected() {
            return Ok(());
        }
        frame::encode(
            &Outgoing::notification(method, params),
            &mut self.inner.lock().out,
        )?;
        self.inner.to_write.notify_one();
        Ok(())
    }

    #[must_use]
    pub fn is_connected(&self) -> bool {
        *self.inner.connection.borrow() != 0
    }

    async fn connected(&self) {
        let mut connection = self.connections();
        // The sender lives in `inner`, which this handle holds.
        let _ = connection.wait_for(|&number| number != 0).await;
    }

    fn send<P: Serialize + ?Sized>(
        &self,
        method: &str,
        params: &P,
    ) -> Result<oneshot::Receiver<Answered>, CallError> {
        let (sender, receiver) = oneshot::channel();
        let mut shared = self.inner.lock();
        if shared.waiting.len() >= MAX_IN_FLIGHT {
            // Callers that gave up leave their entry behind until it is answered.
            shared.waiting.retain(|_, waiter| !waiter.is_closed());
            if shared.waiting.len() >= MAX_IN_FLIGHT {
                return Err(CallError::Busy);
            }
        }
        shared.next_id += 1;
        let id = shared.next_id;
        frame::encode(&Outgoing::call(id, method, params), &mut shared.out)?;
        shared.waiting.insert(id, sender);
        drop(shared);
        self.inner.to_write.notify_one();
        Ok(receiver)
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Nothing panics while it holds the lock; a poisoned one is still whole.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose_all(&self) {
        self.connection.send_replace(0);
        let mut shared = self.lock();
        shared.out.clear();
        shared.waiting.clear();
    }
}

async fn keep_connected(inner: &Inner, mut next: Option<UnixStream>) {
    let mut number = 0;
    let mut pause = FIRST_RETRY;
    loop {
        let stream = match next.take() {
            Some(stream) => Ok(stream),
            None => UnixStream::connect(&inner.path).await,
        };
        if let Ok(stream) = stream.and_then(QuietStream::new) {
            number += 1;
            let since_boot_ms = clock::boot_ms();
            inner.connection.send_replace(number);
            tokio::select! {
                () = read_answers(inner, &stream) => {}
                () = write_calls(inner, &stream) => {}
            }
            inner.lose_all();
            // One that is hung up on at once is no reason to hurry.
            if clock::boot_ms().saturating_sub(since_boot_ms) >= STEADY_MS {
                pause = FIRST_RETRY;
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(LAST_RETRY);
    }
}

async fn write_calls(inner: &Inner, stream: &QuietStream) {
    let mut batch = Vec::new();
    loop {
        std::mem::swap(&mut batch, &mut inner.lock().out);
        if batch.is_empty() {
            inner.to_write.notified().await;
            // Callers that are ready now add theirs to the same write.
            tokio::task::yield_now().await;
            continue;
        }
        if stream.write_all(&batch).await.is_err() {
            return;
        }
        batch.clear();
    }
}

async fn read_answers(inner: &Inner, stream: &QuietStream) {
    let mut decoder = Decoder::default();
    loop {
        match stream.read(decoder.buffer()).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let mut shared = inner.lock();
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => {
                    if deliver(&mut shared, frame).is_none() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

/// Nothing: the other side does not speak the protocol.
fn deliver(shared: &mut Shared, frame: &[u8]) -> Option<()> {
    let (id, answer) = match plain_result(frame) {
        Some((id, result)) => (id, Ok(result.into())),
        None => {
            let reply: Reply<'_> = serde_json::from_slice(frame).ok()?;
            let answer = match (reply.result, reply.error) {
                (Some(result), None) => Ok(result.get().into()),
                (None, Some(error)) => Err(error.into()),
                _ => return None,
            };
            (reply.id?, answer)
        }
    };
    let waiter = shared.waiting.remove(&id);
    if let Some(waiter) = waiter {
        // The caller may have gone.
        let _ = waiter.send(answer);
    }
    Some(())
}

/// Id and result of an answer written as [`crate::rpc::Answer`] writes it, found without reading the
/// result: its caller does, and refuses what is not one whole JSON value.
fn plain_result(frame: &[u8]) -> Option<(u64, &str)> {
    let rest = frame.strip_prefix(br#"{"jsonrpc":"2.0","id":"#)?;
    let digits = rest.iter().position(|b| !b.is_ascii_digit())?;
    let (id, rest) = rest.split_at(digits);
    let result = rest.strip_prefix(br#","result":"#)?.strip_suffix(b"}")?;
    let id = std::str::from_utf8(id).ok()?.parse().ok()?;
    Some((id, std::str::from_utf8(result).ok()?))
}

#[cfg(test)]
mod tests;

//! The way to `aex-egress`: kept-alive HTTP/1.1 connections over its Unix socket.
//!
//! A connection has no task of its own: whoever waits for its answer drives it. So an answer costs no
//! hand-over between tasks, and what is already readable of it is there at once.
//!
//! A request is sent once. It may be sent on another connection only when hyper gives it back
//! unsent; whatever may have left is never repeated.

use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use aex_admin_proto::clock;
use aex_admin_proto::quiet::QuietStream;
use bytes::Bytes;
use http::{Request, response};
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::sleep;

use crate::headers::PROVIDER_KEY;

/// Connections kept for later requests.
const MAX_IDLE: usize = 64;
/// A connection idle for longer is closed. Making one is cheap, and an idle one holds the last request's
/// bytes.
const MAX_IDLE_MS: u64 = 5_000;
/// How long a connection to an egress that restarts is waited for, in growing steps.
const CONNECT_PAUSES_MS: [u64; 7] = [5, 10, 25, 50, 100, 250, 500];
/// Chunks are read into a buffer that grows up to this.
const MAX_BUFFER_BYTES: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Nothing was sent.
    #[error("the egress cannot be reached: {0}")]
    Unreachable(io::Error),
    /// The egress went away before an answer came: it may have sent the request on.
    #[error("the egress closed the connection: {0}")]
    Lost(hyper::Error),
}

/// One connection. Nothing moves on it but while it is driven.
struct Wire {
    sender: SendRequest<Full<Bytes>>,
    /// For one exchange: what its buffers held must not stay.
    alone: bool,
    /// Nothing when it has ended. What still waits for it then learns so, for its other half is gone.
    connection: Option<Box<Connection<TokioIo<QuietStream>, Full<Bytes>>>>,
}

impl Wire {
    fn drive(&mut self, cx: &mut Context<'_>) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        if let Poll::Ready(ended) = Pin::new(connection).poll(cx) {
            if let Err(error) = ended {
                tracing::debug!(%error, "connection to the egress ended");
            }
            self.connection = None;
        }
    }

    /// Whether it takes another request; it does not when the egress has closed it meanwhile.
    async fn ready(&mut self) -> bool {
        let ready = poll_fn(|cx| {
            self.drive(cx);
            self.sender.poll_ready(cx)
        });
        ready.await.is_ok()
    }
}

struct Idle {
    wire: Wire,
    since_boot_ms: u64,
}

struct Inner {
    socket: PathBuf,
    /// The newest last; taken from the end, so that a quiet pool ages.
    idle: Mutex<Vec<Idle>>,
}

/// A handle; clones share the connections.
#[derive(Clone)]
pub struct Egress {
    inner: Arc<Inner>,
}

/// An answer's body under way. Dropped before its end, it takes the connection with it, which tells
/// the egress to stop.
pub struct Upstream {
    egress: Egress,
    wire: Wire,
    body: Incoming,
}

impl Upstream {
    /// The next piece of the body; nothing at its end.
    pub async fn frame(&mut self) -> Option<Result<Frame<Bytes>, hyper::Error>> {
        poll_fn(|cx| {
            if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
                return Poll::Ready(frame);
            }
            self.wire.drive(cx);
            Pin::new(&mut self.body).poll_frame(cx)
        })
        .await
    }

    /// How long the rest of the body is, where the head told.
    #[must_use]
    pub fn bytes_to_come(&self) -> Option<u64> {
        self.body.size_hint().upper()
    }

    /// Gives the connection back, after the body was read to its end.
    pub fn give_back(self) {
        if self.wire.connection.is_none() || self.wire.alone {
            return;
        }
        let mut idle = self.egress.idle();
        if idle.len() < MAX_IDLE {
            idle.push(Idle {
                wire: self.wire,
                since_boot_ms: clock::boot_ms(),
            });
        }
    }
}

impl Egress {
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self {
            inner: Arc::new(Inner {
                socket: socket.to_owned(),
                idle: Mutex::default(),
            }),
        }
    }

    /// Closes what was idle for too long, and with it what its buffers still hold of a request.
    pub fn sweep(&self) {
        let now = clock::boot_ms();
        let is_young = |idle: &Idle| now.saturating_sub(idle.since_boot_ms) <= MAX_IDLE_MS;
        self.idle().retain(is_young);
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Idle>> {
        self.inner
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request and waits for the answer's head. One that carries an agent's own key has a
    /// connection of its own, which ends with it.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(response::Parts, Upstream), SendError> {
        let mut request = request;
        let alone = request.headers().contains_key(PROVIDER_KEY);
        loop {
            let kept = if alone { None } else { self.pooled().await };
            let (mut wire, pooled) = match kept {
                Some(wire) => (wire, true),
                None => {
                    let made = self.connect(alone).await;
                    (made.map_err(SendError::Unreachable)?, false)
                }
            };
            let mut sending = pin!(wire.sender.try_send_request(request));
            let sent = poll_fn(|cx| {
                wire.drive(cx);
                sending.as_mut().poll(cx)
            });
            match sent.await {
                Ok(response) => {
                    let (head, body) = response.into_parts();
                    let egress = self.clone();
                    return Ok((head, Upstream { egress, wire, body }));
                }
                Err(mut error) => match error.take_message() {
                    // A connection that the egress had closed while it was idle.
                    Some(unsent) if pooled => request = unsent,
                    Some(_) => {
                        let closed = io::Error::from(io::ErrorKind::ConnectionReset);
                        return Err(SendError::Unreachable(closed));
                    }
                    None => return Err(SendError::Lost(error.into_error())),
                },
            }
        }
    }

    async fn pooled(&self) -> Option<Wire> {
        loop {
            let mut newest = self.idle().pop()?;
            if clock::boot_ms().saturating_sub(newest.since_boot_ms) > MAX_IDLE_MS {
                // The ones below are older still.
                self.idle().clear();
                return None;
            }
            if newest.wire.ready().await {
                return Some(newest.wire);
            }
        }
    }

    async fn connect(&self, alone: bool) -> io::Result<Wire> {
        let mut pauses = CONNECT_PAUSES_MS.into_iter();
        let stream = loop {
            match UnixStream::connect(&self.inner.socket).await {
                Ok(stream) => break stream,
                // Absent, not listening, or its queue is full: as while it restarts.
                Err(error) => match pauses.next() {
                    Some(pause_ms) => sleep(Duration::from_millis(pause_ms)).await,
                    None => return Err(error),
                },
            }
        };
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_BUFFER_BYTES)
            .handshake(TokioIo::new(QuietStream::new(stream)?))
            .await
            .map_err(io::Error::other)?;
        Ok(Wire {
            sender,
            alone,
            connection: Some(Box::new(connection)),
        })
    }
}

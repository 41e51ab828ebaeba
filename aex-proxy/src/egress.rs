//! The way to `aex-egress`: kept-alive HTTP/1.1 connections over its Unix socket.
//!
//! A request is sent once. It may be sent on another connection only when hyper gives it back
//! unsent; whatever may have left is never repeated.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aex_admin_proto::clock;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::sleep;

/// Connections kept for later requests.
const MAX_IDLE: usize = 64;
/// A connection idle for longer is not used again.
const MAX_IDLE_MS: u64 = 60_000;
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

struct Idle {
    sender: SendRequest<Full<Bytes>>,
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

/// An answer under way. Dropped before its end, it takes the connection with it, which tells the
/// egress to stop.
pub struct Upstream {
    pub response: Response<Incoming>,
    lease: Lease,
}

/// A connection in use.
pub struct Lease {
    egress: Egress,
    sender: SendRequest<Full<Bytes>>,
}

impl Upstream {
    #[must_use]
    pub fn into_parts(self) -> (Response<Incoming>, Lease) {
        (self.response, self.lease)
    }
}

impl Lease {
    /// Gives the connection back, after the answer's body was read to its end.
    pub fn give_back(self) {
        if self.sender.is_closed() {
            return;
        }
        let mut idle = self.egress.idle();
        if idle.len() < MAX_IDLE {
            idle.push(Idle {
                sender: self.sender,
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

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Idle>> {
        self.inner
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request and waits for the answer's head.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Upstream, SendError> {
        let mut request = request;
        loop {
            let (mut sender, pooled) = match self.pooled().await {
                Some(sender) => (sender, true),
                None => (self.connect().await.map_err(SendError::Unreachable)?, false),
            };
            match sender.try_send_request(request).await {
                Ok(response) => {
                    let lease = Lease {
                        egress: self.clone(),
                        sender,
                    };
                    return Ok(Upstream { response, lease });
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

    async fn pooled(&self) -> Option<SendRequest<Full<Bytes>>> {
        loop {
            let mut newest = self.idle().pop()?;
            if clock::boot_ms().saturating_sub(newest.since_boot_ms) > MAX_IDLE_MS {
                // The ones below are older still.
                self.idle().clear();
                return None;
            }
            if !newest.sender.is_closed() && newest.sender.ready().await.is_ok() {
                return Some(newest.sender);
            }
        }
    }

    async fn connect(&self) -> io::Result<SendRequest<Full<Bytes>>> {
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
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to the egress ended");
            }
        });
        Ok(sender)
    }
}

//! Kept connections to one provider, and the making of new ones.
//!
//! HTTP/1.1 connections carry one exchange at a time and wait in a short stack; an HTTP/2 connection
//! is shared. An HTTP/1.1 connection has no task of its own: the exchange that leases it drives it, so
//! that no other task has to be woken for each piece of an answer. At most [`MAX_EXCHANGES`] exchanges are under way with one provider; one more waits for
//! its turn as long as a connection may take.
//!
//! Absent on purpose: sending again. A request is offered to another connection only when hyper hands
//! it back unsent.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;
use std::time::Duration;

use aex_admin_proto::clock::boot_ms;
use aex_admin_proto::egress::{Failure, MAX_EXCHANGES};
use futures_util::FutureExt;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::body::UpBody;
use crate::provider::Provider;
use crate::tls::Trust;
use crate::wire::{self, Watch};

const MAX_IDLE: usize = 128;
/// Providers close idle connections after a minute or more; a younger one is rarely dead.
const MAX_IDLE_MS: u64 = 30_000;
/// A provider that allows fewer lets the others wait in its connection.
const MAX_STREAMS: usize = 100;
const STREAM_WINDOW_BYTES: u32 = 128 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
const BUFFER_BYTES: usize = 64 * 1024;
/// How often a quiet HTTP/2 connection with open streams is asked whether it is alive, and how long
/// it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_WAIT: Duration = Duration::from_secs(10);

pub struct Pool {
    kept: Mutex<Kept>,
    turns: Arc<Semaphore>,
}

#[derive(Default)]
struct Kept {
    single: Vec<Idle>,
    shared: Vec<Shared>,
}

struct Idle {
    link: Single,
    since_boot_ms: u64,
}

struct Single {
    sender: http1::SendRequest<UpBody>,
    driver: Driver,
    watch: Watch,
}

/// What reads and writes an HTTP/1.1 connection, whenever it is polled.
struct Driver(Option<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>);

#[derive(Clone)]
struct Shared {
    sender: http2::SendRequest<UpBody>,
    /// Held once by the pool and once by each exchange.
    users: Arc<()>,
    since_boot_ms: u64,
}

enum Link {
    Single(Single),
    Shared(Shared),
}

/// A connection for one exchange, and the turn that it takes.
pub struct Lease {
    link: Option<Link>,
    /// Of one exchange: what its buffers held must not stay.
    alone: bool,
    provider: Arc<Provider>,
    _turn: OwnedSemaphorePermit,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            turns: Arc::new(Semaphore::new(MAX_EXCHANGES as usize)),
        }
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing panics while it holds the lock; a poisoned one is still whole.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reuse(&self, now_boot_ms: u64) -> Option<Link> {
        let mut kept = self.lock();
        if let Some(shared) = kept.shared.iter_mut().find(|shared| shared.has_room()) {
            shared.since_boot_ms = now_boot_ms;
            return Some(Link::Shared(shared.clone()));
        }
        while let Some(idle) = kept.single.pop() {
            if idle.is_usable(now_boot_ms) {
                return Some(Link::Single(idle.link));
            }
        }
        None
    }

    fn keep(&self, link: Single) {
        let since_boot_ms = boot_ms();
        let mut kept = self.lock();
        if kept.single.len() < MAX_IDLE {
            kept.single.push(Idle {
                link,
                since_boot_ms,
            });
        }
    }

    /// Closes what was idle for too long.
    pub fn sweep(&self, now_boot_ms: u64) {
        let mut kept = self.lock();
        // Nobody polls them, so only a look at the socket tells which were closed.
        kept.single
            .retain(|idle| idle.is_young(now_boot_ms) && idle.link.watch.is_quiet());
        kept.shared.retain(|shared| {
            let is_used = Arc::strong_count(&shared.users) > 1;
            !shared.sender.is_closed()
                && (is_used || now_boot_ms.saturating_sub(shared.since_boot_ms) <= MAX_IDLE_MS)
        });
    }
}

impl Idle {
    fn is_young(&self, now_boot_ms: u64) -> bool {
        !self.link.sender.is_closed()
            && now_boot_ms.saturating_sub(self.since_boot_ms) <= MAX_IDLE_MS
    }

    fn is_usable(&self, now_boot_ms: u64) -> bool {
        self.is_young(now_boot_ms) && self.link.sender.is_ready() && self.link.watch.is_quiet()
    }
}

impl Driver {
    /// Goes as far as it can now. Its errors are told to the exchange, not here.
    fn poll(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.0
            && connection.as_mut().poll(cx).is_ready()
        {
            self.0 = None;
        }
    }
}

impl Shared {
    fn has_room(&self) -> bool {
        !self.sender.is_closed() && Arc::strong_count(&self.users) <= MAX_STREAMS
    }
}

impl Lease {
    /// A kept connection, or a new one. Nothing was sent on it for this exchange. One that is to be
    /// `alone` is new, and ends with the exchange.
    ///
    /// # Errors
    /// [`Failure::Connect`] or [`Failure::Tls`].
    pub async fn acquire(provider: &Arc<Provider>, alone: bool) -> Result<Self, Failure> {
        let turn = take_turn(provider).await?;
        let kept = || provider.pool.reuse(boot_ms());
        let link = match (!alone).then(kept).flatten() {
            Some(link) => link,
            None => {
                let link = connect(provider).await?;
                if let (Link::Shared(shared), false) = (&link, alone) {
                    provider.pool.lock().shared.push(shared.clone());
                }
                link
            }
        };
        Ok(Self {
            link: Some(link),
            alone,
            provider: Arc::clone(provider),
            _turn: turn,
        })
    }

    /// The request's target must then be absolute, and it has no `Host`.
    #[must_use]
    pub fn is_http2(&self) -> bool {
        matches!(self.link, Some(Link::Shared(_)))
    }

    /// Sends a request. An error that holds the request says that no byte of it was written.
    ///
    /// # Errors
    /// hyper's own.
    pub async fn send(
        &mut self,
        request: Request<UpBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<UpBody>>> {
        match self
            .link
            .as_mut()
            .expect("a lease has its link until it is given back")
        {
            Link::Single(single) => {
                let mut answer = pin!(single.sender.try_send_request(request));
                poll_fn(|cx| {
                    single.driver.poll(cx);
                    answer.as_mut().poll(cx)
                })
                .await
            }
            Link::Shared(shared) => shared.sender.try_send_request(request).await,
        }
    }

    /// Reads what the provider sent, and writes what is left of the request, without waiting.
    pub fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(Link::Single(single)) = &mut self.link {
            single.driver.poll(cx);
        }
    }

    /// The exchange came to its proper end, both ways: the connection can be used again.
    pub fn give_back(mut self, cx: &mut Context<'_>) {
        if let Some(Link::Single(mut single)) = self.link.take().filter(|_| !self.alone) {
            if !single.sender.is_ready() {
                single.driver.poll(cx);
            }
            self.provider.pool.keep(single);
        }
    }
}

async fn take_turn(provider: &Provider) -> Result<OwnedSemaphorePermit, Failure> {
    let turns = &provider.pool.turns;
    if let Ok(turn) = Arc::clone(turns).try_acquire_owned() {
        return Ok(turn);
    }
    match timeout(
        provider.connect_timeout(),
        Arc::clone(turns).acquire_owned(),
    )
    .await
    {
        Ok(Ok(turn)) => Ok(turn),
        _ => {
            tracing::warn!(
                provider = provider.config.name,
                "all connections are taken, and none came free in time"
            );
            Err(Failure::Connect)
        }
    }
}

/// TCP and TLS, together within the provider's `connect_timeout`.
async fn connect(provider: &Provider) -> Result<Link, Failure> {
    let limit = provider.connect_timeout();
    let name = provider.config.name.as_str();
    let mut reached = false;
    let attempt = async {
        let place = &provider.place;
        let no_connection = |error| {
            tracing::warn!(provider = name, %error, "no connection");
            Failure::Connect
        };
        let socket = wire::connect(&place.host, place.port)
            .await
            .map_err(no_connection)?;
        let watch = Watch::of(&socket).map_err(no_connection)?;
        reached = true;
        let config = match &provider.trust {
            Trust::Plain => return single(socket, watch).await,
            Trust::Own(config) => config,
            Trust::System(trust) => trust.config().await.map_err(|error| {
                tracing::error!(provider = name, %error, "no TLS");
                Failure::Tls
            })?,
        };
        let server = ServerName::try_from(place.host.clone()).map_err(|_| Failure::Tls)?;
        let stream = TlsConnector::from(Arc::clone(config))
            .connect(server, socket)
            .await
            .map_err(|error| {
                tracing::warn!(provider = name, %error, "no TLS session");
                Failure::Tls
            })?;
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            return shared(stream).await;
        }
        single(stream, watch).await
    };
    match timeout(limit, attempt).await {
        Ok(link) => link,
        Err(_) => {
            tracing::warn!(
                provider = name,
                limit_ms = provider.config.connect_timeout_ms,
                "no connection in time"
            );
            Err(if reached {
                Failure::Tls
            } else {
                Failure::Connect
            })
        }
    }
}

async fn single<S>(stream: S, watch: Watch) -> Result<Link, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| Failure::Connect)?;
    let mut driver = Driver(Some(Box::pin(connection)));
    poll_fn(|cx| {
        driver.poll(cx);
        sender.poll_ready(cx)
    })
    .await
    .map_err(|_| Failure::Connect)?;
    Ok(Link::Single(Single {
        sender,
        driver,
        watch,
    }))
}

async fn shared<S>(stream: S) -> Result<Link, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_WAIT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(BUFFER_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| Failure::Connect)?;
    tokio::spawn(connection.map(drop));
    Ok(Link::Shared(Shared {
        sender,
        users: Arc::new(()),
        since_boot_ms: boot_ms(),
    }))
}

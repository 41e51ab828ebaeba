//! One connection of an agent: who is at its other end, TLS where its listener has it, HTTP/1.1 or HTTP/2 on
//! it, each within bounds, until it ends or the worker is told to stop.

mod h2;

use std::convert::Infallible;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aex_admin_proto::peer::Peer;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{Shutdown, shutdown};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::answer::Fault;
use crate::crowd::Seat;
use crate::leaving::Leaving;
use crate::listener::Accepted;
use crate::serve::{self, Shared};
use crate::tls::{self, Tls};

pub(crate) const HEAD_LIMIT: Duration = Duration::from_secs(10);
const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_HEADERS: usize = 100;
/// Handshakes at once: each keeps keys and buffers before anybody is known.
const MAX_HANDSHAKES: usize = 512;
/// Requests over HTTP/2 at once, on all connections: as many as there may be over HTTP/1.1.
const MAX_STREAMS: usize = 4096;

/// Room that all connections share.
#[derive(Clone)]
pub(crate) struct Rooms {
    handshakes: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

impl Default for Rooms {
    fn default() -> Self {
        Self {
            handshakes: Arc::new(Semaphore::new(MAX_HANDSHAKES)),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
        }
    }
}

/// What a connection is served with.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) shared: Arc<Shared>,
    pub(crate) stopped: watch::Receiver<bool>,
    pub(crate) head_limit: Duration,
    pub(crate) tls: Option<Tls>,
    pub(crate) rooms: Rooms,
}

impl Connection {
    pub(crate) async fn serve(self, stream: Accepted, seat: Seat) {
        match stream {
            Accepted::Unix(stream) => self.unix(stream, seat).await,
            Accepted::Tcp(stream) => self.tcp(stream, seat).await,
        }
    }

    async fn unix(self, stream: UnixStream, seat: Seat) {
        let credentials = stream.peer_cred();
        // Whom nobody knows has no token that is bound.
        let peer = Peer {
            uid: credentials.ok().map(|peer| peer.uid()),
            ..Peer::default()
        };
        let Ok(twin) = stream.as_fd().try_clone_to_owned() else {
            return;
        };
        self.h1(stream, peer, seat, Some(twin)).await;
    }

    async fn tcp(mut self, stream: TcpStream, seat: Seat) {
        // Without it a streamed chunk would wait for the one before to be acknowledged.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        let Some(tls) = self.tls.take() else {
            let Ok(twin) = stream.as_fd().try_clone_to_owned() else {
                return;
            };
            return self.h1(stream, Peer::default(), seat, Some(twin)).await;
        };
        let shaking = async {
            let _place = self.rooms.handshakes.acquire().await;
            tls.accept(stream).await
        };
        let stream = tokio::select! {
            // As long as a request's head may take: its wait for others' handshakes counts.
            shaken = timeout(self.head_limit, shaking) => match shaken {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return tracing::debug!(%error, "no TLS"),
                Err(_) => return tracing::debug!("the TLS handshake took too long"),
            },
            () = told(&mut self.stopped) => return,
            () = seat.asked_to_leave() => return,
        };
        let peer = Peer {
            client_cert: tls::client_cert(&stream),
            ..Peer::default()
        };
        if tls::speaks_h2(&stream) {
            h2::serve(self, stream, peer, seat).await;
        } else {
            self.h1(stream, peer, seat, None).await;
        }
    }

    /// `twin`: the same socket once more, where a plain answer can be written to it.
    async fn h1<S>(self, stream: S, peer: Peer, seat: Seat, twin: Option<OwnedFd>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self {
            shared,
            stopped,
            head_limit,
            ..
        } = self;
        let asked = AtomicBool::new(false);
        let leaving = Leaving::new(stopped, seat);
        let service = service_fn(|request| {
            asked.store(true, Ordering::Relaxed);
            let (shared, leaving, open) = (&shared, &leaving, leaving.open());
            async move {
                let answer = serve::serve(shared, request, peer).await;
                Ok::<_, Infallible>(leaving.answer(answer, open))
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(head_limit)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = &mut connection => ended,
            // Nothing goes on: whoever needs the place more has it.
            () = leaving.asked_to_leave() => return,
            () = leaving.quiet() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        match ended {
            Ok(()) => {}
            Err(error) if error.is_timeout() && !asked.load(Ordering::Relaxed) => {
                if let Some(twin) = twin {
                    say_too_slow(twin);
                }
            }
            Err(error) => tracing::debug!(%error, "connection ended"),
        }
    }
}

/// Until the worker is told to stop.
async fn told(stopped: &mut watch::Receiver<bool>) {
    // An error means that the server is gone, which is the same.
    let _ = stopped.wait_for(|&stopped| stopped).await;
}

/// Tells a client whose first request never became whole. One write that may fail: it is a courtesy.
fn say_too_slow(socket: OwnedFd) {
    let row = Fault::TooSlow("the request's head took too long to arrive").row();
    let mut socket = File::from(socket);
    let _ = socket.write_all(&row.raw());
    let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
}

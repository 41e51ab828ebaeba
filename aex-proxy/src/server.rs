//! Accepts connections within bounds, and lets them end in order when the worker is told to stop.

use std::convert::Infallible;
use std::future::Future;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::errno::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::admin::Admin;
use crate::answer::Fault;
use crate::egress::Egress;
use crate::serve::{self, Shared};
use crate::spool::Spool;

const MAX_CONNECTIONS: usize = 4096;
const HEAD_LIMIT: Duration = Duration::from_secs(10);
const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_HEADERS: usize = 100;
/// Pause after an accept failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often the timer that keeps the others cheap fires.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Where a worker finds the others.
#[derive(Debug, Clone)]
pub struct Options {
    pub worker: u32,
    pub admin_socket: PathBuf,
    pub egress_socket: PathBuf,
    /// Where answers are kept; none: nowhere.
    pub spool: Option<PathBuf>,
    /// How long a request's head may take; shorter in tests.
    pub head_limit: Duration,
}

impl Options {
    #[must_use]
    pub fn new(worker: u32, admin_socket: PathBuf, egress_socket: PathBuf) -> Self {
        Self {
            worker,
            admin_socket,
            egress_socket,
            spool: None,
            head_limit: HEAD_LIMIT,
        }
    }
}

/// Serves until `stop` ends, then lets the requests in flight finish, within the drain timeout.
///
/// # Errors
/// The listener cannot be used.
pub async fn run(
    listener: std::net::TcpListener,
    options: Options,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let admin = Admin::new(&options.admin_socket, options.worker);
    let follower = tokio::spawn(admin.clone().follow());
    let egress = Egress::new(&options.egress_socket);
    let heart = tokio::spawn(beat(egress.clone()));
    let spool = Spool::open(options.spool.as_deref());
    let tidier = tokio::spawn(spool.clone().tend());
    // Nothing is ever sent: the channel ends when the last holder of a sender is gone.
    let (alive, mut all_ended) = mpsc::channel::<Infallible>(1);
    let (stopping, stopped) = watch::channel(false);
    let shared = Arc::new(Shared::new(admin.clone(), egress, spool, alive));

    tokio::select! {
        () = accept(&listener, &shared, &stopped, options.head_limit) => {}
        () = stop => {}
    }
    drop(listener);
    drop(shared);
    stopping.send_replace(true);
    let limit = admin.drain_timeout();
    if timeout(limit, all_ended.recv()).await.is_err() {
        tracing::warn!("requests were still in flight at the end of the drain timeout");
    }
    follower.abort();
    heart.abort();
    tidier.abort();
    Ok(())
}

/// Keeps a timer near. The runtime wakes itself by a system call for each timer that would fire
/// before all others, which without this one is nearly every timeout of every request.
async fn beat(egress: Egress) {
    loop {
        sleep(HEARTBEAT).await;
        egress.sweep();
    }
}

/// Accepts for ever.
async fn accept(
    listener: &TcpListener,
    shared: &Arc<Shared>,
    stopped: &watch::Receiver<bool>,
    head_limit: Duration,
) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = Connection {
                    shared: Arc::clone(shared),
                    stopped: stopped.clone(),
                    head_limit,
                    _permit: permit,
                };
                tokio::spawn(connection.serve(stream));
            }
            Err(error) if is_the_peers(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Trouble of one connection, which is gone; the next may be fine.
fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(
            Errno::ECONNABORTED
                | Errno::ECONNRESET
                | Errno::EINTR
                | Errno::EPROTO
                | Errno::ENETDOWN
                | Errno::EHOSTDOWN
                | Errno::ENETUNREACH
                | Errno::EHOSTUNREACH
        )
    )
}

struct Connection {
    shared: Arc<Shared>,
    stopped: watch::Receiver<bool>,
    head_limit: Duration,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        let Self {
            shared,
            mut stopped,
            head_limit,
            _permit,
        } = self;
        // Without it a streamed chunk would wait for the one before to be acknowledged.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        let Ok(twin) = stream.as_fd().try_clone_to_owned() else {
            return;
        };
        let asked = AtomicBool::new(false);
        let service = service_fn(|request| {
            asked.store(true, Ordering::Relaxed);
            let shared = &shared;
            async move { Ok::<_, Infallible>(serve::serve(shared, request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(head_limit)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let told_to_stop = async {
            // An error means that the server is gone, which is the same.
            let _ = stopped.wait_for(|&stopped| stopped).await;
        };
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = told_to_stop => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        match ended {
            Ok(()) => {}
            Err(error) if error.is_timeout() && !asked.load(Ordering::Relaxed) => {
                say_too_slow(std::net::TcpStream::from(twin));
            }
            Err(error) => tracing::debug!(%error, "connection ended"),
        }
    }
}

/// Tells a client whose first request never became whole. One write that may fail: it is a courtesy.
fn say_too_slow(mut stream: std::net::TcpStream) {
    let row = Fault::TooSlow("the request's head took too long to arrive").row();
    let _ = stream.write_all(&row.raw());
    let _ = stream.shutdown(Shutdown::Both);
}

//! The workers' socket: who may connect, how many, and how serving ends.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use aex_admin_proto::clock::boot_ms;
use aex_admin_proto::egress::Failure;
use aex_admin_proto::quiet::QuietStream;
use aex_admin_proto::service;
use http::HeaderValue;
use http::header::CONNECTION;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::EgressError;
use crate::flight::Control;
use crate::forward::{Egress, exchange};

/// `FileDescriptorName=` of the workers' socket.
const SOCKET_NAME: &str = "egress";
/// Connections of workers at once; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 4096;
const MAX_HEADERS: usize = 64;
const HEAD_LIMIT: Duration = Duration::from_secs(10);
const BUFFER_BYTES: usize = 64 * 1024;
/// How often deadlines are looked at, and how often what is old is thrown away.
const TICK: Duration = Duration::from_millis(100);
const TICKS_PER_SWEEP: u32 = 50;
/// How long a stop waits for exchanges, and then for those that it cut.
const DRAIN_MS: u64 = 30_000;
const CUT_MS: u64 = 1_000;
const DRAIN_STEP: Duration = Duration::from_millis(10);
/// How long connections are kept after a stop for requests that are on their way: closed under one, it would
/// be lost, and its worker could not know whether it was sent on.
const LINGER: Duration = Duration::from_millis(200);
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);
/// How long callers wait at a start, in the listener's queue, for the configuration. Without one every
/// ticket is refused.
const CONFIGURATION_WAIT: Duration = Duration::from_secs(5);

/// The socket; one that was made here is removed when dropped.
pub struct Listener {
    inner: UnixListener,
    made: Option<PathBuf>,
    /// Whose processes may connect.
    uid: u32,
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.made {
            // A restart removes it too.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Takes over the socket that systemd made, for the workers' user. Needs a tokio runtime.
///
/// # Errors
/// There is none, or no such user.
pub fn inherited(worker_user: &str) -> Result<Listener, EgressError> {
    let uid = service::uid_of(worker_user).map_err(EgressError::Inherited)?;
    let handed = service::unix_listeners().map_err(EgressError::Inherited)?;
    let (_, listener) = (handed.into_iter())
        .find(|(name, _)| name == SOCKET_NAME)
        .ok_or_else(|| {
            EgressError::Inherited(io::Error::other(format!(
                "none is named {SOCKET_NAME}: start it with `systemctl start aex.target`, not by hand"
            )))
        })?;
    let inner = listener
        .set_nonblocking(true)
        .and_then(|()| UnixListener::from_std(listener))
        .map_err(EgressError::Inherited)?;
    Ok(Listener {
        inner,
        made: None,
        uid,
    })
}

/// Makes the directory of a file, for this user alone, if it is missing.
///
/// # Errors
/// It cannot be made.
pub fn private_parent(path: &Path) -> Result<(), EgressError> {
    let Some(dir) = path.parent() else {
        return Ok(());
    };
    std::fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(dir)
        .map_err(|error| EgressError::file("cannot make directory", dir, error))
}

/// Makes the socket, in a directory that is there.
///
/// # Errors
/// Another process serves there, or it cannot be made.
pub fn bind(path: &Path) -> Result<Listener, EgressError> {
    let failed = |what| move |error| EgressError::file(what, path, error);
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(EgressError::AlreadyRunning(path.to_owned()));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("cannot remove the old socket")(error));
        }
        _ => {}
    }
    let inner = UnixListener::bind(path).map_err(failed("cannot make socket"))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(failed("cannot protect socket"))?;
    Ok(Listener {
        inner,
        made: Some(path.to_owned()),
        uid: nix::unistd::getuid().as_raw(),
    })
}

/// The connections that are up, so that a stop reaches them.
#[derive(Default)]
struct Connections {
    up: Mutex<HashMap<u64, Arc<Control>>>,
    next: AtomicU64,
    /// Each answer is its connection's last, and says so: a worker's next request then comes by another.
    is_leaving: AtomicBool,
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Control>>> {
        self.up.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves until `stop` is done, then lets exchanges finish, and cuts those that do not.
pub async fn serve(listener: Listener, egress: Arc<Egress>, stop: impl Future<Output = ()>) {
    let connections = Arc::new(Connections::default());
    tokio::select! {
        () = accept(&listener, &egress, &connections) => {}
        () = keep_time(&egress) => {}
        () = stop => {}
    }
    drop(listener);
    tokio::select! {
        () = drain(&egress, &connections) => {}
        () = keep_time(&egress) => {}
    }
}

async fn accept(listener: &Listener, egress: &Arc<Egress>, connections: &Arc<Connections>) {
    // After it they are refused, which says more than silence.
    let _ = timeout(CONFIGURATION_WAIT, egress.configured()).await;
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut refused: u64 = 0;
    loop {
        let Ok(turn) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let stream = match listener.inner.accept().await {
            Ok((stream, _)) => stream,
            Err(error) if is_peers_own(&error) => continue,
            Err(error) => {
                tracing::error!(%error, "cannot accept a connection");
                sleep(ACCEPT_BACK_OFF).await;
                continue;
            }
        };
        let peer = stream.peer_cred().map(|peer| peer.uid());
        if !peer.as_ref().is_ok_and(|&uid| uid == listener.uid) {
            refused += 1;
            // One line a doubling: a peer that insists does not fill the log.
            if refused.is_power_of_two() {
                let uid = peer.unwrap_or(u32::MAX);
                tracing::warn!(uid, refused, "a connection of another user was refused");
            }
            continue;
        }
        let stream = match QuietStream::new(stream) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::error!(%error, "cannot listen to a connection");
                continue;
            }
        };
        let (egress, connections) = (Arc::clone(egress), Arc::clone(connections));
        tokio::spawn(async move {
            connection(stream, egress, &connections).await;
            drop(turn);
        });
    }
}

/// The peer gave up before it was accepted.
fn is_peers_own(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

async fn connection(stream: QuietStream, egress: Arc<Egress>, connections: &Connections) {
    let control = Arc::new(Control::default());
    let number = connections.next.fetch_add(1, Ordering::Relaxed);
    connections.lock().insert(number, Arc::clone(&control));
    let service = service_fn(|request| async {
        let answer = exchange(Arc::clone(&egress), Arc::clone(&control), request).await;
        answer.map(|mut answer| {
            if connections.is_leaving.load(Ordering::Relaxed) {
                let close = HeaderValue::from_static("close");
                answer.headers_mut().insert(CONNECTION, close);
            }
            answer
        })
    });
    let mut served = pin!(
        http1::Builder::new()
            .auto_date_header(false)
            // A worker writes a head at once, and keeps no idle connection for as long.
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_LIMIT)
            .max_headers(MAX_HEADERS)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(TokioIo::new(stream), service)
    );
    let mut is_stopping = false;
    poll_fn(|cx| {
        control.waker.register(cx.waker());
        if !is_stopping && control.is_stopping() {
            is_stopping = true;
            served.as_mut().graceful_shutdown();
        }
        match served.as_mut().poll(cx) {
            // How a worker's connection ended is told by the exchange that it carried.
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending if control.must_break() => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    connections.lock().remove(&number);
}

/// Cuts exchanges at their deadline, and throws away what is old.
async fn keep_time(egress: &Egress) {
    let mut ticks: u32 = 0;
    loop {
        sleep(TICK).await;
        let now = boot_ms();
        egress.register.cut_overdue(now);
        ticks = ticks.wrapping_add(1);
        if ticks.is_multiple_of(TICKS_PER_SWEEP) {
            egress.register.sweep(now);
            if let Some(active) = egress.active() {
                for provider in active.providers.values() {
                    provider.pool.sweep(now);
                }
            }
        }
    }
}

async fn drain(egress: &Egress, connections: &Connections) {
    connections.is_leaving.store(true, Ordering::Relaxed);
    if !connections.lock().is_empty() {
        sleep(LINGER).await;
    }
    for control in connections.lock().values() {
        control.stop();
    }
    if !within(DRAIN_MS, || egress.register.open_count() == 0).await {
        tracing::warn!(
            open = egress.register.open_count(),
            "exchanges are cut: they took too long to finish"
        );
        egress.register.cut_all(Failure::EgressGone);
    }
    // The last bytes of the last answers.
    within(CUT_MS, || connections.lock().is_empty()).await;
}

async fn within(limit_ms: u64, done: impl Fn() -> bool) -> bool {
    let until = boot_ms().saturating_add(limit_ms);
    loop {
        if done() {
            return true;
        }
        if boot_ms() >= until {
            return false;
        }
        sleep(DRAIN_STEP).await;
    }
}

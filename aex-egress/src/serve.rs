//! Workers' connections: who may connect, how many at each door, and how serving ends.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use aex_admin_proto::clock::boot_ms;
use aex_admin_proto::egress::Failure;
use aex_admin_proto::quiet::QuietStream;
use http::HeaderValue;
use http::header::CONNECTION;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::doors::Door;
use crate::flight::Control;
use crate::forward::{Egress, exchange};

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
pub async fn serve(doors: Vec<Door>, egress: Arc<Egress>, stop: impl Future<Output = ()>) {
    let connections = Arc::new(Connections::default());
    // A task each: at one that is called without end the others would have no turn.
    let mut open = JoinSet::new();
    for door in doors {
        let (egress, connections) = (Arc::clone(&egress), Arc::clone(&connections));
        open.spawn(async move { accept(&door, &egress, &connections).await });
    }
    tokio::select! {
        _ = open.join_next() => {}
        () = keep_time(&egress) => {}
        () = stop => {}
    }
    open.shutdown().await;
    tokio::select! {
        () = drain(&egress, &connections) => {}
        () = keep_time(&egress) => {}
    }
}

async fn accept(door: &Door, egress: &Arc<Egress>, connections: &Arc<Connections>) {
    // After it they are refused, which says more than silence.
    let _ = timeout(CONFIGURATION_WAIT, egress.configured()).await;
    // More wait in the listener's own queue.
    let room = Arc::new(Semaphore::new(door.places));
    let mut refused: u64 = 0;
    loop {
        let Ok(turn) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let stream = match door.listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) if is_peers_own(&error) => continue,
            Err(error) => {
                tracing::error!(%error, "cannot accept a connection");
                sleep(ACCEPT_BACK_OFF).await;
                continue;
            }
        };
        let peer = stream.peer_cred().map(|peer| peer.uid());
        if !peer.as_ref().is_ok_and(|&uid| uid == door.uid) {
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

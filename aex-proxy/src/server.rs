//! Accepts connections within bounds, and lets them end in order when the worker is told to stop. What
//! happens on one is in [`crate::connection`].

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aex_admin_proto::clock;
use futures_util::future::join_all;
use nix::errno::Errno;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::admin::Admin;
use crate::connection::{Connection, HEAD_LIMIT, Rooms};
use crate::crowd::Crowd;
use crate::egress::Egress;
use crate::listener::{self, Listener, Watched};
use crate::serve::Shared;
use crate::spool::Spool;
use crate::tls::Tls;

/// On all listeners together.
const MAX_CONNECTIONS: usize = 4096;
/// Pause after an accept failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A listener tells of that at most once in this time.
const TOLD_FOR_MS: u64 = 60_000;

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
    /// What TCP listeners speak; none: plain HTTP.
    pub tls: Option<Tls>,
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
            tls: None,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no listener is left to accept on: see above")]
    NoListener,
}

/// Serves until `stop` ends, then lets the requests in flight finish, within the drain timeout. So too when
/// no listener is left.
///
/// # Errors
/// A listener cannot be used, or all were shut down.
pub async fn run(
    listeners: Vec<Listener>,
    options: Options,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let told = listener::told(&listeners, options.tls.is_some());
    let listeners: io::Result<Vec<Watched>> = listeners.into_iter().map(Watched::new).collect();
    let listeners = listeners?;
    // Taken in any case: what is not taken ends the program.
    let hangup = signal(SignalKind::hangup())?;
    let certificates = tokio::spawn(follow(options.tls.clone(), hangup));
    let admin = Admin::new(&options.admin_socket, options.worker, told);
    let follower = tokio::spawn(admin.clone().follow());
    let egress = Egress::new(&options.egress_socket);
    let heart = tokio::spawn(beat(egress.clone()));
    let spool = Spool::open(options.spool.as_deref());
    let tidier = tokio::spawn(spool.clone().tend());
    // Nothing is ever sent: the channel ends when the last holder of a sender is gone.
    let (alive, mut all_ended) = mpsc::channel::<Infallible>(1);
    let (stopping, stopped) = watch::channel(false);
    let connection = Connection {
        shared: Arc::new(Shared::new(admin.clone(), egress, spool, alive)),
        stopped,
        head_limit: options.head_limit,
        tls: options.tls,
        rooms: Rooms::default(),
    };
    let crowd = Crowd::new(MAX_CONNECTIONS);
    let accepting = listeners
        .iter()
        .map(|from| accept(from, &crowd, &connection));

    let outcome = tokio::select! {
        _ = join_all(accepting) => Err(ServeError::NoListener),
        () = stop => Ok(()),
    };
    // The listeners stay open: nothing that comes after may get their numbers, which the sandbox goes by.
    drop(connection);
    stopping.send_replace(true);
    let limit = admin.drain_timeout();
    if timeout(limit, all_ended.recv()).await.is_err() {
        tracing::warn!("requests were still in flight at the end of the drain timeout");
    }
    for task in [follower, heart, tidier, certificates] {
        task.abort();
    }
    outcome
}

/// Takes certificates up again, for ever. Without any, SIGHUP has nothing to do.
async fn follow(tls: Option<Tls>, mut hangup: Signal) {
    match tls {
        Some(tls) => tls.follow(hangup).await,
        None => while hangup.recv().await.is_some() {},
    }
}

/// Keeps a timer near. The runtime wakes itself by a system call for each timer that would fire
/// before all others, which without this one is nearly every timeout of every request.
async fn beat(egress: Egress) {
    loop {
        sleep(HEARTBEAT).await;
        egress.sweep();
    }
}

/// Accepts for as long as the socket is a listener.
async fn accept(listener: &Watched, crowd: &Crowd, connection: &Connection) {
    let mut quiet_until_ms = 0;
    loop {
        // First somebody comes, then there is a place for it: nobody is asked to leave for nobody.
        match listener.accept().await {
            Ok(stream) => {
                let Some(seat) = crowd.seat().await else {
                    return;
                };
                tokio::spawn(connection.clone().serve(stream, seat));
            }
            Err(error) if is_the_peers(&error) => {}
            Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => {
                // The socket is the same after a start of this program alone.
                tracing::error!(
                    "a listener was shut down, under every worker that has it: open it anew, with \
                     `systemctl stop 'aex-proxy*'; systemctl start aex.target`, in user mode \
                     `aex daemon stop` and `aex daemon start`"
                );
                return;
            }
            Err(error) => {
                let now_ms = clock::boot_ms();
                if now_ms >= quiet_until_ms {
                    tracing::warn!(%error, "accept failed; tried again until it works");
                    quiet_until_ms = now_ms.saturating_add(TOLD_FOR_MS);
                }
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

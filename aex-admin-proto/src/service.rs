//! What a program has from the service manager that started it, and what it tells it: listening Unix
//! sockets by name (`sd_listen_fds(3)`), readiness and a watchdog's heartbeat (`sd_notify(3)`).
//!
//! Everything here does nothing where there is no service manager. Absent on purpose: the manager's own
//! protocol, which is the crates `listenfd`'s and `sd-notify`'s, and TCP listeners, which are
//! `aex-proxy`'s.

use std::io;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use listenfd::ListenFd;
use nix::unistd::User;
use sd_notify::NotifyState;

/// Names of the sockets that were handed over, `:` between them.
const NAMES: &str = "LISTEN_FDNAMES";
/// The heart beats three times in the time after which the manager takes the program for dead.
const BEATS: u32 = 3;

/// The Unix listeners that were handed over, by `FileDescriptorName=`. None outside of a service.
///
/// # Errors
/// Something else than a Unix listener was handed over.
pub fn unix_listeners() -> io::Result<Vec<(String, UnixListener)>> {
    let names = std::env::var(NAMES).unwrap_or_default();
    let mut handed = ListenFd::from_env();
    let mut listeners = Vec::with_capacity(handed.len());
    let mut names = names.split(':');
    for index in 0..handed.len() {
        let name = names.next().unwrap_or_default();
        let listener = (handed.take_unix_listener(index))
            .map_err(|error| io::Error::new(error.kind(), format!("socket {name}: {error}")))?;
        listeners.extend(listener.map(|listener| (name.to_owned(), listener)));
    }
    Ok(listeners)
}

/// The uid of a user of this host.
///
/// # Errors
/// There is none of that name.
pub fn uid_of(user: &str) -> io::Result<u32> {
    match User::from_name(user) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err(io::Error::other(format!(
            "there is no user {user}: the package makes it (sysusers.d/aex.conf)"
        ))),
        Err(errno) => Err(io::Error::other(format!(
            "cannot look up user {user}: {errno}"
        ))),
    }
}

/// Says that requests would be answered.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Says that the program is on its way out, in order.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        eprint_once(&error);
    }
}

/// The manager will take the program for one that never came up; nobody else hears of it here.
#[expect(clippy::print_stderr, reason = "a service's stderr is its journal")]
fn eprint_once(error: &io::Error) {
    eprintln!("cannot tell the service manager: {error}");
}

/// Tells a watchdog that the program lives, for as long as `is_alive` answers. For ever; where there is
/// no watchdog it only waits.
pub async fn beat(is_alive: impl AsyncFn() -> bool) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let pause = (limit / BEATS).max(Duration::from_millis(10));
    loop {
        if is_alive().await {
            tell(&[NotifyState::Watchdog]);
        }
        tokio::time::sleep(pause).await;
    }
}

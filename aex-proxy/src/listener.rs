//! Takes over the listening sockets that the supervisor or systemd made, TCP and Unix alike.
//!
//! A raw descriptor becomes a socket only in the `listenfd` crate, which reads systemd's protocol
//! from the environment. For `--listen-fd N` the program starts itself again with that environment:
//! the same process, the same arguments, and no unsafe code here. What a descriptor is called does
//! not matter, only what it is. The sockets are other workers' too: once the sandbox is entered nothing can be
//! changed about them, so they are made ready here.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::Command;

use aex_admin_proto::listen::{Listen, Listening};
use listenfd::ListenFd;
use tokio::net::{TcpStream, UnixStream};

const COUNT: &str = "LISTEN_FDS";
const FIRST: &str = "LISTEN_FDS_FIRST_FD";
const PID: &str = "LISTEN_PID";

#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    #[error(
        "no listening socket was handed over; start aex-proxy with --listen-fd N, or as a systemd \
         service with a socket unit (`aex daemon start` does it for you)"
    )]
    None,
    #[error("a descriptor handed over is no listening TCP or Unix socket: {0}")]
    Unusable(io::Error),
    #[error("cannot start again to take the listening socket over: {0}")]
    Again(io::Error),
}

/// One of the places where agents connect to. It never blocks.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn descriptor(&self) -> RawFd {
        match self {
            Self::Tcp(listener) => listener.as_raw_fd(),
            Self::Unix(listener) => listener.as_raw_fd(),
        }
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

/// The listeners at `count` descriptors from `fd` on, or those that systemd handed over.
///
/// # Errors
/// See [`ListenerError`].
pub fn inherited(fd: Option<u16>, count: u16) -> Result<Vec<Listener>, ListenerError> {
    if let Some(fd) = fd
        && !announced(fd, count)
    {
        return Err(ListenerError::Again(start_again(fd, count)));
    }
    let mut found = ListenFd::from_env();
    let taken: Result<Vec<Listener>, ListenerError> =
        (0..found.len()).map(|at| take(&mut found, at)).collect();
    let taken = taken?;
    if taken.is_empty() {
        return Err(ListenerError::None);
    }
    Ok(taken)
}

/// By what kind of socket it is.
fn take(found: &mut ListenFd, at: usize) -> Result<Listener, ListenerError> {
    if let Ok(Some(listener)) = found.take_unix_listener(at) {
        listener
            .set_nonblocking(true)
            .map_err(ListenerError::Unusable)?;
        return Ok(Listener::Unix(listener));
    }
    let tcp = found.take_tcp_listener(at);
    let tcp = tcp.map_err(ListenerError::Unusable)?;
    let tcp = tcp.ok_or(ListenerError::None)?;
    tcp.set_nonblocking(true).map_err(ListenerError::Unusable)?;
    Ok(Listener::Tcp(tcp))
}

/// Which descriptors they are: handed over one after the other.
#[must_use]
pub fn descriptors(listeners: &[Listener]) -> Option<RangeInclusive<u32>> {
    let all = || listeners.iter().map(Listener::descriptor);
    let (first, last) = (all().min()?, all().max()?);
    Some(u32::try_from(first).ok()?..=u32::try_from(last).ok()?)
}

/// The environment already names these descriptors, for this process.
fn announced(fd: u16, count: u16) -> bool {
    let is = |name: &str, value: String| std::env::var(name).is_ok_and(|set| set == value);
    is(FIRST, fd.to_string())
        && is(PID, std::process::id().to_string())
        && is(COUNT, count.to_string())
}

/// Replaces the program by itself with the descriptors announced. Comes back only with an error.
fn start_again(fd: u16, count: u16) -> io::Error {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return error,
    };
    Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(COUNT, count.to_string())
        .env(FIRST, fd.to_string())
        .env(PID, std::process::id().to_string())
        .exec()
}

/// Where they are, as the kernel is told. One without an address that can be written is left out.
pub(crate) fn told(listeners: &[Listener], is_tls: bool) -> Vec<Listening> {
    let each = listeners.iter().filter_map(|listener| match listener {
        Listener::Tcp(listener) => Some(Listening {
            at: Listen::Tcp(listener.local_addr().ok()?),
            tls: is_tls,
        }),
        Listener::Unix(listener) => {
            let path = listener.local_addr().ok()?.as_pathname()?.to_owned();
            let at = format!("unix:{}", path.to_str()?).parse().ok()?;
            Some(Listening { at, tls: false })
        }
    });
    each.collect()
}

/// A listener that the runtime watches.
pub(crate) enum Watched {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

/// A connection, before a byte of it was read.
pub(crate) enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Watched {
    pub(crate) fn new(listener: Listener) -> io::Result<Self> {
        Ok(match listener {
            Listener::Tcp(listener) => Self::Tcp(tokio::net::TcpListener::from_std(listener)?),
            Listener::Unix(listener) => Self::Unix(tokio::net::UnixListener::from_std(listener)?),
        })
    }

    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        Ok(match self {
            Self::Tcp(listener) => Accepted::Tcp(listener.accept().await?.0),
            Self::Unix(listener) => Accepted::Unix(listener.accept().await?.0),
        })
    }
}

/// Whether whoever connects there is on this host for certain. An unspecified address is every one of it.
#[must_use]
pub fn is_local(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_local() {
        for (address, local) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("[::ffff:0.0.0.0]:1", false),
            ("[::ffff:10.0.0.1]:1", false),
            ("10.0.0.1:1", false),
            ("[fe80::1]:1", false),
        ] {
            assert_eq!(is_local(&address.parse().unwrap()), local, "{address}");
        }
    }
}

//! Takes over the listening socket that the supervisor or systemd made.
//!
//! A raw descriptor becomes a socket only in the `listenfd` crate, which reads systemd's protocol
//! from the environment. For `--listen-fd N` the program starts itself again with that environment:
//! the same process, the same arguments, and no unsafe code here.

use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::Command;

use listenfd::ListenFd;

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
    #[error("the descriptor handed over is no listening TCP socket: {0}")]
    Unusable(io::Error),
    #[error("cannot start again to take the listening socket over: {0}")]
    Again(io::Error),
}

/// The listener at descriptor `fd`, or the one that systemd handed over.
///
/// # Errors
/// See [`ListenerError`].
pub fn inherited(fd: Option<u16>) -> Result<TcpListener, ListenerError> {
    if let Some(fd) = fd
        && !announced(fd)
    {
        return Err(ListenerError::Again(start_again(fd)));
    }
    ListenFd::from_env()
        .take_tcp_listener(0)
        .map_err(ListenerError::Unusable)?
        .ok_or(ListenerError::None)
}

/// The environment already names this descriptor, for this process.
fn announced(fd: u16) -> bool {
    let is = |name: &str, value: String| std::env::var(name).is_ok_and(|set| set == value);
    is(FIRST, fd.to_string()) && is(PID, std::process::id().to_string()) && is(COUNT, "1".into())
}

/// Replaces the program by itself with the descriptor announced. Comes back only with an error.
fn start_again(fd: u16) -> io::Error {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return error,
    };
    Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(COUNT, "1")
        .env(FIRST, fd.to_string())
        .env(PID, std::process::id().to_string())
        .exec()
}

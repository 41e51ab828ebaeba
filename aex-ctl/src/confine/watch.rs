//! Runs one child to its end, with one thread: hands on the signals that are sent, and, as the first
//! process of its namespace, reaps what others left behind.

use std::io;
use std::process::Command;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::failed;
use crate::commands::run::cannot_run;
use crate::fault::Fault;

const HANDED_ON: [Signal; 6] = [
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Its exit code, or 128 and the signal that ended it.
pub(super) fn to_the_end(command: &mut Command) -> Result<u8, Fault> {
    let mut watched = SigSet::from_iter(HANDED_ON);
    watched.add(Signal::SIGCHLD);
    let cannot_watch = |errno: Errno| failed("watch the command", errno.into());
    // The child inherits this: the last stage empties its mask.
    watched.thread_block().map_err(cannot_watch)?;
    let signals = SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC).map_err(cannot_watch)?;
    let child = command
        .spawn()
        .map_err(|error| cannot_run(command.get_program(), &error))?;
    let child = i32::try_from(child.id())
        .map(Pid::from_raw)
        .map_err(|_| failed("watch the command", io::Error::other("its pid is none")))?;
    loop {
        if let Some(code) = reap(child).map_err(cannot_watch)? {
            return Ok(code);
        }
        let told = match signals.read_signal() {
            Ok(Some(told)) => told,
            Ok(None) | Err(Errno::EINTR) => continue,
            Err(errno) => return Err(cannot_watch(errno)),
        };
        // What the terminal itself sent reached the command already.
        let by_terminal = told.ssi_code == libc::SI_KERNEL;
        let signal = i32::try_from(told.ssi_signo).ok();
        if let Some(signal) = signal.and_then(|number| Signal::try_from(number).ok())
            && signal != Signal::SIGCHLD
            && !by_terminal
        {
            // Not reaped yet, so the pid is the command's.
            let _ = kill(child, signal);
        }
    }
}

/// All that have ended; the code of `child` when it is among them.
fn reap(child: Pid) -> Result<Option<u8>, Errno> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == child => {
                code = Some(u8::try_from(status & 0xff).unwrap_or(u8::MAX));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                code = Some(u8::try_from(128 + signal as i32).unwrap_or(u8::MAX));
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(code),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

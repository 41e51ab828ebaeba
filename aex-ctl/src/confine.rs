//! `aex run --confine`: the command in namespaces of its own, where AEX is not to be found.
//!
//! Two helpers, both this program again and both with one thread, since a process with more cannot enter
//! a user namespace. The *outer* enters a user, a mount and a process namespace in which it is root, and
//! hides what is AEX's. The *inner* is the first process of that process namespace: it mounts a `/proc`
//! that shows nobody else, enters a second user namespace in which the caller is himself again, gives up
//! every capability, and runs the command. The mounts belong to the first namespace, so nothing in the
//! second can undo them; when the inner ends, the kernel ends all that the command left behind. Each ends
//! with the one that started it. A third stage only lets go of the signals that the inner blocks, and
//! becomes the command.
//!
//! Absent on purpose: tokens, and any talk with the kernel of AEX. Every step that fails ends it with 125
//! before the command was started.

mod hidden;
mod kernel_files;
mod mounts;
mod places;
mod sockets;
mod terminals;
mod watch;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use caps::CapSet;
use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{getegid, geteuid};

use crate::args::{ConfinedArgs, Stage};
use crate::fault::{Fault, RUN_FAILED};
use crate::link::Kernel;
use crate::supervisor::close_inherited;

/// What a confined command is to be kept from, and what not.
pub(crate) struct Bounds<'a> {
    pub(crate) kernel: &'a Kernel,
    /// Of the kernel that it is charged by.
    pub(crate) ledger: &'a Path,
    /// Where its requests go, if that is a socket.
    pub(crate) way: Option<PathBuf>,
    /// Sockets that it may use all the same.
    pub(crate) allowed: &'a [PathBuf],
}

/// The command line by which `aex run` starts the outer helper.
pub(crate) fn wrap(bounds: &Bounds<'_>, command: &[OsString]) -> Result<Command, Fault> {
    let hidden = places::of_aex(bounds.kernel, bounds.ledger)?;
    let mut helper = Command::new("/proc/self/exe");
    helper.args(["confined", "--stage", "outer", "--parent"]);
    helper.arg(own_pid()?);
    for path in &hidden {
        helper.arg("--hide").arg(path);
    }
    if let Some(way) = &bounds.way {
        can_reach(way, &hidden)?;
    }
    let kept = [places::of_tls(bounds.kernel), places::programs()].concat();
    let seen = kept.iter().filter(|path| !places::is_hidden(path, &hidden));
    for path in bounds.way.iter().chain(seen) {
        helper.arg("--hold").arg(path);
    }
    for path in bounds.allowed {
        can_reach(path, &hidden)?;
        if !path
            .canonicalize()
            .is_ok_and(|real| sockets::is_socket(&real))
        {
            return Err(command_fault(format!(
                "--allow-socket {}: there is no socket",
                path.display()
            )));
        }
        helper.arg("--allow-socket").arg(path);
    }
    helper.arg("--").args(command);
    Ok(helper)
}

/// A run that is to speak through a socket that is hidden from it could not speak at all.
fn can_reach(path: &Path, hidden: &[PathBuf]) -> Result<(), Fault> {
    if !places::is_hidden(path, hidden) {
        return Ok(());
    }
    Err(command_fault(format!(
        "{} is hidden from the command, and it is to use it: keep it outside of AEX_HOME; for its requests \
         let the daemon listen elsewhere as well, by `aex daemon start --listen unix:PATH`",
        path.display()
    )))
}

/// Runs as one of the helpers, until the command has ended.
pub(crate) fn run(args: &ConfinedArgs) -> Result<u8, Fault> {
    close_inherited();
    match args.stage {
        Stage::Outer => outer(args),
        Stage::Inner => inner(args),
        Stage::Command => command(args),
    }
}

fn outer(args: &ConfinedArgs) -> Result<u8, Fault> {
    end_with(args)?;
    no_directories()?;
    let here = std::env::current_dir().map_err(|error| failed("find this directory", error))?;
    let uid = geteuid();
    let gid = getegid();
    let pid = own_pid()?;
    // While this is the caller still.
    places::make_ways_out(uid.as_raw());
    let flags = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC;
    unshare(flags).map_err(|errno| no_namespaces("enter namespaces", errno.into()))?;
    map_ids(&format!("0 {uid} 1"), &format!("0 {gid} 1"))?;
    // Nothing that is mounted from now on is seen outside.
    mount(
        None,
        Path::new("/"),
        None,
        MsFlags::MS_SLAVE | MsFlags::MS_REC,
    )?;
    hidden::hide(args, uid.as_raw())?;
    kernel_files::read_only()?;
    if uid.is_root() {
        kernel_files::programs_read_only()?;
    }
    // By its path once more: the old way to it would lead past what hides it.
    std::env::set_current_dir(&here).map_err(|_| {
        command_fault(format!(
            "{} is hidden from the command: start it from another directory",
            here.display()
        ))
    })?;
    let mut inner = Command::new("/proc/self/exe");
    inner.args(["confined", "--stage", "inner", "--parent"]);
    inner.arg(pid).arg("--").args(&args.command);
    inner.env("AEX_CONFINED_IDS", format!("{uid} {gid}"));
    watch::to_the_end(&mut inner)
}

fn inner(args: &ConfinedArgs) -> Result<u8, Fault> {
    end_with(args)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), Path::new("/proc"), Some("proc"), flags)?;
    kernel_files::no_control_groups_below()?;
    kernel_files::proc_read_only()?;
    let ids = std::env::var("AEX_CONFINED_IDS").unwrap_or_default();
    let (uid, gid) = ids
        .split_once(' ')
        .ok_or_else(|| command_fault("`aex confined` is for `aex run --confine` alone".into()))?;
    unshare(CloneFlags::CLONE_NEWUSER)
        .map_err(|errno| no_namespaces("enter a second user namespace", errno.into()))?;
    map_ids(&format!("{uid} 0 1"), &format!("{gid} 0 1"))?;
    // Also where the caller is root: without these a program gains none by being run.
    for set in [CapSet::Bounding, CapSet::Ambient, CapSet::Inheritable] {
        caps::clear(None, set)
            .map_err(|error| command_fault(format!("cannot give up capabilities: {error}")))?;
    }
    aex_sandbox::hold_command().map_err(|error| command_fault(error.to_string()))?;
    // A change of rights may have undone it.
    if prctl::get_pdeathsig() != Ok(Some(Signal::SIGKILL)) {
        return Err(command_fault(
            "the command would outlive `aex run`: the kernel forgot with whom it ends".into(),
        ));
    }
    let mut command = Command::new("/proc/self/exe");
    command.args(["confined", "--stage", "command", "--"]);
    command.args(&args.command);
    command.env_remove("AEX_CONFINED_IDS");
    for name in places::WAYS_OUT {
        command.env_remove(name);
    }
    watch::to_the_end(&mut command)
}

/// Becomes the command, with no signal blocked.
fn command(args: &ConfinedArgs) -> Result<u8, Fault> {
    SigSet::empty()
        .thread_set_mask()
        .map_err(|errno| failed("let signals through", errno.into()))?;
    let mut command = crate::commands::run::child_of(&args.command)?;
    let error = command.exec();
    Err(crate::commands::run::cannot_run(
        command.get_program(),
        &error,
    ))
}

/// This process, as the `/proc` that is mounted counts: a helper in a namespace of its own reads its
/// parent's number there too.
fn own_pid() -> Result<OsString, Fault> {
    fs::read_link("/proc/self")
        .map(PathBuf::into_os_string)
        .map_err(|error| failed("read /proc", error))
}

/// However the parent ends, so does this.
fn end_with(args: &ConfinedArgs) -> Result<(), Fault> {
    prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|errno| failed("watch over the parent", errno.into()))?;
    // It may have ended before.
    let status =
        fs::read_to_string("/proc/self/status").map_err(|error| failed("read /proc", error))?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    if parent.map(str::trim) == args.parent.as_deref() {
        return Ok(());
    }
    Err(command_fault(
        "`aex confined` is for `aex run --confine` alone, which has ended".into(),
    ))
}

/// One id alone: what an ordinary user may map.
fn map_ids(uids: &str, gids: &str) -> Result<(), Fault> {
    for (file, text) in [("setgroups", "deny"), ("uid_map", uids), ("gid_map", gids)] {
        let written = fs::write(Path::new("/proc/self").join(file), text);
        match written {
            Ok(()) => {}
            // In a namespace below one that denies it already.
            Err(_) if file == "setgroups" && denies_groups() => {}
            Err(error) => return Err(no_namespaces(&format!("write {file}"), error)),
        }
    }
    Ok(())
}

fn denies_groups() -> bool {
    fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny")
}

/// A directory that is handed over by a descriptor would be a way past the mounts.
fn no_directories() -> Result<(), Fault> {
    let streams = [fstat(io::stdin()), fstat(io::stdout()), fstat(io::stderr())];
    let is_directory =
        |mode: u32| SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR;
    if streams
        .iter()
        .flatten()
        .any(|stat| is_directory(stat.st_mode))
    {
        return Err(command_fault(
            "a directory is open as standard input, output or error: give it another".into(),
        ));
    }
    Ok(())
}

fn mount(
    source: Option<&str>,
    target: &Path,
    kind: Option<&str>,
    flags: MsFlags,
) -> Result<(), Fault> {
    nix::mount::mount(source, target, kind, flags, None::<&str>)
        .map_err(|errno| no_namespaces(&format!("mount {}", target.display()), errno.into()))
}

fn failed(doing: &str, error: io::Error) -> Fault {
    command_fault(format!("cannot {doing}: {error}"))
}

fn no_namespaces(doing: &str, error: io::Error) -> Fault {
    command_fault(format!(
        "cannot {doing}: {error}. --confine needs user namespaces, and CMD was not started without \
         them: a kernel's administrator allows them by sysctl user.max_user_namespaces=10000, on \
         Debian also kernel.unprivileged_userns_clone=1, on Ubuntu also \
         kernel.apparmor_restrict_unprivileged_userns=0; a container must allow them and show all of \
         /proc"
    ))
}

fn command_fault(message: String) -> Fault {
    Fault::Command {
        exit: RUN_FAILED,
        message: format!("--confine: {message}"),
    }
}

/// Paths that are there and that nothing above them in the list hides already.
fn outermost(mut paths: Vec<PathBuf>) -> Vec<PathBuf> {
    paths.sort();
    paths.dedup();
    let all = paths.clone();
    paths.retain(|path| {
        !all.iter()
            .any(|other| other != path && path.starts_with(other))
    });
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_a_hidden_directory_is_not_hidden_twice() {
        let paths = ["/a/b", "/a", "/ab", "/a", "/c/d"].map(PathBuf::from);
        let left = outermost(paths.into());
        assert_eq!(left, ["/a", "/ab", "/c/d"].map(PathBuf::from));
    }
}

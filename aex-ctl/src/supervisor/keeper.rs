//! One program kept running: started, waited for, started again after a back-off, ended on request.

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use aex_admin_proto::clock;
use aex_admin_proto::operator::Front;
use aex_admin_proto::places::Places;
use command_fds::{CommandFdExt, FdMapping};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use secrecy::ExposeSecret;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::backoff::Backoff;
use super::listeners::Listeners;
use super::plan::{INHERITED_FD, Keys, Program, environment};
use super::state::pid_file;
use crate::args::front_options;
use crate::home;

/// A log longer than this is put aside, once, when its program starts.
const MAX_LOG_BYTES: u64 = 32 * 1024 * 1024;
/// How much of a log's end is read for its last lines.
const LOG_END_BYTES: u64 = 8 * 1024;

/// What every program is started from.
#[derive(Debug)]
pub(super) struct Kit {
    pub(super) places: Places,
    /// The directory of the programs.
    pub(super) programs: PathBuf,
    pub(super) keys: Keys,
    pub(super) listeners: Listeners,
    /// On what terms workers take TCP.
    pub(super) front: Front,
}

/// A program ended by itself, or could not be started.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) program: Program,
    pub(super) how: String,
}

/// A program that is kept running until [`Keeper::end`].
pub(super) struct Keeper {
    pub(super) program: Program,
    /// Nothing while it runs; then how long its end may take.
    limit_ms: watch::Sender<Option<u64>>,
    task: JoinHandle<()>,
}

impl Keeper {
    pub(super) fn start(kit: Arc<Kit>, program: Program, ended: mpsc::Sender<Ended>) -> Self {
        let (limit_ms, order) = watch::channel(None);
        Self {
            program,
            limit_ms,
            task: tokio::spawn(keep(kit, program, order, ended)),
        }
    }

    /// Asks for the end; asked again, the new limit counts from then.
    pub(super) fn end(&self, limit_ms: u64) {
        self.limit_ms.send_replace(Some(limit_ms));
    }

    /// Returns when the program has ended after [`Keeper::end`].
    pub(super) async fn ended(&mut self) {
        // The task neither panics nor is aborted; if it were, the program is not kept any more.
        let _ = (&mut self.task).await;
    }
}

async fn keep(
    kit: Arc<Kit>,
    program: Program,
    mut order: watch::Receiver<Option<u64>>,
    ended: mpsc::Sender<Ended>,
) {
    let name = program.instance();
    let file = pid_file(&kit.places, program);
    let mut backoff = Backoff::default();
    loop {
        let began_ms = clock::boot_ms();
        let how = match spawn(&kit, program) {
            Ok(mut child) => {
                note_pid(&file, &child);
                let end = tokio::select! {
                    end = child.wait() => Some(end),
                    () = asked(&mut order) => None,
                };
                let Some(end) = end else {
                    tracing::info!("{name} is asked to end");
                    terminate(&mut child, &mut order).await;
                    let _ = fs::remove_file(&file);
                    return;
                };
                let _ = fs::remove_file(&file);
                end.map_or_else(|error| error.to_string(), |status| status.to_string())
            }
            Err(error) => format!("cannot be started: {error}"),
        };
        let wait_ms = backoff.after_ms(clock::boot_ms().saturating_sub(began_ms));
        tracing::warn!("{name} ended ({how}); starts again in {wait_ms} ms");
        // A full queue only costs the count of one end.
        let _ = ended.try_send(Ended { program, how });
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
            () = asked(&mut order) => return,
        }
    }
}

async fn asked(order: &mut watch::Receiver<Option<u64>>) {
    // A keeper that was dropped without an order is one that should end.
    let _ = order.wait_for(Option::is_some).await;
}

/// SIGTERM, then patience, then SIGKILL. A new order sets the patience anew.
async fn terminate(child: &mut Child, order: &mut watch::Receiver<Option<u64>>) {
    signal(child, Signal::SIGTERM);
    loop {
        let limit_ms = order.borrow_and_update().unwrap_or(0);
        tokio::select! {
            _ = child.wait() => return,
            () = tokio::time::sleep(Duration::from_millis(limit_ms)) => break,
            Ok(()) = order.changed() => {}
        }
    }
    tracing::warn!("it did not end in time and is killed");
    signal(child, Signal::SIGKILL);
    let _ = child.wait().await;
}

fn signal(child: &Child, signal: Signal) {
    // There is an id until the child was waited for, and until then the pid is its own.
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

fn note_pid(file: &Path, child: &Child) {
    let pid = child.id().unwrap_or_default();
    if let Err(error) = home::replace(file, format!("{pid}\n").as_bytes()) {
        tracing::warn!("cannot write {}: {error}", file.display());
    }
}

fn spawn(kit: &Kit, program: Program) -> std::io::Result<Child> {
    let log = open_log(&log_file(&kit.places, program))?;
    let mut command = std::process::Command::new(kit.programs.join(program.binary()));
    command
        .args(arguments(kit, program))
        .env_clear()
        .envs(environment(
            program,
            kit.places.home.as_os_str(),
            std::env::vars_os(),
        ))
        .current_dir(&kit.places.home)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C in the supervisor's terminal must not reach it: it is asked to end in its turn.
        .process_group(0);
    let mappings = (INHERITED_FD..).zip(inherited(kit, program)?);
    let mappings = mappings.map(|(child_fd, parent_fd)| FdMapping {
        parent_fd,
        child_fd,
    });
    command
        .fd_mappings(mappings.collect())
        .map_err(std::io::Error::other)?;
    Command::from(command).spawn()
}

fn arguments(kit: &Kit, program: Program) -> Vec<OsString> {
    let mut arguments = program.arguments(kit.listeners.sockets().len());
    if let Program::Proxy(_) = program {
        arguments.extend(front_options(&kit.front));
    }
    arguments
}

/// What a program finds from [`INHERITED_FD`] on: workers the listeners, the egress the keys, in a pipe
/// that is written and closed before it begins.
fn inherited(kit: &Kit, program: Program) -> std::io::Result<Vec<OwnedFd>> {
    match program {
        Program::Admin => Ok(Vec::new()),
        Program::Proxy(_) => kit
            .listeners
            .sockets()
            .iter()
            .map(OwnedFd::try_clone)
            .collect(),
        Program::Egress => {
            let (reader, mut writer) = std::io::pipe()?;
            writer.write_all(kit.keys.lines().expose_secret().as_bytes())?;
            Ok(vec![reader.into()])
        }
    }
}

pub(super) fn log_file(places: &Places, program: Program) -> PathBuf {
    places.logs.join(format!("{}.log", program.instance()))
}

/// For appending; what has grown too long becomes `NAME.log.1`.
pub(crate) fn open_log(path: &Path) -> std::io::Result<fs::File> {
    if fs::metadata(path).is_ok_and(|meta| meta.len() > MAX_LOG_BYTES) {
        let mut aside = path.as_os_str().to_owned();
        aside.push(".1");
        fs::rename(path, aside)?;
    }
    home::open_log(path)
}

/// The last lines of a log that were written after `from_bytes`.
pub(crate) fn last_lines(path: &Path, from_bytes: u64, count: usize) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = fs::File::open(path)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(
            from_bytes.max(end.saturating_sub(LOG_END_BYTES)),
        ))?;
        let mut bytes = Vec::new();
        file.take(LOG_END_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

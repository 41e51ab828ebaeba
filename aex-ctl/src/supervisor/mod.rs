//! `aex daemon`: the supervisor of user mode.
//!
//! Owns: the agents' listeners (a crash of a worker frees no port and drops no queued connection),
//! the provider keys of the operator's environment on their way to the egress, the lock of the
//! home, and the life of the other programs.
//!
//! Absent on purpose: traffic, ledger, configuration. It reads none of them; `aex-admin` is asked
//! whether the configuration is good.

mod backoff;
pub(crate) mod check;
mod family;
mod keeper;
pub(crate) mod listeners;
mod lock;
mod plan;
mod process;
pub(crate) mod ready;
mod state;

use std::time::Duration;

use aex_admin_proto::operator::DaemonState;
use aex_admin_proto::places::Places;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::Plan;
use crate::fault::Fault;
use crate::home;
use family::{Family, Waited};
use keeper::Kit;
use listeners::Listeners;
use lock::{Attempt, Lock};
use plan::Keys;

pub(crate) use keeper::{last_lines, open_log};
pub(crate) use state::{Phase, ProgramState, StateFile, left_running, program_states, running};

/// Descriptors that a program may open, where the system allows it: connections of workers.
const DESCRIPTORS: u64 = 65_536;
/// Tries for the lock: a look by `aex daemon status` holds it for a moment.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// What an orphan of an earlier supervisor gets to finish.
const ORPHAN_LIMIT_MS: u64 = 10_000;

/// How a supervisor's start came out.
pub(crate) enum Started {
    Ready(DaemonState),
    AlreadyRunning(Option<i32>),
}

/// Supervises until it is told to stop. `tell` hears the outcome of the start once.
pub(crate) async fn supervise(
    plan: &Plan,
    places: &Places,
    tell: impl AsyncFnOnce(Started) -> Result<(), Fault>,
) -> Result<(), Fault> {
    harden()?;
    let signals = Signals::take()?;
    home::make_directories(places)?;
    let mut lock = match take_lock(places).await? {
        Attempt::Taken(lock) => lock,
        Attempt::Held(pid) => return tell(Started::AlreadyRunning(pid)).await,
    };
    lock.write_pid()
        .map_err(|error| Fault::file("write", &places.daemon_pid(), &error))?;
    let done = under_lock(plan, places, signals, tell).await;
    remove_traces(places);
    lock.release();
    done
}

async fn under_lock(
    plan: &Plan,
    places: &Places,
    mut signals: Signals,
    tell: impl AsyncFnOnce(Started) -> Result<(), Fault>,
) -> Result<(), Fault> {
    end_orphans(places).await;
    let programs = find_programs()?;
    check_config(places).await?;
    check::front(plan).await?;
    let listeners = Listeners::bind(plan, places)?;
    let probe = listeners.probe();
    let keys = Keys::from_environment(std::env::vars_os());
    for note in &keys.notes {
        tracing::warn!("{note}");
    }
    let (all, workers) = (listeners.all(), plan.workers);
    let spoken = if plan.front.tls.is_some() {
        "TLS"
    } else {
        "plain HTTP"
    };
    tracing::info!(
        keys = ?keys.names(),
        "listening on {} ({spoken}) with {workers} workers",
        all.join(", ")
    );
    let mut state = StateFile {
        daemon: DaemonState {
            pid: std::process::id(),
            listen: listeners.first(),
            workers,
            listeners: all,
            front: plan.front.clone(),
        },
        phase: Phase::Starting,
        restarts: 0,
        problem: None,
    };
    state.write(places)?;
    let kit = Kit {
        places: places.clone(),
        programs,
        keys,
        listeners,
        front: plan.front.clone(),
    };
    let mut family = Family::start(kit, workers);
    let begun = match family.wait_ready(&probe, &mut signals).await {
        Waited::Ready => {
            state.phase = Phase::Ready;
            match state.write(places) {
                Ok(()) => tell(Started::Ready(state.daemon.clone())).await,
                Err(fault) => Err(fault),
            }
        }
        Waited::ToldToStop => Err(Fault::failed("told to stop before the kernel was ready")),
        Waited::Failed(why) => Err(Fault::Failed(why)),
    };
    if let Err(fault) = begun {
        family.abandon().await;
        return Err(fault);
    }
    tracing::info!("ready");
    serve(&mut family, &mut state, &probe, places, &mut signals).await;
    state.phase = Phase::Stopping;
    let _ = state.write(places);
    family.stop(&mut signals).await;
    tracing::info!("stopped");
    Ok(())
}

/// Until it is told to stop; restarts everything in order when it is told to.
async fn serve(
    family: &mut Family,
    state: &mut StateFile,
    probe: &str,
    places: &Places,
    signals: &mut Signals,
) {
    loop {
        tokio::select! {
            told = signals.next() => match told {
                Told::Stop => return,
                Told::Restart => {}
            },
            () = family.drain_ends() => continue,
            () = ready::becomes_ready(probe), if state.phase == Phase::Failing => {
                tracing::info!("ready again");
                state.phase = Phase::Ready;
                state.problem = None;
                let _ = state.write(places);
                continue;
            }
        }
        tracing::info!("restart");
        let good = async {
            check_config(places).await?;
            check::is_taken_up(places).await
        };
        state.problem = match good.await {
            Err(fault) => Some(format!(
                "at the last `aex daemon restart`: not restarted, the old programs go on: {fault}"
            )),
            Ok(()) => {
                state.phase = Phase::Restarting;
                let _ = state.write(places);
                if !family.restart(signals).await {
                    return;
                }
                match family.wait_ready(probe, signals).await {
                    Waited::Ready => None,
                    Waited::ToldToStop => return,
                    Waited::Failed(why) => Some(why),
                }
            }
        };
        state.restarts += 1;
        state.phase = match (&state.problem, state.phase) {
            (Some(problem), phase) => {
                tracing::error!("{problem}");
                if phase == Phase::Restarting {
                    Phase::Failing
                } else {
                    phase
                }
            }
            (None, _) => Phase::Ready,
        };
        if let Err(fault) = state.write(places) {
            tracing::error!("{fault}");
        }
    }
}

/// Names of the provider keys in this process's environment.
pub(crate) fn key_names() -> Vec<String> {
    let keys = Keys::from_environment(std::env::vars_os());
    keys.names().into_iter().map(str::to_owned).collect()
}

/// Closes what the caller left open beyond standard input and output: the programs would inherit it.
pub(crate) fn close_inherited() {
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let open: Vec<i32> = open
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in open {
        // One of them was the listing itself, which is closed by now.
        let _ = nix::unistd::close(fd);
    }
}

/// Before anything secret is touched: no core, no ptrace or /proc by the same user, private files.
fn harden() -> Result<(), Fault> {
    let cannot = |what: &str, errno: nix::Error| Fault::failed(format!("cannot {what}: {errno}"));
    nix::sys::prctl::set_dumpable(false).map_err(|e| cannot("hide this process's memory", e))?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(|e| cannot("switch core files off", e))?;
    umask(Mode::from_bits_truncate(0o077));
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)
        .map_err(|e| cannot("read the limit of descriptors", e))?;
    let wanted = hard.min(DESCRIPTORS).max(soft);
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)
        .map_err(|e| cannot("raise the limit of descriptors", e))
}

async fn take_lock(places: &Places) -> Result<Attempt, Fault> {
    let path = places.daemon_pid();
    let attempt = || Lock::attempt(&path).map_err(|error| Fault::file("lock", &path, &error));
    for _ in 1..LOCK_TRIES {
        if let taken @ Attempt::Taken(_) = attempt()? {
            return Ok(taken);
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    attempt()
}

/// The directory of the programs, when all are there.
fn find_programs() -> Result<std::path::PathBuf, Fault> {
    check::beside("aex-egress")?;
    check::beside("aex-proxy")?;
    let mut directory = check::beside("aex-admin")?;
    directory.pop();
    Ok(directory)
}

/// Whether `aex-admin` would take the configuration as it lies there.
pub(crate) async fn check_config(places: &Places) -> Result<(), Fault> {
    match check::config(&places.config_file).await {
        Ok(check::Checked::Good(summary)) => {
            for warning in summary.warnings {
                tracing::warn!("models.yaml: {warning}");
            }
            Ok(())
        }
        Ok(check::Checked::Bad(problem)) | Err(Fault::NotFound(problem)) => {
            Err(Fault::Failed(problem))
        }
        Err(fault) => Err(fault),
    }
}

/// Ends the programs that a supervisor which was killed has left, and names them. Needs the lock.
async fn end_orphans(places: &Places) -> Vec<String> {
    let mut ended = Vec::new();
    for (program, path) in state::pid_files(places) {
        if process::named_by(&path, program.binary()).is_some() {
            tracing::warn!("ending {}, left by an earlier daemon", program.instance());
            ended.push(program.instance());
        }
        process::end(&path, program.binary(), ORPHAN_LIMIT_MS).await;
        let _ = std::fs::remove_file(&path);
    }
    ended
}

/// `aex daemon stop` when no supervisor runs: what one that was killed has left ends too. The names
/// of the programs that it ended.
pub(crate) async fn clean_up(places: &Places) -> Result<Vec<String>, Fault> {
    if !places.run.exists() {
        return Ok(Vec::new());
    }
    let Attempt::Taken(lock) = take_lock(places).await? else {
        return Ok(Vec::new());
    };
    let ended = end_orphans(places).await;
    if let Some(state) = StateFile::read(places) {
        listeners::remove_left(&state.daemon);
    }
    remove_traces(places);
    lock.release();
    Ok(ended)
}

/// Sockets and state; the egress's journal stays, it is evidence.
fn remove_traces(places: &Places) {
    for path in [
        places.operator_socket(),
        places.auditor_socket(),
        places.worker_socket(),
        places.egress_role_socket(),
        places.egress_socket(),
        places.probe_socket(),
        places.daemon_state(),
    ] {
        let _ = std::fs::remove_file(path);
    }
}

/// How long a stop of everything may take, by the configuration in force.
pub(crate) fn stop_limit_ms(places: &Places) -> u64 {
    let config = std::fs::read_to_string(&places.config_file).unwrap_or_default();
    family::stop_limit_ms(plan::drain_timeout_ms(&config))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Stop,
    Restart,
}

/// The orders that come as signals.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    restart: Signal,
}

impl Signals {
    fn take() -> Result<Self, Fault> {
        let on = |kind| {
            signal(kind).map_err(|error| Fault::failed(format!("cannot take signals: {error}")))
        };
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hangup: on(SignalKind::hangup())?,
            restart: on(SignalKind::user_defined2())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            () = stop(&mut self.terminate, &mut self.interrupt, &mut self.hangup) => Told::Stop,
            _ = self.restart.recv() => Told::Restart,
        }
    }

    /// An order to stop; one to restart stays waiting.
    async fn stop(&mut self) {
        stop(&mut self.terminate, &mut self.interrupt, &mut self.hangup).await;
    }
}

async fn stop(terminate: &mut Signal, interrupt: &mut Signal, hangup: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = hangup.recv() => {}
    }
}

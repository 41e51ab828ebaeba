//! `aex daemon start | stop | restart | status`: the side that speaks to the supervisor.

use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use aex_admin_proto::clock;
use aex_admin_proto::operator::DaemonState;
use aex_admin_proto::places::Places;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use super::advice::{KeysOf, about_keys, keys_that_would_be_lost};
use crate::args::{PlaceArgs, Plan, StartArgs};
use crate::fault::Fault;
use crate::home;
use crate::link;
use crate::listen::{Ways, default_base_url};
use crate::output::Out;
use crate::render;
use crate::supervisor::listeners::{could_bind, probe_of};
use crate::supervisor::ready::{Probe, probe};
use crate::supervisor::{self, Phase, StateFile};

const MAX_DEFAULT_WORKERS: usize = 8;
/// The supervisor bounds its own start; this is for one that hangs before it can.
const START_LIMIT: Duration = Duration::from_secs(120);
/// For a start by someone else to come to its end.
const OTHER_START_LIMIT_MS: u64 = 60_000;
const POLL: Duration = Duration::from_millis(30);
const SHOWN_LINES: usize = 5;

/// What the background supervisor says on its standard output, in one line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "start", rename_all = "snake_case")]
enum Report {
    Ready(DaemonState),
    AlreadyRunning { pid: Option<i32> },
    Failed { why: String },
}

pub(super) async fn start(args: StartArgs, out: Out) -> Result<u8, Fault> {
    let places = link::user_places()?;
    let plan = args.place.plan(None, default_workers());
    if args.detached {
        return detached(&plan, &places).await;
    }
    need_config(&places)?;
    if let Some(pid) = supervisor::running(&places)? {
        return already_running(pid, &args.place, &places, out).await;
    }
    supervisor::check::front(&plan).await?;
    warn_of_plain(&plan);
    if args.foreground {
        foreground(&plan, &args.place, &places, out).await
    } else {
        background(&plan, &args.place, &places, out).await
    }
}

fn warn_of_plain(plan: &Plan) {
    for listen in plan.listen.iter().filter(|listen| !listen.is_local()) {
        if plan.front.plain_http {
            Out::complain(&format!(
                "aex: plain HTTP on {listen}: whoever is on the way reads tokens and prompts"
            ));
        }
    }
}

fn default_workers() -> u32 {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(cpus.min(MAX_DEFAULT_WORKERS)).unwrap_or(1)
}

fn need_config(places: &Places) -> Result<(), Fault> {
    let file = &places.config_file;
    let is_there = file.try_exists();
    if is_there.map_err(|error| Fault::file("look at", file, &error))? {
        return Ok(());
    }
    Err(Fault::failed(format!(
        "no configuration at {}: run `aex init` first",
        places.config_file.display()
    )))
}

async fn foreground(
    plan: &Plan,
    asked: &PlaceArgs,
    places: &Places,
    out: Out,
) -> Result<u8, Fault> {
    log_to_stderr();
    let mut other = None;
    supervisor::supervise(plan, places, async |started| match started {
        supervisor::Started::Ready(daemon) => {
            let advice = about_keys(KeysOf::ThisCommand, places).await;
            show_ready(&daemon, false, &advice, out)
        }
        supervisor::Started::AlreadyRunning(pid) => {
            other = Some(pid);
            Ok(())
        }
    })
    .await?;
    match other {
        Some(pid) => already_running(pid, asked, places, out).await,
        None => Ok(0),
    }
}

/// The supervisor behind [`background`]: in a session of its own, its outcome on standard output.
async fn detached(plan: &Plan, places: &Places) -> Result<u8, Fault> {
    let report = Out { json: true };
    // Fails only for the leader of a group, which has no terminal to lose.
    let _ = nix::unistd::setsid();
    log_to_stderr();
    let done = supervisor::supervise(plan, places, async |started| {
        report.document(&match started {
            supervisor::Started::Ready(daemon) => Report::Ready(daemon),
            supervisor::Started::AlreadyRunning(pid) => Report::AlreadyRunning { pid },
        })?;
        // Whoever reads to the end of that pipe must not wait for the daemon's end.
        nix::unistd::dup2_stdout(std::io::stderr())
            .map_err(|errno| Fault::failed(format!("cannot let go of stdout: {errno}")))
    })
    .await;
    if let Err(fault) = &done {
        tracing::error!("{fault}");
        let why = fault.to_string();
        // Nobody may be there to hear it; the log has it too.
        let _ = report.document(&Report::Failed { why });
    }
    Ok(u8::from(done.is_err()))
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("AEX_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A full disk must not end the program: the log's own errors are dropped, not printed.
        .log_internal_errors(false)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

async fn background(
    plan: &Plan,
    asked: &PlaceArgs,
    places: &Places,
    out: Out,
) -> Result<u8, Fault> {
    for done in home::make_directories(places)? {
        Out::complain(&done);
    }
    let log = places.logs.join("daemon.log");
    let from_bytes = std::fs::metadata(&log).map_or(0, |meta| meta.len());
    let mut child = spawn_detached(plan, places, &log)?;
    let report = match hear(&mut child).await {
        Ok(report) => report,
        Err(why) => {
            end(&mut child).await;
            let lines = supervisor::last_lines(&log, from_bytes, SHOWN_LINES);
            return Err(Fault::Failed(
                format!("{why} {lines}").trim_end().to_owned(),
            ));
        }
    };
    match report {
        Report::Ready(daemon) => {
            let advice = about_keys(KeysOf::ThisCommand, places).await;
            show_ready(&daemon, false, &advice, out)?;
            Ok(0)
        }
        Report::AlreadyRunning { pid } => already_running(pid, asked, places, out).await,
        Report::Failed { why } => {
            // It said why, stopped what it had started, and ends now.
            let _ = timeout(START_LIMIT, child.wait()).await;
            Err(Fault::Failed(why))
        }
    }
}

fn spawn_detached(plan: &Plan, places: &Places, log: &Path) -> Result<Child, Fault> {
    let own = std::env::current_exe()
        .map_err(|error| Fault::failed(format!("cannot find this program's own file: {error}")))?;
    let file = supervisor::open_log(log).map_err(|error| Fault::file("open", log, &error))?;
    let mut command = std::process::Command::new(own);
    command
        .arg0("aex")
        .args(["daemon", "start", "--foreground", "--detached"])
        .args(plan.options())
        .env("AEX_HOME", &places.home)
        .current_dir(&places.home)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(file);
    Command::from(command)
        .spawn()
        .map_err(|error| Fault::failed(format!("cannot start the supervisor: {error}")))
}

/// The supervisor's report; interrupted, the start is taken back.
async fn hear(child: &mut Child) -> Result<Report, String> {
    let take = |kind| signal(kind).map_err(|error| format!("cannot take signals: {error}"));
    let mut interrupt = take(SignalKind::interrupt())?;
    let mut terminate = take(SignalKind::terminate())?;
    let stdout = child.stdout.take().ok_or("the supervisor has no output")?;
    let mut lines = BufReader::new(stdout).lines();
    let line = tokio::select! {
        line = timeout(START_LIMIT, lines.next_line()) => line,
        _ = interrupt.recv() => return Err("interrupted: nothing was left running.".into()),
        _ = terminate.recv() => return Err("interrupted: nothing was left running.".into()),
    };
    match line {
        Ok(Ok(Some(line))) => serde_json::from_str(&line)
            .map_err(|_| "the supervisor speaks another language.".into()),
        Ok(_) => Err("the supervisor ended without a word.".into()),
        Err(_) => Err("the supervisor did not come to an end with its start.".into()),
    }
}

/// Asks, waits for it to stop its programs, forces.
async fn end(child: &mut Child) {
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    if timeout(START_LIMIT, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

fn show_ready(
    daemon: &DaemonState,
    already: bool,
    advice: &[String],
    out: Out,
) -> Result<(), Fault> {
    let answer = json!({
        "running": true,
        "already_running": already,
        "pid": daemon.pid,
        "listen": daemon.listen,
        "listeners": daemon.listeners,
        "tls": daemon.front.tls,
        "workers": daemon.workers,
        "base_url": base_url(daemon),
        "warnings": advice,
    });
    out.answer(&answer, || {
        let is = if already {
            "is already running"
        } else {
            "is ready"
        };
        format!(
            "AEX {is} at {} (pid {}, workers: {}){}",
            base_url(daemon),
            daemon.pid,
            daemon.workers,
            further(daemon)
        )
    })?;
    if !out.json {
        for warning in advice {
            Out::complain(&format!("aex: {warning}"));
        }
    }
    Ok(())
}

fn base_url(daemon: &DaemonState) -> String {
    (Ways::of_daemon(daemon).base_url()).unwrap_or_else(default_base_url)
}

/// Where agents connect to besides the first place.
fn further(daemon: &DaemonState) -> String {
    let others = daemon
        .listeners
        .iter()
        .filter(|place| **place != daemon.listen);
    others.map(|place| format!("\nalso on {place}")).collect()
}

/// Done already, once it would answer a request; another start may still be under way.
async fn already_running(
    pid: Option<i32>,
    asked: &PlaceArgs,
    places: &Places,
    out: Out,
) -> Result<u8, Fault> {
    let deadline_ms = clock::boot_ms() + OTHER_START_LIMIT_MS;
    loop {
        let state = StateFile::read(places);
        if let Some(state) = &state
            && probe(&probe_of(&state.daemon, places)).await == Probe::Ready
        {
            if differs(asked, &state.daemon) {
                Out::complain(
                    "aex: the options of this command were not taken: a daemon runs already, with other \
                     listeners, TLS or number of workers. `aex daemon restart` with these options changes them.",
                );
            }
            let advice = about_keys(KeysOf::AnEarlierStart, places).await;
            show_ready(&state.daemon, true, &advice, out)?;
            return Ok(0);
        }
        if supervisor::running(places)?.is_none() {
            return Err(Fault::failed(
                "another daemon was there but has ended: try again, or see `aex daemon logs`",
            ));
        }
        let is_failing = (state.as_ref()).is_some_and(|state| state.phase == Phase::Failing);
        if is_failing || clock::boot_ms() >= deadline_ms {
            let pid = pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
            let why = state
                .and_then(|state| state.problem)
                .unwrap_or_else(|| "see `aex status` and `aex daemon logs`".into());
            return Err(Fault::Failed(format!(
                "a daemon is running{pid} but not ready: {why}\nMend that, then `aex config reload` \
                 or `aex daemon restart`."
            )));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn differs(asked: &PlaceArgs, daemon: &DaemonState) -> bool {
    let workers = asked.workers;
    let listeners: Vec<String> = asked.listen.iter().map(ToString::to_string).collect();
    workers.is_some_and(|workers| workers != daemon.workers)
        || (!listeners.is_empty() && listeners != daemon.listeners)
        || asked.front().is_some_and(|front| front != daemon.front)
}

pub(super) async fn stop(out: Out) -> Result<u8, Fault> {
    let places = link::user_places()?;
    let stopped = stop_running(&places).await?;
    let was_running = matches!(stopped, Stopped::Daemon);
    let orphans = match stopped {
        Stopped::Orphans(names) => names,
        Stopped::Daemon | Stopped::Nothing => Vec::new(),
    };
    let answer = json!({
        "running": false,
        "was_running": was_running,
        "ended_orphans": orphans,
    });
    out.answer(&answer, || {
        if was_running {
            "AEX is stopped.".into()
        } else if orphans.is_empty() {
            "AEX is not running: nothing to stop.".into()
        } else {
            format!(
                "AEX is stopped. Its daemon had been killed; ended what it had left: {}.",
                orphans.join(", ")
            )
        }
    })?;
    if !was_running && let Some(hint) = link::hint_of_the_hosts() {
        Out::complain(hint);
    }
    Ok(0)
}

/// What a stop found.
enum Stopped {
    Daemon,
    /// Programs of a daemon that was killed, by name.
    Orphans(Vec<String>),
    Nothing,
}

/// Requests in flight are finished first.
async fn stop_running(places: &Places) -> Result<Stopped, Fault> {
    if supervisor::running(places)?.is_none() {
        let ended = supervisor::clean_up(places).await?;
        return Ok(if ended.is_empty() {
            Stopped::Nothing
        } else {
            Stopped::Orphans(ended)
        });
    }
    let limit_ms = supervisor::stop_limit_ms(places);
    let deadline_ms = clock::boot_ms() + limit_ms;
    let mut told = None;
    while let Some(pid) = supervisor::running(places)? {
        // A supervisor that has just begun may not have written its pid yet.
        if let Some(pid) = pid
            && told != Some(pid)
        {
            kill(Pid::from_raw(pid), Signal::SIGTERM)
                .map_err(|errno| Fault::Refused(format!("cannot stop pid {pid}: {errno}")))?;
            told = Some(pid);
        }
        if clock::boot_ms() >= deadline_ms {
            return Err(Fault::Failed(format!(
                "still stopping after {} s (pid {told:?}): ask again to cut what is in flight",
                limit_ms / 1000
            )));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(Stopped::Daemon)
}

pub(super) async fn restart(asked: PlaceArgs, out: Out) -> Result<u8, Fault> {
    let places = link::user_places()?;
    let start_args = |place| StartArgs {
        place,
        ..StartArgs::default()
    };
    let Some(pid) = supervisor::running(&places)? else {
        Out::complain(
            "aex: no daemon ran: one is started with the options of this command and the defaults, and nothing \
             is kept of an earlier one.",
        );
        return start(start_args(asked), out).await;
    };
    let (Some(state), Some(pid)) = (StateFile::read(&places), pid) else {
        return Err(Fault::failed(
            "the daemon is only just starting or stopping: try again in a moment",
        ));
    };
    if differs(&asked, &state.daemon) {
        let plan = asked.plan(Some(&state.daemon), default_workers());
        could_replace(&plan, &state.daemon, &places).await?;
        Out::complain(
            "aex: other listeners, TLS or another number of workers need a whole new daemon: provider \
             keys are taken from the environment of this command.",
        );
        stop_running(&places).await?;
        warn_of_plain(&plan);
        return background(&plan, &asked, &places, out).await;
    }
    // A key that replaces one which the daemon has cannot be told from the same key once more.
    if !supervisor::key_names().is_empty() {
        Out::complain(
            "aex: the provider keys of the running daemon are kept; for those of this environment: \
             `aex daemon stop`, then `aex daemon start`.",
        );
    }
    kill(Pid::from_raw(pid), Signal::SIGUSR2)
        .map_err(|errno| Fault::Refused(format!("cannot restart pid {pid}: {errno}")))?;
    let daemon = restarted(&places, state.restarts).await?;
    let advice = about_keys(KeysOf::AnEarlierStart, &places).await;
    show_ready(&daemon, false, &advice, out)?;
    Ok(0)
}

/// Whether a new daemon could take the running one's place, as far as can be known before that one is
/// stopped: its configuration, its address, its keys.
async fn could_replace(plan: &Plan, running: &DaemonState, places: &Places) -> Result<(), Fault> {
    let stays = |fault: Fault| Fault::Failed(format!("not restarted, the daemon goes on: {fault}"));
    supervisor::check_config(places).await.map_err(stays)?;
    supervisor::check::front(plan).await.map_err(stays)?;
    could_bind(&plan.listen, &running.listeners).map_err(stays)?;
    let lost = keys_that_would_be_lost(places).await;
    if !lost.is_empty() {
        return Err(Fault::Refused(format!(
            "not restarted, the daemon goes on: it has keys that this environment lacks. Set {}; \
             or go on without with `aex daemon stop`, then `aex daemon start`.",
            lost.join(", ")
        )));
    }
    supervisor::check::is_taken_up(places).await.map_err(stays)
}

/// Waits until the supervisor has finished one restart more than `before`.
async fn restarted(places: &Places, before: u64) -> Result<DaemonState, Fault> {
    let limit_ms = supervisor::stop_limit_ms(places) + OTHER_START_LIMIT_MS;
    let deadline_ms = clock::boot_ms() + limit_ms;
    loop {
        match StateFile::read(places) {
            Some(state) if state.restarts > before => {
                return match state.problem {
                    Some(problem) => Err(Fault::Failed(problem)),
                    None => Ok(state.daemon),
                };
            }
            _ => {}
        }
        if supervisor::running(places)?.is_none() {
            return Err(Fault::failed(
                "the daemon ended while it was restarted: see `aex daemon logs`",
            ));
        }
        if clock::boot_ms() >= deadline_ms {
            return Err(Fault::failed(format!(
                "not restarted after {} s: see `aex daemon logs`",
                limit_ms / 1000
            )));
        }
        tokio::time::sleep(POLL).await;
    }
}

pub(super) fn status(out: Out) -> Result<u8, Fault> {
    let places = link::user_places()?;
    let Some(pid) = supervisor::running(&places)? else {
        return show_stopped(&places, out);
    };
    let Some(state) = StateFile::read(&places) else {
        out.answer(&json!({"running": true, "pid": pid}), || {
            "AEX is only just starting.".into()
        })?;
        return Ok(0);
    };
    let programs = supervisor::program_states(&places, state.daemon.workers);
    let answer = json!({
        "running": true,
        "pid": pid,
        "phase": state.phase,
        "problem": state.problem,
        "listen": state.daemon.listen,
        "listeners": state.daemon.listeners,
        "base_url": base_url(&state.daemon),
        "workers": state.daemon.workers,
        "programs": programs,
    });
    out.answer(&answer, || {
        let phase = match state.phase {
            Phase::Starting => "starting",
            Phase::Ready => "ready",
            Phase::Restarting => "restarting",
            Phase::Failing => "failing",
            Phase::Stopping => "stopping",
        };
        let problem = state
            .problem
            .as_ref()
            .map_or_else(String::new, |problem| format!("{problem}\n"));
        format!(
            "AEX daemon (pid {}) {phase}, {}{}\n{problem}{}",
            state.daemon.pid,
            base_url(&state.daemon),
            further(&state.daemon),
            render::programs(&programs)
        )
    })?;
    Ok(u8::from(state.phase == Phase::Failing))
}

fn show_stopped(places: &Places, out: Out) -> Result<u8, Fault> {
    let left = supervisor::left_running(places);
    out.answer(&json!({"running": false, "left_running": left}), || {
        if left.is_empty() {
            return "AEX is stopped: start it with `aex daemon start`.".into();
        }
        format!(
            "The daemon was killed and has left {}: `aex daemon start` replaces them, `aex daemon \
             stop` ends them.",
            left.join(", ")
        )
    })?;
    if let Some(hint) = link::hint_of_the_hosts() {
        Out::complain(hint);
    }
    Ok(3)
}

//! What the supervisor writes for others to read: `run/daemon.json`, and a pid file a program.

use std::path::PathBuf;

use aex_admin_proto::operator::DaemonState;
use aex_admin_proto::places::Places;
use serde::{Deserialize, Serialize};

use super::lock::{Attempt, Lock};
use super::plan::Program;
use super::process;
use crate::fault::Fault;
use crate::home;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    Starting,
    Ready,
    Restarting,
    /// Its programs run, but the kernel would not answer a request.
    Failing,
    Stopping,
}

/// `run/daemon.json`: [`DaemonState`], and what a restart waits for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StateFile {
    #[serde(flatten)]
    pub(crate) daemon: DaemonState,
    pub(crate) phase: Phase,
    /// Restarts asked for that are over, well or not.
    pub(crate) restarts: u64,
    /// Why the last restart, or the kernel since, is not well.
    pub(crate) problem: Option<String>,
}

impl StateFile {
    pub(crate) fn read(places: &Places) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(places.daemon_state()).ok()?).ok()
    }

    pub(super) fn write(&self, places: &Places) -> Result<(), Fault> {
        let path = places.daemon_state();
        let text = serde_json::to_vec(self)
            .map_err(|error| Fault::failed(format!("state cannot be written: {error}")))?;
        home::replace(&path, &text).map_err(|error| Fault::file("write", &path, &error))
    }
}

/// One supervised program, as `aex daemon status` shows it.
#[derive(Debug, Serialize)]
pub(crate) struct ProgramState {
    pub(crate) program: String,
    pub(crate) pid: Option<i32>,
    pub(crate) running: bool,
}

pub(super) fn pid_file(places: &Places, program: Program) -> PathBuf {
    places.run.join(format!("{}.pid", program.instance()))
}

/// All programs of this many workers.
pub(super) fn programs(workers: u32) -> impl Iterator<Item = Program> {
    [Program::Admin, Program::Egress]
        .into_iter()
        .chain((1..=workers).map(Program::Proxy))
}

pub(crate) fn program_states(places: &Places, workers: u32) -> Vec<ProgramState> {
    programs(workers)
        .map(|program| {
            let pid = process::named_by(&pid_file(places, program), program.binary());
            ProgramState {
                program: program.instance(),
                pid,
                running: pid.is_some(),
            }
        })
        .collect()
}

/// The pid files that are there, in the order in which their programs stop.
pub(super) fn pid_files(places: &Places) -> Vec<(Program, PathBuf)> {
    let Ok(directory) = std::fs::read_dir(&places.run) else {
        return Vec::new();
    };
    let mut files: Vec<(Program, PathBuf)> = directory
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let instance = path.file_name()?.to_str()?.strip_suffix(".pid")?;
            Some((Program::of_instance(instance)?, path))
        })
        .collect();
    files.sort_by_key(|(program, _)| program.stop_order());
    files
}

/// Programs that run although their supervisor is gone.
pub(crate) fn left_running(places: &Places) -> Vec<String> {
    pid_files(places)
        .into_iter()
        .filter(|(program, path)| process::named_by(path, program.binary()).is_some())
        .map(|(program, _)| program.instance())
        .collect()
}

/// Whether a supervisor runs for this home, and its pid once it is known.
pub(crate) fn running(places: &Places) -> Result<Option<Option<i32>>, Fault> {
    let path = places.daemon_pid();
    let is_there = path.try_exists();
    if !is_there.map_err(|error| Fault::file("look at", &path, &error))? {
        return Ok(None);
    }
    match Lock::attempt(&path).map_err(|error| Fault::file("lock", &path, &error))? {
        Attempt::Held(pid) => Ok(Some(pid)),
        Attempt::Taken(_) => Ok(None),
    }
}

//! Processes as /proc shows them: alive or not, CPU time, memory, command line.

use std::path::PathBuf;

use nix::sys::signal::{self, Signal};
use nix::unistd::{Pid, SysconfVar, sysconf};

fn proc(pid: u32, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{file}"))
}

/// The fields of /proc/PID/stat after the name, which may itself hold spaces.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(proc(pid, "stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// It exists and is not merely waiting to be reaped.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| !matches!(fields[0].as_str(), "Z" | "X"))
}

/// CPU time of all its threads, user and kernel, in milliseconds.
#[must_use]
pub fn cpu_ms(pid: u32) -> Option<u64> {
    let fields = stat(pid)?;
    // Fields 14 and 15 of proc(5), where the state is the third.
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let per_second = sysconf(SysconfVar::CLK_TCK).ok()??;
    Some(ticks * 1000 / u64::try_from(per_second).ok()?)
}

/// A line of /proc/PID/status in kilobytes, as `VmRSS:` or `VmHWM:`.
#[must_use]
pub fn status_kb(pid: u32, line: &str) -> Option<u64> {
    let text = std::fs::read_to_string(proc(pid, "status")).ok()?;
    let found = text.lines().find_map(|l| l.strip_prefix(line))?;
    found.split_whitespace().next()?.parse().ok()
}

/// Its name as the kernel cuts it: 15 bytes.
#[must_use]
pub fn name(pid: u32) -> Option<String> {
    let text = std::fs::read_to_string(proc(pid, "comm")).ok()?;
    Some(text.trim_end().to_owned())
}

/// Every process whose parent is `pid`.
#[must_use]
pub fn children(pid: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|&child| stat(child).is_some_and(|fields| fields.get(1) == Some(&pid.to_string())))
        .collect()
}

/// Sends a signal to a process that the tests started.
///
/// # Panics
/// There is no such process.
pub fn send_signal(pid: u32, signal: Signal) {
    let target = Pid::from_raw(i32::try_from(pid).expect("a pid fits an i32"));
    signal::kill(target, signal).unwrap_or_else(|errno| panic!("{signal} to {pid}: {errno}"));
}

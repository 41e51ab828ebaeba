//! Processes that an earlier supervisor left: whether a pid file still names one of ours, and their
//! end. A pid alone proves nothing: the number may have been given to another program since.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use aex_admin_proto::clock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Ticks a second in `/proc/PID/stat`: 100 on every architecture that Linux still builds for.
const TICKS_PER_SECOND: u64 = 100;
/// How much later than its pid file a process may seem to have begun, by rounding.
const SLACK_MS: u64 = 2_000;
const POLL: Duration = Duration::from_millis(20);

/// The live process that `pid_file` names, if it is `binary`, of this user, and no younger than the
/// file. Its executable cannot be asked: programs that hide their memory hide that too.
pub(super) fn named_by(pid_file: &Path, binary: &str) -> Option<i32> {
    let pid: i32 = fs::read_to_string(pid_file).ok()?.trim().parse().ok()?;
    let written = fs::metadata(pid_file).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let age_of_file_ms = u64::try_from(
        clock::wall_ms() - (written.mtime() * 1000 + written.mtime_nsec() / 1_000_000),
    )
    .unwrap_or(0);
    let ours = field(&status, "Name:") == Some(binary)
        && field(&status, "State:") != Some("Z")
        && field(&status, "Uid:") == Some(&nix::unistd::geteuid().to_string())
        && begun_boot_ms(&stat)? <= clock::boot_ms().saturating_sub(age_of_file_ms) + SLACK_MS;
    ours.then_some(pid)
}

/// The first word of a line of `/proc/PID/status`.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))?
        .split_whitespace()
        .next()
}

/// Field 22, counted behind the name, which may have spaces and brackets in it.
fn begun_boot_ms(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let ticks: u64 = rest.split_whitespace().nth(19)?.parse().ok()?;
    ticks.checked_mul(1000 / TICKS_PER_SECOND)
}

/// Asks it to end, waits, and in the end forces it.
pub(super) async fn end(pid_file: &Path, binary: &str, limit_ms: u64) {
    let Some(pid) = named_by(pid_file, binary) else {
        return;
    };
    let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    let deadline_ms = clock::boot_ms() + limit_ms;
    while named_by(pid_file, binary) == Some(pid) {
        if clock::boot_ms() >= deadline_ms {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name that the kernel has for a process of `sleep`.
    const SLEEP: &str = "sleep";

    fn sleeper() -> std::process::Child {
        std::process::Command::new(SLEEP).arg("60").spawn().unwrap()
    }

    #[tokio::test]
    async fn only_a_process_that_fits_its_file_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.pid");
        let mut child = sleeper();
        let pid = i32::try_from(child.id()).unwrap();
        fs::write(&file, pid.to_string()).unwrap();
        while named_by(&file, SLEEP).is_none() {
            tokio::time::sleep(POLL).await;
        }
        assert_eq!(named_by(&file, "aex-admin"), None);
        // A file older than the process: the number was given anew.
        let old = std::time::UNIX_EPOCH + Duration::from_secs(1);
        let opened = fs::File::options().write(true).open(&file).unwrap();
        opened.set_modified(old).unwrap();
        assert_eq!(named_by(&file, SLEEP), None);
        fs::write(&file, pid.to_string()).unwrap();
        end(&file, SLEEP, 10_000).await;
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()),
            Some(15)
        );
        assert_eq!(named_by(&file, SLEEP), None);
    }

    #[test]
    fn the_start_is_read_behind_the_name() {
        let fields = (4..22).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(begun_boot_ms(&format!("7 (a) b) S {fields} 50")), Some(500));
        assert_eq!(begun_boot_ms("7"), None);
    }
}

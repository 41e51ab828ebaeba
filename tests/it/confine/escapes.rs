//! Ways out of `aex run --confine` that have been tried, as root and as an ordinary user.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use aex_tests::harness::root_or_skip;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{NOBODY, User, text};
use crate::common::sim;

/// Whoever runs the tests, and an ordinary user where that is root.
fn for_both(name: &str, check: impl Fn(&User)) {
    let sim = sim();
    check(&User::start(None, &sim));
    if root_or_skip(name) {
        check(&User::start(Some(NOBODY), &sim));
    }
}

/// Prints what can be opened for writing. Nothing is written.
const WRITABLE: &str = r#"
for file in /proc/sys/kernel/core_pattern /proc/sys/vm/swappiness /proc/sysrq-trigger \
    $(find /proc/irq /proc/bus /proc/fs /proc/acpi -type f 2>/dev/null | head -200) \
    $(find /sys -maxdepth 8 -type f -perm /222 2>/dev/null | head -2000) \
    $(find /sys/fs/cgroup -name cgroup.procs 2>/dev/null | head -200); do
    if { : >> "$file"; } 2>/dev/null; then echo "CAN $file"; fi
done
awk '$5 ~ "^/sys(/|$)" && $6 !~ "^ro(,|$)" { print "CAN " $5 }' /proc/self/mountinfo
{ : >> /proc/self/oom_score_adj; } && echo own process
"#;

#[test]
fn the_kernels_own_files_are_read_only() {
    for_both("the_kernels_own_files_are_read_only", |user| {
        let free = text(&user.run(false, WRITABLE));
        let root = user.uid.is_none() && nix::unistd::geteuid().is_root();
        assert!(!root || free.contains("CAN /proc/sys/kernel/"), "{free}");
        let said = text(&user.run(true, WRITABLE));
        assert!(said.contains("own process"), "{said}");
        assert!(!said.contains("CAN "), "{said}");
    });
}

impl User {
    /// Starts a confined script, and waits until it says `ready`.
    fn start_ready(&self, script: &str) -> Child {
        let mut command = self.command(&self.programs.join("aex"));
        let args = ["run", "-a", "bot", "--confine", "--", "bash", "-c", script];
        let mut child = command.args(args).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut said = BufReader::new(child.stdout.as_mut().unwrap());
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        child
    }
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

#[test]
fn it_starts_with_no_signal_blocked() {
    for_both("it_starts_with_no_signal_blocked", |user| {
        let status = text(&user.run(true, "cat /proc/self/status"));
        assert!(status.contains("SigBlk:\t0000000000000000"), "{status}");
        // Without SIGCHLD a shell waits for ever.
        let waits = "timeout -s KILL 30 dash -c 'sleep 0.1 & wait; echo over'";
        let waited = text(&user.run(true, waits));
        assert!(waited.contains("over"), "{waited}");
        for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGHUP, 129)] {
            let mut child = user.start_ready("echo ready; exec sleep 100");
            send(&child, signal);
            assert_eq!(child.wait().unwrap().code(), Some(code), "{signal}");
        }
    });
}

#[test]
fn it_ends_with_aex_run_however_that_ends() {
    for_both("it_ends_with_aex_run_however_that_ends", |user| {
        let mark = format!("{}.5", 200_000 + std::process::id());
        let script = format!("setsid sleep {mark} & echo ready; exec sleep {mark}");
        let mut child = user.start_ready(&script);
        until(|| runs(&mark), "no sleep");
        send(&child, Signal::SIGKILL);
        child.wait().unwrap();
        until(|| !runs(&mark), "sleep outlived aex run");
    });
}

fn until(is: impl Fn() -> bool, or: &str) {
    let limit = Instant::now() + Duration::from_secs(10);
    while !is() {
        assert!(Instant::now() < limit, "{or}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether some process has this as its last argument.
fn runs(mark: &str) -> bool {
    let has = |pid: fs::DirEntry| {
        let line = fs::read(pid.path().join("cmdline")).unwrap_or_default();
        line.starts_with(b"sleep\0") && String::from_utf8_lossy(&line).contains(mark)
    };
    fs::read_dir("/proc").unwrap().flatten().any(has)
}

//! Ways out of `aex run --confine` that have been tried, as root and as an ordinary user.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use aex_tests::harness::{root_or_skip, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{NOBODY, User, text};
use crate::common::sim;

/// Whoever runs the tests, and an ordinary user where that is root.
pub(super) fn for_both(name: &str, check: impl Fn(&User)) {
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
unshare -UC true 2>/dev/null && echo "CAN mount control groups"
unshare -U true && echo "other namespaces"
{ : >> /proc/self/oom_score_adj; } && echo own process
"#;

#[test]
fn the_kernels_own_files_are_read_only() {
    for_both("the_kernels_own_files_are_read_only", |user| {
        let free = text(&user.run(false, WRITABLE));
        let root = user.uid.is_none() && nix::unistd::geteuid().is_root();
        assert!(!root || free.contains("CAN /proc/sys/kernel/"), "{free}");
        let said = text(&user.run(true, WRITABLE));
        for allowed in ["own process", "other namespaces"] {
            assert!(said.contains(allowed), "{said}");
        }
        assert!(!said.contains("CAN "), "{said}");
    });
}

impl User {
    /// Starts a confined script, and waits until it says `ready`.
    fn start_ready(&self, script: &str) -> Child {
        let mut command = self.command(&self.programs.join("aex"));
        command.args(["run", "-a", "bot", "--confine", "--", "bash", "-c", script]);
        ready(&mut command)
    }
}

fn ready(command: &mut Command) -> Child {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    let mut said = BufReader::new(child.stdout.as_mut().unwrap());
    said.read_line(&mut line).unwrap();
    assert_eq!(line.trim_end(), "ready");
    child
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
        wait_for("the sleep to run", || runs(&mark).then_some(()));
        send(&child, Signal::SIGKILL);
        child.wait().unwrap();
        wait_for("the sleep to end with aex run", || {
            (!runs(&mark)).then_some(())
        });
    });
}

/// Whether some process has this as its last argument.
fn runs(mark: &str) -> bool {
    let has = |pid: fs::DirEntry| {
        let line = fs::read(pid.path().join("cmdline")).unwrap_or_default();
        line.starts_with(b"sleep\0") && String::from_utf8_lossy(&line).contains(mark)
    };
    fs::read_dir("/proc").unwrap().flatten().any(has)
}

#[test]
fn sockets_of_terminals_that_come_later_are_hidden_too() {
    for_both(
        "sockets_of_terminals_that_come_later_are_hidden_too",
        |user| {
            let place = user.home.parent().unwrap().to_owned();
            let uid = user.uid.unwrap_or(nix::unistd::geteuid().as_raw());
            let tmux = place.join(format!("tm/tmux-{uid}"));
            let other = place.join("other");
            fs::create_dir(&other).unwrap();
            std::os::unix::fs::chown(&other, user.uid, user.uid).unwrap();
            fs::set_permissions(&other, fs::Permissions::from_mode(0o700)).unwrap();
            fs::write(other.join("socket"), "").unwrap();
            let places = [tmux, place.join("screens"), place.join(".screen"), other];
            let listed: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
            let script = format!(
                "echo ready; read -r _; ls -AR {0}; stat -c %a.%u {0}; env | cut -d= -f1",
                listed.join(" ")
            );
            let mut command = user.command(&user.programs.join("aex"));
            command
                .env("TMUX_TMPDIR", place.join("tm"))
                .env("SCREENDIR", place.join("screens"))
                .env("TMUX", format!("{}/socket,1,0", listed[3]))
                .env("STY", "1.x")
                .args(["run", "-a", "bot", "--confine", "--", "bash", "-c", &script]);
            let mut child = ready(&mut command);
            for path in &places {
                // Outside somebody starts it.
                fs::write(path.join("late-socket"), "").unwrap();
            }
            child.stdin.take().unwrap().write_all(b"\n").unwrap();
            let mut said = String::new();
            (child.stdout.take().unwrap().read_to_string(&mut said)).unwrap();
            assert!(child.wait().unwrap().success(), "{said}");
            assert!(!said.contains("socket\n"), "{said}");
            let own = format!("700.{uid}");
            assert_eq!(said.matches(&own).count(), 4, "{said}");
            for name in ["TMUX", "STY", "SCREENDIR"] {
                assert!(!said.contains(name), "{said}");
            }
        },
    );
}

fn in_terminal(user: &User, script: &str) -> Command {
    let aex = user.programs.join("aex");
    let line = format!("{} run -a bot --confine -- bash {script}", aex.display());
    let mut command = user.command(Path::new("script"));
    command.args(["-qec", &line, "/dev/null"]);
    command
}

#[test]
fn it_has_terminals_of_its_own_and_sees_no_other() {
    for_both("it_has_terminals_of_its_own_and_sees_no_other", |user| {
        let script = "-c 'ls -m /dev/pts; tty; echo typed > /dev/tty; script -qec tty /dev/null'";
        let said = text(&in_terminal(user, script).output().unwrap());
        // The first line tells how it ended; an end of file may be echoed before another.
        for line in ["ptmx", "/dev/console", "typed", "/dev/pts/0"] {
            let is_there = said.lines().any(|one| one.trim_end().ends_with(line));
            assert!(is_there, "{line}: {said}");
        }
        assert!(
            !said.contains("ptmx,") && !said.contains(", ptmx"),
            "{said}"
        );
        let jobs = "-ic 'sleep 0.1 & fg; echo fore; stty -a'";
        let said = text(&in_terminal(user, jobs).output().unwrap());
        assert!(said.contains("fore") && said.contains("intr = "), "{said}");
        let mut asked = ready(&mut in_terminal(user, "-c 'echo ready; exec sleep 100'"));
        asked.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
        assert_eq!(asked.wait().unwrap().code(), Some(130), "Ctrl-C");
    });
}

#[test]
fn what_holds_aex_home_cannot_be_moved_away() {
    for_both("what_holds_aex_home_cannot_be_moved_away", |user| {
        let script = r#"cd /
            for path in "$AEX_HOME" "${AEX_HOME%/*}" "${AEX_HOME%/*/*}"; do
                mv "$path" "$path.old" 2>/dev/null && mv "$path.old" "$path" && echo "CAN $path"
            done
            touch "${AEX_HOME%/*}/beside" && echo beside"#;
        let free = text(&user.run(false, script));
        assert!(free.matches("CAN ").count() >= 2, "{free}");
        let said = text(&user.run(true, script));
        assert!(said.contains("beside") && !said.contains("CAN "), "{said}");
    });
}

#[test]
fn a_socket_that_is_hidden_from_it_is_refused() {
    for_both("a_socket_that_is_hidden_from_it_is_refused", |user| {
        let listen = |path: PathBuf| {
            assert!(user.aex(&["daemon", "stop"]).status.success());
            let place = format!("unix:{}", path.display());
            let args = ["daemon", "start", "--listen", &place, "--workers", "1"];
            let started = user.aex(&args);
            assert!(started.status.success(), "{}", text(&started));
            user.run(true, "echo started")
        };
        let hidden = listen(user.home.join("agents.sock"));
        let said = text(&hidden);
        assert_eq!(hidden.status.code(), Some(125), "{said}");
        assert!(said.contains("outside of AEX_HOME"), "{said}");
        assert!(!said.contains("started\n"), "{said}");
        let seen = listen(user.home.parent().unwrap().join("agents.sock"));
        assert!(text(&seen).contains("started\n"), "{}", text(&seen));
    });
}

const IOCTL_32: u32 = 54;
const KEYS_32: [u32; 3] = [286, 287, 288];

/// `exit(-CALL(0, TIOCSTI, NULL))` by the i386 table, as an ELF file of 32 bits.
#[cfg(target_arch = "x86_64")]
fn calls_by_32_bits(call: u32) -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    const HEADERS: u32 = 52 + 32;
    let mut code = b"\xb8\x36\0\0\0\x31\xdb\xb9\x12\x54\0\0\x31\xd2\xcd\x80\
                     \xf7\xd8\x89\xc3\xb8\x01\0\0\0\xcd\x80"
        .to_vec();
    code[1..5].copy_from_slice(&call.to_le_bytes());
    let size = HEADERS + 27;
    let mut elf = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0".to_vec();
    for word in [1, BASE + HEADERS, 52, 0, 0] {
        elf.extend(u32::to_le_bytes(word));
    }
    for half in [52, 32, 1, 0, 0, 0] {
        elf.extend(u16::to_le_bytes(half));
    }
    for word in [1, 0, BASE, BASE, size, size, 5, 0x1000] {
        elf.extend(u32::to_le_bytes(word));
    }
    elf.extend(code);
    elf
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_program_of_32_bits_runs_and_types_no_more_than_others() {
    let user = User::start(None, &sim());
    let path = user.home.parent().unwrap().join("small");
    fs::write(&path, calls_by_32_bits(IOCTL_32)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let script = format!("{}; echo code $?", path.display());
    let free = text(&user.run(false, &script));
    // ENOTTY of /dev/null, and EPERM.
    if !free.contains("code 25") {
        eprintln!(
            "SKIPPED a_program_of_32_bits_runs_and_types_no_more_than_others: this kernel runs none"
        );
        return;
    }
    let said = text(&user.run(true, &script));
    assert!(said.contains("code 1\n"), "{said}");
    for call in KEYS_32 {
        fs::write(&path, calls_by_32_bits(call)).unwrap();
        let said = text(&user.run(true, &script));
        assert!(said.contains("code 1\n"), "{call}: {said}");
    }
}

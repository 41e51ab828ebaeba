//! `aex run --confine`: what a command in it finds of AEX, and what it can do to it.

mod escapes;
mod reach;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use aex_tests::harness::{Kernel, program, root_or_skip};
use serde_json::Value;

use crate::common::sim;

/// A kernel in user mode of some user, and that user's commands.
struct User {
    uid: Option<u32>,
    programs: PathBuf,
    home: PathBuf,
    _directory: tempfile::TempDir,
}

const NOBODY: u32 = 65534;

impl User {
    /// Its daemon runs until this is dropped.
    fn start(uid: Option<u32>, sim: &aex_tests::sim::Sim) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let programs = directory.path().join("bin");
        fs::create_dir(&programs).unwrap();
        for name in ["aex", "aex-admin", "aex-egress", "aex-proxy"] {
            // By another process: a file that this one has open for writing cannot be run while some
            // other test's child has not yet let go of the descriptor.
            let mut copy = Command::new("cp");
            copy.arg(program(name)).arg(programs.join(name));
            assert!(copy.status().unwrap().success());
        }
        let place = directory.path().join("user");
        fs::create_dir(&place).unwrap();
        for path in [directory.path(), &programs, &place] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        // A directory in one of the user's own, which could be moved.
        let project = place.join("project");
        fs::create_dir(&project).unwrap();
        for path in [&place, &project] {
            std::os::unix::fs::chown(path, uid, uid).unwrap();
        }
        let user = Self {
            uid,
            programs,
            home: project.join("aex"),
            _directory: directory,
        };
        assert!(user.aex(&["init"]).status.success());
        let config = format!(
            "providers:\n  sim: {{ base_url: 'http://{}/v1' }}\nmodels:\n  m: {{ provider: sim, \
             price: free, max_output_tokens: 100, context_window: 1000 }}\n",
            sim.addr
        );
        fs::write(user.home.join("config/models.yaml"), config).unwrap();
        let start = [
            "daemon",
            "start",
            "--listen",
            "127.0.0.1:0",
            "--workers",
            "1",
        ];
        let started = user.aex(&start);
        assert!(started.status.success(), "{}", text(&started));
        let made = user.aex(&["agent", "create", "bot", "1.00", "1000"]);
        assert!(made.status.success(), "{}", text(&made));
        user
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("AEX_HOME", &self.home)
            .env("HOME", self.home.parent().unwrap())
            .env("SIM_API_KEY", Kernel::SIM_KEY)
            .env("AEX", self.programs.join("aex"))
            .current_dir("/tmp")
            .stdin(Stdio::null());
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        command
    }

    fn aex(&self, args: &[&str]) -> Output {
        let mut command = self.command(&self.programs.join("aex"));
        command.args(args).output().unwrap()
    }

    /// A script of bash, free or confined.
    fn run(&self, confined: bool, script: &str) -> Output {
        let args: &[&str] = match confined {
            true => &["run", "-a", "bot", "--confine", "--", "bash", "-c", script],
            false => &["run", "-a", "bot", "--", "bash", "-c", script],
        };
        self.aex(args)
    }

    fn status(&self) -> Value {
        let output = self.aex(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)))
    }

    fn pid_of(&self, program: &str) -> u64 {
        let status = self.status();
        match program {
            "egress" => status["egress_pid"].as_u64().unwrap(),
            _ => status["pid"].as_u64().unwrap(),
        }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let stopped = self.aex(&["daemon", "stop"]);
        if !std::thread::panicking() {
            assert!(stopped.status.success(), "{}", text(&stopped));
        }
    }
}

fn text(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Each line is tried, and printed when it succeeds.
const TRIES: &str = r#"
try() { if "$@" >/dev/null 2>&1; then echo "CAN $*"; fi; }
try test -e "$AEX_HOME/aex.db"
try cat "$AEX_HOME/config/models.yaml"
try test -S "$AEX_HOME/run/admin.sock"
try "$AEX" status
try "$AEX" agent set bot --budget 1000
try kill -0 $ADMIN
try kill -0 $DAEMON
try test -e /proc/$ADMIN
try cat /proc/$ADMIN/cmdline
"#;

/// Can be done by nobody of this user, confined or not, or must fail in any case.
const NEVER: &str = r#"
try umount "$AEX_HOME"
try umount -l /proc
try mount -t tmpfs x /mnt
try mount --bind / /mnt
try nsenter -t $ADMIN -m -U true
try nsenter -t 1 -m true
try cat /proc/$ADMIN/environ
try ls /proc/$ADMIN/root/
try unshare -Urm umount "$AEX_HOME"
try unshare -Urm umount -l /proc
try unshare -Urm sh -c "umount -R /run; test -e $AEX_HOME/aex.db"
try chroot / true
try mknod /tmp/aex-confine-disk b 8 0
try su -c true nobody
"#;

fn check(user: &User) {
    let (admin, daemon) = (user.pid_of("admin"), user.pid_of("egress"));
    let given = format!("ADMIN={admin}\nDAEMON={daemon}\n");
    // The control: without it all of this can be done.
    let free = text(&user.run(false, &format!("{given}{TRIES}")));
    assert_eq!(free.matches("CAN ").count(), 9, "{free}");
    let output = user.run(true, &format!("{given}{TRIES}{NEVER}echo done"));
    let said = text(&output);
    assert!(output.status.success() && said.contains("done"), "{said}");
    assert!(!said.contains("CAN "), "{said}");
    let budget = user.aex(&["agent", "show", "bot", "--json"]);
    assert!(
        text(&budget).contains("1000000000"),
        "the free one set it: {}",
        text(&budget)
    );

    let inside = user.run(
        true,
        "ls -A \"$AEX_HOME\"; id -u; cat /proc/self/status; ls /proc | grep -c '^[0-9]'; ls -l /proc/self/fd",
    );
    let inside = text(&inside);
    let uid = user.uid.unwrap_or(0);
    assert!(
        inside.lines().any(|line| line == uid.to_string()),
        "{inside}"
    );
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let none = format!("{set}:\t0000000000000000");
        assert!(inside.contains(&none), "{set}: {inside}");
    }
    assert!(inside.contains("NoNewPrivs:\t1"), "{inside}");
    for secret in ["aex.db", "models.yaml", "admin.sock"] {
        assert!(!inside.contains(secret), "{inside}");
    }
    can_ask(user);
    ends_as_it_should(user);
}

/// What it is for still works: a request through the port, with the token of the run.
fn can_ask(user: &User) {
    let script = r#"
        rest=${OPENAI_BASE_URL#http://}; place=${rest%/v1}
        body='{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":5}'
        exec 3<>/dev/tcp/${place%:*}/${place#*:}
        printf 'POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %s\r\n\r\n%s' "$OPENAI_API_KEY" ${#body} "$body" >&3
        head -1 <&3"#;
    let asked = text(&user.run(true, script));
    assert!(asked.contains("HTTP/1.1 200"), "{asked}");
}

fn ends_as_it_should(user: &User) {
    for (script, code) in [("exit 7", 7), ("kill -KILL $$", 137)] {
        assert_eq!(user.run(true, script).status.code(), Some(code), "{script}");
    }
    let missing = user.aex(&["run", "-a", "bot", "--confine", "--", "/no/such/command"]);
    assert_eq!(missing.status.code(), Some(127), "{}", text(&missing));
    // What it leaves running ends with it.
    let mark = format!("{}.7", 100_000 + std::process::id());
    let left = user.run(true, &format!("setsid sleep {mark} & disown; exit 0"));
    assert!(left.status.success(), "{}", text(&left));
    let is_there = |pid: &fs::DirEntry| {
        let line = fs::read(pid.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&mark)
    };
    let running = fs::read_dir("/proc").unwrap().flatten().filter(is_there);
    assert_eq!(running.count(), 0, "sleep {mark} outlived its command");
    // From within what is hidden there is no start.
    let mut within = user.command(&user.programs.join("aex"));
    within
        .args(["run", "-a", "bot", "--confine", "--", "true"])
        .current_dir(user.home.join("config"));
    let within = within.output().unwrap();
    assert_eq!(within.status.code(), Some(125), "{}", text(&within));
    assert!(text(&within).contains("is hidden"), "{}", text(&within));
    // A directory that is handed over would lead past the mounts.
    let mut handed = user.command(&user.programs.join("aex"));
    handed
        .args(["run", "-a", "bot", "--confine", "--", "true"])
        .stdin(fs::File::open(&user.home).unwrap());
    let handed = handed.output().unwrap();
    assert_eq!(handed.status.code(), Some(125), "{}", text(&handed));
}

#[test]
fn an_ordinary_users_command_finds_nothing_of_aex() {
    if !root_or_skip("an_ordinary_users_command_finds_nothing_of_aex") {
        return;
    }
    check(&User::start(Some(NOBODY), &sim()));
}

#[test]
fn nor_does_one_of_whoever_runs_the_tests() {
    check(&User::start(None, &sim()));
}

#[test]
fn without_namespaces_it_is_not_started_and_says_what_to_do() {
    let sim = sim();
    let user = User::start(None, &sim);
    // A namespace in which no further one can be made.
    let mut shut = user.command(Path::new("unshare"));
    let script = "echo 0 > /proc/sys/user/max_user_namespaces; \
                  exec \"$AEX\" run -a bot --confine -- sh -c 'echo started'";
    shut.args(["-Ur", "sh", "-c", script]);
    let output = shut.output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(!said.contains("started\n"), "{said}");
    assert!(said.contains("user.max_user_namespaces"), "{said}");
}

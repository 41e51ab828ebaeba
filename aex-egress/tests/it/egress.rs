//! The process under test, in a home of its own.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::UnixStream;
use tokio::time::{Duration, sleep, timeout};

use crate::{OPERATOR_KEY, PATIENCE};

pub(crate) struct Home(tempfile::TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn run(&self) -> PathBuf {
        let run = self.0.path().join("run");
        std::fs::create_dir_all(&run).unwrap();
        run
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.0.path().join("log")).unwrap()
    }

    pub(crate) fn command(&self) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_aex-egress")))
    }

    pub(crate) fn command_of(&self, program: &Path) -> Command {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.0.path().join("log"))
            .unwrap();
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("AEX_HOME", self.0.path())
            .env("SIM_API_KEY", OPERATOR_KEY)
            .env("AEX_LOG", "debug")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        command
    }

    pub(crate) async fn start(&self) -> Egress {
        self.start_as(self.command()).await
    }

    pub(crate) async fn start_as(&self, command: Command) -> Egress {
        let egress = Egress::spawn(command, self.run().join("egress.sock"));
        let up = async {
            while UnixStream::connect(&egress.socket).await.is_err() {
                sleep(Duration::from_millis(2)).await;
            }
        };
        assert!(timeout(PATIENCE, up).await.is_ok(), "{}", self.log());
        egress
    }
}

pub(crate) struct Egress {
    child: Child,
    pub(crate) socket: PathBuf,
}

impl Egress {
    pub(crate) fn spawn(mut command: Command, socket: PathBuf) -> Self {
        Self {
            child: command.spawn().unwrap(),
            socket,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn peak_rss_kib(&self) -> u64 {
        self.status_field("VmHWM:").parse().unwrap()
    }

    pub(crate) fn status_field(&self, name: &str) -> String {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(9));
    }

    pub(crate) fn terminate(&self) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
    }

    pub(crate) async fn exit(&mut self) -> ExitStatus {
        let gone = async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, gone).await.unwrap()
    }
}

impl Drop for Egress {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

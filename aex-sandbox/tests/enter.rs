//! The sandbox really entered, by this test's own program run again: what it then can and cannot do.

#![expect(
    clippy::unwrap_used,
    reason = "all of this is test code, its helpers outside #[test] functions too"
)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use aex_sandbox::{Network, SWITCH, Sandbox};
use nix::libc;
use nix::sys::signal::kill;
use nix::unistd::Pid;

const TRIAL: &str = "AEX_TRIAL";
const DIRECTORY: &str = "AEX_TRIAL_DIRECTORY";
const LISTENER: &str = "AEX_TRIAL_LISTENER";

/// What the child tries, one line each: a name, and the errno or `ok`.
#[test]
fn trial() {
    let Ok(kind) = std::env::var(TRIAL) else {
        return;
    };
    let network = match kind.as_str() {
        "none" => Network::None,
        "unix" | "shared" => Network::Unix,
        _ => Network::Client,
    };
    aex_sandbox::harden().unwrap();
    let directory = PathBuf::from(std::env::var(DIRECTORY).unwrap());
    let listener = std::env::var(LISTENER).unwrap();
    let own = UnixListener::bind(directory.join("own")).unwrap();
    own.set_nonblocking(true).unwrap();
    let mut sandbox = Sandbox::new(network)
        .reads(directory.join("read"))
        .writes(directory.join("write"))
        .reads(directory.join("is-not-there"));
    if kind == "shared" {
        let number = own.as_raw_fd().unsigned_abs();
        sandbox = sandbox.accepts_on(number..=number);
    }
    let held = sandbox.enter().unwrap();
    say(
        "landlock",
        held.landlock_abi.map_or(Ok(0), |abi| Err(i32::from(abi))),
    );
    say("seccomp", Err(i32::from(held.seccomp)));
    files(&directory);
    processes(held.seccomp);
    sockets(&listener, &directory);
    descriptors();
    if network == Network::Unix {
        changes(&own, &directory.join("own"));
    }
}

/// Nothing signals others when something comes on a descriptor.
fn descriptors() {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let (one, _other) = io::pipe().unwrap();
    let flags = OFlag::O_NONBLOCK;
    try_nix("flags", fcntl(&one, FcntlArg::F_SETFL(flags)));
    let flags = flags | OFlag::O_ASYNC;
    try_nix("signalled", fcntl(&one, FcntlArg::F_SETFL(flags)));
    // As any command that is not listed.
    try_nix("pipe size", fcntl(&one, FcntlArg::F_GETPIPE_SZ));
}

/// What would change a listener for whoever else has it; at last what ends it.
fn changes(listener: &UnixListener, path: &Path) {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use nix::sys::socket::{
        Backlog, ControlMessage, MsgFlags, Shutdown, UnixAddr, connect, listen, sendmsg,
        setsockopt, shutdown, sockopt,
    };
    let fd = listener.as_raw_fd();
    let try_nix = |what: &str, done: nix::Result<i32>| try_nix(&format!("own {what}"), done);
    let accepts = |what: &str| {
        try_nix(what, UnixStream::connect(path).map(|_| 0).map_err(errno_of));
        try_nix(what, listener.accept().map(|_| 0).map_err(errno_of));
    };
    accepts("before");
    let (one, _other) = UnixStream::pair().unwrap();
    let rights = [fd];
    let passed = sendmsg::<UnixAddr>(
        one.as_raw_fd(),
        &[io::IoSlice::new(b"x")],
        &[ControlMessage::ScmRights(&rights)],
        MsgFlags::empty(),
        None,
    );
    try_nix("passed", passed.map(|_| 0));
    try_nix("duplicated", nix::unistd::dup(listener).map(|_| 0));
    let as_two = fcntl(listener, FcntlArg::F_DUPFD_CLOEXEC(0));
    try_nix("duplicated by fcntl", as_two);
    let small = setsockopt(listener, sockopt::RcvBuf, &1);
    try_nix("set", small.map(|()| 0));
    let short = listen(listener, Backlog::new(1).unwrap());
    try_nix("shortened", short.map(|()| 0));
    // With no family it would end it. This one, tried where it may be, has another errno.
    let to = UnixAddr::new(path).unwrap();
    try_nix("connected", connect(fd, &to).map(|()| 0));
    try_nix(
        "waiting",
        fcntl(listener, FcntlArg::F_SETFL(OFlag::empty())),
    );
    let waiting = listener.set_nonblocking(false);
    try_nix("waiting by ioctl", waiting.map(|()| 0).map_err(errno_of));
    let flags = fcntl(listener, FcntlArg::F_GETFL).map(|flags| flags & libc::O_NONBLOCK);
    let blocks = if flags == Ok(0) {
        Err(nix::errno::Errno::EDEADLK)
    } else {
        Ok(0)
    };
    try_nix("still asks", blocks);
    if blocks.is_ok() {
        accepts("meanwhile");
    }
    for how in [Shutdown::Read, Shutdown::Both] {
        try_nix(&format!("shut {how:?}"), shutdown(fd, how).map(|()| 0));
    }
    accepts("after");
    // What is not shared may be changed as ever.
    try_nix(
        "another",
        one.as_fd()
            .try_clone_to_owned()
            .map(|_| 0)
            .map_err(errno_of),
    );
    try_nix(
        "another shut",
        shutdown(one.as_raw_fd(), Shutdown::Both).map(|()| 0),
    );
}

fn errno_of(error: io::Error) -> nix::errno::Errno {
    nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or(-1))
}

fn files(directory: &Path) {
    let read = directory.join("read");
    try_io("read", File::open(read.join("a")));
    try_io("write beside", File::create(read.join("b")));
    try_io("remove beside", fs::remove_file(read.join("a")));
    let write = directory.join("write");
    try_io("write", fs::write(write.join("a"), "x"));
    try_io("rename", fs::rename(write.join("a"), write.join("b")));
    try_io("read other", File::open(directory.join("other")));
    try_io("list other", fs::read_dir(directory));
    try_io("link out", File::open(write.join("link")));
    try_io("own memory", File::open("/proc/self/mem"));
}

fn processes(is_shut_in: bool) {
    try_io("thread", std::thread::Builder::new().spawn(|| ()));
    try_io("run", Command::new("/bin/true").status());
    let parent = Pid::parent();
    try_nix("signal parent", kill(parent, None));
    try_nix("signal itself", kill(Pid::this(), None));
    try_nix("dumpable again", nix::sys::prctl::set_dumpable(true));
    try_nix(
        "namespace",
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER),
    );
    try_nix(
        "mount",
        nix::mount::mount(
            None::<&str>,
            "/",
            None::<&str>,
            nix::mount::MsFlags::MS_PRIVATE,
            None::<&str>,
        ),
    );
    if is_shut_in {
        // Done, it would stop the test that waits for this process.
        try_nix("trace", nix::sys::ptrace::attach(parent));
    }
    try_io(
        "read a process",
        File::open(format!("/proc/{parent}/environ")),
    );
}

fn sockets(listener: &str, directory: &Path) {
    try_io("unix", UnixStream::pair());
    try_io(
        "unix by path",
        UnixStream::connect(directory.join("socket")),
    );
    try_io("connect", TcpStream::connect(listener));
    try_io("bind", TcpListener::bind("127.0.0.1:0"));
    try_io("datagram", UdpSocket::bind("127.0.0.1:0"));
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    try_nix(
        "raw",
        socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), None),
    );
    try_nix(
        "packet",
        socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::empty(),
            None,
        ),
    );
    try_nix(
        "vsock",
        socket(
            AddressFamily::Vsock,
            SockType::Stream,
            SockFlag::empty(),
            None,
        ),
    );
    let look_up = std::net::ToSocketAddrs::to_socket_addrs("localhost:80");
    // No file of the resolver may be read: what counts is that nothing breaks.
    drop(look_up);
}

fn say(name: &str, outcome: Result<i32, i32>) {
    let number = outcome.unwrap_or_else(|errno| errno);
    let mut out = io::stdout().lock();
    writeln!(out, "=={name}=={number}").unwrap();
}

fn try_io<T>(name: &str, done: io::Result<T>) {
    let errno = |error: io::Error| error.raw_os_error().unwrap_or(-1);
    say(name, done.map(|_| 0).map_err(errno));
}

fn try_nix<T>(name: &str, done: nix::Result<T>) {
    say(name, done.map(|_| 0).map_err(|errno| errno as i32));
}

struct Trial {
    _directory: tempfile::TempDir,
    said: BTreeMap<String, i32>,
}

impl Trial {
    fn of(kind: &str, switch: Option<&str>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["read", "write"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        fs::write(directory.path().join("read/a"), "x").unwrap();
        let other = directory.path().join("other");
        fs::write(&other, "x").unwrap();
        std::os::unix::fs::symlink(&other, directory.path().join("write/link")).unwrap();
        let _unix =
            std::os::unix::net::UnixListener::bind(directory.path().join("socket")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap());
        child
            .args(["--exact", "trial", "--nocapture", "--test-threads=1"])
            .env(TRIAL, kind)
            .env(DIRECTORY, directory.path())
            .env(LISTENER, listener.local_addr().unwrap().to_string())
            .env_remove(SWITCH);
        if let Some(value) = switch {
            child.env(SWITCH, value);
        }
        let output = child.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let said = text.lines().filter_map(|line| {
            let (_, rest) = line.split_once("==")?;
            let (name, number) = rest.split_once("==")?;
            Some((name.to_owned(), number.parse().ok()?))
        });
        Self {
            said: said.collect(),
            _directory: directory,
        }
    }

    fn expect(&self, errno: i32, names: &[&str]) {
        for name in names {
            assert_eq!(
                self.said.get(*name),
                Some(&errno),
                "{name}: {:?}",
                self.said
            );
        }
    }

    fn landlock(&self) -> i32 {
        self.said["landlock"]
    }
}

const FREE: [&str; 6] = ["read", "write", "rename", "thread", "signal itself", "unix"];

/// With Landlock and seccomp both, as on this kernel; with less, what is left.
fn check_common(trial: &Trial) {
    trial.expect(1, &["seccomp"]);
    trial.expect(0, &FREE[..5]);
    trial.expect(
        libc::EPERM,
        &[
            "run",
            "dumpable again",
            "namespace",
            "mount",
            "trace",
            "signal parent",
        ],
    );
    trial.expect(libc::EPERM, &["raw", "packet", "vsock"]);
    trial.expect(0, &["flags"]);
    trial.expect(libc::EPERM, &["signalled", "pipe size"]);
    if trial.landlock() > 0 {
        trial.expect(
            libc::EACCES,
            &[
                "write beside",
                "remove beside",
                "read other",
                "list other",
                "own memory",
            ],
        );
        trial.expect(libc::EACCES, &["link out", "read a process"]);
    }
}

#[test]
fn a_worker_or_the_admin_has_unix_sockets_and_its_directories_alone() {
    let trial = Trial::of("unix", None);
    check_common(&trial);
    trial.expect(0, &["unix", "unix by path"]);
    trial.expect(libc::EPERM, &["connect", "bind", "datagram"]);
}

const CHANGES: [&str; 6] = [
    "own duplicated",
    "own duplicated by fcntl",
    "own set",
    "own shortened",
    "own waiting",
    "own waiting by ioctl",
];

#[test]
fn a_listener_that_others_share_is_accepted_on_and_not_changed() {
    let shared = Trial::of("shared", None);
    check_common(&shared);
    shared.expect(libc::EPERM, &CHANGES);
    let ends = [
        "own passed",
        "own connected",
        "own shut Read",
        "own shut Both",
    ];
    shared.expect(libc::EPERM, &ends);
    let serves = ["own before", "own still asks", "own meanwhile", "own after"];
    shared.expect(0, &serves);
    shared.expect(0, &["own another", "own another shut"]);
    // The control: the same on one that nobody shares.
    let alone = Trial::of("unix", None);
    alone.expect(0, &CHANGES);
    alone.expect(0, &["own shut Read", "own shut Both"]);
    alone.expect(libc::EDEADLK, &["own still asks"]);
    alone.expect(libc::EINVAL, &["own connected", "own after"]);
}

#[test]
fn what_reads_files_alone_has_no_socket_at_all() {
    let trial = Trial::of("none", None);
    check_common(&trial);
    trial.expect(
        libc::EPERM,
        &["unix", "unix by path", "connect", "bind", "datagram"],
    );
}

#[test]
fn the_egress_connects_and_does_not_listen() {
    let trial = Trial::of("client", None);
    check_common(&trial);
    trial.expect(0, &["unix", "unix by path", "connect", "datagram"]);
    if trial.landlock() >= 4 {
        trial.expect(libc::EACCES, &["bind"]);
    }
}

#[test]
fn switched_off_it_denies_nothing_and_says_so() {
    let trial = Trial::of("none", Some("off"));
    trial.expect(0, &["landlock", "seccomp"]);
    trial.expect(0, &FREE);
    trial.expect(0, &["read other", "run", "connect", "bind", "write beside"]);
    // Any other word leaves it on.
    assert_eq!(Trial::of("none", Some("no")).said["seccomp"], 1);
}

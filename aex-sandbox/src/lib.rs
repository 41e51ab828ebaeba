//! How a program shuts itself in: what it may reach is described first, then entered, once, before there
//! is a second thread.
//!
//! [`harden`] is for every program, at its start. [`Sandbox`] is the description; [`Sandbox::enter`] puts
//! it in force as far as the kernel can, and answers what is. What the kernel lacks is left out and said;
//! a kernel that has it and refuses is an error.
//!
//! Absent on purpose: which paths a program needs. Each program says that itself. Connecting to Unix
//! sockets by path: the peers' own checks and the sockets' modes decide that.

mod calls;
mod command;
mod panics;
mod paths;
mod seccomp;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use aex_admin_proto::sandbox::{InForce, Memory};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

pub use command::hold_command;
pub use panics::tell_place_alone;

/// Set to `off`, it switches Landlock and seccomp off: for kernels that are odd.
pub const SWITCH: &str = "AEX_SANDBOX";

/// What holds this process in. Of the process like its limits, so kept where all of it can ask.
static NOW: Mutex<Option<InForce>> = Mutex::new(None);

/// What holds this process in; nothing before [`Sandbox::enter`].
#[must_use]
pub fn in_force() -> InForce {
    let now = NOW.lock().unwrap_or_else(PoisonError::into_inner);
    now.unwrap_or_default()
}

#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("cannot protect this process's memory: {0}")]
    Harden(Errno),
    #[error("cannot give up new privileges: {0}")]
    NoNewPrivs(Errno),
    #[error("Landlock: {0}; AEX_SANDBOX=off starts without it")]
    Landlock(#[from] landlock::RulesetError),
    #[error("seccomp: {0}; AEX_SANDBOX=off starts without it")]
    Seccomp(#[from] seccompiler::Error),
    #[error("the sandbox cannot be told of {path}: {why}")]
    Path { path: PathBuf, why: String },
}

/// Where names of hosts and certificates' roots are looked up. Whole directories, since their files are
/// replaced by others of the same name while a program runs, and a rule holds for the file that it saw.
const RESOLVER_AND_ROOTS: [&str; 9] = [
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    "/nix/store",
    "/run/systemd/resolve",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/run/nscd",
];

/// What a program may do with sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Nothing: it reads and writes files and its standard streams.
    None,
    /// Unix sockets, and listeners that it inherits.
    Unix,
    /// Unix sockets, and outgoing TCP with the names of hosts looked up.
    Client,
}

/// What a program may reach, before it is put in force.
#[derive(Debug, Clone)]
pub struct Sandbox {
    network: Network,
    reads: Vec<PathBuf>,
    writes: Vec<PathBuf>,
    listeners: Option<RangeInclusive<u32>>,
    may_be_off: bool,
    memory: Memory,
}

impl Sandbox {
    #[must_use]
    pub fn new(network: Network) -> Self {
        Self {
            network,
            reads: Vec::new(),
            writes: Vec::new(),
            listeners: None,
            may_be_off: true,
            memory: Memory::Unlocked,
        }
    }

    /// It may read this file, or all below this directory. One that is not there is left out.
    #[must_use]
    pub fn reads(mut self, path: impl AsRef<Path>) -> Self {
        self.reads.push(path.as_ref().to_owned());
        self
    }

    /// It may read, write, make and remove all below this directory, which should be there.
    #[must_use]
    pub fn writes(mut self, path: impl AsRef<Path>) -> Self {
        self.writes.push(path.as_ref().to_owned());
        self
    }

    /// It may read what lies beside this file, also where the file is a link.
    #[must_use]
    pub fn reads_around(mut self, file: impl AsRef<Path>) -> Self {
        self.reads.extend(directories_of(file.as_ref()));
        self
    }

    /// It may write what lies beside this file, also where the file is a link.
    #[must_use]
    pub fn writes_around(mut self, file: impl AsRef<Path>) -> Self {
        self.writes.extend(directories_of(file.as_ref()));
        self
    }

    /// Names of hosts, and the roots of certificates.
    #[must_use]
    pub fn reads_resolver_and_roots(mut self) -> Self {
        self.reads.extend(RESOLVER_AND_ROOTS.map(PathBuf::from));
        let named = ["SSL_CERT_FILE", "SSL_CERT_DIR"].map(std::env::var_os);
        for paths in named.iter().flatten() {
            self.reads.extend(std::env::split_paths(paths));
        }
        self
    }

    /// It may accept on these descriptors and do nothing that changes them, for they are other processes' too.
    /// They stay open until it ends: what gets the number of one would be held to the same. Of a
    /// [`Network::Client`] this is not whole: it may send a descriptor to itself under another number.
    #[must_use]
    pub fn accepts_on(mut self, descriptors: RangeInclusive<u32>) -> Self {
        self.listeners = Some(descriptors);
        self
    }

    /// What of its memory the program has locked.
    #[must_use]
    pub fn with_memory(mut self, memory: Memory) -> Self {
        self.memory = memory;
        self
    }

    /// As a service of the system: the environment cannot switch it off.
    #[must_use]
    pub fn for_system(mut self) -> Self {
        self.may_be_off = false;
        self
    }

    /// Puts it in force for this thread and all that it starts, so it must be the only one; and logs what is.
    ///
    /// # Errors
    /// The kernel has what is asked for, and refuses it.
    pub fn enter(self) -> Result<InForce, SandboxError> {
        let in_force = self.put_in_force()?;
        *NOW.lock().unwrap_or_else(PoisonError::into_inner) = Some(in_force);
        let lacks = in_force.landlock_abi.is_none() || !in_force.seccomp;
        match self.network {
            // A command of a moment, whose standard error is for its answer.
            Network::None => tracing::debug!("sandbox: {in_force}"),
            _ if lacks => tracing::warn!("sandbox: {in_force}"),
            _ => tracing::info!("sandbox: {in_force}"),
        }
        Ok(in_force)
    }

    fn put_in_force(&self) -> Result<InForce, SandboxError> {
        prctl::set_no_new_privs().map_err(SandboxError::NoNewPrivs)?;
        let switched_off =
            self.may_be_off && std::env::var_os(SWITCH).is_some_and(|value| value == "off");
        let mut in_force = InForce {
            no_new_privs: prctl::get_no_new_privs().unwrap_or(false),
            not_dumpable: !prctl::get_dumpable().unwrap_or(true),
            no_core: getrlimit(Resource::RLIMIT_CORE).is_ok_and(|(soft, _)| soft == 0),
            switched_off,
            memory: self.memory,
            ..InForce::default()
        };
        if switched_off {
            return Ok(in_force);
        }
        if let Some(landlock) = paths::enter(self)? {
            in_force.landlock_abi = Some(landlock.abi);
            in_force.tcp = landlock.tcp;
            in_force.scoped = landlock.scoped;
        }
        in_force.seccomp = seccomp::enter(self.network, self.listeners.as_ref())?;
        Ok(in_force)
    }
}

/// Before anything secret is read: nobody of the same user may look into this process, it leaves no core file,
/// and a panic tells its place alone.
///
/// # Errors
/// The kernel refuses: then this process must not hold anything secret.
pub fn harden() -> Result<(), SandboxError> {
    tell_place_alone();
    prctl::set_dumpable(false).map_err(SandboxError::Harden)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(SandboxError::Harden)
}

/// A directory holds for the files that come into it later; a rule for a file would not.
fn directories_of(file: &Path) -> Vec<PathBuf> {
    let real = file.canonicalize().ok();
    let all = [Some(file), real.as_deref()].into_iter().flatten();
    all.map(|file| match file.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    })
    .collect()
}

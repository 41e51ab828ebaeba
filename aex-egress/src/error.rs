//! What can go wrong outside of an exchange, as texts that say what to do next. How an exchange
//! fails is `aex_admin_proto::egress::Failure`, not this.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    #[error("{what} {path}: {source}")]
    File {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "another aex-egress is using {0}; stop it first (aex daemon stop), or give this one its own --journal and --socket"
    )]
    AlreadyRunning(PathBuf),
    #[error("cannot take over the sockets of systemd: {0}")]
    Inherited(io::Error),
    #[error(
        "no home: set AEX_HOME or HOME, or give --socket, --admin-socket, --keys-dir and --journal"
    )]
    NoHome,
    #[error(
        "cannot read the boot id from /proc/sys/kernel/random/boot_id: {0}; /proc/sys must be visible (no ProcSubset=pid)"
    )]
    BootId(io::Error),
    #[error("--keys-fd {fd}: {source}; give an open pipe with lines NAME=VALUE")]
    KeysFd { fd: i32, source: io::Error },
    #[error("--keys-fd: line {line} is not NAME=VALUE")]
    KeysLine { line: usize },
    #[error(
        "key file {path} may be read by others (mode {mode:04o}) or is not owned by this user: chmod 600 {path}, and chown it to the user of aex-egress"
    )]
    KeyExposed { path: PathBuf, mode: u32 },
    #[error(
        "key file {0} is a symbolic link, and links are not followed: put the file itself there, mode 0600"
    )]
    KeyLink(PathBuf),
    #[error(
        "the key for provider {provider} in {place} cannot be sent as a header: it is empty, too long, or has characters other than visible ASCII"
    )]
    KeyUnusable { provider: String, place: String },
    #[error(
        "provider {provider} has `keys: passthrough`, but an operator's key for it is present in {place}: remove it, or set `keys: either`"
    )]
    KeyForbidden { provider: String, place: String },
    #[error("provider {provider}: base_url {base_url:?}: {why}")]
    BaseUrl {
        provider: String,
        base_url: String,
        why: &'static str,
    },
    #[error("provider {provider}: ca_file {path}: {why}")]
    CaFile {
        provider: String,
        path: String,
        why: String,
    },
    #[error("the system gave no runtime (threads, signals): {0}; check ulimit -u and -n")]
    Runtime(io::Error),
    #[error("the ticket key from aex-admin is not 64 hexadecimal digits")]
    TicketKey,
    #[error(transparent)]
    Sandbox(#[from] aex_sandbox::SandboxError),
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    #[error(
        "no trusted root certificates were found on this system: install ca-certificates, or set ca_file for the provider"
    )]
    NoRoots,
}

impl EgressError {
    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::File {
            what,
            path: path.into(),
            source,
        }
    }
}

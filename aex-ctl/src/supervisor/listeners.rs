//! The sockets that agents connect to: made here, handed to every worker, gone with the supervisor.
//!
//! A Unix socket is open to every user that can reach it: the token is what counts, and what a token is bound
//! to. Who may reach it is said by the directory that it lies in.

use std::fs::{self, Metadata, Permissions};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use aex_admin_proto::listen::Listen;
use aex_admin_proto::operator::DaemonState;
use aex_admin_proto::places::Places;

use crate::args::Plan;
use crate::fault::Fault;

/// Connections that may wait in a listener while workers are busy or being restarted.
const BACKLOG: u32 = 1024;

const STICKY: u32 = 0o1000;
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// All listeners, in the order in which they were asked for.
#[derive(Debug)]
pub(crate) struct Listeners {
    sockets: Vec<OwnedFd>,
    places: Vec<Listen>,
    files: Vec<SocketFile>,
    probe: Listen,
}

/// A socket in the file system: the one that was made here, and no other that came into its place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: Identity,
}

/// A number alone is soon given to another file.
type Identity = (u64, u64, Option<SystemTime>);

fn identity(meta: &Metadata) -> Identity {
    (meta.dev(), meta.ino(), meta.created().ok())
}

impl Listeners {
    /// All of them, or none.
    pub(crate) fn bind(plan: &Plan, places: &Places) -> Result<Self, Fault> {
        let mut made = Self {
            sockets: Vec::new(),
            places: Vec::new(),
            files: Vec::new(),
            probe: Listen::Unix(places.probe_socket()),
        };
        for listen in &plan.listen {
            if let Listen::Unix(path) = listen
                && path.parent() == Some(places.run.as_path())
            {
                return Err(Fault::Usage(format!(
                    "{} is where the kernel has its own sockets: choose another directory",
                    places.run.display()
                )));
            }
            made.add(listen, OPEN_TO_ALL)?;
        }
        made.probe = match made.to_probe(plan.front.tls.is_some()) {
            Some(place) => place,
            None => {
                made.listen_unix(&places.probe_socket(), PRIVATE)?;
                Listen::Unix(places.probe_socket())
            }
        };
        Ok(made)
    }

    fn add(&mut self, listen: &Listen, mode: u32) -> Result<(), Fault> {
        let place = match listen {
            Listen::Tcp(address) => {
                let listener = bind_tcp(*address)?;
                let bound = listener.local_addr();
                let bound = bound.map_err(|error| {
                    Fault::failed(format!("the listener has no address: {error}"))
                })?;
                self.sockets.push(listener.into());
                Listen::Tcp(bound)
            }
            Listen::Unix(path) => {
                check_directory(path)?;
                self.listen_unix(path, mode)?;
                listen.clone()
            }
        };
        self.places.push(place);
        Ok(())
    }

    fn listen_unix(&mut self, path: &Path, mode: u32) -> Result<(), Fault> {
        let (listener, file) = bind_unix(path, mode)?;
        self.sockets.push(listener.into());
        self.files.push(file);
        Ok(())
    }

    /// Where this program itself asks whether the kernel is ready: it speaks no TLS.
    fn to_probe(&self, is_tls: bool) -> Option<Listen> {
        let plain = |place: &&Listen| matches!(place, Listen::Unix(_)) || !is_tls;
        self.places.iter().find(plain).cloned()
    }

    pub(super) fn sockets(&self) -> &[OwnedFd] {
        &self.sockets
    }

    /// As text, the address that is told first.
    pub(super) fn first(&self) -> String {
        let tcp = |place: &&Listen| matches!(place, Listen::Tcp(_));
        let first = self.places.iter().find(tcp).or(self.places.first());
        first.map_or_else(String::new, ToString::to_string)
    }

    pub(super) fn all(&self) -> Vec<String> {
        self.places.iter().map(ToString::to_string).collect()
    }

    pub(super) fn probe(&self) -> String {
        self.probe.to_string()
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for file in &self.files {
            file.remove();
        }
    }
}

impl SocketFile {
    fn remove(&self) {
        let still = |meta: Metadata| identity(&meta) == self.identity;
        if fs::symlink_metadata(&self.path).is_ok_and(still) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Where a running daemon is asked whether it is ready.
pub(crate) fn probe_of(daemon: &DaemonState, places: &Places) -> String {
    let is_tls = daemon.front.tls.is_some();
    let plain = |text: &&String| !is_tls || matches!(text.parse(), Ok(Listen::Unix(_)));
    match (
        daemon.listeners.is_empty(),
        daemon.listeners.iter().find(plain),
    ) {
        // As an earlier version wrote it.
        (true, _) => daemon.listen.clone(),
        (false, Some(place)) => place.clone(),
        (false, None) => Listen::Unix(places.probe_socket()).to_string(),
    }
}

/// Whether they could be bound now: those of `wanted` that are not among `running`.
pub(crate) fn could_bind(wanted: &[Listen], running: &[String]) -> Result<(), Fault> {
    for listen in wanted
        .iter()
        .filter(|new| !running.contains(&new.to_string()))
    {
        match listen {
            Listen::Tcp(address) => drop(bind_tcp(*address)?),
            Listen::Unix(path) => {
                check_directory(path)?;
                bind_unix(path, PRIVATE)?.1.remove();
            }
        }
    }
    Ok(())
}

/// Socket files that a daemon which was killed has left.
pub(super) fn remove_left(daemon: &DaemonState) {
    for text in &daemon.listeners {
        if let Ok(Listen::Unix(path)) = text.parse() {
            let _ = remove_stale(&path);
        }
    }
}

fn bind_tcp(listen: SocketAddr) -> Result<std::net::TcpListener, Fault> {
    let bound = || {
        let socket = match listen {
            SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
            SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        socket.bind(listen)?;
        socket.listen(BACKLOG)?.into_std()
    };
    bound().map_err(|error: std::io::Error| {
        Fault::Failed(match error.kind() {
            ErrorKind::AddrInUse => format!(
                "port {} is taken: something else listens on {listen}. Stop it, or choose another \
                 port with --listen {}:PORT.",
                listen.port(),
                listen.ip()
            ),
            ErrorKind::PermissionDenied => format!(
                "not permitted to listen on {listen}: choose a port from 1024 on with --listen"
            ),
            _ => format!("cannot listen on {listen}: {error}"),
        })
    })
}

/// The mode of agents' sockets, and of this program's own.
const OPEN_TO_ALL: u32 = 0o666;
const PRIVATE: u32 = 0o600;

/// In a directory where nobody else can put something in its place: see [`check_directory`].
fn bind_unix(path: &Path, mode: u32) -> Result<(UnixListener, SocketFile), Fault> {
    remove_stale(path)?;
    let bound = UnixListener::bind(path);
    let cannot = |error: std::io::Error| {
        Fault::Failed(match error.kind() {
            ErrorKind::PermissionDenied => format!(
                "not permitted to make {}: choose a directory that this user can write",
                path.display()
            ),
            _ => format!("cannot listen on unix:{}: {error}", path.display()),
        })
    };
    let listener = bound.map_err(cannot)?;
    // The supervisor's own mask is for its files, and leaves a socket to its user alone.
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(cannot)?;
    let meta = fs::symlink_metadata(path).map_err(cannot)?;
    let file = SocketFile {
        path: path.to_owned(),
        identity: identity(&meta),
    };
    // The standard library's backlog is 128, or the system's most; listened on again, it is another.
    let backlog = i32::try_from(BACKLOG).unwrap_or(i32::MAX);
    let again = nix::sys::socket::Backlog::new(backlog)
        .and_then(|backlog| nix::sys::socket::listen(&listener, backlog));
    again.map_err(|errno| cannot(errno.into()))?;
    listener.set_nonblocking(true).map_err(cannot)?;
    Ok((listener, file))
}

/// Takes a socket away on which nobody listens; what is something else stays and is told.
fn remove_stale(path: &Path) -> Result<(), Fault> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Fault::file("look at", path, &error)),
    };
    if !meta.file_type().is_socket() {
        return Err(Fault::Failed(format!(
            "{} is there and is no socket: choose another name",
            path.display()
        )));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| Fault::file("remove", path, &error))
        }
        _ => Err(Fault::Failed(format!(
            "{} is taken: something else listens there. Stop it, or choose another name.",
            path.display()
        ))),
    }
}

/// Where others can put a socket of theirs in its place, agents would give them their tokens.
fn check_directory(path: &Path) -> Result<(), Fault> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let meta = match fs::metadata(directory) {
        Ok(meta) if meta.is_dir() => meta,
        Ok(_) => {
            return Err(Fault::Failed(format!(
                "{} is no directory",
                directory.display()
            )));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Fault::Failed(format!(
                "there is no directory {}: make it first, owned by this user",
                directory.display()
            )));
        }
        Err(error) => return Err(Fault::file("look at", directory, &error)),
    };
    if meta.mode() & WRITABLE_BY_OTHERS != 0 && meta.mode() & STICKY == 0 {
        return Err(Fault::Failed(format!(
            "others can write in {}, and could put a socket of theirs in the place of AEX's: chmod go-w \
             it, or choose another directory",
            directory.display()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_socket_is_open_to_all_and_goes_with_its_listener() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let (listener, file) = bind_unix(&path, OPEN_TO_ALL).unwrap();
        assert_eq!(mode_of(&path), 0o666);
        let again = bind_unix(&path, OPEN_TO_ALL).unwrap_err().to_string();
        assert!(again.contains("is taken"), "{again}");
        drop(listener);
        let (_listener, newer) = bind_unix(&path, PRIVATE).unwrap();
        assert_eq!(mode_of(&path), 0o600);
        file.remove();
        assert!(path.exists(), "another's by now");
        newer.remove();
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_socket_stays_and_an_open_directory_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        fs::write(&path, "mine").unwrap();
        assert!(bind_unix(&path, OPEN_TO_ALL).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        let allow = |mode| {
            fs::set_permissions(directory.path(), Permissions::from_mode(mode)).unwrap();
            check_directory(&path).is_ok()
        };
        assert!(allow(0o755) && allow(0o1777) && allow(0o711));
        assert!(!allow(0o777) && !allow(0o775));
        assert!(check_directory(&directory.path().join("none/a.sock")).is_err());
    }
}

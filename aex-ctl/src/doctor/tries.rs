//! What a user of this host can do, found out by doing it as that user: this program starts itself again,
//! the copy becomes the user, tries, and tells. Nothing is written, and nothing is sent.

use std::fs::File;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use nix::unistd::{Gid, Uid, initgroups, setgid, setgroups, setuid};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::fault::Fault;
use crate::output::Out;

const CONNECT_LIMIT: Duration = Duration::from_secs(3);
const MAX_ASKED_BYTES: u64 = 1024 * 1024;

/// Who tries, and what.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Its name, by which its groups are known; without one it has none.
    pub(super) name: Option<String>,
    pub(super) tries: Vec<Try>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Try {
    Connect(SocketAddr),
    ConnectUnix(PathBuf),
    /// A byte of a file, or the entries of a directory.
    Read(PathBuf),
}

/// Nothing, when it could be done; else why not.
pub(super) type Outcome = Option<String>;

/// The copy's part: asked on standard input, answers on standard output.
pub(crate) fn run(out: Out) -> Result<u8, Fault> {
    let mut text = String::new();
    std::io::stdin()
        .take(MAX_ASKED_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| Fault::Usage(format!("standard input: {error}")))?;
    let asked: Asked = serde_json::from_str(&text)
        .map_err(|error| Fault::Usage(format!("this is for `aex doctor --as` alone: {error}")))?;
    become_user(&asked)?;
    let outcomes: Vec<Outcome> = asked.tries.iter().map(attempt).collect();
    out.document(&json!(outcomes))?;
    Ok(0)
}

/// For good: there is no way back.
fn become_user(asked: &Asked) -> Result<(), Fault> {
    let (uid, gid) = (Uid::from_raw(asked.uid), Gid::from_raw(asked.gid));
    if nix::unistd::geteuid() == uid {
        return Ok(());
    }
    let groups = match &asked.name {
        Some(name) => std::ffi::CString::new(name.as_str())
            .map_err(|_| nix::Error::EINVAL)
            .and_then(|name| initgroups(&name, gid)),
        None => setgroups(&[]),
    };
    groups
        .and_then(|()| setgid(gid))
        .and_then(|()| setuid(uid))
        .map_err(|errno| {
            Fault::Refused(format!(
                "cannot become uid {uid}: {errno}; run `aex doctor --as` as root"
            ))
        })
}

fn attempt(wanted: &Try) -> Outcome {
    let done = match wanted {
        Try::Connect(address) => TcpStream::connect_timeout(address, CONNECT_LIMIT).map(drop),
        Try::ConnectUnix(path) => UnixStream::connect(path).map(drop),
        Try::Read(path) if path.is_dir() => std::fs::read_dir(path).map(drop),
        // Opening is what is guarded; what is at its beginning is nobody's business here.
        Try::Read(path) => File::open(path).map(drop),
    };
    done.err().map(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_done_is_told_apart_from_what_cannot() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        std::fs::write(&file, "x").unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(attempt(&Try::Read(file.clone())), None);
        assert_eq!(attempt(&Try::Read(dir.path().into())), None);
        assert_eq!(attempt(&Try::Connect(address)), None);
        drop(listener);
        assert!(attempt(&Try::Connect(address)).is_some());
        assert!(attempt(&Try::ConnectUnix(file)).is_some());
        assert!(attempt(&Try::Read(dir.path().join("none"))).is_some());
    }
}

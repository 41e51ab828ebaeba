//! Unix sockets that somebody listens at, as the kernel's table tells: behind each may be a program that does on
//! the command's behalf what the command itself may not (a bus, an editor, containers, another kernel of AEX).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

pub(super) const TABLE: &str = "/proc/net/unix";

/// `__SO_ACCEPTCON` of proc_net(5)'s `Flags`.
const LISTENS: u32 = 0x0001_0000;
/// Fields before the inode and the path: `Num RefCount Protocol Flags Type St`.
const FIELDS: usize = 6;
/// More than any host has; beyond it nothing is started.
const MAX_SOCKETS: usize = 4096;

/// Where names of hosts and users are looked up, and nothing else is done.
const NAMES: [&str; 3] = ["/run/nscd", "/run/systemd/resolve", "/run/systemd/userdb"];

/// Those of this network namespace that are there and open to this user, by their real paths, but for those
/// where names are looked up.
pub(super) fn listening() -> io::Result<Vec<PathBuf>> {
    let table = fs::read(TABLE)?;
    let mut found: Vec<PathBuf> = paths(&table)
        .filter(|path| is_socket(path) && access(path, AccessFlags::W_OK).is_ok())
        .filter_map(|path| path.canonicalize().ok())
        .filter(|path| !NAMES.iter().any(|names| path.starts_with(names)))
        .collect();
    found.sort();
    found.dedup();
    if found.len() > MAX_SOCKETS {
        return Err(io::Error::other(format!(
            "{} programs' sockets are open to this user, and {MAX_SOCKETS} can be hidden: end what made them",
            found.len()
        )));
    }
    Ok(found)
}

pub(super) fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|stat| stat.file_type().is_socket())
}

/// Absolute paths of those that listen. A path may hold any byte, a line's end too: what comes of that is no
/// socket, or one that is hidden for nothing.
fn paths(table: &[u8]) -> impl Iterator<Item = PathBuf> {
    table.split(|byte| *byte == b'\n').filter_map(|line| {
        let fields: Vec<&[u8]> = line.splitn(FIELDS + 1, |byte| *byte == b' ').collect();
        let flags = std::str::from_utf8(fields.get(3)?).ok()?;
        let listens = u32::from_str_radix(flags, 16).ok()? & LISTENS != 0;
        // The inode's number is set to the right, by blanks.
        let inode_and_path = fields.get(FIELDS)?.trim_ascii_start();
        let path = inode_and_path.splitn(2, |byte| *byte == b' ').nth(1)?;
        let is_absolute = path.starts_with(b"/");
        (listens && is_absolute).then(|| OsString::from_vec(path.to_owned()).into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_tells_who_listens_at_a_path() {
        let table = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 20841 /run/a b.sock\n\
            0000000000000000: 00000003 00000000 00000000 0001 03   841 /run/connected.sock\n\
            0000000000000000: 00000002 00000000 00010000 0005 01    41 /run/x\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 20842 @/abstract /no\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 20843 relative\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 20844\n\
            garbage /run/y\n";
        let found: Vec<PathBuf> = paths(table).collect();
        assert_eq!(found, ["/run/a b.sock", "/run/x"].map(PathBuf::from));
    }

    #[test]
    fn a_socket_is_found_while_it_listens() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().canonicalize().unwrap().join("x.sock");
        let held = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(listening().unwrap().contains(&path));
        drop(held);
        assert!(!listening().unwrap().contains(&path));
    }
}

//! Where else a directory can be seen: the same file system may be mounted at several places. The
//! kernel's table is passed in.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

pub(super) struct Mount {
    /// Of the file system: `MAJOR:MINOR`.
    pub(super) device: String,
    /// What of it is mounted.
    root: PathBuf,
    pub(super) at: PathBuf,
    options: String,
    /// The type of the file system.
    pub(super) kind: String,
}

impl Mount {
    pub(super) fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|one| one == option)
    }
}

/// The kernel's, as it is now.
pub(super) fn table() -> io::Result<String> {
    let table = fs::read("/proc/self/mountinfo")?;
    Ok(String::from_utf8_lossy(&table).into_owned())
}

/// All that a table tells of.
pub(super) fn all(table: &str) -> Vec<Mount> {
    table.lines().filter_map(read).collect()
}

/// Every path at which `path`, a part of it, or something that holds it is to be seen, as far as
/// `/proc/self/mountinfo` tells. `path` is among them.
pub(super) fn aliases(table: &str, path: &Path) -> Vec<PathBuf> {
    let mounts = all(table);
    let mut found = vec![path.to_owned()];
    // The last of those that are mounted deepest is the one that is seen.
    let own = (mounts.iter().enumerate())
        .filter(|(_, mount)| path.starts_with(&mount.at))
        .max_by_key(|(index, mount)| (mount.at.components().count(), *index));
    let Some((own, inside)) = own.and_then(|(_, mount)| {
        let below = path.strip_prefix(&mount.at).ok()?;
        Some((mount, mount.root.join(below)))
    }) else {
        return found;
    };
    for mount in mounts.iter().filter(|mount| mount.device == own.device) {
        if let Ok(below) = inside.strip_prefix(&mount.root) {
            found.push(join(&mount.at, below));
        } else if mount.root.starts_with(&inside) {
            found.push(mount.at.clone());
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Whether a mount shows just what is mounted at `path`: that one itself, or the same once more.
pub(super) fn is_seen_at(table: &str, path: &Path, mount: &Mount) -> bool {
    let own = all(table).into_iter().rfind(|one| one.at == path);
    own.is_some_and(|own| own.device == mount.device && own.root == mount.root)
}

fn join(at: &Path, below: &Path) -> PathBuf {
    if below == Path::new("") {
        at.to_owned()
    } else {
        at.join(below)
    }
}

/// `ID PARENT MAJOR:MINOR ROOT AT OPTIONS … - TYPE …` (proc_pid_mountinfo(5)).
fn read(line: &str) -> Option<Mount> {
    let (line, rest) = line.split_once(" - ")?;
    let mut fields = line.split(' ').skip(2);
    Some(Mount {
        device: fields.next()?.to_owned(),
        root: unescaped(fields.next()?),
        at: unescaped(fields.next()?),
        options: fields.next()?.to_owned(),
        kind: rest.split(' ').next()?.to_owned(),
    })
}

/// Blanks and backslashes are written as three octal digits.
fn unescaped(text: &str) -> PathBuf {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        let code = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 4 } else { 1 };
    }
    OsString::from_vec(plain).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(table: &str, path: &str) -> Vec<String> {
        let all = aliases(table, Path::new(path));
        all.iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn a_directory_is_found_wherever_its_file_system_is_mounted() {
        let table = "21 1 8:1 / / rw - ext4 /dev/a rw\n\
                     22 21 8:2 /@home /home rw - btrfs /dev/b rw\n\
                     23 21 8:2 / /mnt/all\\040of\\040it rw - btrfs /dev/b rw\n\
                     24 21 8:2 /@home/ana/.aex/run /srv/run rw - btrfs /dev/b rw\n\
                     25 21 8:2 /@other /other rw - btrfs /dev/b rw\n";
        assert_eq!(
            seen(table, "/home/ana/.aex"),
            [
                "/home/ana/.aex",
                "/mnt/all of it/@home/ana/.aex",
                "/srv/run"
            ]
        );
        assert_eq!(seen(table, "/var/lib/aex"), ["/var/lib/aex"]);
        assert_eq!(seen("", "/a"), ["/a"]);
    }

    #[test]
    fn the_home_of_its_own_mount_is_found_as_well() {
        let table = "21 1 8:1 / / rw - ext4 /dev/a rw\n22 21 0:9 / /data rw - tmpfs x rw\n\
                     23 21 0:9 / /again rw - tmpfs x rw\n";
        assert_eq!(seen(table, "/data"), ["/again", "/data"]);
    }
}

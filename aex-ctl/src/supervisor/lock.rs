//! `run/daemon.pid`: one supervisor a home. The lock is the truth; the pid inside only names it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// Held for the supervisor's life; the kernel frees it however that ends.
#[derive(Debug)]
pub(super) struct Lock {
    file: Flock<File>,
    path: PathBuf,
}

#[derive(Debug)]
pub(super) enum Attempt {
    Taken(Lock),
    /// By another supervisor, with its pid once it has written it.
    Held(Option<i32>),
}

impl Lock {
    pub(super) fn attempt(path: &Path) -> std::io::Result<Attempt> {
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path)?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => {
                    // The one before may have removed this file between our open and our lock.
                    let same = std::fs::metadata(path)
                        .is_ok_and(|there| file.metadata().is_ok_and(|m| m.ino() == there.ino()));
                    if same {
                        let path = path.to_owned();
                        return Ok(Attempt::Taken(Self { file, path }));
                    }
                }
                Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                    let mut text = String::new();
                    // Not yet written is the same as unreadable: the pid is not known.
                    let _ = file.read_to_string(&mut text);
                    return Ok(Attempt::Held(text.trim().parse().ok()));
                }
                Err((_, errno)) => return Err(errno.into()),
            }
        }
    }

    pub(super) fn write_pid(&mut self) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        writeln!(self.file, "{}", std::process::id())
    }

    /// Removes the file while it is still locked, so that no one else's is removed.
    pub(super) fn release(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_the_other_learns_who() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.pid");
        let Attempt::Taken(mut lock) = Lock::attempt(&path).unwrap() else {
            panic!("free lock not taken");
        };
        assert!(matches!(Lock::attempt(&path).unwrap(), Attempt::Held(None)));
        lock.write_pid().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(matches!(Lock::attempt(&path).unwrap(), Attempt::Held(Some(pid)) if pid == own));
        lock.release();
        assert!(!path.exists());
        assert!(matches!(Lock::attempt(&path).unwrap(), Attempt::Taken(_)));
    }
}

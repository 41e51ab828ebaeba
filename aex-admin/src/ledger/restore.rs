//! The files of a restore. What takes the ledger's place is one whole file, by one rename; before it the
//! ledger that was there has gone under another name, main file first. So whenever this is cut off there
//! is the old ledger, or none (which a start refuses, for its checkpoint is kept), or the new one.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::seal::{self, Sealer, beside, sync_directory};
use super::{Ledger, LedgerError, Lock, Result, backup, checkpoints, open_read_only};

/// A backup on its way to a ledger's place. Dropped, it is removed.
pub struct Copy {
    ledger: PathBuf,
    path: PathBuf,
}

/// Copies a backup, with what its log has if one lies beside it.
///
/// # Errors
/// It is none, or the copy cannot be written.
pub fn copy(ledger: &Path, from: &Path) -> Result<Copy> {
    let copy = Copy {
        ledger: ledger.to_owned(),
        path: beside(ledger, ".restoring"),
    };
    // Left by one that was cut off.
    copy.remove();
    backup::copy(from, &copy.path)?;
    Ok(copy)
}

impl Copy {
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the ledger's place, whose lock is held all the while: no kernel starts on what is being moved.
    /// Answers under which name that ledger is now.
    ///
    /// # Errors
    /// A file cannot be renamed.
    pub fn put_in_place(self, _lock: &Lock, at_ms: i64) -> Result<Option<String>> {
        let ledger = &self.ledger;
        // Whatever its log has is in the one file then, if it can be read at all.
        if let Ok(old) = Connection::open_with_flags(ledger, OpenFlags::SQLITE_OPEN_READ_WRITE) {
            let _ = old.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        }
        let kept = beside(ledger, &format!(".before-restore-{at_ms}"));
        let place = || -> io::Result<Option<String>> {
            let mut replaced = None;
            for suffix in ["", "-wal", "-shm"] {
                let old = beside(ledger, suffix);
                if old.exists() {
                    fs::rename(&old, beside(&kept, suffix))?;
                    replaced = Some(kept.display().to_string());
                }
            }
            File::open(&self.path)?.sync_all()?;
            fs::rename(&self.path, ledger)?;
            sync_directory(ledger)?;
            Ok(replaced)
        };
        let replaced = place().map_err(|source| LedgerError::File {
            path: ledger.clone(),
            source,
        })?;
        if let Some(checkpoint) = checkpoints::last(&open_read_only(ledger)?)? {
            seal::keep_checkpoint(ledger, &checkpoint)?;
        }
        Ok(replaced)
    }

    fn remove(&self) {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let _ = fs::remove_file(beside(&self.path, suffix));
        }
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Whether the chain of `copy` is signed with another key than the one beside `ledger`, or none.
///
/// # Errors
/// It cannot be read as a ledger.
pub fn is_foreign(ledger: &Path, copy: &Path) -> Result<bool> {
    let declared = checkpoints::declared_key(&open_read_only(copy)?)?;
    Ok(match Sealer::load(ledger)? {
        Some(sealer) => declared != Some(sealer.public_key()),
        // There is no key here yet: whose it is makes no difference.
        None => false,
    })
}

impl Ledger {
    /// What is known of the times of open holds is not true of a restored ledger: the egress may have
    /// forgotten requests that it had acknowledged, and they must not count as never sent.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn forget_times(&self) -> Result<()> {
        self.conn
            .execute("UPDATE holds SET opened_boot_ms = 0", [])?;
        Ok(())
    }
}

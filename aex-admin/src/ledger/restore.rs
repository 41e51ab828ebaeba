//! The files of a restore: each step leaves either the old ledger, or none (which a start refuses while
//! its checkpoint is kept), or the new one.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::seal::{beside, sync_directory};
use super::{Ledger, LedgerError, Result};

/// Puts a copy of `from` in the place of the ledger, which is kept under another name. Answers that name.
///
/// # Errors
/// A file cannot be read or written.
pub fn put_in_place(ledger: &Path, from: &Path, at_ms: i64) -> Result<Option<String>> {
    let new = beside(ledger, ".new");
    let kept = beside(ledger, &format!(".before-restore-{at_ms}"));
    let place = || -> io::Result<Option<String>> {
        copy(from, &new)?;
        let mut replaced = None;
        // What is not checkpointed into the file yet goes with it, under the name that SQLite looks for.
        for suffix in ["-wal", "-shm", ""] {
            let old = beside(ledger, suffix);
            if old.exists() {
                fs::rename(&old, beside(&kept, suffix))?;
                replaced = Some(kept.display().to_string());
            }
        }
        fs::rename(&new, ledger)?;
        sync_directory(ledger)?;
        Ok(replaced)
    };
    place().map_err(|source| LedgerError::File {
        path: ledger.to_owned(),
        source,
    })
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut target = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(to)?;
    io::copy(&mut source, &mut target)?;
    target.sync_all()
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

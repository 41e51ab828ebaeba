//! A copy of the ledger while it is being written, with SQLite's online backup.
//!
//! It is one moment's state: whole, sealed and audited like the ledger itself. The keys that sign the chain
//! and tickets are no part of the file.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aex_admin_proto::operator::BackupReply;
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::seal::beside;
use super::{LedgerError, Result, events, in_memory, open_read_only, seal};

/// Writes the ledger at `ledger` as it is now to `to`, which must be absolute and new. It has that name
/// only when it is whole.
///
/// # Errors
/// `to` is there already, is a name of the ledger's own, or cannot be written.
pub fn write(ledger: &Path, to: &Path) -> Result<BackupReply> {
    let own = ledger.display().to_string();
    if !to.is_absolute() {
        return Err(LedgerError::Refused(
            "a backup's path must be absolute".to_owned(),
        ));
    }
    if to.display().to_string().starts_with(&own) {
        let text = format!(
            "{} is a name of the ledger's own files; choose another",
            to.display()
        );
        return Err(LedgerError::Refused(text));
    }
    if to.symlink_metadata().is_ok() {
        let text = format!("{} is there already; choose another name", to.display());
        return Err(LedgerError::Refused(text));
    }
    let partial = beside(to, ".partial");
    // Left by one that was cut off.
    remove(&partial);
    let written = copy(ledger, &partial).and_then(|(event, hash)| {
        let file = |source| LedgerError::File {
            path: to.to_owned(),
            source,
        };
        let bytes = named(&partial, to).map_err(file)?;
        Ok(BackupReply {
            path: to.display().to_string(),
            bytes,
            event,
            hash,
            id: None,
        })
    });
    remove(&partial);
    written
}

/// Writes the ledger at `ledger` as it is now to a file beside it that has no name any more: it goes when
/// it is closed.
///
/// # Errors
/// It cannot be written.
pub fn unnamed(ledger: &Path) -> Result<(BackupReply, File)> {
    let partial = beside(ledger, ".backup.partial");
    // Left by one that was cut off.
    remove(&partial);
    let copied = copy(ledger, &partial).and_then(|(event, hash)| {
        let opened = File::open(&partial).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (bytes, file) = opened.map_err(|source| LedgerError::File {
            path: partial.clone(),
            source,
        })?;
        let reply = BackupReply {
            path: String::new(),
            bytes,
            event,
            hash,
            id: None,
        };
        Ok((reply, file))
    });
    remove(&partial);
    copied
}

/// Gives a whole file its name; one that came meanwhile is not overwritten.
fn named(partial: &Path, to: &Path) -> io::Result<u64> {
    let file = File::open(partial)?;
    file.sync_all()?;
    std::fs::hard_link(partial, to)?;
    seal::sync_directory(to)?;
    Ok(file.metadata()?.len())
}

fn remove(partial: &Path) {
    for suffix in ["", "-journal"] {
        let _ = std::fs::remove_file(beside(partial, suffix));
    }
}

/// Copies the ledger at `ledger`, log and all, to the new file `to`. Answers its last event.
///
/// # Errors
/// `ledger` is none, or `to` cannot be written.
pub(super) fn copy(ledger: &Path, to: &Path) -> Result<(i64, String)> {
    let from = open_read_only(ledger)?;
    // Private from its first moment.
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o600);
    options.open(to).map_err(|source| LedgerError::File {
        path: to.to_owned(),
        source,
    })?;
    let mut conn = Connection::open(to)?;
    in_memory(&conn)?;
    // One step, so of one moment; readers do not stop the writer.
    while Backup::new(&from, &mut conn)?.step(-1)? != StepResult::Done {}
    // A file by itself, with nothing beside it.
    conn.pragma_update(None, "journal_mode", "DELETE")?;
    let head = events::head(&conn)?;
    conn.close().map_err(|(_, error)| error)?;
    Ok((head.id, hex::encode(head.hash)))
}

//! A copy of the ledger while it is being written, with SQLite's online backup.
//!
//! It is one moment's state: whole, sealed and audited like the ledger itself. Left out is the key that
//! signs tickets, which only a running kernel needs; and the signing key is no part of the file.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aex_admin_proto::operator::BackupReply;
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::{LedgerError, Result, TICKET_KEY, events, open_read_only, seal};

/// Writes the ledger at `ledger` as it is now to `to`, which must be absolute and new.
///
/// # Errors
/// `to` is there already or cannot be written; nothing is left of it then.
pub fn write(ledger: &Path, to: &Path) -> Result<BackupReply> {
    if !to.is_absolute() {
        return Err(LedgerError::Value(
            "a backup's path must be absolute".to_owned(),
        ));
    }
    let file_error = |source| LedgerError::File {
        path: to.to_owned(),
        source,
    };
    // Private from its first moment, and nobody's file is overwritten.
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o600);
    let file = options.open(to).map_err(file_error)?;
    let written = copy(ledger, to).and_then(|(event, hash)| {
        file.sync_all().map_err(file_error)?;
        seal::sync_directory(to).map_err(file_error)?;
        let bytes = file.metadata().map_err(file_error)?.len();
        Ok(BackupReply {
            path: to.display().to_string(),
            bytes,
            event,
            hash,
        })
    });
    if written.is_err() {
        let _ = std::fs::remove_file(to);
    }
    written
}

fn copy(ledger: &Path, to: &Path) -> Result<(i64, String)> {
    let from = open_read_only(ledger)?;
    let mut conn = Connection::open(to)?;
    // One step, so of one moment; readers do not stop the writer.
    while Backup::new(&from, &mut conn)?.step(-1)? != StepResult::Done {}
    conn.pragma_update(None, "secure_delete", true)?;
    conn.execute("DELETE FROM meta WHERE key = ?1", [TICKET_KEY])?;
    // A file by itself, with nothing beside it.
    conn.pragma_update(None, "journal_mode", "DELETE")?;
    let head = events::head(&conn)?;
    conn.close().map_err(|(_, error)| error)?;
    Ok((head.id, hex::encode(head.hash)))
}

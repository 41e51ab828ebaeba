//! Puts a backup in the ledger's place, after it has been compared with what is known otherwise: the
//! ledger that is there, the last checkpoint, and the requests that the egress's journal tells as sent.
//!
//! All is done to a copy (`aex.db.restoring`): it is made through SQLite, audited, compared, told what is
//! missing in it, and signed. Only then it takes the ledger's place, by a rename.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aex_admin_proto::HoldId;
use aex_admin_proto::clock::wall_ms;
use aex_admin_proto::operator::{Checkpoint, RestoreReport};
use serde::Serialize;

use crate::audit;
use crate::ledger::{Event, EventHash, Ledger, LedgerError, Lock, reader, restore as files, seal};

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("{0}")]
    Ledger(#[from] LedgerError),
    #[error("{file} cannot be read as a backup of a ledger: {source}; nothing was changed")]
    NoBackup { file: PathBuf, source: LedgerError },
    #[error("{0} is the ledger itself; nothing was changed")]
    Itself(PathBuf),
    #[error("the backup does not hold: {0}; nothing was changed")]
    Unsound(String),
}

/// What the chain keeps of a restore.
#[derive(Serialize)]
struct Detail<'a> {
    events: i64,
    hash: &'a str,
    missing_events: i64,
    missing_spent_micro: i64,
    diverged: bool,
    unreadable: bool,
    foreign_key: bool,
    unknown_requests: u64,
}

/// Restores `from` to `ledger`. Without `accept_loss` only a backup that lacks nothing known is taken;
/// else the report says what it lacks, and nothing is changed.
///
/// # Errors
/// The kernel runs, a file cannot be read or written, or the backup does not pass its audit.
pub fn restore(
    ledger: &Path,
    from: &Path,
    sent: HashSet<HoldId>,
    accept_loss: bool,
) -> Result<RestoreReport, RestoreError> {
    let lock = Lock::take(ledger)?;
    if is_same_file(ledger, from) {
        return Err(RestoreError::Itself(from.to_owned()));
    }
    let no_backup = no_backup(from);
    let copy = files::copy(ledger, from).map_err(&no_backup)?;
    let mut report = compare(ledger, &copy, from, sent)?;
    if !report.is_whole() && !accept_loss {
        return Ok(report);
    }
    let lock = record(ledger, &copy, lock, &report)?;
    report.replaced = copy.put_in_place(&lock, wall_ms())?;
    report.restored = true;
    Ok(report)
}

fn no_backup(from: &Path) -> impl Fn(LedgerError) -> RestoreError {
    |source| RestoreError::NoBackup {
        file: from.to_owned(),
        source,
    }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| Some((path.metadata().ok()?.dev(), path.metadata().ok()?.ino()));
    identity(one).is_some_and(|one| identity(other) == Some(one))
}

fn compare(
    ledger: &Path,
    copy: &files::Copy,
    from: &Path,
    mut sent: HashSet<HoldId>,
) -> Result<RestoreReport, RestoreError> {
    let no_backup = no_backup(from);
    let foreign_key = files::is_foreign(ledger, copy.path()).map_err(&no_backup)?;
    let key_of = (!foreign_key).then_some(ledger);
    let audited = audit::of_copy(copy.path(), key_of).map_err(&no_backup)?;
    if let Some(found) = audited.violations.first() {
        let event = found
            .event
            .map_or(String::new(), |id| format!(" at event {id}"));
        let text = format!("{}{event}: {}", found.property, found.message);
        return Err(RestoreError::Unsound(text));
    }
    let conn = reader::snapshot(copy.path())?;
    let mut report = RestoreReport {
        events: audited.events,
        hash: audited.head,
        foreign_key,
        ..RestoreReport::default()
    };
    let kept = seal::kept_checkpoint(ledger)?;
    let present = present(ledger, &mut report);
    let mut checks = Checks::of(kept.as_ref(), present.as_ref());
    reader::each_event(&conn, |id, event, hash| {
        checks.event(id, hash);
        if let Some(id) = event.hold.and_then(|hold| hold.parse().ok()) {
            sent.remove(&id);
        }
    })?;
    report.unknown_requests = sent.len() as u64;
    report.diverged = checks.diverged
        || present
            .as_ref()
            .is_some_and(|present| present.lacks(report.events, &report.hash));
    for (last, spent_micro) in checks.known {
        let missing = last.saturating_sub(report.events);
        if missing > 0 {
            report.missing_events = report.missing_events.max(missing);
            let spent_micro = spent_micro.saturating_sub(audited.spent_micro);
            report.missing_spent_micro = report.missing_spent_micro.max(spent_micro);
        }
    }
    Ok(report)
}

/// The ledger that is there now.
struct Present {
    path: PathBuf,
    last: i64,
    hash: EventHash,
    spent_micro: i64,
}

/// Reads it, as far as it can be; what could not be read counts as missing.
fn present(ledger: &Path, report: &mut RestoreReport) -> Option<Present> {
    if !ledger.exists() {
        return None;
    }
    match reader::snapshot(ledger).and_then(|conn| reader::summary(&conn)) {
        Ok((last, hash, spent_micro)) => Some(Present {
            path: ledger.to_owned(),
            last,
            hash,
            spent_micro,
        }),
        Err(error) => {
            tracing::warn!(%error, "the present ledger cannot be read");
            report.unreadable = true;
            None
        }
    }
}

impl Present {
    /// Its own event of that number is not the backup's last.
    fn lacks(&self, last: i64, hash: &str) -> bool {
        let own = reader::snapshot(&self.path).and_then(|conn| reader::hash_of(&conn, last));
        last <= self.last && !own.is_ok_and(|own| own.is_some_and(|own| hex::encode(own) == hash))
    }
}

/// Events that must be in the backup as they are known, where it is long enough.
struct Checks {
    expected: Vec<(i64, Option<EventHash>)>,
    /// Last event and whole spending, as somebody knows them.
    known: Vec<(i64, i64)>,
    diverged: bool,
}

impl Checks {
    fn of(kept: Option<&Checkpoint>, present: Option<&Present>) -> Self {
        let mut checks = Self {
            expected: Vec::new(),
            known: Vec::new(),
            diverged: false,
        };
        if let Some(kept) = kept {
            checks.expected.push((kept.event, seal::hash_of(kept)));
            checks.known.push((kept.event, kept.spent_micro));
        }
        if let Some(present) = present {
            checks.expected.push((present.last, Some(present.hash)));
            checks.known.push((present.last, present.spent_micro));
        }
        checks
    }

    fn event(&mut self, id: i64, hash: &[u8]) {
        let differs = |expected: &Option<EventHash>| expected.is_none_or(|e| e[..] != *hash);
        let found = (self.expected.iter()).any(|(at, expected)| *at == id && differs(expected));
        self.diverged |= found;
    }
}

/// The copy says that it is a restored one, and is signed. Gives the lock back.
fn record(
    ledger: &Path,
    copy: &files::Copy,
    lock: Lock,
    report: &RestoreReport,
) -> Result<Lock, RestoreError> {
    let mut restored = Ledger::open_copy(copy.path(), ledger, lock)?;
    let detail = serde_json::to_string(&Detail {
        events: report.events,
        hash: &report.hash,
        missing_events: report.missing_events,
        missing_spent_micro: report.missing_spent_micro,
        diverged: report.diverged,
        unreadable: report.unreadable,
        foreign_key: report.foreign_key,
        unknown_requests: report.unknown_requests,
    })
    .map_err(|error| LedgerError::Value(error.to_string()))?;
    let at_ms = wall_ms();
    restored.begin()?;
    if !restored.declares_key()? {
        restored.declare_key(at_ms)?;
    }
    restored.forget_times()?;
    restored.append(&Event::note(at_ms, None, "ledger.restore", &detail))?;
    restored.checkpoint(at_ms)?;
    restored.commit()?;
    Ok(restored.close()?)
}

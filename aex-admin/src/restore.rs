//! Puts a backup in the ledger's place, after it has been compared with what is known otherwise: its own
//! chain, the last checkpoint, and the requests that the egress's journal tells as sent.

use std::collections::HashSet;
use std::path::Path;

use aex_admin_proto::HoldId;
use aex_admin_proto::clock::wall_ms;
use aex_admin_proto::operator::RestoreReport;
use serde::Serialize;

use crate::audit;
use crate::ledger::{Event, Ledger, LedgerError, Lock, reader, restore as files, seal};

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("{0}")]
    Ledger(#[from] LedgerError),
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
    let mut report = compare(ledger, from, sent)?;
    if !report.is_whole() && !accept_loss {
        return Ok(report);
    }
    report.replaced = files::put_in_place(ledger, from, wall_ms())?;
    record(ledger, lock, &report)?;
    report.restored = true;
    Ok(report)
}

fn compare(
    ledger: &Path,
    from: &Path,
    mut sent: HashSet<HoldId>,
) -> Result<RestoreReport, RestoreError> {
    let audited = audit::of_copy(from, ledger)?;
    if let Some(found) = audited.violations.first() {
        let event = found
            .event
            .map_or(String::new(), |id| format!(" at event {id}"));
        let text = format!("{}{event}: {}", found.property, found.message);
        return Err(RestoreError::Unsound(text));
    }
    let conn = reader::snapshot(from)?;
    let mut report = RestoreReport {
        events: audited.events,
        hash: audited.head,
        ..RestoreReport::default()
    };
    let kept = seal::kept_checkpoint(ledger)?;
    let mut there = None;
    reader::each_event(&conn, |id, event, hash| {
        if kept.as_ref().is_some_and(|kept| kept.event == id) {
            there = Some(hash.to_vec());
        }
        if let Some(id) = event.hold.and_then(|hold| hold.parse().ok()) {
            sent.remove(&id);
        }
    })?;
    report.unknown_requests = sent.len() as u64;
    if let Some(kept) = kept {
        report.missing_events = kept.event.saturating_sub(audited.events).max(0);
        report.missing_spent_micro = if report.missing_events > 0 {
            kept.spent_micro.saturating_sub(audited.spent_micro).max(0)
        } else {
            0
        };
        report.diverged =
            there.is_some_and(|hash| seal::hash_of(&kept).is_none_or(|h| h[..] != hash[..]));
    }
    Ok(report)
}

/// The restored ledger says that it is one, and is signed.
fn record(ledger: &Path, lock: Lock, report: &RestoreReport) -> Result<(), RestoreError> {
    let mut restored = Ledger::open_restored(ledger, lock)?;
    let detail = serde_json::to_string(&Detail {
        events: report.events,
        hash: &report.hash,
        missing_events: report.missing_events,
        missing_spent_micro: report.missing_spent_micro,
        diverged: report.diverged,
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
    restored.keep_checkpoint()?;
    Ok(())
}

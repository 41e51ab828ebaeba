//! Which recorded requests would a proposal have refused? The requests that the ledger has been granted
//! since some time are decided again, one after the other, by the proposal alone, as if it had come into
//! force at that time: what they would have been refused by, and what they really cost.
//!
//! Owns: how a proposal is read and checked ([`proposal`]), the stage on which it is played ([`stage`]), and
//! what is told of it ([`report`]). The decision is the kernel's own ([`crate::core::reserve`], and
//! [`crate::policy`]). Absent on purpose: writing anything.
//!
//! What differs from the time itself: requests that were refused then are not there to be asked again;
//! agents do as they did, where a refusal would have made them do something else; a request counts in a rate
//! from when it was granted, not from when its answer began.

mod proposal;
mod report;
mod stage;

use std::path::Path;

use aex_admin_proto::rehearsal::{Rehearsal, RehearseParams};

use crate::config::{Config, LoadError};
use crate::ledger::{LedgerError, reader};
use proposal::Proposal;
use stage::Stage;

/// Why nothing was rehearsed.
#[derive(Debug, thiserror::Error)]
pub enum RehearseError {
    /// The proposal could not come into force.
    #[error(transparent)]
    Proposal(#[from] LoadError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Rehearses a proposal on the ledger at `ledger`, as it is now.
///
/// # Errors
/// The proposal could not come into force, or the ledger cannot be read.
pub fn rehearse(
    config: &Config,
    ledger: &Path,
    params: &RehearseParams,
) -> Result<Rehearsal, RehearseError> {
    let conn = reader::snapshot(ledger)?;
    let scopes: Vec<_> = reader::agents(&conn)?
        .into_iter()
        .chain(reader::groups(&conn)?)
        .collect();
    let proposal = Proposal::read(params, config, &scopes)?;
    let mut stage = Stage::new(config, &proposal, scopes);
    let mut failed = None;
    reader::each_event_since(&conn, params.since_ms, |event| {
        if failed.is_none() {
            failed = stage.event(&conn, event).err();
        }
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    Ok(stage.told(params.since_ms))
}

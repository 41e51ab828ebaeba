//! Which recorded requests would a proposal have refused? The requests that the ledger has been granted
//! since some time are decided again, one after the other, by the proposal alone, as if it had come into
//! force at that time: what they would have been refused by, and what they really cost.
//!
//! Owns: how a proposal is read and checked ([`proposal`]), the scopes that have it ([`scopes`]), the stage on
//! which requests are played ([`stage`]), what is decided of each ([`fate`]: the kernel's own decision,
//! [`crate::core::reserve`] and [`crate::policy`]), and what is told ([`report`]). Absent on purpose: writing
//! anything.
//!
//! What differs from the time itself: requests that were refused then are not there to be asked again;
//! agents do as they did, where a refusal would have made them do something else; a request counts in a rate
//! from when it was granted, not from when its answer began.

mod fate;
mod proposal;
mod recent;
mod report;
mod scopes;
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
    #[error("it took too long; rehearse a shorter time (--since)")]
    TooLong,
}

/// Between two looks whether to go on, in events.
const LOOK_EVENTS: u64 = 256;

/// Rehearses a proposal on the ledger at `ledger`, as it is now, as long as `goes_on` says so.
///
/// # Errors
/// The proposal could not come into force, the ledger cannot be read, or it took too long.
pub fn rehearse(
    config: &Config,
    ledger: &Path,
    params: &RehearseParams,
    goes_on: &dyn Fn() -> bool,
) -> Result<Rehearsal, RehearseError> {
    let conn = reader::snapshot(ledger)?;
    let scopes: Vec<_> = reader::agents(&conn)?
        .into_iter()
        .chain(reader::groups(&conn)?)
        .collect();
    let proposal = Proposal::read(params, config, &scopes)?;
    let mut stage = Stage::new(config, &proposal, scopes);
    let mut events = 0_u64;
    let mut played = Ok(());
    reader::each_event_since(&conn, params.since_ms, |event| {
        events += 1;
        played = if events.is_multiple_of(LOOK_EVENTS) && !goes_on() {
            Err(RehearseError::TooLong)
        } else {
            stage.event(&conn, event).map_err(RehearseError::from)
        };
        played.is_ok()
    })?;
    played?;
    Ok(stage.told(params.since_ms))
}

//! `Idempotency-Key`s: what a key that was used before comes to, and the end of those that are old.
//!
//! A key is written in the transaction of its hold ([`super::requests`]) and forgotten in the one that
//! releases it ([`super::settles`]); nothing of it is in memory.

use aex_admin_proto::Refusal;
use aex_admin_proto::worker::{Idempotency, Replay, ReserveParams};

use super::Writer;
use super::requests::remaining_micro;
use super::routes::is_attempt_of;
use crate::core::idempotency::{self, Found, Used};
use crate::core::reserve::{Caller, Now};
use crate::ledger::LedgerError;

/// Old keys are looked for so often.
const LOOK_MS: u64 = 60_000;
/// Most that one sweep deletes; the next one goes on.
const MOST_PRUNED: usize = 256;

/// What a request comes to whose key was used.
pub(super) enum Before {
    Refuse(Refusal),
    Replay(Replay),
}

impl Writer {
    /// Nothing: the request is to be decided as any other. The agent is known to be who it says.
    pub(super) fn asked_before(
        &self,
        agent: i64,
        caller: &Caller,
        asked: &Idempotency,
        params: &ReserveParams,
        now: Now,
    ) -> Result<Option<Before>, LedgerError> {
        let Some(row) = self.ledger.used_key(agent, &asked.key)? else {
            return Ok(None);
        };
        let now_boot_ms = i64::try_from(now.boot_ms).unwrap_or(i64::MAX);
        let used = Used {
            request: row.request,
            running: self.shared.memory().open.contains_key(&row.hold),
            age_ms: now_boot_ms.saturating_sub(row.at_boot_ms),
        };
        // Its own earlier attempt, which came to nothing: this one takes the key over.
        if !used.running && asked.request == row.request && is_attempt_of(params, &row.hold) {
            return Ok(None);
        }
        Ok(match idempotency::judge(&asked.request, &used) {
            Found::Nothing => None,
            Found::Conflict(conflict) => {
                Some(Before::Refuse(Refusal::IdempotencyConflict { conflict }))
            }
            Found::Done => Some(Before::Replay(Replay {
                id: row.hold,
                remaining_micro: (caller.path.first())
                    .and_then(|own| remaining_micro(&own.balance)),
            })),
        })
    }

    /// Whether a sweep should look for old keys.
    pub(super) fn keys_are_due(&self, now: Now) -> bool {
        now.boot_ms >= self.prune_keys_boot_ms
    }

    /// Deletes some of the keys that are too old to stand for anything.
    pub(super) fn prune_keys(&mut self, now: Now) -> Result<(), LedgerError> {
        if !self.keys_are_due(now) {
            return Ok(());
        }
        let pruned = self.ledger.prune_keys(now.boot_ms, MOST_PRUNED)?;
        if pruned < MOST_PRUNED {
            self.prune_keys_boot_ms = now.boot_ms.saturating_add(LOOK_MS);
        }
        Ok(())
    }
}

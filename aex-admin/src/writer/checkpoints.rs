//! When the chain is signed: at the first start, then in time or by number of events, on demand, and at
//! a stop. And what a start says of a chain that is not as this kernel left it.

use super::Writer;
use crate::core::reserve::Now;
use crate::ledger::{Event, LedgerError};

/// Signed after this long, when anything happened.
const EVERY_MS: u64 = 60_000;
/// A checkpoint that could not be kept is kept again after this long.
const KEEP_AGAIN_MS: u64 = 5_000;
/// Signed after this many events.
const EVERY_EVENTS: i64 = 65_536;

impl Writer {
    /// At a start, in its first transaction.
    pub(super) fn take_up_chain(&mut self, now: Now) -> Result<(), LedgerError> {
        let as_left = self.ledger.is_as_left()?;
        if !as_left {
            tracing::error!(
                "the ledger's events are not as this kernel left them; see aex audit. Going on, recorded"
            );
            let note = Event::note(now.wall_ms, None, "outside.events", "{}");
            self.ledger.append(&note)?;
        }
        if !self.ledger.declares_key()? {
            self.ledger.declare_key(now.wall_ms)?;
        } else if !as_left {
            self.ledger.checkpoint(now.wall_ms)?;
        }
        Ok(())
    }

    /// At the end of a batch, once balances are written.
    pub(super) fn checkpoint_if_due(&mut self) -> Result<(), LedgerError> {
        let now = self.now();
        if self.ledger.events_since_checkpoint() >= EVERY_EVENTS || self.owes_checkpoint(now) {
            self.checkpointed_boot_ms = now.boot_ms;
            self.ledger.checkpoint(now.wall_ms)?;
        }
        Ok(())
    }

    /// Something happened, and was not signed in time.
    pub(super) fn owes_checkpoint(&self, now: Now) -> bool {
        now.boot_ms >= self.checkpointed_boot_ms.saturating_add(EVERY_MS)
            && self.ledger.events_since_checkpoint() > 0
    }

    /// After a commit. Without it only the checkpoint in the chain is there; it is tried again later.
    pub(super) fn keep_checkpoint(&mut self) {
        let now_boot_ms = self.now().boot_ms;
        if now_boot_ms < self.keep_again_boot_ms {
            return;
        }
        if let Err(error) = self.ledger.keep_checkpoint() {
            self.keep_again_boot_ms = now_boot_ms.saturating_add(KEEP_AGAIN_MS);
            tracing::warn!(%error, "the checkpoint is not kept beside the ledger yet");
        }
    }

    /// At a stop: the last events are signed too, and all is in the one file.
    pub(super) fn last_checkpoint(&mut self) {
        let at_ms = self.now().wall_ms;
        let signed = (self.ledger.begin())
            .and_then(|()| self.write_refusals_left(at_ms))
            .and_then(|()| self.ledger.checkpoint(at_ms))
            .and_then(|_| self.ledger.commit());
        match signed {
            Ok(()) => {
                self.keep_checkpoint();
                if let Err(error) = self.ledger.settle_log() {
                    tracing::warn!(%error, "what the log has is not in the file yet");
                }
            }
            Err(error) => tracing::warn!(%error, "stopped without a last checkpoint"),
        }
    }
}

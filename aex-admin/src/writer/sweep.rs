//! Upkeep: waiters whose time is up, holds whose worker is gone, tickets that nobody used.
//!
//! A hold that may have been sent is never freed by time alone: the egress is asked, and its answer
//! (voided, ended, unknown) decides. Without its answer the hold stays.

use aex_admin_proto::HoldId;
use aex_admin_proto::rpc::{RpcError, code};

use super::Writer;
use super::answers::Answers;
use super::memory::{OpenHold, Owner};
use super::requests::of_one_operation;
use crate::ledger::LedgerError;

/// A worker that lost its connection has this long to come back and re-claim.
const RECLAIM_MS: u64 = 2_000;
/// The egress is asked again for a hold after this long.
const ASK_AGAIN_MS: u64 = 1_000;
/// A worker has this long to settle after the exchange has ended.
const SETTLE_MS: u64 = 10_000;
/// A worker that waits for a receipt is told to come back after this long.
const CLAIM_WAIT_MS: u64 = 5_000;
/// The receipt of a settled hold is asked for after this long.
const RECEIPT_MS: u64 = 60_000;

/// What a look at one open hold comes to.
enum Due {
    Nothing,
    /// Ask the egress to void it, or to say how it ended.
    Ask,
    /// Its receipt is here, and nobody else will end it.
    End,
}

impl Writer {
    /// Whether a sweep could have anything to do.
    pub(super) fn has_upkeep(&self) -> bool {
        let memory = self.shared.memory();
        self.waiting.len() > 0
            || self.shared.trouble().is_some()
            || !memory.open.is_empty()
            || !memory.booked.is_empty()
            || !memory.agents.is_empty()
            || self.owes_checkpoint(self.now())
    }

    pub(super) fn sweep(&mut self, answers: &mut Answers) -> Result<(), LedgerError> {
        let now = self.now();
        self.expire_waiters(answers, now);
        let mut ask = Vec::new();
        let mut end = Vec::new();
        {
            let mut memory = self.shared.memory();
            memory.sweep(now.boot_ms);
            for (id, hold) in &mut memory.open {
                match due(hold, now.boot_ms) {
                    Due::Nothing => {}
                    Due::Ask => ask.push(*id),
                    Due::End => end.push(*id),
                }
                tell_to_come_back(hold, now.boot_ms);
                if hold.severed && now.boot_ms >= hold.asked_boot_ms + ASK_AGAIN_MS {
                    hold.asked_boot_ms = now.boot_ms;
                    self.shared.order_cut(*id);
                }
            }
            for (id, hold) in &mut memory.booked {
                let late = now.boot_ms >= hold.since_boot_ms + RECEIPT_MS;
                if late && now.boot_ms >= hold.asked_boot_ms + RECEIPT_MS {
                    hold.asked_boot_ms = now.boot_ms;
                    ask.push(*id);
                }
            }
        }
        ask.into_iter()
            .for_each(|id: HoldId| self.shared.order_void(id));
        for id in end {
            if let Err(error) = self.end_by_receipt(&id, answers) {
                of_one_operation(error)?;
            }
        }
        Ok(())
    }
}

fn due(hold: &mut OpenHold, now_boot_ms: u64) -> Due {
    let orphaned = match hold.owner {
        Owner::Session(_) => false,
        Owner::Nobody { since_boot_ms } => now_boot_ms >= since_boot_ms + RECLAIM_MS,
    };
    if hold.receipt.is_some() {
        let late = now_boot_ms >= hold.receipt_boot_ms + SETTLE_MS;
        return if orphaned || late || hold.claim.is_some() {
            Due::End
        } else {
            Due::Nothing
        };
    }
    let unused = now_boot_ms > hold.expires_boot_ms && !hold.dispatched;
    let past = now_boot_ms > hold.deadline_boot_ms.saturating_add(ASK_AGAIN_MS);
    let wanted = orphaned || unused || past || hold.claim.is_some();
    if wanted && now_boot_ms >= hold.asked_boot_ms + ASK_AGAIN_MS {
        hold.asked_boot_ms = now_boot_ms;
        return Due::Ask;
    }
    Due::Nothing
}

/// A worker that waits for a receipt too long is told so; its claim stays.
fn tell_to_come_back(hold: &mut OpenHold, now_boot_ms: u64) {
    let Some(claim) = &mut hold.claim else { return };
    if now_boot_ms < claim.since_boot_ms + CLAIM_WAIT_MS {
        return;
    }
    if let Some(reply) = claim.reply.take() {
        reply.send(Err(RpcError::new(
            code::UNAVAILABLE,
            "the egress has not confirmed the end yet",
        )));
    }
}

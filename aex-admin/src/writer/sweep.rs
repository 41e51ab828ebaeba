//! Upkeep: waiters whose time is up, holds whose worker is gone, tickets that nobody used.
//! What is due is [`crate::core::reservation`]'s to say.

use aex_admin_proto::HoldId;
use aex_admin_proto::rpc::{RpcError, code};

use super::Writer;
use super::answers::Answers;
use super::memory::OpenHold;
use super::requests::of_one_operation;
use crate::core::reservation::Due;
use crate::ledger::LedgerError;

/// A worker that waits for a receipt is told to come back after this long.
const CLAIM_WAIT_MS: u64 = 5_000;
/// The receipt of a settled hold is asked for after this long.
const RECEIPT_MS: u64 = 60_000;

impl Writer {
    /// Whether a sweep could have anything to do.
    pub(super) fn has_upkeep(&self) -> bool {
        let memory = self.shared.memory();
        self.waiting.len() > 0
            || self.shared.trouble().is_some()
            || !memory.open.is_empty()
            || !memory.booked.is_empty()
            || memory.book.has_lives()
            || self.owes_checkpoint(self.now())
            || self.keys_are_due(self.now())
            || self.refusals.are_due(self.now())
    }

    pub(super) fn sweep(&mut self, answers: &mut Answers) -> Result<(), LedgerError> {
        let now = self.now();
        self.write_refusals(now)?;
        self.expire_waiters(answers, now);
        self.prune_keys(now)?;
        let mut ask = Vec::new();
        let mut end = Vec::new();
        {
            let mut memory = self.shared.memory();
            memory.sweep(now.boot_ms);
            for (id, hold) in &mut memory.open {
                let claimed = hold.claim.is_some();
                match hold.course.due(claimed, now.boot_ms) {
                    Due::Nothing => {}
                    Due::Ask => ask.push(*id),
                    Due::End => end.push(*id),
                }
                tell_to_come_back(hold, now.boot_ms);
                if hold.course.cut_is_due(now.boot_ms) {
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

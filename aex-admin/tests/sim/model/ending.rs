//! How holds end: settles, receipts, and the sweep.

use aex_admin_proto::HoldId;
use aex_admin_proto::egress::{Ending, ReceiptsParams};
use aex_admin_proto::rpc::code;
use aex_admin_proto::worker::{Basis, Observed, SettleParams, SettleReply};

use super::judge::{Verdict, by_receipt, contradicts, judge};
use super::{
    Charge, Claim, Go, Hold, Model, Owner, Struck, floor_micro, remaining, status_and_completeness,
};
use crate::asks::{Answer, Tag};

const RECLAIM_MS: u64 = 2_000;
const SETTLE_MS: u64 = 10_000;
const CLAIM_WAIT_MS: u64 = 5_000;
const LATE_MS: u64 = 600_000;

impl Model {
    pub(super) fn settle(&mut self, tag: Tag, params: SettleParams) -> Go {
        let open = self.find_open(params.id);
        let given = open.and_then(|index| self.state.holds[index].ticket.clone());
        let proven = match given {
            Some(ticket) => ticket == params.ticket,
            None => (self.key.open_expired(&params.ticket)).is_ok_and(|c| c.id == params.id),
        };
        if !proven {
            return self.give(tag, Answer::Error(code::NOT_PERMITTED));
        }
        let settled = &self.state.settled;
        let before = settled.iter().rfind(|(before, _)| before.id == params.id);
        if let Some((before, answer)) = before {
            if *before == params {
                let answer = answer.clone();
                return self.give(tag, answer);
            }
            self.append(None, false)?;
            return self.give(tag, Answer::Error(code::CONFLICT));
        }
        let Some(index) = open else {
            return self.settle_late(tag, params);
        };
        let hold = &mut self.state.holds[index];
        let on_disconnect = self.variant.on_disconnect;
        let verdict = judge(hold, &params.observed, hold.receipt.as_ref(), on_disconnect);
        if matches!(verdict, Verdict::AwaitReceipt) {
            hold.claim = Some(Claim {
                params,
                tag: Some(tag),
                since_boot_ms: self.now.boot_ms,
            });
            return Ok(());
        }
        let answer = self.end(index, &verdict, Some(&params.observed))?;
        self.state.settled.push((params, answer.clone()));
        self.give(tag, answer)
    }

    fn give(&mut self, tag: Tag, answer: Answer) -> Go {
        self.with_commit.push((tag, answer));
        Ok(())
    }

    /// The figure of a worker comes after its hold had ended at the ceiling: the charge becomes what it
    /// would have been, once.
    fn settle_late(&mut self, tag: Tag, params: SettleParams) -> Go {
        let is_waited_for = |hold: &Hold| hold.id == params.id && hold.late_since_ms.is_some();
        let Some(index) = self.state.holds.iter().rposition(is_waited_for) else {
            return self.give(tag, Answer::Error(code::NOT_FOUND));
        };
        let hold = &self.state.holds[index];
        let on_disconnect = self.variant.on_disconnect;
        let verdict = judge(hold, &params.observed, hold.receipt.as_ref(), on_disconnect);
        let Verdict::Commit { pico, basis, .. } = verdict else {
            return self.give(tag, Answer::Error(code::NOT_FOUND));
        };
        if pico != hold.charged {
            self.correct(index, pico)?;
        }
        let hold = &mut self.state.holds[index];
        hold.late_since_ms = None;
        let answer = Answer::Settle(SettleReply {
            basis,
            cost_micro: floor_micro(pico),
            cost_pico: i64::try_from(pico).unwrap(),
            remaining_micro: Some(remaining(&self.state.agents[hold.agent])),
            severed: false,
        });
        self.state.settled.push((params, answer.clone()));
        self.give(tag, answer)
    }

    /// Appends what makes the charge of an ended hold `pico`.
    fn correct(&mut self, index: usize, pico: i128) -> Go {
        let hold = &mut self.state.holds[index];
        let agent = hold.agent;
        self.state.agents[agent].spent += pico - hold.charged;
        hold.charged = pico;
        hold.was_corrected = true;
        self.dirty = true;
        self.stirred.insert(agent);
        self.state.charges.push(Charge {
            hold: index,
            tokens: 0,
            sent: true,
            correction: true,
            is_ceiling_unsaid: false,
            receipt: true,
            booked: (None, false),
        });
        self.append(Some(self.state.charges.len() - 1), false)
    }

    pub(super) fn receipts(&mut self, tag: Tag, said: ReceiptsParams) -> Go {
        for receipt in said.receipts {
            self.receipt(receipt.id, receipt.ending, said.journal_begun_boot_ms)?;
        }
        self.give(tag, Answer::Receipts)
    }

    fn receipt(&mut self, id: HoldId, mut ending: Ending, journal_ms: u64) -> Go {
        let now_boot_ms = self.now.boot_ms;
        let open = self.find_open(id);
        // Granted after the journal began, which knows every redemption since.
        let younger = open.is_some_and(|at| self.state.holds[at].opened_boot_ms > journal_ms);
        if ending == Ending::Unknown && younger {
            ending = Ending::Voided;
        }
        // Also where it is of an earlier hold of the same id.
        if let (Some(sent_boot_ms), Some(index)) = (sent_at(&ending), open) {
            self.dispatched(index, sent_boot_ms.min(now_boot_ms));
        }
        if matches!(ending, Ending::Opened { .. }) {
            return Ok(());
        }
        let holds = &self.state.holds;
        if let Some(index) = holds
            .iter()
            .rposition(|hold| hold.booked.is_some() && hold.id == id)
        {
            return self.compare(index, &ending);
        }
        let Some(index) = open else { return Ok(()) };
        let hold = &mut self.state.holds[index];
        if matches!(hold.receipt, Some(Ending::Ended(_))) {
            // The first ending counts: an egress forgets what it told.
            return Ok(());
        }
        hold.unknown |= ending == Ending::Unknown;
        let ends = hold.claim.is_some() || ending == Ending::Voided;
        hold.receipt = Some(ending);
        hold.receipt_boot_ms = now_boot_ms;
        if ends {
            self.end_by_receipt(index)
        } else {
            Ok(())
        }
    }

    fn dispatched(&mut self, index: usize, at_boot_ms: u64) {
        let hold = &mut self.state.holds[index];
        if hold.open && !hold.dispatched {
            hold.dispatched = true;
            self.count_request(index, at_boot_ms);
        }
    }

    /// A receipt for a hold that is booked: what contradicts the worker costs the whole hold, once.
    fn compare(&mut self, index: usize, ending: &Ending) -> Go {
        let hold = &mut self.state.holds[index];
        let Some((status, complete)) = hold.booked.take() else {
            return Ok(());
        };
        let (whole, missing) = (hold.pico, hold.pico - hold.charged);
        let lied = matches!(ending, Ending::Ended(exchange)
            if contradicts(exchange, status, complete));
        if !lied || missing <= 0 {
            return Ok(());
        }
        self.correct(index, whole)
    }

    fn end_by_receipt(&mut self, index: usize) -> Go {
        let hold = &mut self.state.holds[index];
        let (claim, receipt) = (hold.claim.take(), hold.receipt.clone());
        let Some(receipt) = receipt else {
            return Ok(());
        };
        let on_disconnect = self.variant.on_disconnect;
        let verdict = match &claim {
            Some(claim) => judge(hold, &claim.params.observed, Some(&receipt), on_disconnect),
            None => by_receipt(hold, &receipt),
        };
        let seen = claim.as_ref().map(|claim| &claim.params.observed);
        let answer = self.end(index, &verdict, seen)?;
        if let Some(claim) = claim {
            self.state.settled.push((claim.params, answer.clone()));
            if let Some(tag) = claim.tag {
                self.give(tag, answer)?;
            }
        }
        Ok(())
    }

    fn end(
        &mut self,
        index: usize,
        verdict: &Verdict,
        seen: Option<&Observed>,
    ) -> Result<Answer, Struck> {
        let (pico, basis, tokens, sent) = match *verdict {
            Verdict::Commit {
                pico,
                basis,
                tokens,
            } => (pico, basis, tokens, true),
            Verdict::Release { sent } => (0, Basis::Released, 0, sent),
            Verdict::AwaitReceipt => unreachable!("a hold ends on a verdict"),
        };
        let hold = &mut self.state.holds[index];
        let booked = status_and_completeness(seen);
        let is_unsaid = basis == Basis::Ceiling && seen.is_none();
        self.state.charges.push(Charge {
            hold: index,
            tokens,
            sent,
            correction: false,
            is_ceiling_unsaid: is_unsaid,
            receipt: hold.receipt.is_some(),
            booked,
        });
        self.append(Some(self.state.charges.len() - 1), false)?;
        self.dirty = true;
        if sent {
            self.dispatched(index, self.now.boot_ms);
        }
        self.count_tokens(index, tokens, self.now.boot_ms);
        let hold = &mut self.state.holds[index];
        hold.open = false;
        hold.late_since_ms = is_unsaid.then_some(self.now.boot_ms);
        hold.charged = pico;
        hold.released = basis == Basis::Released;
        hold.claim = None;
        let (agent, held, severed) = (hold.agent, hold.pico, hold.severed);
        if hold.receipt.is_none() {
            self.book(index, booked);
        }
        self.stirred.insert(agent);
        let agent = &mut self.state.agents[agent];
        let before = floor_micro(agent.spent);
        agent.spent += pico;
        agent.held -= held;
        Ok(Answer::Settle(SettleReply {
            basis,
            cost_micro: floor_micro(agent.spent) - before,
            cost_pico: i64::try_from(pico).unwrap(),
            remaining_micro: Some(remaining(agent)),
            severed,
        }))
    }

    pub(super) fn sweep(&mut self) -> Go {
        self.tell_refusals()?;
        self.expire_waiters();
        self.forget_idle();
        let now_boot_ms = self.now.boot_ms;
        let mut due = Vec::new();
        for (index, hold) in self.state.holds.iter_mut().enumerate() {
            let is_late = |since_ms: u64| now_boot_ms >= since_ms + LATE_MS;
            if hold.late_since_ms.is_some_and(is_late) {
                hold.late_since_ms = None;
            }
            if !hold.open {
                continue;
            }
            let orphaned = matches!(hold.owner, Owner::Nobody { since_boot_ms }
                if now_boot_ms >= since_boot_ms + RECLAIM_MS);
            let late = now_boot_ms >= hold.receipt_boot_ms + SETTLE_MS;
            if hold.receipt.is_some() && (orphaned || late || hold.claim.is_some()) {
                due.push(index);
            }
            if let Some(claim) = &mut hold.claim
                && now_boot_ms >= claim.since_boot_ms + CLAIM_WAIT_MS
                && let Some(tag) = claim.tag.take()
            {
                self.at_once.push((tag, Answer::Error(code::UNAVAILABLE)));
            }
        }
        for index in due {
            self.end_by_receipt(index)?;
        }
        Ok(())
    }
}

/// When its answer began, or it ended without one; nothing for what was never sent.
fn sent_at(ending: &Ending) -> Option<u64> {
    match ending {
        Ending::Opened { head_boot_ms } => Some(*head_boot_ms),
        Ending::Ended(exchange) => exchange.sent.then_some(exchange.head_boot_ms),
        Ending::Voided | Ending::Unknown => None,
    }
}

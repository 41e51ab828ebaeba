//! Settle and receipts: how holds end.

use aex_admin_proto::HoldId;
use aex_admin_proto::egress::{Ending, Failure, Receipt, ReceiptsParams};
use aex_admin_proto::rpc::{RpcError, code};
use aex_admin_proto::worker::{Basis, Observed, SettleParams, SettleReply, Usage};
use serde::Serialize;

use super::answers::Answers;
use super::memory::{BookedHold, Claim, OpenHold};
use super::requests::of_one_operation;
use super::shared::basis_name;
use super::staged::Commit;
use super::{Reply, Writer, grants, routes};
use crate::core::book::Used;
use crate::core::breaker::Outcome;
use crate::core::charge::{self, Verdict};
use crate::core::reservation::Reservation;
use crate::core::scope::Charged;
use crate::ledger::{Event, LedgerError};

/// What the ledger keeps of an ended hold.
#[derive(Serialize)]
struct Detail<'a> {
    model: &'a str,
    provider: &'a str,
    basis: Basis,
    /// Tokens that count in a TPM window.
    tokens: u64,
    /// The provider saw it, or was tried in vain with no other target: it counts in an RPM window.
    sent: bool,
    hold_pico: i64,
    price_source: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Failure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    complete: bool,
    /// Id of its `hold.open` event, where a true figure may still come, and what the egress said: the
    /// figure must not contradict it, after a restart either.
    #[serde(skip_serializing_if = "Option::is_none")]
    opened: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ending: Option<&'a Ending>,
    /// The egress's receipt was here already, and agreed or decided.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    receipt: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    overrun: bool,
    #[serde(skip_serializing_if = "Charged::is_plain")]
    charged: Charged,
    /// Id of its `hold.open` event, where that has sums in which it counts: a receipt may still come that
    /// contradicts this.
    #[serde(skip_serializing_if = "Option::is_none")]
    sums_in: Option<i64>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands a reference to it"
)]
pub(super) fn is_plain(charged: &&Charged) -> bool {
    charged.is_plain()
}

impl Writer {
    /// A worker reports how an exchange ended.
    pub(super) fn settle(
        &mut self,
        params: SettleParams,
        reply: Reply<SettleReply>,
        answers: &mut Answers,
    ) -> Result<(), LedgerError> {
        let proven = {
            let memory = self.shared.memory();
            let hold = memory.open.get(&params.id);
            grants::is_ticket_of(&params.ticket, &self.key, params.id, hold)
        };
        if !proven {
            let error = RpcError::new(code::NOT_PERMITTED, "the ticket is not of this hold");
            answers.push(reply, Err(error));
            return Ok(());
        }
        let digest = grants::digest(&params);
        if let Some(answer) = self.settled_before(&params.id, digest)? {
            answers.push(reply, answer);
            return Ok(());
        }
        let verdict = {
            let memory = self.shared.memory();
            memory.open.get(&params.id).map(|hold| {
                charge::judge(&hold.terms, &params.observed, hold.course.receipt.as_ref())
            })
        };
        let Some(verdict) = verdict else {
            let answer = match self.settle_late(&params.id, &params.observed) {
                Ok(answer) => answer,
                Err(error) => Err(of_one_operation(error)?),
            };
            if let Ok(answer) = &answer {
                let mut memory = self.shared.memory();
                memory.remember_answer(params.id, digest, answer.clone());
            }
            answers.push(reply, answer);
            return Ok(());
        };
        if verdict == Verdict::AwaitReceipt {
            self.await_receipt(params, digest, reply);
            return Ok(());
        }
        match self.end(&params.id, &verdict, Some(&params.observed)) {
            Ok(answer) => {
                self.shared
                    .memory()
                    .remember_answer(params.id, digest, answer.clone());
                answers.push(reply, Ok(answer));
            }
            Err(error) => answers.push(reply, Err(of_one_operation(error)?)),
        }
        Ok(())
    }

    /// The answer to a settle that is asked again; another content than before is refused, and
    /// recorded.
    fn settled_before(
        &mut self,
        id: &HoldId,
        digest: u64,
    ) -> Result<Option<Result<SettleReply, RpcError>>, LedgerError> {
        let before = self.shared.memory().answered(id).cloned();
        let Some((before, answer)) = before else {
            return Ok(None);
        };
        if before == digest {
            return Ok(Some(Ok(answer)));
        }
        let hold = id.to_string();
        let note = Event {
            hold: Some(&hold),
            ..Event::note(self.now().wall_ms, None, "settle.conflict", "{}")
        };
        self.ledger.append(&note)?;
        Ok(Some(Err(RpcError::new(
            code::CONFLICT,
            "the hold was settled otherwise",
        ))))
    }

    /// Money comes back on the egress's word alone: keep the claim until the receipt is here.
    fn await_receipt(&mut self, params: SettleParams, digest: u64, reply: Reply<SettleReply>) {
        let now_boot_ms = self.now().boot_ms;
        let mut memory = self.shared.memory();
        let Some(hold) = memory.open.get_mut(&params.id) else {
            return;
        };
        // Where nothing was handed to the egress no receipt comes by itself.
        let unprompted = params.observed.status.is_some();
        hold.claim = Some(Claim {
            observed: params.observed,
            digest,
            reply: Some(reply),
            since_boot_ms: now_boot_ms,
        });
        hold.course.asked_boot_ms = now_boot_ms;
        drop(memory);
        if !unprompted {
            self.shared.order_void(params.id);
        }
    }

    /// The egress reports.
    pub(super) fn receipts(
        &mut self,
        said: ReceiptsParams,
        reply: Reply<()>,
        answers: &mut Answers,
    ) -> Result<(), LedgerError> {
        for mut receipt in said.receipts {
            if let Some(hold) = self.shared.memory().open.get(&receipt.id) {
                let begun_boot_ms = said.journal_begun_boot_ms;
                receipt.ending = hold.course.understood(&receipt.ending, begun_boot_ms);
            }
            if let Err(error) = self.receipt(&receipt, answers) {
                of_one_operation(error)?;
            }
        }
        answers.push(reply, Ok(()));
        Ok(())
    }

    fn receipt(&mut self, receipt: &Receipt, answers: &mut Answers) -> Result<(), LedgerError> {
        let now = self.now();
        let id = receipt.id;
        if let Some(sent_at_boot_ms) = Reservation::sent_at_boot_ms(&receipt.ending) {
            let mut memory = self.shared.memory();
            memory.dispatched(&id, sent_at_boot_ms.min(now.boot_ms));
        }
        if matches!(receipt.ending, Ending::Opened { .. }) {
            return Ok(());
        }
        let booked = self.shared.memory().booked.remove(&id);
        if let Some(booked) = booked {
            return self.compare(&id, &booked, &receipt.ending);
        }
        let kept = {
            let mut memory = self.shared.memory();
            match memory.open.get_mut(&id) {
                None => return Ok(()),
                // How it ended is known. An egress that has forgotten it since cannot know better.
                Some(hold) if matches!(hold.course.receipt, Some(Ending::Ended(_))) => {
                    return Ok(());
                }
                Some(hold) => {
                    hold.course.receipt = Some(receipt.ending.clone());
                    hold.course.receipt_boot_ms = now.boot_ms;
                    // A voided ticket can never be used: its hold ends, whoever held it.
                    let ends = hold.claim.is_some() || receipt.ending == Ending::Voided;
                    (!ends).then_some(hold.event)
                }
            }
        };
        match kept {
            Some(event) => self.ledger.set_receipt(event, &receipt.ending),
            None => self.end_by_receipt(&id, answers),
        }
    }

    /// Ends an open hold whose receipt is here: by the worker's claim, or without one.
    pub(super) fn end_by_receipt(
        &mut self,
        id: &HoldId,
        answers: &mut Answers,
    ) -> Result<(), LedgerError> {
        let (verdict, claim) = {
            let mut memory = self.shared.memory();
            let Some(hold) = memory.open.get_mut(id) else {
                return Ok(());
            };
            let Some(receipt) = &hold.course.receipt else {
                return Ok(());
            };
            let verdict = match &hold.claim {
                Some(claim) => charge::judge(&hold.terms, &claim.observed, Some(receipt)),
                None => charge::by_receipt(&hold.terms, receipt),
            };
            (verdict, hold.claim.take())
        };
        let observed = claim.as_ref().map(|claim| &claim.observed);
        let answer = self.end(id, &verdict, observed)?;
        if let Some(claim) = claim {
            self.shared
                .memory()
                .remember_answer(*id, claim.digest, answer.clone());
            if let Some(reply) = claim.reply {
                answers.push(reply, Ok(answer));
            }
        }
        Ok(())
    }

    /// Writes the end of a hold. From here it must succeed.
    fn end(
        &mut self,
        id: &HoldId,
        verdict: &Verdict,
        seen: Option<&Observed>,
    ) -> Result<SettleReply, LedgerError> {
        let now = self.now();
        let shared = std::sync::Arc::clone(&self.shared);
        let mut memory = shared.memory();
        let hold = memory
            .open
            .get(id)
            .ok_or_else(|| LedgerError::Value("a hold that is not open".to_owned()))?;
        let entry = Entry::of(hold, verdict, || self.was_tried_in_vain(hold));
        let hold_pico = hold.terms.hold_pico;
        let commit = Commit {
            agent: hold.agent,
            charged: &hold.terms.charged,
            hold_pico,
            cost_pico: entry.cost_pico,
        };
        let Some(committed) = self.staged.commit(&self.ledger, &commit)? else {
            return Err(LedgerError::Value("a charge beyond 64 bits".to_owned()));
        };
        let booked = hold.course.receipt.is_none().then(|| BookedHold {
            agent: hold.agent,
            charged: hold.terms.charged.clone(),
            hold_pico,
            cost_pico: entry.cost_pico,
            status: seen.and_then(|seen| seen.status),
            complete: seen.is_some_and(|seen| seen.complete),
            since_boot_ms: now.boot_ms,
            asked_boot_ms: now.boot_ms,
        });
        let detail = serde_json::to_string(&entry.detail(hold, seen))
            .map_err(|error| LedgerError::Value(error.to_string()))?;
        let hold_text = id.to_string();
        let event = hold.event;
        let agent = hold.agent;
        // A released attempt is forgotten; whatever costs something, or may have, is not.
        let earlier = hold.terms.attempt.and_then(|attempt| attempt.key_of);
        let forgotten = (hold.terms.idempotency).filter(|_| entry.basis == Basis::Released);
        self.ledger.within(|ledger| {
            ledger.delete_hold(event)?;
            if let Some(key) = &forgotten {
                ledger.end_of_key(agent, key, event, earlier)?;
            }
            ledger.append(&Event {
                at_ms: now.wall_ms,
                agent: Some(&committed.agent_name),
                action: entry.action,
                cost_micro: committed.cost_micro,
                cost_pico: entry.cost_pico,
                held_pico: -hold_pico,
                hold: Some(&hold_text),
                detail: &detail,
            })?;
            Ok(())
        })?;
        let severed = hold.course.severed;
        let used = Used {
            cost_pico: entry.cost_pico,
            tokens: entry.tokens,
            sent: entry.sent,
        };
        let outcome = Outcome::of(seen, hold.course.receipt.as_ref()).under(hold.terms.key);
        let ended = memory.close_hold(id, &used, now.boot_ms);
        if let Some(OpenHold { terms, .. }) = &ended {
            (memory.breakers).heard(&terms.provider, &terms.upstream_model, outcome, now.boot_ms);
        }
        if let (Some(ended), true) = (ended, entry.basis == Basis::Ceiling && seen.is_none()) {
            memory.expect_late(*id, ended, entry.cost_pico, now.boot_ms);
        }
        if let Some(booked) = booked {
            memory.booked.insert(*id, booked);
        }
        drop(memory);
        self.stirred
            .extend(committed.balances.iter().map(|(scope, _)| *scope));
        let (cost_micro, remaining_micro) = (committed.cost_micro, committed.remaining_micro());
        self.staged.book(committed)?;
        self.shared.count(|counters| {
            *counters.settled.entry(basis_name(entry.basis)).or_insert(0) += 1;
            counters.overruns += u64::from(entry.cost_pico > hold_pico);
        });
        Ok(SettleReply {
            basis: entry.basis,
            cost_micro,
            cost_pico: entry.cost_pico,
            remaining_micro,
            severed,
        })
    }
}

impl Writer {
    /// The egress tried and did not reach the provider, and no other target follows. That keeps its slot in
    /// the rates of requests: who asks again and again of what is down is bounded as everybody is.
    fn was_tried_in_vain(&self, hold: &OpenHold) -> bool {
        matches!(hold.course.receipt, Some(Ending::Ended(_)))
            && routes::retry_until_boot_ms(&self.config, hold) == 0
    }
}

/// A verdict as the ledger books it.
struct Entry<'a> {
    action: &'static str,
    cost_pico: i64,
    basis: Basis,
    tokens: u64,
    sent: bool,
    usage: Option<Usage>,
    reason: Option<&'a str>,
}

impl<'a> Entry<'a> {
    /// `keeps_slot`: whether it counts in the rates of requests although it was not sent.
    fn of(hold: &OpenHold, verdict: &'a Verdict, keeps_slot: impl FnOnce() -> bool) -> Self {
        match verdict {
            Verdict::Commit(charge) => Self {
                action: "usage.commit",
                cost_pico: charge.cost_pico,
                basis: charge.basis,
                tokens: charge.tokens,
                sent: true,
                usage: charge.usage,
                reason: charge.reason,
            },
            Verdict::Release { sent } => Self {
                action: "hold.release",
                cost_pico: 0,
                basis: Basis::Released,
                tokens: 0,
                sent: *sent || keeps_slot(),
                usage: None,
                reason: None,
            },
            // Callers end a hold only on a verdict; should one not, nothing is given away.
            Verdict::AwaitReceipt => Self {
                action: "usage.commit",
                cost_pico: hold.terms.hold_pico,
                basis: Basis::Ceiling,
                tokens: hold.terms.tokens(),
                sent: true,
                usage: None,
                reason: Some("ended without a verdict"),
            },
        }
    }

    fn detail(&self, hold: &'a OpenHold, seen: Option<&Observed>) -> Detail<'a> {
        let unsaid = self.basis == Basis::Ceiling && seen.is_none();
        Detail {
            model: &hold.terms.model,
            provider: &hold.terms.provider,
            basis: self.basis,
            tokens: self.tokens,
            sent: self.sent,
            hold_pico: hold.terms.hold_pico,
            price_source: &hold.terms.price_source,
            usage: self.usage,
            status: seen.and_then(|seen| seen.status),
            failure: seen.and_then(|seen| seen.failure),
            reason: self.reason,
            complete: seen.is_some_and(|seen| seen.complete),
            opened: unsaid.then_some(hold.event),
            ending: hold.course.receipt.as_ref().filter(|_| unsaid),
            receipt: hold.course.receipt.is_some(),
            overrun: self.cost_pico > hold.terms.hold_pico,
            charged: hold.terms.charged.without_sums(),
            sums_in: (hold.course.receipt.is_none() && hold.terms.charged.has_sums())
                .then_some(hold.event),
        }
    }
}

//! Charges that turn out otherwise after their hold has ended: appended with a signed cost and a
//! reason, never an edit. By a receipt that contradicts the worker, by a worker's figure that comes
//! late, and by an operator ([`super::resolve`]).

use aex_admin_proto::HoldId;
use aex_admin_proto::egress::Ending;
use aex_admin_proto::rpc::{RpcError, code};
use aex_admin_proto::worker::{Observed, SettleReply};
use serde::Serialize;

use super::Writer;
use super::memory::BookedHold;
use crate::core::charge::{self, Verdict};
use crate::core::money::Balance;
use crate::core::price::PICO_PER_MICRO;
use crate::ledger::{Event, LedgerError};

/// The audit knows a correction by its first member.
#[derive(Serialize)]
struct Detail<'a> {
    correction: bool,
    reason: &'a str,
    by: &'a str,
}

/// One correction, before it is booked.
pub(super) struct Correction<'a> {
    /// Agent id.
    pub agent: i64,
    /// Signed.
    pub cost_pico: i64,
    /// Reservation id, hexadecimal.
    pub hold: Option<&'a str>,
    pub reason: &'a str,
    /// `kernel` or `operator`.
    pub by: &'a str,
}

/// What was booked: the event, and what it changed.
pub(super) struct Corrected {
    pub event: i64,
    pub cost_micro: i64,
    pub balance: Balance,
}

impl Writer {
    /// Appends a correction and books it. Nothing is done where it would make spending negative.
    pub(super) fn correct(
        &mut self,
        correction: &Correction<'_>,
    ) -> Result<Option<Corrected>, LedgerError> {
        let at_ms = self.now().wall_ms;
        let Some(agent) = self.staged.agent(&self.ledger, correction.agent)? else {
            return Ok(None);
        };
        let booked = agent.balance.with_commit(0, correction.cost_pico);
        let Some((balance, cost_micro)) = booked.filter(|(after, _)| after.spent_micro >= 0) else {
            return Ok(None);
        };
        let detail = serde_json::to_string(&Detail {
            correction: true,
            reason: correction.reason,
            by: correction.by,
        })
        .map_err(|error| LedgerError::Value(error.to_string()))?;
        let name = agent.name.clone();
        let event = self.ledger.within(|ledger| {
            ledger.append(&Event {
                agent: Some(&name),
                cost_micro,
                cost_pico: correction.cost_pico,
                hold: correction.hold,
                ..Event::note(at_ms, None, "usage.commit", &detail)
            })
        })?;
        self.staged.set_balance(correction.agent, balance)?;
        if let Some(id) = correction.hold.and_then(|hold| hold.parse().ok()) {
            self.shared.memory().corrected(&id, correction.cost_pico);
        }
        self.stirred.insert(correction.agent);
        Ok(Some(Corrected {
            event,
            cost_micro,
            balance,
        }))
    }

    /// A settle was booked; the receipt may show that it was a lie.
    pub(super) fn compare(
        &mut self,
        id: &HoldId,
        hold: &BookedHold,
        ending: &Ending,
    ) -> Result<(), LedgerError> {
        let lied = matches!(ending, Ending::Ended(exchange)
            if charge::contradicts_booked(exchange, hold.status, hold.complete));
        let missing_pico = hold.hold_pico.saturating_sub(hold.cost_pico);
        if !lied || missing_pico <= 0 {
            return Ok(());
        }
        let hold_text = id.to_string();
        tracing::warn!(hold = hold_text, "a receipt contradicts a settle");
        self.correct(&Correction {
            agent: hold.agent,
            cost_pico: missing_pico,
            hold: Some(&hold_text),
            reason: "the receipt contradicts the worker",
            by: "kernel",
        })?;
        Ok(())
    }

    /// A worker's figure for a hold that was ended without it, at its ceiling: the difference is
    /// given back, or charged.
    pub(super) fn settle_late(
        &mut self,
        id: &HoldId,
        seen: &Observed,
    ) -> Result<Result<SettleReply, RpcError>, LedgerError> {
        let judged = {
            let memory = self.shared.memory();
            memory.late.get(id).map(|late| {
                let verdict = charge::judge(&late.terms, seen, late.receipt.as_ref());
                (late.agent, late.cost_pico, verdict)
            })
        };
        // What would release it is the receipt's to say, and it was heard when the hold ended.
        let Some((agent, booked_pico, Verdict::Commit(charge))) = judged else {
            return Ok(Err(RpcError::new(code::NOT_FOUND, "the hold has ended")));
        };
        let missing_pico = charge.cost_pico.saturating_sub(booked_pico);
        let hold = id.to_string();
        if missing_pico != 0 {
            let corrected = self.correct(&Correction {
                agent,
                cost_pico: missing_pico,
                hold: Some(&hold),
                reason: "the worker's figure came after the hold had ended",
                by: "kernel",
            })?;
            if corrected.is_none() {
                return Ok(Err(RpcError::new(code::NOT_FOUND, "the hold has ended")));
            }
        }
        let Some(agent) = self.staged.agent(&self.ledger, agent)? else {
            return Ok(Err(RpcError::new(code::NOT_FOUND, "the hold has ended")));
        };
        let remaining_micro = agent.balance.free_micro().max(0);
        self.shared.memory().late.remove(id);
        Ok(Ok(SettleReply {
            basis: charge.basis,
            cost_micro: charge.cost_pico.div_euclid(PICO_PER_MICRO),
            cost_pico: charge.cost_pico,
            remaining_micro,
            severed: false,
        }))
    }
}

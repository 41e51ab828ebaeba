//! Charges that turn out otherwise after their hold has ended: appended with a signed cost and a
//! reason, never an edit. By a receipt that contradicts the worker, by a worker's figure that comes
//! late, and by an operator ([`super::resolve`]).

use aex_admin_proto::HoldId;
use aex_admin_proto::egress::Ending;
use aex_admin_proto::rpc::{RpcError, code};
use aex_admin_proto::scope::ScopeId;
use aex_admin_proto::worker::{Observed, SettleReply};
use serde::Serialize;

use super::Writer;
use super::memory::BookedHold;
use super::requests::remaining_micro;
use super::settles::is_plain;
use super::staged::{Commit, Committed};
use crate::core::charge::{self, Verdict};
use crate::core::price::PICO_PER_MICRO;
use crate::core::scope::Charged;
use crate::ledger::{Event, LedgerError};

/// The audit knows a correction by its first member.
#[derive(Serialize)]
struct Detail<'a> {
    correction: bool,
    reason: &'a str,
    by: &'a str,
    #[serde(skip_serializing_if = "is_plain")]
    charged: &'a Charged,
}

/// One correction, before it is booked.
pub(super) struct Correction<'a> {
    /// Agent id.
    pub agent: i64,
    /// Where else it belongs: as the hold has it.
    pub charged: &'a Charged,
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
    /// What the agent has free then.
    pub remaining_micro: Option<i64>,
}

impl Writer {
    /// Appends a correction and books it. Nothing is done where it would make spending negative.
    pub(super) fn correct(
        &mut self,
        correction: &Correction<'_>,
    ) -> Result<Option<Corrected>, LedgerError> {
        let at_ms = self.now().wall_ms;
        let commit = Commit {
            agent: correction.agent,
            charged: correction.charged,
            hold_pico: 0,
            cost_pico: correction.cost_pico,
        };
        let committed = self.staged.commit(&self.ledger, &commit)?;
        let whole = |committed: &Committed| {
            let mut balances = committed.balances.iter();
            balances.all(|(_, after)| after.spent_micro >= 0)
        };
        let Some(committed) = committed.filter(whole) else {
            return Ok(None);
        };
        let detail = serde_json::to_string(&Detail {
            correction: true,
            reason: correction.reason,
            by: correction.by,
            charged: correction.charged,
        })
        .map_err(|error| LedgerError::Value(error.to_string()))?;
        let cost_micro = committed.cost_micro;
        let event = self.ledger.within(|ledger| {
            ledger.append(&Event {
                agent: Some(&committed.agent_name),
                cost_micro,
                cost_pico: correction.cost_pico,
                hold: correction.hold,
                ..Event::note(at_ms, None, "usage.commit", &detail)
            })
        })?;
        let agent = ScopeId::Agent(correction.agent);
        let mut balances = committed.balances.iter();
        let after = balances.find(|(scope, _)| *scope == agent);
        let remaining_micro = after.and_then(|(_, balance)| balance.free_micro());
        self.stirred
            .extend(committed.balances.iter().map(|(scope, _)| *scope));
        self.staged.book(committed)?;
        let mut memory = self.shared.memory();
        memory
            .book
            .corrected(correction.charged, correction.cost_pico);
        if let Some(id) = correction.hold.and_then(|hold| hold.parse().ok()) {
            memory.corrected(&id, correction.cost_pico);
        }
        drop(memory);
        Ok(Some(Corrected {
            event,
            cost_micro,
            remaining_micro,
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
            charged: &hold.charged,
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
                let charged = late.terms.charged.clone();
                (late.agent, charged, late.cost_pico, verdict)
            })
        };
        // What would release it is the receipt's to say, and it was heard when the hold ended.
        let Some((agent, charged, booked_pico, Verdict::Commit(charge))) = judged else {
            return Ok(Err(RpcError::new(code::NOT_FOUND, "the hold has ended")));
        };
        let missing_pico = charge.cost_pico.saturating_sub(booked_pico);
        let hold = id.to_string();
        if missing_pico != 0 {
            let corrected = self.correct(&Correction {
                agent,
                charged: &charged,
                cost_pico: missing_pico,
                hold: Some(&hold),
                reason: "the worker's figure came after the hold had ended",
                by: "kernel",
            })?;
            if corrected.is_none() {
                return Ok(Err(RpcError::new(code::NOT_FOUND, "the hold has ended")));
            }
        }
        let own = charged.path(agent).next();
        let own = own
            .map(|own| self.staged.scope(&self.ledger, own))
            .transpose()?;
        let remaining_micro = own.flatten().and_then(|own| remaining_micro(&own.balance));
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

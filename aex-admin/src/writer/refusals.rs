//! Refusals: counted, and recorded as `request.refused` once a minute. What is gathered is
//! [`crate::core::refusals`]'s to say.

use aex_admin_proto::refusal::Refusal;
use aex_admin_proto::scope::ScopeId;
use aex_admin_proto::worker::{ReserveParams, ReserveReply};

use super::Writer;
use crate::core::refusals::Key;
use crate::core::reserve::Now;
use crate::ledger::{Event, LedgerError};

impl Writer {
    /// Refuses a request of `agent`, zero where nobody has its token. A further attempt is the same
    /// request: that its first one came to nothing is told elsewhere.
    pub(super) fn refuse(
        &mut self,
        agent: i64,
        params: &ReserveParams,
        refusal: Refusal,
    ) -> ReserveReply {
        self.shared
            .count(|counters| *counters.refused.entry(refusal.code()).or_insert(0) += 1);
        if params.again.is_none() {
            let known = self.config.models.contains_key(&params.model);
            let model = known.then_some(params.model.as_str());
            self.note_refusal(agent, model, &refusal);
        }
        ReserveReply::Refused(refusal.outward())
    }

    /// To be recorded. `model`: one that the configuration has.
    pub(super) fn note_refusal(&mut self, agent: i64, model: Option<&str>, refusal: &Refusal) {
        if matches!(refusal, Refusal::WrongPeer { .. }) {
            self.shared.count(|counters| counters.wrong_peers += 1);
        }
        let now = self.now();
        let key = Key::of(agent, refusal, model);
        self.refusals.note(key, refusal, now);
    }

    /// In a sweep: when their minute is over.
    pub(super) fn write_refusals(&mut self, now: Now) -> Result<(), LedgerError> {
        if !self.refusals.are_due(now) {
            return Ok(());
        }
        self.write_refusals_left(now.wall_ms)
    }

    /// At a stop: whatever there is.
    pub(super) fn write_refusals_left(&mut self, at_ms: i64) -> Result<(), LedgerError> {
        for (agent, told) in self.refusals.record() {
            let scope = self.staged.scope(&self.ledger, ScopeId::Agent(agent))?;
            let name = scope.as_ref().map(|scope| scope.name.as_str());
            let detail = serde_json::to_string(&told)
                .map_err(|error| LedgerError::Value(error.to_string()))?;
            let note = Event::note(at_ms, name, "request.refused", &detail);
            self.ledger.append(&note)?;
        }
        Ok(())
    }
}

//! Changes that somebody made to `agents` or `nodes` with their own SQL: honoured, and put into the chain.

use aex_admin_proto::scope::ScopeId;
use serde::Serialize;

use super::Writer;
use crate::core::reserve::Now;
use crate::core::scope::{Recorded, Scope};
use crate::ledger::{Event, LedgerError};

#[derive(Serialize)]
struct Detail<'a> {
    /// Of a scope that is no agent: its id and name.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<ScopeId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    /// Absent where that was overwritten too.
    was: Option<&'a Recorded>,
    now: &'a Recorded,
}

impl Writer {
    /// Compares every scope's row with what was last recorded. Runs only when another connection has
    /// committed, inside the open transaction.
    pub(super) fn note_outside_changes(&mut self, now: Now) -> Result<(), LedgerError> {
        for (scope, recorded) in self.ledger.changed_from_outside()? {
            tracing::warn!(scope = scope.name, "changed from outside");
            let (agent, node) = match scope.id {
                ScopeId::Agent(_) => (Some(scope.name.as_str()), None),
                ScopeId::Node(_) => (None, Some(scope.id)),
            };
            let detail = serde_json::to_string(&Detail {
                scope: node,
                name: node.map(|_| scope.name.as_str()),
                was: recorded.as_ref(),
                now: &scope.grant,
            })
            .map_err(|error| LedgerError::Value(error.to_string()))?;
            let event = Event::note(now.wall_ms, agent, "outside.update", &detail);
            self.ledger.within(|ledger| {
                ledger.set_recorded(scope.id, &scope.grant)?;
                ledger.append(&event)?;
                Ok(())
            })?;
            if let Some(was) = recorded {
                let before = Scope {
                    grant: was,
                    ..scope.clone()
                };
                self.forget_dropped(&before, &scope.grant)?;
            }
            self.stirred.insert(scope.id);
            self.shared.count(|counters| counters.outside_updates += 1);
        }
        // Money of any scope may have been changed too.
        self.stirred.extend(self.waiting.scopes());
        Ok(())
    }
}

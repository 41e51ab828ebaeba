//! Changes that somebody made to `agents` with their own SQL: honoured, and put into the chain.

use serde::Serialize;

use super::Writer;
use crate::core::reserve::Now;
use crate::ledger::{Event, LedgerError, Recorded};

#[derive(Serialize)]
struct Detail<'a> {
    /// Absent where that was overwritten too.
    was: Option<&'a Recorded>,
    now: &'a Recorded,
}

impl Writer {
    /// Compares every agent's row with what was last recorded. Runs only when another connection has
    /// committed, inside the open transaction.
    pub(super) fn note_outside_changes(&mut self, now: Now) -> Result<(), LedgerError> {
        for (agent, recorded) in self.ledger.changed_from_outside()? {
            tracing::warn!(agent = agent.name, "changed from outside");
            let detail = serde_json::to_string(&Detail {
                was: recorded.as_ref(),
                now: &agent.grant,
            })
            .map_err(|error| LedgerError::Value(error.to_string()))?;
            let event = Event::note(now.wall_ms, Some(&agent.name), "outside.update", &detail);
            self.ledger.within(|ledger| {
                ledger.set_recorded(agent.id, &agent.grant)?;
                ledger.append(&event)?;
                Ok(())
            })?;
            self.stirred.insert(agent.id);
            self.shared.count(|counters| counters.outside_updates += 1);
        }
        // Money of any agent may have been changed too.
        self.stirred.extend(self.waiting.agents());
        Ok(())
    }
}

//! Rows of agents as the open batch sees them: read once, changed in memory by each operation, and
//! written once before the commit. So a batch of a hundred requests of one agent reads and writes its
//! row once, and the trigger on held money judges what is written.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use aex_admin_proto::TokenDigest;

use crate::core::money::Balance;
use crate::ledger::{AgentRow, Ledger, LedgerError, Result, TokenRow};

#[derive(Default)]
pub(crate) struct Staged {
    /// By agent id; whether its balance must be written.
    agents: HashMap<i64, (AgentRow, bool)>,
    tokens: HashMap<TokenDigest, (i64, TokenRow)>,
}

impl Staged {
    pub(crate) fn agent(&mut self, ledger: &Ledger, id: i64) -> Result<Option<&AgentRow>> {
        let row = match self.agents.entry(id) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(place) => match ledger.agent_by_id(id)? {
                Some(row) => place.insert((row, false)),
                None => return Ok(None),
            },
        };
        Ok(Some(&row.0))
    }

    pub(crate) fn agent_of_token(
        &mut self,
        ledger: &Ledger,
        digest: &TokenDigest,
    ) -> Result<Option<(&AgentRow, TokenRow)>> {
        if !self.tokens.contains_key(digest) {
            let Some((row, token)) = ledger.agent_by_token(digest)? else {
                return Ok(None);
            };
            self.tokens.insert(*digest, (row.id, token));
            self.agents.entry(row.id).or_insert((row, false));
        }
        let Some(&(id, token)) = self.tokens.get(digest) else {
            return Ok(None);
        };
        Ok(self.agents.get(&id).map(|(row, _)| (row, token)))
    }

    /// Takes an agent's new balance, once the rest of the operation is written.
    ///
    /// # Errors
    /// The agent was not read in this batch, which is a bug.
    pub(crate) fn set_balance(&mut self, agent: i64, balance: Balance) -> Result<()> {
        let (row, changed) = self.agents.get_mut(&agent).ok_or_else(|| {
            LedgerError::Value("a balance of an agent that was not read".to_owned())
        })?;
        row.balance = balance;
        *changed = true;
        Ok(())
    }

    /// Writes what changed, and forgets everything: before a commit, and before rows are changed by
    /// other ways.
    ///
    /// # Errors
    /// SQLite's own; the trigger's, when held money grew past a budget.
    pub(crate) fn write(&mut self, ledger: &Ledger) -> Result<()> {
        self.tokens.clear();
        for (id, (row, changed)) in self.agents.drain() {
            if changed {
                ledger.set_balance(id, &row.balance)?;
            }
        }
        Ok(())
    }

    /// Forgets everything: the batch is undone.
    pub(crate) fn forget(&mut self) {
        self.tokens.clear();
        self.agents.clear();
    }
}

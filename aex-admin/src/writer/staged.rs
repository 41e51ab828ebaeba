//! Rows of scopes as the open batch sees them: read once, changed in memory by each operation, and
//! written once before the commit. So a batch of a hundred requests of one agent reads and writes its
//! row once, and those above it, and the trigger on held money judges what is written.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use aex_admin_proto::TokenDigest;
use aex_admin_proto::scope::{KERNEL, ScopeId};

use crate::core::money::Balance;
use crate::core::scope::{Charged, Scope};
use crate::ledger::{Ledger, LedgerError, Result, TokenRow};

/// Longest path: so deep a tree is made by nobody, and a ring, which only somebody's own SQL could
/// make, ends.
pub(super) const MAX_DEPTH: usize = 32;

/// A hold that ends, or a correction (without a hold).
pub(crate) struct Commit<'a> {
    pub agent: i64,
    pub charged: &'a Charged,
    pub hold_pico: i64,
    /// Signed.
    pub cost_pico: i64,
}

/// What it makes of the balances.
pub(crate) struct Committed {
    pub agent_name: String,
    /// By how much the agent's `spent_micro` moves.
    pub cost_micro: i64,
    /// The token's own scope first.
    pub balances: Vec<(ScopeId, Balance)>,
}

impl Committed {
    /// What the token's own scope has free then.
    pub(crate) fn remaining_micro(&self) -> Option<i64> {
        let (_, own) = self.balances.first()?;
        own.free_micro().map(|free_micro| free_micro.max(0))
    }
}

#[derive(Default)]
pub(crate) struct Staged {
    /// Whether its balance must be written.
    scopes: HashMap<ScopeId, (Arc<Scope>, bool)>,
    tokens: HashMap<TokenDigest, TokenRow>,
}

impl Staged {
    pub(crate) fn scope(&mut self, ledger: &Ledger, id: ScopeId) -> Result<Option<Arc<Scope>>> {
        let (row, _) = match self.scopes.entry(id) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(place) => {
                let found = match id {
                    ScopeId::Agent(id) => ledger.agent_by_id(id)?,
                    ScopeId::Node(id) => ledger.node(id)?,
                };
                match found {
                    Some(row) => place.insert((Arc::new(row), false)),
                    None => return Ok(None),
                }
            }
        };
        Ok(Some(Arc::clone(row)))
    }

    pub(crate) fn token(
        &mut self,
        ledger: &Ledger,
        digest: &TokenDigest,
    ) -> Result<Option<TokenRow>> {
        if let Some(token) = self.tokens.get(digest) {
            return Ok(Some(*token));
        }
        let found = ledger.token(digest)?;
        if let Some(token) = found {
            self.tokens.insert(*digest, token);
        }
        Ok(found)
    }

    /// The scopes from `own` up to the kernel.
    ///
    /// # Errors
    /// SQLite's own; a scope without its parent, or a ring.
    pub(crate) fn path(&mut self, ledger: &Ledger, own: ScopeId) -> Result<Vec<Arc<Scope>>> {
        let mut path = Vec::with_capacity(4);
        let mut next = Some(own);
        while let Some(id) = next {
            let scope = self.scope(ledger, id)?;
            let scope =
                scope.ok_or_else(|| LedgerError::Value(format!("there is no scope {id}")))?;
            next = scope.parent;
            path.push(scope);
            if path.len() > MAX_DEPTH {
                return Err(LedgerError::Value(format!(
                    "the scopes above {own} are a ring"
                )));
            }
        }
        match path.last() {
            Some(last) if last.id == KERNEL => Ok(path),
            _ => Err(LedgerError::Value(format!(
                "scope {own} is not below the kernel"
            ))),
        }
    }

    /// Takes a scope's new balance, once the rest of the operation is written.
    ///
    /// # Errors
    /// The scope was not read in this batch, which is a bug.
    pub(crate) fn set_balance(&mut self, scope: ScopeId, balance: Balance) -> Result<()> {
        let (row, changed) = self.scopes.get_mut(&scope).ok_or_else(|| {
            LedgerError::Value("a balance of a scope that was not read".to_owned())
        })?;
        Arc::make_mut(row).balance = balance;
        *changed = true;
        Ok(())
    }

    /// What ending a hold, or correcting its cost, makes of every scope to which it belongs. Nothing is
    /// changed yet. None: beyond 64 bits.
    ///
    /// # Errors
    /// SQLite's own; there is no such agent.
    pub(crate) fn commit(
        &mut self,
        ledger: &Ledger,
        commit: &Commit<'_>,
    ) -> Result<Option<Committed>> {
        let mut committed = Committed {
            agent_name: String::new(),
            cost_micro: 0,
            balances: Vec::with_capacity(4),
        };
        for id in commit.charged.path(commit.agent) {
            let Some(scope) = self.scope(ledger, id)? else {
                if id == ScopeId::Agent(commit.agent) {
                    return Err(LedgerError::Value("a hold of no agent".to_owned()));
                }
                // Only somebody's own SQL removes one; the audit tells.
                continue;
            };
            let booked = scope
                .balance
                .with_commit(commit.hold_pico, commit.cost_pico);
            let Some((balance, cost_micro)) = booked else {
                return Ok(None);
            };
            if id == ScopeId::Agent(commit.agent) {
                committed.agent_name.clone_from(&scope.name);
                committed.cost_micro = cost_micro;
            }
            committed.balances.push((id, balance));
        }
        Ok(Some(committed))
    }

    /// Takes the balances of a commit, once the rest of the operation is written.
    ///
    /// # Errors
    /// As of [`Staged::set_balance`].
    pub(crate) fn book(&mut self, committed: Committed) -> Result<()> {
        for (scope, balance) in committed.balances {
            self.set_balance(scope, balance)?;
        }
        Ok(())
    }

    /// Writes what changed, and forgets everything: before a commit, and before rows are changed by
    /// other ways.
    ///
    /// # Errors
    /// SQLite's own; the trigger's, when held money grew past a budget.
    pub(crate) fn write(&mut self, ledger: &Ledger) -> Result<()> {
        self.tokens.clear();
        for (id, (row, changed)) in self.scopes.drain() {
            if changed {
                ledger.set_balance(id, &row.balance)?;
            }
        }
        Ok(())
    }

    /// Forgets everything: the batch is undone.
    pub(crate) fn forget(&mut self) {
        self.tokens.clear();
        self.scopes.clear();
    }
}

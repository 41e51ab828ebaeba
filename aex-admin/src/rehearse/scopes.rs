//! The scopes of a rehearsal: each has what is proposed for it, its labels and its time zone, and nothing
//! else.

use std::collections::HashMap;
use std::sync::Arc;

use aex_admin_proto::operator::Settings;
use aex_admin_proto::scope::{ScopeId, ScopeKind};
use rusqlite::Connection;

use super::proposal::Proposal;
use crate::core::hold::Terms;
use crate::core::money::Balance;
use crate::core::scope::{Recorded, Scope};
use crate::ledger::{LedgerError, reader};

/// Runs that are kept while nothing of theirs is open.
const MOST_RUNS: usize = 4096;

pub(super) struct Scopes<'a> {
    proposal: &'a Proposal,
    scopes: HashMap<ScopeId, Arc<Scope>>,
    agents: HashMap<String, i64>,
    /// How many are no runs.
    lasting: usize,
}

impl<'a> Scopes<'a> {
    /// `scopes`: every agent, every group and the kernel.
    pub(super) fn new(proposal: &'a Proposal, scopes: Vec<Scope>) -> Self {
        let agents = scopes.iter().filter_map(|scope| match scope.id {
            ScopeId::Agent(id) => Some((scope.name.clone(), id)),
            ScopeId::Node(_) => None,
        });
        Self {
            proposal,
            agents: agents.collect(),
            lasting: scopes.len(),
            scopes: scopes
                .into_iter()
                .map(|scope| (scope.id, Arc::new(staged(scope, proposal))))
                .collect(),
        }
    }

    pub(super) fn agent(&self, name: &str) -> Option<i64> {
        self.agents.get(name).copied()
    }

    /// The path that was recorded.
    pub(super) fn path(
        &mut self,
        conn: &Connection,
        recorded: &Terms,
        agent: i64,
    ) -> Result<Vec<Arc<Scope>>, LedgerError> {
        let mut path = Vec::new();
        for id in recorded.charged.path(agent) {
            if let (ScopeId::Node(node), None) = (id, self.scopes.get(&id)) {
                self.forget_runs();
                if let Some(run) = reader::node(conn, node)? {
                    self.scopes.insert(id, Arc::new(staged(run, self.proposal)));
                }
            }
            path.extend(self.scopes.get(&id).cloned());
        }
        Ok(path)
    }

    /// Moves what the scopes of a hold's path hold.
    pub(super) fn hold(&mut self, agent: i64, terms: &Terms, pico: i64) {
        for id in terms.charged.path(agent) {
            if let Some(scope) = self.scopes.get_mut(&id) {
                let balance = &mut Arc::make_mut(scope).balance;
                balance.held_pico = balance.held_pico.saturating_add(pico).max(0);
            }
        }
    }

    fn forget_runs(&mut self) {
        if self.scopes.len() >= self.lasting + MOST_RUNS {
            let is_idle_run =
                |scope: &Scope| scope.kind == ScopeKind::Run && scope.balance.held_pico == 0;
            self.scopes.retain(|_, scope| !is_idle_run(scope));
        }
    }
}

fn staged(scope: Scope, proposal: &Proposal) -> Scope {
    let own = scope.grant.settings;
    let proposed = proposal.scopes.get(&scope.id).cloned().unwrap_or_default();
    Scope {
        expires_at_ms: None,
        balance: Balance::default(),
        grant: Recorded {
            settings: Settings {
                labels: proposed.labels.or(own.labels),
                time_zone: proposed.time_zone.or(own.time_zone),
                ..proposed
            },
            ..Recorded::none()
        },
        ..scope
    }
}

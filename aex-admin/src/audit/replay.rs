//! Every scope's money as the events alone make it. Pure.

use std::collections::BTreeMap;

use aex_admin_proto::operator::{Replay, ReplayedBalance};
use aex_admin_proto::scope::{KERNEL, ScopeId, ScopeKind};
use serde::Deserialize;

use crate::core::price::PICO_PER_MICRO;
use crate::core::scope::{Charged, Recorded, Scope};
use crate::ledger::{Event, LedgerError};

/// One agent as its events make it.
#[derive(Debug, Default, Clone)]
pub(super) struct Money {
    /// Budget, limits and state, as the last event that changed them says.
    pub granted: Option<Recorded>,
    pub cost_micro: i128,
    pub cost_pico: i128,
    pub held_pico: i128,
}

impl Money {
    /// None: no limit.
    pub(super) fn budget_micro(&self) -> Option<i64> {
        self.granted.as_ref()?.budget_micro
    }

    fn add(&mut self, event: &Event<'_>) {
        self.cost_micro += i128::from(event.cost_micro);
        self.cost_pico += i128::from(event.cost_pico);
        self.held_pico += i128::from(event.held_pico);
    }
}

#[derive(Debug, Default)]
pub(super) struct Replayed {
    agents: BTreeMap<String, Money>,
    /// The kernel, groups and runs.
    nodes: BTreeMap<i64, Money>,
}

#[derive(Deserialize)]
struct Change {
    scope: Option<ScopeId>,
    now: Option<Recorded>,
}

/// Of an event that moves money.
#[derive(Deserialize)]
struct Belongs {
    #[serde(default)]
    charged: Charged,
}

impl Replayed {
    /// Takes one event in. False: it should tell what was granted, or where it belongs, and does not.
    pub(super) fn event(&mut self, event: &Event<'_>) -> bool {
        let Some(agent) = event.agent.filter(|_| !event.action.starts_with("run.")) else {
            return self.node_event(event);
        };
        self.entry(agent).add(event);
        if matches!(event.action, "hold.open" | "usage.commit" | "hold.release") {
            return self.above(event);
        }
        let is_change = event.action == "outside.update"
            || (event.action.starts_with("agent.") && event.action != "agent.rotate_token");
        if !is_change {
            return true;
        }
        match serde_json::from_str::<Change>(event.detail) {
            Ok(Change { now: Some(now), .. }) => {
                self.entry(agent).granted = Some(now);
                true
            }
            _ => false,
        }
    }

    /// The kernel and the groups and runs to which an event of an agent belongs.
    fn above(&mut self, event: &Event<'_>) -> bool {
        let ScopeId::Node(kernel) = KERNEL else {
            return true;
        };
        self.nodes.entry(kernel).or_default().add(event);
        if !event.detail.contains(r#""charged":{"#) {
            return true;
        }
        let Ok(Belongs { charged }) = serde_json::from_str(event.detail) else {
            return false;
        };
        for node in charged.runs.iter().chain(&charged.groups) {
            self.nodes.entry(*node).or_default().add(event);
        }
        true
    }

    /// What a group, a run or the kernel was granted.
    fn node_event(&mut self, event: &Event<'_>) -> bool {
        let named = ["group.", "run."];
        let is_change = event.action == "outside.update"
            || named.iter().any(|named| event.action.starts_with(named));
        if !is_change {
            return true;
        }
        match serde_json::from_str::<Change>(event.detail) {
            Ok(Change {
                scope: Some(ScopeId::Node(node)),
                now: Some(now),
            }) => {
                self.nodes.entry(node).or_default().granted = Some(now);
                true
            }
            _ => false,
        }
    }

    fn entry(&mut self, agent: &str) -> &mut Money {
        if !self.agents.contains_key(agent) {
            self.agents.insert(agent.to_owned(), Money::default());
        }
        self.agents.get_mut(agent).expect("it was inserted")
    }

    pub(super) fn of(&mut self, agent: &str) -> &Money {
        self.entry(agent)
    }

    pub(super) fn take(&mut self, agent: &str) -> Option<Money> {
        self.agents.remove(agent)
    }

    pub(super) fn take_node(&mut self, node: i64) -> Option<Money> {
        self.nodes.remove(&node)
    }

    /// Of those that were not taken.
    pub(super) fn names(&self) -> Vec<String> {
        let nodes = self
            .nodes
            .keys()
            .map(|node| ScopeId::Node(*node).to_string());
        self.agents.keys().cloned().chain(nodes).collect()
    }

    /// Holds stored balances against these. An agent that has events and no row is not the same.
    ///
    /// # Errors
    /// The events make an amount beyond 64 bits.
    pub(super) fn compare(mut self, rows: &[Scope], events: i64) -> Result<Replay, LedgerError> {
        let mut agents = Vec::with_capacity(rows.len());
        for row in rows {
            let money = match row.id {
                ScopeId::Agent(_) => self.take(&row.name),
                ScopeId::Node(node) => self.take_node(node),
            };
            agents.push(balance_of(row, &money.unwrap_or_default())?);
        }
        let same = self.names().is_empty() && agents.iter().all(|agent| agent.same);
        Ok(Replay {
            same,
            events,
            agents,
        })
    }
}

fn balance_of(row: &Scope, money: &Money) -> Result<ReplayedBalance, LedgerError> {
    let fits = |value: i128| {
        i64::try_from(value)
            .map_err(|_| LedgerError::Value(format!("events of {}: beyond 64 bits", row.name)))
    };
    let pico = i128::from(PICO_PER_MICRO);
    let stored = row.balance;
    let mut balance = ReplayedBalance {
        agent: match row.kind {
            ScopeKind::Agent | ScopeKind::Kernel => row.name.clone(),
            kind => format!("{} {}", kind.name(), row.name),
        },
        spent_micro: stored.spent_micro,
        carry_pico: stored.carry_pico,
        held_pico: stored.held_pico,
        budget_micro: stored.budget_micro.unwrap_or(0),
        same: false,
        replayed_spent_micro: fits(money.cost_pico.div_euclid(pico))?,
        replayed_carry_pico: fits(money.cost_pico.rem_euclid(pico))?,
        replayed_held_pico: fits(money.held_pico)?,
        replayed_budget_micro: money.budget_micro().unwrap_or(0),
    };
    balance.same = balance.spent_micro == balance.replayed_spent_micro
        && balance.carry_pico == balance.replayed_carry_pico
        && balance.held_pico == balance.replayed_held_pico
        && balance.budget_micro == balance.replayed_budget_micro;
    Ok(balance)
}

//! Every agent's money as the events alone make it. Pure.

use std::collections::BTreeMap;

use aex_admin_proto::operator::{Replay, ReplayedBalance};
use serde::Deserialize;

use crate::core::price::PICO_PER_MICRO;
use crate::ledger::{AgentRow, Event, LedgerError, Recorded};

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
    pub(super) fn budget_micro(&self) -> i64 {
        (self.granted.as_ref()).map_or(0, |granted| granted.budget_micro)
    }
}

#[derive(Debug, Default)]
pub(super) struct Replayed {
    agents: BTreeMap<String, Money>,
}

#[derive(Deserialize)]
struct Change {
    now: Option<Recorded>,
}

impl Replayed {
    /// Takes one event in. False: it should tell what was granted, and does not.
    pub(super) fn event(&mut self, event: &Event<'_>) -> bool {
        let Some(agent) = event.agent else {
            return true;
        };
        let money = self.entry(agent);
        money.cost_micro += i128::from(event.cost_micro);
        money.cost_pico += i128::from(event.cost_pico);
        money.held_pico += i128::from(event.held_pico);
        let is_change = event.action == "outside.update"
            || (event.action.starts_with("agent.") && event.action != "agent.rotate_token");
        if !is_change {
            return true;
        }
        match serde_json::from_str::<Change>(event.detail) {
            Ok(Change { now: Some(now) }) => {
                money.granted = Some(now);
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

    /// Of those that were not taken.
    pub(super) fn names(&self) -> Vec<String> {
        self.agents.keys().cloned().collect()
    }

    /// Holds stored balances against these. An agent that has events and no row is not the same.
    ///
    /// # Errors
    /// The events make an amount beyond 64 bits.
    pub(super) fn compare(mut self, rows: &[AgentRow], events: i64) -> Result<Replay, LedgerError> {
        let mut agents = Vec::with_capacity(rows.len());
        for row in rows {
            let money = self.take(&row.name).unwrap_or_default();
            agents.push(balance_of(row, &money)?);
        }
        let same = self.agents.is_empty() && agents.iter().all(|agent| agent.same);
        Ok(Replay {
            same,
            events,
            agents,
        })
    }
}

fn balance_of(row: &AgentRow, money: &Money) -> Result<ReplayedBalance, LedgerError> {
    let fits = |value: i128| {
        i64::try_from(value)
            .map_err(|_| LedgerError::Value(format!("events of {}: beyond 64 bits", row.name)))
    };
    let pico = i128::from(PICO_PER_MICRO);
    let stored = row.balance;
    let mut balance = ReplayedBalance {
        agent: row.name.clone(),
        spent_micro: stored.spent_micro,
        carry_pico: stored.carry_pico,
        held_pico: stored.held_pico,
        budget_micro: stored.budget_micro,
        same: false,
        replayed_spent_micro: fits(money.cost_pico.div_euclid(pico))?,
        replayed_carry_pico: fits(money.cost_pico.rem_euclid(pico))?,
        replayed_held_pico: fits(money.held_pico)?,
        replayed_budget_micro: money.budget_micro(),
    };
    balance.same = balance.spent_micro == balance.replayed_spent_micro
        && balance.carry_pico == balance.replayed_carry_pico
        && balance.held_pico == balance.replayed_held_pico
        && balance.budget_micro == balance.replayed_budget_micro;
    Ok(balance)
}

//! Do the sums of limits (`counters`) say what the events say? Each one is made anew from the events that
//! belong to it. Memory grows with sums, not with history.

use std::collections::HashMap;

use aex_admin_proto::HoldId;
use aex_admin_proto::limit::{LimitKey, Quantity};
use aex_admin_proto::operator::AgentState;
use aex_admin_proto::scope::ScopeId;
use rusqlite::Connection;
use serde::Deserialize;

use super::{CORRECTION, Found, finding, hold_of};
use crate::core::book::{CounterKey, Sum};
use crate::core::scope::{Charged, Meter, Recorded};
use crate::ledger::{Event, LedgerError, counters, reader};

/// A sum, as the events make it: the beginning of its latest period, and what was used in it.
#[derive(Debug, Clone, Copy, Default)]
struct Made {
    from_ms: i64,
    used: i128,
}

pub(super) struct Counters {
    /// The sums of holds that are open.
    open: HashMap<HoldId, Charged>,
    /// Ids of agents, which events bear by name.
    agents: HashMap<String, ScopeId>,
    made: HashMap<CounterKey, Made>,
    stored: HashMap<CounterKey, (i64, i64)>,
}

/// Of an event that ends a hold, or corrects one.
#[derive(Deserialize)]
struct Ended {
    #[serde(default)]
    charged: Charged,
    #[serde(default)]
    tokens: u64,
    #[serde(default)]
    sent: bool,
    #[serde(default)]
    correction: bool,
}

/// Of an event that changes a grant.
#[derive(Deserialize)]
struct Change {
    scope: Option<ScopeId>,
    now: Option<Recorded>,
}

/// How the actions end that take limits away, or end a scope.
const CHANGES: [&str; 4] = [".set", ".delete", ".end", ".update"];

impl Counters {
    pub(super) fn of(conn: &Connection) -> Result<Self, LedgerError> {
        let agents = reader::agents(conn)?.into_iter();
        let stored = counters::all(conn)?.into_iter();
        Ok(Self {
            open: HashMap::new(),
            agents: agents.map(|agent| (agent.name, agent.id)).collect(),
            made: HashMap::new(),
            stored: stored
                .map(|(key, from_ms, used)| (key, (from_ms, used)))
                .collect(),
        })
    }

    pub(super) fn event(&mut self, event: &Event<'_>) {
        match event.action {
            "usage.commit" | "hold.release" => {
                let opened = hold_of(event).and_then(|hold| self.open.remove(&hold));
                let is_correction = event.detail.starts_with(CORRECTION);
                if opened.is_none() && !is_correction {
                    return;
                }
                // One that cannot be read is told by what replays the money.
                if let Ok(ended) = serde_json::from_str::<Ended>(event.detail) {
                    self.ended(event, &ended, &opened.unwrap_or_default());
                }
            }
            "hold.open" if event.detail.contains(r#""meters":"#) => {
                if let Ok(Ended { charged, .. }) = serde_json::from_str(event.detail) {
                    for meter in charged.meters.iter().filter(|meter| meter.key.is_counter()) {
                        self.begun(meter);
                    }
                    if let Some(hold) = hold_of(event) {
                        self.open.insert(hold, charged);
                    }
                }
            }
            action if CHANGES.iter().any(|end| action.ends_with(end)) => {
                if let Ok(Change {
                    scope,
                    now: Some(now),
                }) = serde_json::from_str(event.detail)
                {
                    let named = event
                        .agent
                        .and_then(|agent| self.agents.get(agent).copied());
                    self.forget_dropped(scope.or(named), &now);
                }
            }
            _ => {}
        }
    }

    /// A correction bears its sums itself.
    fn ended(&mut self, event: &Event<'_>, ended: &Ended, opened: &Charged) {
        for meter in (opened.meters.iter())
            .chain(&ended.charged.meters)
            .filter(|meter| meter.key.is_counter())
        {
            let amount = match meter.key.what {
                Quantity::Money => i128::from(event.cost_pico),
                _ if ended.correction => continue,
                Quantity::Tokens => i128::from(ended.tokens),
                _ => i128::from(ended.sent),
            };
            // Without a sum its limit was taken away, or its scope ended, before it did.
            if let Some(made) = self.made.get_mut(&key_of(meter))
                && made.from_ms == meter.from_ms
            {
                made.used += amount;
            }
        }
    }

    /// The sum of a meter; in a period that is later than its own it begins anew.
    fn begun(&mut self, meter: &Meter) {
        let made = self.made.entry(key_of(meter)).or_default();
        if made.from_ms < meter.from_ms {
            *made = Made {
                from_ms: meter.from_ms,
                used: 0,
            };
        }
    }

    /// What a limit has counted goes with it; that there was a session stays.
    fn forget_dropped(&mut self, scope: Option<ScopeId>, now: &Recorded) {
        let still = |key: &LimitKey| {
            let mut limits = now.settings.limits.iter().flatten();
            key.what == Quantity::Sessions || limits.any(|limit| limit.key == *key)
        };
        let is_open = now.state != AgentState::Closed;
        self.made
            .retain(|key, _| Some(key.scope) != scope || (is_open && still(&key.sum.key)));
    }

    pub(super) fn at_the_end(&mut self) -> Vec<Found> {
        let mut wrong = Vec::new();
        for (key, made) in &self.made {
            let stored = self.stored.get(key);
            let same = stored.is_some_and(|&(from_ms, used)| {
                from_ms == made.from_ms && i128::from(used) == made.used
            });
            if !same {
                wrong.push((key, format!("{made:?}"), stored));
            }
        }
        for (key, stored) in &self.stored {
            if !self.made.contains_key(key) {
                wrong.push((key, "nothing".to_owned(), Some(stored)));
            }
        }
        let told = |(key, made, stored): (&CounterKey, String, Option<&(i64, i64)>)| {
            let (limit, scope) = (&key.sum.key, key.scope);
            let message =
                format!("{limit} of {scope}: its events make {made}, the row is {stored:?}");
            Found::Violation(finding("counter_equals_events", None, None, message))
        };
        wrong.into_iter().map(told).collect()
    }
}

fn key_of(meter: &Meter) -> CounterKey {
    CounterKey {
        scope: meter.scope,
        sum: Sum {
            key: meter.key.clone(),
            session: meter.session.clone().unwrap_or_default(),
        },
    }
}

//! One charge per agent and `Idempotency-Key`: what the events say of it, and the rows.
//!
//! Memory grows with the keys of one day. The rows are not in the chain: one that is cut out is not seen
//! here; that a key was charged twice is.

use std::collections::HashMap;

use aex_admin_proto::{HoldId, KeyMark};
use rusqlite::Connection;
use serde::Deserialize;

use super::{Found, finding};
use crate::core::hold::Attempt;
use crate::core::idempotency::KEY_MS;
use crate::ledger::idempotency::{KeyOf, keys};
use crate::ledger::{Event, LedgerError};

/// A sign of it that is cheaper to look for than to parse.
const NAMED: &str = "\"idempotency\":";
/// Old ones are let go when there are so many more than last time.
const LET_GO: usize = 4096;

pub(super) struct Keys {
    /// By the id of the `hold.open` event that they name.
    rows: HashMap<i64, KeyOf>,
    /// Holds that rows name, and that their events know.
    named: HashMap<HoldId, i64>,
    /// The last hold of an agent and key that was not released, and when it was opened.
    last: HashMap<(String, KeyMark), (HoldId, i64)>,
    /// Holds of further attempts, and the first attempt's: they are one request.
    first_of: HashMap<HoldId, HoldId>,
    /// The same by hold.
    of_hold: HashMap<HoldId, (String, KeyMark)>,
    let_go_at: usize,
}

#[derive(Deserialize)]
struct Opened {
    idempotency: Option<KeyMark>,
    attempt: Option<Attempt>,
}

impl Keys {
    pub(super) fn of(conn: &Connection) -> Result<Self, LedgerError> {
        let rows = keys(conn)?.into_iter().map(|key| (key.event, key));
        Ok(Self {
            rows: rows.collect(),
            named: HashMap::new(),
            last: HashMap::new(),
            first_of: HashMap::new(),
            of_hold: HashMap::new(),
            let_go_at: LET_GO,
        })
    }

    pub(super) fn event(&mut self, id: i64, event: &Event<'_>) -> Option<Found> {
        let agent = event.agent?;
        let hold: HoldId = event.hold?.parse().ok()?;
        match event.action {
            "hold.open" if event.detail.contains(NAMED) => {
                let opened: Opened = serde_json::from_str(event.detail).ok()?;
                let mark = opened.idempotency?;
                if let Some(attempt) = opened.attempt {
                    self.first_of.insert(hold, attempt.first);
                }
                self.opened(id, agent, hold, mark, event.at_ms)
            }
            "hold.release" => self.released(id, agent, &hold),
            _ => None,
        }
    }

    /// By the wall clock, which may have been set meanwhile: so this is a warning.
    fn opened(
        &mut self,
        id: i64,
        agent: &str,
        hold: HoldId,
        mark: KeyMark,
        at_ms: i64,
    ) -> Option<Found> {
        let is_of = |row: &KeyOf| row.agent.as_deref() == Some(agent) && row.mark == Some(mark);
        if self.rows.get(&id).is_some_and(is_of) {
            self.rows.remove(&id);
            self.named.insert(hold, id);
        }
        self.let_go(at_ms);
        let key = (agent.to_owned(), mark);
        let before = self.last.insert(key.clone(), (hold, at_ms));
        self.of_hold.insert(hold, key);
        let (first, first_ms) = before?;
        self.of_hold.remove(&first);
        let begun_by = |hold: HoldId| self.first_of.get(&hold).copied().unwrap_or(hold);
        let one_request = begun_by(first) == begun_by(hold);
        self.first_of.remove(&first);
        (!one_request && at_ms.saturating_sub(first_ms) < KEY_MS).then(|| {
            let message = format!(
                "it has the Idempotency-Key {mark} of hold {first}, which is not a day older and was \
                 not released"
            );
            Found::Warning(finding("key_charged_once", Some(agent), Some(id), message))
        })
    }

    fn released(&mut self, id: i64, agent: &str, hold: &HoldId) -> Option<Found> {
        self.first_of.remove(hold);
        if let Some(key) = self.of_hold.remove(hold) {
            self.last.remove(&key);
        }
        let event = self.named.remove(hold)?;
        let message = format!("an Idempotency-Key still stands for the hold of event {event}");
        Some(Found::Violation(finding(
            "released_key_forgotten",
            Some(agent),
            Some(id),
            message,
        )))
    }

    fn let_go(&mut self, now_ms: i64) {
        if self.last.len() < self.let_go_at {
            return;
        }
        let (of_hold, first_of) = (&mut self.of_hold, &mut self.first_of);
        self.last.retain(|_, (hold, at_ms)| {
            let young = now_ms.saturating_sub(*at_ms) < KEY_MS;
            if !young {
                of_hold.remove(hold);
                first_of.remove(hold);
            }
            young
        });
        self.let_go_at = self.last.len() + LET_GO;
    }

    /// Rows that no event answers for.
    pub(super) fn at_the_end(&mut self) -> Vec<Found> {
        let mut left: Vec<KeyOf> = self.rows.drain().map(|(_, row)| row).collect();
        left.sort_by_key(|row| row.event);
        let violation = |row: KeyOf| {
            let message = "an Idempotency-Key stands for this event, which opened no hold under it";
            let agent = row.agent.as_deref();
            Found::Violation(finding("key_has_hold", agent, Some(row.event), message))
        };
        left.into_iter().map(violation).collect()
    }
}

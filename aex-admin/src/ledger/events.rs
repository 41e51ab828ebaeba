//! Events: what happened, appended and never changed.

use rusqlite::{Connection, OptionalExtension};

use super::chain::{self, EventHash, GENESIS};
use super::reader::{HoldHistory, hold_history_since};
use super::{Head, Ledger, LedgerError, Result};

/// See [`Ledger::ended_since`].
const MOST_OLDER_EVENTS: usize = 20_000;

/// One event before it has its id and hash.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// Wall clock, Unix milliseconds.
    pub at_ms: i64,
    pub agent: Option<&'a str>,
    pub action: &'a str,
    /// By how much `spent_micro` moved.
    pub cost_micro: i64,
    /// The exact cost.
    pub cost_pico: i64,
    /// By how much `held_pico` moved.
    pub held_pico: i64,
    /// Reservation id, hexadecimal.
    pub hold: Option<&'a str>,
    /// A JSON object.
    pub detail: &'a str,
}

impl<'a> Event<'a> {
    /// An event that moves no money.
    #[must_use]
    pub fn note(at_ms: i64, agent: Option<&'a str>, action: &'a str, detail: &'a str) -> Self {
        Self {
            at_ms,
            agent,
            action,
            cost_micro: 0,
            cost_pico: 0,
            held_pico: 0,
            hold: None,
            detail,
        }
    }
}

/// A detail, a JSON object, with the uid that asked for the change: last, for some are known by how they
/// begin.
fn with_uid(detail: &str, uid: u32) -> String {
    let fields = detail
        .trim_end()
        .strip_suffix('}')
        .unwrap_or("{")
        .trim_end();
    let comma = if fields.ends_with('{') { "" } else { "," };
    format!("{fields}{comma}\"by_uid\":{uid}}}")
}

impl Ledger {
    /// Appends an event to the chain.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn append(&mut self, event: &Event<'_>) -> Result<i64> {
        let id = (self.head.id.checked_add(1))
            .ok_or_else(|| LedgerError::Value("events: there is no next id".to_owned()))?;
        let signed;
        let event = match self.by_uid {
            Some(uid) => {
                signed = with_uid(event.detail, uid);
                &Event {
                    detail: &signed,
                    ..*event
                }
            }
            None => event,
        };
        let hash = chain::link(&self.head.hash, id, event);
        self.conn
            .prepare_cached(
                "INSERT INTO events (id, at_ms, agent, action, cost_micro, cost_pico, held_pico, \
                 hold, detail, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?
            .execute((
                id,
                event.at_ms,
                event.agent,
                event.action,
                event.cost_micro,
                event.cost_pico,
                event.held_pico,
                event.hold,
                event.detail,
                hash,
            ))?;
        self.head = Head { id, hash };
        Ok(id)
    }

    /// Whose change the events from now on record, by the uid that asked for it; none: nobody's in
    /// particular.
    pub fn record_as(&mut self, by_uid: Option<u32>) {
        self.by_uid = by_uid;
    }

    /// Brings a reservation's history up to this transaction.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn bring_up_history(&self, hold: &str, history: &mut HoldHistory) -> Result<()> {
        hold_history_since(&self.conn, hold, history)
    }

    /// When the last event was, wall clock; nothing when there is none.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn last_event_at_ms(&self) -> Result<Option<i64>> {
        Ok(self
            .conn
            .query_row(
                "SELECT at_ms FROM events ORDER BY id DESC LIMIT 1",
                [],
                |row| row.get(0),
            )
            .optional()?)
    }

    /// Ended requests, newest first: all since `all_since_ms`, then of [`MOST_OLDER_EVENTS`] older events
    /// those since `since_ms`. Stops at the first that is older still, so it costs what the last minute
    /// holds, not what history holds.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn ended_since(
        &self,
        all_since_ms: i64,
        since_ms: i64,
        mut each: impl FnMut(&Ended<'_>),
    ) -> Result<()> {
        let mut older_left = MOST_OLDER_EVENTS;
        let mut statement = self.conn.prepare(
            "SELECT e.at_ms, e.action, e.detail, a.id, e.hold, e.cost_pico FROM events e \
             LEFT JOIN agents a ON a.name = e.agent ORDER BY e.id DESC",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let at_ms: i64 = row.get(0)?;
            if at_ms < since_ms || (at_ms < all_since_ms && older_left == 0) {
                break;
            }
            older_left -= usize::from(at_ms < all_since_ms);
            let text = |at| {
                row.get_ref(at)
                    .map(|value| value.as_str().unwrap_or_default())
            };
            if !matches!(text(1)?, "usage.commit" | "hold.release") {
                continue;
            }
            let Some(agent) = row.get(3)? else { continue };
            let cost_pico = row.get(5)?;
            each(&Ended {
                at_ms,
                agent,
                detail: text(2)?,
                hold: text(4)?,
                cost_pico,
            });
        }
        Ok(())
    }
}

/// How a request ended, as its event tells it.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    pub at_ms: i64,
    /// Agent id.
    pub agent: i64,
    pub detail: &'a str,
    /// Reservation id, hexadecimal.
    pub hold: &'a str,
    pub cost_pico: i64,
}

/// The hash of one event; nothing when it is not there.
pub(super) fn hash_of(conn: &Connection, id: i64) -> Result<Option<EventHash>> {
    let found: Option<Vec<u8>> = conn
        .query_row("SELECT hash FROM events WHERE id = ?1", [id], |row| {
            row.get(0)
        })
        .optional()?;
    Ok(found.and_then(|hash| hash.try_into().ok()))
}

pub(super) fn head(conn: &Connection) -> Result<Head> {
    let last = conn
        .query_row(
            "SELECT id, hash FROM events ORDER BY id DESC LIMIT 1",
            [],
            |row| {
                // One that AEX did not write is found by the audit; here it must stop nothing.
                let hash = row.get_ref(1)?.as_blob().unwrap_or_default();
                Ok(Head {
                    id: row.get(0)?,
                    hash: hash.try_into().unwrap_or(GENESIS),
                })
            },
        )
        .optional()?;
    Ok(last.unwrap_or(Head {
        id: 0,
        hash: GENESIS,
    }))
}

#[cfg(test)]
mod tests {
    use super::with_uid;

    #[test]
    fn a_detail_stays_an_object() {
        for (detail, with) in [
            ("{}", r#"{"by_uid":7}"#),
            ("{ }", r#"{"by_uid":7}"#),
            (r#"{"now":{}}"#, r#"{"now":{},"by_uid":7}"#),
        ] {
            assert_eq!(with_uid(detail, 7), with);
        }
    }
}

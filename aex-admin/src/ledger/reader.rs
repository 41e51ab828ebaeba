//! What people look at: rows read beside the writer, on a connection that cannot write.

use std::path::Path;

use aex_admin_proto::operator::{EventView, TokenView};
use rusqlite::{Connection, OptionalExtension};
use serde_json::value::RawValue;

use super::agents;
use super::{Event, EventHash, LedgerError, Result, events, nodes, open_read_only};
use crate::core::hold::Terms;
use crate::core::scope::{Charged, Scope};

/// Every agent, closed ones too, by name.
///
/// # Errors
/// SQLite's own, or a value that cannot be.
pub fn agents(conn: &Connection) -> Result<Vec<Scope>> {
    many(conn, &agents::select("ORDER BY a.name"), [])
}

/// # Errors
/// SQLite's own, or a value that cannot be.
pub fn agent(conn: &Connection, name: &str) -> Result<Option<Scope>> {
    Ok(many(conn, &agents::select("WHERE a.name = ?1"), [name])?.pop())
}

/// The kernel and every group, closed ones too, by id.
///
/// # Errors
/// SQLite's own, or a value that cannot be.
pub fn groups(conn: &Connection) -> Result<Vec<Scope>> {
    nodes::groups(conn)
}

/// Runs that have not been ended, by id.
///
/// # Errors
/// SQLite's own, or a value that cannot be.
pub fn open_runs(conn: &Connection) -> Result<Vec<Scope>> {
    nodes::open_runs(conn)
}

/// Every scope that is no agent, by id.
///
/// # Errors
/// SQLite's own, or a value that cannot be.
pub fn nodes(conn: &Connection) -> Result<Vec<Scope>> {
    nodes::all(conn)
}

/// A scope that is no agent.
///
/// # Errors
/// SQLite's own, or a value that cannot be.
pub fn node(conn: &Connection, id: i64) -> Result<Option<Scope>> {
    nodes::one(conn, id)
}

fn many(conn: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<Vec<Scope>> {
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let mut agents = Vec::new();
    while let Some(row) = rows.next()? {
        agents.push(agents::read(row)?);
    }
    Ok(agents)
}

/// # Errors
/// SQLite's own.
pub fn tokens(conn: &Connection, agent: &str) -> Result<Vec<TokenView>> {
    let mut statement = conn.prepare_cached(
        "SELECT t.id, a.name, t.label, t.created_at_ms, t.expires_at_ms, \
         t.revoked_at_ms IS NOT NULL, t.read_only, n.name FROM tokens t \
         JOIN agents a ON a.id = t.agent_id LEFT JOIN nodes n ON n.id = t.run_id \
         WHERE a.name = ?1 ORDER BY t.id",
    )?;
    let rows = statement.query_map([agent], |row| {
        Ok(TokenView {
            id: row.get(0)?,
            agent: row.get(1)?,
            label: row.get(2)?,
            created_at_ms: row.get(3)?,
            expires_at_ms: row.get(4)?,
            revoked: row.get(5)?,
            read_only: row.get(6)?,
            run: row.get(7)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// `limit` events after `after`, or the last `limit` of all, in order.
///
/// # Errors
/// SQLite's own.
pub fn tail(conn: &Connection, after: Option<i64>, limit: u32) -> Result<Vec<EventView>> {
    let columns = "id, at_ms, agent, action, cost_micro, cost_pico, held_pico, hold, detail, hash";
    let sql = match after {
        Some(_) => format!("SELECT {columns} FROM events WHERE id > ?1 ORDER BY id LIMIT ?2"),
        None => format!(
            "SELECT * FROM (SELECT {columns} FROM events WHERE id > ?1 ORDER BY id DESC LIMIT ?2) \
             ORDER BY id"
        ),
    };
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query((after.unwrap_or(0), limit))?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        let detail: String = row.get(8)?;
        let hash: Vec<u8> = row.get(9)?;
        events.push(EventView {
            id: row.get(0)?,
            at_ms: row.get(1)?,
            agent: row.get(2)?,
            action: row.get(3)?,
            cost_micro: row.get(4)?,
            cost_pico: row.get(5)?,
            held_pico: row.get(6)?,
            hold: row.get(7)?,
            detail: RawValue::from_string(detail)
                .map_err(|_| LedgerError::Value("events: detail is not JSON".to_owned()))?,
            hash: hex::encode(hash),
        });
    }
    Ok(events)
}

/// Rows of open holds: reservation id in hexadecimal, picodollars.
///
/// # Errors
/// SQLite's own.
pub fn open_holds(conn: &Connection) -> Result<Vec<(String, i64)>> {
    let mut statement =
        conn.prepare("SELECT COALESCE(e.hold, ''), COALESCE(e.held_pico, 0) FROM holds h LEFT JOIN events e ON e.id = h.event")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Each scope's name, `reserved_micro` and `held_pico`.
///
/// # Errors
/// SQLite's own.
pub fn reserved(conn: &Connection) -> Result<Vec<(String, i64, i64)>> {
    let mut statement = conn.prepare(
        "SELECT name, reserved_micro, held_pico FROM agents \
         UNION ALL SELECT name, reserved_micro, held_pico FROM nodes",
    )?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// What the ledger has of one reservation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HoldHistory {
    pub agent: Option<String>,
    pub ended: bool,
    /// All charges and corrections together.
    pub cost_pico: i64,
    /// Where else it belongs.
    pub charged: Charged,
    /// The last event that was looked at.
    pub up_to: i64,
}

impl HoldHistory {
    fn add(&mut self, agent: Option<String>, action: &str, cost_pico: i64, detail: &str) {
        self.agent = agent.or(self.agent.take());
        self.ended |= matches!(action, "usage.commit" | "hold.release");
        self.cost_pico = self.cost_pico.saturating_add(cost_pico);
        if action == "hold.open"
            && let Ok(terms) = serde_json::from_str::<Terms>(detail)
        {
            self.charged = terms.charged;
        }
    }
}

/// The last event, its hash, and what all agents have spent.
///
/// # Errors
/// SQLite's own.
pub fn summary(conn: &Connection) -> Result<(i64, EventHash, i64)> {
    let head = events::head(conn)?;
    Ok((head.id, head.hash, agents::all_spent_micro(conn)?))
}

/// The hash of one event; nothing when it is not there.
///
/// # Errors
/// SQLite's own.
pub fn hash_of(conn: &Connection, event: i64) -> Result<Option<EventHash>> {
    events::hash_of(conn, event)
}

/// The events of a reservation (hexadecimal id). Reads the whole history: nothing for the request
/// path.
///
/// # Errors
/// SQLite's own.
pub fn hold_history(conn: &Connection, hold: &str) -> Result<HoldHistory> {
    let mut history = HoldHistory::default();
    hold_history_since(conn, hold, &mut history)?;
    Ok(history)
}

/// Goes on where `history` ended.
pub(super) fn hold_history_since(
    conn: &Connection,
    hold: &str,
    history: &mut HoldHistory,
) -> Result<()> {
    let head: i64 = conn.query_row("SELECT COALESCE(MAX(id), 0) FROM events", [], |row| {
        row.get(0)
    })?;
    let mut statement = conn.prepare(
        "SELECT agent, action, cost_pico, detail FROM events WHERE id > ?1 AND id <= ?2 AND hold = ?3",
    )?;
    let mut rows = statement.query((history.up_to, head, hold))?;
    while let Some(row) = rows.next()? {
        let (action, detail): (String, String) = (row.get(1)?, row.get(3)?);
        history.add(row.get(0)?, &action, row.get(2)?, &detail);
    }
    history.up_to = head;
    Ok(())
}

/// A connection that sees the ledger as it is now, whatever is written meanwhile.
///
/// # Errors
/// There is no ledger, or it cannot be read.
pub fn snapshot(path: &Path) -> Result<Connection> {
    let conn = open_read_only(path)?;
    conn.execute_batch("BEGIN")?;
    Ok(conn)
}

/// Every event in order: its id, its fields, its hash as stored. A text that is none reads as empty.
///
/// # Errors
/// SQLite's own.
pub fn each_event(conn: &Connection, mut each: impl FnMut(i64, &Event<'_>, &[u8])) -> Result<()> {
    each_event_from(conn, 0, |id, event, hash| {
        each(id, event, hash);
        true
    })
}

/// Every event since `since_ms`, in order, until `each` says that it is enough. What an earlier time has that
/// a clock which was set back wrote later is left out.
///
/// # Errors
/// SQLite's own.
pub fn each_event_since(
    conn: &Connection,
    since_ms: i64,
    mut each: impl FnMut(&Event<'_>) -> bool,
) -> Result<()> {
    let first = first_since(conn, since_ms)?;
    each_event_from(conn, first, |_, event, _| {
        event.at_ms < since_ms || each(event)
    })
}

/// The first event of a time, as far as times go up with ids. By halves: history is long.
fn first_since(conn: &Connection, since_ms: i64) -> Result<i64> {
    let mut at = conn.prepare("SELECT at_ms FROM events WHERE id >= ?1 ORDER BY id LIMIT 1")?;
    let (mut low, mut high) = (1, events::head(conn)?.id.saturating_add(1));
    while low < high {
        let middle = low + (high - low) / 2;
        let at_ms: Option<i64> = at.query_row([middle], |row| row.get(0)).optional()?;
        if at_ms.is_some_and(|at_ms| at_ms < since_ms) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

fn each_event_from(
    conn: &Connection,
    first: i64,
    mut each: impl FnMut(i64, &Event<'_>, &[u8]) -> bool,
) -> Result<()> {
    let mut statement = conn.prepare(
        "SELECT id, at_ms, agent, action, cost_micro, cost_pico, held_pico, hold, detail, hash \
         FROM events WHERE id >= ?1 ORDER BY id",
    )?;
    let mut rows = statement.query([first])?;
    while let Some(row) = rows.next()? {
        let text = |at| {
            row.get_ref(at)
                .map(|value| value.as_str_or_null().unwrap_or(None))
        };
        let event = Event {
            at_ms: row.get(1)?,
            agent: text(2)?,
            action: text(3)?.unwrap_or(""),
            cost_micro: row.get(4)?,
            cost_pico: row.get(5)?,
            held_pico: row.get(6)?,
            hold: text(7)?,
            detail: text(8)?.unwrap_or(""),
        };
        let hash = row.get_ref(9)?.as_blob().unwrap_or_default();
        if !each(row.get(0)?, &event, hash) {
            break;
        }
    }
    Ok(())
}

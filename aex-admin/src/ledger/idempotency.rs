//! Rows of `Idempotency-Key`s: digests, and the hold that each stands for. Never a key, never an answer.
//!
//! Ages are the boot clock's. `at_ms`, the wall clock's, is read once after the machine went down, to
//! carry ages over ([`carry_over`]).

use aex_admin_proto::worker::Idempotency;
use aex_admin_proto::{HoldId, KeyDigest, KeyMark, RequestDigest};
use rusqlite::{Connection, OptionalExtension, Row};

use super::{Ledger, LedgerError, Result};
use crate::core::idempotency::KEY_MS;
use crate::core::reserve::Now;

/// A key that was used.
#[derive(Debug, Clone, Copy)]
pub struct KeyRow {
    pub request: RequestDigest,
    /// The hold under which its request was carried out, or is.
    pub hold: HoldId,
    /// That one's `hold.open` event.
    pub event: i64,
    /// Boot clock; negative for one of an earlier boot.
    pub at_boot_ms: i64,
}

fn read(row: &Row<'_>) -> Result<KeyRow> {
    let bad = || LedgerError::Value("idempotency: a row of no request or hold".to_owned());
    let request: [u8; 32] = row
        .get_ref(0)?
        .as_blob()
        .ok()
        .and_then(|digest| digest.try_into().ok())
        .ok_or_else(bad)?;
    let hold = row.get_ref(1)?.as_str().map_err(|_| bad())?;
    Ok(KeyRow {
        request: request.into(),
        hold: hold.parse().map_err(|_| bad())?,
        at_boot_ms: row.get(2)?,
        event: row.get(3)?,
    })
}

/// The first and the last key of a mark.
fn marked(mark: &KeyMark) -> ([u8; 32], [u8; 32]) {
    let (mut first, mut last) = ([0; 32], [0xff; 32]);
    first[..8].copy_from_slice(mark.as_bytes());
    last[..8].copy_from_slice(mark.as_bytes());
    (first, last)
}

fn stored(boot_ms: u64) -> i64 {
    i64::try_from(boot_ms).unwrap_or(i64::MAX)
}

impl Ledger {
    /// What a key stands for; nothing when it was not used, or is forgotten.
    ///
    /// # Errors
    /// SQLite's own, or a value that cannot be.
    pub fn used_key(&self, agent: i64, key: &KeyDigest) -> Result<Option<KeyRow>> {
        let mut statement = self.conn.prepare_cached(
            "SELECT i.request, e.hold, i.at_boot_ms, i.event FROM idempotency i \
             LEFT JOIN events e ON e.id = i.event WHERE i.agent_id = ?1 AND i.key = ?2",
        )?;
        let mut rows = statement.query((agent, key.as_bytes()))?;
        rows.next()?.map(read).transpose()
    }

    /// A key stands for the hold whose `hold.open` event is `event` from now on, whatever it stood for.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn use_key(&self, agent: i64, asked: &Idempotency, event: i64, now: Now) -> Result<()> {
        self.conn
            .prepare_cached(
                "INSERT INTO idempotency (agent_id, key, request, event, at_ms, at_boot_ms) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (agent_id, key) DO UPDATE SET \
                 request = excluded.request, event = excluded.event, at_ms = excluded.at_ms, \
                 at_boot_ms = excluded.at_boot_ms",
            )?
            .execute((
                agent,
                asked.key.as_bytes(),
                asked.request.as_bytes(),
                event,
                now.wall_ms,
                stored(now.boot_ms),
            ))?;
        Ok(())
    }

    /// The hold that a key stood for was released: it stands for an `earlier` attempt of the same request
    /// again, which was charged, or for nothing.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn end_of_key(
        &self,
        agent: i64,
        mark: &KeyMark,
        event: i64,
        earlier: Option<i64>,
    ) -> Result<()> {
        let Some(earlier) = earlier else {
            return self.forget_key(agent, mark, event);
        };
        let (first, last) = marked(mark);
        self.conn
            .prepare_cached(
                "UPDATE idempotency SET event = ?5 \
                 WHERE agent_id = ?1 AND key BETWEEN ?2 AND ?3 AND event = ?4",
            )?
            .execute((agent, first, last, event, earlier))?;
        Ok(())
    }

    /// Forgets the key, known by its mark, of a hold that was released.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn forget_key(&self, agent: i64, mark: &KeyMark, event: i64) -> Result<()> {
        let (first, last) = marked(mark);
        self.conn
            .prepare_cached(
                "DELETE FROM idempotency WHERE agent_id = ?1 AND key BETWEEN ?2 AND ?3 AND event = ?4",
            )?
            .execute((agent, first, last, event))?;
        Ok(())
    }

    /// Deletes at most `most` rows that are too old to stand for anything. How many.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn prune_keys(&self, now_boot_ms: u64, most: usize) -> Result<usize> {
        let too_old = stored(now_boot_ms).saturating_sub(KEY_MS);
        let deleted = self
            .conn
            .prepare_cached(
                "DELETE FROM idempotency WHERE (agent_id, key) IN (SELECT agent_id, key \
                 FROM idempotency WHERE at_boot_ms <= ?1 \
                 AND event NOT IN (SELECT event FROM holds) ORDER BY at_boot_ms LIMIT ?2)",
            )?
            .execute((too_old, i64::try_from(most).unwrap_or(i64::MAX)))?;
        Ok(deleted)
    }
}

/// After the machine went down: ages as the wall clock tells them. One from the future, for the clock was
/// set back, is as old as nothing: it stands for a day from here. Done twice it comes to the same.
///
/// # Errors
/// SQLite's own.
pub(super) fn carry_over(conn: &Connection, now: Now) -> Result<()> {
    conn.execute(
        "UPDATE idempotency SET at_boot_ms = ?1 - MIN(MAX(0, ?2 - at_ms), ?3)",
        (stored(now.boot_ms), now.wall_ms, 2 * KEY_MS),
    )?;
    Ok(())
}

/// A row as the audit looks at it.
#[derive(Debug, Clone)]
pub struct KeyOf {
    /// Id of its `hold.open` event.
    pub event: i64,
    /// The agent's name; none when it has no row.
    pub agent: Option<String>,
    pub mark: Option<KeyMark>,
}

/// Every key that stands for a hold.
///
/// # Errors
/// SQLite's own.
pub fn keys(conn: &Connection) -> Result<Vec<KeyOf>> {
    // A ledger that an older program left has none.
    let known = conn
        .query_row(
            "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'idempotency'",
            [],
            |_| Ok(()),
        )
        .optional()?;
    if known.is_none() {
        return Ok(Vec::new());
    }
    let mut statement = conn.prepare(
        "SELECT i.event, a.name, i.key FROM idempotency i LEFT JOIN agents a ON a.id = i.agent_id",
    )?;
    let rows = statement.query_map([], |row| {
        let key = row.get_ref(2)?.as_blob().unwrap_or_default();
        let digest: Option<[u8; 32]> = key.try_into().ok();
        Ok(KeyOf {
            event: row.get(0)?,
            agent: row.get(1)?,
            mark: digest.map(|digest| KeyDigest::from(digest).mark()),
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

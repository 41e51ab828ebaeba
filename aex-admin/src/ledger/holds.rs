//! Rows of open holds. Their terms are in the `hold.open` event whose id they bear.

use aex_admin_proto::HoldId;
use aex_admin_proto::egress::Ending;
use rusqlite::{OptionalExtension, Row};
use serde::de::DeserializeOwned;

use super::{Ledger, LedgerError, Result, idempotency};
use crate::core::hold::Terms;
use crate::core::reserve::Now;

/// An open hold as it is written.
#[derive(Debug, Clone, Copy)]
pub struct NewHold {
    /// Id of its `hold.open` event.
    pub event: i64,
    pub agent: i64,
    /// Digest of the request that it was granted to.
    pub request: i64,
    /// 0: before the egress's journal, or unknown.
    pub opened_boot_ms: u64,
    pub expires_boot_ms: u64,
    pub deadline_boot_ms: u64,
}

/// An open hold as it is found after a start.
#[derive(Debug, Clone)]
pub struct HoldRow {
    pub id: HoldId,
    pub row: NewHold,
    pub terms: Terms,
    pub receipt: Option<Ending>,
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| LedgerError::Value(format!("holds: {error}")))
}

fn stored(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

fn read(row: &Row<'_>) -> Result<HoldRow> {
    let bad = |what: &str| LedgerError::Value(format!("holds: {what}"));
    let boot_ms = |at| -> Result<u64> {
        let value: i64 = row.get(at)?;
        u64::try_from(value).map_err(|_| bad("negative time"))
    };
    let id = row.get_ref(5)?.as_str().map_err(|_| bad("no id"))?;
    let terms = row.get_ref(6)?.as_str().map_err(|_| bad("no terms"))?;
    let receipt: Option<String> = row.get(7)?;
    Ok(HoldRow {
        id: id.parse().map_err(|_| bad("no id"))?,
        row: NewHold {
            event: row.get(0)?,
            agent: row.get(1)?,
            request: row.get(2)?,
            expires_boot_ms: boot_ms(3)?,
            deadline_boot_ms: boot_ms(4)?,
            opened_boot_ms: boot_ms(8)?,
        },
        terms: parse(terms)?,
        // One that cannot be read is asked for again.
        receipt: receipt.and_then(|text| parse(&text).ok()),
    })
}

impl Ledger {
    /// # Errors
    /// SQLite's own.
    pub fn insert_hold(&self, hold: &NewHold) -> Result<()> {
        self.conn
            .prepare_cached(
                "INSERT INTO holds (event, agent_id, request, expires_boot_ms, deadline_boot_ms, \
                 opened_boot_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute((
                hold.event,
                hold.agent,
                hold.request,
                stored(hold.expires_boot_ms),
                stored(hold.deadline_boot_ms),
                stored(hold.opened_boot_ms),
            ))?;
        Ok(())
    }

    /// Keeps a receipt for a hold that is still open.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn set_receipt(&self, event: i64, receipt: &Ending) -> Result<()> {
        let receipt = serde_json::to_string(receipt)
            .map_err(|error| LedgerError::Value(error.to_string()))?;
        self.conn
            .prepare_cached("UPDATE holds SET receipt = ?2 WHERE event = ?1")?
            .execute((event, receipt))?;
        Ok(())
    }

    /// # Errors
    /// SQLite's own.
    pub fn delete_hold(&self, event: i64) -> Result<()> {
        self.conn
            .prepare_cached("DELETE FROM holds WHERE event = ?1")?
            .execute([event])?;
        Ok(())
    }

    /// Every open hold: after a start, this is what is known of requests in flight.
    ///
    /// # Errors
    /// SQLite's own, or a value that cannot be.
    pub fn holds(&self) -> Result<Vec<HoldRow>> {
        let mut statement = self.conn.prepare(
            "SELECT h.event, h.agent_id, h.request, h.expires_boot_ms, h.deadline_boot_ms, \
             e.hold, e.detail, h.receipt, h.opened_boot_ms FROM holds h LEFT JOIN events e ON e.id = h.event",
        )?;
        let mut rows = statement.query([])?;
        let mut holds = Vec::new();
        while let Some(row) = rows.next()? {
            holds.push(read(row)?);
        }
        Ok(holds)
    }

    /// The terms that a `hold.open` event froze; nothing when it is none.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn terms(&self, event: i64) -> Result<Option<Terms>> {
        let detail: Option<String> = self
            .conn
            .query_row(
                "SELECT detail FROM events WHERE id = ?1 AND action = 'hold.open'",
                [event],
                |row| row.get(0),
            )
            .optional()?;
        Ok(detail.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Boot times of an earlier boot mean nothing: its holds are past every deadline, and the ages of
    /// its keys are carried over.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn set_boot(&self, boot_id: &str, now: Now) -> Result<()> {
        if self.meta(BOOT_ID)?.as_deref() == Some(boot_id.as_bytes()) {
            return Ok(());
        }
        self.conn.execute(
            "UPDATE holds SET opened_boot_ms = 0, expires_boot_ms = 0, deadline_boot_ms = 0",
            [],
        )?;
        idempotency::carry_over(&self.conn, now)?;
        self.set_meta(BOOT_ID, boot_id.as_bytes())
    }
}

const BOOT_ID: &str = "boot_id";

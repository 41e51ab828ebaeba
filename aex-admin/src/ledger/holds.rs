//! Rows of holds: those that are open, and ended ones until the egress's receipt has been compared.

use aex_admin_proto::HoldId;
use aex_admin_proto::egress::Ending;
use rusqlite::Row;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Ledger, LedgerError, Result};
use crate::core::hold::Terms;

#[derive(Debug, Clone)]
pub struct HoldRow {
    pub id: HoldId,
    pub agent: i64,
    /// Digest of the request that it was granted to.
    pub request: i64,
    pub terms: Terms,
    pub opened_at_ms: i64,
    pub expires_boot_ms: u64,
    pub deadline_boot_ms: u64,
    pub boot_id: String,
    pub receipt: Option<Ending>,
    /// Present when it has ended.
    pub booked: Option<Booked>,
}

/// How an ended hold was booked, for the receipt to be compared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booked {
    pub cost_pico: i64,
    /// As the worker claimed them.
    pub status: Option<u16>,
    pub complete: bool,
}

fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| LedgerError::Value(error.to_string()))
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| LedgerError::Value(format!("holds: {error}")))
}

fn read(row: &Row<'_>) -> Result<HoldRow> {
    let id: [u8; 16] = row.get(0)?;
    let terms: String = row.get(3)?;
    let receipt: Option<String> = row.get(8)?;
    let booked: Option<String> = row.get(9)?;
    let boot_ms = |at| -> Result<u64> {
        let value: i64 = row.get(at)?;
        u64::try_from(value).map_err(|_| LedgerError::Value("holds: negative time".to_owned()))
    };
    Ok(HoldRow {
        id: HoldId::from(id),
        agent: row.get(1)?,
        request: row.get(2)?,
        terms: parse(&terms)?,
        opened_at_ms: row.get(4)?,
        expires_boot_ms: boot_ms(5)?,
        deadline_boot_ms: boot_ms(6)?,
        boot_id: row.get(7)?,
        receipt: receipt.as_deref().map(parse).transpose()?,
        booked: booked.as_deref().map(parse).transpose()?,
    })
}

impl Ledger {
    /// # Errors
    /// SQLite's own; the id is taken.
    pub fn insert_hold(&self, hold: &HoldRow) -> Result<()> {
        let stored = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        self.conn
            .prepare_cached(
                "INSERT INTO holds (id, agent_id, request, hold_pico, terms, opened_at_ms, \
                 expires_boot_ms, deadline_boot_ms, boot_id) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute((
                hold.id.as_bytes(),
                hold.agent,
                hold.request,
                hold.terms.hold_pico,
                json(&hold.terms)?,
                hold.opened_at_ms,
                stored(hold.expires_boot_ms),
                stored(hold.deadline_boot_ms),
                &hold.boot_id,
            ))?;
        Ok(())
    }

    /// Keeps a receipt for a hold that is still open.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn set_receipt(&self, id: &HoldId, receipt: &Ending) -> Result<()> {
        self.conn
            .prepare_cached("UPDATE holds SET receipt = ?2 WHERE id = ?1")?
            .execute((id.as_bytes(), json(receipt)?))?;
        Ok(())
    }

    /// Keeps an ended hold until its receipt comes.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn set_booked(&self, id: &HoldId, booked: &Booked) -> Result<()> {
        self.conn
            .prepare_cached("UPDATE holds SET booked = ?2 WHERE id = ?1")?
            .execute((id.as_bytes(), json(booked)?))?;
        Ok(())
    }

    /// # Errors
    /// SQLite's own.
    pub fn delete_hold(&self, id: &HoldId) -> Result<()> {
        self.conn
            .prepare_cached("DELETE FROM holds WHERE id = ?1")?
            .execute([id.as_bytes()])?;
        Ok(())
    }

    /// Every row: after a start, this is what is known of requests in flight.
    ///
    /// # Errors
    /// SQLite's own, or a value that cannot be.
    pub fn holds(&self) -> Result<Vec<HoldRow>> {
        let mut statement = self.conn.prepare(
            "SELECT h.id, h.agent_id, h.request, h.terms, h.opened_at_ms, \
             h.expires_boot_ms, h.deadline_boot_ms, h.boot_id, h.receipt, h.booked \
             FROM holds h",
        )?;
        let mut rows = statement.query([])?;
        let mut holds = Vec::new();
        while let Some(row) = rows.next()? {
            holds.push(read(row)?);
        }
        Ok(holds)
    }
}

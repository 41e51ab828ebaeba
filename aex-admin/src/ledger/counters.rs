//! Rows of sums: what limits over calendar periods, sessions or all time have counted.

use aex_admin_proto::limit::LimitKey;
use aex_admin_proto::scope::ScopeId;
use rusqlite::Connection;

use super::{Ledger, Result};
use crate::core::book::{Counter, CounterKey, Sum};

/// Every sum: its key, the beginning of its period, what was used.
///
/// # Errors
/// SQLite's own.
pub fn all(conn: &Connection) -> Result<Vec<(CounterKey, i64, i64)>> {
    let mut statement =
        conn.prepare("SELECT scope, metric, session, from_ms, used FROM counters")?;
    let mut rows = statement.query([])?;
    let mut counters = Vec::new();
    while let Some(row) = rows.next()? {
        let (scope, metric): (String, String) = (row.get(0)?, row.get(1)?);
        let (Ok(scope), Ok(key)) = (scope.parse(), metric.parse()) else {
            // Only somebody's own SQL writes one; that a sum is missing is the audit's to tell.
            tracing::warn!(scope, metric, "a row of counters cannot be read");
            continue;
        };
        let sum = Sum {
            key,
            session: row.get(2)?,
        };
        counters.push((CounterKey { scope, sum }, row.get(3)?, row.get(4)?));
    }
    Ok(counters)
}

impl Ledger {
    /// # Errors
    /// SQLite's own, or a value that cannot be.
    pub fn counters(&self) -> Result<Vec<(CounterKey, i64, i64)>> {
        all(&self.conn)
    }

    /// # Errors
    /// SQLite's own.
    pub fn set_counter(&self, key: &CounterKey, counter: &Counter) -> Result<()> {
        self.conn
            .prepare_cached(
                "INSERT INTO counters (scope, metric, session, from_ms, used) \
                 VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (scope, metric, session) \
                 DO UPDATE SET from_ms = excluded.from_ms, used = excluded.used",
            )?
            .execute((
                key.scope.to_string(),
                key.sum.key.to_string(),
                &key.sum.session,
                counter.from_ms,
                counter.used,
            ))?;
        Ok(())
    }

    /// Forgets the sums of a limit that is gone.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn forget_counters(&self, scope: ScopeId, limit: &LimitKey) -> Result<()> {
        self.conn
            .prepare_cached("DELETE FROM counters WHERE scope = ?1 AND metric = ?2")?
            .execute((scope.to_string(), limit.to_string()))?;
        Ok(())
    }

    /// Forgets all sums of a scope that has ended.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn forget_counters_of(&self, scope: ScopeId) -> Result<()> {
        self.conn
            .prepare_cached("DELETE FROM counters WHERE scope = ?1")?
            .execute([scope.to_string()])?;
        Ok(())
    }
}

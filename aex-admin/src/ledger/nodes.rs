//! Rows of the scopes that are no agents: the kernel, groups, runs.

use aex_admin_proto::operator::Settings;
use aex_admin_proto::scope::{KERNEL, ScopeId, ScopeKind};
use rusqlite::{Connection, Row};

use super::agents::{as_json, state_of, state_text, stored};
use super::{Ledger, LedgerError, Result};
use crate::core::money::Balance;
use crate::core::scope::{Recorded, Scope};

/// A group or run to be written. A run's `grant.group` is none; its place is `parent` and `agent`.
pub struct NewNode<'a> {
    pub kind: ScopeKind,
    pub name: &'a str,
    /// The run above a run. A group's is in its grant.
    pub parent: Option<i64>,
    /// Of a run.
    pub agent: Option<i64>,
    pub grant: &'a Recorded,
    pub created_at_ms: i64,
    pub expires_at_ms: Option<i64>,
}

const COLUMNS: &str = "n.id, n.kind, n.name, n.parent_id, n.agent_id, n.state, n.budget_micro, \
    n.spent_micro, n.carry_pico, n.held_pico, n.rpm, n.settings, n.created_at_ms, n.expires_at_ms";
const COLUMN_COUNT: usize = 14;

fn read(row: &Row<'_>) -> Result<Scope> {
    let name: String = row.get(2)?;
    let bad = |column: &str| LedgerError::Value(format!("scope {name}, column {column}"));
    let kind = match row.get_ref(1)?.as_str().map_err(|_| bad("kind"))? {
        "kernel" => ScopeKind::Kernel,
        "run" => ScopeKind::Run,
        _ => ScopeKind::Group,
    };
    let parent: Option<i64> = row.get(3)?;
    let agent: Option<i64> = row.get(4)?;
    let above = match (kind, parent, agent) {
        (ScopeKind::Kernel, ..) => None,
        (_, Some(parent), _) => Some(ScopeId::Node(parent)),
        (ScopeKind::Run, None, Some(agent)) => Some(ScopeId::Agent(agent)),
        (ScopeKind::Run, None, None) => return Err(bad("agent_id")),
        _ => Some(KERNEL),
    };
    let rpm: Option<i64> = row.get(10)?;
    let rpm = rpm.map(u64::try_from).transpose().map_err(|_| bad("rpm"))?;
    let settings = row.get_ref(11)?.as_str().map_err(|_| bad("settings"))?;
    let settings: Settings = serde_json::from_str(settings).map_err(|_| bad("settings"))?;
    Ok(Scope {
        id: ScopeId::Node(row.get(0)?),
        kind,
        parent: above,
        created_at_ms: row.get(12)?,
        expires_at_ms: row.get(13)?,
        balance: Balance {
            budget_micro: row.get(6)?,
            spent_micro: row.get(7)?,
            carry_pico: row.get(8)?,
            held_pico: row.get(9)?,
        },
        grant: Recorded {
            state: state_of(row.get_ref(5)?).map_err(|()| bad("state"))?,
            budget_micro: row.get(6)?,
            rpm,
            settings,
            group: parent.filter(|_| kind == ScopeKind::Group),
        },
        name,
    })
}

fn many(conn: &Connection, tail: &str, params: impl rusqlite::Params) -> Result<Vec<Scope>> {
    let mut statement = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM nodes n {tail}"))?;
    let mut rows = statement.query(params)?;
    let mut nodes = Vec::new();
    while let Some(row) = rows.next()? {
        nodes.push(read(row)?);
    }
    Ok(nodes)
}

/// The kernel and every group, closed ones too, by id.
///
/// # Errors
/// SQLite's own, or a value that cannot be.
pub(super) fn groups(conn: &Connection) -> Result<Vec<Scope>> {
    many(conn, "WHERE n.kind <> 'run' ORDER BY n.id", [])
}

/// Runs that have not been ended, by id.
///
/// # Errors
/// SQLite's own, or a value that cannot be.
pub(super) fn open_runs(conn: &Connection) -> Result<Vec<Scope>> {
    many(
        conn,
        "WHERE n.kind = 'run' AND n.state <> 'closed' ORDER BY n.id",
        [],
    )
}

/// Every scope that is no agent, by id.
///
/// # Errors
/// SQLite's own, or a value that cannot be.
pub(super) fn all(conn: &Connection) -> Result<Vec<Scope>> {
    many(conn, "ORDER BY n.id", [])
}

/// # Errors
/// SQLite's own, or a value that cannot be.
pub(super) fn one(conn: &Connection, id: i64) -> Result<Option<Scope>> {
    Ok(many(conn, "WHERE n.id = ?1", [id])?.pop())
}

impl Ledger {
    /// # Errors
    /// SQLite's own, or a value that cannot be.
    pub fn node(&self, id: i64) -> Result<Option<Scope>> {
        one(&self.conn, id)
    }

    /// # Errors
    /// SQLite's own, or a value that cannot be.
    pub fn node_by_name(&self, name: &str) -> Result<Option<Scope>> {
        Ok(many(&self.conn, "WHERE n.name = ?1", [name])?.pop())
    }

    /// Runs of an agent that have not been ended, the oldest first.
    ///
    /// # Errors
    /// SQLite's own, or a value that cannot be.
    pub fn open_runs(&self, agent: i64) -> Result<Vec<Scope>> {
        many(
            &self.conn,
            "WHERE n.agent_id = ?1 AND n.state <> 'closed' ORDER BY n.id",
            [agent],
        )
    }

    /// Groups and runs right below one.
    ///
    /// # Errors
    /// SQLite's own, or a value that cannot be.
    pub fn nodes_below(&self, parent: i64) -> Result<Vec<Scope>> {
        many(
            &self.conn,
            "WHERE n.parent_id = ?1 AND n.state <> 'closed'",
            [parent],
        )
    }

    /// How many agents that are not deleted are right below a group.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn agents_in(&self, group: i64) -> Result<Vec<(i64, String)>> {
        let mut statement = self.conn.prepare_cached(
            "SELECT id, name FROM agents WHERE group_id = ?1 AND state <> 'closed' ORDER BY id",
        )?;
        let rows = statement.query_map([group], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The id that the next one gets: rows are never deleted, and one process writes.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn next_node(&self) -> Result<i64> {
        let sql = "SELECT COALESCE(MAX(id), 0) + 1 FROM nodes";
        Ok(self
            .conn
            .prepare_cached(sql)?
            .query_row([], |row| row.get(0))?)
    }

    /// # Errors
    /// SQLite's own; the name is taken.
    pub fn insert_node(&self, node: &NewNode<'_>) -> Result<i64> {
        self.conn
            .prepare_cached(
                "INSERT INTO nodes (kind, name, parent_id, agent_id, state, settings, \
                 created_at_ms, expires_at_ms, recorded) \
                 VALUES (?1, ?2, ?3, ?4, 'active', '{}', ?5, ?6, '')",
            )?
            .execute((
                node.kind.name(),
                node.name,
                node.parent,
                node.agent,
                node.created_at_ms,
                node.expires_at_ms,
            ))?;
        let id = self.conn.last_insert_rowid();
        self.set_node_grant(id, node.kind, node.grant)?;
        Ok(id)
    }

    /// Writes what a scope was granted, and records it as AEX's own doing.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn set_node_grant(&self, id: i64, kind: ScopeKind, grant: &Recorded) -> Result<()> {
        let settings = serde_json::to_string(&grant.settings)
            .map_err(|error| LedgerError::Value(error.to_string()))?;
        self.conn
            .prepare_cached(
                "UPDATE nodes SET state = ?2, budget_micro = ?3, rpm = ?4, settings = ?5, \
                 recorded = ?6 WHERE id = ?1",
            )?
            .execute((
                id,
                state_text(grant.state),
                grant.budget_micro,
                stored(grant.rpm),
                settings,
                as_json(grant)?,
            ))?;
        if kind == ScopeKind::Group {
            self.conn
                .prepare_cached("UPDATE nodes SET parent_id = ?2 WHERE id = ?1")?
                .execute((id, grant.group))?;
        }
        Ok(())
    }

    /// Ends the tokens of a run.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn end_run_tokens(&self, run: i64, now_ms: i64) -> Result<()> {
        self.conn
            .prepare_cached(
                "UPDATE tokens SET revoked_at_ms = ?2 WHERE run_id = ?1 AND revoked_at_ms IS NULL",
            )?
            .execute((run, now_ms))?;
        Ok(())
    }
}

/// See [`Ledger::changed_from_outside`]: the same of groups, runs and the kernel.
pub(crate) fn outside_changes(conn: &Connection) -> Result<Vec<(Scope, Option<Recorded>)>> {
    let sql = format!(
        "SELECT {COLUMNS}, n.recorded FROM nodes n WHERE n.state <> 'closed' ORDER BY n.id"
    );
    let mut statement = conn.prepare(&sql)?;
    let mut rows = statement.query([])?;
    let mut changed = Vec::new();
    while let Some(row) = rows.next()? {
        let scope = match read(row) {
            Ok(scope) => scope,
            Err(LedgerError::Value(what)) => {
                tracing::warn!(what, "a row of nodes cannot be read");
                continue;
            }
            Err(error) => return Err(error),
        };
        let text: String = row.get(COLUMN_COUNT)?;
        let recorded = serde_json::from_str::<Recorded>(&text).ok();
        if recorded.as_ref() != Some(&scope.grant) {
            changed.push((scope, recorded));
        }
    }
    Ok(changed)
}

//! Rows of agents and their tokens.

use std::borrow::Cow;

use aex_admin_proto::capabilities::Capabilities;
use aex_admin_proto::limit::Limit;
use aex_admin_proto::operator::{AgentState, Passthrough, Settings, TokenView};
use aex_admin_proto::scope::{KERNEL, ScopeId, ScopeKind};
use aex_admin_proto::{CertDigest, TokenDigest};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row};
use serde::{Deserialize, Serialize};

use super::{Ledger, LedgerError, Result, nodes};
use crate::core::money::Balance;
use crate::core::scope::{Recorded, Scope};

/// Label of a token that replaces all before it.
pub const ROTATED: &str = "rotate";

#[derive(Debug, Clone, Copy)]
pub struct TokenRow {
    pub id: i64,
    pub agent: i64,
    /// Node id of the run whose it is.
    pub run: Option<i64>,
    pub expires_at_ms: Option<i64>,
    pub revoked: bool,
    pub read_only: bool,
}

/// A token to be written.
#[derive(Debug, Clone, Copy)]
pub struct NewToken<'a> {
    pub digest: &'a TokenDigest,
    pub label: &'a str,
    pub created_at_ms: i64,
    pub expires_at_ms: Option<i64>,
    pub run: Option<i64>,
    pub read_only: bool,
}

pub struct NewAgent<'a> {
    pub name: &'a str,
    pub grant: &'a Recorded,
    pub created_at_ms: i64,
}

/// The settings that have no column of their own.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct More<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<Cow<'a, [Limit]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_held_percent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_sessions: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_zone: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<Cow<'a, [String]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_cert: Option<CertDigest>,
}

impl<'a> More<'a> {
    fn of(settings: &'a Settings) -> Self {
        Self {
            limits: settings.limits.as_deref().map(Cow::Borrowed),
            max_held_percent: settings.max_held_percent,
            max_sessions: settings.max_sessions,
            time_zone: settings.time_zone.as_deref().map(Cow::Borrowed),
            labels: settings.labels.as_deref().map(Cow::Borrowed),
            uid: settings.uid,
            client_cert: settings.client_cert,
        }
    }

    /// NULL where there is nothing.
    fn text(&self) -> Result<Option<String>> {
        let text =
            serde_json::to_string(self).map_err(|error| LedgerError::Value(error.to_string()))?;
        Ok((text != "{}").then_some(text))
    }
}

const COLUMNS: &str = "a.id, a.name, a.created_at_ms, a.budget_micro, a.spent_micro, \
    a.carry_pico, a.held_pico, a.state, a.rpm, a.allowed_models, a.passthrough, \
    a.max_tokens_per_minute, a.max_input_tokens, a.max_output_tokens, a.max_concurrency, \
    a.streaming, a.tools, a.allowed_tools, a.vision, a.group_id, a.more, \
    a.capabilities";
const COLUMN_COUNT: usize = 22;

pub(super) fn select(tail: &str) -> String {
    format!("SELECT {COLUMNS} FROM agents a {tail}")
}

pub(super) fn read(row: &Row<'_>) -> Result<Scope> {
    let name: String = row.get(1)?;
    let bad = |column: &str| LedgerError::Value(format!("agent {name}, column {column}"));
    let limit = |at: usize, column: &str| -> Result<Option<u64>> {
        let value: Option<i64> = row.get(at)?;
        value
            .map(|value| u64::try_from(value).map_err(|_| bad(column)))
            .transpose()
    };
    let names = |at: usize| -> Result<Option<Vec<String>>> {
        let text = row
            .get_ref(at)?
            .as_str_or_null()
            .map_err(|_| bad("allowed_*"))?;
        Ok(text.map(split_names))
    };
    let capabilities = match row.get_ref(21)?.as_str_or_null() {
        Ok(None) => Capabilities::default(),
        Ok(Some(text)) => serde_json::from_str(text).map_err(|_| bad("capabilities"))?,
        Err(_) => return Err(bad("capabilities")),
    };
    let state = state_of(row.get_ref(7)?).map_err(|()| bad("state"))?;
    let group: Option<i64> = row.get(19)?;
    let more = match row.get_ref(20)?.as_str_or_null().map_err(|_| bad("more"))? {
        Some(text) => serde_json::from_str(text).map_err(|_| bad("more"))?,
        None => More::default(),
    };
    let passthrough = match row
        .get_ref(10)?
        .as_str_or_null()
        .map_err(|_| bad("passthrough"))?
    {
        None => None,
        Some("allow") => Some(Passthrough::Allow),
        Some("require") => Some(Passthrough::Require),
        Some(_) => Some(Passthrough::Deny),
    };
    Ok(Scope {
        id: ScopeId::Agent(row.get(0)?),
        kind: ScopeKind::Agent,
        parent: Some(group.map_or(KERNEL, ScopeId::Node)),
        expires_at_ms: None,
        created_at_ms: row.get(2)?,
        balance: Balance {
            budget_micro: row.get(3)?,
            spent_micro: row.get(4)?,
            carry_pico: row.get(5)?,
            held_pico: row.get(6)?,
        },
        grant: Recorded {
            state,
            budget_micro: row.get(3)?,
            rpm: Some(limit(8, "rpm")?.ok_or_else(|| bad("rpm"))?),
            group,
            settings: Settings {
                allowed_models: names(9)?,
                passthrough,
                max_tokens_per_minute: limit(11, "max_tokens_per_minute")?,
                max_input_tokens: limit(12, "max_input_tokens")?,
                max_output_tokens: limit(13, "max_output_tokens")?,
                max_concurrency: limit(14, "max_concurrency")?,
                streaming: row.get(15)?,
                tools: row.get(16)?,
                allowed_tools: names(17)?,
                vision: row.get(18)?,
                limits: more.limits.map(Cow::into_owned),
                max_held_percent: more.max_held_percent,
                max_sessions: more.max_sessions,
                time_zone: more.time_zone.map(Cow::into_owned),
                labels: more.labels.map(Cow::into_owned),
                capabilities: Box::new(capabilities),
                uid: more.uid,
                client_cert: more.client_cert,
            },
        },
        name,
    })
}

fn split_names(text: &str) -> Vec<String> {
    text.split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

fn join_names(names: Option<&Vec<String>>) -> Option<String> {
    names.map(|names| names.join(","))
}

fn passthrough_text(passthrough: Option<Passthrough>) -> Option<&'static str> {
    passthrough.map(|passthrough| match passthrough {
        Passthrough::Deny => "deny",
        Passthrough::Allow => "allow",
        Passthrough::Require => "require",
    })
}

pub(super) fn state_of(value: ValueRef<'_>) -> std::result::Result<AgentState, ()> {
    Ok(match value.as_str().map_err(|_| ())? {
        "active" => AgentState::Active,
        "paused" => AgentState::Paused,
        _ => AgentState::Closed,
    })
}

pub(super) fn state_text(state: AgentState) -> &'static str {
    match state {
        AgentState::Active => "active",
        AgentState::Paused => "paused",
        AgentState::Closed => "closed",
    }
}

pub(super) fn as_json(grant: &Recorded) -> Result<String> {
    serde_json::to_string(grant).map_err(|error| LedgerError::Value(error.to_string()))
}

fn capabilities_json(capabilities: &Capabilities) -> Result<Option<String>> {
    let json = |error: serde_json::Error| LedgerError::Value(error.to_string());
    (!capabilities.is_default())
        .then(|| serde_json::to_string(capabilities).map_err(json))
        .transpose()
}

/// Limits are stored as SQLite integers; none that a person sets comes near their end.
pub(super) fn stored(limit: Option<u64>) -> Option<i64> {
    limit.map(|limit| i64::try_from(limit).unwrap_or(i64::MAX))
}

fn one(conn: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<Option<Scope>> {
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    rows.next()?.map(read).transpose()
}

impl Ledger {
    /// # Errors
    /// SQLite's own, or a value that cannot be.
    pub fn agent_by_name(&self, name: &str) -> Result<Option<Scope>> {
        one(&self.conn, &select("WHERE a.name = ?1"), [name])
    }

    /// # Errors
    /// SQLite's own, or a value that cannot be.
    pub fn agent_by_id(&self, id: i64) -> Result<Option<Scope>> {
        one(&self.conn, &select("WHERE a.id = ?1"), [id])
    }

    /// The token of a digest. A digest is compared whole, inside an index: what could
    /// be timed is of a SHA-256, from which no token follows.
    ///
    /// # Errors
    /// SQLite's own, or a value that cannot be.
    pub fn token(&self, digest: &TokenDigest) -> Result<Option<TokenRow>> {
        let mut statement = self.conn.prepare_cached(
            "SELECT id, agent_id, run_id, expires_at_ms, revoked_at_ms IS NOT NULL, read_only \
             FROM tokens WHERE digest = ?1",
        )?;
        let token = statement.query_row([digest.as_bytes()], |row| {
            Ok(TokenRow {
                id: row.get(0)?,
                agent: row.get(1)?,
                run: row.get(2)?,
                expires_at_ms: row.get(3)?,
                revoked: row.get(4)?,
                read_only: row.get(5)?,
            })
        });
        Ok(token.optional()?)
    }

    /// Writes a scope's money.
    ///
    /// # Errors
    /// SQLite's own; the trigger's, when held money grows past the budget.
    pub fn set_balance(&self, scope: ScopeId, balance: &Balance) -> Result<()> {
        let (sql, id) = match scope {
            ScopeId::Agent(id) => (
                "UPDATE agents SET spent_micro = ?2, carry_pico = ?3, held_pico = ?4, \
                 reserved_micro = ?5 WHERE id = ?1",
                id,
            ),
            ScopeId::Node(id) => (
                "UPDATE nodes SET spent_micro = ?2, carry_pico = ?3, held_pico = ?4, \
                 reserved_micro = ?5 WHERE id = ?1",
                id,
            ),
        };
        self.conn.prepare_cached(sql)?.execute((
            id,
            balance.spent_micro,
            balance.carry_pico,
            balance.held_pico,
            balance.reserved_micro(),
        ))?;
        Ok(())
    }

    /// # Errors
    /// SQLite's own; the name is taken.
    pub fn insert_agent(&self, agent: &NewAgent<'_>) -> Result<i64> {
        self.conn
            .prepare_cached(
                "INSERT INTO agents (name, state, budget_micro, rpm, created_at_ms, recorded) \
                 VALUES (?1, 'active', 0, 1, ?2, '')",
            )?
            .execute((agent.name, agent.created_at_ms))?;
        let id = self.conn.last_insert_rowid();
        self.set_grant(id, agent.grant)?;
        Ok(id)
    }

    /// Writes budget, limits and state, and records them as AEX's own doing.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn set_grant(&self, agent: i64, grant: &Recorded) -> Result<()> {
        let settings = &grant.settings;
        self.conn
            .prepare_cached(
                "UPDATE agents SET state = ?2, budget_micro = ?3, rpm = ?4, allowed_models = ?5, \
                 passthrough = ?6, max_tokens_per_minute = ?7, max_input_tokens = ?8, \
                 max_output_tokens = ?9, max_concurrency = ?10, streaming = ?11, tools = ?12, \
                 allowed_tools = ?13, vision = ?14, recorded = ?15, group_id = ?16, more = ?17, \
                 capabilities = ?18 \
                 WHERE id = ?1",
            )?
            .execute(rusqlite::params![
                agent,
                state_text(grant.state),
                grant.budget_micro,
                stored(grant.rpm),
                join_names(settings.allowed_models.as_ref()),
                passthrough_text(settings.passthrough),
                stored(settings.max_tokens_per_minute),
                stored(settings.max_input_tokens),
                stored(settings.max_output_tokens),
                stored(settings.max_concurrency),
                settings.streaming,
                settings.tools,
                join_names(settings.allowed_tools.as_ref()),
                settings.vision,
                as_json(grant)?,
                grant.group,
                More::of(settings).text()?,
                capabilities_json(&settings.capabilities)?,
            ])?;
        Ok(())
    }

    /// Records a grant that was changed from outside as seen.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn set_recorded(&self, scope: ScopeId, grant: &Recorded) -> Result<()> {
        let (sql, id) = match scope {
            ScopeId::Agent(id) => ("UPDATE agents SET recorded = ?2 WHERE id = ?1", id),
            ScopeId::Node(id) => ("UPDATE nodes SET recorded = ?2 WHERE id = ?1", id),
        };
        let grant = as_json(grant)?;
        self.conn.prepare_cached(sql)?.execute((id, grant))?;
        Ok(())
    }

    /// Scopes whose row is not as recorded: the row, and what was recorded, if that can still be read.
    ///
    /// # Errors
    /// SQLite's own, or a value that cannot be.
    pub fn changed_from_outside(&self) -> Result<Vec<(Scope, Option<Recorded>)>> {
        let mut changed = outside_changes(&self.conn)?;
        changed.extend(nodes::outside_changes(&self.conn)?);
        Ok(changed)
    }

    /// # Errors
    /// SQLite's own.
    pub fn insert_token(&self, agent: i64, token: &NewToken<'_>) -> Result<i64> {
        self.conn
            .prepare_cached(
                "INSERT INTO tokens (agent_id, digest, label, created_at_ms, expires_at_ms, run_id, \
                 read_only) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute((
                agent,
                token.digest.as_bytes(),
                token.label,
                token.created_at_ms,
                token.expires_at_ms,
                token.run,
                token.read_only,
            ))?;
        Ok(self.conn.last_insert_rowid())
    }

    /// Ends every token of an agent, those of its runs too, at `at_ms`; one that ends sooner stays as it is. Answers how
    /// many. At once (`at_ms` is now) they are revoked, later they expire.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn end_tokens(&self, agent: i64, at_ms: i64, now_ms: i64) -> Result<usize> {
        let sql = if at_ms <= now_ms {
            "UPDATE tokens SET revoked_at_ms = ?2 WHERE agent_id = ?1 AND revoked_at_ms IS NULL"
        } else {
            "UPDATE tokens SET expires_at_ms = ?2 WHERE agent_id = ?1 AND revoked_at_ms IS NULL \
             AND (expires_at_ms IS NULL OR expires_at_ms > ?2)"
        };
        Ok(self.conn.prepare_cached(sql)?.execute((agent, at_ms))?)
    }

    /// Whether an agent's token was replaced by a later one: then it only ends its work.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn is_replaced(&self, agent: i64, token: i64) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM tokens WHERE agent_id = ?1 AND run_id IS NULL \
                   AND label = ?3 AND id > ?2)";
        let mut found = self.conn.prepare_cached(sql)?;
        Ok(found.query_row((agent, token, ROTATED), |row| row.get(0))?)
    }

    /// The newest tokens of an agent itself, not of its runs, that can still be used; at most `limit`, the oldest
    /// of them first.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn live_tokens(&self, agent: &Scope, now_ms: i64, limit: usize) -> Result<Vec<TokenView>> {
        let ScopeId::Agent(id) = agent.id else {
            return Err(LedgerError::Value("tokens of no agent".to_owned()));
        };
        let mut statement = self.conn.prepare_cached(
            "SELECT id, label, created_at_ms, expires_at_ms, read_only FROM tokens \
             WHERE agent_id = ?1 AND run_id IS NULL AND revoked_at_ms IS NULL \
             AND (expires_at_ms IS NULL OR expires_at_ms > ?2) ORDER BY id DESC LIMIT ?3",
        )?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = statement.query_map((id, now_ms, limit), |row| {
            Ok(TokenView {
                id: row.get(0)?,
                agent: agent.name.clone(),
                label: row.get(1)?,
                created_at_ms: row.get(2)?,
                expires_at_ms: row.get(3)?,
                revoked: false,
                read_only: row.get(4)?,
                run: None,
            })
        })?;
        let mut tokens = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        tokens.reverse();
        Ok(tokens)
    }

    /// Whether an agent itself, not a run of it, has or had this token.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn has_token(&self, agent: i64, id: i64) -> Result<bool> {
        let sql = "SELECT 1 FROM tokens WHERE id = ?1 AND agent_id = ?2 AND run_id IS NULL";
        let mut statement = self.conn.prepare_cached(sql)?;
        Ok(statement.exists((id, agent))?)
    }

    /// Ends one token. Answers its agent's name, or nothing when there is no such token.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn revoke_token(&self, id: i64, now_ms: i64) -> Result<Option<String>> {
        self.conn.execute(
            "UPDATE tokens SET revoked_at_ms = ?2 WHERE id = ?1 AND revoked_at_ms IS NULL",
            (id, now_ms),
        )?;
        let sql = "SELECT a.name FROM tokens t JOIN agents a ON a.id = t.agent_id WHERE t.id = ?1";
        Ok(self
            .conn
            .query_row(sql, [id], |row| row.get(0))
            .optional()?)
    }
}

/// What all agents have spent. TOTAL, since a sum that somebody's own SQL made absurd must not stop
/// anything.
pub(super) fn all_spent_micro(conn: &Connection) -> Result<i64> {
    Ok(conn
        .prepare_cached("SELECT CAST(TOTAL(spent_micro) AS INTEGER) FROM agents")?
        .query_row([], |row| row.get(0))?)
}

/// See [`Ledger::changed_from_outside`].
pub(crate) fn outside_changes(conn: &Connection) -> Result<Vec<(Scope, Option<Recorded>)>> {
    let sql = format!("SELECT {COLUMNS}, a.recorded FROM agents a ORDER BY a.id");
    let mut statement = conn.prepare(&sql)?;
    let mut rows = statement.query([])?;
    let mut changed = Vec::new();
    while let Some(row) = rows.next()? {
        let agent = match read(row) {
            Ok(agent) => agent,
            // Its requests fail closed until somebody mends it; the others go on.
            Err(LedgerError::Value(what)) => {
                tracing::warn!(what, "a row of agents cannot be read");
                continue;
            }
            Err(error) => return Err(error),
        };
        let text: String = row.get(COLUMN_COUNT)?;
        let recorded = serde_json::from_str::<Recorded>(&text).ok();
        if recorded.as_ref() != Some(&agent.grant) {
            changed.push((agent, recorded));
        }
    }
    Ok(changed)
}

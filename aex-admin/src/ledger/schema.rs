//! The tables, their version, and the small `meta` table.

use rusqlite::{Connection, OptionalExtension};

use super::{LedgerError, Result};

/// `PRAGMA user_version` of the newest schema that this program knows.
pub(super) const VERSION: i64 = 4;

/// Each brings the schema from the version before it to its own. What was released is never edited.
const MIGRATIONS: [(i64, &str); 4] = [
    (1, VERSION_1),
    (2, VERSION_2),
    (3, VERSION_3),
    (4, VERSION_4),
];

/// `holds` are the open ones: small rows under the id of their `hold.open` event, which has the rest,
/// so that a batch touches few pages. The `agents.allowed_*` columns are comma-separated names, empty for none; NULL is no limit.
/// `recorded` is what the last event says of budget, limits and state: a row that differs was
/// changed from outside.
const VERSION_1: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;

CREATE TABLE agents (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  state TEXT NOT NULL CHECK (state IN ('active', 'paused', 'closed')),
  budget_micro INTEGER NOT NULL CHECK (budget_micro >= 0),
  spent_micro INTEGER NOT NULL DEFAULT 0 CHECK (spent_micro >= 0),
  reserved_micro INTEGER NOT NULL DEFAULT 0 CHECK (reserved_micro >= 0),
  carry_pico INTEGER NOT NULL DEFAULT 0 CHECK (carry_pico BETWEEN 0 AND 999999),
  held_pico INTEGER NOT NULL DEFAULT 0 CHECK (held_pico >= 0),
  rpm INTEGER NOT NULL CHECK (rpm > 0),
  allowed_models TEXT,
  passthrough TEXT CHECK (passthrough IN ('deny', 'allow', 'require')),
  max_tokens_per_minute INTEGER CHECK (max_tokens_per_minute > 0),
  max_input_tokens INTEGER CHECK (max_input_tokens > 0),
  max_output_tokens INTEGER CHECK (max_output_tokens > 0),
  max_concurrency INTEGER CHECK (max_concurrency > 0),
  streaming INTEGER CHECK (streaming IN (0, 1)),
  tools INTEGER CHECK (tools IN (0, 1)),
  allowed_tools TEXT,
  vision INTEGER CHECK (vision IN (0, 1)),
  created_at_ms INTEGER NOT NULL,
  recorded TEXT NOT NULL
) STRICT;

CREATE TRIGGER hold_within_budget BEFORE UPDATE OF held_pico ON agents
WHEN NEW.held_pico > OLD.held_pico
 AND NEW.spent_micro + (NEW.carry_pico + NEW.held_pico + 999999) / 1000000 > NEW.budget_micro
BEGIN
  SELECT RAISE(ABORT, 'a hold would pass the budget');
END;

CREATE TRIGGER agent_keeps_its_name BEFORE UPDATE ON agents
WHEN NEW.id <> OLD.id OR NEW.name <> OLD.name
BEGIN
  SELECT RAISE(ABORT, 'an agent keeps its id and name: its events bear them');
END;

CREATE TABLE tokens (
  id INTEGER PRIMARY KEY,
  agent_id INTEGER NOT NULL REFERENCES agents (id),
  digest BLOB NOT NULL UNIQUE,
  label TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL,
  expires_at_ms INTEGER,
  revoked_at_ms INTEGER
) STRICT;
CREATE INDEX tokens_by_agent ON tokens (agent_id);

CREATE TABLE holds (
  event INTEGER PRIMARY KEY REFERENCES events (id),
  agent_id INTEGER NOT NULL REFERENCES agents (id),
  request INTEGER NOT NULL,
  expires_boot_ms INTEGER NOT NULL,
  deadline_boot_ms INTEGER NOT NULL,
  receipt TEXT
) STRICT;

CREATE TABLE events (
  id INTEGER PRIMARY KEY,
  at_ms INTEGER NOT NULL,
  agent TEXT,
  action TEXT NOT NULL,
  cost_micro INTEGER NOT NULL DEFAULT 0,
  cost_pico INTEGER NOT NULL DEFAULT 0,
  held_pico INTEGER NOT NULL DEFAULT 0,
  hold TEXT,
  detail TEXT NOT NULL,
  hash BLOB NOT NULL
) STRICT;
";

/// The key that signs tickets is kept beside the ledger, not in it. And when a hold was granted, so that an egress whose journal is older can say that it was never sent;
/// 0: before that is known.
const VERSION_2: &str = "
ALTER TABLE holds ADD COLUMN opened_boot_ms INTEGER NOT NULL DEFAULT 0;
DELETE FROM meta WHERE key = 'ticket_key';
";

/// The keys of requests that must not be carried out twice, by their digests. `event` is the `hold.open`
/// event of the hold that a key stands for. Ages are the boot clock's; `at_ms` carries them to the next boot.
const VERSION_3: &str = "
CREATE TABLE idempotency (
  agent_id INTEGER NOT NULL REFERENCES agents (id),
  key BLOB NOT NULL,
  request BLOB NOT NULL,
  event INTEGER NOT NULL REFERENCES events (id),
  at_ms INTEGER NOT NULL,
  at_boot_ms INTEGER NOT NULL,
  PRIMARY KEY (agent_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_age ON idempotency (at_boot_ms);
";

/// The tree. `nodes` are the scopes that are no agents: the kernel (always 1), groups, and runs, whose
/// `parent_id` is a group or run, or NULL for one right below the kernel or its agent. `settings`,
/// `agents.more` and `agents.capabilities` are JSON. `counters` are sums of limits over calendar periods, sessions or all time, money
/// in picodollars; what is held of them is in the events of open holds. The kernel's money begins as what
/// all agents have spent and hold.
const VERSION_4: &str = "
CREATE TABLE nodes (
  id INTEGER PRIMARY KEY,
  kind TEXT NOT NULL CHECK (kind IN ('kernel', 'group', 'run')),
  name TEXT NOT NULL UNIQUE,
  parent_id INTEGER REFERENCES nodes (id),
  agent_id INTEGER REFERENCES agents (id),
  state TEXT NOT NULL CHECK (state IN ('active', 'paused', 'closed')),
  budget_micro INTEGER CHECK (budget_micro >= 0),
  spent_micro INTEGER NOT NULL DEFAULT 0 CHECK (spent_micro >= 0),
  reserved_micro INTEGER NOT NULL DEFAULT 0 CHECK (reserved_micro >= 0),
  carry_pico INTEGER NOT NULL DEFAULT 0 CHECK (carry_pico BETWEEN 0 AND 999999),
  held_pico INTEGER NOT NULL DEFAULT 0 CHECK (held_pico >= 0),
  rpm INTEGER CHECK (rpm > 0),
  settings TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL,
  expires_at_ms INTEGER,
  recorded TEXT NOT NULL
) STRICT;
CREATE INDEX nodes_by_parent ON nodes (parent_id) WHERE state <> 'closed';
CREATE INDEX nodes_by_agent ON nodes (agent_id) WHERE state <> 'closed';

CREATE TRIGGER node_hold_within_budget BEFORE UPDATE OF held_pico ON nodes
WHEN NEW.held_pico > OLD.held_pico
 AND NEW.spent_micro + (NEW.carry_pico + NEW.held_pico + 999999) / 1000000 > NEW.budget_micro
BEGIN
  SELECT RAISE(ABORT, 'a hold would pass the budget');
END;

CREATE TRIGGER node_keeps_its_place BEFORE UPDATE ON nodes
WHEN NEW.id <> OLD.id OR NEW.name <> OLD.name OR NEW.kind <> OLD.kind
 OR NEW.agent_id IS NOT OLD.agent_id
BEGIN
  SELECT RAISE(ABORT, 'a scope keeps its id, name and kind: its events bear them');
END;

INSERT INTO nodes (id, kind, name, state, spent_micro, reserved_micro, carry_pico, held_pico, settings,
  created_at_ms, recorded)
SELECT 1, 'kernel', 'kernel', 'active',
  COALESCE(SUM(spent_micro), 0) + COALESCE(SUM(carry_pico), 0) / 1000000,
  (COALESCE(SUM(held_pico), 0) + 999999) / 1000000,
  COALESCE(SUM(carry_pico), 0) % 1000000,
  COALESCE(SUM(held_pico), 0), '{}', 0,
  '{\"state\":\"active\",\"budget_micro\":null,\"rpm\":null,\"settings\":{}}'
FROM agents;

ALTER TABLE agents ADD COLUMN group_id INTEGER REFERENCES nodes (id);
ALTER TABLE agents ADD COLUMN more TEXT;
ALTER TABLE agents ADD COLUMN capabilities TEXT;
ALTER TABLE tokens ADD COLUMN run_id INTEGER REFERENCES nodes (id);
ALTER TABLE tokens ADD COLUMN read_only INTEGER NOT NULL DEFAULT 0 CHECK (read_only IN (0, 1));
CREATE INDEX tokens_by_run ON tokens (run_id) WHERE run_id IS NOT NULL;

CREATE TABLE counters (
  scope TEXT NOT NULL,
  metric TEXT NOT NULL,
  session TEXT NOT NULL,
  from_ms INTEGER NOT NULL,
  used INTEGER NOT NULL,
  PRIMARY KEY (scope, metric, session)
) STRICT, WITHOUT ROWID;
";

pub(super) fn check_version(conn: &Connection) -> Result<i64> {
    let found: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > VERSION {
        return Err(LedgerError::Newer {
            found,
            known: VERSION,
        });
    }
    Ok(found)
}

/// Makes the tables, or moves them forward: each step whole, or not at all.
pub(super) fn bring_up(conn: &Connection) -> Result<()> {
    let found = check_version(conn)?;
    let tables: i64 = conn.query_row("SELECT COUNT(*) FROM sqlite_master", [], |row| row.get(0))?;
    if found == 0 && tables > 0 {
        return Err(LedgerError::Refused(
            "the file has tables, and no version of a ledger's schema (PRAGMA user_version): another \
             program made it, or it was loaded from a dump without that line"
                .to_owned(),
        ));
    }
    for (version, statements) in MIGRATIONS.iter().filter(|(version, _)| *version > found) {
        conn.execute_batch(&format!(
            "BEGIN IMMEDIATE; {statements} PRAGMA user_version = {version}; COMMIT;"
        ))?;
    }
    Ok(())
}

pub(super) fn meta(conn: &Connection, key: &str) -> Result<Option<Vec<u8>>> {
    Ok(conn
        .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| {
            row.get(0)
        })
        .optional()?)
}

pub(super) fn set_meta(conn: &Connection, key: &str, value: &[u8]) -> Result<()> {
    // Kept: the seal is written with each commit.
    conn.prepare_cached(
        "INSERT INTO meta (key, value) VALUES (?1, ?2) \
         ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    )?
    .execute((key, value))?;
    Ok(())
}

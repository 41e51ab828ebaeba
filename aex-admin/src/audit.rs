//! Does the ledger prove what it says? Reads every event once, in order, and replays the money.
//!
//! Memory grows with agents and open holds, not with history. Read-only: it can run beside the
//! daemon, or on the file of a stopped one. What is signed is checked in [`signed`].

mod counters;
mod keys;
mod replay;
mod signed;

use std::collections::HashSet;
use std::path::Path;

use aex_admin_proto::HoldId;
use aex_admin_proto::operator::{AuditReport, Checkpoint, Finding, Replay};
use aex_admin_proto::scope::{ScopeId, ScopeKind};
use rusqlite::Connection;

use crate::core::money::ceil_micro;
use crate::core::price::PICO_PER_MICRO;
use crate::core::scope::{Recorded, Scope};
use crate::ledger::seal::kept_checkpoint;
use crate::ledger::{Event, EventHash, GENESIS, LedgerError, link, reader};
use counters::Counters;
use keys::Keys;
use replay::{Money, Replayed};
use signed::Signed;

/// Findings beyond this many of a kind are counted, not listed.
const MAX_FINDINGS: usize = 200;

/// How a correction's detail begins: a commit with signed cost, beyond the one that ended its hold.
pub(crate) const CORRECTION: &str = r#"{"correction":true"#;

struct Audit {
    report: AuditReport,
    replayed: Replayed,
    open: HashSet<HoldId>,
    previous: EventHash,
    signed: Signed,
    keys: Keys,
    counters: Counters,
}

/// Audits the ledger at `path`, also against checkpoints that were kept elsewhere.
///
/// # Errors
/// The file cannot be read as a ledger at all.
pub fn of_file(path: &Path, against: &[Checkpoint]) -> Result<AuditReport, LedgerError> {
    // Before the snapshot: what is kept was committed earlier, so the snapshot has it.
    let kept = kept_checkpoint(path)?;
    audit(path, Some(path), kept.as_ref(), against)
}

/// Audits a copy of a ledger with the key of the ledger at `key_of`, or with none.
///
/// # Errors
/// The file cannot be read as a ledger at all.
pub fn of_copy(copy: &Path, key_of: Option<&Path>) -> Result<AuditReport, LedgerError> {
    audit(copy, key_of, None, &[])
}

fn audit(
    path: &Path,
    key_of: Option<&Path>,
    kept: Option<&Checkpoint>,
    against: &[Checkpoint],
) -> Result<AuditReport, LedgerError> {
    // One snapshot for everything, whatever the daemon writes meanwhile.
    let conn = reader::snapshot(path)?;
    let mut audit = Audit {
        report: AuditReport::default(),
        replayed: Replayed::default(),
        open: HashSet::new(),
        previous: GENESIS,
        signed: Signed::of(key_of, &conn, kept, against)?,
        keys: Keys::of(&conn)?,
        counters: Counters::of(&conn)?,
    };
    reader::each_event(&conn, |id, event, hash| audit.event(id, event, hash))?;
    audit.compare_agents(&conn)?;
    audit.compare_nodes(&conn)?;
    audit.at_the_end_of_scopes();
    audit.compare_holds(&conn)?;
    let findings = audit.signed.at_the_end();
    audit.add(findings);
    let findings = audit.keys.at_the_end();
    audit.add(findings);
    let findings = audit.counters.at_the_end();
    audit.add(findings);
    let mut report = audit.report;
    report.checkpoints = audit.signed.checkpoints;
    report.head = hex::encode(audit.previous);
    report.ok = report.violations.is_empty();
    Ok(report)
}

/// Rebuilds every balance from the events alone, and compares.
///
/// # Errors
/// The file cannot be read as a ledger at all.
pub fn replay(path: &Path) -> Result<Replay, LedgerError> {
    let conn = reader::snapshot(path)?;
    let mut replayed = Replayed::default();
    let mut events = 0;
    reader::each_event(&conn, |_, event, _| {
        events += 1;
        replayed.event(event);
    })?;
    let mut rows = reader::agents(&conn)?;
    rows.extend(reader::nodes(&conn)?);
    replayed.compare(&rows, events)
}

/// What one look comes to: a violation, or a warning.
enum Found {
    Violation(Finding),
    Warning(Finding),
}

fn finding(
    property: &str,
    agent: Option<&str>,
    event: Option<i64>,
    message: impl Into<String>,
) -> Finding {
    Finding {
        property: property.to_owned(),
        agent: agent.map(str::to_owned),
        event,
        message: message.into(),
    }
}

impl Audit {
    fn event(&mut self, id: i64, event: &Event<'_>, hash: &[u8]) {
        self.report.events += 1;
        if id != self.report.events {
            self.violation(
                "chain_contiguous",
                event.agent,
                Some(id),
                format!("event {} is missing", self.report.events),
            );
            self.report.events = id;
        }
        let findings = self.signed.event(id, event, &self.previous, hash);
        self.add(findings);
        let expected = link(&self.previous, id, event);
        if hash != expected {
            self.violation(
                "chain_intact",
                event.agent,
                Some(id),
                "its hash does not follow from its fields and the event before it",
            );
        }
        // Goes on from what is written, so that one change is one finding.
        self.previous = hash.try_into().unwrap_or(expected);
        let findings = self.keys.event(id, event);
        self.add(findings);
        self.counters.event(event);
        let readable = self.replayed.event(event);
        if !readable {
            self.violation(
                "change_recorded",
                event.agent,
                Some(id),
                "what was granted, or to which scopes it belongs, cannot be read",
            );
        }
        if let Some(agent) = event.agent {
            self.money(id, agent, event);
        } else if event.action == "outside.update" {
            self.outside_update(None, id);
        }
    }

    fn outside_update(&mut self, agent: Option<&str>, id: i64) {
        let message = "its row was changed with somebody's own SQL";
        self.warning("outside_update", agent, Some(id), message);
    }

    fn money(&mut self, id: i64, agent: &str, event: &Event<'_>) {
        match event.action {
            "hold.open" => self.hold_opened(id, agent, event),
            "usage.commit" | "hold.release" => self.hold_ended(id, agent, event),
            "outside.update" => self.outside_update(Some(agent), id),
            _ => {}
        }
    }

    fn hold_opened(&mut self, id: i64, agent: &str, event: &Event<'_>) {
        let money = self.replayed.of(agent);
        let used = money.cost_pico + money.held_pico;
        let budget = i128::from(money.budget_micro().unwrap_or(0)) * i128::from(PICO_PER_MICRO);
        if event.held_pico > 0 && used > budget {
            self.violation(
                "held_within_budget",
                Some(agent),
                Some(id),
                format!("settled and held were {used} picodollars, the budget {budget}"),
            );
        }
        let new = hold_of(event).is_some_and(|hold| self.open.insert(hold));
        if !new {
            self.violation(
                "hold_opened_once",
                Some(agent),
                Some(id),
                "the hold was open already, or has no id",
            );
        }
    }

    fn hold_ended(&mut self, id: i64, agent: &str, event: &Event<'_>) {
        if event.action == "hold.release" && (event.cost_micro != 0 || event.cost_pico != 0) {
            self.violation(
                "release_is_free",
                Some(agent),
                Some(id),
                "a release has a cost",
            );
        }
        let money = self.replayed.of(agent);
        if money.cost_pico < 0 || money.held_pico < 0 {
            let message = format!(
                "after it {} picodollars were spent and {} held",
                money.cost_pico, money.held_pico
            );
            self.violation("no_negative_balance", Some(agent), Some(id), message);
        }
        let correction = event.action == "usage.commit" && event.detail.starts_with(CORRECTION);
        if correction {
            return;
        }
        let ended = hold_of(event).is_some_and(|hold| self.open.remove(&hold));
        if !ended {
            self.violation(
                "hold_ended_once",
                Some(agent),
                Some(id),
                "no open hold of that id",
            );
        }
    }

    fn compare_agents(&mut self, conn: &Connection) -> Result<(), LedgerError> {
        for row in reader::agents(conn)? {
            self.report.agents += 1;
            let name = row.name.as_str();
            let Some(replayed) = self.replayed.take(name) else {
                self.violation("agent_has_history", Some(name), None, "no event made it");
                continue;
            };
            self.report.spent_micro =
                (self.report.spent_micro).saturating_add(row.balance.spent_micro);
            if i128::from(row.balance.spent_micro) != replayed.cost_micro {
                let (stored, made) = (row.balance.spent_micro, replayed.cost_micro);
                let message = format!("spent_micro is {stored}; its events make {made}");
                self.violation("spent_equals_commits", Some(name), None, message);
            }
            self.compare_scope(name, &row, &replayed);
        }
        Ok(())
    }

    /// The kernel, groups and runs: each one's money is its events' too.
    fn compare_nodes(&mut self, conn: &Connection) -> Result<(), LedgerError> {
        for row in reader::nodes(conn)? {
            let ScopeId::Node(id) = row.id else { continue };
            let mut replayed = self.replayed.take_node(id).unwrap_or_default();
            if row.kind == ScopeKind::Kernel && replayed.granted.is_none() {
                // Nothing was ever set: it limits nothing.
                replayed.granted =
                    Some(row.grant.clone()).filter(|grant| *grant == Recorded::none());
            }
            self.compare_scope(&row.name, &row, &replayed);
        }
        Ok(())
    }

    fn compare_scope(&mut self, name: &str, row: &Scope, replayed: &Money) {
        let balance = row.balance;
        let pico = i128::from(balance.spent_micro) * i128::from(PICO_PER_MICRO)
            + i128::from(balance.carry_pico);
        let held = i128::from(balance.held_pico);
        for (property, what, stored, made) in [
            (
                "picodollars_equal_commits",
                "spent and carry in picodollars",
                pico,
                replayed.cost_pico,
            ),
            (
                "held_equals_open_holds",
                "held_pico",
                held,
                replayed.held_pico,
            ),
        ] {
            if stored != made {
                let message = format!("{what} is {stored}; its events make {made}");
                self.violation(property, Some(name), None, message);
            }
        }
        if balance.spent_micro < 0
            || balance.held_pico < 0
            || !(0..PICO_PER_MICRO).contains(&balance.carry_pico)
        {
            self.violation(
                "no_negative_balance",
                Some(name),
                None,
                "a balance is out of range",
            );
        }
        if replayed.granted.as_ref() != Some(&row.grant) {
            self.warning(
                "outside_update",
                Some(name),
                None,
                "its budget, limits or state were changed with somebody's own SQL, not \
                 recorded yet",
            );
        }
    }

    fn at_the_end_of_scopes(&mut self) {
        for gone in self.replayed.names() {
            self.violation("agent_kept", Some(&gone), None, "it has events, and no row");
        }
    }

    fn compare_holds(&mut self, conn: &Connection) -> Result<(), LedgerError> {
        for (hold, reserved) in reader::open_holds(conn)? {
            let known = hold.parse().is_ok_and(|hold| self.open.remove(&hold));
            if !known {
                let message = format!("hold {hold} of {reserved} picodollars has no event");
                self.violation("hold_has_event", None, None, message);
            }
        }
        for hold in std::mem::take(&mut self.open) {
            let message = format!("hold {hold} is open by its events, and has no row");
            self.violation("hold_kept", None, None, message);
        }
        for (name, reserved_micro, held_pico) in reader::reserved(conn)? {
            if reserved_micro != ceil_micro(i128::from(held_pico)) {
                self.violation(
                    "reserved_is_held_rounded_up",
                    Some(&name),
                    None,
                    format!("reserved_micro is {reserved_micro}"),
                );
            }
        }
        Ok(())
    }

    fn violation(
        &mut self,
        property: &str,
        agent: Option<&str>,
        event: Option<i64>,
        message: impl Into<String>,
    ) {
        self.add([Found::Violation(finding(property, agent, event, message))]);
    }

    fn warning(&mut self, property: &str, agent: Option<&str>, event: Option<i64>, message: &str) {
        self.add([Found::Warning(finding(property, agent, event, message))]);
    }

    fn add(&mut self, found: impl IntoIterator<Item = Found>) {
        for found in found {
            let (list, finding) = match found {
                Found::Violation(finding) => (&mut self.report.violations, finding),
                Found::Warning(finding) => (&mut self.report.warnings, finding),
            };
            if list.len() < MAX_FINDINGS {
                list.push(finding);
            }
        }
    }
}

fn hold_of(event: &Event<'_>) -> Option<HoldId> {
    event.hold?.parse().ok()
}

//! Does the ledger prove what it says? Reads every event once, in order, and replays the money.
//!
//! Memory grows with agents and open holds, not with history. Read-only: it can run beside the
//! daemon, or on the file of a stopped one.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use aex_admin_proto::operator::{AuditReport, Finding};
use rusqlite::Connection;
use serde::Deserialize;

use crate::core::money::ceil_micro;
use crate::core::price::PICO_PER_MICRO;
use crate::ledger::{Event, EventHash, GENESIS, LedgerError, Recorded, link, reader};

/// Findings beyond this many of a kind are counted, not listed.
const MAX_FINDINGS: usize = 200;

/// One agent as its events make it.
#[derive(Debug, Default)]
struct Replayed {
    /// Budget, limits and state, as the last event that changed them says.
    granted: Option<Recorded>,
    cost_micro: i128,
    cost_pico: i128,
    held_pico: i128,
}

#[derive(Deserialize)]
struct Change {
    now: Option<Recorded>,
}

#[derive(Default)]
struct Audit {
    report: AuditReport,
    agents: HashMap<String, Replayed>,
    open: HashSet<String>,
    previous: EventHash,
}

/// Audits the ledger at `path`.
///
/// # Errors
/// The file cannot be read as a ledger at all.
pub fn of_file(path: &Path) -> Result<AuditReport, LedgerError> {
    // One snapshot for everything, whatever the daemon writes meanwhile.
    let conn = reader::snapshot(path)?;
    let mut audit = Audit {
        previous: GENESIS,
        ..Audit::default()
    };
    reader::each_event(&conn, |id, event, hash| audit.event(id, event, hash))?;
    audit.compare_agents(&conn)?;
    audit.compare_holds(&conn)?;
    audit.report.head = hex::encode(audit.previous);
    audit.report.ok = audit.report.violations.is_empty();
    Ok(audit.report)
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
        let expected = link(&self.previous, id, event);
        if hash != expected {
            self.violation(
                "chain_intact",
                event.agent,
                Some(id),
                "its hash does not follow from its fields and the event before it".to_owned(),
            );
        }
        // Goes on from what is written, so that one change is one finding.
        self.previous = hash.try_into().unwrap_or(expected);
        let Some(agent) = event.agent else { return };
        match event.action {
            "hold.open" => self.hold_opened(id, agent, event),
            "usage.commit" | "hold.release" => self.hold_ended(id, agent, event),
            "outside.update" => {
                self.warning(
                    "outside_update",
                    agent,
                    Some(id),
                    "its row was changed with somebody's own SQL",
                );
                self.granted(id, agent, event);
            }
            _ => self.granted(id, agent, event),
        }
    }

    fn granted(&mut self, id: i64, agent: &str, event: &Event<'_>) {
        let is_change = event.action.starts_with("agent.") || event.action == "outside.update";
        if !is_change || event.action == "agent.rotate_token" {
            return;
        }
        match serde_json::from_str::<Change>(event.detail) {
            Ok(Change { now: Some(now) }) => self.agent(agent).granted = Some(now),
            _ => self.violation(
                "change_recorded",
                Some(agent),
                Some(id),
                "what was granted cannot be read".to_owned(),
            ),
        }
    }

    fn hold_opened(&mut self, id: i64, agent: &str, event: &Event<'_>) {
        let replayed = self.agent(agent);
        replayed.held_pico += i128::from(event.held_pico);
        let used = replayed.cost_pico + replayed.held_pico;
        let budget_micro = (replayed.granted.as_ref()).map_or(0, |granted| granted.budget_micro);
        let budget = i128::from(budget_micro) * i128::from(PICO_PER_MICRO);
        if event.held_pico > 0 && used > budget {
            self.violation(
                "held_within_budget",
                Some(agent),
                Some(id),
                format!("settled and held were {used} picodollars, the budget {budget}"),
            );
        }
        let new = event
            .hold
            .is_some_and(|hold| self.open.insert(hold.to_owned()));
        if !new {
            self.violation(
                "hold_opened_once",
                Some(agent),
                Some(id),
                "the hold was open already, or has no id".to_owned(),
            );
        }
    }

    fn hold_ended(&mut self, id: i64, agent: &str, event: &Event<'_>) {
        let replayed = self.agent(agent);
        replayed.held_pico += i128::from(event.held_pico);
        replayed.cost_micro += i128::from(event.cost_micro);
        replayed.cost_pico += i128::from(event.cost_pico);
        if event.action == "hold.release" && (event.cost_micro != 0 || event.cost_pico != 0) {
            self.violation(
                "release_is_free",
                Some(agent),
                Some(id),
                "a release has a cost".to_owned(),
            );
        }
        let correction =
            event.action == "usage.commit" && event.detail.starts_with(r#"{"correction":true"#);
        let ended = event.hold.is_some_and(|hold| self.open.remove(hold));
        if !ended && !correction {
            self.violation(
                "hold_ended_once",
                Some(agent),
                Some(id),
                "no open hold of that id".to_owned(),
            );
        }
    }

    fn compare_agents(&mut self, conn: &Connection) -> Result<(), LedgerError> {
        for row in reader::agents(conn)? {
            self.report.agents += 1;
            let name = row.name.as_str();
            let Some(replayed) = self.agents.remove(name) else {
                self.violation(
                    "agent_has_history",
                    Some(name),
                    None,
                    "no event made it".to_owned(),
                );
                continue;
            };
            let balance = row.balance;
            self.report.spent_micro = self.report.spent_micro.saturating_add(balance.spent_micro);
            let pico = i128::from(balance.spent_micro) * i128::from(PICO_PER_MICRO)
                + i128::from(balance.carry_pico);
            let checks = [
                (
                    "spent_equals_commits",
                    "spent_micro",
                    i128::from(balance.spent_micro),
                    replayed.cost_micro,
                ),
                (
                    "picodollars_equal_commits",
                    "spent and carry in picodollars",
                    pico,
                    replayed.cost_pico,
                ),
                (
                    "held_equals_open_holds",
                    "held_pico",
                    i128::from(balance.held_pico),
                    replayed.held_pico,
                ),
            ];
            for (property, what, stored, replayed) in checks {
                if stored != replayed {
                    self.violation(
                        property,
                        Some(name),
                        None,
                        format!("{what} is {stored}; its events make {replayed}"),
                    );
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
                    "a balance is out of range".to_owned(),
                );
            }
            if replayed.granted.as_ref() != Some(&row.grant) {
                self.warning(
                    "outside_update",
                    name,
                    None,
                    "its budget, limits or state were changed with somebody's own SQL, \
                     not recorded yet",
                );
            }
        }
        let gone: Vec<String> = self.agents.keys().cloned().collect();
        for name in gone {
            self.violation(
                "agent_kept",
                Some(&name),
                None,
                "it has events, and no row".to_owned(),
            );
        }
        Ok(())
    }

    fn compare_holds(&mut self, conn: &Connection) -> Result<(), LedgerError> {
        for (hold, reserved) in reader::open_holds(conn)? {
            if !self.open.remove(&hold) {
                self.violation(
                    "hold_has_event",
                    None,
                    None,
                    format!("hold {hold} of {reserved} picodollars has no event"),
                );
            }
        }
        let lost: Vec<String> = self.open.drain().collect();
        for hold in lost {
            self.violation(
                "hold_kept",
                None,
                None,
                format!("hold {hold} is open by its events, and has no row"),
            );
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

    fn agent(&mut self, name: &str) -> &mut Replayed {
        if !self.agents.contains_key(name) {
            self.agents.insert(name.to_owned(), Replayed::default());
        }
        self.agents.get_mut(name).expect("it was inserted")
    }

    fn violation(
        &mut self,
        property: &str,
        agent: Option<&str>,
        event: Option<i64>,
        message: String,
    ) {
        push(&mut self.report.violations, property, agent, event, message);
    }

    fn warning(&mut self, property: &str, agent: &str, event: Option<i64>, message: &str) {
        push(
            &mut self.report.warnings,
            property,
            Some(agent),
            event,
            message.to_owned(),
        );
    }
}

fn push(
    findings: &mut Vec<Finding>,
    property: &str,
    agent: Option<&str>,
    event: Option<i64>,
    message: String,
) {
    if findings.len() < MAX_FINDINGS {
        let (property, agent) = (property.to_owned(), agent.map(str::to_owned));
        findings.push(Finding {
            property,
            agent,
            event,
            message,
        });
    }
}

//! Events, and what an audit found.

use aex_admin_proto::operator::{AuditReport, EventView, Finding, Replay, RestoreReport};
use serde_json::Value;

use super::{money, time};

/// Longest summary of an event's detail, in characters.
const SUMMARY_CHARS: usize = 160;

/// One event on one line.
pub(crate) fn event(event: &EventView) -> String {
    let cost = if event.cost_micro == 0 && event.cost_pico == 0 {
        "-".to_owned()
    } else {
        money(event.cost_micro)
    };
    let line = format!(
        "{} {:>6} {:<16} {:<18} {:>12}  {}",
        time(event.at_ms),
        event.id,
        event.agent.as_deref().unwrap_or("-"),
        event.action,
        cost,
        summary(event.detail.get())
    );
    line.trim_end().replace('\n', " ")
}

fn summary(detail: &str) -> String {
    let Ok(fields) = serde_json::from_str::<serde_json::Map<String, Value>>(detail) else {
        return shortened(detail);
    };
    let pairs: Vec<String> = fields
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| match value {
            Value::String(text) => format!("{name}={text}"),
            other => format!("{name}={other}"),
        })
        .collect();
    shortened(&pairs.join(" "))
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SUMMARY_CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

pub(crate) fn audit(report: &AuditReport, strict: bool) -> String {
    let mut text = String::new();
    for violation in &report.violations {
        text.push_str(&finding("VIOLATED", violation));
    }
    for warning in &report.warnings {
        text.push_str(&finding("warning", warning));
    }
    let verdict = match (report.violations.len(), report.warnings.len()) {
        (0, 0) => "ok".to_owned(),
        (0, n) if strict => format!("FAILED, {n} warnings count (--strict)"),
        (0, n) => format!("ok, {n} warnings"),
        (n, _) => format!("FAILED, {n} violations"),
    };
    text.push_str(&format!(
        "audit {verdict}: {} events, {} agents, {} spent, head {}\n",
        report.events,
        report.agents,
        money(report.spent_micro),
        report.head
    ));
    text
}

fn finding(kind: &str, finding: &Finding) -> String {
    let agent = finding
        .agent
        .as_ref()
        .map_or_else(String::new, |agent| format!(" agent {agent}"));
    let event = finding
        .event
        .map_or_else(String::new, |id| format!(" event {id}"));
    format!(
        "{kind} {}{agent}{event}: {}\n",
        finding.property, finding.message
    )
}

pub(crate) fn replay(replay: &Replay) -> String {
    let mut text = String::new();
    for agent in &replay.agents {
        let verdict = if agent.same { "same" } else { "DIFFERS" };
        text.push_str(&format!(
            "{verdict} {}: spent {} + {} pico, held {} pico, budget {}",
            agent.agent,
            money(agent.spent_micro),
            agent.carry_pico,
            agent.held_pico,
            money(agent.budget_micro)
        ));
        if !agent.same {
            text.push_str(&format!(
                "; its events make spent {} + {} pico, held {} pico, budget {}",
                money(agent.replayed_spent_micro),
                agent.replayed_carry_pico,
                agent.replayed_held_pico,
                money(agent.replayed_budget_micro)
            ));
        }
        text.push('\n');
    }
    let verdict = if replay.same { "same" } else { "DIFFERS" };
    text.push_str(&format!("replay {verdict}: {} events", replay.events));
    text
}

pub(crate) fn restore(report: &RestoreReport) -> String {
    let mut text = String::new();
    if report.diverged {
        text.push_str("The backup's history is not that of this ledger or its last checkpoint.\n");
    }
    if report.unreadable {
        text.push_str(
            "The ledger that is there cannot be read: what the backup lacks is not known.\n",
        );
    }
    if report.foreign_key {
        text.push_str(
            "The backup is signed with another key than aex.db.key: its end cannot be checked.\n",
        );
    }
    if report.missing_events > 0 {
        text.push_str(&format!(
            "The backup lacks {} events that are known, and {} of spending.\n",
            report.missing_events,
            money(report.missing_spent_micro)
        ));
    }
    if report.unknown_requests > 0 {
        text.push_str(&format!(
            "{} requests that the egress's journal tells as sent are not in it.\n",
            report.unknown_requests
        ));
    }
    text.push_str(&match (&report.replaced, report.restored) {
        (_, false) => "Nothing was changed. Take a newer backup, or --accept-loss: then book what \
                       is missing with `aex ledger resolve --agent`."
            .to_owned(),
        (Some(replaced), true) => format!(
            "Restored {} events. The ledger that was there is kept as {replaced}.",
            report.events
        ),
        (None, true) => format!("Restored {} events.", report.events),
    });
    text
}

/// One event as a line of CSV (RFC 4180), in the order of [`CSV_HEAD`].
pub(crate) fn csv(event: &EventView) -> String {
    let id = event.id.to_string();
    let numbers = [
        event.at_ms,
        event.cost_micro,
        event.cost_pico,
        event.held_pico,
    ];
    let [at_ms, cost_micro, cost_pico, held_pico] = numbers.map(|number| number.to_string());
    [
        id.as_str(),
        &at_ms,
        event.agent.as_deref().unwrap_or(""),
        &event.action,
        &cost_micro,
        &cost_pico,
        &held_pico,
        event.hold.as_deref().unwrap_or(""),
        event.detail.get(),
        &event.hash,
    ]
    .map(quoted)
    .join(",")
}

pub(crate) const CSV_HEAD: &str =
    "id,at_ms,agent,action,cost_micro,cost_pico,held_pico,hold,detail,hash";

fn quoted(field: &str) -> String {
    if field.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;

    #[test]
    fn an_event_is_one_line() {
        let event = EventView {
            id: 7,
            at_ms: 0,
            agent: Some("a".into()),
            action: "usage.commit".into(),
            cost_micro: 12_345,
            cost_pico: 12_345_000_000,
            hold: None,
            held_pico: 0,
            detail: RawValue::from_string(r#"{"model": "m\nx", "tokens": 3, "none": null}"#.into())
                .unwrap(),
            hash: String::new(),
        };
        let line = super::event(&event);
        assert!(
            line.starts_with("1970-01-01T00:00:00.000Z      7 a"),
            "{line}"
        );
        assert!(line.ends_with("$0.012345  model=m x tokens=3"), "{line}");
    }

    #[test]
    fn a_long_detail_is_cut_at_a_character() {
        let text = shortened(&"é".repeat(1000));
        assert_eq!(text.chars().count(), SUMMARY_CHARS + 1);
    }

    #[test]
    fn an_audit_names_property_agent_and_event() {
        let found = Finding {
            property: "spent_equals_commits".into(),
            agent: Some("a".into()),
            event: Some(3),
            message: "off by 1".into(),
        };
        let report = AuditReport {
            violations: vec![found.clone()],
            ..AuditReport::default()
        };
        let text = audit(&report, false);
        assert!(text.contains("VIOLATED spent_equals_commits agent a event 3: off by 1\n"));
        assert!(text.contains("audit FAILED, 1 violations"));
        let warned = AuditReport {
            ok: true,
            warnings: vec![found],
            ..AuditReport::default()
        };
        assert!(audit(&warned, false).contains("audit ok, 1 warnings"));
        assert!(audit(&warned, true).contains("audit FAILED"));
    }
}

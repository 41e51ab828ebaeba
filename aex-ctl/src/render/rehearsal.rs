//! What a proposal would have done.

use aex_admin_proto::explain::LookScope;
use aex_admin_proto::rehearsal::Rehearsal;

use super::table::table;
use super::{counted, money, named, one_line, time};

pub(crate) fn rehearsal(told: &Rehearsal) -> String {
    let mut text: String = told
        .warnings
        .iter()
        .map(|warning| format!("warning: {}\n", one_line(warning)))
        .collect();
    text.push_str(&format!(
        "{} granted from {} to {}, decided again by {} and the limits of {}:\n",
        counted(told.requests.requests, "request", "requests"),
        time(told.since_ms),
        time(told.until_ms),
        counted(told.policies, "policy", "policies"),
        counted(told.scopes, "scope", "scopes"),
    ));
    text.push_str(&format!(
        "{} would have been refused, which cost {} of {}.\n",
        told.refused.requests,
        money(told.refused.cost_micro),
        money(told.requests.cost_micro),
    ));
    if told.waited.requests > 0 {
        text.push_str(&format!(
            "{} would have waited for what other requests held.\n",
            told.waited.requests
        ));
    }
    text.push_str(&refusals(told));
    text.push_str(&on_trial(told));
    text.push_str(&notes(told));
    text
}

fn refusals(told: &Rehearsal) -> String {
    if told.refusals.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<String>> = told
        .refusals
        .iter()
        .map(|line| {
            vec![
                line.agent.clone(),
                rule(line.scope.as_ref(), &line.rule),
                line.tally.requests.to_string(),
                money(line.tally.cost_micro),
                time(line.first_at_ms),
                one_line(&line.reason),
            ]
        })
        .collect();
    let columns = [
        "agent",
        "refused by",
        ">requests",
        ">cost",
        "first",
        "would have read",
    ];
    format!("\n{}", table(&columns, &rows))
}

fn rule(scope: Option<&LookScope>, rule: &str) -> String {
    let rule = one_line(rule);
    match scope {
        Some(scope) => format!("{}: {rule}", named(scope)),
        None => rule,
    }
}

fn on_trial(told: &Rehearsal) -> String {
    if told.on_trial.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<String>> = told
        .on_trial
        .iter()
        .map(|line| {
            vec![
                line.agent.clone(),
                one_line(&line.rule),
                line.mode.clone(),
                line.tally.requests.to_string(),
                money(line.tally.cost_micro),
            ]
        })
        .collect();
    let columns = ["agent", "passed, on trial", "mode", ">requests", ">cost"];
    format!("\n{}", table(&columns, &rows))
}

/// What the figures above do not have in them.
fn notes(told: &Rehearsal) -> String {
    [
        (
            told.lines_left_out,
            ("time", "times"),
            "there was no place for another line; the sums have them.",
        ),
        (
            told.refused_then,
            ("request was", "requests were"),
            "refused at that time already: those are recorded by kind and minute, and not rehearsed.",
        ),
        (
            told.undecided,
            ("request is", "requests are"),
            "still open, and not decided.",
        ),
        (
            told.tools_unrecorded,
            ("request", "requests"),
            "offered more tools than are recorded: rules of tools were asked of those that are.",
        ),
        (
            told.unreadable,
            ("recorded request", "recorded requests"),
            "could not be read: left out.",
        ),
    ]
    .into_iter()
    .filter(|(count, ..)| *count > 0)
    .map(|(count, (one, many), what)| format!("\n{} {what}", counted(count, one, many)))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_would_have_been_refused_by_what_and_the_money() {
        let told: Rehearsal = serde_json::from_value(serde_json::json!({
            "since_ms": 1_790_000_000_000_i64, "until_ms": 1_790_086_400_000_i64,
            "policies": 1, "scopes": 2, "warnings": ["p.cedar:1:1: agent \"x\" is not there"],
            "requests": {"requests": 1204, "cost_micro": 40_100_000},
            "refused": {"requests": 37, "cost_micro": 1_234_500},
            "waited": {"requests": 3, "cost_micro": 10},
            "refusals": [
                {"agent": "atlas", "rule": "policy dear", "requests": 30, "cost_micro": 1_200_000,
                 "first_at_ms": 1_790_000_000_000_i64, "last_at_ms": 1_790_000_000_001_i64,
                 "first_hold": "00", "reason": "Forbidden by policy: dear"},
                {"agent": "ben", "scope": {"kind": "group", "name": "team"}, "rule": "money/day",
                 "requests": 7, "cost_micro": 34_500,
                 "first_at_ms": 1_790_000_000_000_i64, "last_at_ms": 1_790_000_000_001_i64,
                 "first_hold": "01", "reason": "Insufficient budget"}],
            "on_trial": [{"agent": "ben", "rule": "policy try", "mode": "shadow", "requests": 2,
                          "cost_micro": 5}],
            "refused_then": 12, "tools_unrecorded": 0, "unreadable": 0,
        }))
        .unwrap();
        let text = rehearsal(&told);
        for expected in [
            "warning: p.cedar:1:1",
            "1204 requests granted from",
            "decided again by 1 policy and the limits of 2 scopes",
            "37 would have been refused, which cost $1.234500 of $40.100000",
            "3 would have waited",
            "policy dear",
            "group team: money/day",
            "shadow",
            "12 requests were refused at that time already",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert!(!text.contains("more tools"), "{text}");
    }
}

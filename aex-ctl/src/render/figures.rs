//! The kernel's state, its figures, its models, and the programs of the supervisor.

use aex_admin_proto::listen::Listening;
use aex_admin_proto::operator::{Metrics, ModelList, ModelView, PolicyCounts, Status};
use aex_admin_proto::sandbox::{InForce, Memory};

use super::table::{facts, table};
use super::{agent, money, per_million, span};
use crate::supervisor::ProgramState;

pub(crate) fn status(status: &Status, ways: &[Listening]) -> String {
    let ready = match (&status.why, status.ready) {
        (_, true) => "ready".to_owned(),
        (Some(why), false) => format!("NOT READY: {why}"),
        (None, false) => "NOT READY".to_owned(),
    };
    let boundary = match status.boundary.as_str() {
        "advisory" => {
            "advisory (user mode stops runaways, not a hostile program of the same user)".into()
        }
        "enforced" => "enforced (each program is another user, and agents are none of them)".into(),
        other => other.to_owned(),
    };
    let keys = match status.operator_keys.as_slice() {
        [] => "none".into(),
        keys => keys.join(", "),
    };
    let workers: Vec<String> = status
        .workers
        .iter()
        .map(|w| {
            let of = w.group.as_ref();
            let of = of.map_or_else(String::new, |group| format!(" of group {group}"));
            format!(
                "{}{of} (pid {}, {} in flight)",
                w.worker, w.pid, w.in_flight
            )
        })
        .collect();
    let mut lines = vec![
        ("aex", format!("{}, {ready}", status.version)),
        (
            "up",
            format!("{} (pid {})", span(status.uptime_ms), status.pid),
        ),
    ];
    if !ways.is_empty() {
        let urls: Vec<String> = ways.iter().map(Listening::base_url).collect();
        lines.push(("address", urls.join(", ")));
    }
    lines.extend([
        ("boundary", boundary),
        ("sandbox", sandboxes(status)),
        ("operator keys", keys),
        (
            "egress",
            status
                .egress_pid
                .map_or_else(|| "away".into(), |pid| format!("pid {pid}")),
        ),
        (
            "workers",
            if workers.is_empty() {
                "away".into()
            } else {
                workers.join(", ")
            },
        ),
        ("agents", status.agents.to_string()),
        (
            "requests",
            format!("{} held, {} waiting", status.open_holds, status.waiting),
        ),
        (
            "ledger",
            format!("{} ({} events)", status.ledger, status.events),
        ),
    ]);
    facts(&lines)
}

/// What holds the programs in: once where it is the same for all, else for each.
fn sandboxes(status: &Status) -> String {
    let mut programs = vec![("admin".to_owned(), status.sandbox)];
    programs.extend((status.egress_sandbox).map(|sandbox| ("egress".to_owned(), sandbox)));
    let workers = status.workers.iter();
    programs.extend(workers.map(|w| (format!("worker {}", w.worker), w.sandbox)));
    // Only the egress has keys to lock.
    let short = |sandbox: InForce| InForce {
        memory: Memory::Unlocked,
        ..sandbox
    };
    let same = |(_, sandbox): &(String, InForce)| short(*sandbox) == short(status.sandbox);
    if programs.iter().all(same) {
        let keys = match status.egress_sandbox.map(|sandbox| sandbox.memory) {
            None | Some(Memory::Unlocked) => "",
            Some(Memory::Keys) => "; keys locked",
            Some(Memory::All) => "; egress's memory locked",
        };
        return format!("{}{keys}", short(status.sandbox));
    }
    let each = programs.iter();
    let each: Vec<String> = each.map(|(name, held)| format!("{name}: {held}")).collect();
    each.join("\n")
}

/// What policies matched, by name; the modes that were, and the errors.
fn policies(counts: &std::collections::BTreeMap<String, PolicyCounts>) -> String {
    let each: Vec<String> = counts
        .iter()
        .map(|(name, counts)| {
            let figures = [
                ("denied", counts.denied),
                ("warned", counts.warned),
                ("shadowed", counts.shadowed),
                ("errors", counts.errors),
            ];
            let told = figures.iter().filter(|(_, n)| *n > 0);
            told.fold(name.clone(), |text, (what, n)| format!("{text} {what} {n}"))
        })
        .collect();
    if each.is_empty() {
        "none matched".to_owned()
    } else {
        each.join(", ")
    }
}

pub(crate) fn metrics(metrics: &Metrics) -> String {
    let counts = |counts: &std::collections::BTreeMap<String, u64>| {
        if counts.is_empty() {
            return "none".to_owned();
        }
        let each: Vec<String> = counts
            .iter()
            .map(|(name, n)| format!("{name} {n}"))
            .collect();
        each.join(", ")
    };
    let mut text = facts(&[
        ("up", span(metrics.uptime_ms)),
        (
            "money",
            format!(
                "{} spent, {} held",
                money(metrics.spent_micro),
                money(metrics.held_micro)
            ),
        ),
        (
            "requests",
            format!(
                "{} asked, {} granted, {} replayed, {} held now, {} waiting",
                metrics.reserves,
                metrics.granted,
                metrics.replayed,
                metrics.open_holds,
                metrics.waiting
            ),
        ),
        ("refused", counts(&metrics.refused)),
        ("policies", policies(&metrics.policies)),
        ("settled", counts(&metrics.settled)),
        (
            "unusual",
            format!(
                "{} overruns, {} role violations, {} outside updates, {} tokens of other peers",
                metrics.overruns,
                metrics.role_violations,
                metrics.outside_updates,
                metrics.wrong_peers
            ),
        ),
        (
            "ledger",
            format!(
                "{} operations in {} commits",
                metrics.operations, metrics.commits
            ),
        ),
    ]);
    for breaker in &metrics.breakers {
        let failing = format!(
            "{} of {}: {} failures in a row, {}\n",
            breaker.upstream_model, breaker.provider, breaker.failures, breaker.state
        );
        text.push_str(&failing);
    }
    if !metrics.agents.is_empty() {
        text.push('\n');
        text.push_str(&agent::rows(&metrics.agents));
    }
    text
}

pub(crate) fn models(list: &ModelList) -> String {
    if list.models.is_empty() {
        return "No models: name some in models.yaml, then `aex config reload`.\n".into();
    }
    let rows: Vec<Vec<String>> = (list.models.iter())
        .flat_map(|model| {
            let further = model.fallbacks.iter().map(fallback_row);
            std::iter::once(model_row(model)).chain(further)
        })
        .collect();
    format!(
        "{}\nPrices in USD per million tokens.\n",
        table(
            &[
                "MODEL",
                "PROVIDER",
                "UPSTREAM MODEL",
                ">INPUT",
                ">CACHED",
                ">OUTPUT",
                ">MAX OUTPUT",
                "PRICE FROM",
            ],
            &rows,
        )
    )
}

/// A further target: the same model elsewhere.
fn fallback_row(target: &ModelView) -> Vec<String> {
    let mut row = model_row(target);
    row[0] = "  or".into();
    row
}

fn model_row(model: &ModelView) -> Vec<String> {
    let price = |pico: Option<u64>| pico.map_or_else(|| "-".into(), per_million);
    let source = match model.price_source.as_str() {
        "none" => "nowhere: refused until it is priced",
        other => other,
    };
    let name = match model.routing.as_deref() {
        None | Some("ordered") => model.name.clone(),
        Some(routing) => format!("{} ({routing})", model.name),
    };
    vec![
        name,
        model.provider.clone(),
        model.upstream_model.clone(),
        price(model.input_pico),
        price(model.cached_input_pico),
        price(model.output_pico),
        model
            .max_output_tokens
            .map_or_else(|| "-".into(), |tokens| tokens.to_string()),
        source.into(),
    ]
}

pub(crate) fn programs(programs: &[ProgramState]) -> String {
    let rows: Vec<Vec<String>> = programs
        .iter()
        .map(|program| {
            vec![
                program.program.clone(),
                program
                    .pid
                    .map_or_else(|| "-".into(), |pid| pid.to_string()),
                if program.running { "running" } else { "down" }.into(),
            ]
        })
        .collect();
    table(&["PROGRAM", ">PID", "STATE"], &rows)
}

#[cfg(test)]
mod tests {
    use aex_admin_proto::egress::KeyPolicy;

    use super::*;

    fn model(provider: &str) -> ModelView {
        ModelView {
            name: "m".into(),
            provider: provider.into(),
            upstream_model: "u".into(),
            price_source: "none".into(),
            input_pico: None,
            cached_input_pico: None,
            output_pico: None,
            max_output_tokens: Some(7),
            context_window: None,
            keys: KeyPolicy::Either,
            loopback: false,
            routing: None,
            fallbacks: Vec::new(),
            weight: None,
        }
    }

    #[test]
    fn each_target_of_a_model_has_a_line() {
        let two = ModelView {
            routing: Some("cheapest".into()),
            fallbacks: vec![model("second")],
            ..model("first")
        };
        let text = models(&ModelList { models: vec![two] });
        let line = |provider: &str| text.lines().find(|line| line.contains(provider));
        let first = line("first").unwrap_or_default();
        assert!(first.starts_with("m (cheapest) "), "{text}");
        let second = line("second").unwrap_or_default();
        assert!(second.starts_with("  or "), "{text}");
    }

    #[test]
    fn an_unpriced_model_says_that_it_is_refused() {
        let text = models(&ModelList {
            models: vec![model("p")],
        });
        assert!(text.contains("refused until it is priced"));
        assert!(models(&ModelList::default()).contains("models.yaml"));
    }

    #[test]
    fn metrics_show_refusals_by_code() {
        let mut figures = Metrics {
            spent_micro: 12_345,
            ..Metrics::default()
        };
        figures.refused.insert("insufficient_budget".into(), 3);
        let text = metrics(&figures);
        assert!(text.contains("$0.012345 spent"));
        assert!(text.contains("insufficient_budget 3"));
    }
}

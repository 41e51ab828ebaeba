//! Why a request would pass or not.

use aex_admin_proto::explain::{Explained, Figures, Look, Outcome, TargetLooks, Verdict};
use aex_admin_proto::limit::Quantity;
use aex_admin_proto::worker::Quote;

use super::table::table;
use super::{money, named, one_line, span, time};

pub(crate) fn explained(explained: &Explained) -> String {
    let mut text = format!("{}\n", outcome(explained));
    if let Some(look) = &explained.decided_by {
        text.push_str(&format!("decided by {}\n", decided(look)));
    }
    if !explained.left_out.is_empty() {
        let names: Vec<String> = explained
            .left_out
            .iter()
            .map(|tool| one_line(tool))
            .collect();
        text.push_str(&format!("it would not be offered: {}\n", names.join(", ")));
    }
    let warnings = explained.quote.iter().flat_map(|quote| &quote.warnings);
    for warning in warnings {
        text.push_str(&format!("warning: {}\n", one_line(warning)));
    }
    for bound in &explained.assumes {
        let from = match (bound.peer.uid, bound.peer.client_cert) {
            (Some(uid), None) => format!("uid {uid}, over a Unix socket"),
            (None, Some(cert)) => format!("the client certificate {cert}"),
            (Some(uid), Some(cert)) => format!("uid {uid} and the client certificate {cert}"),
            (None, None) => continue,
        };
        text.push_str(&format!(
            "assumed: the token comes from {from}; {} takes it from nobody else\n",
            named(&bound.scope)
        ));
    }
    if explained.drawn {
        text.push_str(
            "the order of its targets is drawn anew for each request (routing: weighted)\n",
        );
    }
    for target in &explained.targets {
        text.push_str(&format!("\n{}\n", title(&explained.model, target)));
        text.push_str(&looks(&target.looks));
    }
    text
}

fn outcome(explained: &Explained) -> String {
    // A run's name begins with its agent's.
    let who = match &explained.run {
        Some(run) => format!("run {run}"),
        None => explained.agent.clone(),
    };
    let who = one_line(&who);
    let refusal = explained.refusal.as_ref();
    let refusal = refusal.map(|told| format!("{}: {}", told.code(), one_line(&told.to_string())));
    match (explained.outcome, refusal) {
        (Outcome::Passes, _) => match &explained.quote {
            Some(quote) => format!("{who} may send this: {}", held(quote)),
            None => format!("{who} may send this"),
        },
        (Outcome::Refused, Some(refusal)) => format!("{who} may not send this: refused, {refusal}"),
        (Outcome::Refused, None) => format!("{who} may not send this"),
        (Outcome::Waits, refusal) => {
            let scope = explained.decided_by.as_ref();
            let scope = scope.and_then(|look| look.scope.as_ref());
            let held = scope.map_or_else(String::new, |scope| format!(" in {}", named(scope)));
            let else_refused = refusal.map_or_else(String::new, |refusal| {
                format!(", and be refused where nothing comes free in time, {refusal}")
            });
            format!("{who} would wait for what is held{held}{else_refused}")
        }
    }
}

fn held(quote: &Quote) -> String {
    let output = match quote.output_cap {
        0 => String::new(),
        cap => format!(" and {} of output a choice", grouped(i128::from(cap))),
    };
    format!(
        "it would hold {} at {}: at most {} tokens of prompt{output}",
        money(quote.hold_micro),
        one_line(&quote.provider),
        grouped(i128::from(quote.input_tokens)),
    )
}

/// Whose rule it is, which, and what it comes to.
fn decided(look: &Look) -> String {
    let scope = look.scope.as_ref();
    let scope = scope.map_or_else(String::new, |scope| format!("{}: ", named(scope)));
    let mut parts = Vec::new();
    if let Some(figures) = &look.figures {
        parts.push(format!("needs {}", amount(figures.what, figures.needed)));
        parts.push(standing(figures, look.verdict));
        parts.extend(
            figures
                .resets_at_ms
                .map(|at_ms| format!("resets {}", time(at_ms))),
        );
        // Whole seconds, rounded up: before then it does not fit.
        parts.extend(figures.retry_after_ms.map(|after_ms| {
            let whole_ms = after_ms.div_ceil(1000).saturating_mul(1000);
            format!("may fit again in {}", span(whole_ms))
        }));
    }
    parts.extend(look.why.as_deref().map(one_line));
    let rule = one_line(&look.rule);
    if parts.is_empty() {
        return format!("{scope}{rule}");
    }
    format!("{scope}{rule}: {}", parts.join(", "))
}

/// What there is of a limit: with every hold freed, or, where it is waited for those, as it is.
fn standing(figures: &Figures, verdict: Verdict) -> String {
    let of = |count: i64| amount(figures.what, count);
    let most = of(figures.most);
    match (figures.left(), figures.held) {
        (Some(left), Some(held)) if verdict == Verdict::Waits => {
            let free = of(left.saturating_sub(held));
            format!("has {free} of {most} free, {} held", of(held))
        }
        (Some(left), _) => format!("has {} of {most} left", of(left)),
        (None, Some(held)) => format!("has {} of {most} held", of(held)),
        (None, None) => format!("at most {most}"),
    }
}

fn title(model: &str, target: &TargetLooks) -> String {
    let model = one_line(model);
    let Some(provider) = target.provider.as_deref().map(one_line) else {
        return model;
    };
    match target.upstream_model.as_deref().map(one_line) {
        Some(there) if there != model => format!("{model} at {provider}, there {there}"),
        _ => format!("{model} at {provider}"),
    }
}

fn looks(looks: &[Look]) -> String {
    if looks.is_empty() {
        return "no rule was looked at\n".into();
    }
    let rows: Vec<Vec<String>> = looks.iter().map(row).collect();
    table(
        &[
            "scope", "rule", ">needs", ">most", ">used", ">held", "verdict",
        ],
        &rows,
    )
}

fn row(look: &Look) -> Vec<String> {
    let figure = |of: fn(&Figures) -> Option<i64>| {
        let figures = look.figures.as_ref();
        let shown = figures.and_then(|figures| Some(amount(figures.what, of(figures)?)));
        shown.unwrap_or_default()
    };
    let verdict = look.verdict.name();
    vec![
        look.scope.as_ref().map_or_else(|| "-".into(), named),
        one_line(&look.rule),
        figure(|figures| Some(figures.needed)),
        figure(|figures| Some(figures.most)),
        figure(|figures| figures.used),
        figure(|figures| figures.held),
        look.why.as_deref().map_or_else(
            || verdict.into(),
            |why| format!("{verdict}: {}", one_line(why)),
        ),
    ]
}

fn amount(what: Quantity, amount: i64) -> String {
    match what {
        Quantity::Money => money(amount),
        _ => grouped(i128::from(amount)),
    }
}

/// Digits in threes: `20,000`.
fn grouped(count: i128) -> String {
    let digits = count.unsigned_abs().to_string();
    let mut text = String::from(if count < 0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;

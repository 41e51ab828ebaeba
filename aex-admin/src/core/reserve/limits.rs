//! Limits that hold of one request, of what is open, and of the last 60 seconds: of every scope of the
//! path, the token's own first, and of the model.

use aex_admin_proto::Refusal;
use aex_admin_proto::explain::{Figures, Look, Verdict};
use aex_admin_proto::limit::{Mode, Quantity, Span, Subject};
use aex_admin_proto::scope::{ScopeId, ScopeKind};
use aex_admin_proto::worker::Route;

use super::told::{count, look};
use super::{Ask, Caps, Sight, Stop, Told, prompt_param};
use crate::core::book::LiveKey;
use crate::core::live::Live;
use crate::core::scope::Bound;

/// The upper bound of the prompt's tokens, within every scope's limit.
pub(super) fn bound_input(sight: Sight<'_>, told: &mut Told<'_>) -> Result<u64, Stop> {
    let bound = sight.model.rendering.prompt_tokens(sight.asked.facts);
    for (at, scope, limit) in sight.bounds() {
        if limit.what != Quantity::Input
            || !told.stops(scope, &limit, bound <= limit.most, || {
                figures(&limit, bound)
            })
        {
            continue;
        }
        let most = limit.most;
        let whose = whose(scope.kind);
        let message = if at == 0 {
            format!("the prompt may be {bound} tokens; {whose} may send {most} (max_input_tokens)")
        } else {
            format!(
                "the prompt may be {bound} tokens, more than {whose} may send (max_input_tokens)"
            )
        };
        return Err(Stop::TooLong(Refusal::InvalidRequest {
            message,
            param: Some(prompt_param(sight.asked.route).to_owned()),
        }));
    }
    Ok(bound)
}

/// Figures of a limit, for a request that needs that much.
fn figures(limit: &Bound<'_>, needed: u64) -> Figures {
    Figures::new(limit.what, count(needed), count(limit.most))
}

/// Notes a limit of the model itself.
fn of_model(
    told: &Told<'_>,
    sight: Sight<'_>,
    limit: &str,
    fits: bool,
    figures: impl FnOnce() -> Figures,
) {
    told.note(|| Look {
        rule: format!("{limit} of model {}", sight.model.name),
        figures: Some(figures()),
        ..look(
            None,
            if fits {
                Verdict::Passes
            } else {
                Verdict::Refuses
            },
        )
    });
}

fn whose(kind: ScopeKind) -> &'static str {
    match kind {
        ScopeKind::Kernel => "this kernel",
        ScopeKind::Group => "this agent's group",
        ScopeKind::Agent => "this agent",
        ScopeKind::Run => "this run",
    }
}

pub(super) fn bound_output(sight: Sight<'_>, told: &mut Told<'_>) -> Result<Caps, Stop> {
    let asked = sight.asked;
    if !asked.route.generates() {
        return Ok(Caps { least: 0, most: 0 });
    }
    let answers = sight.answers();
    let Some(cap) = asked.facts.output_cap else {
        return absent_cap(sight, told);
    };
    if let Some(most) = sight.model.max_output_tokens {
        of_model(told, sight, "max_output_tokens", cap <= most, || {
            Figures::new(Quantity::Output, count(cap), count(most))
        });
        if cap > most {
            return Err(too_much(
                sight,
                &format!("{cap} tokens"),
                "this model",
                Some(most),
            ));
        }
    }
    let all = cap.saturating_mul(answers);
    for (at, scope, limit) in sight.bounds() {
        if limit.what != Quantity::Output
            || !told.stops(scope, &limit, all <= limit.most, || figures(&limit, all))
        {
            continue;
        }
        return Err(above(sight, at, &limit, all));
    }
    Ok(Caps {
        least: cap,
        most: cap,
    })
}

/// By a limit of a request's output. Its figure is told where it is the token's own.
fn above(sight: Sight<'_>, at: usize, limit: &Bound<'_>, needed: u64) -> Stop {
    let kind = sight
        .caller
        .path
        .get(at)
        .map_or(ScopeKind::Kernel, |scope| scope.kind);
    let asked = match sight.answers() {
        1 => format!("{needed} tokens"),
        answers => format!("{needed} tokens ({answers} answers)"),
    };
    too_much(sight, &asked, whose(kind), (at == 0).then_some(limit.most))
}

fn too_much(sight: Sight<'_>, asked: &str, whose: &str, most: Option<u64>) -> Stop {
    let message = match most {
        Some(most) => {
            format!("the output cap of {asked} is above the limit of {whose}: {most}")
        }
        None => format!("the output cap of {asked} is above the limit of {whose}"),
    };
    Stop::Refuse(Refusal::InvalidRequest {
        message,
        param: Some(cap_param(sight.asked.route).to_owned()),
    })
}

/// What a request may get that names no cap of its own: what the limits of its path leave to each answer.
fn absent_cap(sight: Sight<'_>, told: &mut Told<'_>) -> Result<Caps, Stop> {
    let answers = sight.answers();
    let model = sight.model.max_output_tokens;
    let default = sight.defaults.default_output_tokens;
    let mut most = default.min(model.unwrap_or(u64::MAX)).max(1);
    for (at, scope, limit) in sight.bounds() {
        if limit.what != Quantity::Output {
            continue;
        }
        // A token each is the least.
        if told.stops(scope, &limit, answers <= limit.most, || {
            figures(&limit, answers)
        }) {
            return Err(above(sight, at, &limit, answers));
        }
        if limit.mode == Mode::Enforce {
            most = most.min(limit.most / answers);
        }
    }
    Ok(Caps {
        least: sight.defaults.min_output_tokens.min(most),
        most,
    })
}

/// What a client calls its output cap, for error texts.
fn cap_param(route: Route) -> &'static str {
    match route {
        Route::Responses => "max_output_tokens",
        _ => "max_tokens",
    }
}

/// A scope has only so many sessions: a new id is no way out of a session's limit.
pub(super) fn check_sessions(sight: Sight<'_>, told: &Told<'_>) -> Result<(), Refusal> {
    let book = sight.around.book;
    for (_, scope) in sight.caller.scopes() {
        let Some(most) = scope.max_sessions() else {
            continue;
        };
        let session = sight.session_in(scope);
        let known = book.has_session(scope.id, &session);
        let there = book.sessions(scope.id, &session);
        let fits = known || there < most;
        told.note(|| Look {
            rule: "max_sessions".to_owned(),
            figures: Some(Figures {
                used: Some(count(there)),
                ..Figures::new(Quantity::Sessions, i64::from(!known), count(most))
            }),
            ..look(
                Some(scope),
                if fits {
                    Verdict::Passes
                } else {
                    Verdict::Refuses
                },
            )
        });
        if !fits {
            return Err(Refusal::CapabilityNotAllowed {
                capability: "another session (max_sessions)".to_owned(),
            });
        }
    }
    Ok(())
}

fn key_of(scope: ScopeId, bound: &Bound<'_>) -> LiveKey {
    match bound.subject {
        Subject::All => LiveKey::Scope(scope),
        part => LiveKey::Part(scope, part.clone()),
    }
}

/// Requests at once: each scope's own limit, and the share of its parent's that one child may have.
pub(super) fn check_parallel(sight: Sight<'_>, told: &mut Told<'_>) -> Result<(), Refusal> {
    let around = sight.around;
    for (at, scope, limit) in sight.bounds() {
        if limit.what != Quantity::Parallel {
            continue;
        }
        let live = around.book.live(&key_of(scope.id, &limit));
        let open = live.map_or(0, |live| live.open);
        let in_all = || Figures {
            used: Some(count(open)),
            ..figures(&limit, 1)
        };
        let share = child_share(sight, at, &limit);
        let of_child = |(open, most): (u64, u64)| Figures {
            used: Some(count(open)),
            ..Figures::new(limit.what, 1, count(most))
        };
        let stops = told.stops(scope, &limit, open < limit.most, in_all)
            || share.is_some_and(|share| {
                let rule = || format!("max_held of {}", limit.key());
                told.stops_as(rule, scope, &limit, share.0 < share.1, || of_child(share))
            });
        if stops {
            let limit = limit.most;
            return Err(sight.caller.by(at, Refusal::ConcurrencyLimit { limit }));
        }
    }
    Ok(())
}

/// How many slots the child of the scope at `at` has, and how many it may have. One it always may.
fn child_share(sight: Sight<'_>, at: usize, limit: &Bound<'_>) -> Option<(u64, u64)> {
    let path = &sight.caller.path;
    let (child, scope) = (path.get(at.checked_sub(1)?)?, path.get(at)?);
    let percent = scope.grant.settings.max_held_percent?;
    let most = limit.most.saturating_mul(percent) / 100;
    (*limit.subject == Subject::All).then(|| (sight.around.open(child.id), most.max(1)))
}

pub(super) fn check_request_rates(sight: Sight<'_>, told: &mut Told<'_>) -> Result<(), Refusal> {
    let now_boot_ms = sight.now.boot_ms;
    let idle = Live::default();
    let refusal = |live: &Live, limit: u64| Refusal::RequestRate {
        limit,
        retry_after_ms: live.requests.wait_ms(now_boot_ms, 1),
    };
    for (at, scope, limit) in sight.bounds() {
        if (limit.what, limit.span) != (Quantity::Requests, Span::Minute) {
            continue;
        }
        let live = sight.around.book.live(&key_of(scope.id, &limit));
        let live = live.unwrap_or(&idle);
        let used = live.requests_used();
        let seen = || Figures {
            used: Some(count(used)),
            retry_after_ms: (used >= limit.most).then(|| live.requests.wait_ms(now_boot_ms, 1)),
            ..figures(&limit, 1)
        };
        if told.stops(scope, &limit, used < limit.most, seen) {
            return Err(sight.caller.by(at, refusal(live, limit.most)));
        }
    }
    let Some(limit) = sight.model.max_requests_per_minute else {
        return Ok(());
    };
    let live = LiveKey::Model(sight.model.name.to_owned());
    let live = sight.around.book.live(&live).unwrap_or(&idle);
    let used = live.requests_used();
    of_model(told, sight, "requests/minute", used < limit, || Figures {
        used: Some(count(used)),
        ..Figures::new(Quantity::Requests, 1, count(limit))
    });
    if used >= limit {
        return Err(of_all(refusal(live, limit)));
    }
    Ok(())
}

/// Answers the caps with what the windows leave to a request that has none of its own.
pub(super) fn check_token_rates(
    sight: Sight<'_>,
    ask: &Ask<'_>,
    told: &mut Told<'_>,
) -> Result<Caps, Stop> {
    let mut caps = ask.caps;
    let idle = Live::default();
    let needed = ask.tokens(ask.caps.least);
    let refusal = |live: &Live, limit: u64, remaining: u64| Refusal::TokenRate {
        limit,
        remaining,
        retry_after_ms: live.tokens.wait_ms(sight.now.boot_ms, needed - remaining),
        never: needed > limit,
    };
    let mut leave = |remaining: u64| {
        let left = (remaining - ask.input_tokens) / ask.choices().max(1);
        caps.most = caps.most.min(left).max(caps.least);
    };
    for (at, scope, limit) in sight.bounds() {
        if (limit.what, limit.span) != (Quantity::Tokens, Span::Minute) {
            continue;
        }
        let live = sight.around.book.live(&key_of(scope.id, &limit));
        let live = live.unwrap_or(&idle);
        let remaining = limit.most.saturating_sub(live.tokens_used());
        let fits = needed <= remaining;
        let seen = || of_tokens(live, limit.most, needed, sight.now.boot_ms);
        if told.stops(scope, &limit, fits, seen) {
            let refusal = sight.caller.by(at, refusal(live, limit.most, remaining));
            return Err(Stop::TooLong(refusal));
        }
        if fits && limit.mode == Mode::Enforce {
            leave(remaining);
        }
    }
    if let Some(limit) = sight.model.max_tokens_per_minute {
        let live = LiveKey::Model(sight.model.name.to_owned());
        let live = sight.around.book.live(&live).unwrap_or(&idle);
        let remaining = limit.saturating_sub(live.tokens_used());
        of_model(told, sight, "tokens/minute", needed <= remaining, || {
            of_tokens(live, limit, needed, sight.now.boot_ms)
        });
        if needed > remaining {
            let refusal = of_all(refusal(live, limit, remaining));
            return Err(Stop::TooLong(refusal));
        }
        leave(remaining);
    }
    Ok(caps)
}

/// By a limit that all agents share: what others have used is not the token's to know.
fn of_all(refusal: Refusal) -> Refusal {
    Refusal::Above {
        scope: ScopeKind::Kernel,
        why: Box::new(refusal),
    }
}

/// Figures of a window of tokens.
fn of_tokens(live: &Live, limit: u64, needed: u64, now_boot_ms: u64) -> Figures {
    let remaining = limit.saturating_sub(live.tokens_used());
    let short = needed.saturating_sub(remaining);
    Figures {
        used: Some(count(live.tokens.sum())),
        held: Some(count(live.open_tokens)),
        retry_after_ms: (short > 0 && needed <= limit)
            .then(|| live.tokens.wait_ms(now_boot_ms, short)),
        ..Figures::new(Quantity::Tokens, count(needed), count(limit))
    }
}

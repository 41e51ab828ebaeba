//! What an ended exchange costs, as the table in docs/LEDGER.md has it.

use aex_admin_proto::egress::{Ending, Exchange, Failure};
use aex_admin_proto::worker::{Basis, Observed, OnDisconnect, Usage, UsageSeen};

use super::Hold;

pub(super) enum Verdict {
    Commit {
        pico: i128,
        basis: Basis,
        tokens: u64,
    },
    Release {
        sent: bool,
    },
    AwaitReceipt,
}

fn not_billed(status: Option<u16>) -> bool {
    status.is_some_and(|status| (400..500).contains(&status) || [500, 503, 529].contains(&status))
}

pub(super) fn judge(
    hold: &Hold,
    seen: &Observed,
    receipt: Option<&Ending>,
    on_disconnect: OnDisconnect,
) -> Verdict {
    let unsent = [
        Failure::Connect,
        Failure::Tls,
        Failure::NotConfigured,
        Failure::Ticket,
    ];
    // The egress went away with it: its journal alone knows.
    let is_untold = seen.status.is_none() && seen.failure == Some(Failure::EgressGone);
    let wants_all_back = is_untold
        || not_billed(seen.status)
        || seen
            .failure
            .is_some_and(|failure| unsent.contains(&failure))
        || (seen.status.is_none() && seen.failure.is_none());
    match receipt {
        None | Some(Ending::Opened { .. }) if wants_all_back => Verdict::AwaitReceipt,
        Some(ending) if wants_all_back => by_receipt(hold, ending),
        Some(Ending::Ended(exchange)) if contradicts(exchange, seen.status, seen.complete) => {
            ceiling(hold)
        }
        _ => by_worker(hold, seen, on_disconnect),
    }
}

pub(super) fn by_receipt(hold: &Hold, ending: &Ending) -> Verdict {
    match ending {
        Ending::Opened { .. } => Verdict::AwaitReceipt,
        Ending::Voided => Verdict::Release { sent: false },
        // Tried in vain, with no other target: that keeps its slot in the rates.
        Ending::Ended(exchange) if !exchange.sent => Verdict::Release { sent: true },
        Ending::Ended(exchange) if not_billed(exchange.status) => Verdict::Release { sent: true },
        Ending::Ended(_) | Ending::Unknown => ceiling(hold),
    }
}

pub(super) fn contradicts(exchange: &Exchange, status: Option<u16>, complete: bool) -> bool {
    let less_came = complete && !exchange.complete;
    exchange.sent && (exchange.status != status || less_came)
}

fn ceiling(hold: &Hold) -> Verdict {
    Verdict::Commit {
        pico: hold.pico,
        basis: Basis::Ceiling,
        tokens: hold.tokens(),
    }
}

fn by_worker(hold: &Hold, seen: &Observed, on_disconnect: OnDisconnect) -> Verdict {
    let answered = matches!(seen.status, Some(200..300));
    let hidden = hold.model.hidden_output;
    if answered && !seen.complete {
        let hung_up = seen.failure == Some(Failure::WorkerGone);
        if hung_up && on_disconnect == OnDisconnect::Abort && !hidden {
            let reported = match seen.usage {
                UsageSeen::Reported(usage) => usage.output,
                UsageSeen::Missing | UsageSeen::Unreadable => 0,
            };
            // 32 tokens a choice that nobody saw.
            let seen = reported.max(seen.own_output_tokens);
            return estimate(hold, seen + 32 * hold.choices());
        }
        return ceiling(hold);
    }
    match seen.usage {
        _ if !answered => ceiling(hold),
        UsageSeen::Reported(usage) => reported(hold, seen, usage),
        UsageSeen::Missing if !hidden => estimate(hold, seen.own_output_tokens),
        UsageSeen::Missing | UsageSeen::Unreadable => ceiling(hold),
    }
}

/// Own counts, never above the hold.
fn estimate(hold: &Hold, output: u64) -> Verdict {
    let Some(price) = hold.model.price else {
        return ceiling(hold);
    };
    let output = output.min(hold.output_tokens());
    let dearest = price.input.max(price.cached).max(price.cache_write);
    Verdict::Commit {
        pico: dearest * i128::from(hold.input_tokens) + price.output * i128::from(output),
        basis: Basis::Estimated,
        tokens: hold.input_tokens + output,
    }
}

fn reported(hold: &Hold, seen: &Observed, usage: Usage) -> Verdict {
    let of_one = hold.choices() > 1 && !hold.model.counts_choices && usage.output <= hold.cap;
    let (output, basis) = match seen.usage_chunks {
        _ if !of_one => (usage.output, Basis::Exact),
        Some(chunks) if chunks.count == hold.choices() => {
            (chunks.output.max(usage.output), Basis::Exact)
        }
        _ => {
            let all = if hold.model.hidden_output {
                hold.output_tokens()
            } else {
                seen.own_output_tokens.min(hold.output_tokens())
            };
            (all.max(usage.output), Basis::Estimated)
        }
    };
    match cost(hold, Usage { output, ..usage }) {
        Some(pico) => Verdict::Commit {
            pico,
            basis,
            tokens: usage.prompt + output,
        },
        None => ceiling(hold),
    }
}

/// Nothing for a usage that cannot be believed.
fn cost(hold: &Hold, usage: Usage) -> Option<i128> {
    let price = hold.model.price?;
    if usage.prompt > 100_000_000 || usage.output > 100_000_000 {
        return None;
    }
    let plain = i128::from(usage.prompt) - i128::from(usage.cached) - i128::from(usage.cache_write);
    let cost = price.input * plain
        + price.cached * i128::from(usage.cached)
        + price.cache_write * i128::from(usage.cache_write)
        + price.output * i128::from(usage.output);
    (plain >= 0).then_some(cost)
}

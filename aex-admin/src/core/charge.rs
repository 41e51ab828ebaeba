//! What an ended exchange costs: the provider's usage, an own count, the whole hold, or nothing.
//!
//! A worker says what it saw; the egress's receipt says what really went over the wire. Money is
//! given back only on the receipt's word, and a claim that the receipt contradicts costs the whole
//! hold.

use aex_admin_proto::egress::{Ending, Exchange, Failure};
use aex_admin_proto::worker::{Basis, Observed, OnDisconnect, Usage, UsageSeen};

use super::hold::Terms;

/// How a hold ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Commit(Charge),
    /// Given back whole. `sent`: the provider saw the request, which keeps its slot in RPM.
    Release {
        sent: bool,
    },
    /// Giving it back needs the egress's receipt, which is not here yet.
    AwaitReceipt,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    pub cost_pico: i64,
    pub basis: Basis,
    pub usage: Option<Usage>,
    /// Tokens that count in a TPM window.
    pub tokens: u64,
    /// Why it is not exact, for the ledger.
    pub reason: Option<&'static str>,
}

/// What a provider may generate of each choice before it notices that its stream was ended: a third of
/// a second of a fast one.
const UNSEEN_TOKENS: u64 = 32;

/// The provider refused before it generated anything: these statuses are not billed.
fn refused(status: u16) -> bool {
    matches!(status, 400..=499 | 500 | 501 | 503 | 529)
}

/// Judges what a worker reported, against the receipt if it is here.
#[must_use]
pub fn judge(terms: &Terms, seen: &Observed, receipt: Option<&Ending>) -> Verdict {
    let unsent = matches!(
        seen.failure,
        Some(Failure::Connect | Failure::Tls | Failure::NotConfigured | Failure::Ticket)
    );
    // The egress went away with the request in hand: only its journal knows whether it was sent.
    let untold = seen.status.is_none() && seen.failure == Some(Failure::EgressGone);
    let wants_release =
        unsent || untold || seen.status.is_some_and(refused) || never_dispatched(seen);
    if wants_release {
        return match receipt {
            None | Some(Ending::Opened { .. }) => Verdict::AwaitReceipt,
            Some(ending) => by_receipt(terms, ending),
        };
    }
    if let Some(Ending::Ended(exchange)) = receipt
        && contradicts(exchange, seen)
    {
        return ceiling(terms, "the receipt contradicts the worker");
    }
    Verdict::Commit(charge(terms, seen))
}

/// The worker gave up before it handed the request to the egress.
fn never_dispatched(seen: &Observed) -> bool {
    seen.status.is_none() && seen.failure.is_none()
}

/// Judges by the receipt alone: the worker is gone, or asked for its money back.
#[must_use]
pub fn by_receipt(terms: &Terms, ending: &Ending) -> Verdict {
    match ending {
        Ending::Voided => Verdict::Release { sent: false },
        Ending::Ended(exchange) if !exchange.sent => Verdict::Release { sent: false },
        Ending::Ended(exchange) if exchange.status.is_some_and(refused) => {
            Verdict::Release { sent: true }
        }
        Ending::Ended(_) => ceiling(terms, "ended without the provider's usage"),
        Ending::Unknown => ceiling(terms, "nobody knows whether it was sent"),
        Ending::Opened { .. } => Verdict::AwaitReceipt,
    }
}

/// Whether a settle that was booked as `status`, `complete` is contradicted by a later receipt.
#[must_use]
pub fn contradicts_booked(exchange: &Exchange, status: Option<u16>, complete: bool) -> bool {
    exchange.sent && (exchange.status != status || (complete && !exchange.complete))
}

fn contradicts(exchange: &Exchange, seen: &Observed) -> bool {
    contradicts_booked(exchange, seen.status, seen.complete)
}

fn charge(terms: &Terms, seen: &Observed) -> Charge {
    let answered = seen
        .status
        .is_some_and(|status| (200..300).contains(&status));
    if !answered {
        return whole(terms, "no answer of the provider");
    }
    let told = seen.complete && matches!(seen.usage, UsageSeen::Reported(_));
    if seen.outran && !told {
        return outran(terms, seen.own_output_tokens);
    }
    if !seen.complete {
        let aborted =
            seen.failure == Some(Failure::WorkerGone) && terms.on_disconnect == OnDisconnect::Abort;
        return if aborted && !terms.hidden_output {
            let counted = match seen.usage {
                UsageSeen::Reported(usage) => usage.output.max(seen.own_output_tokens),
                _ => seen.own_output_tokens,
            };
            let unseen = UNSEEN_TOKENS.saturating_mul(terms.choices);
            let generated = counted.saturating_add(unseen);
            estimate(terms, generated, "hung up, and the answer was ended")
        } else {
            whole(terms, "the answer was cut")
        };
    }
    match seen.usage {
        UsageSeen::Reported(usage) => reported(terms, seen, usage),
        UsageSeen::Unreadable => whole(terms, "the usage is unreadable"),
        UsageSeen::Missing if terms.hidden_output && terms.route.generates() => {
            whole(terms, "no usage, and the model may hide output")
        }
        UsageSeen::Missing => estimate(terms, seen.own_output_tokens, "no usage"),
    }
}

/// The provider's usage. Some servers count each choice of several by itself (llama.cpp): a stream
/// then has one usage a choice, to be added; a plain answer has that of one choice, and says nothing of
/// the others, so they are bounded by the visible output where there is no other, else by the hold. Of
/// several prompts it then tells one, and all of them are bounded as in the hold.
fn reported(terms: &Terms, seen: &Observed, usage: Usage) -> Charge {
    let may_be_of_one = terms.route.generates()
        && terms.choices > 1
        && !terms.counts_choices
        && usage.output <= terms.output_cap;
    let (output, reason) = match seen.usage_chunks {
        _ if !may_be_of_one => (usage.output, None),
        Some(chunks) if chunks.count == terms.choices => (chunks.output.max(usage.output), None),
        _ => {
            let all = if terms.hidden_output {
                terms.output_tokens()
            } else {
                seen.own_output_tokens.min(terms.output_tokens())
            };
            let reason = "the usage may be of one choice";
            (all.max(usage.output), Some(reason))
        }
    };
    let prompt = if may_be_of_one && terms.prompts > 1 {
        usage.prompt.max(terms.input_tokens)
    } else {
        usage.prompt
    };
    let counted = Usage {
        prompt,
        output,
        ..usage
    };
    let Some(cost_pico) = terms.price.cost_pico(&counted) else {
        return whole(terms, "the usage cannot be believed");
    };
    Charge {
        cost_pico,
        basis: if reason.is_some() {
            Basis::Estimated
        } else {
            Basis::Exact
        },
        usage: Some(usage),
        tokens: prompt.saturating_add(output),
        reason,
    }
}

/// Own counts, each an upper bound, never above the hold.
fn estimate(terms: &Terms, output_tokens: u64, reason: &'static str) -> Charge {
    let output = output_tokens.min(terms.output_tokens());
    let cost = terms.price.ceiling_pico(terms.input_tokens, output);
    Charge {
        cost_pico: cost.map_or(terms.hold_pico, |cost| cost.min(terms.hold_pico)),
        basis: Basis::Estimated,
        usage: None,
        tokens: terms.input_tokens.saturating_add(output),
        reason: Some(reason),
    }
}

fn whole(terms: &Terms, reason: &'static str) -> Charge {
    Charge {
        cost_pico: terms.hold_pico,
        basis: Basis::Ceiling,
        usage: None,
        tokens: terms.tokens(),
        reason: Some(reason),
    }
}

/// The answer showed more than it was granted, and nobody told its usage: the hold, and what came
/// above it.
fn outran(terms: &Terms, own_output_tokens: u64) -> Charge {
    let unseen = UNSEEN_TOKENS.saturating_mul(terms.choices);
    let output = own_output_tokens.saturating_add(unseen);
    let hold = whole(terms, "the answer outran its hold");
    match terms.price.ceiling_pico(terms.input_tokens, output) {
        Some(cost_pico) if cost_pico > hold.cost_pico => Charge {
            cost_pico,
            tokens: terms.input_tokens.saturating_add(output),
            ..hold
        },
        _ => hold,
    }
}

fn ceiling(terms: &Terms, reason: &'static str) -> Verdict {
    Verdict::Commit(whole(terms, reason))
}

#[cfg(test)]
mod tests;

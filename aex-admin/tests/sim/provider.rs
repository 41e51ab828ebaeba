//! The provider: how an exchange ends, what the worker sees of it, and the bill, which is the truth
//! that the ledger is held against.

use aex_admin_proto::egress::{Exchange, Failure};
use aex_admin_proto::worker::{Observed, OnDisconnect, Usage, UsageChunks, UsageSeen};

use crate::rng::Rng;
use crate::setup::{ModelFact, Prices};

/// What was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) model: &'static ModelFact,
    /// Most tokens of the prompt.
    pub(crate) input_tokens: u64,
    pub(crate) cap: u64,
    pub(crate) choices: u64,
    pub(crate) stream: bool,
    /// The answer's head has been seen.
    pub(crate) head_seen: bool,
    pub(crate) on_disconnect: OnDisconnect,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// As an honest worker tells it.
    pub(crate) observed: Observed,
    /// As the egress tells it; `head_boot_ms` is the egress's to fill in.
    pub(crate) exchange: Exchange,
    pub(crate) bill_pico: i128,
}

impl Outcome {
    fn new(status: Option<u16>, failure: Option<Failure>, complete: bool) -> Self {
        Self {
            observed: Observed {
                status,
                failure,
                complete,
                ..Observed::default()
            },
            exchange: Exchange {
                sent: true,
                status,
                failure,
                complete,
                ..Exchange::default()
            },
            bill_pico: 0,
        }
    }

    /// Nothing went out.
    pub(crate) fn unsent(failure: Failure) -> Self {
        let mut outcome = Self::new(None, Some(failure), false);
        outcome.exchange.sent = false;
        outcome
    }
}

fn bill(price: Prices, usage: Usage) -> i128 {
    let plain = usage.prompt - usage.cached - usage.cache_write;
    price.input * i128::from(plain)
        + price.cached * i128::from(usage.cached)
        + price.cache_write * i128::from(usage.cache_write)
        + price.output * i128::from(usage.output)
}

fn prices(sent: &Sent) -> Prices {
    sent.model.price.unwrap()
}

/// What the provider really did, within what it was allowed.
fn truth(sent: &Sent, rng: &mut Rng) -> Usage {
    let prompt = rng.within(1, sent.input_tokens);
    let cached = rng.below(prompt + 1) * u64::from(rng.percent(30));
    let cache_write = rng.below(prompt - cached + 1) * u64::from(rng.percent(30));
    Usage {
        prompt,
        cached,
        cache_write,
        output: rng.within(0, sent.cap * sent.choices),
        reasoning: 0,
    }
}

pub(crate) fn answer(sent: &Sent, rng: &mut Rng) -> Outcome {
    if sent.head_seen {
        return match rng.below(10) {
            0..7 => complete(sent, rng),
            7 => cut(sent, Failure::Reset, rng),
            _ => hung_up(sent, rng),
        };
    }
    match rng.below(20) {
        0..11 => complete(sent, rng),
        11..13 => {
            let status = rng.pick(&[400, 429, 500, 503, 529]);
            Outcome::new(Some(status), None, true)
        }
        13 => {
            let status = rng.pick(&[502, 504, 520]);
            unclear(sent, Some(status), None, rng)
        }
        14 => Outcome::unsent(rng.pick(&[Failure::Connect, Failure::Tls])),
        15 => unclear(sent, None, Some(Failure::Reset), rng),
        16 => unclear(sent, None, Some(Failure::RequestBody), rng),
        17 => cut(sent, Failure::Reset, rng),
        _ => hung_up(sent, rng),
    }
}

/// Nobody knows what was generated; at most what was held.
fn unclear(sent: &Sent, status: Option<u16>, failure: Option<Failure>, rng: &mut Rng) -> Outcome {
    Outcome {
        bill_pico: bill(prices(sent), truth(sent, rng)),
        ..Outcome::new(status, failure, failure.is_none())
    }
}

/// Cut before or after its head; the provider may bill all that it may have generated.
pub(crate) fn cut(sent: &Sent, failure: Failure, rng: &mut Rng) -> Outcome {
    let status = (sent.head_seen || rng.percent(50)).then_some(200);
    let mut outcome = unclear(sent, status, Some(failure), rng);
    outcome.observed.own_output_tokens = rng.below(sent.cap + 1);
    outcome
}

/// The egress is gone with the exchange: the worker sees its connection end, no more.
pub(crate) fn egress_gone(sent: &Sent, rng: &mut Rng) -> Outcome {
    let mut outcome = cut(sent, Failure::EgressGone, rng);
    outcome.observed.failure = None;
    outcome.observed.status = sent.head_seen.then_some(200);
    outcome
}

/// The client hung up. Where the answer is then ended, little was generated that nobody saw.
fn hung_up(sent: &Sent, rng: &mut Rng) -> Outcome {
    let mut usage = truth(sent, rng);
    let own = match sent.on_disconnect {
        OnDisconnect::Drain => rng.below(usage.output + 1),
        OnDisconnect::Abort => usage.output.saturating_sub(32 * sent.choices),
    };
    if sent.on_disconnect == OnDisconnect::Abort && !sent.model.hidden_output {
        usage.output = usage.output.min(own + rng.below(32 * sent.choices + 1));
    }
    let mut outcome = Outcome::new(Some(200), Some(Failure::WorkerGone), false);
    outcome.observed.own_output_tokens = own;
    outcome.bill_pico = bill(prices(sent), usage);
    outcome
}

fn complete(sent: &Sent, rng: &mut Rng) -> Outcome {
    let mut usage = truth(sent, rng);
    if rng.percent(4) {
        // A provider that does not keep to the cap.
        usage.output += sent.cap * sent.choices;
    }
    let mut outcome = Outcome::new(Some(200), None, true);
    outcome.bill_pico = bill(prices(sent), usage);
    let visible = if sent.model.hidden_output {
        usage.output / 2
    } else {
        usage.output + rng.below(40)
    };
    outcome.observed.own_output_tokens = visible;
    let overran = usage.output > sent.cap * sent.choices;
    match rng.below(10) {
        // Own counts cannot tell of more than was allowed.
        0 if !overran => outcome.observed.usage = UsageSeen::Missing,
        1 if !overran => outcome.observed.usage = UsageSeen::Unreadable,
        _ => outcome.observed.usage = UsageSeen::Reported(usage),
    }
    let counts_one = sent.choices > 1 && !sent.model.counts_choices && !overran;
    if counts_one && let UsageSeen::Reported(_) = outcome.observed.usage {
        count_one_choice(sent, usage, &mut outcome, rng);
    }
    outcome
}

/// A server that counts each choice by itself: a chunk for each, or that of one alone.
fn count_one_choice(sent: &Sent, usage: Usage, outcome: &mut Outcome, rng: &mut Rng) {
    let one = usage.output.div_ceil(sent.choices);
    outcome.observed.usage = UsageSeen::Reported(Usage {
        output: one,
        ..usage
    });
    let has_chunks = sent.stream && rng.percent(60);
    outcome.observed.usage_chunks = has_chunks.then_some(UsageChunks {
        count: sent.choices,
        output: usage.output,
    });
}

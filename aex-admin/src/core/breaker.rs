//! Circuit breakers: a target that fails again and again is left alone for a while, so that requests go
//! to another at once instead of waiting for its failure first. Pure: times are passed in.
//!
//! Closed, it is used. After [`FAILURES`] failures in a row, or a 429 that names a time, it is open, and
//! others are used before it. When its back-off is over one request at a time tries it (half-open): an
//! answer closes it, another failure opens it for twice as long.
//!
//! Absent on purpose: any refusal. A breaker changes an order ([`super::routing`]), never an answer.

use std::collections::HashMap;

use aex_admin_proto::egress::{Ending, Failure};
use aex_admin_proto::ticket::KeyMode;
use aex_admin_proto::worker::Observed;

/// So many failures in a row open it.
pub const FAILURES: u32 = 5;
const FIRST_BACK_OFF_MS: u64 = 1_000;
const LAST_BACK_OFF_MS: u64 = 60_000;
/// A probe of which nothing is heard for so long is given up for lost.
const PROBE_MS: u64 = 60_000;
/// Targets that are known to fail, at once. A configuration has fewer models than this.
const MAX_KNOWN: usize = 16_384;

/// What an ended attempt says of its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It answered, if only to refuse this request.
    Answered,
    /// It was not reached, did not answer in time, or said that it cannot.
    Failed,
    /// It asked to be left alone, perhaps for a time.
    Busy { retry_after_ms: Option<u64> },
    /// Nothing: it was never tried, or it was not the target that ended it.
    Nothing,
}

/// Whether a target with such a status may answer when it is asked again, or another in its place can.
#[must_use]
pub fn is_trouble(status: u16) -> bool {
    matches!(status, 408 | 429 | 500..=599)
}

impl Outcome {
    /// By what its worker saw; where it saw nothing, by the egress's receipt.
    #[must_use]
    pub fn of(seen: Option<&Observed>, receipt: Option<&Ending>) -> Self {
        if let Some(seen) = seen {
            let retry_after_ms = seen.retry_after_s.map(|seconds| u64::from(seconds) * 1000);
            // Nobody knows who broke off an answer that had begun.
            let begun = seen.status.is_some_and(|status| status < 300);
            return match (begun && !seen.complete, seen.failure) {
                (true, Some(Failure::Timeout)) => Self::Failed,
                (true, _) => Self::Nothing,
                (false, failure) => Self::from(seen.status, failure, retry_after_ms),
            };
        }
        match receipt {
            Some(Ending::Ended(exchange)) if exchange.complete || exchange.status.is_none() => {
                Self::from(exchange.status, exchange.failure, None)
            }
            _ => Self::Nothing,
        }
    }

    /// What it says of the target for everybody: a limit of an agent's own account is its own.
    #[must_use]
    pub fn under(self, key: KeyMode) -> Self {
        match (self, key) {
            (Self::Busy { .. }, KeyMode::Own) => Self::Nothing,
            (outcome, _) => outcome,
        }
    }

    fn from(status: Option<u16>, failure: Option<Failure>, retry_after_ms: Option<u64>) -> Self {
        match (status, failure) {
            (Some(429), _) => Self::Busy { retry_after_ms },
            (Some(status), _) if is_trouble(status) => Self::Failed,
            (Some(_), _) => Self::Answered,
            (None, Some(Failure::Connect | Failure::Tls | Failure::Reset | Failure::Timeout)) => {
                Self::Failed
            }
            (None, _) => Self::Nothing,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open {
        until_boot_ms: u64,
    },
    /// One request tries it.
    HalfOpen {
        since_boot_ms: u64,
    },
}

/// One target's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    state: State,
    /// Failures in a row.
    failures: u32,
    /// How long it is open when it opens next.
    back_off_ms: u64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            state: State::Closed,
            failures: 0,
            back_off_ms: FIRST_BACK_OFF_MS,
        }
    }
}

impl Breaker {
    /// Until when others are used before it; nothing when it may be used.
    #[must_use]
    pub fn open_until_boot_ms(&self, now_boot_ms: u64) -> Option<u64> {
        let until_boot_ms = match self.state {
            State::Closed => return None,
            State::Open { until_boot_ms } => until_boot_ms,
            State::HalfOpen { since_boot_ms } => since_boot_ms.saturating_add(PROBE_MS),
        };
        (now_boot_ms < until_boot_ms).then_some(until_boot_ms)
    }

    /// A request goes to it. After its back-off that is its probe.
    pub fn tried(&mut self, now_boot_ms: u64) {
        if self.state != State::Closed && self.open_until_boot_ms(now_boot_ms).is_none() {
            self.state = State::HalfOpen {
                since_boot_ms: now_boot_ms,
            };
        }
    }

    /// An attempt there has ended.
    pub fn heard(&mut self, outcome: Outcome, now_boot_ms: u64) {
        match outcome {
            Outcome::Answered => *self = Self::default(),
            Outcome::Failed => self.failed(now_boot_ms, None),
            Outcome::Busy { retry_after_ms } => self.failed(now_boot_ms, retry_after_ms),
            // A probe that told nothing leaves room for another.
            Outcome::Nothing => {
                if matches!(self.state, State::HalfOpen { .. }) {
                    self.state = State::Open {
                        until_boot_ms: now_boot_ms,
                    };
                }
            }
        }
    }

    fn failed(&mut self, now_boot_ms: u64, asked_ms: Option<u64>) {
        self.failures = self.failures.saturating_add(1);
        let until = |ms: u64| now_boot_ms.saturating_add(ms.min(LAST_BACK_OFF_MS));
        let backed_off = match self.state {
            // Those that were under way when it opened tell nothing new.
            State::Open { until_boot_ms } if now_boot_ms < until_boot_ms => Some(until_boot_ms),
            State::Closed if self.failures < FAILURES => None,
            State::Closed | State::Open { .. } | State::HalfOpen { .. } => {
                let back_off_ms = self.back_off_ms;
                self.back_off_ms = back_off_ms.saturating_mul(2).min(LAST_BACK_OFF_MS);
                Some(until(back_off_ms))
            }
        };
        if let Some(until_boot_ms) = backed_off.max(asked_ms.map(until)) {
            self.state = State::Open { until_boot_ms };
        }
    }

    /// Its state's name, for an operator.
    #[must_use]
    pub fn state(&self, now_boot_ms: u64) -> &'static str {
        match self.state {
            State::Closed => "closed",
            State::Open { .. } if self.open_until_boot_ms(now_boot_ms).is_some() => "open",
            State::Open { .. } | State::HalfOpen { .. } => "half_open",
        }
    }

    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    fn is_new(&self) -> bool {
        *self == Self::default()
    }
}

/// Those of all targets, by provider and upstream model. Only of targets that failed of late is anything
/// kept.
#[derive(Debug, Default)]
pub struct Breakers {
    known: HashMap<(String, String), Breaker>,
}

impl Breakers {
    fn of(&self, provider: &str, upstream_model: &str) -> Option<&Breaker> {
        if self.known.is_empty() {
            return None;
        }
        self.known
            .get(&(provider.to_owned(), upstream_model.to_owned()))
    }

    /// As [`Breaker::open_until_boot_ms`].
    #[must_use]
    pub fn open_until_boot_ms(
        &self,
        provider: &str,
        upstream_model: &str,
        now_boot_ms: u64,
    ) -> Option<u64> {
        self.of(provider, upstream_model)?
            .open_until_boot_ms(now_boot_ms)
    }

    /// As [`Breaker::tried`].
    pub fn tried(&mut self, provider: &str, upstream_model: &str, now_boot_ms: u64) {
        if self.known.is_empty() {
            return;
        }
        let key = (provider.to_owned(), upstream_model.to_owned());
        if let Some(breaker) = self.known.get_mut(&key) {
            breaker.tried(now_boot_ms);
        }
    }

    /// As [`Breaker::heard`].
    pub fn heard(
        &mut self,
        provider: &str,
        upstream_model: &str,
        outcome: Outcome,
        now_boot_ms: u64,
    ) {
        let fails = matches!(outcome, Outcome::Failed | Outcome::Busy { .. });
        if !fails && self.known.is_empty() {
            return;
        }
        let key = (provider.to_owned(), upstream_model.to_owned());
        let known = self.known.contains_key(&key);
        if !known && (!fails || self.known.len() >= MAX_KNOWN) {
            return;
        }
        let breaker = self.known.entry(key.clone()).or_default();
        breaker.heard(outcome, now_boot_ms);
        if breaker.is_new() {
            self.known.remove(&key);
        }
    }

    /// Provider, upstream model and breaker of each target that failed of late.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &Breaker)> {
        self.known
            .iter()
            .map(|((provider, model), breaker)| (provider.as_str(), model.as_str(), breaker))
    }
}

#[cfg(test)]
mod tests;

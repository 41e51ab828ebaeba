//! Prices and what tokens cost, in picodollars: 1 USD per million tokens = 1,000,000 pico a token.

use aex_admin_proto::worker::Usage;
use serde::{Deserialize, Serialize};

/// Picodollars in one micro-dollar.
pub const PICO_PER_MICRO: i64 = 1_000_000;

/// No price is above this: 1,000,000 USD per million tokens.
pub const MAX_PRICE_PICO: u64 = 1_000_000_000_000;

/// No fee of a request is above this: 1,000 USD.
pub const MAX_REQUEST_PICO: u64 = 1_000_000_000_000_000;

/// Tokens that no single request reaches; a larger count is not believed.
pub const MAX_TOKENS: u64 = 100_000_000;

/// Price terms of one model, frozen in each hold. Picodollars a token; `request_pico` a request.
///
/// A price without tiers and fee is written as it was before there were any: old events stay as they
/// are, and new ones read the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    pub input_pico: u64,
    pub cached_input_pico: u64,
    pub cache_write_pico: u64,
    pub output_pico: u64,
    /// What a longer prompt costs, by ascending thresholds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<Tier>,
    /// A fixed fee of each request that is billed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub request_pico: u64,
}

/// The rates of a whole request, its output too, whose prompt is longer than a threshold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    pub above_prompt_tokens: u64,
    pub input_pico: u64,
    pub cached_input_pico: u64,
    pub cache_write_pico: u64,
    pub output_pico: u64,
}

/// Picodollars a token that hold together.
#[derive(Debug, Clone, Copy)]
struct Rates {
    input: u64,
    cached_input: u64,
    cache_write: u64,
    output: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Price {
    pub const FREE: Self = Self {
        input_pico: 0,
        cached_input_pico: 0,
        cache_write_pico: 0,
        output_pico: 0,
        tiers: Vec::new(),
        request_pico: 0,
    };

    /// Nothing of it costs anything, whatever the prompt's length.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.request_pico == 0
            && self.dearest_input_pico(u64::MAX) == 0
            && self.dearest_output_pico(u64::MAX) == 0
    }

    /// The dearest that an input token of a prompt of at most `prompt_tokens` can be.
    #[must_use]
    pub fn dearest_input_pico(&self, prompt_tokens: u64) -> u64 {
        self.reachable(prompt_tokens)
            .map(|rates| rates.input.max(rates.cached_input).max(rates.cache_write))
            .fold(0, u64::max)
    }

    /// The dearest that an output token can be after a prompt of at most `prompt_tokens`.
    #[must_use]
    pub fn dearest_output_pico(&self, prompt_tokens: u64) -> u64 {
        self.reachable(prompt_tokens)
            .map(|rates| rates.output)
            .fold(0, u64::max)
    }

    /// Upper bound for at most `input_tokens` in and `output_tokens` out; nothing when it passes what
    /// the ledger can hold.
    #[must_use]
    pub fn ceiling_pico(&self, input_tokens: u64, output_tokens: u64) -> Option<i64> {
        self.sum([
            (input_tokens, self.dearest_input_pico(input_tokens)),
            (output_tokens, self.dearest_output_pico(input_tokens)),
        ])
    }

    /// Exact cost of a usage, by the tier that its prompt reached; nothing when the usage cannot be
    /// believed (parts above their whole, or absurd numbers).
    #[must_use]
    pub fn cost_pico(&self, usage: &Usage) -> Option<i64> {
        let parts = usage.cached.checked_add(usage.cache_write)?;
        let plain = usage.prompt.checked_sub(parts)?;
        if usage.prompt > MAX_TOKENS || usage.output > MAX_TOKENS {
            return None;
        }
        let rates = self.reachable(usage.prompt).last()?;
        self.sum([
            (plain, rates.input),
            (usage.cached, rates.cached_input),
            (usage.cache_write, rates.cache_write),
            (usage.output, rates.output),
        ])
    }

    /// The base rates, and those of each tier that a prompt of at most `prompt_tokens` may reach. The
    /// last are those of a prompt of just that length.
    fn reachable(&self, prompt_tokens: u64) -> impl Iterator<Item = Rates> {
        let base = Rates {
            input: self.input_pico,
            cached_input: self.cached_input_pico,
            cache_write: self.cache_write_pico,
            output: self.output_pico,
        };
        let tiers = self
            .tiers
            .iter()
            .filter(move |tier| prompt_tokens > tier.above_prompt_tokens)
            .map(|tier| Rates {
                input: tier.input_pico,
                cached_input: tier.cached_input_pico,
                cache_write: tier.cache_write_pico,
                output: tier.output_pico,
            });
        std::iter::once(base).chain(tiers)
    }

    /// Tokens at their rates, and the fee.
    fn sum<const N: usize>(&self, lines: [(u64, u64); N]) -> Option<i64> {
        let total =
            lines
                .into_iter()
                .try_fold(u128::from(self.request_pico), |sum, (tokens, pico)| {
                    sum.checked_add(u128::from(tokens).checked_mul(u128::from(pico))?)
                })?;
        i64::try_from(total).ok()
    }
}

#[cfg(test)]
mod tests;

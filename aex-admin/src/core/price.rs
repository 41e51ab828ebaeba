//! Prices and what tokens cost, in picodollars: 1 USD per million tokens = 1,000,000 pico a token.

use aex_admin_proto::worker::Usage;
use serde::{Deserialize, Serialize};

/// Picodollars in one micro-dollar.
pub const PICO_PER_MICRO: i64 = 1_000_000;

/// No price is above this: 1,000,000 USD per million tokens.
pub const MAX_PRICE_PICO: u64 = 1_000_000_000_000;

/// Tokens that no single request reaches; a larger count is not believed.
pub const MAX_TOKENS: u64 = 100_000_000;

/// Price terms of one model, frozen in each hold. Picodollars a token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    pub input_pico: u64,
    pub cached_input_pico: u64,
    pub cache_write_pico: u64,
    pub output_pico: u64,
}

impl Price {
    pub const FREE: Self = Self {
        input_pico: 0,
        cached_input_pico: 0,
        cache_write_pico: 0,
        output_pico: 0,
    };

    #[must_use]
    pub fn is_free(&self) -> bool {
        *self == Self::FREE
    }

    /// The dearest that an input token can be.
    #[must_use]
    pub fn dearest_input_pico(&self) -> u64 {
        self.input_pico
            .max(self.cache_write_pico)
            .max(self.cached_input_pico)
    }

    /// Upper bound for `input_tokens` in and `output_tokens` out; nothing when it passes what the
    /// ledger can hold.
    #[must_use]
    pub fn ceiling_pico(&self, input_tokens: u64, output_tokens: u64) -> Option<i64> {
        let input = u128::from(self.dearest_input_pico()).checked_mul(u128::from(input_tokens))?;
        let output = u128::from(self.output_pico).checked_mul(u128::from(output_tokens))?;
        i64::try_from(input.checked_add(output)?).ok()
    }

    /// Exact cost of a usage; nothing when the usage cannot be believed (parts above their whole, or
    /// absurd numbers).
    #[must_use]
    pub fn cost_pico(&self, usage: &Usage) -> Option<i64> {
        let parts = usage.cached.checked_add(usage.cache_write)?;
        let plain = usage.prompt.checked_sub(parts)?;
        if usage.prompt > MAX_TOKENS || usage.output > MAX_TOKENS {
            return None;
        }
        let cost = [
            (plain, self.input_pico),
            (usage.cached, self.cached_input_pico),
            (usage.cache_write, self.cache_write_pico),
            (usage.output, self.output_pico),
        ]
        .into_iter()
        .try_fold(0u128, |sum, (tokens, pico)| {
            sum.checked_add(u128::from(tokens).checked_mul(u128::from(pico))?)
        })?;
        i64::try_from(cost).ok()
    }
}

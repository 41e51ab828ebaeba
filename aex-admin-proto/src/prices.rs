//! What is known of prices: the answers of `aex-admin prices-list`, `prices-show` and `prices-import`,
//! one JSON document each, which `aex prices` prints. Picodollars: 1 USD per million tokens is
//! 1,000,000 a token.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceList {
    /// Version of the shipped catalogue.
    pub shipped_version: String,
    /// Version of the operator's own prices.yaml, and its path; absent when there is none.
    pub own_version: Option<String>,
    pub own_file: Option<String>,
    pub models: Vec<PriceView>,
}

/// One model of the catalogue that is in force. What models.yaml says itself comes before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceView {
    pub provider: String,
    /// The provider's own name for it.
    pub model: String,
    /// Further names of the provider's, and names for models.yaml.
    pub snapshots: Vec<String>,
    pub aliases: Vec<String>,
    pub rates: RatesView,
    /// By ascending thresholds.
    pub tiers: Vec<TierView>,
    /// Of each request that is billed.
    pub request_pico: u64,
    /// It makes embeddings alone.
    pub embeds_only: bool,
    pub max_output_tokens: Option<u64>,
    pub context_window: Option<u64>,
    pub hidden_output: bool,
    pub tokenizer: Option<String>,
    /// The most that one image can cost; absent: images are refused.
    pub image_tokens: Option<u64>,
    pub template_tokens: u64,
    pub message_tokens: u64,
    pub tool_factor: u64,
    /// Where the facts are from, when they were taken, and what the ledger records.
    pub source: String,
    pub date: String,
    pub version: String,
    /// Free of charge at every length: such a model counts against no budget.
    pub free: bool,
}

/// Picodollars a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RatesView {
    pub input_pico: u64,
    pub cached_input_pico: u64,
    pub cache_write_pico: u64,
    /// Absent for embeddings.
    pub output_pico: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierView {
    pub above_prompt_tokens: u64,
    #[serde(flatten)]
    pub rates: RatesView,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportReport {
    /// What was read, and what was written.
    pub from: String,
    pub file: String,
    pub version: String,
    /// Where the prices.yaml was put that was there, if no import had written it.
    pub kept: Option<String>,
    pub taken: u64,
    pub left_out: LeftOut,
    /// Names of entries that cannot be read, and why; the first ones.
    pub unreadable: Vec<String>,
}

/// How many entries were left out, by why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Of a provider that the catalogue does not know.
    pub other_provider: u64,
    /// Neither chat, completions, responses nor embeddings.
    pub other_mode: u64,
    /// Without a price, or with none but zeros.
    pub no_price: u64,
    /// Billed by more than tokens and requests: searches, seconds, images made.
    pub more_than_tokens: u64,
    /// The same model with the same terms under another key.
    pub repeated: u64,
    /// Not of the form that is known, or two entries of one model that differ.
    pub unreadable: u64,
}

impl LeftOut {
    #[must_use]
    pub fn total(&self) -> u64 {
        [
            self.other_provider,
            self.other_mode,
            self.no_price,
            self.more_than_tokens,
            self.repeated,
            self.unreadable,
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }
}

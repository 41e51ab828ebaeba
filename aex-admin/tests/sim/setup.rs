//! What is fixed in a run: the configuration, as the core reads it and, written down a second time by
//! hand, as the naive model knows it.

use std::sync::Arc;

use aex_admin::config::{Catalogue, Config, parse};
use aex_admin_proto::worker::OnDisconnect;

const PROVIDERS: &str = "
providers:
  near: { base_url: 'http://127.0.0.1:1/v1', request_timeout: 60s }
  far: { base_url: 'https://far.example/v1', request_timeout: 90s, counts_choices: true, keys: operator, extra_params: [beta] }
models:
  plain: { provider: near, hidden_output: false, price: { input_per_mtok: 0.01, output_per_mtok: 0.1 } }
  slow: { provider: near, hidden_output: false, price: { input_per_mtok: 0.5, output_per_mtok: 1.5 }, limits: { max_requests_per_minute: 6, max_tokens_per_minute: 6000 } }
  dust: { provider: near, hidden_output: false, price: { input_per_mtok: 0.000007, output_per_mtok: 0.00039 } }
  free: { provider: near, hidden_output: false, price: free }
  dear: { provider: far, hidden_output: true, max_output_tokens: 2000, context_window: 8000, tokenizer: o200k_base,
    price: { input_per_mtok: 3, cached_input_per_mtok: 0.3, cache_write_per_mtok: 3.75, output_per_mtok: 15 } }
  blank: { provider: far }
limits: { max_output_tokens: 3000 }
default_output_tokens: 1024
min_output_tokens: 16
";

pub(crate) const DEFAULT_OUTPUT: u64 = 1024;
pub(crate) const MIN_OUTPUT: u64 = 16;
/// `limits.max_output_tokens`: of agents that have none of their own.
pub(crate) const AGENT_MAX_OUTPUT: u64 = 3000;

/// What differs from run to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Variant {
    pub(crate) on_disconnect: OnDisconnect,
    pub(crate) hold_wait_ms: u64,
    /// How long an ask may wait for somebody else's lock.
    pub(crate) lock_wait_ms: u64,
}

impl Variant {
    pub(crate) fn of(seed: u64) -> Self {
        Self {
            on_disconnect: if seed.is_multiple_of(4) {
                OnDisconnect::Abort
            } else {
                OnDisconnect::Drain
            },
            lock_wait_ms: [0, 300][usize::try_from(seed / 2 % 2).unwrap()],
            hold_wait_ms: [2_000, 2_000, 30_000, 0][usize::try_from(seed / 4 % 4).unwrap()],
        }
    }

    pub(crate) fn config(self) -> Arc<Config> {
        let word = match self.on_disconnect {
            OnDisconnect::Drain => "drain",
            OnDisconnect::Abort => "abort",
        };
        let (hold_wait_ms, lock_wait_ms) = (self.hold_wait_ms, self.lock_wait_ms);
        let text = format!(
            "{PROVIDERS}hold_wait: {hold_wait_ms}ms\nlock_wait: {lock_wait_ms}ms\non_disconnect: {word}\n"
        );
        Arc::new(parse(&text, Catalogue::builtin()).unwrap().0)
    }
}

/// One model as the naive model knows it. Prices in picodollars a token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ModelFact {
    pub(crate) name: &'static str,
    pub(crate) provider: &'static str,
    pub(crate) price: Option<Prices>,
    pub(crate) hidden_output: bool,
    pub(crate) counts_choices: bool,
    pub(crate) max_output: Option<u64>,
    pub(crate) context_window: Option<u64>,
    /// By how much a byte beyond ASCII may grow; not at all where the tokenizer is known, and a worker
    /// can count with it.
    pub(crate) growth: u64,
    pub(crate) rpm: Option<u64>,
    pub(crate) tpm: Option<u64>,
    pub(crate) loopback: bool,
    pub(crate) timeout_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prices {
    pub(crate) input: i128,
    pub(crate) cached: i128,
    pub(crate) cache_write: i128,
    pub(crate) output: i128,
}

const fn flat(input: i128, output: i128) -> Option<Prices> {
    Some(Prices {
        input,
        cached: input,
        cache_write: input,
        output,
    })
}

const NEAR: ModelFact = ModelFact {
    name: "",
    provider: "near",
    price: None,
    hidden_output: false,
    counts_choices: false,
    max_output: None,
    context_window: None,
    growth: 3,
    rpm: None,
    tpm: None,
    loopback: true,
    timeout_ms: 60_000,
};

const FAR: ModelFact = ModelFact {
    provider: "far",
    hidden_output: true,
    counts_choices: true,
    loopback: false,
    timeout_ms: 90_000,
    ..NEAR
};

pub(crate) const MODELS: [ModelFact; 6] = [
    ModelFact {
        name: "plain",
        price: flat(10_000, 100_000),
        ..NEAR
    },
    ModelFact {
        name: "slow",
        price: flat(500_000, 1_500_000),
        rpm: Some(6),
        tpm: Some(6000),
        ..NEAR
    },
    ModelFact {
        name: "dust",
        price: flat(7, 390),
        ..NEAR
    },
    ModelFact {
        name: "free",
        price: flat(0, 0),
        ..NEAR
    },
    ModelFact {
        name: "dear",
        price: Some(Prices {
            input: 3_000_000,
            cached: 300_000,
            cache_write: 3_750_000,
            output: 15_000_000,
        }),
        max_output: Some(2000),
        context_window: Some(8000),
        growth: 1,
        ..FAR
    },
    ModelFact {
        name: "blank",
        ..FAR
    },
];

pub(crate) fn model(name: &str) -> Option<&'static ModelFact> {
    MODELS.iter().find(|model| model.name == name)
}

/// Parameters that `far` takes beyond the known ones.
pub(crate) const EXTRA_PARAM: &str = "beta";

//! A configuration that has been checked: what the rest of `aex-admin` works with.

use std::collections::BTreeMap;

use aex_admin_proto::egress::{KeyPolicy, ProviderConfig};
use aex_admin_proto::worker::OnDisconnect;

use jiff::tz::TimeZone;

use super::FileDigests;
use crate::core::price::Price;
use crate::core::routing::Routing;
pub use crate::core::scope::DefaultLimits;

/// models.yaml, checked, with every default filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// By name.
    pub providers: BTreeMap<String, Provider>,
    /// By the name that agents use. Each one's provider is in `providers`.
    pub models: BTreeMap<String, Model>,
    /// Defaults of each agent; its own option replaces them.
    pub limits: DefaultLimits,
    /// In which calendar periods are counted where no scope says otherwise.
    pub time_zone: TimeZone,
    /// How long a request may wait for money that is held; 0: not at all.
    pub hold_wait_ms: u64,
    pub drain_timeout_ms: u64,
    pub on_disconnect: OnDisconnect,
    /// The most that a request without an output cap of its own gets.
    pub default_output_tokens: u64,
    /// Below this such a request waits while money is held.
    pub min_output_tokens: u64,
    pub max_body_bytes: u64,
    pub lock_wait_ms: u64,
    /// What it was read from; none of a text that is no file's.
    pub files: Option<FileDigests>,
}

impl Config {
    /// No provider is used with a key of the operator's: what a kernel whose own scope requires agents'
    /// keys comes to.
    #[must_use]
    pub fn strict_byok(mut self) -> Self {
        for provider in self.providers.values_mut() {
            provider.keys = KeyPolicy::Passthrough;
        }
        self
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    pub name: String,
    /// Scheme, host, optional port and path, without a trailing slash.
    pub base_url: String,
    /// The host is 127/8, ::1 or localhost.
    pub loopback: bool,
    pub keys: KeyPolicy,
    /// Absolute path of a PEM file whose certificates alone are trusted.
    pub ca_file: Option<String>,
    pub connect_timeout_ms: u64,
    pub request_timeout_ms: u64,
    /// How long an answer's head is waited for where another target can be tried instead. Absent: as long
    /// as the request may take.
    pub first_byte_timeout_ms: Option<u64>,
    /// Parameters let through beyond the known ones.
    pub extra_params: Vec<String>,
    pub facts: ProviderFacts,
}

impl Provider {
    /// Environment variable that carries the operator's key for it, e.g. `GROQ_API_KEY`.
    #[must_use]
    pub fn key_variable(&self) -> String {
        super::values::key_variable(&self.name)
    }

    /// What `aex-egress` is told of it.
    #[must_use]
    pub fn for_egress(&self) -> ProviderConfig {
        ProviderConfig {
            name: self.name.clone(),
            base_url: self.base_url.clone(),
            keys: self.keys,
            ca_file: self.ca_file.clone(),
            connect_timeout_ms: self.connect_timeout_ms,
            request_timeout_ms: self.request_timeout_ms,
        }
    }
}

/// How a provider's API differs from the common denominator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderFacts {
    /// For models of which the catalogue says nothing else; see [`Model::output_cap_param`].
    pub output_cap_param: OutputCapParam,
    /// The tier to force, where leaving it out means the account's own setting.
    pub service_tier: Option<String>,
    /// It may keep answers, and `store: false` turns that off.
    pub knows_store: bool,
    /// It takes `stream_options.include_usage`.
    pub stream_usage: bool,
    /// Its usage is of all choices (`n`); false where only one may be counted, as llama.cpp does.
    pub counts_choices: bool,
}

impl Default for ProviderFacts {
    /// A server of which nothing is known but that it speaks the OpenAI API.
    fn default() -> Self {
        Self {
            output_cap_param: OutputCapParam::MaxTokens,
            service_tier: None,
            knows_store: false,
            stream_usage: true,
            counts_choices: false,
        }
    }
}

/// The provider's own name for the output cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputCapParam {
    MaxTokens,
    MaxCompletionTokens,
}

impl OutputCapParam {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    pub name: String,
    pub provider: String,
    /// The provider's own name for it.
    pub upstream_model: String,
    pub pricing: Pricing,
    pub max_output_tokens: Option<u64>,
    pub context_window: Option<u64>,
    /// It may spend output tokens out of sight. True unless the file or the catalogue denies it: a
    /// missing usage of such a model is charged at the hold, for own counts would fall short.
    pub hidden_output: bool,
    pub tokenizer: Option<String>,
    /// Its price has none of output: it makes embeddings, and may be asked for nothing else.
    pub embeds_only: bool,
    /// Upper bound of the prompt tokens that one image can cost. Absent: not known, so an image has no
    /// price.
    pub image_tokens: Option<u64>,
    /// Tokens that the chat template adds to a request, and to each message of it.
    pub template_tokens: u64,
    pub message_tokens: u64,
    /// How many times their own tokens tools and schemas may cost, once the provider has rendered
    /// them again.
    pub tool_factor: u64,
    pub limits: ModelLimits,
    pub output_cap_param: OutputCapParam,
    /// How often it is chosen before others, where its model's routing is weighted.
    pub weight: u64,
    pub routing: Routing,
    /// Further targets: the same model elsewhere, under its own terms. They have none themselves.
    pub fallbacks: Vec<Model>,
}

impl Model {
    /// What an unknown model is taken to add: a small real one's "hi" is 31 tokens, each message about
    /// 5.5 more, and tools rendered again are about four times their own.
    pub const TEMPLATE_TOKENS: u64 = 48;
    pub const MESSAGE_TOKENS: u64 = 8;
    pub const TOOL_FACTOR: u64 = 4;

    /// Every way to serve it, in the order in which they are written; the first is itself.
    pub fn targets(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(&self.fallbacks)
    }

    /// The one of its targets that is this.
    #[must_use]
    pub fn target(&self, provider: &str, upstream_model: &str) -> Option<&Self> {
        self.targets()
            .find(|target| target.provider == provider && target.upstream_model == upstream_model)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pricing {
    Priced {
        price: Price,
        source: PriceSource,
    },
    /// Costs nothing: said so in the file, or unpriced on a loopback address.
    Free,
    /// Listed, but its requests are refused.
    Unpriced,
}

impl Pricing {
    /// The terms of a hold; nothing when the model is not priced.
    #[must_use]
    pub fn price(&self) -> Option<Price> {
        match self {
            Self::Priced { price, .. } => Some(price.clone()),
            Self::Free => Some(Price::FREE),
            Self::Unpriced => None,
        }
    }

    #[must_use]
    pub fn is_free(&self) -> bool {
        matches!(self, Self::Free)
    }

    /// As `price_source` in the list of models.
    #[must_use]
    pub fn source_name(&self) -> &'static str {
        match self {
            Self::Priced { source, .. } => source.as_str(),
            Self::Free => "free",
            Self::Unpriced => "none",
        }
    }

    /// As `price_source` in the ledger: for a price of a catalogue the version of that one.
    #[must_use]
    pub fn recorded_source(&self) -> &str {
        match self {
            Self::Priced {
                source: PriceSource::Catalogue { version },
                ..
            } => version,
            other => other.source_name(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PriceSource {
    ModelsYaml,
    /// The shipped catalogue, or the operator's own that is laid over it.
    Catalogue {
        version: String,
    },
}

impl PriceSource {
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::ModelsYaml => "models.yaml",
            Self::Catalogue { .. } => "catalogue",
        }
    }
}

/// Shared by all agents that use the model. Absent: no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ModelLimits {
    pub max_tokens_per_minute: Option<u64>,
    pub max_requests_per_minute: Option<u64>,
}

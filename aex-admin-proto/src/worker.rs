//! What a worker may ask of `aex-admin`: exactly what one request needs.
//!
//! A worker sends *facts* about a request (sizes, names, caps), never its text. The bound, the price
//! and every rule are `aex-admin`'s.

use serde::{Deserialize, Serialize};

use crate::listen::Listening;
use crate::operator::{self, ScopeView, TokenReply, TokenView};
use crate::peer::Peer;
use crate::sandbox::InForce;
use crate::scope::ScopeId;
use crate::tools::ToolRules;
use crate::{HoldId, KeyDigest, Refusal, RequestDigest, TokenDigest};

/// Most fields of a request are at their default: left out, they cost nothing on the wire.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Long poll: answers at once when `known` differs from the generation in force, else when that
/// changes or after [`POLL_MS`]. The first call also introduces the worker.
pub const SETTINGS: &str = "worker.settings";
/// [`ReserveParams`] → [`ReserveReply`]. Idempotent by `id`.
pub const RESERVE: &str = "worker.reserve";
/// [`CancelParams`] → `{}`. Ends the wait of a reserve; a hold already granted stays.
pub const CANCEL: &str = "worker.cancel";
/// [`SettleParams`] → [`SettleReply`]. Idempotent by `id`.
pub const SETTLE: &str = "worker.settle";
/// [`ReclaimParams`] → [`ReclaimReply`]. After a reconnect: these requests are alive and mine.
pub const RECLAIM: &str = "worker.reclaim";
/// [`ModelsParams`] → [`ModelsReply`].
pub const MODELS: &str = "worker.models";
/// [`ModelsParams`] → [`WhoseReply`].
pub const WHOSE: &str = "worker.whose";
/// [`ModelsParams`] → [`MeReply`].
pub const ME: &str = "worker.me";
/// [`ReserveParams`] → [`QuoteReply`]. Nothing is held; the id is not looked at.
pub const QUOTE: &str = "worker.quote";
/// [`RunParams`] → [`RunReply`].
pub const RUN: &str = "worker.run";
/// [`RunEndParams`] → [`RunReply`], without a token.
pub const RUN_END: &str = "worker.run_end";
/// [`ModelsParams`] → [`TokensReply`]: the tokens of the agent itself that can still be used.
pub const TOKENS: &str = "worker.tokens";
/// [`TokenRotateParams`] → [`TokensReply`].
pub const TOKEN_ROTATE: &str = "worker.token_rotate";
/// [`TokenRevokeParams`] → [`TokensReply`].
pub const TOKEN_REVOKE: &str = "worker.token_revoke";
/// `{}` → [`ReadyReply`].
pub const READY: &str = "worker.ready";

/// How long a long poll may stay unanswered.
pub const POLL_MS: u64 = 20_000;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettingsParams {
    pub known: Option<u64>,
    pub worker: u32,
    pub pid: u32,
    #[serde(default)]
    pub sandbox: InForce,
    /// Where it takes agents' connections, by what its sockets are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<Listening>,
}

/// Most listeners of a worker that are told on.
pub const MAX_LISTENERS: usize = 16;

/// The little that a worker must know before it may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerSettings {
    pub generation: u64,
    pub max_body_bytes: u64,
    /// How long a worker that is told to stop lets its requests finish.
    pub drain_timeout_ms: u64,
    /// A reserve that is not answered in this time never will be: `hold_wait`, `lock_wait`, and some.
    pub reserve_limit_ms: u64,
}

/// A governed route: `POST /v1/…`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    #[default]
    ChatCompletions,
    Completions,
    Embeddings,
    Responses,
}

impl Route {
    pub const ALL: [Self; 4] = [
        Self::ChatCompletions,
        Self::Completions,
        Self::Embeddings,
        Self::Responses,
    ];

    /// The path below `/v1`, and below a provider's `base_url`.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/chat/completions",
            Self::Completions => "/completions",
            Self::Embeddings => "/embeddings",
            Self::Responses => "/responses",
        }
    }

    /// The route of a path as clients write it: `/v1/chat/completions`.
    #[must_use]
    pub fn at(path: &str) -> Option<Self> {
        let below = path.strip_prefix("/v1")?;
        Self::ALL.into_iter().find(|route| route.path() == below)
    }

    /// Its answers have output tokens, and so a cap.
    #[must_use]
    pub fn generates(self) -> bool {
        self != Self::Embeddings
    }
}

/// Most attempts of one request, each at another target of its model.
pub const MAX_ATTEMPTS: usize = 8;

/// Tokenizers with which a worker can count: [`ReserveReply::Measure`] names one of them.
pub const TOKENIZERS: [&str; 2] = ["o200k_base", "cl100k_base"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReserveParams {
    pub id: HoldId,
    pub token: TokenDigest,
    pub route: Route,
    pub model: String,
    pub facts: Facts,
    /// The client named its request by an `Idempotency-Key`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub idempotency: Option<Idempotency>,
    /// The same request was tried elsewhere, and nothing of an answer has reached its client.
    #[serde(default, skip_serializing_if = "is_default")]
    pub again: Option<Box<Again>>,
    /// Who sent the token.
    #[serde(default, skip_serializing_if = "is_default")]
    pub peer: Peer,
}

/// A further attempt of a request. Each one has an id, a hold and a ticket of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Again {
    /// The attempts before, the first one first; fewer than [`MAX_ATTEMPTS`].
    pub tried: Vec<Tried>,
    /// When the request must end, whoever serves it: [`Grant::retry_until_boot_ms`] of its first attempt.
    pub until_boot_ms: u64,
}

/// An attempt that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tried {
    pub id: HoldId,
    pub provider: String,
    pub upstream_model: String,
}

/// One provider call and one charge per agent and `key`, for 24 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Idempotency {
    pub key: KeyDigest,
    pub request: RequestDigest,
}

/// What a worker measured in a request body.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Facts {
    #[serde(skip_serializing_if = "is_default")]
    pub body_bytes: u64,
    /// Decoded ASCII bytes of every string in the prompt, keys included.
    #[serde(skip_serializing_if = "is_default")]
    pub ascii_bytes: u64,
    /// Decoded bytes of its other characters, as UTF-8.
    #[serde(skip_serializing_if = "is_default")]
    pub other_bytes: u64,
    /// Messages of a chat, items of a response's input.
    #[serde(skip_serializing_if = "is_default")]
    pub messages: u64,
    /// Prompts of a completions request, inputs of an embeddings request. Zero elsewhere.
    #[serde(skip_serializing_if = "is_default")]
    pub prompts: u64,
    /// Prompt tokens that were given as numbers.
    #[serde(skip_serializing_if = "is_default")]
    pub token_ids: u64,
    /// Decoded bytes of tools, functions and schemas, which providers render again.
    #[serde(skip_serializing_if = "is_default")]
    pub tool_bytes: u64,
    /// The client's own output cap, in tokens a choice.
    #[serde(skip_serializing_if = "is_default")]
    pub output_cap: Option<u64>,
    /// The same text counted with the model's tokenizer, where [`ReserveReply::Measure`] asked for it.
    #[serde(skip_serializing_if = "is_default")]
    pub measured: Option<Measured>,
    /// With which of [`TOKENIZERS`] it was counted: a bound for models with that one alone.
    #[serde(skip_serializing_if = "is_default")]
    pub measured_by: Option<String>,
    /// Choices asked for: `n`, or `best_of` where that is more; at least 1.
    #[serde(skip_serializing_if = "is_default")]
    pub choices: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub stream: bool,
    /// Names of the tools and functions offered.
    #[serde(skip_serializing_if = "is_default")]
    pub tools: Vec<String>,
    /// What a choice of tools names: names, and types as `type NAME`.
    #[serde(skip_serializing_if = "is_default")]
    pub chosen_tools: Vec<String>,
    /// As the request says it; absent where it says nothing.
    #[serde(skip_serializing_if = "is_default")]
    pub parallel_tool_calls: Option<bool>,
    /// A form of the answer is prescribed: a schema, or JSON.
    #[serde(skip_serializing_if = "is_default")]
    pub structured_output: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub temperature: Option<Temperature>,
    /// Image parts. Their data is not counted as text.
    #[serde(skip_serializing_if = "is_default")]
    pub images: u64,
    /// Audio or file parts are present, or another input that costs by item.
    #[serde(skip_serializing_if = "is_default")]
    pub media: bool,
    /// Of these: audio, in or out.
    #[serde(skip_serializing_if = "is_default")]
    pub audio: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub files: bool,
    /// Parts that are neither: video, and what the worker does not know.
    #[serde(skip_serializing_if = "is_default")]
    pub other_media: bool,
    /// Top-level parameters that the worker does not know, by name.
    #[serde(skip_serializing_if = "is_default")]
    pub unknown_params: Vec<String>,
    /// Keys inside of unknown and costly ones that may offer tools, prescribe a form, or set the temperature.
    #[serde(skip_serializing_if = "is_default")]
    pub nested_params: Vec<String>,
    /// Known parameters that cost, or act outside this request, by name (`web_search_options`, …).
    #[serde(skip_serializing_if = "is_default")]
    pub costly_params: Vec<String>,
    /// The request brings its own provider key.
    #[serde(skip_serializing_if = "is_default")]
    pub own_key: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub session: Option<String>,
}

/// A temperature in thousandths, rounded outward: no comparison of it depends on a float. One that is
/// no number is beyond every range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Temperature {
    pub at_least_milli: i64,
    pub at_most_milli: i64,
}

/// What a prompt comes to by its model's tokenizer, in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Of the text of messages, prompts and inputs.
    pub text: u64,
    /// Of tools, functions and schemas, as they are written.
    pub tools: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReserveReply {
    Granted(Box<Grant>),
    Refused(Refusal),
    /// By its bytes the prompt does not fit; by its tokens it may. Count them and ask again with
    /// [`Facts::measured`], under the same id; who cannot count is refused.
    Measure {
        /// One of [`TOKENIZERS`].
        tokenizer: String,
        refusal: Refusal,
    },
    /// The same request, under the same `Idempotency-Key`, was carried out already.
    Replay(Replay),
}

/// Which answer to give again, if a worker has kept it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// The hold under which it was carried out.
    pub id: HoldId,
    /// Free money of the token's own scope, in whole micro-dollars; none where that has no budget.
    pub remaining_micro: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDisconnect {
    /// Read the provider to its end, for the true usage.
    Drain,
    /// End the provider's stream at once.
    Abort,
}

/// The terms of a hold. Without one there is nothing to dispatch with.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Redeemable once at the egress.
    pub ticket: String,
    /// Whose the hold is, as [`WhoseReply::Tenant`]: what a worker keeps of it counts as that tenant's.
    pub tenant: ScopeId,
    pub provider: String,
    /// Path below the provider's `base_url`.
    pub path: String,
    pub upstream_model: String,
    /// The one output cap to forward, in tokens a choice. Zero on a route that generates nothing.
    pub output_cap: u64,
    /// The provider's own name for it: `max_tokens`, `max_completion_tokens`, `max_output_tokens`.
    pub output_cap_param: String,
    /// Most output tokens in all: every choice of every prompt. A stream that shows more is cut.
    pub output_tokens: u64,
    /// AEX set the cap; the client sent none. Told in `x-aex-output-cap`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cap_is_ours: bool,
    /// Ask the provider for a usage chunk (`stream_options.include_usage`).
    pub stream_usage: bool,
    /// Force `service_tier` to this value, where the provider has tiers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub service_tier: Option<String>,
    /// Force `store` to false, where the route or the provider knows it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub force_store_off: bool,
    /// The provider keeps answers unless it is told not to.
    #[serde(default, skip_serializing_if = "is_default")]
    pub knows_store: bool,
    /// The model may spend output tokens out of sight.
    #[serde(default, skip_serializing_if = "is_default")]
    pub hidden_output: bool,
    /// Free money of the token's own scope with this hold taken off, in whole micro-dollars; none where
    /// that has no budget.
    #[serde(default, skip_serializing_if = "is_default")]
    pub remaining_micro: Option<i64>,
    /// Limits and policies that this request passed, and that are only to be told of.
    #[serde(default, skip_serializing_if = "is_default")]
    pub warnings: Vec<String>,
    pub on_disconnect: OnDisconnect,
    pub drain_timeout_ms: u64,
    /// Boot clock. The egress cuts the exchange here.
    pub deadline_boot_ms: u64,
    pub max_response_bytes: u64,
    /// The model has targets that were not tried: should this one fail before it answers, the next may be
    /// asked for, until then (boot clock). Zero: it is the last.
    #[serde(default, skip_serializing_if = "is_default")]
    pub retry_until_boot_ms: u64,
    /// With another target to come, the answer's head is waited for no longer than this. Zero: until the
    /// deadline.
    #[serde(default, skip_serializing_if = "is_default")]
    pub first_byte_ms: u64,
    /// The rules of each scope that has any. None: requests and answers pass as they are.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tools: Vec<ToolRules>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelParams {
    pub id: HoldId,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettleParams {
    pub id: HoldId,
    /// The ticket of the grant, as proof that this worker was given the hold.
    pub ticket: String,
    pub observed: Observed,
}

/// What the worker saw of the exchange. What it costs is decided by `aex-admin`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Observed {
    /// The provider's status; absent when no answer head came.
    #[serde(skip_serializing_if = "is_default")]
    pub status: Option<u16>,
    /// Set when the egress itself, not the provider, ended the exchange.
    #[serde(skip_serializing_if = "is_default")]
    pub failure: Option<crate::egress::Failure>,
    /// The answer came to its proper end.
    #[serde(skip_serializing_if = "is_default")]
    pub complete: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub usage: UsageSeen,
    /// More than one chunk of a stream was a usage and nothing else, as where a server counts each
    /// choice by itself.
    #[serde(skip_serializing_if = "is_default")]
    pub usage_chunks: Option<UsageChunks>,
    /// Upper bound of the visible output's tokens, by the worker's own count (bytes). `u64::MAX` where
    /// it could not count all that the provider generated.
    #[serde(skip_serializing_if = "is_default")]
    pub own_output_tokens: u64,
    /// The answer showed more output than the hold pays for; a stream was ended for that.
    #[serde(skip_serializing_if = "is_default")]
    pub outran: bool,
    /// How long the provider asked to be left alone, in seconds, where its answer was a 429.
    #[serde(skip_serializing_if = "is_default")]
    pub retry_after_s: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageSeen {
    #[default]
    Missing,
    /// There was one, and it cannot be believed (negative, fractional, absurd, ambiguous).
    Unreadable,
    Reported(Usage),
}

/// The chunks of a stream that were a usage and nothing else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsageChunks {
    pub count: u64,
    /// Their outputs added up, in tokens.
    pub output: u64,
}

/// Tokens as the provider counts them. `prompt` includes `cached` and `cache_write`; `output`
/// includes `reasoning`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Usage {
    #[serde(skip_serializing_if = "is_default")]
    pub prompt: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub cached: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub cache_write: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub output: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub reasoning: u64,
}

/// On what a charge rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The provider's usage.
    Exact,
    /// Own counts, as an upper bound.
    Estimated,
    /// The whole hold: nobody knows.
    Ceiling,
    /// Nothing: the provider refused, or was never reached.
    Released,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettleReply {
    pub basis: Basis,
    /// What this request added to `spent_micro`; the fractions carry over to later ones.
    pub cost_micro: i64,
    /// Exact cost, picodollars.
    pub cost_pico: i64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub remaining_micro: Option<i64>,
    /// The agent was severed: say so to its client.
    #[serde(default, skip_serializing_if = "is_default")]
    pub severed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReclaimParams {
    /// Tickets of the requests in hand.
    pub tickets: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReclaimReply {
    /// Holds that are already ended: nothing is left to settle.
    pub ended: Vec<HoldId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelsParams {
    pub token: TokenDigest,
    /// Who sent the token.
    #[serde(default, skip_serializing_if = "is_default")]
    pub peer: Peer,
}

/// Whether a token is one, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhoseReply {
    /// The tenant's: the group right below the kernel, or an agent that is in none. A number like others'
    /// is another tenant's; it means nothing else.
    Tenant(ScopeId),
    Refused(Refusal),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelsReply {
    /// The models this agent may call, by name.
    Models(Vec<ModelEntry>),
    Refused(Refusal),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelEntry {
    pub id: String,
    /// The provider's name: OpenAI's `owned_by`.
    pub owned_by: String,
    /// Unix seconds.
    pub created: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyReply {
    pub ready: bool,
    /// That something is missing; what, is the operator's to know.
    pub why: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MeReply {
    /// The token's own scope, without what is above it.
    Me(Box<ScopeView>),
    Refused(Refusal),
}

/// What a request would come to now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuoteReply {
    Passes(Quote),
    Refused(Refusal),
    /// As of [`ReserveReply::Measure`].
    Measure {
        tokenizer: String,
        refusal: Refusal,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// What would be held, rounded up.
    pub hold_micro: i64,
    pub input_tokens: u64,
    /// Tokens a choice.
    pub output_cap: u64,
    pub provider: String,
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunParams {
    /// Of the scope below which it is made.
    pub token: TokenDigest,
    pub run: operator::RunParams,
    /// Who sent the token.
    #[serde(default, skip_serializing_if = "is_default")]
    pub peer: Peer,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunEndParams {
    /// Of a scope above it, or its own.
    pub token: TokenDigest,
    pub name: String,
    /// Who sent the token.
    #[serde(default, skip_serializing_if = "is_default")]
    pub peer: Peer,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunReply {
    Made(Box<TokenReply>),
    Ended(Box<ScopeView>),
    Refused(Refusal),
}

/// What a token came with, wherever a worker presents one.
pub trait Presents {
    fn peer(&mut self) -> &mut Peer;
}

macro_rules! presents {
    ($($params:ty),+) => {$(
        impl Presents for $params {
            fn peer(&mut self) -> &mut Peer {
                &mut self.peer
            }
        }
    )+};
}

presents!(
    ReserveParams,
    ModelsParams,
    RunParams,
    RunEndParams,
    TokenRotateParams,
    TokenRevokeParams
);

impl<T: Presents> Presents for Box<T> {
    fn peer(&mut self) -> &mut Peer {
        (**self).peer()
    }
}

/// An agent's order for its own tokens, as an operator's [`operator::RotateParams`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRotateParams {
    pub token: TokenDigest,
    /// Shorter than what is left of the token that asks; absent: as long as that.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ttl_s: Option<u64>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub grace_s: Option<u64>,
    /// Who sent the token.
    #[serde(default, skip_serializing_if = "is_default")]
    pub peer: Peer,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRevokeParams {
    pub token: TokenDigest,
    pub id: i64,
    /// Who sent the token.
    #[serde(default, skip_serializing_if = "is_default")]
    pub peer: Peer,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokensReply {
    Listed(Vec<TokenView>),
    Made(Box<TokenReply>),
    Revoked {
        id: i64,
    },
    /// The agent has no such token.
    NoSuch,
    Refused(Refusal),
}

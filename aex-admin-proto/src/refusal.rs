//! Why the kernel refused a request, as data. `aex-admin` decides which; `aex-proxy` turns each into
//! HTTP in one table. Amounts are micro-dollars, times milliseconds.

use serde::{Deserialize, Serialize};

use crate::peer::BoundTo;
use crate::scope::ScopeKind;

/// The first rule a request broke, in the documented order of `aex-admin`'s core.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "refusal", rename_all = "snake_case")]
pub enum Refusal {
    #[error("the same reservation id was used for another request")]
    HoldIdReused,
    #[error("Invalid API token")]
    InvalidToken,
    /// It is bound to another peer. Only the operator is told: see [`Refusal::outward`].
    #[error("Invalid API token")]
    WrongPeer { bound_to: BoundTo },
    #[error("API token has expired")]
    TokenExpired,
    #[error("Agent is paused")]
    AgentPaused,
    #[error("{conflict}")]
    IdempotencyConflict { conflict: IdempotencyConflict },
    /// Only agents without a whitelist learn that a model does not exist.
    #[error("no such model: {model}")]
    ModelNotFound { model: String },
    #[error("Model not allowed")]
    ModelNotAllowed { model: String },
    #[error("Model not priced")]
    ModelNotPriced { model: String },
    /// `capability` is `streaming`, `tools`, `tool NAME`, `vision`, …: docs/API.md has them all.
    #[error("Capability not allowed: {capability}")]
    CapabilityNotAllowed { capability: String },
    #[error("Passthrough mode not enabled for this agent")]
    PassthroughNotEnabled,
    #[error("Provider key required")]
    ProviderKeyRequired,
    /// A parameter, or a bound on one, that this model, provider or agent does not take.
    #[error("{message}")]
    InvalidRequest {
        message: String,
        param: Option<String>,
    },
    /// The operator's policy of that name. `reason`: what it has for the agent to read.
    #[error("Forbidden by policy: {}", reason.as_ref().unwrap_or(policy))]
    PolicyForbids {
        policy: String,
        reason: Option<String>,
    },
    #[error("body too large: {limit_bytes} bytes at most")]
    BodyTooLarge { limit_bytes: u64 },
    #[error("Concurrency limit exceeded")]
    ConcurrencyLimit { limit: u64 },
    #[error("RPM Rate limit exceeded")]
    RequestRate { limit: u64, retry_after_ms: u64 },
    /// `never`: the request is larger than the whole window, so waiting cannot help.
    #[error("TPM Rate limit exceeded")]
    TokenRate {
        limit: u64,
        remaining: u64,
        retry_after_ms: u64,
        never: bool,
    },
    /// It would not fit even with every hold freed.
    #[error("Insufficient budget")]
    InsufficientBudget {
        scope: String,
        needed_micro: i64,
        remaining_micro: i64,
        affordable_output_tokens: u64,
    },
    /// It would fit but for money that is held, and none came free in time.
    #[error("Budget held by requests in flight")]
    BudgetHeld {
        scope: String,
        needed_micro: i64,
        free_micro: i64,
        held_micro: i64,
    },
    /// A limit beyond the budget in all (`tokens/day`, …) would be passed even with every hold freed.
    /// Amounts are micro-dollars for money, else a count.
    #[error("Insufficient budget")]
    LimitSpent {
        scope: String,
        /// As [`crate::limit::LimitKey`] is written.
        limit: String,
        needed: i64,
        remaining: i64,
        /// When its calendar period ends, Unix milliseconds.
        resets_at_ms: Option<i64>,
    },
    /// It would fit but for what is held.
    #[error("Budget held by requests in flight")]
    LimitHeld {
        scope: String,
        limit: String,
        needed: i64,
        free: i64,
        held: i64,
    },
    /// By a limit of a scope that the token does not own: its figures are not the token's to know.
    #[error("{why}")]
    Above {
        /// `agent`, `group`, `kernel`.
        scope: ScopeKind,
        why: Box<Refusal>,
    },
    /// The caller gave up the wait (`worker.cancel`).
    #[error("cancelled")]
    Cancelled,
}

impl Refusal {
    /// Its code on the HTTP surface, in metrics and in the ledger.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::HoldIdReused | Self::InvalidRequest { .. } => "invalid_request",
            Self::InvalidToken | Self::WrongPeer { .. } | Self::TokenExpired => "invalid_api_key",
            Self::AgentPaused => "agent_paused",
            Self::IdempotencyConflict { .. } => "idempotency_conflict",
            Self::ModelNotFound { .. } => "model_not_found",
            Self::ModelNotAllowed { .. } => "model_not_allowed",
            Self::ModelNotPriced { .. } => "model_not_priced",
            Self::CapabilityNotAllowed { .. } => "capability_not_allowed",
            Self::PassthroughNotEnabled => "passthrough_not_enabled",
            Self::ProviderKeyRequired => "provider_key_required",
            Self::PolicyForbids { .. } => "policy_forbids",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::ConcurrencyLimit { .. } | Self::RequestRate { .. } | Self::TokenRate { .. } => {
                "rate_limit_exceeded"
            }
            Self::InsufficientBudget { .. } | Self::LimitSpent { .. } => "insufficient_budget",
            Self::BudgetHeld { .. } | Self::LimitHeld { .. } => "budget_held",
            Self::Above { why, .. } => why.code(),
            Self::Cancelled => "cancelled",
        }
    }

    /// As it leaves `aex-admin`: who holds a token that is bound to somebody else learns nothing of that.
    #[must_use]
    pub fn outward(self) -> Self {
        match self {
            Self::WrongPeer { .. } => Self::InvalidToken,
            other => other,
        }
    }

    /// What in particular decided: a limit as [`crate::limit::LimitKey`] is written, or `policy NAME`.
    #[must_use]
    pub fn rule(&self) -> Option<String> {
        match self {
            Self::WrongPeer { bound_to } => Some(bound_to.name().to_owned()),
            Self::ConcurrencyLimit { .. } => Some("parallel".to_owned()),
            Self::RequestRate { .. } => Some("requests/minute".to_owned()),
            Self::TokenRate { .. } => Some("tokens/minute".to_owned()),
            Self::InsufficientBudget { .. } | Self::BudgetHeld { .. } => Some("budget".to_owned()),
            Self::LimitSpent { limit, .. } | Self::LimitHeld { limit, .. } => Some(limit.clone()),
            Self::PolicyForbids { policy, .. } => Some(format!("policy {policy}")),
            Self::Above { why, .. } => why.rule(),
            _ => None,
        }
    }

    /// The kind of scope whose limit decided, where that is above the token's own.
    #[must_use]
    pub fn scope_above(&self) -> Option<ScopeKind> {
        match self {
            Self::Above { scope, .. } => Some(*scope),
            _ => None,
        }
    }
}

/// Why a request that was asked for before, under the same `Idempotency-Key`, is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum IdempotencyConflict {
    #[error(
        "Idempotency-Key was used in the last 24 hours for another request (another route or body); \
         send this one under a new key"
    )]
    AnotherRequest,
    #[error(
        "the first request with this Idempotency-Key is still running; ask again in a moment for its \
         answer"
    )]
    StillRunning,
    /// The worker's to say: `aex-admin` has no answers.
    #[error(
        "the request with this Idempotency-Key was carried out and charged, but its answer was not kept; \
         send it under a new key to have it carried out once more"
    )]
    NotKept,
}

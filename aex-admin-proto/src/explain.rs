//! `aex policy explain`: why a request would pass or not, rule by rule, for an operator. Figures are of
//! every scope: none of this is for an agent's eyes.
//!
//! A request's facts come from `aex-proxy facts` ([`BodyRead`]): its reader is the one that workers have.

use serde::{Deserialize, Serialize};

use crate::Refusal;
use crate::limit::Quantity;
use crate::peer::Peer;
use crate::scope::ScopeKind;
use crate::worker::{Facts, Quote, Route};

/// Longest request body that is explained: `max_body_bytes` is no more than this.
pub const MAX_BODY_BYTES: u64 = 64 * 1024 * 1024;

/// What `aex-proxy facts` prints of a request body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum BodyRead {
    Request { model: String, facts: Box<Facts> },
    NotARequest { invalid: Invalid },
}

/// Why a body is no request: what the agent is told with status 400.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invalid {
    pub message: String,
    /// A path such as `messages[2].content`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub param: Option<String>,
}

/// What is asked of `policy.explain`: the request as a worker would ask for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainParams {
    pub agent: String,
    /// One of its runs; absent: with a token of the agent itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    pub route: Route,
    pub model: String,
    pub facts: Facts,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExplainReply {
    Explained(Box<Explained>),
    /// Count the prompt with this tokenizer and ask again, with [`Facts::measured`].
    Measure {
        tokenizer: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    pub outcome: Outcome,
    pub agent: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    pub model: String,
    /// What would be held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quote: Option<Quote>,
    /// Tools that would be cut out of it (`on_forbidden_tool: strip`), where it passes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// What the agent would be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// The rule that decides, where the request does not pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<Look>,
    /// The order of targets is drawn anew for each request (`routing: weighted`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drawn: bool,
    /// What is taken for granted of who sends it, a scope each: that its token comes from whom it is bound to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assumes: Vec<BoundScope>,
    /// In the order in which they would be tried.
    pub targets: Vec<TargetLooks>,
}

/// A scope whose tokens are bound, and to whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundScope {
    pub scope: LookScope,
    pub peer: Peer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Passes,
    Refused,
    /// It waits for what is held, and is refused when nothing comes free in time.
    Waits,
}

/// What was looked at for one target of the model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetLooks {
    /// Absent: it came to no target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_model: Option<String>,
    /// In the order in which they were looked at; the last one is what stopped it, if anything did.
    pub looks: Vec<Look>,
    /// Why this target is not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
}

/// One rule that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// Whose rule it is; absent: the model's, the provider's or the kernel's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<LookScope>,
    /// A limit as [`crate::limit::LimitKey`] is written, `budget`, the name of a setting, `policy NAME`, …
    pub rule: String,
    pub verdict: Verdict,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figures: Option<Figures>,
    /// What it says, where figures do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LookScope {
    pub kind: ScopeKind,
    pub name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Passes,
    Refuses,
    /// It would fit but for what is held.
    Waits,
    /// It is passed, and the client is told: mode `warn`.
    Warns,
    /// It is passed, and this is recorded alone: mode `shadow`.
    Shadows,
}

impl Verdict {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Passes => "passes",
            Self::Refuses => "refuses",
            Self::Waits => "waits",
            Self::Warns => "warns",
            Self::Shadows => "shadows",
        }
    }

    /// It ends the decision.
    #[must_use]
    pub fn stops(self) -> bool {
        matches!(self, Self::Refuses | Self::Waits)
    }
}

/// Micro-dollars for money, else counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    pub what: Quantity,
    /// What the request needs at least.
    pub needed: i64,
    pub most: i64,
    /// Absent where nothing is counted: of one request by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<i64>,
    /// By requests that are open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<i64>,
    /// When its calendar period ends, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resets_at_ms: Option<i64>,
    /// When it may fit again, of a window of 60 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Figures {
    #[must_use]
    pub fn new(what: Quantity, needed: i64, most: i64) -> Self {
        Self {
            what,
            needed,
            most,
            used: None,
            held: None,
            resets_at_ms: None,
            retry_after_ms: None,
        }
    }

    /// What is left with every hold freed.
    #[must_use]
    pub fn left(&self) -> Option<i64> {
        Some(self.most.saturating_sub(self.used?))
    }
}

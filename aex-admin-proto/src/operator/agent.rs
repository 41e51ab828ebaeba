//! Agents, their tokens and what is set on a scope.

use serde::{Deserialize, Serialize};

use super::LimitView;
use crate::CertDigest;
use crate::capabilities::Capabilities;
use crate::limit::{Limit, LimitKey};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Passthrough {
    #[default]
    Deny,
    /// May bring its own provider key, else the operator's is used.
    Allow,
    /// Must bring its own.
    Require,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentState {
    Active,
    Paused,
    /// Deleted: its history stays, its name stays taken.
    Closed,
}

/// What an agent may do. Absent: no limit, or the default of models.yaml's `limits`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_models: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passthrough: Option<Passthrough>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens_per_minute: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_input_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streaming: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_tools: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vision: Option<bool>,
    /// One of each [`crate::limit::LimitKey`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Vec<Limit>>,
    /// The share of this scope's money and slots that one child may hold, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_held_percent: Option<u64>,
    /// Sessions (`x-aex-session`) that may ever be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_sessions: Option<u64>,
    /// IANA name; absent: that of the scope above, of models.yaml, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// What policies may ask for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Capabilities::is_default")]
    pub capabilities: Box<Capabilities>,
    /// Its tokens are taken from this user's processes alone, over a Unix socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Its tokens are taken from whoever shows this certificate alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_cert: Option<CertDigest>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateParams {
    pub name: String,
    pub budget_micro: i64,
    /// Requests in any 60 seconds.
    pub rpm: u64,
    /// The token's life, in seconds; absent: it does not expire.
    #[serde(default)]
    pub ttl_s: Option<u64>,
    #[serde(default)]
    pub settings: Settings,
    /// The group above it; absent: none but the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameParams {
    pub name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SetParams {
    pub name: String,
    /// The new budget; not together with `add_micro`.
    pub budget_micro: Option<i64>,
    /// Added to the budget; may be negative.
    pub add_micro: Option<i64>,
    pub rpm: Option<u64>,
    /// What is present replaces; what is absent stays.
    pub settings: Settings,
    /// Names of settings to clear, back to the default.
    pub clear: Vec<String>,
    /// Limits to take away; what they counted is forgotten.
    pub drop_limits: Vec<LimitKey>,
    /// Moves it below this group; `kernel`: below none.
    pub group: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateParams {
    pub name: String,
    #[serde(default)]
    pub ttl_s: Option<u64>,
    /// The old tokens stay valid this long; absent: they end now.
    #[serde(default)]
    pub grace_s: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenCreateParams {
    pub name: String,
    #[serde(default)]
    pub ttl_s: Option<u64>,
    /// What it is for, shown in `token list`: `run`, ….
    #[serde(default)]
    pub label: Option<String>,
    /// It may look (`/v1/models`, `/v1/aex/me`, quotes), and carry nothing out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenIdParams {
    pub id: i64,
}

/// The one answer that carries a token: it is shown once and stored nowhere.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenReply {
    pub name: String,
    pub token: String,
    pub token_id: i64,
    pub expires_at_ms: Option<i64>,
    /// Of the scope whose token it is; absent: no limit of its own.
    pub budget_micro: Option<i64>,
    pub rpm: Option<u64>,
    pub settings: Settings,
    /// The name of the run that was made with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
}

impl std::fmt::Debug for TokenReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenReply({}, redacted)", self.name)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentView {
    pub name: String,
    pub state: AgentState,
    pub budget_micro: i64,
    pub spent_micro: i64,
    /// Open holds, rounded up.
    pub reserved_micro: i64,
    /// Budget less spent less held, in whole micro-dollars; negative after an overrun.
    pub remaining_micro: i64,
    pub rpm: u64,
    pub settings: Settings,
    pub created_at_ms: i64,
    pub in_flight: u64,
    /// Requests and tokens that count in the last 60 seconds.
    pub requests_last_minute: u64,
    pub tokens_last_minute: u64,
    /// The group above it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Where its limits over periods, sessions and all time stand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<LimitView>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentList {
    pub agents: Vec<AgentView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenView {
    pub id: i64,
    pub agent: String,
    pub label: String,
    pub created_at_ms: i64,
    pub expires_at_ms: Option<i64>,
    pub revoked: bool,
    #[serde(default)]
    pub read_only: bool,
    /// The run whose it is.
    #[serde(default)]
    pub run: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenList {
    pub tokens: Vec<TokenView>,
}

//! Groups, runs, and any scope as it is shown.

use serde::{Deserialize, Serialize};

use super::{AgentState, Settings};
use crate::limit::{Limit, LimitKey};
use crate::scope::{ScopeId, ScopeKind};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GroupCreateParams {
    pub name: String,
    /// The group above it; absent: none but the kernel.
    pub parent: Option<String>,
    /// Absent: no limit.
    pub budget_micro: Option<i64>,
    /// Requests in any 60 seconds; absent: no limit.
    pub rpm: Option<u64>,
    pub settings: Settings,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GroupSetParams {
    pub name: String,
    pub budget_micro: Option<i64>,
    /// Added to the budget; may be negative.
    pub add_micro: Option<i64>,
    pub rpm: Option<u64>,
    /// What is present replaces; what is absent stays.
    pub settings: Settings,
    /// Names of settings to clear, and `budget` and `rpm`: no limit then.
    pub clear: Vec<String>,
    /// Limits to take away; what they counted is forgotten.
    pub drop_limits: Vec<LimitKey>,
    /// Moves it below this group; `kernel`: below none.
    pub parent: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunCreateParams {
    /// The agent, or the run, above it.
    pub parent: String,
    /// What is absent is limited by what is above alone.
    pub run: RunParams,
}

/// A narrower scope below an agent or a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunParams {
    pub budget_micro: Option<i64>,
    /// Requests in any 60 seconds.
    pub rpm: Option<u64>,
    /// How long it lasts, in seconds.
    pub ttl_s: Option<u64>,
    pub settings: Settings,
}

/// One scope, with what goes on in it now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeView {
    pub id: ScopeId,
    pub kind: ScopeKind,
    pub name: String,
    pub parent: Option<ScopeId>,
    pub state: AgentState,
    /// Absent: no limit.
    pub budget_micro: Option<i64>,
    pub spent_micro: i64,
    /// Open holds, rounded up.
    pub reserved_micro: i64,
    pub remaining_micro: Option<i64>,
    pub rpm: Option<u64>,
    pub settings: Settings,
    pub created_at_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<i64>,
    pub in_flight: u64,
    /// Requests and tokens that count in the last 60 seconds.
    pub requests_last_minute: u64,
    pub tokens_last_minute: u64,
    pub limits: Vec<LimitView>,
}

/// Where a limit over a period, a session or all time stands. Micro-dollars for money, else counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitView {
    pub limit: Limit,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    pub used: i64,
    pub held: i64,
    pub left: i64,
    /// When its calendar period ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resets_at_ms: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeList {
    pub scopes: Vec<ScopeView>,
}

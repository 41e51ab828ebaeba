//! `aex policy rehearse`: which recorded requests a proposal would have refused. Money is in whole
//! micro-dollars, times are Unix milliseconds.

use serde::{Deserialize, Serialize};

use crate::explain::LookScope;

/// What is asked of `policy.rehearse`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RehearseParams {
    /// Cedar policies. Without any, none are rehearsed.
    #[serde(default)]
    pub policies: Vec<ProposedFile>,
    /// Limits and capabilities of scopes, as docs/POLICY.md has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<ProposedFile>,
    /// Requests that were granted since then.
    pub since_ms: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposedFile {
    /// For messages: where it is.
    pub path: String,
    pub text: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehearsal {
    pub since_ms: i64,
    /// Of the last event that was read.
    pub until_ms: i64,
    /// How many policies, and scopes with limits, were rehearsed.
    pub policies: u64,
    pub scopes: u64,
    /// Things that are allowed but probably not meant.
    pub warnings: Vec<String>,
    /// Every request that was granted in that time.
    pub requests: Tally,
    pub refused: Tally,
    /// Would have waited for what other requests hold, and then been served.
    pub waited: Tally,
    /// Still open at the end, and not decided: what they wait for, or what their prompt comes to, is not
    /// known.
    #[serde(default)]
    pub undecided: u64,
    /// Who would have been refused, by which rule; the dearest first.
    pub refusals: Vec<RefusedBy>,
    /// Rules of mode `warn` or `shadow` that would have been passed, most often first.
    pub on_trial: Vec<OnTrial>,
    /// More lines than are listed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lines_left_out: u64,
    /// Refused at that time: recorded by kind and minute, so they are counted, and not rehearsed.
    pub refused_then: u64,
    /// Requests that offered more tools than are recorded: rules of tools were asked of those that are.
    pub tools_unrecorded: u64,
    /// Recorded requests that this version cannot read.
    pub unreadable: u64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands a reference to it"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    pub requests: u64,
    /// What they really cost.
    pub cost_micro: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedBy {
    pub agent: String,
    /// Whose rule it is; absent: a policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<LookScope>,
    /// As [`crate::explain::Look::rule`].
    pub rule: String,
    #[serde(flatten)]
    pub tally: Tally,
    pub first_at_ms: i64,
    pub last_at_ms: i64,
    /// The reservation of the first one, for `aex logs` and the ledger.
    pub first_hold: String,
    /// What its agent would have read.
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnTrial {
    pub agent: String,
    /// `policy NAME`, or `limit LIMIT of this SCOPE`.
    pub rule: String,
    /// `warn` or `shadow`.
    pub mode: String,
    #[serde(flatten)]
    pub tally: Tally,
}

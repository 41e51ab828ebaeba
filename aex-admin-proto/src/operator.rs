//! What an operator (or, for the reads, an auditor) may ask of `aex-admin`. Money is in whole
//! micro-dollars, times are Unix milliseconds unless the name says otherwise.

use serde::{Deserialize, Serialize};

use crate::egress::KeyPolicy;

mod agent;
mod daemon;
mod kernel;
mod ledger;
mod provider;
mod tree;

pub use agent::*;
pub use daemon::*;
pub use kernel::*;
pub use ledger::*;
pub use provider::{ProviderList, ProviderView};
pub use tree::{
    GroupCreateParams, GroupSetParams, LimitView, RunCreateParams, RunParams, ScopeList, ScopeView,
};

/// Methods, with their parameters and answers.
pub mod method {
    /// [`super::CreateParams`] → [`super::TokenReply`].
    pub const AGENT_CREATE: &str = "agent.create";
    /// `{}` → [`super::AgentList`]. Auditors too.
    pub const AGENT_LIST: &str = "agent.list";
    /// [`super::NameParams`] → [`super::AgentView`]. Auditors too.
    pub const AGENT_SHOW: &str = "agent.show";
    /// [`super::SetParams`] → [`super::AgentView`].
    pub const AGENT_SET: &str = "agent.set";
    /// [`super::RotateParams`] → [`super::TokenReply`].
    pub const AGENT_ROTATE_TOKEN: &str = "agent.rotate_token";
    /// [`super::NameParams`] → [`super::AgentView`].
    pub const AGENT_PAUSE: &str = "agent.pause";
    /// [`super::NameParams`] → [`super::AgentView`].
    pub const AGENT_RESUME: &str = "agent.resume";
    /// [`super::NameParams`] → [`super::AgentView`]. Pause, and cut what is open.
    pub const AGENT_SEVER: &str = "agent.sever";
    /// [`super::NameParams`] → [`super::AgentView`]. Closes it; the name stays taken.
    pub const AGENT_DELETE: &str = "agent.delete";
    /// [`super::GroupCreateParams`] → [`super::ScopeView`].
    pub const GROUP_CREATE: &str = "group.create";
    /// `{}` → [`super::ScopeList`]: the kernel and every group. Auditors too.
    pub const GROUP_LIST: &str = "group.list";
    /// [`super::NameParams`] → [`super::ScopeView`]. Auditors too.
    pub const GROUP_SHOW: &str = "group.show";
    /// [`super::GroupSetParams`] → [`super::ScopeView`]. `kernel` is the kernel's own scope.
    pub const GROUP_SET: &str = "group.set";
    /// [`super::NameParams`] → [`super::ScopeView`].
    pub const GROUP_PAUSE: &str = "group.pause";
    /// [`super::NameParams`] → [`super::ScopeView`].
    pub const GROUP_RESUME: &str = "group.resume";
    /// [`super::NameParams`] → [`super::ScopeView`]. Pause, and cut what is open anywhere below it.
    pub const GROUP_SEVER: &str = "group.sever";
    /// [`super::NameParams`] → [`super::ScopeView`]. Only an empty one; the name stays taken.
    pub const GROUP_DELETE: &str = "group.delete";
    /// `{}` → [`super::ScopeList`]: every scope that is not ended, each after its parent. Auditors too.
    pub const TREE: &str = "kernel.tree";
    /// [`super::RunCreateParams`] → [`super::TokenReply`].
    pub const RUN_CREATE: &str = "run.create";
    /// [`super::NameParams`] → [`super::ScopeView`]. Ends it and every run below, open streams included.
    pub const RUN_END: &str = "run.end";
    /// [`super::NameParams`] → [`super::TokenList`]. Auditors too.
    pub const TOKEN_LIST: &str = "token.list";
    /// [`super::TokenCreateParams`] → [`super::TokenReply`]. A further token of the same agent.
    pub const TOKEN_CREATE: &str = "token.create";
    /// [`super::TokenIdParams`] → [`super::TokenView`].
    pub const TOKEN_REVOKE: &str = "token.revoke";
    /// `{}` → [`super::Status`]. Auditors too.
    pub const STATUS: &str = "kernel.status";
    /// `{}` → [`super::Metrics`]. Auditors too.
    pub const METRICS: &str = "kernel.metrics";
    /// [`super::TailParams`] → [`super::Tail`]. Auditors too.
    pub const LEDGER_TAIL: &str = "ledger.tail";
    /// [`super::AuditParams`] → [`super::AuditReport`]. Auditors too.
    pub const LEDGER_AUDIT: &str = "ledger.audit";
    /// `{}` → [`super::Replay`]. Auditors too.
    pub const LEDGER_REPLAY: &str = "ledger.replay";
    /// `{}` → [`super::Checkpoint`] of the last event.
    pub const LEDGER_CHECKPOINT: &str = "ledger.checkpoint";
    /// [`super::BackupParams`] → [`super::BackupReply`].
    pub const LEDGER_BACKUP: &str = "ledger.backup";
    /// [`super::BackupPartParams`] → [`super::BackupPart`].
    pub const LEDGER_BACKUP_PART: &str = "ledger.backup_part";
    /// [`super::ResolveParams`] → [`super::ResolveReply`].
    pub const LEDGER_RESOLVE: &str = "ledger.resolve";
    /// [`crate::explain::ExplainParams`] → [`crate::explain::ExplainReply`]. Nothing is held.
    pub const POLICY_EXPLAIN: &str = "policy.explain";
    /// [`crate::rehearsal::RehearseParams`] → [`crate::rehearsal::Rehearsal`].
    pub const POLICY_REHEARSE: &str = "policy.rehearse";
    /// `{}` → [`super::ProviderList`]. Auditors too.
    pub const PROVIDER_LIST: &str = "providers.list";
    /// `{}` → [`super::ModelList`]. Auditors too.
    pub const MODEL_LIST: &str = "models.list";
    /// [`super::ConfigText`] → [`super::ConfigSummary`], or error `BAD_CONFIG`.
    pub const CONFIG_CHECK: &str = "config.check";
    /// `{}` → [`super::ConfigSummary`], or error `BAD_CONFIG`; the old one then stays in force.
    pub const CONFIG_RELOAD: &str = "config.reload";
    /// `{}` → the OpenRPC document. Auditors too.
    pub const DISCOVER: &str = "rpc.discover";
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelView {
    pub name: String,
    pub provider: String,
    pub upstream_model: String,
    /// `models.yaml`, `catalogue`, `free`, or `none`: then it is refused.
    pub price_source: String,
    /// Picodollars a token: 1 USD per million tokens is 1,000,000.
    pub input_pico: Option<u64>,
    pub cached_input_pico: Option<u64>,
    pub output_pico: Option<u64>,
    pub max_output_tokens: Option<u64>,
    pub context_window: Option<u64>,
    /// Whose keys its provider is used with.
    #[serde(default)]
    pub keys: KeyPolicy,
    /// Its provider is on this machine, and needs no key.
    #[serde(default)]
    pub loopback: bool,
    /// `ordered`, `weighted` or `cheapest`, where it has several targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routing: Option<String>,
    /// Its further targets; what stands above is of the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallbacks: Vec<ModelView>,
    /// Where its routing is weighted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelList {
    pub models: Vec<ModelView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigText {
    pub text: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigSummary {
    pub providers: u64,
    pub models: u64,
    #[serde(default)]
    pub policies: u64,
    /// Things that are allowed but probably not meant (a model without a price, …).
    pub warnings: Vec<String>,
    /// The providers, one by one; where only numbers were asked for there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub provider_list: Vec<ProviderView>,
}

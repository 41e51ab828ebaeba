//! What an operator (or, for the reads, an auditor) may ask of `aex-admin`. Money is in whole
//! micro-dollars, times are Unix milliseconds unless the name says otherwise.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::CertDigest;
use crate::capabilities::Capabilities;
use crate::egress::KeyPolicy;
use crate::limit::{Limit, LimitKey};
use crate::listen::Listening;
use crate::sandbox::InForce;

mod provider;
mod tree;

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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerView {
    pub worker: u32,
    pub pid: u32,
    pub in_flight: u64,
    #[serde(default)]
    pub sandbox: InForce,
    /// The group whose agents alone it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Where it takes agents' connections, as it says itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<Listening>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    /// `advisory` in user mode (one uid for all), `enforced` under systemd.
    pub boundary: String,
    pub ready: bool,
    /// What is missing, when not ready.
    pub why: Option<String>,
    pub pid: u32,
    pub uptime_ms: u64,
    pub egress_pid: Option<u32>,
    /// Providers for which an operator's key is loaded.
    pub operator_keys: Vec<String>,
    pub workers: Vec<WorkerView>,
    pub agents: u64,
    pub open_holds: u64,
    pub waiting: u64,
    pub events: i64,
    pub ledger: String,
    pub config_generation: u64,
    /// What holds `aex-admin` in, and the egress when it is there; the workers' is in `workers`.
    #[serde(default)]
    pub sandbox: InForce,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_sandbox: Option<InForce>,
    /// As of [`method::TREE`]: every scope that has not ended, each after its parent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<ScopeView>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    pub uptime_ms: u64,
    pub reserves: u64,
    pub granted: u64,
    /// Answered by a request that was carried out before, under the same `Idempotency-Key`.
    pub replayed: u64,
    /// By refusal code.
    pub refused: std::collections::BTreeMap<String, u64>,
    /// By basis: exact, estimated, ceiling, released.
    pub settled: std::collections::BTreeMap<String, u64>,
    /// Policies that matched, by name.
    #[serde(default)]
    pub policies: std::collections::BTreeMap<String, PolicyCounts>,
    /// Bills above their hold.
    pub overruns: u64,
    /// Calls outside the caller's role.
    pub role_violations: u64,
    /// Tokens that came from another peer than the one they are bound to.
    #[serde(default)]
    pub wrong_peers: u64,
    pub outside_updates: u64,
    pub commits: u64,
    pub operations: u64,
    pub open_holds: u64,
    pub waiting: u64,
    pub spent_micro: i64,
    pub held_micro: i64,
    pub agents: Vec<AgentView>,
    /// Targets that failed of late, and have not answered since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub breakers: Vec<BreakerView>,
}

/// A circuit breaker of one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerView {
    pub provider: String,
    pub upstream_model: String,
    /// `closed`: it is used; `open`: others are used before it; `half_open`: one request tries it.
    pub state: String,
    /// Failures in a row.
    pub failures: u32,
    /// Until it is tried again, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opens_in_ms: Option<u64>,
}

/// Requests that a policy matched, by its mode, and how many of them only because it could not be
/// evaluated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyCounts {
    pub denied: u64,
    pub warned: u64,
    pub shadowed: u64,
    pub errors: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TailParams {
    /// Events after this id; absent: the last `limit`.
    pub after: Option<i64>,
    /// At most 1000.
    pub limit: Option<u32>,
    /// Wait up to [`crate::worker::POLL_MS`] for one when there is none.
    pub follow: bool,
}

/// One event, as the ledger has it: every field of the hash chain.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EventView {
    pub id: i64,
    pub at_ms: i64,
    pub agent: Option<String>,
    pub action: String,
    pub cost_micro: i64,
    pub cost_pico: i64,
    /// By how much the agent's held money moved.
    #[serde(default)]
    pub held_pico: i64,
    pub hold: Option<String>,
    /// A JSON object, byte for byte as it was hashed.
    pub detail: Box<serde_json::value::RawValue>,
    /// SHA-256, 64 hexadecimal digits.
    pub hash: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Tail {
    pub events: Vec<EventView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Name of the property, e.g. `spent_equals_commits`.
    pub property: String,
    pub agent: Option<String>,
    pub event: Option<i64>,
    pub message: String,
}

/// A signed statement: "the event of this number had this hash". Kept outside of the ledger, it proves
/// later that the history up to there is still the same.
///
/// `signature` is Ed25519 (RFC 8032) over the bytes `aex ledger checkpoint 1\0`, then `event`, `at_ms`
/// and `spent_micro` (8 bytes each, big-endian), then the 32 bytes of `hash`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    pub event: i64,
    /// SHA-256 of the chain at `event`, 64 hexadecimal digits.
    pub hash: String,
    pub at_ms: i64,
    /// What all agents had spent.
    pub spent_micro: i64,
    /// Ed25519, 64 hexadecimal digits.
    pub public_key: String,
    /// 128 hexadecimal digits.
    pub signature: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditParams {
    /// Checkpoints that were kept elsewhere; at most [`MAX_AGAINST`].
    pub against: Vec<Checkpoint>,
}

/// Most checkpoints that an audit compares with.
pub const MAX_AGAINST: usize = 1000;

/// One agent's balance as stored, and as its events make it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayedBalance {
    pub agent: String,
    pub spent_micro: i64,
    pub carry_pico: i64,
    pub held_pico: i64,
    pub budget_micro: i64,
    /// Stored and replayed are the same.
    pub same: bool,
    /// What its events make; differs from the above only when `same` is false.
    pub replayed_spent_micro: i64,
    pub replayed_carry_pico: i64,
    pub replayed_held_pico: i64,
    pub replayed_budget_micro: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    pub same: bool,
    pub events: i64,
    pub agents: Vec<ReplayedBalance>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupParams {
    /// Absolute; must not exist yet. `aex-admin` writes it, so it lies where `aex-admin` may write: in the
    /// ledger's own directory. Absent: nobody's file, read with [`method::LEDGER_BACKUP_PART`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupReply {
    /// Where it is; empty as long as it has no name.
    #[serde(default)]
    pub path: String,
    pub bytes: u64,
    /// The last event that is in it.
    pub event: i64,
    pub hash: String,
    /// Its number for [`method::LEDGER_BACKUP_PART`], until the next is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
}

/// Bytes of a backup in one answer.
pub const BACKUP_PART_BYTES: u32 = 512 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupPartParams {
    pub id: u64,
    pub offset: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupPart {
    /// Base64 of at most [`BACKUP_PART_BYTES`]; empty at the end, and then the backup is forgotten.
    pub data: String,
}

/// What `aex ledger restore` found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreReport {
    /// False: something is missing in the backup, and nothing was changed.
    pub restored: bool,
    /// Events of the backup, and the hash of its last.
    pub events: i64,
    pub hash: String,
    /// Events that the ledger that is there or its last checkpoint tell, and the backup lacks.
    pub missing_events: i64,
    /// What agents had spent by them, beyond what they had by the backup.
    pub missing_spent_micro: i64,
    /// The backup's history is not that of the last checkpoint, or of the ledger that is there.
    pub diverged: bool,
    /// The ledger that is there cannot be read, so nobody knows what the backup lacks of it.
    pub unreadable: bool,
    /// The backup is signed with another key than the one beside the ledger.
    pub foreign_key: bool,
    /// Requests that the egress's journal tells as sent, and the backup does not know.
    pub unknown_requests: u64,
    /// Where the ledger that was replaced is now.
    pub replaced: Option<String>,
}

impl RestoreReport {
    /// Nothing is known to be missing.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.missing_events == 0
            && !self.diverged
            && !self.unreadable
            && !self.foreign_key
            && self.unknown_requests == 0
    }
}

/// A correction: what a request really cost, or money that has no request. Exactly one of `hold` and
/// `agent`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResolveParams {
    /// Reservation id of an ended request: it is to have cost `cost_pico` in all.
    pub hold: Option<String>,
    /// `cost_pico`, signed, is added to what this agent spent.
    pub agent: Option<String>,
    pub cost_pico: i64,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolveReply {
    pub agent: String,
    /// What was appended: signed.
    pub cost_micro: i64,
    pub cost_pico: i64,
    /// The correction's event; absent when the ledger had that cost already.
    pub event: Option<i64>,
    pub remaining_micro: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditReport {
    pub ok: bool,
    pub events: i64,
    /// Signed checkpoints in the ledger that hold.
    #[serde(default)]
    pub checkpoints: u64,
    pub agents: u64,
    pub spent_micro: i64,
    /// Hash of the last event.
    pub head: String,
    pub violations: Vec<Finding>,
    /// Changes made from outside (UPDATE in the sqlite3 shell), and the like.
    pub warnings: Vec<Finding>,
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

/// `run/daemon.json`: what the user-mode supervisor says of itself, for `aex status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonState {
    pub pid: u32,
    /// Where agents connect to: `127.0.0.1:9000`, or `unix:/run/x/agents.sock` where there is no TCP.
    pub listen: String,
    pub workers: u32,
    /// All places where agents connect to, in that form.
    #[serde(default)]
    pub listeners: Vec<String>,
    #[serde(flatten)]
    pub front: Front,
}

/// On what terms agents' TCP connections are taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Front {
    /// Absent: plain HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsPlaces>,
    /// Beyond loopback as well, asked for by name.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub plain_http: bool,
}

/// Files of TLS, PEM, by absolute paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsPlaces {
    pub cert: PathBuf,
    pub key: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
}

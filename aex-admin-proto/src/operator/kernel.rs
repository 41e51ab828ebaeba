//! How the kernel is: its programs, and its figures.

use serde::{Deserialize, Serialize};

use super::{AgentView, ScopeView};
use crate::listen::Listening;
use crate::sandbox::InForce;

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

//! Reading, proving, saving and mending the ledger.

use serde::{Deserialize, Serialize};

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

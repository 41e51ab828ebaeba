//! The attempts of one request at the targets of its model, one after the other.
//!
//! Each has an id, a hold and a ticket of its own; the one before is settled first. What is kept for the
//! next one is bounded: a large body is kept only where there is room for it twice.

use aex_admin_proto::worker::{Again, Grant, MAX_ATTEMPTS, Replay, Tried};
use aex_admin_proto::{HoldId, clock};
use http::Response;

use super::asking::{NoGrant, reserve};
use super::{Answer, Job, Ways};
use crate::body::Outgoing;
use crate::room::{Room, SMALL_BYTES, Taken};

/// The request, kept while it is under way.
pub(super) struct Kept {
    job: Box<Job>,
    /// Of its body; the copy that is sent has the first.
    room: Option<Taken>,
}

impl Kept {
    /// Nothing where this attempt is the last, or its body too large to be kept now.
    pub(super) fn of(job: Box<Job>, grant: &Grant, bodies: &Room) -> Option<Self> {
        if grant.retry_until_boot_ms == 0 {
            return None;
        }
        let bytes = job.body.len() as u64;
        let room = match bytes > SMALL_BYTES {
            true => Some(bodies.try_take(bytes)?),
            false => None,
        };
        Some(Self { job, room })
    }

    /// For the next attempt: the copy that was sent is gone, and its room with it.
    pub(super) fn give_back(mut self, of_the_copy: Option<Taken>) -> Box<Job> {
        self.job.room = self.room.or(of_the_copy);
        self.job
    }
}

/// An attempt that is settled and came to nothing, while its client waits.
pub(super) struct Failed {
    pub(super) job: Box<Job>,
    pub(super) client: Answer,
    /// What the client is told when there is no next one.
    pub(super) told: Response<Outgoing>,
    pub(super) tried: Attempted,
    /// Of what is told.
    pub(super) _room: Option<Taken>,
}

/// What the next attempt must say of it.
pub(super) struct Attempted {
    pub(super) id: HoldId,
    pub(super) provider: String,
    pub(super) upstream_model: String,
    pub(super) cost_micro: i64,
    pub(super) retry_until_boot_ms: u64,
}

/// What follows an attempt that failed.
pub(super) enum Next {
    Granted(Box<Grant>),
    /// Nothing: it was the last.
    Last,
    /// The same request was carried out meanwhile, under the same key.
    Before(Replay),
}

/// The attempts so far.
#[derive(Default)]
pub(super) struct Course {
    tried: Vec<Tried>,
    /// What they cost.
    pub(super) cost_micro: i64,
    /// When all of them must end; the first one's grant says so.
    until_boot_ms: Option<u64>,
}

impl Course {
    /// Asks for the next attempt. What is refused (no target is left that this agent may use or pay) is no
    /// news for the client: it is told of the attempt that failed.
    pub(super) async fn next(
        &mut self,
        ways: &Ways,
        job: &mut Job,
        client: &mut Answer,
        failed: Attempted,
    ) -> Next {
        let until_boot_ms = *(self.until_boot_ms).get_or_insert(failed.retry_until_boot_ms);
        self.cost_micro = self.cost_micro.saturating_add(failed.cost_micro);
        self.tried.push(Tried {
            id: failed.id,
            provider: failed.provider,
            upstream_model: failed.upstream_model,
        });
        let in_time = clock::boot_ms() < until_boot_ms;
        if self.tried.len() >= MAX_ATTEMPTS || !in_time || client.is_closed() {
            return Next::Last;
        }
        let id = match ways.ids.next() {
            Ok(id) => id,
            Err(error) => {
                tracing::error!(%error, "no randomness for an attempt's id");
                return Next::Last;
            }
        };
        (job.id, job.params.id) = (id, id);
        // Another target may count by another tokenizer, and says so when it matters.
        (job.params.facts.measured, job.params.facts.measured_by) = (None, None);
        job.params.again = Some(Box::new(Again {
            tried: self.tried.clone(),
            until_boot_ms,
        }));
        match reserve(&ways.admin, job, client).await {
            Ok(grant) => {
                tracing::info!(
                    %id, after = %failed.id, provider = grant.provider, "tried at another target"
                );
                Next::Granted(grant)
            }
            Err(NoGrant::Row(row)) => {
                tracing::info!(%id, after = %failed.id, code = row.code, "no other target");
                Next::Last
            }
            Err(NoGrant::Before(before)) => Next::Before(before),
        }
    }
}

//! Answers on their way into the spool, and the memory that they share: nobody waits for it, and no tenant
//! has so much of it that as much is not left for others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aex_admin_proto::scope::ScopeId;
use http::{HeaderMap, StatusCode};

use super::MAX_ANSWER_BYTES;

/// Memory for all of them, in units of [`UNIT_BYTES`]: 64 MiB.
pub(super) const ROOM_UNITS: usize = 4096;
const UNIT_BYTES: usize = 16 * 1024;

/// An answer as it grows, within bounds: one that passes them is given up.
pub struct Gathering {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// None: given up.
    pub(super) body: Option<Vec<u8>>,
    pub(super) taken: Taken,
}

impl Gathering {
    pub fn push(&mut self, bytes: &[u8]) {
        let Some(body) = &mut self.body else { return };
        let length = body.len() + bytes.len();
        if length <= MAX_ANSWER_BYTES && self.taken.grow_to(length.div_ceil(UNIT_BYTES)) {
            body.extend_from_slice(bytes);
        } else {
            self.body = None;
            self.taken.give_back();
        }
    }
}

/// The memory, and who has how much of it.
#[derive(Debug, Default)]
pub(super) struct Room(Mutex<Shares>);

#[derive(Debug, Default)]
struct Shares {
    taken: usize,
    tenants: HashMap<ScopeId, usize>,
}

impl Room {
    fn shares(&self) -> MutexGuard<'_, Shares> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one answer takes of it, given back when dropped.
#[derive(Debug)]
pub(super) struct Taken {
    room: Arc<Room>,
    pub(super) tenant: ScopeId,
    units: usize,
}

impl Taken {
    pub(super) fn none_yet(room: &Arc<Room>, tenant: ScopeId) -> Self {
        Self {
            room: Arc::clone(room),
            tenant,
            units: 0,
        }
    }

    /// Whether there is room for so much.
    fn grow_to(&mut self, units: usize) -> bool {
        let more = units.saturating_sub(self.units);
        if more == 0 {
            return true;
        }
        let mut shares = self.room.shares();
        let own = shares.tenants.get(&self.tenant).copied().unwrap_or(0) + more;
        let taken = shares.taken + more;
        if taken + own > ROOM_UNITS {
            return false;
        }
        shares.taken = taken;
        shares.tenants.insert(self.tenant, own);
        self.units = units;
        true
    }

    fn give_back(&mut self) {
        let units = std::mem::take(&mut self.units);
        let mut shares = self.room.shares();
        shares.taken -= units;
        if let Some(own) = shares.tenants.get_mut(&self.tenant) {
            *own -= units;
            if *own == 0 {
                shares.tenants.remove(&self.tenant);
            }
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.give_back();
    }
}

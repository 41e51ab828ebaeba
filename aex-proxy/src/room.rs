//! Memory for what is large: a worker takes bodies into memory whole, and all of them together have a
//! bound, and those of one tenant another. Small ones are bounded by the number of connections alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use aex_admin_proto::scope::ScopeId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What is not larger than this needs no room.
pub const SMALL_BYTES: u64 = 64 * 1024;
/// Room for all that is larger, in KiB.
const ROOM_KIB: u32 = 256 * 1024;

/// A tenant's part of it: the other half is there for others.
const SHARE_KIB: u32 = ROOM_KIB / 2;
/// Bodies of one tenant that arrive slowly at once: each keeps a connection.
const SLOW_PLACES: usize = 256;

/// A handle; clones share the room.
#[derive(Clone)]
pub struct Room {
    all: Arc<Semaphore>,
    tenants: Arc<Mutex<Tenants>>,
}

/// The tenants that have something now.
#[derive(Default)]
struct Tenants {
    shares: HashMap<ScopeId, Weak<Share>>,
    /// How many there may be before those that have nothing any more are forgotten.
    sweep_at: usize,
}

/// What one tenant has a right to.
#[derive(Debug)]
struct Share {
    room: Arc<Semaphore>,
    slow: Arc<Semaphore>,
}

/// Room that is taken, given back when dropped.
#[derive(Debug)]
pub struct Taken {
    _permit: Option<OwnedSemaphorePermit>,
    _of_share: Option<OfShare>,
}

/// Something of a tenant's share, given back when dropped.
#[derive(Debug)]
pub struct OfShare {
    _permit: OwnedSemaphorePermit,
    _share: Arc<Share>,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(ROOM_KIB as usize)),
            tenants: Arc::default(),
        }
    }
}

impl Room {
    /// Waits for room for `bytes`, first come, first served; the caller bounds the time. What is larger
    /// than all the room takes all of it.
    pub async fn take(&self, bytes: u64) -> Taken {
        // It fails only for a closed semaphore, and this one is never closed.
        let permit = Arc::clone(&self.all).acquire_many_owned(kib(bytes)).await;
        Taken {
            _permit: permit.ok(),
            _of_share: None,
        }
    }

    /// As [`Room::take`], of a tenant's share: it waits for its own first, and others do not wait for it.
    pub async fn take_share(&self, tenant: ScopeId, bytes: u64) -> Taken {
        let share = self.share(tenant);
        let own = Arc::clone(&share.room);
        let permit = own.acquire_many_owned(kib(bytes).min(SHARE_KIB)).await;
        Taken {
            _of_share: permit.ok().map(|permit| OfShare {
                _permit: permit,
                _share: share,
            }),
            ..self.take(bytes).await
        }
    }

    /// A place for a body that arrives slowly; none when the tenant has all of its.
    #[must_use]
    pub fn slow_place(&self, tenant: ScopeId) -> Option<OfShare> {
        let share = self.share(tenant);
        let permit = Arc::clone(&share.slow).try_acquire_owned().ok()?;
        Some(OfShare {
            _permit: permit,
            _share: share,
        })
    }

    fn share(&self, tenant: ScopeId) -> Arc<Share> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = tenants.shares.get(&tenant).and_then(Weak::upgrade) {
            return share;
        }
        if tenants.shares.len() >= tenants.sweep_at {
            tenants.shares.retain(|_, share| share.strong_count() > 0);
            tenants.sweep_at = (tenants.shares.len() * 2).max(64);
        }
        let share = Arc::new(Share {
            room: Arc::new(Semaphore::new(SHARE_KIB as usize)),
            slow: Arc::new(Semaphore::new(SLOW_PLACES)),
        });
        tenants.shares.insert(tenant, Arc::downgrade(&share));
        share
    }

    /// Room for `bytes`, if it is there now. What holds room already must not wait for more.
    #[must_use]
    pub fn try_take(&self, bytes: u64) -> Option<Taken> {
        let permit = Arc::clone(&self.all).try_acquire_many_owned(kib(bytes));
        permit.ok().map(|permit| Taken {
            _permit: Some(permit),
            _of_share: None,
        })
    }
}

fn kib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1024))
        .unwrap_or(ROOM_KIB)
        .min(ROOM_KIB)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    const A: ScopeId = ScopeId::Agent(1);
    const B: ScopeId = ScopeId::Agent(2);

    fn share_at_once(room: &Room, tenant: ScopeId, bytes: u64) -> Option<Taken> {
        let taking = pin!(room.take_share(tenant, bytes));
        match taking.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(taken) => Some(taken),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_tenant_that_has_its_share_waits_and_others_do_not() {
        let room = Room::default();
        let half = share_at_once(&room, A, u64::from(SHARE_KIB) * 1024);
        assert!(half.is_some());
        assert!(share_at_once(&room, A, 1).is_none());
        assert!(share_at_once(&room, B, 1).is_some());
        let slow: Vec<_> = (0..SLOW_PLACES).map(|_| room.slow_place(A)).collect();
        assert!(slow.iter().all(Option::is_some));
        assert!(room.slow_place(A).is_none() && room.slow_place(B).is_some());
        drop((half, slow));
        assert!(share_at_once(&room, A, 1).is_some() && room.slow_place(A).is_some());
    }

    #[test]
    fn tenants_that_have_nothing_are_forgotten() {
        let room = Room::default();
        for agent in 0..10_000 {
            assert!(room.slow_place(ScopeId::Agent(agent)).is_some());
        }
        assert!(room.tenants.lock().unwrap().shares.len() <= 64);
    }

    fn at_once(room: &Room, bytes: u64) -> Option<Taken> {
        match pin!(room.take(bytes)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(taken) => Some(taken),
            Poll::Pending => None,
        }
    }

    #[test]
    fn what_is_larger_than_all_takes_all_and_the_next_waits() {
        let room = Room::default();
        let all = at_once(&room, u64::MAX);
        assert!(all.is_some());
        assert!(at_once(&room, 1).is_none());
        assert!(room.try_take(1).is_none());
        drop(all);
        assert!(room.try_take(1).is_some());
        assert!(at_once(&room, 1).is_some());
    }
}

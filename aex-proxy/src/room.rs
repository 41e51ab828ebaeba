//! Memory for what is large: a worker takes bodies into memory whole, and all of them together have a
//! bound. Small ones are bounded by the number of connections alone.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What is not larger than this needs no room.
pub const SMALL_BYTES: u64 = 64 * 1024;
/// Room for all that is larger, in KiB.
const ROOM_KIB: u32 = 256 * 1024;

/// A handle; clones share the room.
#[derive(Clone)]
pub struct Room(Arc<Semaphore>);

/// Room that is taken, given back when dropped.
#[derive(Debug)]
pub struct Taken {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ROOM_KIB as usize)))
    }
}

impl Room {
    /// Waits for room for `bytes`, first come, first served; the caller bounds the time. What is larger
    /// than all the room takes all of it.
    pub async fn take(&self, bytes: u64) -> Taken {
        let kib = kib(bytes);
        // It fails only for a closed semaphore, and this one is never closed.
        Taken {
            _permit: Arc::clone(&self.0).acquire_many_owned(kib).await.ok(),
        }
    }

    /// Room for `bytes`, if it is there now. What holds room already must not wait for more.
    #[must_use]
    pub fn try_take(&self, bytes: u64) -> Option<Taken> {
        let permit = Arc::clone(&self.0).try_acquire_many_owned(kib(bytes));
        permit.ok().map(|permit| Taken {
            _permit: Some(permit),
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

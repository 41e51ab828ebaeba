//! Connections of one socket, by who has them: no user has all, and root always finds a place, to end what
//! goes wrong.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most connections of one socket at once.
const MAX: usize = 256;
/// What is left to root of a socket that several users may call.
const OF_ROOT: usize = 16;
/// Most of one user there: half, since `aex run` holds one for as long as its command runs.
const OF_A_USER: usize = 128;

#[derive(Debug)]
pub(super) struct Places {
    /// Whether more than one user may call.
    is_shared: bool,
    by_uid: Mutex<HashMap<u32, usize>>,
}

/// One connection's, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    all: Arc<Places>,
    uid: u32,
}

impl Places {
    pub(super) fn new(is_shared: bool) -> Arc<Self> {
        let by_uid = Mutex::default();
        Arc::new(Self { is_shared, by_uid })
    }

    fn by_uid(&self) -> MutexGuard<'_, HashMap<u32, usize>> {
        self.by_uid.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// None: there is none left for this user.
    pub(super) fn take(self: &Arc<Self>, uid: u32) -> Option<Place> {
        let mut by_uid = self.by_uid();
        let all: usize = by_uid.values().sum();
        let own = by_uid.get(&uid).copied().unwrap_or(0);
        let (most, most_of_one) = match self.is_shared && uid != 0 {
            true => (MAX - OF_ROOT, OF_A_USER),
            false => (MAX, MAX),
        };
        if all >= most || own >= most_of_one {
            return None;
        }
        by_uid.insert(uid, own + 1);
        Some(Place {
            all: Arc::clone(self),
            uid,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_uid = self.all.by_uid();
        if let Some(own) = by_uid.get_mut(&self.uid) {
            *own -= 1;
            if *own == 0 {
                by_uid.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(places: &Arc<Places>, uid: u32) -> Vec<Place> {
        std::iter::from_fn(|| places.take(uid)).collect()
    }

    #[test]
    fn no_user_has_all_and_root_finds_a_place() {
        let places = Places::new(true);
        let (one, other) = (taken(&places, 1000), taken(&places, 1001));
        assert_eq!(
            (one.len(), other.len()),
            (OF_A_USER, MAX - OF_ROOT - OF_A_USER)
        );
        assert!(places.take(1002).is_none());
        assert_eq!(taken(&places, 0).len(), OF_ROOT);
        drop(other);
        assert!(places.take(1002).is_some());
        assert!(places.take(1000).is_none());
        drop(one);
        assert!(places.by_uid().is_empty());
    }

    #[test]
    fn a_socket_of_one_user_is_all_its() {
        let places = Places::new(false);
        assert_eq!(taken(&places, 1000).len(), MAX);
    }
}

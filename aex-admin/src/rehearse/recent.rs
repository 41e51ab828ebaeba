//! The last of something, by reservation. Bounded: the oldest goes.

use std::collections::{HashMap, VecDeque};

use aex_admin_proto::HoldId;

/// How many are known.
const MOST: usize = 50_000;

pub(super) struct Recent<T> {
    known: HashMap<HoldId, T>,
    order: VecDeque<HoldId>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self {
            known: HashMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl<T> Recent<T> {
    pub(super) fn get(&self, id: &HoldId) -> Option<&T> {
        self.known.get(id)
    }

    pub(super) fn put(&mut self, id: HoldId, value: T) {
        if self.order.len() >= MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(id);
        self.known.insert(id, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes() {
        let id = |number: usize| {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
            HoldId::from(bytes)
        };
        let mut recent = Recent::default();
        for number in 0..=MOST {
            recent.put(id(number), number);
        }
        assert_eq!((recent.get(&id(0)), recent.get(&id(1))), (None, Some(&1)));
    }
}

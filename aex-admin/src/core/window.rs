//! An exact sliding window: how much happened in the last 60 seconds, for any 60 seconds.
//!
//! Amounts lie in hundredths of a second, each rounded up to its end, so an amount leaves up to 10 ms
//! late and never early, and a window is at most some 6,000 entries whatever the load. Times are the
//! boot clock's, passed in.

use std::collections::VecDeque;

pub const WINDOW_MS: u64 = 60_000;
const BUCKET_MS: u64 = 10;

#[derive(Debug, Clone, Default)]
pub struct Window {
    /// (end of the hundredth, in hundredths since boot; amount), oldest first.
    buckets: VecDeque<(u64, u64)>,
    sum: u64,
}

impl Window {
    /// Counts `amount` from `at_ms` on. Times may come out of order.
    pub fn add(&mut self, at_ms: u64, amount: u64) {
        if amount == 0 {
            return;
        }
        let end = at_ms.div_ceil(BUCKET_MS);
        self.sum = self.sum.saturating_add(amount);
        // From either end, and cheap at both: a start reads the last minute backwards.
        let at = self.buckets.partition_point(|bucket| bucket.0 <= end);
        match at.checked_sub(1).map(|before| &mut self.buckets[before]) {
            Some(bucket) if bucket.0 == end => bucket.1 = bucket.1.saturating_add(amount),
            _ => self.buckets.insert(at, (end, amount)),
        }
    }

    /// Forgets what is older than the window.
    pub fn expire(&mut self, now_ms: u64) {
        while let Some(&(end, amount)) = self.buckets.front() {
            if leaves_at(end) > now_ms {
                break;
            }
            self.buckets.pop_front();
            self.sum = self.sum.saturating_sub(amount);
        }
    }

    /// What counts now. Exact after [`Window::expire`] with the same time.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// How long until at least `amount` has left, in milliseconds; at most a whole window, as when it
    /// holds less.
    #[must_use]
    pub fn wait_ms(&self, now_ms: u64, amount: u64) -> u64 {
        let mut left = 0u64;
        for &(end, bucket) in &self.buckets {
            left = left.saturating_add(bucket);
            if left >= amount {
                return leaves_at(end).saturating_sub(now_ms).min(WINDOW_MS);
            }
        }
        WINDOW_MS
    }
}

fn leaves_at(end: u64) -> u64 {
    end.saturating_mul(BUCKET_MS).saturating_add(WINDOW_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_edge_lets_nothing_through_twice() {
        let mut window = Window::default();
        window.add(59_950, 10);
        window.expire(60_050);
        assert_eq!(window.sum(), 10);
        window.expire(119_949);
        assert_eq!(window.sum(), 10);
        assert_eq!(window.wait_ms(60_000, 1), 59_950);
        window.expire(119_950);
        assert_eq!(window.sum(), 0);
        // Never longer than what `Retry-After` may say.
        window.add(119_951, 1);
        assert_eq!(window.wait_ms(119_951, 1), 60_000);
    }

    proptest! {
        /// Against the naive list of all amounts: never less than the truth, and never more than
        /// the truth of a window that is 10 ms longer.
        #[test]
        fn holds_at_least_the_truth(mut adds in prop::collection::vec((0u64..200_000, 1u64..100), 0..60)) {
            let mut window = Window::default();
            let mut now = 0;
            for index in 0..adds.len() {
                let (at, amount) = adds[index];
                window.add(at, amount);
                now = now.max(at);
                window.expire(now);
                adds[index] = (at, amount);
                let within = |span: u64| -> u64 {
                    adds[..=index].iter().filter(|(at, _)| at + span > now).map(|a| a.1).sum()
                };
                prop_assert!(window.sum() >= within(WINDOW_MS));
                prop_assert!(window.sum() <= within(WINDOW_MS + BUCKET_MS));
            }
        }
    }
}

//! How long to wait before a program that ended is started again. Pure: uptimes are passed in.

/// A program that was up this long has proved itself: its next end counts as the first.
const PROVEN_MS: u64 = 10_000;
const FIRST_MS: u64 = 100;
const LAST_MS: u64 = 5_000;

#[derive(Debug, Default)]
pub(super) struct Backoff {
    ends_in_a_row: u32,
}

impl Backoff {
    /// The wait after an end: none the first time, then doubling from [`FIRST_MS`] to [`LAST_MS`].
    pub(super) fn after_ms(&mut self, uptime_ms: u64) -> u64 {
        if uptime_ms >= PROVEN_MS {
            self.ends_in_a_row = 0;
        }
        let wait_ms = match self.ends_in_a_row {
            0 => 0,
            // Beyond ten doublings the last wait is long reached.
            n => (FIRST_MS << (n - 1).min(10)).min(LAST_MS),
        };
        self.ends_in_a_row = self.ends_in_a_row.saturating_add(1);
        wait_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_once_then_doubling_then_bounded_and_reset() {
        let mut backoff = Backoff::default();
        let waits: Vec<u64> = (0..9).map(|_| backoff.after_ms(5)).collect();
        assert_eq!(waits, [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff.after_ms(PROVEN_MS), 0);
        assert_eq!(backoff.after_ms(5), 100);
        backoff.ends_in_a_row = u32::MAX;
        assert_eq!(backoff.after_ms(5), LAST_MS);
    }
}

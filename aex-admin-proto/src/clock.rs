//! The one reader of the clock in each program. Pure code gets its times from here by argument.
//!
//! Durations and deadlines use the boot clock, which no operator can set and which counts while the
//! machine sleeps; every process of a host reads the same value. The wall clock only names moments
//! for people.

use nix::time::{ClockId, clock_gettime};

/// Milliseconds since boot (`CLOCK_BOOTTIME`), the same in every process of this host.
#[must_use]
pub fn boot_ms() -> u64 {
    read_ms(ClockId::CLOCK_BOOTTIME)
}

/// Milliseconds since 1970-01-01 UTC (`CLOCK_REALTIME`).
#[must_use]
pub fn wall_ms() -> i64 {
    i64::try_from(read_ms(ClockId::CLOCK_REALTIME)).unwrap_or(i64::MAX)
}

fn read_ms(id: ClockId) -> u64 {
    match clock_gettime(id) {
        Ok(t) => {
            let seconds = u64::try_from(t.tv_sec()).unwrap_or(0);
            let nanos = u64::try_from(t.tv_nsec()).unwrap_or(0);
            seconds
                .saturating_mul(1000)
                .saturating_add(nanos / 1_000_000)
        }
        // Linux always has both clocks; without them no deadline can be kept.
        Err(errno) => panic!("clock_gettime failed: {errno}"),
    }
}

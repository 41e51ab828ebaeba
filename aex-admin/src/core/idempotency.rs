//! What a request under an `Idempotency-Key` that was used before is answered. Pure.
//!
//! One provider call and one charge per agent and key, for [`KEY_MS`]. A key whose request was released
//! is no key that was used: its row is gone.

use aex_admin_proto::{IdempotencyConflict, RequestDigest};

/// How long a key stands for its first request: 24 hours, of the boot clock.
pub const KEY_MS: i64 = 24 * 60 * 60 * 1000;

/// What the ledger has of a key.
#[derive(Debug, Clone, Copy)]
pub struct Used {
    pub request: RequestDigest,
    /// Its hold is open still.
    pub running: bool,
    /// Since its hold was granted, boot clock.
    pub age_ms: i64,
}

/// What comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// As if the key had never been used.
    Nothing,
    Conflict(IdempotencyConflict),
    /// Carried out: its answer is to be given again.
    Done,
}

/// A key whose hold is open stands for its request whatever its age: nothing is carried out twice at once.
#[must_use]
pub fn judge(request: &RequestDigest, used: &Used) -> Found {
    if !used.running && used.age_ms >= KEY_MS {
        Found::Nothing
    } else if *request != used.request {
        Found::Conflict(IdempotencyConflict::AnotherRequest)
    } else if used.running {
        Found::Conflict(IdempotencyConflict::StillRunning)
    } else {
        Found::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(same: bool, running: bool, age_ms: i64, expected: Found) {
        let request = RequestDigest::of("r", b"asked");
        let other = RequestDigest::of("r", b"another");
        let used = Used {
            request: if same { request } else { other },
            running,
            age_ms,
        };
        assert_eq!(judge(&request, &used), expected);
    }

    #[test]
    fn a_key_stands_for_its_first_request_for_a_day() {
        let another = Found::Conflict(IdempotencyConflict::AnotherRequest);
        let running = Found::Conflict(IdempotencyConflict::StillRunning);
        check(true, true, 0, running);
        check(true, false, 0, Found::Done);
        check(false, true, 0, another);
        check(false, false, KEY_MS - 1, another);
        check(true, false, KEY_MS - 1, Found::Done);
        check(true, false, KEY_MS, Found::Nothing);
        check(false, false, KEY_MS, Found::Nothing);
    }

    #[test]
    fn an_open_hold_outlives_the_day() {
        check(
            true,
            true,
            9 * KEY_MS,
            Found::Conflict(IdempotencyConflict::StillRunning),
        );
        check(
            false,
            true,
            9 * KEY_MS,
            Found::Conflict(IdempotencyConflict::AnotherRequest),
        );
    }
}

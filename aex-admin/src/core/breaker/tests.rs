use proptest::prelude::*;

use super::*;

const START: u64 = 1_000_000;

fn after(outcomes: &[Outcome]) -> Breaker {
    let mut breaker = Breaker::default();
    for &outcome in outcomes {
        breaker.heard(outcome, START);
    }
    breaker
}

#[track_caller]
fn check(breaker: &Breaker, after_ms: u64, state: &str, open: bool) {
    let now = START + after_ms;
    assert_eq!(breaker.state(now), state, "{breaker:?}");
    assert_eq!(
        breaker.open_until_boot_ms(now).is_some(),
        open,
        "{breaker:?}"
    );
}

const FAILED: Outcome = Outcome::Failed;

fn busy(seconds: u64) -> Outcome {
    Outcome::Busy {
        retry_after_ms: Some(seconds * 1000),
    }
}

#[test]
fn five_failures_in_a_row_open_it_for_a_second() {
    check(&after(&[FAILED; 4]), 0, "closed", false);
    let open = after(&[FAILED; 5]);
    check(&open, 0, "open", true);
    check(&open, 999, "open", true);
    check(&open, 1_000, "half_open", false);
    let interrupted = [FAILED, FAILED, FAILED, FAILED, Outcome::Answered, FAILED];
    check(&after(&interrupted), 0, "closed", false);
    let nothing = [FAILED, FAILED, FAILED, FAILED, Outcome::Nothing, FAILED];
    check(&after(&nothing), 0, "open", true);
}

#[test]
fn a_429_opens_it_for_the_time_that_it_names_and_a_minute_at_most() {
    check(&after(&[busy(7)]), 6_999, "open", true);
    check(&after(&[busy(7)]), 7_000, "half_open", false);
    check(&after(&[busy(3_600)]), 59_999, "open", true);
    check(&after(&[busy(3_600)]), 60_000, "half_open", false);
    let bare = Outcome::Busy {
        retry_after_ms: None,
    };
    check(&after(&[bare]), 0, "closed", false);
}

#[test]
fn one_probe_at_a_time() {
    let mut breaker = after(&[FAILED; 5]);
    breaker.tried(START + 500);
    check(&breaker, 500, "open", true);
    breaker.tried(START + 1_000);
    check(&breaker, 1_000, "half_open", true);
    let mut lost = breaker.clone();
    check(&lost, 61_000, "half_open", false);
    lost.heard(Outcome::Nothing, START + 1_500);
    check(&lost, 1_500, "half_open", false);
    breaker.heard(Outcome::Answered, START + 1_500);
    assert_eq!(breaker, Breaker::default());
}

#[test]
fn each_probe_that_fails_doubles_the_wait_up_to_a_minute() {
    let mut breaker = after(&[FAILED; 5]);
    let mut now = START;
    let mut waits = Vec::new();
    for _ in 0..8 {
        let until = breaker.open_until_boot_ms(now).expect("it is open");
        waits.push((until - now) / 1000);
        now = until;
        breaker.tried(now);
        breaker.heard(FAILED, now);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
}

#[test]
fn those_under_way_when_it_opened_change_nothing() {
    let mut breaker = after(&[FAILED; 5]);
    for _ in 0..50 {
        breaker.heard(FAILED, START + 10);
    }
    check(&breaker, 999, "open", true);
    check(&breaker, 1_000, "half_open", false);
}

#[test]
fn what_an_ended_attempt_says_of_its_target() {
    let seen = |status, failure| {
        let seen = Observed {
            status,
            failure,
            complete: status.is_some(),
            ..Observed::default()
        };
        Outcome::of(Some(&seen), None)
    };
    for (status, expected) in [
        (200, Outcome::Answered),
        (400, Outcome::Answered),
        (404, Outcome::Answered),
        (408, FAILED),
        (500, FAILED),
        (503, FAILED),
        (599, FAILED),
    ] {
        assert_eq!(seen(Some(status), None), expected, "{status}");
    }
    for (failure, expected) in [
        (Failure::Connect, FAILED),
        (Failure::Tls, FAILED),
        (Failure::Reset, FAILED),
        (Failure::Timeout, FAILED),
        (Failure::NotConfigured, Outcome::Nothing),
        (Failure::Ticket, Outcome::Nothing),
        (Failure::WorkerGone, Outcome::Nothing),
        (Failure::EgressGone, Outcome::Nothing),
        (Failure::Severed, Outcome::Nothing),
    ] {
        assert_eq!(seen(None, Some(failure)), expected, "{failure:?}");
    }
    let broken_off = Observed {
        status: Some(200),
        ..Observed::default()
    };
    assert_eq!(Outcome::of(Some(&broken_off), None), Outcome::Nothing);
    let stalled = Observed {
        failure: Some(Failure::Timeout),
        ..broken_off
    };
    assert_eq!(Outcome::of(Some(&stalled), None), FAILED);
    assert_eq!(Outcome::of(None, None), Outcome::Nothing);
    assert_eq!(Outcome::of(None, Some(&Ending::Voided)), Outcome::Nothing);
    let busy_for = Observed {
        status: Some(429),
        retry_after_s: Some(9),
        ..Observed::default()
    };
    assert_eq!(Outcome::of(Some(&busy_for), None), busy(9));
    assert_eq!(busy(9).under(KeyMode::Operator), busy(9));
    assert_eq!(busy(9).under(KeyMode::Own), Outcome::Nothing);
    assert_eq!(FAILED.under(KeyMode::Own), FAILED);
}

#[test]
fn only_targets_that_fail_are_kept() {
    let mut breakers = Breakers::default();
    breakers.heard("p", "m", Outcome::Answered, START);
    assert_eq!(breakers.iter().count(), 0);
    for _ in 0..5 {
        breakers.heard("p", "m", FAILED, START);
    }
    assert!(breakers.open_until_boot_ms("p", "m", START).is_some());
    assert!(breakers.open_until_boot_ms("p", "n", START).is_none());
    breakers.heard("p", "n", Outcome::Answered, START);
    breakers.heard("p", "m", Outcome::Answered, START);
    assert_eq!(breakers.iter().count(), 0);
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Answered),
        Just(FAILED),
        Just(Outcome::Nothing),
        any::<Option<u64>>().prop_map(|retry_after_ms| Outcome::Busy { retry_after_ms }),
    ]
}

proptest! {
    /// It never stays open for longer than a minute, whatever it hears, and an answer always closes it.
    #[test]
    fn a_minute_later_it_may_always_be_tried(
        heard in prop::collection::vec((outcome(), any::<bool>(), 0..90_000_u64), 0..60),
    ) {
        let mut breaker = Breaker::default();
        let mut now = START;
        for (outcome, tried, pause_ms) in heard {
            if tried {
                breaker.tried(now);
            }
            breaker.heard(outcome, now);
            let open_until = breaker.open_until_boot_ms(now).unwrap_or(now);
            prop_assert!(open_until <= now + 60_000);
            if outcome == Outcome::Answered {
                prop_assert_eq!(&breaker, &Breaker::default());
            }
            now += pause_ms;
        }
    }
}

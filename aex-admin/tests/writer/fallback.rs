//! The attempts of one request at the three targets of the model `two`.

use aex_admin_proto::egress::{Ending, Exchange, Failure};
use aex_admin_proto::worker::{
    Again, Basis, Grant, Idempotency, MAX_ATTEMPTS, Measured, Observed, ReserveParams,
    ReserveReply, Tried,
};
use aex_admin_proto::{HoldId, IdempotencyConflict, KeyDigest, Refusal, RequestDigest};

use crate::kernel::{Agent, Kernel, answered, ask, ended, hold_pico, id, status};

/// The request of `number`, after the attempts before it.
fn attempt(agent: &Agent, number: u8, before: &[(u8, &Grant)]) -> ReserveParams {
    let before: Vec<(HoldId, &Grant)> = before
        .iter()
        .map(|(number, grant)| (id(*number), *grant))
        .collect();
    after(&before, ask(agent, number, Some(50)))
}

/// A request to the model of three targets, after the attempts before it.
pub(crate) fn after(before: &[(HoldId, &Grant)], request: ReserveParams) -> ReserveParams {
    let tried = before.iter().map(|(id, grant)| Tried {
        id: *id,
        provider: grant.provider.clone(),
        upstream_model: grant.upstream_model.clone(),
    });
    let first = before.first().map(|(_, grant)| grant.retry_until_boot_ms);
    ReserveParams {
        model: "two".into(),
        again: first.map(|until_boot_ms| {
            Box::new(Again {
                tried: tried.collect(),
                until_boot_ms,
            })
        }),
        ..request
    }
}

fn keyed(params: ReserveParams) -> ReserveParams {
    ReserveParams {
        idempotency: Some(Idempotency {
            key: KeyDigest::of(b"k"),
            request: RequestDigest::of("chat_completions", b"a"),
        }),
        ..params
    }
}

fn served(grant: &Grant) -> (&str, &str) {
    (&grant.provider, &grant.upstream_model)
}

/// What a worker says of a provider that broke off, and the egress with it.
fn reset() -> (Observed, Ending) {
    let seen = Observed {
        failure: Some(Failure::Reset),
        ..Observed::default()
    };
    let told = Ending::Ended(Exchange {
        sent: true,
        failure: Some(Failure::Reset),
        ..Exchange::default()
    });
    (seen, told)
}

/// Nobody knows what it cost.
fn lose(kernel: &Kernel, number: u8, grant: &Grant) {
    let (seen, told) = reset();
    let reply = kernel.settle(id(number), grant, seen).unwrap();
    assert_eq!(reply.basis, Basis::Ceiling);
    kernel.receipt(id(number), told);
}

/// It refused: nothing is owed.
fn refuse(kernel: &Kernel, number: u8, grant: &Grant) {
    kernel.receipt(id(number), ended(500));
    let reply = kernel.settle(id(number), grant, status(500)).unwrap();
    assert_eq!(reply.basis, Basis::Released);
}

#[test]
fn each_target_is_granted_once_and_the_last_one_says_so() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    let atlas = kernel.agent("atlas", 1_000, 60);
    let first = kernel.reserve(attempt(&atlas, 1, &[])).unwrap();
    assert_eq!(served(&first), ("p", "there"));
    // All of them together may take as long as the slowest of them.
    assert_eq!(first.retry_until_boot_ms - first.deadline_boot_ms, 40_000);
    refuse(&kernel, 1, &first);
    // An operator's key is missing for the second: it is passed over.
    let third = kernel.reserve(attempt(&atlas, 2, &[(1, &first)])).unwrap();
    assert_eq!(served(&third), ("p", "two"));
    assert!(third.retry_until_boot_ms > 0);
    lose(&kernel, 2, &third);
    let last = kernel.reserve(attempt(&atlas, 3, &[(1, &first), (2, &third)]));
    assert_eq!(last, Err(Refusal::ProviderKeyRequired));
    let opened: String = kernel.sql(
        "SELECT CAST(detail AS TEXT) FROM events WHERE hold LIKE '02%' AND action = 'hold.open'",
    );
    assert!(
        opened.contains(&format!(
            "\"attempt\":{{\"number\":2,\"first\":\"{}\"}}",
            id(1)
        )),
        "{opened}"
    );
    kernel.audit();
}

#[test]
fn an_attempt_ends_with_its_request() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    let atlas = kernel.agent("atlas", 1_000, 60);
    let first = kernel.reserve(attempt(&atlas, 1, &[])).unwrap();
    let mut late = attempt(&atlas, 2, &[(1, &first)]);
    late.again.as_mut().unwrap().until_boot_ms = first.deadline_boot_ms - 7;
    let second = kernel.reserve(late).unwrap();
    assert_eq!(second.deadline_boot_ms, first.deadline_boot_ms - 7);
}

#[test]
fn both_holds_must_fit_while_the_first_may_be_owed() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    // One hold is 6 micro-dollars.
    assert_eq!(hold_pico(50), 6_000_000);
    let atlas = kernel.agent("atlas", 11, 60);
    let first = kernel.reserve(attempt(&atlas, 1, &[])).unwrap();
    let next = || attempt(&atlas, 2, &[(1, &first)]);
    let refused = kernel.reserve(next()).unwrap_err();
    assert!(matches!(refused, Refusal::BudgetHeld { .. }), "{refused:?}");
    lose(&kernel, 1, &first);
    let refused = kernel.reserve(next()).unwrap_err();
    let spent = matches!(refused, Refusal::InsufficientBudget { .. });
    assert!(spent, "{refused:?}");

    let bruno = kernel.agent("bruno", 11, 60);
    let first = kernel.reserve(attempt(&bruno, 3, &[])).unwrap();
    refuse(&kernel, 3, &first);
    assert!(kernel.reserve(attempt(&bruno, 4, &[(3, &first)])).is_ok());
    kernel.audit();
}

#[test]
fn a_key_goes_from_attempt_to_attempt_and_to_nobody_else() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    let atlas = kernel.agent("atlas", 1_000, 60);
    let running = ReserveReply::Refused(Refusal::IdempotencyConflict {
        conflict: IdempotencyConflict::StillRunning,
    });
    let first = kernel.reserve(keyed(attempt(&atlas, 1, &[]))).unwrap();
    let next = keyed(attempt(&atlas, 2, &[(1, &first)]));
    assert_eq!(kernel.reply(next.clone()), running, "it is not settled");
    lose(&kernel, 1, &first);
    let second = kernel.reserve(next).unwrap();
    let stranger = keyed(attempt(&atlas, 3, &[]));
    assert_eq!(kernel.reply(stranger.clone()), running);
    kernel.settle(id(2), &second, answered(33, 7)).unwrap();
    kernel.receipt(id(2), ended(200));
    let ReserveReply::Replay(replay) = kernel.reply(stranger) else {
        panic!("it was carried out");
    };
    assert_eq!(replay.id, id(2), "by the attempt that answered");
    let report = aex_admin::audit::of_file(&home.path().join("aex.db"), &[]).unwrap();
    assert!(report.ok && report.warnings.is_empty(), "{report:?}");
}

#[test]
fn a_released_attempt_gives_the_key_back_to_the_one_that_was_charged() {
    let home = tempfile::tempdir().unwrap();
    let mut kernel = Kernel::start(home.path());
    let atlas = kernel.agent("atlas", 1_000, 60);
    let first = kernel.reserve(keyed(attempt(&atlas, 1, &[]))).unwrap();
    lose(&kernel, 1, &first);
    let second = kernel
        .reserve(keyed(attempt(&atlas, 2, &[(1, &first)])))
        .unwrap();
    // What is kept in memory is not what decides.
    kernel.stop();
    let kernel = Kernel::start(home.path());
    refuse(&kernel, 2, &second);
    let ReserveReply::Replay(replay) = kernel.reply(keyed(attempt(&atlas, 3, &[]))) else {
        panic!("its first attempt may have been carried out");
    };
    assert_eq!(replay.id, id(1));
    kernel.audit();

    let bruno = kernel.agent("bruno", 1_000, 60);
    let first = kernel.reserve(keyed(attempt(&bruno, 4, &[]))).unwrap();
    refuse(&kernel, 4, &first);
    let second = kernel
        .reserve(keyed(attempt(&bruno, 5, &[(4, &first)])))
        .unwrap();
    refuse(&kernel, 5, &second);
    let anew = kernel.reserve(keyed(attempt(&bruno, 6, &[])));
    assert!(anew.is_ok(), "nothing was carried out: {anew:?}");
    kernel.audit();
}

#[test]
fn a_count_by_one_tokenizer_bounds_no_other() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    let atlas = kernel.agent("atlas", 1_000_000, 60);
    let mut params = attempt(&atlas, 1, &[]);
    params.facts.ascii_bytes = 40_000;
    params.facts.measured = Some(Measured { text: 9, tools: 0 });
    params.facts.measured_by = Some("o200k_base".into());
    assert!(kernel.reserve(params).is_ok());
    let held = kernel.sql::<i64>("SELECT held_pico FROM agents");
    assert!(held > 40_000 * 10_000, "by its bytes: {held}");
}

#[test]
fn a_worker_cannot_go_on_for_ever() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    let atlas = kernel.agent("atlas", 1_000, 60);
    let first = kernel.reserve(attempt(&atlas, 1, &[])).unwrap();
    let mut params = attempt(&atlas, 2, &[(1, &first)]);
    let again = params.again.as_mut().unwrap();
    for number in 0..MAX_ATTEMPTS {
        again.tried.push(Tried {
            id: HoldId::from([99; 16]),
            provider: "nobody".into(),
            upstream_model: number.to_string(),
        });
    }
    assert!(kernel.reserve(params).is_err());
}

//! `Idempotency-Key`: one charge per agent and key, for a day.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::channel;

use aex_admin::audit;
use aex_admin::core::idempotency::KEY_MS;
use aex_admin::core::reserve::Now;
use aex_admin::writer::{Clock, Command, Reply, Shared, system_clock};
use aex_admin_proto::egress::Ending;
use aex_admin_proto::operator::AuditReport;
use aex_admin_proto::worker::{Basis, Idempotency, Replay, ReserveParams, ReserveReply};
use aex_admin_proto::{IdempotencyConflict, KeyDigest, Refusal, RequestDigest};

use crate::kernel::{Agent, Kernel, LIMIT, answered, ask, ended, id, status, writer};

const ROWS: &str = "SELECT COUNT(*) FROM idempotency";
const EVENTS: &str = "SELECT COUNT(*) FROM events WHERE action <> 'ledger.checkpoint'";

/// A request of 50 output tokens under a key.
fn keyed(agent: &Agent, number: u8, key: &str, body: &str) -> ReserveParams {
    ReserveParams {
        idempotency: Some(Idempotency {
            key: KeyDigest::of(key.as_bytes()),
            request: RequestDigest::of("chat_completions", body.as_bytes()),
        }),
        ..ask(agent, number, Some(50))
    }
}

fn conflict(conflict: IdempotencyConflict) -> ReserveReply {
    ReserveReply::Refused(Refusal::IdempotencyConflict { conflict })
}

fn still_running() -> ReserveReply {
    conflict(IdempotencyConflict::StillRunning)
}

fn another_request() -> ReserveReply {
    conflict(IdempotencyConflict::AnotherRequest)
}

#[track_caller]
fn replayed(reply: &ReserveReply) -> Replay {
    match reply {
        ReserveReply::Replay(replay) => *replay,
        other => panic!("{other:?}"),
    }
}

fn report(kernel: &Kernel) -> AuditReport {
    audit::of_file(&kernel.home.join("aex.db"), &[]).unwrap()
}

#[test]
fn a_key_is_charged_once_and_then_answered_by_its_hold() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    // Three requests a minute: those that are refused or replayed are none.
    let atlas = kernel.agent("atlas", 1_000, 3);
    let bruno = kernel.agent("bruno", 1_000, 3);
    let grant = kernel.reserve(keyed(&atlas, 1, "k", "a")).unwrap();
    assert_eq!(kernel.reply(keyed(&atlas, 2, "k", "a")), still_running());
    assert_eq!(kernel.reply(keyed(&atlas, 3, "k", "b")), another_request());
    assert!(kernel.reserve(keyed(&bruno, 4, "k", "b")).is_ok());
    assert!(kernel.reserve(keyed(&atlas, 5, "k2", "a")).is_ok());
    kernel.settle(id(1), &grant, answered(33, 7)).unwrap();
    kernel.receipt(id(1), ended(200));
    let events = kernel.sql::<i64>(EVENTS);
    for number in 6..20 {
        let replay = replayed(&kernel.reply(keyed(&atlas, number, "k", "a")));
        // 1,000 less 1.03 spent and a hold of 6.
        assert_eq!((replay.id, replay.remaining_micro), (id(1), Some(992)));
        assert_eq!(
            kernel.reply(keyed(&atlas, number, "k", "b")),
            another_request()
        );
    }
    assert_eq!(kernel.sql::<i64>(EVENTS), events, "a replay is no event");
    assert!(
        kernel.reserve(ask(&atlas, 20, Some(50))).is_ok(),
        "the third of the minute"
    );
    let counters = kernel.shared.counters();
    assert_eq!(counters.replayed, 14);
    assert_eq!(counters.refused["idempotency_conflict"], 16);
    assert_eq!(kernel.sql::<i64>(ROWS), 3, "without a key nothing is kept");
    kernel.audit();
}

#[test]
fn who_may_not_ask_is_told_so_first_and_nobody_else() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    let atlas = kernel.agent("atlas", 1_000, 60);
    let grant = kernel.reserve(keyed(&atlas, 1, "k", "a")).unwrap();
    kernel.settle(id(1), &grant, answered(33, 7)).unwrap();
    // What is carried out needs no money, and no model any more.
    kernel.outside("UPDATE agents SET budget_micro = spent_micro, allowed_models = 'none'");
    replayed(&kernel.reply(keyed(&atlas, 2, "k", "a")));
    kernel.outside("UPDATE agents SET state = 'paused'");
    assert_eq!(
        kernel.reserve(keyed(&atlas, 3, "k", "a")),
        Err(Refusal::AgentPaused)
    );
    kernel.outside("UPDATE tokens SET revoked_at_ms = 1");
    assert_eq!(
        kernel.reserve(keyed(&atlas, 4, "k", "b")),
        Err(Refusal::InvalidToken)
    );
}

#[test]
fn a_released_attempt_is_forgotten_and_a_ceiling_is_not() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    let atlas = kernel.agent("atlas", 1_000, 60);
    let refused = kernel.reserve(keyed(&atlas, 1, "k", "a")).unwrap();
    let answer = kernel.settle_later(id(1), &refused, status(500));
    kernel.receipt(id(1), ended(500));
    let answer = answer.recv_timeout(LIMIT).unwrap().unwrap();
    assert_eq!(answer.basis, Basis::Released);
    assert_eq!(kernel.sql::<i64>(ROWS), 0);
    // Another body is another request now. This one is never sent.
    let _ = kernel.reserve(keyed(&atlas, 2, "k", "b")).unwrap();
    kernel.receipt(id(2), Ending::Voided);
    assert_eq!(kernel.sql::<i64>(ROWS), 0);
    let lost = kernel.reserve(keyed(&atlas, 3, "k", "a")).unwrap();
    let reply = kernel.settle(id(3), &lost, status(502)).unwrap();
    assert_eq!(reply.basis, Basis::Ceiling);
    assert_eq!(
        replayed(&kernel.reply(keyed(&atlas, 4, "k", "a"))).id,
        id(3)
    );
    assert_eq!(kernel.reply(keyed(&atlas, 5, "k", "b")), another_request());
    kernel.audit();
    assert!(report(&kernel).warnings.is_empty());
}

#[test]
fn of_two_in_one_batch_one_is_carried_out() {
    let home = tempfile::tempdir().unwrap();
    let mut kernel = Kernel::start(home.path());
    let atlas = kernel.agent("atlas", 1_000, 60);
    kernel.stop();
    let mut writer = writer(
        home.path(),
        "boot",
        Arc::new(Shared::default()),
        system_clock(),
    );
    let (sender, replies) = channel();
    let command = |number| {
        let sender = sender.clone();
        Command::Reserve {
            params: Box::new(keyed(&atlas, number, "k", "a")),
            session: 1,
            reply: Reply::new(move |answer| drop(sender.send(answer))),
        }
    };
    writer.step((1..=64).map(command).collect()).unwrap();
    let replies: Vec<_> = replies.try_iter().map(Result::unwrap).collect();
    assert_eq!(replies.len(), 64);
    assert!(matches!(replies[0], ReserveReply::Granted(_)));
    assert!(replies[1..].iter().all(|reply| *reply == still_running()));
}

#[test]
fn of_two_that_wait_for_money_one_is_carried_out() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    let atlas = kernel.agent("atlas", 8, 60);
    let first = kernel.reserve(ask(&atlas, 1, Some(50))).unwrap();
    let second = kernel.reserve_later(keyed(&atlas, 2, "k", "a"));
    let third = kernel.reserve_later(keyed(&atlas, 3, "k", "a"));
    kernel.settle(id(1), &first, answered(20, 1)).unwrap();
    let second = second.recv_timeout(LIMIT).unwrap().unwrap();
    assert!(matches!(second, ReserveReply::Granted(_)), "{second:?}");
    assert_eq!(third.recv_timeout(LIMIT).unwrap().unwrap(), still_running());
    kernel.audit();
}

#[test]
fn a_restart_forgets_nothing() {
    let home = tempfile::tempdir().unwrap();
    let mut kernel = Kernel::start(home.path());
    let atlas = kernel.agent("atlas", 1_000, 60);
    let first = kernel.reserve(keyed(&atlas, 1, "k", "a")).unwrap();
    assert_eq!(
        kernel.reserve(keyed(&atlas, 1, "k", "a")),
        Ok(first.clone())
    );
    let reused = kernel.reserve(keyed(&atlas, 1, "k2", "a"));
    assert_eq!(reused, Err(Refusal::HoldIdReused));
    kernel.stop();
    let mut kernel = Kernel::start(home.path());
    // A lost reply, asked for again, is the grant.
    let again = kernel.reserve(keyed(&atlas, 1, "k", "a")).unwrap();
    assert_eq!(again.deadline_boot_ms, first.deadline_boot_ms);
    assert_eq!(kernel.reply(keyed(&atlas, 2, "k", "a")), still_running());
    kernel.settle(id(1), &again, answered(33, 7)).unwrap();
    // One that a restart takes up is forgotten when it is released.
    let _ = kernel.reserve(keyed(&atlas, 3, "k3", "a")).unwrap();
    kernel.stop();
    let kernel = Kernel::start(home.path());
    assert_eq!(
        replayed(&kernel.reply(keyed(&atlas, 4, "k", "a"))).id,
        id(1)
    );
    kernel.receipt(id(3), Ending::Voided);
    assert_eq!(kernel.sql::<i64>(ROWS), 1);
    assert!(kernel.reserve(keyed(&atlas, 5, "k3", "b")).is_ok());
    kernel.audit();
}

/// Clocks that a test sets.
struct Hands {
    boot_ms: AtomicU64,
    wall_ms: AtomicI64,
}

impl Hands {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            boot_ms: AtomicU64::new(1_000_000),
            wall_ms: AtomicI64::new(1_700_000_000_000),
        })
    }

    fn clock(self: &Arc<Self>) -> Clock {
        let hands = Arc::clone(self);
        Box::new(move || Now {
            boot_ms: hands.boot_ms.load(Ordering::Relaxed),
            wall_ms: hands.wall_ms.load(Ordering::Relaxed),
        })
    }

    fn boot_on(&self, ms: i64) {
        let ms = u64::try_from(ms).unwrap();
        self.boot_ms.fetch_add(ms, Ordering::Relaxed);
    }

    fn wall_on(&self, ms: i64) {
        self.wall_ms.fetch_add(ms, Ordering::Relaxed);
    }
}

/// Carries a request out.
fn carry_out(kernel: &Kernel, agent: &Agent, number: u8, key: &str) {
    let grant = kernel.reserve(keyed(agent, number, key, "a")).unwrap();
    kernel.settle(id(number), &grant, answered(33, 7)).unwrap();
    kernel.receipt(id(number), ended(200));
}

#[test]
fn a_key_stands_for_a_day_whatever_the_wall_clock_is_set_to() {
    let home = tempfile::tempdir().unwrap();
    let hands = Hands::new();
    let kernel = Kernel::start_at(home.path(), "boot", hands.clock());
    let atlas = kernel.agent("atlas", 1_000, 60);
    carry_out(&kernel, &atlas, 1, "k");
    hands.boot_on(KEY_MS - 1);
    for set_ms in [-30 * KEY_MS, 60 * KEY_MS] {
        hands.wall_on(set_ms);
        replayed(&kernel.reply(keyed(&atlas, 2, "k", "a")));
    }
    hands.wall_on(-60 * KEY_MS);
    hands.boot_on(1);
    let next = kernel.reserve(keyed(&atlas, 3, "k", "b")).unwrap();
    // It stands for the new request, and its hold for as long as that is open.
    hands.boot_on(2 * KEY_MS);
    assert_eq!(kernel.reply(keyed(&atlas, 4, "k", "b")), still_running());
    kernel.settle(id(3), &next, answered(33, 7)).unwrap();
    kernel.until(|kernel| {
        hands.boot_on(60_000);
        kernel.sql::<i64>(ROWS) == 0
    });
    kernel.audit();
}

#[test]
fn after_another_boot_the_wall_clock_tells_ages_and_none_is_of_the_future() {
    let home = tempfile::tempdir().unwrap();
    let hands = Hands::new();
    let mut kernel = Kernel::start_at(home.path(), "boot 1", hands.clock());
    let atlas = kernel.agent("atlas", 1_000, 60);
    carry_out(&kernel, &atlas, 1, "k");
    kernel.stop();
    // An hour later the machine is up again; its boot clock begins anew.
    hands.boot_ms.store(10, Ordering::Relaxed);
    hands.wall_on(3_600_000);
    let mut kernel = Kernel::start_at(home.path(), "boot 2", hands.clock());
    hands.boot_on(KEY_MS - 3_600_000 - 1);
    replayed(&kernel.reply(keyed(&atlas, 2, "k", "a")));
    hands.boot_on(1);
    carry_out(&kernel, &atlas, 3, "k");
    kernel.stop();
    // And once more, with a clock that lost a year: a day from here.
    hands.boot_ms.store(10, Ordering::Relaxed);
    hands.wall_on(-365 * KEY_MS);
    let kernel = Kernel::start_at(home.path(), "boot 3", hands.clock());
    hands.boot_on(KEY_MS - 1);
    replayed(&kernel.reply(keyed(&atlas, 4, "k", "a")));
    hands.boot_on(1);
    let _ = kernel.reserve(keyed(&atlas, 5, "k", "b")).unwrap();
}

#[test]
fn many_old_keys_are_deleted_a_lot_at_a_time() {
    let home = tempfile::tempdir().unwrap();
    let hands = Hands::new();
    let kernel = Kernel::start_at(home.path(), "boot", hands.clock());
    let atlas = kernel.agent("atlas", 1_000, 60);
    carry_out(&kernel, &atlas, 1, "k");
    kernel.outside(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) \
         INSERT INTO idempotency SELECT agent_id, CAST(printf('%032d', i) AS BLOB), request, event, \
         at_ms, at_boot_ms FROM idempotency, n",
    );
    hands.boot_on(60_000);
    replayed(&kernel.reply(keyed(&atlas, 2, "k", "a")));
    assert_eq!(kernel.sql::<i64>(ROWS), 1001);
    hands.boot_on(KEY_MS);
    kernel.until(|kernel| {
        hands.boot_on(50);
        kernel.sql::<i64>(ROWS) == 0
    });
}

#[test]
fn the_audit_tells_of_keys_charged_twice_and_of_rows_that_lie() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    let atlas = kernel.agent("atlas", 1_000, 60);
    carry_out(&kernel, &atlas, 1, "k");
    // Somebody cuts the row out: the second charge shows in the events all the same.
    kernel.outside("DELETE FROM idempotency");
    carry_out(&kernel, &atlas, 2, "k");
    let found = report(&kernel);
    assert!(found.ok, "{:?}", found.violations);
    assert_eq!(found.warnings.len(), 1, "{:?}", found.warnings);
    assert_eq!(found.warnings[0].property, "key_charged_once");
    // Its row now names an event that opened no hold under it.
    kernel.outside("UPDATE idempotency SET event = event - 1");
    let found = report(&kernel);
    assert_eq!(found.violations[0].property, "key_has_hold");
    // And one of a hold that is released.
    kernel.outside("UPDATE idempotency SET event = event + 1");
    let _ = kernel.reserve(keyed(&atlas, 3, "k3", "a")).unwrap();
    kernel.outside("CREATE TABLE kept AS SELECT * FROM idempotency");
    kernel.receipt(id(3), Ending::Voided);
    kernel.outside("INSERT OR IGNORE INTO idempotency SELECT * FROM kept");
    let found = report(&kernel);
    assert_eq!(found.violations[0].property, "released_key_forgotten");
}

#[test]
fn events_without_a_key_are_as_they_were() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    let atlas = kernel.agent("atlas", 1_000, 60);
    let _ = kernel.reserve(ask(&atlas, 1, Some(50))).unwrap();
    let _ = kernel.reserve(keyed(&atlas, 2, "k", "a")).unwrap();
    let of = |hold| {
        let hold = id(hold);
        kernel.sql::<String>(&format!("SELECT detail FROM events WHERE hold = '{hold}'"))
    };
    let mark = KeyDigest::of(b"k").mark();
    let with = format!(",\"idempotency\":\"{mark}\"}}");
    assert_eq!(of(2).replace(&with, "}"), of(1));
    assert!(of(2).ends_with(&with), "{}", of(2));
}

//! The writer thread over a real SQLite file: what is answered, what is written, what survives.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod fallback;
mod idempotency;
mod kernel;
mod refusals;
mod rehearse;
mod tamper;
mod tree;
mod upkeep;

use std::time::Duration;

use aex_admin::audit;
use aex_admin::ledger::Ledger;
use aex_admin::writer::{Command, OperatorCommand};
use aex_admin_proto::Refusal;
use aex_admin_proto::egress::{Ending, Exchange, Failure};
use aex_admin_proto::operator::{CreateParams, GroupCreateParams, NameParams, Settings};
use aex_admin_proto::rpc::{RpcError, code};
use aex_admin_proto::worker::{Basis, ReserveReply};
use kernel::{Kernel, LIMIT, answered, ask, ended, hold_pico, id, status};

#[test]
fn a_hold_is_durable_before_it_is_answered_and_settles_to_the_picodollar() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    let atlas = kernel.agent("atlas", 1_000, 60);
    let grant = kernel.reserve(ask(&atlas, 1, Some(50))).unwrap();
    assert_eq!(
        kernel.sql::<i64>("SELECT held_pico FROM agents"),
        hold_pico(50)
    );
    assert_eq!(kernel.sql::<i64>("SELECT reserved_micro FROM agents"), 6);
    kernel.audit();
    let reply = kernel.settle(id(1), &grant, answered(33, 7)).unwrap();
    assert_eq!(
        (reply.basis, reply.cost_pico, reply.cost_micro),
        (Basis::Exact, 1_030_000, 1)
    );
    assert_eq!(kernel.sql::<i64>("SELECT spent_micro FROM agents"), 1);
    assert_eq!(kernel.sql::<i64>("SELECT carry_pico FROM agents"), 30_000);
    assert_eq!(kernel.sql::<i64>("SELECT held_pico FROM agents"), 0);
    kernel.receipt(id(1), ended(200));
    assert_eq!(kernel.sql::<i64>("SELECT COUNT(*) FROM holds"), 0);
    kernel.audit();
}

#[test]
fn lost_replies_are_asked_for_again_and_answered_the_same() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    let atlas = kernel.agent("atlas", 1_000, 60);
    let first = kernel.reserve(ask(&atlas, 1, Some(50))).unwrap();
    assert_eq!(kernel.reserve(ask(&atlas, 1, Some(50))), Ok(first.clone()));
    assert_eq!(
        kernel.reserve(ask(&atlas, 1, Some(51))),
        Err(Refusal::HoldIdReused)
    );
    let reply = kernel.settle(id(1), &first, answered(33, 7)).unwrap();
    assert_eq!(kernel.settle(id(1), &first, answered(33, 7)), Ok(reply));
    let other = kernel.settle(id(1), &first, answered(0, 0)).unwrap_err();
    assert_eq!(other.code, code::CONFLICT);
    let conflicts = "SELECT COUNT(*) FROM events WHERE action = 'settle.conflict'";
    assert_eq!(kernel.sql::<i64>(conflicts), 1);
    assert_eq!(kernel.sql::<i64>("SELECT spent_micro FROM agents"), 1);
    kernel.audit();
}

#[test]
fn a_settle_without_the_holds_own_ticket_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    let atlas = kernel.agent("atlas", 1_000, 60);
    let one = kernel.reserve(ask(&atlas, 1, Some(5))).unwrap();
    let _two = kernel.reserve(ask(&atlas, 2, Some(5))).unwrap();
    let error = kernel.settle(id(2), &one, answered(0, 0)).unwrap_err();
    assert_eq!(error.code, code::NOT_PERMITTED);
    assert_eq!(
        kernel.sql::<i64>("SELECT held_pico FROM agents"),
        2 * hold_pico(5)
    );
}

#[test]
fn held_money_is_waited_for_in_order() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    // Pays for one hold of 50 output tokens (6 micro) at a time, and for two bills.
    let atlas = kernel.agent("atlas", 8, 60);
    let first = kernel.reserve(ask(&atlas, 1, Some(50))).unwrap();
    let second = kernel.reserve_later(ask(&atlas, 2, Some(50)));
    let third = kernel.reserve_later(ask(&atlas, 3, Some(10)));
    kernel.settle(id(1), &first, answered(20, 1)).unwrap();
    let second = second.recv_timeout(LIMIT).unwrap().unwrap();
    assert!(matches!(second, ReserveReply::Granted(_)), "{second:?}");
    // The third is smaller, but its turn is after: nothing is free for it now.
    let third = third.recv_timeout(LIMIT).unwrap().unwrap();
    assert!(
        matches!(third, ReserveReply::Refused(Refusal::BudgetHeld { .. })),
        "{third:?}"
    );
    let never = kernel.reserve(ask(&atlas, 4, Some(500)));
    assert!(
        matches!(never, Err(Refusal::InsufficientBudget { .. })),
        "{never:?}"
    );
    kernel.audit();
}

#[test]
fn a_waiter_that_gives_up_leaves_no_trace() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    let atlas = kernel.agent("atlas", 6, 60);
    let first = kernel.reserve(ask(&atlas, 1, Some(50))).unwrap();
    let second = kernel.reserve_later(ask(&atlas, 2, Some(50)));
    kernel.queue.send(Command::Cancel { id: id(2) }).unwrap();
    let second = second.recv_timeout(LIMIT).unwrap().unwrap();
    assert_eq!(second, ReserveReply::Refused(Refusal::Cancelled));
    kernel.settle(id(1), &first, answered(0, 0)).unwrap();
    assert_eq!(kernel.sql::<i64>("SELECT held_pico FROM agents"), 0);
}

#[test]
fn an_update_from_outside_counts_at_once_holds_open_or_not() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    let atlas = kernel.agent("atlas", 1_000, 60);
    let first = kernel.reserve(ask(&atlas, 1, Some(50))).unwrap();
    kernel.outside("UPDATE agents SET budget_micro = spent_micro WHERE name = 'atlas'");
    let cut = kernel.reserve(ask(&atlas, 2, Some(1)));
    assert!(
        matches!(cut, Err(Refusal::InsufficientBudget { .. })),
        "{cut:?}"
    );
    kernel.settle(id(1), &first, answered(33, 7)).unwrap();
    // Money that is granted from outside wakes who waits.
    kernel.outside("UPDATE agents SET budget_micro = 8 WHERE name = 'atlas'");
    let third = kernel.reserve(ask(&atlas, 3, Some(50))).unwrap();
    let waits = kernel.reserve_later(ask(&atlas, 4, Some(50)));
    kernel.outside("UPDATE agents SET budget_micro = 1000 WHERE name = 'atlas'");
    let woken = waits.recv_timeout(LIMIT).unwrap().unwrap();
    assert!(matches!(woken, ReserveReply::Granted(_)), "{woken:?}");
    drop(third);
    let report = audit::of_file(&home.path().join("aex.db"), &[]).unwrap();
    assert!(report.ok, "{:?}", report.violations);
    assert_eq!(report.warnings.len(), 3, "{:?}", report.warnings);
}

#[test]
fn a_release_waits_for_the_receipt_and_a_lie_costs_the_ceiling() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    let atlas = kernel.agent("atlas", 1_000, 60);
    let honest = kernel.reserve(ask(&atlas, 1, Some(50))).unwrap();
    let answer = kernel.settle_later(id(1), &honest, status(429));
    assert!(
        answer.recv_timeout(Duration::from_millis(100)).is_err(),
        "released without a receipt"
    );
    kernel.receipt(id(1), ended(429));
    assert_eq!(
        answer.recv_timeout(LIMIT).unwrap().unwrap().basis,
        Basis::Released
    );
    let liar = kernel.reserve(ask(&atlas, 2, Some(50))).unwrap();
    let answer = kernel.settle_later(id(2), &liar, status(429));
    kernel.receipt(id(2), ended(200));
    assert_eq!(
        answer.recv_timeout(LIMIT).unwrap().unwrap().basis,
        Basis::Ceiling
    );
    // Settled first, contradicted later: the rest of the hold is charged then.
    let late = kernel.reserve(ask(&atlas, 3, Some(50))).unwrap();
    assert_eq!(
        kernel
            .settle(id(3), &late, answered(0, 0))
            .unwrap()
            .cost_pico,
        0
    );
    kernel.receipt(id(3), ended(504));
    let spent = "SELECT spent_micro * 1000000 + carry_pico FROM agents";
    assert_eq!(kernel.sql::<i64>(spent), 2 * hold_pico(50));
    kernel.audit();
}

#[test]
fn a_bill_above_the_hold_is_booked_and_blocks() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    let atlas = kernel.agent("atlas", 10, 60);
    let grant = kernel.reserve(ask(&atlas, 1, Some(50))).unwrap();
    let reply = kernel.settle(id(1), &grant, answered(100, 500)).unwrap();
    assert_eq!((reply.cost_micro, reply.remaining_micro), (51, Some(0)));
    assert_eq!(kernel.shared.counters().overruns, 1);
    let next = kernel.reserve(ask(&atlas, 2, Some(1)));
    assert!(
        matches!(next, Err(Refusal::InsufficientBudget { .. })),
        "{next:?}"
    );
    kernel.audit();
}

#[test]
fn holds_and_windows_survive_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let mut kernel = Kernel::start(home.path());
    let atlas = kernel.agent("atlas", 1_000, 3);
    let done = kernel.reserve(ask(&atlas, 1, Some(50))).unwrap();
    kernel.settle(id(1), &done, answered(33, 7)).unwrap();
    let open = kernel.reserve(ask(&atlas, 2, Some(50))).unwrap();
    let unsent = kernel.reserve(ask(&atlas, 3, Some(50))).unwrap();
    kernel.stop();
    drop(kernel);
    let kernel = Kernel::start(home.path());
    assert_eq!(kernel.shared.open_holds(), 2);
    let fourth = kernel.reserve(ask(&atlas, 4, Some(1)));
    assert!(
        matches!(fourth, Err(Refusal::RequestRate { limit: 3, .. })),
        "{fourth:?}"
    );
    // A re-asked grant is the same hold; a voided one comes back with its slot.
    assert_eq!(
        kernel.reserve(ask(&atlas, 2, Some(50))).unwrap().ticket,
        open.ticket
    );
    kernel.receipt(id(3), Ending::Voided);
    drop(unsent);
    assert_eq!(
        kernel.sql::<i64>("SELECT held_pico FROM agents"),
        hold_pico(50)
    );
    drop(kernel.reserve(ask(&atlas, 5, Some(1))).unwrap());
    kernel.settle(id(2), &open, answered(33, 7)).unwrap();
    kernel.audit();
}

#[test]
fn a_hold_whose_worker_is_gone_ends_by_the_receipt() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    let atlas = kernel.agent("atlas", 1_000, 60);
    let _grant = kernel.reserve(ask(&atlas, 1, Some(50))).unwrap();
    kernel
        .queue
        .send(Command::SessionGone { session: 1 })
        .unwrap();
    let cut = Exchange {
        sent: true,
        status: Some(200),
        failure: Some(Failure::WorkerGone),
        ..Exchange::default()
    };
    kernel.receipt(id(1), Ending::Ended(cut));
    let mut left = 400;
    while kernel.shared.open_holds() > 0 {
        left -= 1;
        assert!(left > 0, "the hold stays");
        let poll_interval = Duration::from_millis(25);
        std::thread::sleep(poll_interval);
    }
    let spent = "SELECT spent_micro * 1000000 + carry_pico FROM agents";
    assert_eq!(kernel.sql::<i64>(spent), hold_pico(50));
    kernel.audit();
}

#[test]
fn a_locked_ledger_fails_closed_in_time_and_goes_on_by_itself() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    let atlas = kernel.agent("atlas", 1_000, 60);
    let conn = rusqlite::Connection::open(home.path().join("aex.db")).unwrap();
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    let answer = kernel
        .reserve_later(ask(&atlas, 1, Some(50)))
        .recv_timeout(LIMIT)
        .unwrap();
    assert_eq!(answer.unwrap_err().code, code::UNAVAILABLE);
    conn.execute_batch("COMMIT").unwrap();
    drop(kernel.reserve(ask(&atlas, 1, Some(50))).unwrap());
    kernel.audit();
}

#[test]
fn the_trigger_refuses_what_the_program_would_not_ask() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    kernel.agent("atlas", 10, 60);
    let conn = rusqlite::Connection::open(home.path().join("aex.db")).unwrap();
    let fits = "UPDATE agents SET held_pico = 10000000";
    let over = "UPDATE agents SET held_pico = 10000001";
    assert!(conn.execute(fits, []).is_ok());
    assert!(
        conn.execute(over, [])
            .unwrap_err()
            .to_string()
            .contains("pass the budget")
    );
}

#[test]
fn the_schema_refuses_limits_that_nobody_could_read() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    let _ = kernel.agent("atlas", 10, 60);
    let conn = rusqlite::Connection::open(home.path().join("aex.db")).unwrap();
    for change in [
        "rpm = -1",
        "rpm = 0",
        "max_concurrency = -3",
        "max_tokens_per_minute = 0",
        "held_pico = -1",
        "spent_micro = -1",
        "carry_pico = 1000000",
        "budget_micro = -1",
        "state = 'mighty'",
    ] {
        let changed = conn.execute(&format!("UPDATE agents SET {change}"), []);
        assert!(changed.is_err(), "{change}");
    }
    kernel.audit();
}

#[test]
fn a_closed_name_stays_taken_and_its_tokens_end() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    let atlas = kernel.agent("atlas", 1_000, 60);
    let name = || NameParams {
        name: "atlas".into(),
    };
    kernel.operator(OperatorCommand::Pause(name())).unwrap();
    assert_eq!(
        kernel.reserve(ask(&atlas, 1, None)),
        Err(Refusal::AgentPaused)
    );
    kernel.operator(OperatorCommand::Resume(name())).unwrap();
    assert!(kernel.reserve(ask(&atlas, 1, None)).is_ok());
    kernel.operator(OperatorCommand::Delete(name())).unwrap();
    assert_eq!(
        kernel.reserve(ask(&atlas, 2, None)),
        Err(Refusal::InvalidToken)
    );
    let again = CreateParams {
        name: "atlas".into(),
        budget_micro: 1,
        rpm: 1,
        ttl_s: None,
        settings: Settings::default(),
        group: None,
    };
    let taken = kernel
        .operator(OperatorCommand::Create(Box::new(again)))
        .unwrap_err();
    assert_eq!(taken.code, code::CONFLICT);
    assert!(taken.message.contains("by a deleted agent"), "{taken:?}");
    kernel.audit();
}

#[test]
fn whose_name_is_taken_is_told_how_to_change_it() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    kernel.agent("ana", 1, 1);
    let group = |name: &str| {
        let params = GroupCreateParams {
            name: name.into(),
            ..GroupCreateParams::default()
        };
        kernel.operator(OperatorCommand::GroupCreate(Box::new(params)))
    };
    let refused = |made: Result<serde_json::Value, RpcError>, expected: &str| {
        let error = made.unwrap_err();
        assert_eq!(error.code, code::CONFLICT);
        assert!(error.message.contains(expected), "{error:?}");
    };
    group("team").unwrap();
    refused(group("team"), "change it with aex group set team");
    refused(
        group("kernel"),
        "the kernel's own scope: change it with aex group set kernel",
    );
    let name = NameParams {
        name: "team".into(),
    };
    kernel.operator(OperatorCommand::GroupDelete(name)).unwrap();
    refused(group("team"), "by a deleted group");
    let again = CreateParams {
        name: "ana".into(),
        budget_micro: 1,
        rpm: 1,
        ttl_s: None,
        settings: Settings::default(),
        group: None,
    };
    let again = kernel.operator(OperatorCommand::Create(Box::new(again)));
    refused(again, "change it with aex agent set ana");
}

#[test]
fn a_second_admin_on_the_same_ledger_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let _kernel = Kernel::start(home.path());
    let second = Ledger::open(&home.path().join("aex.db"));
    assert!(second.is_err_and(|error| error.to_string().contains("in use by another")));
}

#[test]
fn the_audit_names_what_was_tampered_with() {
    let check = |tamper: &str, property: &str| {
        let home = tempfile::tempdir().unwrap();
        let mut kernel = Kernel::start(home.path());
        let atlas = kernel.agent("atlas", 1_000, 60);
        for n in 1..4 {
            let grant = kernel.reserve(ask(&atlas, n, Some(50))).unwrap();
            kernel.settle(id(n), &grant, answered(100, 7)).unwrap();
            kernel.receipt(id(n), ended(200));
        }
        kernel.audit();
        kernel.stop();
        rusqlite::Connection::open(home.path().join("aex.db"))
            .unwrap()
            .execute_batch(&format!("PRAGMA foreign_keys = 0; {tamper}"))
            .unwrap();
        let report = audit::of_file(&home.path().join("aex.db"), &[]).unwrap();
        let found: Vec<&str> = report
            .violations
            .iter()
            .map(|f| f.property.as_str())
            .collect();
        assert!(found.contains(&property), "{tamper}: {found:?}");
    };
    check(
        "DELETE FROM events; UPDATE agents SET spent_micro = 0, carry_pico = 0",
        "agent_has_history",
    );
    check(
        "UPDATE agents SET spent_micro = spent_micro - 1",
        "spent_equals_commits",
    );
    check(
        "UPDATE agents SET carry_pico = carry_pico + 1",
        "picodollars_equal_commits",
    );
    check(
        "UPDATE agents SET held_pico = 5, reserved_micro = 1",
        "held_equals_open_holds",
    );
    check(
        "UPDATE agents SET reserved_micro = 7",
        "reserved_is_held_rounded_up",
    );
    check(
        "UPDATE events SET cost_micro = cost_micro + 1 WHERE id = 5",
        "chain_intact",
    );
    check(
        "UPDATE events SET agent = 'other' WHERE id = 3",
        "chain_intact",
    );
    check(
        "UPDATE events SET at_ms = at_ms + 1 WHERE id = 2",
        "chain_intact",
    );
    check("DELETE FROM events WHERE id = 4", "chain_contiguous");
    check("DELETE FROM events WHERE id > 5", "spent_equals_commits");
    check("DELETE FROM agents", "agent_kept");
}

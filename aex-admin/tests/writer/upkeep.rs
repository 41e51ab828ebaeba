//! What comes after the fact: late figures, corrections, backups and restores, migrations, locks.

use std::collections::HashSet;

use aex_admin::audit;
use aex_admin::ledger::{Ledger, LedgerError, backup, reader, seal};
use aex_admin::restore::{RestoreError, restore};
use aex_admin::writer::{Command, OperatorCommand};
use aex_admin_proto::HoldId;
use aex_admin_proto::egress::Ending;
use aex_admin_proto::operator::{ResolveParams, ResolveReply};
use aex_admin_proto::rpc::{RpcError, code};
use aex_admin_proto::worker::Basis;

use crate::kernel::{Kernel, LIMIT, answered, ask, ended, hold_pico, id, status};

pub(crate) fn resolve(kernel: &Kernel, params: ResolveParams) -> Result<ResolveReply, RpcError> {
    let history = params.hold.as_ref().map(|hold| {
        let conn = reader::snapshot(&kernel.home.join("aex.db")).unwrap();
        reader::hold_history(&conn, hold).unwrap()
    });
    let answer = kernel.operator(OperatorCommand::Resolve(Box::new(params), history))?;
    Ok(serde_json::from_value(answer).unwrap())
}

/// A hold that ended at its ceiling, since its worker said nothing.
fn without_its_worker(kernel: &Kernel, n: u8) -> aex_admin_proto::worker::Grant {
    let atlas = kernel.agent("atlas", 1_000, 60);
    let grant = kernel.reserve(ask(&atlas, n, Some(50))).unwrap();
    let commits = "SELECT COUNT(*) FROM events WHERE action = 'usage.commit'";
    kernel.receipt(id(n), ended(200));
    kernel
        .queue
        .send(Command::SessionGone { session: 1 })
        .unwrap();
    kernel.until(|kernel| kernel.sql::<i64>(commits) == 1);
    assert_eq!(
        kernel.sql::<i64>("SELECT SUM(cost_pico) FROM events"),
        hold_pico(50)
    );
    grant
}

const SPENT: &str = "SELECT spent_micro * 1000000 + carry_pico FROM agents";

#[test]
fn a_late_figure_is_an_appended_correction() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    let grant = without_its_worker(&kernel, 1);
    let reply = kernel.settle(id(1), &grant, answered(33, 7)).unwrap();
    assert_eq!((reply.basis, reply.cost_pico), (Basis::Exact, 1_030_000));
    assert_eq!(kernel.sql::<i64>(SPENT), 1_030_000);
    let appended =
        "SELECT cost_pico FROM events WHERE action = 'usage.commit' ORDER BY id DESC LIMIT 1";
    assert_eq!(kernel.sql::<i64>(appended), 1_030_000 - hold_pico(50));
    // Asked again it is answered the same, and booked once; another figure is none.
    assert_eq!(kernel.settle(id(1), &grant, answered(33, 7)), Ok(reply));
    let other = kernel.settle(id(1), &grant, answered(0, 0)).unwrap_err();
    assert_eq!(other.code, code::CONFLICT);
    assert_eq!(kernel.sql::<i64>(SPENT), 1_030_000);
    kernel.audit();
}

#[test]
fn a_late_figure_counts_after_a_restart_too() {
    let home = tempfile::tempdir().unwrap();
    let mut kernel = Kernel::start(home.path());
    let grant = without_its_worker(&kernel, 1);
    kernel.stop();
    let kernel = Kernel::start(home.path());
    let reply = kernel.settle(id(1), &grant, answered(33, 7)).unwrap();
    assert_eq!(reply.cost_pico, 1_030_000);
    assert_eq!(kernel.sql::<i64>(SPENT), 1_030_000);
    kernel.audit();
}

#[test]
fn a_late_lie_is_none() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    let grant = without_its_worker(&kernel, 1);
    // It says that the provider refused: the receipt says 200.
    let reply = kernel.settle(id(1), &grant, status(500)).unwrap();
    assert_eq!(
        (reply.basis, reply.cost_pico),
        (Basis::Ceiling, hold_pico(50))
    );
    assert_eq!(kernel.sql::<i64>(SPENT), hold_pico(50));
    kernel.audit();
}

#[test]
fn an_operator_corrects_with_a_reason_and_never_edits() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    let _ = without_its_worker(&kernel, 1);
    let of_hold = |cost_pico| ResolveParams {
        hold: Some(id(1).to_string()),
        cost_pico,
        reason: "invoice of January, line 7".into(),
        ..ResolveParams::default()
    };
    let done = resolve(&kernel, of_hold(2_500_000)).unwrap();
    assert_eq!(done.cost_pico, 2_500_000 - hold_pico(50));
    assert_eq!(kernel.sql::<i64>(SPENT), 2_500_000);
    let again = resolve(&kernel, of_hold(2_500_000)).unwrap();
    assert_eq!((again.cost_pico, again.event), (0, None));
    let of_agent = |cost_pico, reason: &str| ResolveParams {
        agent: Some("atlas".into()),
        cost_pico,
        reason: reason.into(),
        ..ResolveParams::default()
    };
    resolve(&kernel, of_agent(5_000_001, "lost with a disk")).unwrap();
    assert_eq!(kernel.sql::<i64>(SPENT), 7_500_001);
    for (bad, expected) in [
        (of_agent(-8_000_000, "too much"), code::CONFLICT),
        (of_agent(1, " "), code::INVALID_PARAMS),
        (of_hold(-1), code::INVALID_PARAMS),
        (
            ResolveParams {
                hold: Some("00".into()),
                ..of_hold(1)
            },
            code::NOT_FOUND,
        ),
        (
            ResolveParams {
                agent: Some("zeus".into()),
                ..of_agent(1, "x")
            },
            code::NOT_FOUND,
        ),
        (
            ResolveParams {
                agent: Some("atlas".into()),
                ..of_hold(1)
            },
            code::INVALID_PARAMS,
        ),
    ] {
        let error = resolve(&kernel, bad.clone()).unwrap_err();
        assert_eq!(error.code, expected, "{bad:?}: {error:?}");
    }
    assert_eq!(kernel.sql::<i64>(SPENT), 7_500_001);
    kernel.audit();
    let replay = audit::replay(&home.path().join("aex.db")).unwrap();
    assert!(replay.same, "{replay:?}");
}

#[test]
fn a_hold_that_is_open_is_not_corrected() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    let atlas = kernel.agent("atlas", 1_000, 60);
    let _ = kernel.reserve(ask(&atlas, 1, Some(50))).unwrap();
    let params = ResolveParams {
        hold: Some(id(1).to_string()),
        cost_pico: 0,
        reason: "x".into(),
        ..ResolveParams::default()
    };
    assert_eq!(resolve(&kernel, params).unwrap_err().code, code::CONFLICT);
}

/// A hold that an earlier process granted, and that the egress does not know, ends at once: for
/// nothing where the egress's journal is older, at its ceiling where it is younger.
#[test]
fn what_a_whole_journal_does_not_know_was_never_sent() {
    for (journal_begun_boot_ms, cost_pico) in [(0, 0), (u64::MAX, hold_pico(50))] {
        let home = tempfile::tempdir().unwrap();
        let mut kernel = Kernel::start(home.path());
        let atlas = kernel.agent("atlas", 1_000, 60);
        let _ = kernel.reserve(ask(&atlas, 1, Some(50))).unwrap();
        kernel.stop();
        let kernel = Kernel::start(home.path());
        kernel.receipt_since(id(1), Ending::Unknown, journal_begun_boot_ms);
        kernel.until(|kernel| kernel.sql::<i64>("SELECT COUNT(*) FROM holds") == 0);
        assert_eq!(kernel.sql::<i64>(SPENT), cost_pico);
        kernel.audit();
    }
}

/// Each waits from its own arrival, and none longer than `lock_wait`, however late in another's.
#[test]
fn a_foreign_lock_is_waited_for_from_each_arrival() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    let atlas = kernel.agent("atlas", 1_000, 60);
    let lock = rusqlite::Connection::open(home.path().join("aex.db")).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let clock = aex_admin_proto::clock::boot_ms;
    let mut asked = Vec::new();
    for n in 1..=6 {
        let asked_boot_ms = clock();
        let answer = kernel.reserve_later(ask(&atlas, n, Some(5)));
        let early = answer.recv_timeout(std::time::Duration::from_millis(40));
        assert!(early.is_err(), "it waits for the lock first");
        asked.push((asked_boot_ms, answer));
    }
    for (asked_boot_ms, answer) in asked {
        let answer = answer.recv_timeout(LIMIT).unwrap();
        assert_eq!(answer.unwrap_err().code, code::UNAVAILABLE);
        let waited_ms = clock() - asked_boot_ms;
        // lock_wait is 200 ms here; a look at the lock takes 100.
        assert!(waited_ms <= 4 * 300, "{waited_ms} ms");
    }
    assert!(kernel.shared.trouble().is_some());
    // One that comes late, and in time, is served.
    let late = kernel.reserve_later(ask(&atlas, 9, Some(5)));
    lock.execute_batch("ROLLBACK").unwrap();
    assert!(late.recv_timeout(LIMIT).unwrap().is_ok());
    kernel.until(|kernel| kernel.shared.trouble().is_none());
    kernel.audit();
}

#[test]
fn a_checkpoint_on_demand_is_of_the_last_event_and_made_once() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    kernel.agent("atlas", 1_000, 60);
    let first = kernel.operator(OperatorCommand::Checkpoint).unwrap();
    let again = kernel.operator(OperatorCommand::Checkpoint).unwrap();
    assert_eq!(first, again);
    let checkpoint = serde_json::from_value(first).unwrap();
    assert!(seal::is_signed(&checkpoint));
    let kept = seal::kept_checkpoint(&home.path().join("aex.db")).unwrap();
    assert_eq!(kept.as_ref(), Some(&checkpoint));
    let report = audit::of_file(&home.path().join("aex.db"), &[checkpoint]).unwrap();
    assert!(report.ok && report.checkpoints == 2, "{report:?}");
}

/// Some history and a backup of it, then more history.
fn backed_up(home: &std::path::Path) -> std::path::PathBuf {
    let mut kernel = Kernel::start(home);
    let atlas = kernel.agent("atlas", 1_000, 60);
    let one = kernel.reserve(ask(&atlas, 1, Some(50))).unwrap();
    let _ = kernel.reserve(ask(&atlas, 2, Some(50))).unwrap();
    kernel.settle(id(1), &one, answered(100, 50)).unwrap();
    let path = home.join("backup.db");
    let reply = backup::write(&home.join("aex.db"), &path).unwrap();
    assert_eq!(reply.event, kernel.sql::<i64>("SELECT MAX(id) FROM events"));
    let three = kernel.reserve(ask(&atlas, 3, Some(50))).unwrap();
    kernel.settle(id(3), &three, answered(100, 50)).unwrap();
    kernel.stop();
    path
}

#[test]
fn a_backup_is_whole_private_and_has_no_ticket_key() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let path = backed_up(home.path());
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let report = audit::of_copy(&path, Some(&home.path().join("aex.db"))).unwrap();
    assert!(report.ok && report.warnings.is_empty(), "{report:?}");
    let conn = rusqlite::Connection::open(&path).unwrap();
    let keys: i64 = conn
        .query_row(
            "SELECT COUNT(*) FROM meta WHERE key = 'ticket_key'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(keys, 0);
    // Nobody's file is overwritten.
    for bad in [
        path.clone(),
        "b.db".into(),
        home.path().join("aex.db-journal"),
    ] {
        let again = backup::write(&home.path().join("aex.db"), &bad);
        assert!(matches!(again, Err(LedgerError::Refused(_))), "{bad:?}");
    }
    assert!(path.exists());
}

#[test]
fn an_older_backup_is_not_restored_unless_its_loss_is_accepted() {
    let home = tempfile::tempdir().unwrap();
    let ledger = home.path().join("aex.db");
    let path = backed_up(home.path());
    let before = std::fs::read(&ledger).unwrap();
    // Copied into place by hand, it is refused.
    let other = tempfile::tempdir().unwrap();
    std::fs::copy(&path, other.path().join("aex.db")).unwrap();
    for of in [seal::key_path, seal::checkpoint_path] {
        std::fs::copy(of(&ledger), of(&other.path().join("aex.db"))).unwrap();
    }
    let opened = Ledger::open(&other.path().join("aex.db"));
    assert!(matches!(opened, Err(LedgerError::NotAsCheckpointed { .. })));

    let sent = || HashSet::from([id(1), id(3)]);
    let report = restore(&ledger, &path, sent(), false).unwrap();
    assert!(!report.restored, "{report:?}");
    assert!(report.missing_events > 0 && !report.diverged, "{report:?}");
    assert_eq!(report.missing_spent_micro, 6, "what the third request cost");
    assert_eq!(report.unknown_requests, 1);
    assert_eq!(
        std::fs::read(&ledger).unwrap(),
        before,
        "nothing was changed"
    );

    let report = restore(&ledger, &path, sent(), true).unwrap();
    assert!(report.restored);
    assert!(std::path::Path::new(report.replaced.as_ref().unwrap()).exists());
    let kernel = Kernel::start(home.path());
    assert_eq!(kernel.sql::<i64>(SPENT), hold_pico(50));
    // Its open hold is not known to be unsent: the egress may have forgotten what it acknowledged.
    kernel.receipt_since(id(2), Ending::Unknown, 0);
    kernel.until(|kernel| kernel.sql::<i64>("SELECT COUNT(*) FROM holds") == 0);
    assert_eq!(kernel.sql::<i64>(SPENT), 2 * hold_pico(50));
    let report = audit::of_file(&ledger, &[]).unwrap();
    assert!(report.ok, "{report:#?}");
    assert!(
        report
            .warnings
            .iter()
            .any(|f| f.property == "ledger_restored")
    );
}

#[test]
fn a_backup_that_lacks_nothing_is_restored() {
    let home = tempfile::tempdir().unwrap();
    let ledger = home.path().join("aex.db");
    drop(std::fs::remove_file(backed_up(home.path())));
    let path = home.path().join("newest.db");
    backup::write(&ledger, &path).unwrap();
    std::fs::remove_file(&ledger).unwrap();
    let report = restore(&ledger, &path, HashSet::from([id(3)]), false).unwrap();
    assert!(report.restored && report.is_whole(), "{report:?}");
    let kernel = Kernel::start(home.path());
    assert_eq!(kernel.sql::<i64>(SPENT), 2 * hold_pico(50));
    kernel.audit();
    // Not while the kernel runs.
    let running = restore(&ledger, &path, HashSet::<HoldId>::new(), true);
    assert!(matches!(
        running,
        Err(RestoreError::Ledger(LedgerError::InUse(_)))
    ));
}

/// What is restored has what its log has, and whoever is cut off leaves the old ledger or the new one.
#[test]
fn a_log_beside_a_backup_is_part_of_it() {
    let home = tempfile::tempdir().unwrap();
    let ledger = home.path().join("aex.db");
    let kernel = Kernel::start(home.path());
    let atlas = kernel.agent("atlas", 1_000, 60);
    let one = kernel.reserve(ask(&atlas, 1, Some(50))).unwrap();
    kernel.settle(id(1), &one, answered(100, 50)).unwrap();
    // As a kill -9 leaves it: nearly all is in the log.
    let left = tempfile::tempdir().unwrap();
    for name in ["aex.db", "aex.db-wal"] {
        std::fs::copy(home.path().join(name), left.path().join(name)).unwrap();
    }
    drop(kernel);
    let report = restore(&ledger, &left.path().join("aex.db"), HashSet::new(), true).unwrap();
    assert!(report.restored, "{report:?}");
    let kernel = Kernel::start(home.path());
    assert_eq!(kernel.sql::<i64>(SPENT), hold_pico(50));
    kernel.audit();
    let itself = restore(&ledger, &ledger, HashSet::new(), true);
    assert!(matches!(
        itself,
        Err(RestoreError::Ledger(LedgerError::InUse(_)))
    ));
    drop(kernel);
    let itself = restore(&ledger, &ledger, HashSet::new(), true);
    assert!(matches!(itself, Err(RestoreError::Itself(_))));
}

/// What the ledger that is there knows and the backup lacks is a loss, checkpoint or not.
#[test]
fn what_the_present_ledger_knows_is_not_lost_in_silence() {
    let home = tempfile::tempdir().unwrap();
    let ledger = home.path().join("aex.db");
    let path = backed_up(home.path());
    std::fs::remove_file(seal::checkpoint_path(&ledger)).unwrap();
    let report = restore(&ledger, &path, HashSet::new(), false).unwrap();
    assert!(!report.restored && report.missing_events > 0, "{report:?}");
    assert_eq!(report.missing_spent_micro, 6);
    // One that cannot be read may know anything.
    std::fs::write(&ledger, "no ledger").unwrap();
    let report = restore(&ledger, &path, HashSet::new(), false).unwrap();
    assert!(!report.restored && report.unreadable, "{report:?}");
    assert!(!home.path().join("aex.db.restoring").exists());
}

/// Each state in which a restore can be cut off: the old ledger still there, none there, the new one
/// there and its checkpoint not kept yet. The last two are not served until it is done again.
#[test]
fn a_restore_that_is_cut_off_is_done_again() {
    for cut_off in ["copied", "moved away", "put in place"] {
        let home = tempfile::tempdir().unwrap();
        let ledger = home.path().join("aex.db");
        let path = backed_up(home.path());
        let old_checkpoint = std::fs::read(seal::checkpoint_path(&ledger)).unwrap();
        match cut_off {
            "moved away" => {
                std::fs::rename(&ledger, home.path().join("aex.db.before-restore-1")).unwrap();
            }
            "put in place" => {
                assert!(
                    restore(&ledger, &path, HashSet::new(), true)
                        .unwrap()
                        .restored
                );
                std::fs::write(seal::checkpoint_path(&ledger), old_checkpoint).unwrap();
            }
            _ => {}
        }
        std::fs::write(home.path().join("aex.db.restoring"), "half a cop").unwrap();
        match Ledger::open(&ledger) {
            Ok(_) => assert_eq!(cut_off, "copied"),
            Err(LedgerError::NotAsCheckpointed { .. }) => assert_ne!(cut_off, "copied"),
            Err(error) => panic!("{cut_off}: {error}"),
        }
        let report = restore(&ledger, &path, HashSet::new(), true).unwrap();
        assert!(
            report.restored && report.missing_events > 0,
            "{cut_off}: {report:?}"
        );
        let kernel = Kernel::start(home.path());
        assert_eq!(kernel.sql::<i64>(SPENT), hold_pico(50), "{cut_off}");
        kernel.audit();
    }
}

#[test]
fn a_backup_of_another_key_is_restored_where_that_is_accepted() {
    let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = backed_up(home.path());
    Kernel::start(other.path()).stop();
    let ledger = other.path().join("aex.db");
    let report = restore(&ledger, &path, HashSet::new(), false).unwrap();
    assert!(!report.restored && report.foreign_key, "{report:?}");
    assert!(
        restore(&ledger, &path, HashSet::new(), true)
            .unwrap()
            .restored
    );
    let kernel = Kernel::start(other.path());
    assert_eq!(kernel.sql::<i64>(SPENT), hold_pico(50));
    let report = audit::of_file(&ledger, &[]).unwrap();
    let warned: Vec<&str> = report
        .warnings
        .iter()
        .map(|f| f.property.as_str())
        .collect();
    assert!(
        report.ok && warned == ["key_replaced", "ledger_restored"],
        "{report:#?}"
    );
}

#[test]
fn what_is_no_backup_is_told_by_its_name() {
    let home = tempfile::tempdir().unwrap();
    let ledger = home.path().join("aex.db");
    drop(backed_up(home.path()));
    for bad in ["noise", ""] {
        let path = home.path().join("bad.db");
        std::fs::write(&path, bad).unwrap();
        let error = restore(&ledger, &path, HashSet::new(), true).unwrap_err();
        assert!(error.to_string().contains("bad.db"), "{error}");
    }
    Kernel::start(home.path()).audit();
}

/// An operator's word is the last: what comes late is no news, and a receipt is held against the sum.
#[test]
fn a_correction_is_not_made_twice() {
    let home = tempfile::tempdir().unwrap();
    let kernel = Kernel::start(home.path());
    let of_hold = |n: u8, cost_pico| ResolveParams {
        hold: Some(id(n).to_string()),
        cost_pico,
        reason: "by the invoice".into(),
        ..ResolveParams::default()
    };
    let grant = without_its_worker(&kernel, 1);
    resolve(&kernel, of_hold(1, 1_030_000)).unwrap();
    let late = kernel.settle(id(1), &grant, answered(33, 7)).unwrap_err();
    assert_eq!(late.code, code::NOT_FOUND);
    assert_eq!(kernel.sql::<i64>(SPENT), 1_030_000);

    let zeus = kernel.agent("zeus", 1_000, 60);
    let grant = kernel.reserve(ask(&zeus, 2, Some(50))).unwrap();
    kernel.settle(id(2), &grant, answered(33, 7)).unwrap();
    resolve(&kernel, of_hold(2, hold_pico(50))).unwrap();
    kernel.receipt(id(2), ended(502));
    let of_zeus = format!("{SPENT} WHERE name = 'zeus'");
    assert_eq!(kernel.sql::<i64>(&of_zeus), hold_pico(50));
    kernel.audit();
}

/// Somebody's lock makes a start wait, not fail.
#[test]
fn a_start_waits_for_somebodys_lock() {
    let home = tempfile::tempdir().unwrap();
    Kernel::start(home.path()).stop();
    let lock = rusqlite::Connection::open(home.path().join("aex.db")).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (started, wait) = std::sync::mpsc::channel();
    let path = home.path().to_owned();
    let start = std::thread::spawn(move || {
        let kernel = Kernel::start(&path);
        started.send(()).unwrap();
        kernel
    });
    let early = wait.recv_timeout(std::time::Duration::from_millis(500));
    assert!(early.is_err(), "it did not need the lock");
    lock.execute_batch("ROLLBACK").unwrap();
    wait.recv_timeout(LIMIT).unwrap();
    start.join().unwrap().audit();
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    Kernel::start(home.path()).stop();
    let ledger = home.path().join("aex.db");
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(seal::key_path(&ledger), open).unwrap();
    let error = Ledger::open(&ledger).err().unwrap().to_string();
    assert!(error.contains("chmod 600"), "{error}");
}

#[test]
fn a_tampered_backup_is_not_restored() {
    let home = tempfile::tempdir().unwrap();
    let ledger = home.path().join("aex.db");
    let path = backed_up(home.path());
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch("UPDATE agents SET spent_micro = 0")
        .unwrap();
    let refused = restore(&ledger, &path, HashSet::new(), true);
    assert!(matches!(refused, Err(RestoreError::Unsound(_))));
    Kernel::start(home.path()).audit();
}

#[test]
fn an_old_schema_is_moved_forward_and_a_newer_one_refused() {
    let home = tempfile::tempdir().unwrap();
    let ledger = home.path().join("aex.db");
    let mut kernel = Kernel::start(home.path());
    let atlas = kernel.agent("atlas", 1_000, 60);
    let _ = kernel.reserve(ask(&atlas, 1, Some(50))).unwrap();
    kernel.stop();
    let conn = rusqlite::Connection::open(&ledger).unwrap();
    // As the first version left it: no column, no key in the chain, nothing signed.
    conn.execute_batch(
        "PRAGMA foreign_keys = 0; ALTER TABLE holds DROP COLUMN opened_boot_ms; \
         DROP TABLE idempotency; DROP TABLE counters; DROP INDEX tokens_by_run; \
         ALTER TABLE tokens DROP COLUMN run_id; ALTER TABLE tokens DROP COLUMN read_only; \
         ALTER TABLE agents DROP COLUMN group_id; ALTER TABLE agents DROP COLUMN more; \
         ALTER TABLE agents DROP COLUMN capabilities; \
         DROP TABLE nodes; \
         DELETE FROM meta WHERE key IN ('public_key', 'head_seal'); PRAGMA user_version = 1;",
    )
    .unwrap();
    drop(conn);
    std::fs::remove_file(seal::key_path(&ledger)).unwrap();
    let mut kernel = Kernel::start(home.path());
    assert_eq!(kernel.sql::<i64>("PRAGMA user_version"), 4);
    assert_eq!(kernel.sql::<i64>("SELECT opened_boot_ms FROM holds"), 0);
    kernel.audit();
    kernel.stop();
    let conn = rusqlite::Connection::open(&ledger).unwrap();
    conn.execute_batch("PRAGMA user_version = 5").unwrap();
    let newer = Ledger::open(&ledger);
    assert!(matches!(
        newer,
        Err(LedgerError::Newer { found: 5, known: 4 })
    ));
}

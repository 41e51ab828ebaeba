//! What somebody with the file in hand can do to it, and which property the audit names. The forgers
//! here are good: they keep every sum and every link right where they can. They have no signing key.

use std::path::{Path, PathBuf};

use aex_admin::audit;
use aex_admin::ledger::{Event, EventHash, GENESIS, link, reader, seal};
use aex_admin_proto::operator::{AuditReport, Checkpoint};
use tempfile::TempDir;

use crate::kernel::{Kernel, answered, ask, ended, id};
use aex_admin::writer::OperatorCommand;

/// A ledger with some history, stopped, and a checkpoint of it that was kept elsewhere.
struct Scene {
    home: TempDir,
    kept: Checkpoint,
}

impl Scene {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut kernel = Kernel::start(home.path());
        let atlas = kernel.agent("atlas", 1_000, 60);
        for n in 1..=3 {
            let grant = kernel.reserve(ask(&atlas, n, Some(50))).unwrap();
            kernel.settle(id(n), &grant, answered(100, 7)).unwrap();
            kernel.receipt(id(n), ended(200));
        }
        let kept = kernel.operator(OperatorCommand::Checkpoint).unwrap();
        for n in 4..=5 {
            let grant = kernel.reserve(ask(&atlas, n, Some(50))).unwrap();
            kernel.settle(id(n), &grant, answered(100, 7)).unwrap();
            kernel.receipt(id(n), ended(200));
        }
        kernel.audit();
        kernel.stop();
        let kept = serde_json::from_value(kept).unwrap();
        let scene = Self { home, kept };
        assert!(scene.audit(true).ok, "{:?}", scene.audit(true).violations);
        scene
    }

    fn ledger(&self) -> PathBuf {
        self.home.path().join("aex.db")
    }

    fn sql(&self, statements: &str) {
        rusqlite::Connection::open(self.ledger())
            .unwrap()
            .execute_batch(&format!("PRAGMA foreign_keys = 0; {statements}"))
            .unwrap();
    }

    fn audit(&self, against: bool) -> AuditReport {
        let kept = if against {
            std::slice::from_ref(&self.kept)
        } else {
            &[]
        };
        audit::of_file(&self.ledger(), kept).unwrap()
    }

    /// Gives every event the hash that follows from its fields, as they are now.
    fn recompute(&self) {
        let conn = rusqlite::Connection::open(self.ledger()).unwrap();
        let mut hashes: Vec<(i64, EventHash)> = Vec::new();
        let mut previous = GENESIS;
        reader::each_event(&conn, |id, event, _| {
            previous = link(&previous, id, event);
            hashes.push((id, previous));
        })
        .unwrap();
        for (id, hash) in hashes {
            conn.execute("UPDATE events SET hash = ?2 WHERE id = ?1", (id, hash))
                .unwrap();
        }
    }

    /// Appends an event with a right link.
    fn append(&self, event: &Event<'_>) {
        let conn = rusqlite::Connection::open(self.ledger()).unwrap();
        let (last, hash): (i64, EventHash) = conn
            .query_row(
                "SELECT id, hash FROM events ORDER BY id DESC LIMIT 1",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .unwrap();
        let hash = link(&hash, last + 1, event);
        conn.execute(
            "INSERT INTO events (id, at_ms, agent, action, detail, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            (last + 1, event.at_ms, event.agent, event.action, event.detail, hash),
        )
        .unwrap();
    }

    #[track_caller]
    fn found(&self, against: bool, property: &str) {
        let report = self.audit(against);
        let found = report.violations.iter().any(|f| f.property == property);
        assert!(!report.ok && found, "{property}: {:#?}", report.violations);
    }
}

#[test]
fn events_wiped_and_spent_zeroed() {
    let scene = Scene::new();
    scene.sql("DELETE FROM events WHERE action = 'usage.commit' OR action LIKE 'hold.%'; UPDATE agents SET spent_micro = 0, carry_pico = 0");
    scene.found(false, "chain_contiguous");
    scene.found(false, "checkpoint_agrees");
    // Renumbered and rechained, the sums are right; the signatures are not.
    scene.sql("CREATE TABLE kept AS SELECT * FROM events ORDER BY id; DELETE FROM events; INSERT INTO events SELECT rowid, at_ms, agent, action, cost_micro, cost_pico, held_pico, hold, detail, hash FROM kept; DROP TABLE kept");
    scene.recompute();
    let left = scene.audit(false).violations;
    assert!(
        left.iter().all(|f| f.property != "chain_contiguous"),
        "{left:?}"
    );
    scene.found(false, "checkpoint_agrees");
    scene.found(false, "head_sealed");
}

#[test]
fn a_budget_times_a_thousand_by_a_forged_event() {
    let scene = Scene::new();
    let conn = rusqlite::Connection::open(scene.ledger()).unwrap();
    let recorded: String = conn
        .query_row("SELECT recorded FROM agents", [], |row| row.get(0))
        .unwrap();
    let forged = recorded.replace(r#""budget_micro":1000,"#, r#""budget_micro":1000000,"#);
    assert_ne!(recorded, forged);
    conn.execute(
        "UPDATE agents SET budget_micro = 1000000, recorded = ?1",
        [&forged],
    )
    .unwrap();
    let detail = format!(r#"{{"was":{recorded},"now":{forged}}}"#);
    scene.append(&Event::note(1_000, Some("atlas"), "agent.set", &detail));
    let found = scene.audit(true).violations;
    assert_eq!(found.len(), 1, "all but the seal is right: {found:?}");
    scene.found(false, "head_sealed");
    // Nor with the kernel's own notes of key and seal taken out.
    scene.sql("DELETE FROM meta WHERE key IN ('public_key', 'head_seal')");
    // Nor does it go away with the next start, which signs it: that start says so, for ever.
    drop(conn);
    Kernel::start(scene.home.path()).stop();
    scene.found(false, "head_sealed");
    Kernel::start(scene.home.path()).stop();
    scene.found(false, "head_sealed");
}

#[test]
fn one_field_of_one_event() {
    for change in [
        "agent = 'other'",
        "at_ms = at_ms + 1",
        "cost_micro = cost_micro + 1",
        "cost_pico = cost_pico - 1",
        "held_pico = held_pico + 1",
        "hold = NULL",
        "action = 'hold.release'",
        "detail = replace(detail, 'models.yaml', 'models.yamk')",
        "hash = zeroblob(32)",
    ] {
        let scene = Scene::new();
        scene.sql(&format!("UPDATE events SET {change} WHERE id = 5"));
        let report = scene.audit(false);
        let at = report
            .violations
            .iter()
            .find(|f| f.property == "chain_intact")
            .and_then(|f| f.event);
        assert_eq!(at, Some(5), "{change}: {report:#?}");
    }
}

#[test]
fn the_last_rows_cut() {
    // With the sums made right again, back to a state that once was.
    let scene = Scene::new();
    let conn = rusqlite::Connection::open(scene.ledger()).unwrap();
    let last_commit: i64 = conn
        .query_row(
            "SELECT MAX(id) FROM events WHERE action = 'usage.commit'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    scene.sql(&format!(
        "UPDATE agents SET spent_micro = spent_micro - (SELECT cost_micro FROM events WHERE id = {last_commit}), \
         carry_pico = (SELECT SUM(cost_pico) FROM events WHERE id < {last_commit}) % 1000000; \
         UPDATE nodes SET spent_micro = (SELECT SUM(cost_pico) FROM events WHERE id < {last_commit}) / 1000000, \
         carry_pico = (SELECT SUM(cost_pico) FROM events WHERE id < {last_commit}) % 1000000; \
         DELETE FROM events WHERE id >= {last_commit} - 1"
    ));
    scene.found(false, "head_sealed");
    scene.found(false, "checkpoint_agrees");
    // Without the file that is kept beside it, too.
    std::fs::remove_file(seal::checkpoint_path(&scene.ledger())).unwrap();
    let found = scene.audit(true).violations;
    assert_eq!(found.len(), 1, "{found:?}");
    scene.found(false, "head_sealed");
}

#[test]
fn two_events_swapped() {
    let scene = Scene::new();
    scene.sql(
        "UPDATE events SET id = 1000 WHERE id = 6; UPDATE events SET id = 6 WHERE id = 8; \
         UPDATE events SET id = 8 WHERE id = 1000",
    );
    scene.found(false, "chain_intact");
    scene.recompute();
    scene.found(false, "checkpoint_agrees");
}

#[test]
fn the_whole_ledger_emptied() {
    let scene = Scene::new();
    scene.sql("DELETE FROM events; DELETE FROM holds; DELETE FROM tokens; DELETE FROM agents");
    scene.found(false, "checkpoint_agrees");
    scene.found(false, "key_declared");
    scene.found(false, "head_sealed");
    scene.found(true, "checkpoint_agrees");
    // And a start does not take it up.
    let started = aex_admin::ledger::Ledger::open(&scene.ledger());
    let text = started.err().unwrap().to_string();
    assert!(text.contains("last checkpoint"), "{text}");
    std::fs::remove_file(scene.ledger()).unwrap();
    assert!(aex_admin::ledger::Ledger::open(&scene.ledger()).is_err());
    assert!(!scene.ledger().exists(), "nothing is made in its place");
}

#[test]
fn one_event_edited_and_the_whole_chain_recomputed() {
    let scene = Scene::new();
    scene.sql("UPDATE events SET cost_pico = cost_pico - 1 WHERE id = 5; UPDATE agents SET carry_pico = carry_pico - 1");
    scene.recompute();
    let report = scene.audit(false);
    assert!(
        report
            .violations
            .iter()
            .all(|f| f.property != "chain_intact")
    );
    scene.found(false, "checkpoint_agrees");
    scene.found(false, "head_sealed");
    // In a copy without the key, and with every signature in the chain taken out, what was kept
    // elsewhere still tells.
    let copy = tempfile::tempdir().unwrap();
    let path = copy.path().join("copy.db");
    std::fs::copy(scene.ledger(), &path).unwrap();
    found_in_copy(&path, &scene.kept);
}

#[track_caller]
fn found_in_copy(path: &Path, kept: &Checkpoint) {
    let report = audit::of_file(path, std::slice::from_ref(kept)).unwrap();
    let at = report
        .violations
        .iter()
        .filter(|f| f.property == "checkpoint_agrees")
        .filter_map(|f| f.event)
        .collect::<Vec<_>>();
    assert!(at.contains(&kept.event), "{report:#?}");
}

#[test]
fn a_forged_checkpoint_is_none() {
    let scene = Scene::new();
    let forged = Checkpoint {
        spent_micro: 0,
        ..scene.kept.clone()
    };
    let report = audit::of_file(&scene.ledger(), &[forged]).unwrap();
    assert!(!report.ok);
    let of_the_future = Checkpoint {
        event: 1_000_000,
        ..scene.kept.clone()
    };
    let report = audit::of_file(&scene.ledger(), &[of_the_future]).unwrap();
    assert!(!report.ok);
}

#[test]
fn another_signing_key_is_told() {
    let scene = Scene::new();
    std::fs::remove_file(seal::key_path(&scene.ledger())).unwrap();
    // Nobody can check the end without it; the signatures of the declared key still hold.
    let report = scene.audit(true);
    assert!(report.ok && report.warnings.len() == 1, "{report:#?}");
    // A lost key does not stop the kernel; the chain says from where on another one signs.
    Kernel::start(scene.home.path()).stop();
    let report = scene.audit(true);
    assert!(report.ok, "{report:#?}");
    assert!(report.warnings.iter().any(|f| f.property == "key_replaced"));
}

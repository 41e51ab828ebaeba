//! The ledger's upkeep by the commands: checkpoint, audit against it, export, replay, resolve, backup and
//! restore. What tampering leaves is tested beside the audit, in aex-admin.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use aex_tests::harness::Kernel;
use aex_tests::sim::Sim;
use serde_json::{Value, json};

use crate::common::{hello, sim, spent_pico};

/// A kernel with an agent that made `calls` requests.
fn with_history(sim: &Sim, calls: usize) -> (Kernel, String) {
    let kernel = Kernel::on(sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    for _ in 0..calls {
        assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200);
    }
    kernel.settled();
    (kernel, token)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The chain as docs/LEDGER.md tells it, computed anew by another program from an export.
const CHAIN: &str = r#"
import csv, hashlib, json, sys
def text(t): return b'\xff\xff\xff\xff' if t is None else len(t.encode()).to_bytes(4, 'big') + t.encode()
def rows(kind):
    if kind == 'csv':
        csv.field_size_limit(1 << 30)
        for r in csv.DictReader(sys.stdin):
            for n in ('id', 'at_ms', 'cost_micro', 'cost_pico', 'held_pico'): r[n] = int(r[n])
            for n in ('agent', 'hold'): r[n] = r[n] or None
            yield r
    else:
        for line in sys.stdin:
            r = json.loads(line)
            raw = line[line.index('"detail":') + 9 : line.rindex(',"hash"')]
            r['detail'] = raw
            yield r
last = bytes(32)
for r in rows(sys.argv[1]):
    n = lambda k: r[k].to_bytes(8, 'big', signed=True)
    last = hashlib.sha256(last + n('id') + n('at_ms') + text(r['agent']) + text(r['action'])
        + n('cost_micro') + n('cost_pico') + n('held_pico') + text(r['hold']) + text(r['detail'])).digest()
    assert last.hex() == r['hash'], r['id']
print(last.hex())
"#;

fn recomputed(kind: &str, export: &[u8]) -> String {
    let mut python = Command::new("python3")
        .args(["-c", CHAIN, kind])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    python.stdin.take().unwrap().write_all(export).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    text(&output).trim().to_owned()
}

#[test]
fn an_export_has_the_whole_chain_in_both_formats() {
    let sim = sim();
    let (kernel, _) = with_history(&sim, 3);
    let head = kernel.aex_json(&["audit"])["head"]
        .as_str()
        .unwrap()
        .to_owned();
    let lines = kernel.aex(&["ledger", "export"]);
    assert!(lines.status.success(), "{}", complaint(&lines));
    assert_eq!(recomputed("jsonl", &lines.stdout), head);
    let csv = kernel.aex(&["ledger", "export", "--format", "csv"]);
    assert_eq!(recomputed("csv", &csv.stdout), head);
    let events = kernel.sqlite_number("SELECT COUNT(*) FROM events");
    assert_eq!(
        text(&lines).lines().count(),
        usize::try_from(events).unwrap()
    );
}

#[test]
fn a_checkpoint_that_was_kept_elsewhere_proves_the_history() {
    let sim = sim();
    let (mut kernel, token) = with_history(&sim, 2);
    let printed = kernel.aex(&["ledger", "checkpoint"]);
    let checkpoint: Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!(text(&printed).lines().count(), 1, "it and nothing else");
    let file = kernel.home().join("kept.jsonl");
    fs::write(&file, &printed.stdout).unwrap();
    assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200);
    kernel.settled();
    let second = kernel.aex(&["ledger", "checkpoint"]);
    let mut both = fs::OpenOptions::new().append(true).open(&file).unwrap();
    both.write_all(&second.stdout).unwrap();
    let file = file.to_str().unwrap().to_owned();
    let against = ["audit", "--against", &file];
    assert_eq!(kernel.aex_json(&against)["ok"], true);
    kernel.stop();

    // One event edited, and the whole chain recomputed by the book: `aex-admin audit` with the daemon
    // stopped, `aex audit` once it runs again.
    let event = checkpoint["event"].as_i64().unwrap();
    kernel.sqlite(&format!(
        "UPDATE events SET at_ms = at_ms + 1 WHERE id = {event} - 1"
    ));
    rechain(&kernel.places.ledger);
    let offline = admin_audit(&kernel, &["--against", &file]);
    assert_eq!(offline.status.code(), Some(1));
    let found = format!("checkpoint_agrees agent - event {event}:");
    assert!(text(&offline).contains(&found), "{}", text(&offline));
    assert!(
        !text(&offline).contains("chain_intact"),
        "{}",
        text(&offline)
    );
    fs::remove_file(kernel.home().join("aex.db.checkpoint")).unwrap();
    kernel.start_again();
    let online = kernel.aex(&against);
    assert_eq!(online.status.code(), Some(1));
    assert!(
        text(&online).contains("VIOLATED checkpoint_agrees"),
        "{}",
        text(&online)
    );

    // A file that is none.
    for bad in ["", "{}", "noise"] {
        fs::write(&file, bad).unwrap();
        let output = kernel.aex(&against);
        assert_eq!(output.status.code(), Some(2), "{bad:?}");
        assert!(complaint(&output).contains(&file), "{}", complaint(&output));
    }
}

/// Writes the hash that follows from each event's fields, with python3 and its sqlite3.
fn rechain(ledger: &Path) {
    const RECHAIN: &str = r#"
import hashlib, sqlite3, sys
def text(t): return b'\xff\xff\xff\xff' if t is None else len(t.encode()).to_bytes(4, 'big') + t.encode()
db = sqlite3.connect(sys.argv[1])
last = bytes(32)
n = lambda v: v.to_bytes(8, 'big', signed=True)
for r in db.execute('SELECT id, at_ms, agent, action, cost_micro, cost_pico, held_pico, hold, detail FROM events ORDER BY id').fetchall():
    last = hashlib.sha256(last + n(r[0]) + n(r[1]) + text(r[2]) + text(r[3]) + n(r[4]) + n(r[5]) + n(r[6]) + text(r[7]) + text(r[8])).digest()
    db.execute('UPDATE events SET hash = ? WHERE id = ?', (last, r[0]))
db.commit()
"#;
    let done = Command::new("python3")
        .args(["-c", RECHAIN])
        .arg(ledger)
        .status()
        .unwrap();
    assert!(done.success());
}

fn admin_audit(kernel: &Kernel, args: &[&str]) -> Output {
    Command::new(aex_tests::harness::program("aex-admin"))
        .arg("audit")
        .arg("--db")
        .arg(&kernel.places.ledger)
        .args(args)
        .output()
        .unwrap()
}

#[test]
fn a_correction_is_appended_with_its_reason() {
    let sim = sim();
    let (kernel, _) = with_history(&sim, 1);
    let hold = kernel.sqlite("SELECT hold FROM events WHERE action = 'usage.commit'");
    let args = [
        "ledger",
        "resolve",
        &hold,
        "--cost",
        "0.000000000001",
        "--reason",
        "invoice 7",
    ];
    let done = kernel.aex_json(&args);
    assert_eq!(spent_pico(&kernel, "a"), 1, "{done}");
    let detail = kernel.sqlite("SELECT detail FROM events ORDER BY id DESC LIMIT 1");
    assert_eq!(
        detail,
        r#"{"correction":true,"reason":"invoice 7","by":"operator"}"#
    );
    let agent = [
        "ledger",
        "resolve",
        "--agent",
        "a",
        "--add",
        "0.5",
        "--reason",
        "lost disk",
    ];
    kernel.aex_json(&agent);
    assert_eq!(spent_pico(&kernel, "a"), 500_000_000_001);
    let replay = kernel.aex_json(&["ledger", "replay"]);
    assert_eq!(replay["same"], true, "{replay}");
    kernel.audit();
    for (args, code) in [
        (
            vec!["ledger", "resolve", "00", "--cost", "1", "--reason", "x"],
            4,
        ),
        (
            vec![
                "ledger", "resolve", "--agent", "z", "--add", "1", "--reason", "x",
            ],
            4,
        ),
        (
            vec![
                "ledger", "resolve", "--agent", "a", "--add", "-9", "--reason", "x",
            ],
            5,
        ),
        (vec!["ledger", "resolve", &hold, "--cost", "1"], 2),
        (vec!["ledger", "resolve", "--reason", "x"], 2),
        (
            vec![
                "ledger", "resolve", "--agent", "a", "--add", "1", "--cost", "2", "--reason", "x",
            ],
            2,
        ),
        (
            vec!["ledger", "resolve", &hold, "--add", "1", "--reason", "x"],
            2,
        ),
    ] {
        let output = kernel.aex(&args);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{args:?}: {}",
            complaint(&output)
        );
    }
    // A balance that somebody changed is told, by name.
    kernel.sqlite("UPDATE agents SET spent_micro = spent_micro - 1");
    let output = kernel.aex(&["ledger", "replay"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("DIFFERS a:"), "{}", text(&output));
}

#[test]
fn a_backup_is_made_while_it_runs_and_restored_when_stopped() {
    let sim = sim();
    let (mut kernel, token) = with_history(&sim, 2);
    let backup = kernel.home().join("b.db");
    let backup = backup.to_str().unwrap().to_owned();
    let made = kernel.aex_json(&["ledger", "backup", &backup]);
    let spent = spent_pico(&kernel, "a");
    let mode = fs::metadata(&backup).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_ne!(
        kernel.aex(&["ledger", "backup", &backup]).status.code(),
        Some(0)
    );
    assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200);
    kernel.settled();

    let running = kernel.aex(&["ledger", "restore", &backup]);
    assert_eq!(running.status.code(), Some(5), "{}", complaint(&running));
    kernel.stop();
    assert_eq!(
        kernel
            .aex(&["ledger", "restore", "/nowhere.db"])
            .status
            .code(),
        Some(4)
    );
    // The last request is in the last checkpoint, and in the egress's journal.
    let refused = kernel.aex(&["ledger", "restore", &backup, "--json"]);
    assert_eq!(refused.status.code(), Some(1), "{}", complaint(&refused));
    let report: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!(report["restored"], false);
    assert_eq!(report["unknown_requests"], 1, "{report}");
    assert!(report["missing_events"].as_i64().unwrap() >= 2, "{report}");
    assert_eq!(report["events"], made["event"]);
    // Put there by hand, it is not served.
    let aside = kernel.home().join("aside");
    let files = ["aex.db", "aex.db-wal", "aex.db-shm"];
    let swap = |from: &Path, to: &Path| {
        for name in files {
            let _ = fs::rename(from.join(name), to.join(name));
        }
    };
    fs::create_dir(&aside).unwrap();
    swap(kernel.home(), &aside);
    fs::copy(&backup, &kernel.places.ledger).unwrap();
    let start = kernel.aex(&["daemon", "start", "--listen", "127.0.0.1:0"]);
    assert_eq!(start.status.code(), Some(1));
    assert!(
        complaint(&start).contains("aex ledger restore"),
        "{}",
        complaint(&start)
    );
    for name in files {
        let _ = fs::remove_file(kernel.home().join(name));
    }
    swap(&aside, kernel.home());

    let done = kernel.aex_json(&["ledger", "restore", &backup, "--accept-loss"]);
    assert_eq!(done["restored"], true);
    kernel.start_again();
    assert_eq!(spent_pico(&kernel, "a"), spent);
    let report = kernel.aex_json(&["audit"]);
    assert_eq!(
        report["warnings"][0]["property"], "ledger_restored",
        "{report}"
    );
    assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200);
    kernel.settled();
    kernel.audit();
}

/// Each check that docs/LEDGER.md gives for the sqlite3 shell: its name, what it should say, its SQL.
fn checks_by_hand() -> Vec<(String, String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/LEDGER.md");
    let text = fs::read_to_string(path).unwrap();
    let sql = text.split("```sql\n").nth(1).unwrap();
    let sql = sql.split("```").next().unwrap();
    let mut checks = Vec::new();
    for block in sql.split("-- ").skip(1) {
        let (head, statements) = block.split_once('\n').unwrap();
        let (name, expected) = head.split_once(": ").unwrap();
        checks.push((name.to_owned(), expected.to_owned(), statements.to_owned()));
    }
    checks
}

#[test]
fn the_checks_by_hand_say_what_the_page_says() {
    let sim = sim();
    let (kernel, _) = with_history(&sim, 3);
    // A correction, an outside change and a hold that is open belong to an ordinary ledger.
    let hold = kernel.sqlite("SELECT hold FROM events WHERE action = 'usage.commit' LIMIT 1");
    let args = [
        "ledger", "resolve", &hold, "--cost", "0.01", "--reason", "x",
    ];
    kernel.aex_json(&args);
    let checks = checks_by_hand();
    assert!(checks.len() >= 13, "{checks:?}");
    let run = |check: &str| {
        let (_, _, sql) = checks
            .iter()
            .find(|(name, ..)| name.contains(check))
            .unwrap();
        kernel.sqlite(sql)
    };
    for (name, expected, sql) in &checks {
        let said = kernel.sqlite(sql);
        match expected.as_str() {
            "no row" => assert_eq!(said, "", "{name}"),
            "two equal numbers" => {
                let (one, other) = said.split_once('|').unwrap();
                assert_eq!(one, other, "{name}");
            }
            _ => assert!(name.starts_with("outside_update"), "{name}: {expected}"),
        }
    }
    // And they find what they are for.
    for (tamper, check) in [
        (
            "UPDATE agents SET spent_micro = spent_micro + 1",
            "spent_equals_commits",
        ),
        (
            "UPDATE agents SET carry_pico = (carry_pico + 1) % 1000000",
            "picodollars_equal_commits",
        ),
        ("UPDATE agents SET held_pico = 7", "held_equals_open_holds"),
        (
            "UPDATE agents SET reserved_micro = 7",
            "reserved_is_held_rounded_up",
        ),
        (
            "INSERT INTO events SELECT 100000, at_ms, agent, action, cost_micro, cost_pico, held_pico, \
             hold, detail, hash FROM events WHERE action = 'hold.open' LIMIT 1",
            "hold_opened_once",
        ),
        (
            "INSERT INTO events SELECT 200001, at_ms, agent, 'hold.release', 0, 1, 0, hold, '{}', hash \
             FROM events WHERE action = 'hold.open' LIMIT 1",
            "hold_ended_once",
        ),
        ("SELECT 1", "release_is_free"),
        (
            "UPDATE events SET cost_pico = -cost_pico WHERE action = 'usage.commit'",
            "no_negative_balance",
        ),
        (
            "UPDATE events SET held_pico = 9000000000000 WHERE action = 'hold.open'",
            "held_within_budget",
        ),
        (
            "INSERT INTO events SELECT 300002, at_ms, 'ghost', action, 0, 0, 0, hold, '{}', hash FROM events LIMIT 1",
            "agent_kept",
        ),
        (
            "INSERT INTO events SELECT 400003 + n.column1, at_ms, 'a', 'hold.open', 0, 0, 0, \
             n.column1, '{\"idempotency\":\"0011223344556677\"}', hash \
             FROM events, (VALUES (1), (2)) n WHERE events.id = 1",
            "key_charged_once",
        ),
        (
            "INSERT INTO idempotency SELECT id, zeroblob(32), zeroblob(32), 1, 0, 0 FROM agents",
            "key_has_hold",
        ),
    ] {
        kernel.sqlite(tamper);
        assert_ne!(run(check), "", "{check} after {tamper}");
    }
    let numbers = run("chain_contiguous");
    let (one, other) = numbers.split_once('|').unwrap();
    assert_ne!(one, other);
}

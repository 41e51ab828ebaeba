//! Changes made with somebody's own SQL while the kernel runs: honoured, recorded, never fatal.

use aex_tests::harness::Kernel;
use aex_tests::sim::Behaviour;
use serde_json::json;

use crate::common::{hello, in_flight, sim};

fn count(kernel: &Kernel, action: &str) -> i64 {
    kernel.sqlite_number(&format!(
        "SELECT COUNT(*) FROM events WHERE action = '{action}'"
    ))
}

#[test]
fn an_event_added_from_outside_is_found_and_stops_nothing() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    // A hold is open meanwhile, and must be settled after it.
    sim.behave(Behaviour {
        delay_ms: 300,
        ..Behaviour::default()
    });
    let mut connection = in_flight(&kernel, &sim, &token, &hello(json!({})));
    kernel.sqlite(
        "INSERT INTO events (id, at_ms, agent, action, detail, hash) \
         SELECT id + 1, at_ms, NULL, 'note', '{}', hash FROM events ORDER BY id DESC LIMIT 1",
    );
    assert_eq!(connection.response().unwrap().status, 200);
    sim.behave(Behaviour::default());
    assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200);
    kernel.settled();
    let audit = kernel.aex(&["audit"]);
    assert_eq!(audit.status.code(), Some(1));
    let said = String::from_utf8_lossy(&audit.stdout).into_owned();
    assert!(said.contains("chain_intact"), "{said}");
}

#[test]
fn a_chain_that_was_cut_or_forged_while_it_grew_is_found() {
    let sim = sim();
    for sql in [
        "DELETE FROM events WHERE id > 3",
        // A link that follows nothing, and one that is no hash.
        "INSERT INTO events (id, at_ms, action, detail, hash) \
         SELECT id + 1, at_ms, 'note', '{}', zeroblob(32) FROM events ORDER BY id DESC LIMIT 1",
        "INSERT INTO events (id, at_ms, action, detail, hash) \
         SELECT id + 1, at_ms, 'note', '{}', x'00' FROM events ORDER BY id DESC LIMIT 1",
    ] {
        let mut kernel = Kernel::on(&sim);
        let token = kernel.create_agent("a", "1.00", 1000, &[]);
        for _ in 0..3 {
            assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200);
        }
        kernel.sqlite(sql);
        assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200, "{sql}");
        kernel.settled();
        kernel.stop();
        kernel.start_again();
        assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200, "{sql}");
        let audit = kernel.aex(&["audit"]);
        let said = String::from_utf8_lossy(&audit.stdout).into_owned();
        assert_eq!(audit.status.code(), Some(1), "{sql}: {said}");
        assert!(said.contains("chain_"), "{sql}: {said}");
    }
}

#[test]
fn a_change_is_recorded_though_the_record_was_overwritten_too() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 5, &[]);
    kernel.sqlite("UPDATE agents SET recorded = 'x', rpm = 1000 WHERE name = 'a'");
    assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200);
    assert_eq!(count(&kernel, "outside.update"), 1);
    let strict = kernel.aex(&["audit", "--strict"]);
    assert_eq!(strict.status.code(), Some(1));
    kernel.audit();
}

#[test]
fn every_limit_is_compared_with_what_was_recorded_last() {
    let sim = sim();
    let mut kernel = Kernel::on(&sim);
    let _ = kernel.create_agent("a", "1.00", 5, &["--allowed-models", "gpt-oss-20b"]);
    // Nobody is there to record it.
    kernel.stop();
    kernel.sqlite("UPDATE agents SET allowed_models = NULL WHERE name = 'a'");
    let audit = std::process::Command::new(aex_tests::harness::program("aex-admin"))
        .args(["audit", "--db"])
        .arg(&kernel.places.ledger)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&audit.stdout).into_owned();
    assert!(said.contains("outside_update"), "{said}");
    assert_eq!(audit.status.code(), Some(0), "{said}");
}

#[test]
fn an_agent_keeps_its_name() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 5, &[]);
    let shell = std::process::Command::new("sqlite3")
        .args(["-batch", "-cmd", ".timeout 5000"])
        .arg(&kernel.places.ledger)
        .arg("UPDATE agents SET name = 'b' WHERE name = 'a'")
        .output()
        .unwrap();
    assert!(!shell.status.success());
    assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200);
    kernel.audit();
}

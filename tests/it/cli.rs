//! Commands, their JSON, their exit codes.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use aex_tests::harness::{Kernel, wait_for};
use aex_tests::sim::Behaviour;
use serde_json::{Value, json};

use crate::common::{assert_error, hello, sim};

#[track_caller]
fn exits(output: &Output, code: i32) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    if code != 0 {
        assert!(!said.trim().is_empty(), "an error says what to do next");
    }
    said
}

#[test]
fn init_makes_a_private_home_once() {
    let kernel = Kernel::builder().prepare();
    let config = kernel.places.config_file.clone();
    let first = std::fs::read(&config).unwrap();
    let text = String::from_utf8(first.clone()).unwrap();
    for word in [
        "groq",
        "openai",
        "ollama",
        "gpt-oss-20b",
        "gpt-4",
        "llama-local",
        "#",
    ] {
        assert!(
            text.contains(word),
            "{word} is not in the first models.yaml"
        );
    }
    let again = kernel.aex(&["init"]);
    exits(&again, 0);
    assert_eq!(std::fs::read(&config).unwrap(), first);
    let mode = std::fs::metadata(kernel.home())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    exits(&kernel.aex(&["config", "check"]), 0);
}

#[test]
fn a_stopped_kernel_says_so() {
    let kernel = Kernel::builder().prepare();
    for args in [
        &["status"][..],
        &["agent", "list"],
        &["metrics"],
        &["audit"],
        &["models"],
    ] {
        exits(&kernel.aex(args), 3);
    }
    exits(&kernel.aex(&["daemon", "stop"]), 0);
}

#[test]
fn a_start_that_fails_says_why_and_leaves_nothing() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let kernel = Kernel::builder().prepare();
    let listen = format!("127.0.0.1:{port}");
    let said = exits(&kernel.aex(&["daemon", "start", "--listen", &listen]), 1);
    assert!(said.contains(&port.to_string()), "{said}");

    kernel
        .write_config("providers:\n  sim:\n    base_url: http://127.0.0.1:1/v1\n    bass_url: x\n");
    let said = exits(
        &kernel.aex(&["daemon", "start", "--listen", "127.0.0.1:0"]),
        1,
    );
    assert!(said.contains("models.yaml:4:5"), "{said}");
    assert!(said.contains("bass_url"), "{said}");
    exits(&kernel.aex(&["status"]), 3);
    assert!(kernel.daemon_state().is_none());
}

#[test]
fn start_and_stop_can_be_said_twice() {
    let sim = sim();
    let mut kernel = Kernel::on(&sim);
    let pid = kernel.pid("daemon");
    exits(&kernel.aex(&["daemon", "start"]), 0);
    assert_eq!(kernel.pid("daemon"), pid);
    exits(&kernel.aex(&["daemon", "status"]), 0);
    kernel.stop();
    exits(&kernel.aex(&["daemon", "stop"]), 0);
    assert_eq!(kernel.aex(&["daemon", "status"]).status.code(), Some(3));
}

#[test]
fn exit_codes() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let _ = kernel.create_agent("a", "1.00", 10, &[]);
    for (args, code) in [
        (&["agent", "show", "nobody"][..], 4),
        (&["agent", "pause", "nobody"], 4),
        (&["agent", "rotate-token", "nobody"], 4),
        (&["token", "revoke", "999999"], 4),
        (&["agent", "create", "a", "1.00", "10"], 5),
        (&["agent", "create", "b", "1.0000001", "10"], 2),
        (&["agent", "create", "b", "-1", "10"], 2),
        (&["agent", "create", "b", "1e3", "10"], 2),
        (&["agent", "create", "b", "1.00", "0"], 2),
        (&["agent", "create", "b", "1.00"], 2),
        (&["agent", "create", "b", "1.00", "10", "--no-such"], 2),
        (&["no-such-command"], 2),
        (&["rpc", "no.such.method"], 1),
        (&["status"], 0),
        (&["models"], 0),
        (&["daemon", "logs"], 0),
    ] {
        let output = kernel.aex(args);
        if args[0] == "rpc" {
            assert!(!output.status.success(), "{output:?}");
            continue;
        }
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    }
}

#[test]
fn every_command_has_json_and_help_with_an_example() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let _ = kernel.create_agent("a", "1.00", 10, &[]);
    for args in [
        &["status"][..],
        &["metrics"],
        &["audit"],
        &["models"],
        &["prices", "list"],
        &["prices", "show", "gpt-4o"],
        &["agent", "list"],
        &["agent", "show", "a"],
        &["token", "list", "a"],
        &["config", "check"],
        &["config", "reload"],
        &["agent", "set", "a", "--rpm", "20"],
        &["agent", "pause", "a"],
        &["agent", "resume", "a"],
        &["daemon", "status"],
    ] {
        let document = kernel.aex_json(args);
        assert!(
            document.is_object() || document.is_array(),
            "{args:?}: {document}"
        );
        let help = kernel.aex(&[args, &["--help"]].concat());
        let text = String::from_utf8_lossy(&help.stdout).to_lowercase();
        assert!(
            help.status.success() && text.contains("example"),
            "{args:?}: {text}"
        );
    }
}

#[test]
fn an_agents_life() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let reply = kernel.aex_json(&["agent", "create", "life", "2.01", "30"]);
    for (field, value) in [
        ("name", json!("life")),
        ("budget_micro", json!(2_010_000)),
        ("rpm", json!(30)),
    ] {
        assert_eq!(reply[field], value, "{reply}");
    }
    let token = reply["token"].as_str().unwrap().to_owned();
    let chat = |token: &str| kernel.chat(token, &hello(json!({})));
    assert_eq!(chat(&token).status, 200);

    kernel.aex_json(&["agent", "pause", "life"]);
    let paused = chat(&token);
    assert_error(&paused, 423, "agent_paused");
    assert_eq!(paused.detail(), "Agent is paused");
    kernel.aex_json(&["agent", "resume", "life"]);
    assert_eq!(chat(&token).status, 200);

    kernel.aex_json(&["agent", "set", "life", "--allowed-models", "sim-free"]);
    assert_error(&chat(&token), 403, "model_not_allowed");
    kernel.aex_json(&[
        "agent",
        "set",
        "life",
        "--clear",
        "allowed-models",
        "--add",
        "0.99",
    ]);
    assert_eq!(chat(&token).status, 200);
    assert_eq!(kernel.agent("life")["budget_micro"], 3_000_000);

    let rotated = kernel.aex_json(&["agent", "rotate-token", "life"]);
    let fresh = rotated["token"].as_str().unwrap();
    assert_error(&chat(&token), 401, "invalid_api_key");
    assert_eq!(chat(fresh).status, 200);

    let tokens = kernel.aex_json(&["token", "list", "life"]);
    let live = tokens["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .find(|token| token["revoked"] == false);
    let id = live.expect("a live token")["id"].to_string();
    kernel.aex_json(&["token", "revoke", &id]);
    assert_error(&chat(fresh), 401, "invalid_api_key");

    kernel.aex_json(&["agent", "delete", "life"]);
    exits(&kernel.aex(&["agent", "create", "life", "1", "1"]), 5);
    assert_eq!(kernel.agent("life")["state"], "closed");
    kernel.audit();
}

#[test]
fn capabilities() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let tool =
        |name: &str| json!([{"type": "function", "function": {"name": name, "parameters": {}}}]);
    let image = json!([{"role": "user", "content": [
        {"type": "text", "text": "what is it"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]);
    for (option, body, capability) in [
        (
            &["--no-streaming"][..],
            json!({"stream": true}),
            "streaming",
        ),
        (&["--no-tools"], json!({"tools": tool("f")}), "tools"),
        (
            &["--allowed-tools", "g,h"],
            json!({"tools": tool("f")}),
            "tool f",
        ),
        (&["--no-vision"], json!({"messages": image}), "vision"),
    ] {
        let name = capability.replace(' ', "-");
        let token = kernel.create_agent(&name, "1.00", 1000, option);
        let refusal = kernel.chat(&token, &hello(body));
        assert_error(&refusal, 403, "capability_not_allowed");
        assert_eq!(
            refusal.detail(),
            format!("Capability not allowed: {capability}")
        );
        assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200);
    }
    let capped = kernel.create_agent(
        "capped",
        "1.00",
        1000,
        &["--max-output-tokens", "5", "--max-input-tokens", "200"],
    );
    let mut body = hello(json!({}));
    body.as_object_mut().unwrap().remove("max_tokens");
    assert_eq!(
        kernel.chat(&capped, &body).header("x-aex-output-cap"),
        Some("5")
    );
    let long = json!([{"role": "user", "content": "word ".repeat(2000)}]);
    assert_error(
        &kernel.chat(&capped, &hello(json!({"messages": long, "max_tokens": 5}))),
        400,
        "invalid_request",
    );
}

#[test]
fn sever_cuts_what_is_open() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    sim.behave(Behaviour {
        chunk_delay_ms: 20,
        natural_tokens: Some(1000),
        ..Behaviour::default()
    });
    let mut events =
        kernel.chat_stream(&token, &hello(json!({"stream": true, "max_tokens": 1000})));
    assert!(events.nth(3).is_some());
    kernel.aex_json(&["agent", "sever", "a"]);
    let last = events.by_ref().last().expect("a last event");
    assert!(last.json()["error"].is_object(), "{last:?}");
    assert!(sim.bill().total().completion_tokens < 500, "it ran on");
    assert_error(&kernel.chat(&token, &hello(json!({}))), 423, "agent_paused");
    kernel.settled();
    assert!(crate::common::spent_pico(&kernel, "a") >= crate::common::bill_pico(&sim.bill()));
    kernel.audit();
}

#[test]
fn run_gives_a_command_a_token_of_its_own() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let _ = kernel.create_agent("a", "1.00", 1000, &[]);
    let script = "echo $OPENAI_BASE_URL; echo $OPENAI_API_KEY; echo ${GROQ_API_KEY-unset}; exit 7";
    let output = kernel
        .command(&["run", "-a", "a", "--", "sh", "-c", script])
        .env("GROQ_API_KEY", "sk-fake-groq")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = printed.lines().collect();
    let [base, token, groq] = lines[..] else {
        panic!("{printed}")
    };
    assert_eq!(base, format!("http://{}/v1", kernel.addr));
    assert_eq!(groq, "unset");
    assert_error(
        &kernel.chat(token, &hello(json!({}))),
        401,
        "invalid_api_key",
    );
    for (args, code) in [
        (&["run", "-a", "nobody", "--", "true"][..], 125),
        (&["run", "-a", "a", "--", "/etc/passwd"], 126),
        (&["run", "-a", "a", "--", "no-such-program-at-all"], 127),
    ] {
        exits(&kernel.aex(args), code);
    }
}

#[test]
fn a_bad_reload_keeps_the_old_configuration() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    let good = std::fs::read_to_string(&kernel.places.config_file).unwrap();
    for (bad, place) in [
        (format!("{good}\nno_such_key: 1\n"), "no_such_key"),
        (good.replace("0.30", "minus"), "output_per_mtok"),
        (
            good.replace("provider: sim", "provider: elsewhere"),
            "no such provider",
        ),
    ] {
        kernel.write_config(&bad);
        let said = exits(&kernel.aex(&["config", "reload"]), 1);
        assert!(said.contains(place), "{said}");
        assert!(said.contains("line ") && said.contains("column "), "{said}");
        assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200);
    }
    kernel.write_config(&good.replace("  sim-free:", "  renamed:"));
    exits(&kernel.aex(&["config", "reload"]), 0);
    wait_for("the new model", || {
        let answer = kernel.chat(&token, &hello(json!({"model": "renamed"})));
        (answer.status == 200).then_some(())
    });
    assert_error(
        &kernel.chat(&token, &hello(json!({"model": "sim-free"}))),
        404,
        "model_not_found",
    );
}

#[test]
fn the_ledger_can_be_read_event_by_event() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &[]);
    for _ in 0..3 {
        assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200);
    }
    kernel.settled();
    let output = kernel.aex(&["ledger", "tail", "--json"]);
    exits(&output, 0);
    let text = String::from_utf8(output.stdout).unwrap();
    let events: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let commits = events
        .iter()
        .filter(|event| event["action"] == "usage.commit");
    let sum: i64 = commits
        .map(|event| event["cost_micro"].as_i64().unwrap())
        .sum();
    assert_eq!(sum, kernel.agent("a")["spent_micro"].as_i64().unwrap());
    assert!(sum > 0);
    let ids: Vec<i64> = events
        .iter()
        .map(|event| event["id"].as_i64().unwrap())
        .collect();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
}

#[test]
fn an_audit_finds_what_was_changed() {
    let sim = sim();
    for (change, property) in [
        ("UPDATE agents SET spent_micro = 0 WHERE name='a'", "a"),
        (
            "UPDATE events SET cost_micro = 0 WHERE action='usage.commit'",
            "a",
        ),
        (
            "DELETE FROM events WHERE id = (SELECT MAX(id) FROM events WHERE action='usage.commit')",
            "",
        ),
    ] {
        let kernel = Kernel::on(&sim);
        let token = kernel.create_agent("a", "1.00", 1000, &[]);
        for _ in 0..3 {
            assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200);
        }
        kernel.settled();
        kernel.audit();
        let drop_triggers = kernel.sqlite(
            "SELECT 'DROP TRIGGER ' || name || ';' FROM sqlite_master WHERE type='trigger'",
        );
        kernel.sqlite(&format!("{drop_triggers} {change};"));
        let output = kernel.aex(&["audit", "--json"]);
        assert_eq!(output.status.code(), Some(1), "{change}: {output:?}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["ok"], false);
        let violations = report["violations"].as_array().unwrap();
        assert!(
            !violations.is_empty() && report.to_string().contains(property),
            "{report}"
        );
    }
}

#[test]
fn a_change_of_history_in_the_shell_is_refused_or_found() {
    let sim = sim();
    for sql in ["UPDATE events SET cost_micro = 1;", "DELETE FROM events;"] {
        let kernel = Kernel::on(&sim);
        let _ = kernel.create_agent("a", "1.00", 1000, &[]);
        let shell = std::process::Command::new("sqlite3")
            .args(["-cmd", ".timeout 5000"])
            .arg(&kernel.places.ledger)
            .arg(sql)
            .output()
            .unwrap();
        let audit = kernel.aex(&["audit"]);
        assert_ne!(
            shell.status.success(),
            audit.status.success(),
            "{sql}: {audit:?}"
        );
    }
}

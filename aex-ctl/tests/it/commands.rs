//! Commands that ask `aex-admin`: what they send, what they print, how they exit.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::fake_admin::{FakeAdmin, agent, token_reply};
use crate::{bare, expect_exit, stderr, stdout};

fn document(output: &std::process::Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn create_sends_exact_money_and_prints_the_token_with_its_exports() {
    let admin = FakeAdmin::start(|_, _| Ok(token_reply())).listens_on("127.0.0.1:4321");
    let output = admin.aex(&[
        "agent",
        "create",
        "a",
        "2.01",
        "30",
        "--ttl",
        "24h",
        "--no-tools",
    ]);
    expect_exit(&output, 0);
    assert_eq!(
        admin.asked(),
        [(
            "agent.create".to_owned(),
            json!({"name": "a", "budget_micro": 2_010_000, "rpm": 30, "ttl_s": 86_400,
                   "settings": {"tools": false}})
        )]
    );
    let text = stdout(&output);
    assert!(
        text.contains("export OPENAI_BASE_URL=http://127.0.0.1:4321/v1\n"),
        "{text}"
    );
    assert!(
        text.contains("export OPENAI_API_KEY=aex_fake-token\n"),
        "{text}"
    );
    assert!(text.contains("$2.010000"), "{text}");

    let json = document(&admin.aex(&["agent", "create", "a", "2.01", "30", "--json"]));
    assert_eq!(json["token"], "aex_fake-token");
    assert_eq!(json["budget_micro"], 2_010_000);
    assert_eq!(json["rpm"], 30);
    assert_eq!(json["base_url"], "http://127.0.0.1:4321/v1");
}

#[test]
fn without_a_supervisor_the_default_address_is_printed() {
    let admin = FakeAdmin::start(|_, _| Ok(token_reply()));
    let text = stdout(&admin.aex(&["agent", "rotate-token", "a", "--grace", "10m"]));
    assert!(
        text.contains("OPENAI_BASE_URL=http://127.0.0.1:9000/v1\n"),
        "{text}"
    );
    assert_eq!(
        admin.asked()[0].1,
        json!({"name": "a", "ttl_s": null, "grace_s": 600})
    );
}

#[test]
fn each_agent_command_asks_its_method_and_shows_the_agent() {
    let admin = FakeAdmin::start(|method, _| {
        Ok(match method {
            "agent.list" => json!({"agents": [agent()]}),
            _ => agent(),
        })
    });
    for (line, method) in [
        ("agent list", "agent.list"),
        ("agent show a", "agent.show"),
        ("agent set a --add 1", "agent.set"),
        ("agent pause a", "agent.pause"),
        ("agent resume a", "agent.resume"),
        ("agent sever a", "agent.sever"),
        ("agent delete a", "agent.delete"),
    ] {
        let mut arguments: Vec<&str> = line.split(' ').collect();
        let output = admin.aex(&arguments);
        expect_exit(&output, 0);
        assert!(stdout(&output).contains("$0.012345"), "{line}");
        assert_eq!(admin.asked().last().unwrap().0, method);
        arguments.push("--json");
        assert!(document(&admin.aex(&arguments)).is_object(), "{line}");
    }
}

#[test]
fn what_is_severed_is_told_how_to_go_on() {
    let admin = FakeAdmin::start(|method, _| {
        Ok(match method {
            "agent.sever" => agent(),
            _ => json!({
                "id": "s2", "kind": "group", "name": "team", "state": "paused",
                "spent_micro": 0, "reserved_micro": 0, "settings": {}, "created_at_ms": 0,
                "in_flight": 0, "requests_last_minute": 0, "tokens_last_minute": 0, "limits": []
            }),
        })
    });
    for (arguments, end) in [
        (
            ["agent", "sever", "a"],
            "`aex agent resume a` undoes the pause.\n",
        ),
        (
            ["group", "sever", "team"],
            "`aex group resume team` undoes the pause.\n",
        ),
    ] {
        let output = admin.aex(&arguments);
        expect_exit(&output, 0);
        assert!(stdout(&output).ends_with(end), "{}", stdout(&output));
    }
}

#[test]
fn errors_of_the_kernel_become_exit_codes_on_standard_error() {
    for (code, exit) in [
        (-32002, 4),
        (-32003, 5),
        (-32001, 5),
        (-32602, 2),
        (-32005, 1),
        (-32603, 1),
    ] {
        let admin = FakeAdmin::start(move |_, _| Err((code, "says the kernel")));
        let output = admin.aex(&["agent", "show", "a", "--json"]);
        expect_exit(&output, exit);
        assert_eq!(stdout(&output), "");
        assert!(stderr(&output).contains("says the kernel"));
    }
}

#[test]
fn a_stopped_kernel_is_exit_3_with_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let aex = |arguments: &[&str]| {
        bare(Path::new(env!("CARGO_BIN_EXE_aex-ctl")))
            .env("AEX_HOME", home.path())
            .args(arguments)
            .output()
            .unwrap()
    };
    for line in [
        "status",
        "agent list",
        "metrics",
        "models",
        "ledger tail",
        "rpc kernel.status",
    ] {
        let output = aex(&line.split(' ').collect::<Vec<_>>());
        expect_exit(&output, 3);
        assert!(stderr(&output).contains("aex daemon start"), "{line}");
    }
    let output = aex(&["audit"]);
    expect_exit(&output, 3);
    assert!(stderr(&output).contains("aex-admin audit --db"));
    let output = aex(&["status", "--json"]);
    expect_exit(&output, 3);
    assert_eq!(document(&output), json!({"running": false, "ready": false}));
}

#[test]
fn the_socket_can_be_named_by_option_and_environment() {
    let admin = FakeAdmin::start(|_, _| Ok(json!({"agents": []})));
    let socket = admin.home().join("run/admin.sock");
    let elsewhere = tempfile::tempdir().unwrap();
    let command = || {
        let mut command = bare(Path::new(env!("CARGO_BIN_EXE_aex")));
        command
            .env("AEX_HOME", elsewhere.path())
            .args(["agent", "list"]);
        command
    };
    expect_exit(&command().output().unwrap(), 3);
    expect_exit(&command().env("AEX_SOCKET", &socket).output().unwrap(), 0);
    expect_exit(&command().arg("--socket").arg(&socket).output().unwrap(), 0);
}

#[test]
fn mistakes_in_the_usage_ask_nothing_and_exit_2() {
    let admin = FakeAdmin::start(|_, _| Ok(json!({})));
    for line in [
        "agent create a 1e3 30",
        "agent create a 5 0",
        "agent set a",
        "agent set a --vision --clear vision",
        "rpc m [1",
        "rpc m 7",
        "nonsense",
    ] {
        let output = admin.aex(&line.split(' ').collect::<Vec<_>>());
        expect_exit(&output, 2);
        assert_eq!(stdout(&output), "", "{line}");
        assert_ne!(stderr(&output), "", "{line}");
    }
    assert!(admin.asked().is_empty());
}

#[test]
fn a_raw_call_prints_the_answer_as_it_is() {
    let admin = FakeAdmin::start(|method, params| match method {
        "echo" => Ok(params.clone()),
        _ => Err((-32601, "no such method")),
    });
    let output = admin.aex(&["rpc", "echo", "{\"n\":\n 18446744073709551615}"]);
    expect_exit(&output, 0);
    assert_eq!(stdout(&output), "{\"n\":18446744073709551615}\n");
    expect_exit(&admin.aex(&["rpc", "nothing"]), 4);
}

#[test]
fn an_audit_exits_1_for_violations_and_for_warnings_only_when_strict() {
    let finding = json!({"property": "spent_equals_commits", "agent": "a", "event": 3,
                         "message": "off by 1"});
    let report = |violations: Value, warnings: Value| {
        let ok = violations.as_array().unwrap().is_empty();
        json!({"ok": ok, "events": 9, "agents": 1, "spent_micro": 12_345, "head": "00",
               "violations": violations, "warnings": warnings})
    };
    let clean = report(json!([]), json!([]));
    let warned = report(json!([]), json!([finding]));
    let broken = report(json!([finding]), json!([]));
    for (report, plain, strict) in [(clean, 0, 0), (warned, 0, 1), (broken, 1, 1)] {
        let admin = FakeAdmin::start(move |_, _| Ok(report.clone()));
        let output = admin.aex(&["audit"]);
        expect_exit(&output, plain);
        assert_eq!(
            stdout(&output).contains("spent_equals_commits agent a event 3: off by 1"),
            strict == 1
        );
        expect_exit(&admin.aex(&["audit", "--strict"]), strict);
        let output = admin.aex(&["audit", "--json"]);
        expect_exit(&output, plain);
        assert_eq!(document(&output)["events"], 9);
    }
}

fn event(id: i64) -> Value {
    json!({"id": id, "at_ms": 0, "agent": "a", "action": "usage.commit", "cost_micro": 5,
           "cost_pico": 5_000_000, "hold": null, "detail": {"model": "m"}, "hash": "00"})
}

#[test]
fn a_tail_follows_from_where_it_was_and_ends_quietly_with_its_reader() {
    let admin = FakeAdmin::start(|_, params| {
        let from = params["after"].as_i64().unwrap_or(0);
        Ok(json!({"events": [event(from + 1), event(from + 2)]}))
    });
    let mut child = admin
        .command(&["ledger", "tail", "-f", "--json", "-n", "2"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for id in 1..=6 {
        let line = lines.next().unwrap().unwrap();
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["id"], id);
    }
    drop(lines);
    let output = child.wait_with_output().unwrap();
    expect_exit(&output, 0);
    assert_eq!(stderr(&output), "");
    assert_eq!(
        admin.asked()[0].1,
        json!({"after": null, "limit": 2, "follow": false})
    );
    assert_eq!(admin.asked()[1].1["after"], 2);
    assert_eq!(admin.asked()[1].1["follow"], true);
}

#[test]
fn figures_are_shown_and_tokens_listed() {
    let admin = FakeAdmin::start(|method, _| {
        Ok(match method {
            "kernel.status" => json!({
                "version": "0.1.0", "boundary": "advisory", "ready": false, "why": "no worker",
                "pid": 1, "uptime_ms": 61_000, "egress_pid": 2, "operator_keys": ["groq"],
                "workers": [], "agents": 1, "open_holds": 0, "waiting": 0, "events": 3,
                "ledger": "/x/aex.db", "config_generation": 1
            }),
            "kernel.metrics" => json!({
                "uptime_ms": 1, "reserves": 3, "granted": 2, "replayed": 0, "refused": {"model_not_allowed": 1},
                "settled": {"exact": 2}, "overruns": 0, "role_violations": 0,
                "outside_updates": 0, "commits": 4, "operations": 5, "open_holds": 0,
                "waiting": 0, "spent_micro": 7, "held_micro": 0, "agents": [agent()]
            }),
            "models.list" => json!({"models": [{
                "name": "gpt-oss-20b", "provider": "groq", "upstream_model": "openai/gpt-oss-20b",
                "price_source": "catalogue", "input_pico": 75_000, "cached_input_pico": 37_500,
                "output_pico": 300_000, "max_output_tokens": 65_536, "context_window": 131_072
            }]}),
            "token.list" => json!({"tokens": [{
                "id": 7, "agent": "a", "label": "run", "created_at_ms": 0, "expires_at_ms": null,
                "revoked": false
            }]}),
            _ => json!({"id": 7, "agent": "a", "label": "run", "created_at_ms": 0,
                        "expires_at_ms": null, "revoked": true}),
        })
    })
    .listens_on("127.0.0.1:4321");
    for (line, part) in [
        ("status", "NOT READY: no worker"),
        ("status", "http://127.0.0.1:4321/v1"),
        ("metrics", "model_not_allowed 1"),
        ("models", "$0.0375"),
        ("token list a", "valid"),
        ("token revoke 7", "revoked"),
    ] {
        let output = admin.aex(&line.split(' ').collect::<Vec<_>>());
        expect_exit(&output, 0);
        assert!(
            stdout(&output).contains(part),
            "{line}: {}",
            stdout(&output)
        );
    }
    let json = document(&admin.aex(&["status", "--json"]));
    assert_eq!(json["running"], true);
    assert_eq!(json["ready"], false);
    assert_eq!(json["daemon"]["listen"], "127.0.0.1:4321");
}

#[test]
fn before_init_a_doctor_says_to_run_it() {
    let parent = tempfile::tempdir().unwrap();
    let output = bare(Path::new(env!("CARGO_BIN_EXE_aex")))
        .env("AEX_HOME", parent.path().join("home"))
        .args(["doctor", "--json"])
        .output()
        .unwrap();
    expect_exit(&output, 1);
    let document = document(&output);
    let mut findings = document["findings"].as_array().unwrap().iter();
    let config = findings.find(|finding| finding["check"] == "config");
    let fix = config.unwrap()["fix"].as_str().unwrap();
    assert!(fix.starts_with("run `aex init`"), "{fix}");
}

#[test]
fn init_makes_a_private_home_once() {
    let parent = tempfile::tempdir().unwrap();
    let home = parent.path().join("home");
    let init = |json: bool| {
        let output = bare(Path::new(env!("CARGO_BIN_EXE_aex")))
            .env("AEX_HOME", &home)
            .args(["init"].iter().chain(json.then_some(&"--json")))
            .output()
            .unwrap();
        expect_exit(&output, 0);
        output
    };
    assert!(stdout(&init(false)).contains("models.yaml"));
    let config = home.join("config/models.yaml");
    let shipped = std::fs::read_to_string(&config).unwrap();
    assert!(shipped.contains("gpt-oss-20b"));
    std::fs::write(&config, "mine").unwrap();
    assert!(stdout(&init(false)).contains("nothing was changed"));
    assert_eq!(document(&init(true))["changed"], json!([]));
    assert_eq!(std::fs::read_to_string(&config).unwrap(), "mine");
}

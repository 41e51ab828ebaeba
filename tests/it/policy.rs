//! Policies in the real kernel: what an agent reads, what is booked, and how files come into force.

use std::path::PathBuf;
use std::process::Output;

use aex_tests::harness::Kernel;
use aex_tests::sim::{Behaviour, ToolCall};
use serde_json::{Value, json};

use crate::common::{MODEL, assert_error, hello, sim};

const DEAR: &str = r#"@id("no-dear") @reason("ask for fewer tokens")
forbid (principal, action in Action::"Generate", resource == Model::"gpt-oss-20b")
when { context.outputTokens > 1000 };
"#;

#[track_caller]
fn exits(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn directory(kernel: &Kernel) -> PathBuf {
    kernel.places.config_file.with_file_name("policies")
}

fn write(kernel: &Kernel, file: &str, text: &str) {
    let directory = directory(kernel);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join(file), text).unwrap();
}

fn reload(kernel: &Kernel) -> Value {
    kernel.aex_json(&["config", "reload"])
}

/// What the ledger has of an agent, whole.
fn booked(kernel: &Kernel, agent: &str) -> String {
    kernel.sqlite(&format!(
        "SELECT * FROM agents WHERE name='{agent}'; SELECT COUNT(*) FROM events; \
         SELECT COUNT(*) FROM holds;"
    ))
}

#[test]
fn a_forbidden_request_is_a_403_with_its_reason_and_is_booked_nowhere() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("atlas", "1.00", 1, &[]);
    write(&kernel, "money.cedar", DEAR);
    assert_eq!(reload(&kernel)["policies"], 1);

    let before = booked(&kernel, "atlas");
    for _ in 0..3 {
        let answer = kernel.chat(&token, &hello(json!({"max_tokens": 1001})));
        assert_error(&answer, 403, "policy_forbids");
        assert_eq!(
            answer.json()["detail"],
            "Forbidden by policy: ask for fewer tokens"
        );
    }
    assert_eq!(booked(&kernel, "atlas"), before);
    assert_eq!(sim.bill().requests, 0);

    // Not even the one request a minute is used up.
    assert_eq!(
        kernel
            .chat(&token, &hello(json!({"max_tokens": 1000})))
            .status,
        200
    );
    kernel.settled();
    let metrics = kernel.aex_json(&["metrics"]);
    assert_eq!(metrics["refused"]["policy_forbids"], 3, "{metrics}");
    assert_eq!(metrics["policies"]["no-dear"]["denied"], 3, "{metrics}");
    kernel.audit();
}

#[test]
fn a_bad_file_keeps_the_old_policies() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("atlas", "1.00", 100, &[]);
    write(&kernel, "money.cedar", DEAR);
    let _ = reload(&kernel);
    let forbidden = |max_tokens: u64| {
        kernel
            .chat(&token, &hello(json!({"max_tokens": max_tokens})))
            .status
            == 403
    };
    assert!(forbidden(1001) && !forbidden(10));

    for (text, line, column) in [
        (
            "forbid (principal, action, resource)\nwhen { context.stream > 1 };",
            2,
            8,
        ),
        ("\n\npermit (principal, action, resource);", 3, 1),
        (
            "forbid (principal, action, resource == Model::\"gone\");",
            1,
            40,
        ),
    ] {
        write(&kernel, "more.cedar", text);
        let file = directory(&kernel).join("more.cedar").display().to_string();
        let said = exits(&kernel.aex(&["config", "reload"]), 1);
        let place = format!("{file}: line {line}, column {column}: ");
        assert!(said.contains(&place), "{said}");
        for check in ["config", "policy"] {
            let said = exits(&kernel.aex(&[check, "check"]), 1);
            assert!(
                said.contains(&format!("{file}:{line}:{column}: ")),
                "{said}"
            );
        }
        assert!(forbidden(1001) && !forbidden(10), "{text}");
    }
    // A model that goes away takes its policies along, or stays.
    write(&kernel, "more.cedar", "// none\n");
    kernel.write_config(
        &std::fs::read_to_string(&kernel.places.config_file)
            .unwrap()
            .replace(MODEL, "renamed"),
    );
    let said = exits(&kernel.aex(&["config", "reload"]), 1);
    assert!(said.contains("money.cedar: line 2, column 62: "), "{said}");
    assert!(forbidden(1001));

    std::fs::remove_dir_all(directory(&kernel)).unwrap();
    kernel.write_config(
        &std::fs::read_to_string(&kernel.places.config_file)
            .unwrap()
            .replace("renamed", MODEL),
    );
    assert_eq!(reload(&kernel)["policies"], 0);
    assert!(!forbidden(1001));
}

#[test]
fn a_bad_file_is_refused_at_a_start_and_a_good_one_is_in_force_after_it() {
    let sim = sim();
    let mut kernel = Kernel::on(&sim);
    let token = kernel.create_agent("atlas", "1.00", 100, &[]);
    kernel.stop();
    write(
        &kernel,
        "money.cedar",
        "permit (principal, action, resource);",
    );
    let said = exits(&kernel.aex(&["daemon", "start"]), 1);
    assert!(
        said.contains("money.cedar:1:1: a permit has no effect"),
        "{said}"
    );
    write(&kernel, "money.cedar", DEAR);
    kernel.start_again();
    let answer = kernel.chat(&token, &hello(json!({"max_tokens": 1001})));
    assert_error(&answer, 403, "policy_forbids");
}

#[test]
fn a_policy_can_be_tried_out_and_tools_are_judged_by_name() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("atlas", "1.00", 100, &[]);
    write(
        &kernel,
        "tools.cedar",
        "@mode(\"warn\") @id(\"try/me\") forbid (principal, action in Action::\"Request\", resource);\n\
         @mode(\"shadow\") forbid (principal == Agent::\"atlas\", action == Action::\"Chat\", resource);\n\
         forbid (principal, action == Action::\"CallTool\", resource == Tool::\"shell\");\n",
    );
    let _ = reload(&kernel);
    let answer = kernel.chat(&token, &hello(json!({})));
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-aex-warning"), Some("policy try/me"));

    let offers = |name: &str| {
        let tool = json!({"type": "function", "function": {"name": name, "parameters": {}}});
        kernel.chat(&token, &hello(json!({"tools": [tool]})))
    };
    assert_eq!(offers("look").status, 200);
    let refused = offers("shell");
    assert_error(&refused, 403, "policy_forbids");
    assert_eq!(
        refused.json()["detail"],
        "Forbidden by policy: tools.cedar:3"
    );

    kernel.settled();
    let counted = kernel.aex_json(&["metrics"])["policies"].clone();
    assert_eq!(counted["try/me"]["warned"], 3, "{counted}");
    assert_eq!(counted["tools.cedar:2"]["shadowed"], 3, "{counted}");
    assert_eq!(counted["tools.cedar:3"]["denied"], 1, "{counted}");
    kernel.audit();
}

#[test]
fn an_error_while_evaluating_denies_and_the_log_names_the_policy_alone() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("atlas", "1.00", 100, &[]);
    write(
        &kernel,
        "sum.cedar",
        "@id(\"overflows\") forbid (principal, action in Action::\"Request\", resource)\n\
         when { context.inputTokens * 9223372036854775807 < 0 };",
    );
    let _ = reload(&kernel);
    for _ in 0..3 {
        let answer = kernel.chat(&token, &hello(json!({})));
        assert_error(&answer, 403, "policy_forbids");
        assert!(
            answer.text().contains("could not be evaluated"),
            "{}",
            answer.text()
        );
    }
    let logs = kernel.logs();
    let told: Vec<&str> = logs
        .lines()
        .filter(|line| line.contains("overflows"))
        .collect();
    assert_eq!(told.len(), 2, "the first and the second: {told:?}");
    assert!(
        told.iter()
            .all(|line| !line.contains("9223372036854775807")),
        "{told:?}"
    );
    assert_eq!(sim.bill().requests, 0);
}

#[test]
fn policies_are_checked_with_the_kernel_stopped() {
    let sim = sim();
    let mut kernel = Kernel::on(&sim);
    let _ = kernel.create_agent("atlas", "1.00", 100, &[]);
    kernel.stop();
    let none = kernel.aex_json(&["policy", "check"]);
    assert_eq!((&none["ok"], &none["policies"]), (&json!(true), &json!([])));

    let elsewhere = kernel.home().with_file_name("-try out");
    std::fs::create_dir(&elsewhere).unwrap();
    let elsewhere = elsewhere.to_str().unwrap();
    let file = format!("{elsewhere}/a.cedar");
    std::fs::write(
        &file,
        "forbid (principal == Agent::\"atlas\", action, resource);\n\
         @mode(\"shadow\") @id(\"z\") forbid (principal == Agent::\"zed\", action, resource);\n",
    )
    .unwrap();
    let good = kernel.aex_json(&["policy", "check", elsewhere]);
    let expected =
        json!([{"name": "a.cedar:1", "mode": "enforce"}, {"name": "z", "mode": "shadow"}]);
    assert_eq!(good["policies"], expected, "{good}");
    let warnings = json!([format!("{file}:2:47: there is no agent \"zed\" yet")]);
    assert_eq!(good["warnings"], warnings, "{good}");
    let told = kernel.aex(&["policy", "check", elsewhere]);
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(
        told.contains("warning: ") && told.contains("2 policies"),
        "{told}"
    );

    std::fs::write(&file, "forbid (principal, action, resource)\n when { 1 };").unwrap();
    let bad = kernel.aex(&["policy", "check", elsewhere, "--json"]);
    exits(&bad, 1);
    let bad: Value = serde_json::from_slice(&bad.stdout).unwrap();
    assert_eq!(bad["ok"], false);
    assert_eq!(
        bad["at"],
        json!({"file": file, "line": 2, "column": 9}),
        "{bad}"
    );
    exits(&kernel.aex(&["policy", "check", "no-such-directory"]), 4);
}

const NO_SHELL: &str = r#"@id("no-shell")
forbid (principal == Agent::"intern", action == Action::"CallTool", resource == Tool::"shell");
"#;

/// Whoever a policy may forbid a tool has no door beside the one that it is asked at, and no call in an
/// answer that was not offered.
#[test]
fn a_policy_about_tools_holds_of_every_door_and_of_the_answer() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let intern = kernel.create_agent("intern", "1.00", 1000, &[]);
    let other = kernel.create_agent("other", "1.00", 1000, &[]);
    write(&kernel, "tools.cedar", NO_SHELL);
    reload(&kernel);
    let function = |name: &str| json!({"type": "function", "function": {"name": name}});
    // A model that is free lets unknown parameters through.
    let ask = |token: &str, more: Value| {
        let mut more = more;
        more["model"] = json!("sim-free");
        kernel.chat(token, &hello(more))
    };
    assert_error(
        &ask(&intern, json!({"tools": [function("shell")]})),
        403,
        "policy_forbids",
    );
    for more in [
        json!({"tool_list": [function("shell")]}),
        json!({"chat_template_kwargs": {"tools": [function("shell")]}}),
        json!({"tools": [{"type": "namespace", "tools": [function("shell")]}]}),
        json!({"messages": [{"role": "user", "content": "x", "tools": [function("shell")]}]}),
        json!({"tool_choice": function("shell")}),
    ] {
        assert_error(&ask(&intern, more.clone()), 403, "capability_not_allowed");
        assert_eq!(ask(&other, more.clone()).status, 200, "{more}");
    }
    assert_error(
        &ask(&intern, json!({"Tools": [function("shell")]})),
        400,
        "invalid_request",
    );
    sim.behave(Behaviour {
        tool_call: Some(ToolCall {
            name: "shell".into(),
            ..ToolCall::default()
        }),
        ..Behaviour::default()
    });
    let offered = json!({"tools": [function("read")]});
    assert_error(
        &ask(&intern, offered.clone()),
        403,
        "capability_not_allowed",
    );
    assert_eq!(ask(&other, offered).status, 200);
    kernel.audit();
}

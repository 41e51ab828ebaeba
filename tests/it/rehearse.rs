//! Why a request is refused, as an operator reads it: before it is sent, afterwards, and of rules that are
//! only proposed.

use std::path::PathBuf;
use std::process::Output;

use aex_tests::harness::Kernel;
use serde_json::{Value, json};

use crate::common::{assert_error, hello, sim};

#[test]
fn a_flood_of_refusals_is_a_few_events_and_status_shows_the_tree() {
    let sim = sim();
    let mut kernel = Kernel::on(&sim);
    let token = kernel.create_agent("atlas", "0.000001", 1000, &[]);
    let status = kernel.aex_json(&["status"]);
    assert_eq!(status["agents"], 1, "{status}");
    assert_eq!(status["scopes"], kernel.aex_json(&["tree"])["scopes"]);
    let before: u64 = kernel
        .sqlite("SELECT COUNT(*) FROM events")
        .trim()
        .parse()
        .unwrap();
    for _ in 0..1000 {
        let answer = kernel.chat(&token, &hello(json!({"max_tokens": 1000})));
        assert_error(&answer, 402, "insufficient_budget");
    }
    kernel.audit();
    kernel.stop();
    let refused = "SELECT SUM(detail ->> '$.count'), MIN(agent), COUNT(*) < 10 FROM events \
                   WHERE action = 'request.refused'";
    assert_eq!(kernel.sqlite(refused).trim(), "1000|atlas|1");
    let after: u64 = kernel
        .sqlite("SELECT COUNT(*) FROM events")
        .trim()
        .parse()
        .unwrap();
    assert!(after - before < 20, "{before} {after}");
}

fn file(kernel: &Kernel, name: &str, text: &str) -> PathBuf {
    let file = kernel.home().join(name);
    std::fs::write(&file, text).unwrap();
    file
}

fn asked<'a>(agent: &'a str, options: &[&'a str], file: &'a str) -> Vec<&'a str> {
    let mut args = vec!["policy", "explain", "--agent", agent];
    args.extend(options);
    args.push(file);
    args
}

fn explained(kernel: &Kernel, agent: &str, options: &[&str], body: &Value) -> Value {
    let file = file(kernel, "request.json", &body.to_string());
    kernel.aex_json(&asked(agent, options, file.to_str().unwrap()))
}

#[track_caller]
fn exits(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let (stdout, stderr) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(if code == 0 { stdout } else { stderr }).into_owned()
}

#[track_caller]
fn policy(kernel: &Kernel, text: &str) {
    let directory = kernel.places.config_file.with_file_name("policies");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("money.cedar"), text).unwrap();
    kernel.aex_json(&["config", "reload"]);
}

const DEAR: &str = r#"@id("no-dear") @reason("ask for fewer tokens")
forbid (principal, action in Action::"Generate", resource) when { context.outputTokens > 1000 };
"#;

#[test]
fn explain_names_the_rule_that_decides_with_its_figures_and_decides_as_the_kernel_does() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let tried = "@id(\"tried\") @mode(\"shadow\") forbid (principal, action in Action::\"Request\", resource);";
    policy(&kernel, &format!("{DEAR}{tried}"));
    let group = |options: &[&str]| {
        let mut args = vec!["group", "create"];
        args.extend(options);
        kernel.aex_json(&args);
    };
    group(&["team", "--limit", "money/day=0.000010"]);
    group(&["dept", "--limit", "parallel=1", "--no-tools"]);
    group(&["lab", "--parent", "dept"]);
    let plain = hello(json!({}));
    let dear = hello(json!({"max_tokens": 1001}));
    let tooled = hello(json!({"tools": [{"type": "function", "function": {"name": "shell"}}]}));
    // Agent, budget, options; the request; the scope, the rule, and what of its figures is known.
    let cases = [
        (
            "poor",
            "0.000001",
            vec![],
            &plain,
            "agent poor",
            "budget",
            json!({"what": "money", "most": 1, "used": 0}),
        ),
        (
            "slow",
            "1.00",
            vec!["--limit", "tokens/minute=30"],
            &plain,
            "agent slow",
            "tokens/minute",
            json!({"most": 30, "used": 0, "held": 0}),
        ),
        (
            "ana",
            "1.00",
            vec!["--group", "team"],
            &plain,
            "group team",
            "money/day",
            json!({"most": 10, "used": 0}),
        ),
        (
            "lena",
            "1.00",
            vec!["--group", "lab"],
            &tooled,
            "group dept",
            "capabilities",
            Value::Null,
        ),
        (
            "rich",
            "1.00",
            vec![],
            &dear,
            "",
            "policy no-dear",
            Value::Null,
        ),
        (
            "short",
            "1.00",
            vec!["--max-output-tokens", "10"],
            &plain,
            "agent short",
            "output",
            json!({"needed": 20, "most": 10}),
        ),
        (
            "other",
            "1.00",
            vec!["--allowed-models", "sim-*"],
            &plain,
            "agent other",
            "allowed_models",
            Value::Null,
        ),
    ];
    for (agent, budget, options, body, scope, rule, figures) in cases {
        let token = kernel.create_agent(agent, budget, 1000, &options);
        let events = kernel.sqlite("SELECT COUNT(*) FROM events");
        let told = explained(&kernel, agent, &[], body);
        assert_eq!(told["outcome"], "refused", "{agent}: {told}");
        let by = &told["decided_by"];
        assert_eq!(by["rule"], rule, "{told}");
        let named = format!(
            "{} {}",
            by["scope"]["kind"].as_str().unwrap_or_default(),
            by["scope"]["name"].as_str().unwrap_or_default()
        );
        assert_eq!(named.trim(), scope, "{told}");
        for (name, value) in figures.as_object().into_iter().flatten() {
            assert_eq!(by["figures"][name], *value, "{name} of {told}");
        }
        // Nothing was written, nothing is counted, and the same request gets the same answer.
        assert_eq!(kernel.sqlite("SELECT COUNT(*) FROM events"), events);
        let refused = kernel.chat(&token, body);
        let why = refused.json()["detail"].as_str().unwrap().to_owned();
        let file = file(&kernel, "request.json", &body.to_string());
        let output = kernel.aex(&asked(agent, &[], file.to_str().unwrap()));
        let text = exits(&output, 0);
        assert!(text.contains(&why), "{why}: {text}");
        let of = if scope.is_empty() { rule } else { scope };
        assert!(text.contains(&format!("decided by {of}")), "{text}");
    }
    let metrics = kernel.aex_json(&["metrics"]);
    assert_eq!(metrics["policies"]["no-dear"]["denied"], 1, "{metrics}");
    assert_eq!(sim.bill().requests, 0);
}

#[test]
fn explain_tells_of_a_request_that_passes_what_it_would_hold_and_of_a_run_its_own_limits() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("atlas", "1.00", 60, &[]);
    let body = hello(json!({}));
    let told = explained(&kernel, "atlas", &[], &body);
    let quoted = kernel
        .post("/v1/aex/quote", &token, &json!({"request": body}))
        .json();
    assert_eq!(
        (&told["outcome"], &quoted["passes"]),
        (&json!("passes"), &json!(true))
    );
    assert_eq!(told["quote"]["hold_micro"], quoted["hold_micro"], "{told}");
    let rules: Vec<&str> = told["targets"][0]["looks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|look| look["rule"].as_str().unwrap())
        .collect();
    assert!(
        rules.contains(&"budget") && rules.contains(&"requests/minute"),
        "{rules:?}"
    );

    let made = kernel
        .post("/v1/aex/runs", &token, &json!({"max_tokens": 30}))
        .json();
    let run = made["run"].as_str().unwrap();
    let told = explained(&kernel, "atlas", &["--run", run], &body);
    assert_eq!(
        told["decided_by"]["scope"],
        json!({"kind": "run", "name": run})
    );
    assert_eq!(told["decided_by"]["rule"], "tokens", "{told}");

    let output = kernel.aex(&["policy", "explain", "--agent", "nobody", "-"]);
    exits(&output, 1);
    let bad = file(&kernel, "bad.json", r#"{"model": "m", "messages": 5}"#);
    let bad = bad.to_str().unwrap();
    let text = exits(&kernel.aex(&asked("atlas", &[], bad)), 1);
    assert!(text.contains("the agent would get 400"), "{text}");
    let good = file(&kernel, "request.json", &body.to_string());
    let good = good.to_str().unwrap();
    let text = exits(&kernel.aex(&asked("nobody", &[], good)), 4);
    assert!(text.contains("nobody"), "{text}");
    exits(
        &kernel.aex(&asked("atlas", &["--run", "atlas/none"], good)),
        4,
    );
    exits(&kernel.aex(&asked("atlas", &[], "/none.json")), 4);
}

#[test]
fn rehearse_names_who_a_proposal_would_have_refused_and_the_money_and_changes_nothing() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    kernel.aex_json(&["group", "create", "team"]);
    let ana = kernel.create_agent("ana", "1.00", 1000, &["--group", "team"]);
    let ben = kernel.create_agent("ben", "1.00", 1000, &["--no-tools"]);
    let tooled = hello(json!({
        "max_tokens": 2000,
        "temperature": 0.7,
        "tools": [{"type": "function", "function": {"name": "shell"}}],
    }));
    for _ in 0..3 {
        assert_eq!(kernel.chat(&ana, &tooled).status, 200);
    }
    assert_eq!(kernel.chat(&ben, &hello(json!({}))).status, 200);
    assert_error(&kernel.chat(&ben, &tooled), 403, "capability_not_allowed");
    kernel.settled();
    let spent = kernel.sqlite_number(
        "SELECT SUM(cost_pico) FROM events WHERE agent = 'ana' AND action = 'usage.commit'",
    );
    let detail = kernel.sqlite("SELECT detail FROM events WHERE action = 'hold.open' LIMIT 1");
    assert!(
        detail.contains("shell") && !detail.contains("hello"),
        "{detail}"
    );
    let before = kernel.sqlite("SELECT * FROM agents; SELECT COUNT(*) FROM events;");

    let proposed = kernel.home().join("proposed");
    std::fs::create_dir(&proposed).unwrap();
    std::fs::write(proposed.join("money.cedar"), DEAR).unwrap();
    let rehearse = |what: &PathBuf| {
        kernel.aex_json(&[
            "policy",
            "rehearse",
            what.to_str().unwrap(),
            "--since",
            "1h",
        ])
    };
    let told = rehearse(&proposed);
    let micro = (spent + 999_999) / 1_000_000;
    assert_eq!(told["requests"]["requests"], 4, "{told}");
    assert_eq!(
        told["refused"],
        json!({"requests": 3, "cost_micro": micro}),
        "{told}"
    );
    let line = &told["refusals"][0];
    assert_eq!(
        (&line["agent"], &line["rule"]),
        (&json!("ana"), &json!("policy no-dear"))
    );
    assert_eq!(line["reason"], "Forbidden by policy: ask for fewer tokens");

    let scopes = file(
        &kernel,
        "scopes.yaml",
        "# What the team may do, tried on yesterday.\ngroups:\n  team:\n    limits: [requests/day=1]\n    capabilities: { denied_tools: [rm*] }\n",
    );
    let told = rehearse(&scopes);
    assert_eq!(told["refused"]["requests"], 2, "{told}");
    assert_eq!(
        told["refusals"][0]["scope"],
        json!({"kind": "group", "name": "team"})
    );
    assert_eq!(told["refusals"][0]["rule"], "requests/day");
    let output = kernel.aex(&["policy", "rehearse", scopes.to_str().unwrap()]);
    let text = exits(&output, 0);
    assert!(text.contains("2 would have been refused"), "{text}");
    assert!(text.contains("group team: requests/day"), "{text}");

    let bad = file(
        &kernel,
        "bad.cedar",
        "forbid (principal, action, resource) when { context.nope };",
    );
    let text = exits(
        &kernel.aex(&["policy", "rehearse", bad.to_str().unwrap()]),
        1,
    );
    assert!(text.contains("bad.cedar:1:"), "{text}");
    exits(&kernel.aex(&["policy", "rehearse", "/none.cedar"]), 4);
    assert_eq!(
        kernel.sqlite("SELECT * FROM agents; SELECT COUNT(*) FROM events;"),
        before
    );
    kernel.audit();
}

#[test]
fn explain_tells_of_what_is_cut_out_and_of_a_body_that_no_worker_takes() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let rules = ["--denied-tools", "shell", "--on-forbidden-tool", "strip"];
    let token = kernel.create_agent("atlas", "1.00", 60, &rules);
    let function = |name: &str| json!({"type": "function", "function": {"name": name}});
    let tooled = hello(json!({"tools": [function("shell"), function("read")]}));
    let told = explained(&kernel, "atlas", &[], &tooled);
    assert_eq!(
        (&told["outcome"], &told["left_out"]),
        (&json!("passes"), &json!(["shell"]))
    );

    // 10 MiB is the most where models.yaml says nothing.
    let large = hello(json!({"user": "x".repeat(11 << 20)}));
    let told = explained(&kernel, "atlas", &[], &large);
    assert_eq!(told["outcome"], "refused");
    assert_eq!(
        told["decided_by"]["rule"], "max_body_bytes",
        "{}",
        told["decided_by"]
    );
    assert_eq!(kernel.chat(&token, &large).status, 413);
}

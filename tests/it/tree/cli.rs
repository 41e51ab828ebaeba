//! The commands of the tree: their help, their documents, and what they refuse.

use aex_tests::harness::Kernel;
use serde_json::json;

use super::{make_group, make_run, member};
use crate::common::{hello, sim};

#[test]
fn groups_and_the_tree_have_help_documents_and_a_text_for_people() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    make_group(
        &kernel,
        "team",
        &["--budget-per-day", "5.00", "--max-held", "50%"],
    );
    make_group(&kernel, "room", &["--parent", "team", "--budget", "2.00"]);
    let token = member(&kernel, "atlas", &["--group", "room"]);
    let run = make_run(&kernel, &token, &json!({"budget_micro": 250_000}));
    assert_eq!(kernel.chat(&run.token, &hello(json!({}))).status, 200);
    kernel.settled();

    for command in [
        "create", "list", "show", "set", "pause", "resume", "sever", "delete",
    ] {
        let help = kernel.aex(&["group", command, "--help"]);
        let text = String::from_utf8_lossy(&help.stdout).to_lowercase();
        assert!(
            help.status.success() && text.contains("example"),
            "{command}: {text}"
        );
        let all = kernel.aex(&["group", "--help"]);
        assert!(String::from_utf8_lossy(&all.stdout).contains(command));
    }
    let tree = kernel.aex_json(&["tree"]);
    let scopes = tree["scopes"].as_array().unwrap();
    let shown: Vec<_> = scopes
        .iter()
        .map(|scope| {
            (
                scope["kind"].as_str().unwrap(),
                scope["name"].as_str().unwrap(),
            )
        })
        .collect();
    let expected = [
        ("kernel", "kernel"),
        ("group", "team"),
        ("group", "room"),
        ("agent", "atlas"),
        ("run", run.name.as_str()),
    ];
    assert_eq!(shown, expected, "each after its parent");
    for pair in scopes.windows(2) {
        assert_eq!(pair[1]["parent"], pair[0]["id"]);
        assert_eq!(
            pair[1]["spent_micro"], pair[0]["spent_micro"],
            "spend rolls up"
        );
    }
    let text = kernel.aex(&["tree"]);
    let text = String::from_utf8(text.stdout).unwrap();
    for (_, name) in expected {
        assert!(text.contains(name), "{name} in {text}");
    }
    let listed = kernel.aex_json(&["group", "list"]);
    let names: Vec<_> = listed["scopes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| &s["name"])
        .collect();
    assert_eq!(names, ["kernel", "team", "room"]);
    assert_eq!(
        kernel.aex_json(&["group", "show", "room"])["budget_micro"],
        2_000_000
    );
    kernel.aex_json(&["group", "set", "room", "--clear", "budget"]);
    assert!(kernel.aex_json(&["group", "show", "room"])["budget_micro"].is_null());
}

#[test]
fn a_text_that_is_no_limit_says_what_one_is() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    make_group(&kernel, "team", &[]);
    for (option, text, why) in [
        ("--limit", "tokens", "WHAT[/SPAN]"),
        ("--limit", "fuel=3", "money, tokens, requests"),
        ("--limit", "parallel/day=3", "per day"),
        ("--limit", "tokens/fortnight=3", "minute, hour, day"),
        ("--limit", "tokens=0", "above zero"),
        ("--limit", "tokens@host:x=3", "model:NAME"),
        ("--limit", "tokens=3:soft", "enforce, warn or shadow"),
        ("--drop-limit", "tokens/never", "no span"),
        ("--max-held", "0%", "1% to 100%"),
        ("--max-tokens", "0", "0"),
        ("--clear", "colour", "budget, rpm"),
        ("--budget", "-1", "USD"),
    ] {
        let output = kernel.aex(&["group", "set", "team", option, text]);
        assert_eq!(output.status.code(), Some(2), "{option} {text}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(why), "{option} {text}: {said}");
    }
    let twice = [
        "group", "set", "team", "--limit", "tokens=3", "--limit", "tokens=4",
    ];
    assert_eq!(kernel.aex(&twice).status.code(), Some(2));
    let nothing = kernel.aex(&["group", "set", "team"]);
    assert_eq!(nothing.status.code(), Some(2), "{nothing:?}");
}

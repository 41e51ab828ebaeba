//! Tokens: told from a typing error, listed, rotated with an overlap, ended.

use aex_tests::harness::{Kernel, wait_for};
use serde_json::{Value, json};

use super::{make_run, member};
use crate::common::{assert_error, hello, sim};

fn list(kernel: &Kernel) -> Vec<Value> {
    let list = kernel.aex_json(&["token", "list", "a"]);
    list["tokens"].as_array().expect("tokens").clone()
}

#[track_caller]
fn is_dead(kernel: &Kernel, token: &str) {
    let answer = kernel.chat(token, &hello(json!({})));
    assert_error(&answer, 401, "invalid_api_key");
}

#[track_caller]
fn lives(kernel: &Kernel, token: &str) {
    let answer = kernel.chat(token, &hello(json!({})));
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn token_of(reply: &Value) -> String {
    reply["token"].as_str().expect("a token").to_owned()
}

#[test]
fn a_mistyped_token_is_no_token() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = member(&kernel, "a", &[]);
    assert!(
        token.starts_with("aex_"),
        "the prefix that scanners look for"
    );
    lives(&kernel, &token);
    for at in [
        0,
        3,
        4,
        5,
        token.len() / 2,
        token.len() - 2,
        token.len() - 1,
    ] {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        is_dead(&kernel, std::str::from_utf8(&bytes).unwrap());
    }
    is_dead(&kernel, &token[..token.len() - 1]);
    is_dead(&kernel, &format!("{token}A"));
    is_dead(&kernel, &token.to_uppercase());
    assert_eq!(sim.bill().requests, 1);
}

#[test]
fn tokens_are_listed_rotated_and_ended() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let first = member(&kernel, "a", &[]);
    let looks = kernel.aex_json(&["token", "create", "a", "--read-only", "--label", "board"]);
    let run = make_run(&kernel, &first, &json!({}));

    let listed = list(&kernel);
    assert_eq!(listed.len(), 3, "{listed:?}");
    let board = listed
        .iter()
        .find(|token| token["label"] == "board")
        .unwrap();
    assert_eq!(
        (&board["read_only"], &board["run"]),
        (&json!(true), &Value::Null)
    );
    let of_run = listed
        .iter()
        .find(|token| token["run"] == run.name)
        .unwrap();
    assert_eq!(
        (&of_run["read_only"], &of_run["revoked"]),
        (&json!(false), &json!(false))
    );
    let shown = kernel.aex(&["token", "list", "a"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.contains(&run.name) && shown.contains("read-only"),
        "{shown}"
    );
    for secret in [&first, &run.token, &token_of(&looks)] {
        assert!(
            !shown.contains(secret.as_str()) && !format!("{listed:?}").contains(secret.as_str())
        );
    }

    // With an overlap both are good; without one the old ones end.
    let second = token_of(&kernel.aex_json(&["agent", "rotate-token", "a", "--grace", "10m"]));
    lives(&kernel, &first);
    lives(&kernel, &second);
    let third = token_of(&kernel.aex_json(&["agent", "rotate-token", "a"]));
    for old in [&first, &second] {
        is_dead(&kernel, old);
    }
    lives(&kernel, &third);

    let short = token_of(&kernel.aex_json(&["token", "create", "a", "--ttl", "1s"]));
    let expired = wait_for("the token's end", || {
        let answer = kernel.chat(&short, &hello(json!({})));
        (answer.status != 200).then_some(answer)
    });
    assert_error(&expired, 401, "invalid_api_key");
    assert_eq!(expired.detail(), "API token has expired");

    let more = kernel.aex_json(&["token", "create", "a"]);
    lives(&kernel, &token_of(&more));
    let id = more["token_id"].to_string();
    assert_eq!(kernel.aex_json(&["token", "revoke", &id])["revoked"], true);
    is_dead(&kernel, &token_of(&more));
    lives(&kernel, &third);
    kernel.settled();
    kernel.audit();
}

#[test]
fn a_run_lives_no_longer_than_its_time_and_its_token() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = member(&kernel, "a", &[]);
    let short = make_run(&kernel, &token, &json!({"ttl_s": 1}));
    let below = make_run(&kernel, &short.token, &json!({"ttl_s": 3600}));
    for run in [&short, &below] {
        let ended = wait_for("the run's end", || {
            let answer = kernel.chat(&run.token, &hello(json!({})));
            (answer.status != 200).then_some(answer)
        });
        assert_error(&ended, 401, "invalid_api_key");
    }
    lives(&kernel, &token);
}

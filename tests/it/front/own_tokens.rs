//! What a tenant may do with its own tokens, by its agent token.

use aex_tests::harness::{Kernel, wait_for};
use aex_tests::http::{Response, request};
use serde_json::{Value, json};

use crate::common::{assert_error, assert_retry_after, hello, sim};

const TOKENS: &str = "/v1/aex/tokens";
const ROTATE: &str = "/v1/aex/tokens/rotate";

fn list(kernel: &Kernel, token: &str) -> Vec<Value> {
    let answer = kernel.get(TOKENS, token);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["data"].as_array().unwrap().clone()
}

#[track_caller]
fn rotate(kernel: &Kernel, token: &str, asked: &Value) -> (String, Value) {
    let answer = kernel.post(ROTATE, token, asked);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let made = answer.json();
    (made["token"].as_str().unwrap().to_owned(), made)
}

fn revoke(kernel: &Kernel, token: &str, id: &Value) -> Response {
    let authorization = format!("Bearer {token}");
    let target = format!("{TOKENS}/{id}");
    kernel.raw(&request(
        "DELETE",
        &target,
        &[("authorization", &authorization)],
        b"",
    ))
}

fn status(kernel: &Kernel, token: &str) -> u16 {
    kernel.chat(token, &hello(json!({}))).status
}

fn token_of(reply: &Value) -> &str {
    reply["token"].as_str().unwrap()
}

#[test]
fn a_tenant_lists_rotates_and_revokes_its_own_tokens() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let first = kernel.create_agent("a", "1.00", 1_000_000, &[]);
    let other = kernel.create_agent("b", "1.00", 1_000_000, &[]);
    let labelled = kernel.aex_json(&["token", "create", "a", "--label", "ci"]);

    let listed = list(&kernel, &first);
    let labels: Vec<&str> = listed
        .iter()
        .map(|t| t["label"].as_str().unwrap())
        .collect();
    assert_eq!(labels, ["create", "ci"]);
    for token in &listed {
        let mut names: Vec<&String> = token.as_object().unwrap().keys().collect();
        names.sort_unstable();
        assert_eq!(
            names,
            ["created_at_ms", "expires_at_ms", "id", "label", "read_only"]
        );
    }

    // Another's are not known, and stay.
    let others = list(&kernel, &other)[0]["id"].clone();
    let missed = revoke(&kernel, &first, &others);
    assert_error(&missed, 404, "not_found");
    assert_error(
        &revoke(&kernel, &first, &json!(9_999_999)),
        404,
        "not_found",
    );
    assert_eq!(status(&kernel, &other), 200);

    let ended = revoke(&kernel, &first, &labelled["token_id"]);
    assert_eq!(
        ended.json(),
        json!({"id": labelled["token_id"], "revoked": true})
    );
    assert_eq!(status(&kernel, token_of(&labelled)), 401);
    assert_eq!(list(&kernel, &first).len(), 1);

    let (second, made) = rotate(&kernel, &first, &json!({}));
    assert_eq!(
        (&made["name"], &made["expires_at_ms"]),
        (&json!("a"), &Value::Null)
    );
    assert_eq!(
        (status(&kernel, &first), status(&kernel, &second)),
        (401, 200)
    );
    let (third, _) = rotate(&kernel, &second, &json!({"grace": "10m"}));
    assert_eq!(
        (status(&kernel, &second), status(&kernel, &third)),
        (200, 200)
    );
    let itself = list(&kernel, &third).last().unwrap()["id"].clone();
    assert_eq!(revoke(&kernel, &third, &itself).status, 200);
    assert_eq!(status(&kernel, &third), 401);

    // Who did it is in the ledger, and no token is in any answer but its own or any log.
    let by = kernel.sqlite(
        "SELECT action || ' ' || json_extract(detail, '$.by.token_id') FROM events \
         WHERE agent = 'a' AND action IN ('agent.rotate_token', 'token.revoke') ORDER BY id",
    );
    let id = |at: usize| listed[at]["id"].as_i64().unwrap();
    let expected = format!("token.revoke {0}\nagent.rotate_token {0}\n", id(0));
    assert!(by.starts_with(&expected), "{by}");
    assert_eq!(by.lines().count(), 4, "{by}");
    for secret in [&first, &second, &third] {
        assert!(!kernel.logs().contains(secret.as_str()));
    }
    kernel.settled();
    kernel.audit();
}

#[test]
fn a_rotated_token_lives_no_longer_than_the_one_that_asked() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1_000_000, &["--ttl", "1h"]);
    let ends = list(&kernel, &token)[0]["expires_at_ms"].as_i64().unwrap();
    let (token, made) = rotate(&kernel, &token, &json!({}));
    assert_eq!(made["expires_at_ms"], ends);
    let (token, made) = rotate(&kernel, &token, &json!({"ttl": "24h"}));
    assert_eq!(made["expires_at_ms"], ends, "not longer");
    let (token, made) = rotate(&kernel, &token, &json!({"ttl": "1m"}));
    assert!(made["expires_at_ms"].as_i64().unwrap() < ends);
    for bad in [
        json!({"ttl": "0s"}),
        json!({"ttl": 60}),
        json!({"grace": "soon"}),
        json!({"x": 1}),
    ] {
        assert_error(&kernel.post(ROTATE, &token, &bad), 400, "invalid_request");
    }
    assert_eq!(
        status(&kernel, &token),
        200,
        "what was refused has ended nothing"
    );

    // Old tokens end with their grace, or with their own time where that is sooner.
    let (short, _) = rotate(&kernel, &token, &json!({"ttl": "1s"}));
    let gone = wait_for("the token's end", || {
        let answer = kernel.get(TOKENS, &short);
        (answer.status != 200).then_some(answer)
    });
    assert_error(&gone, 401, "invalid_api_key");
}

#[test]
fn tokens_of_runs_and_those_that_only_look_may_not() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1_000_000, &[]);
    let run = kernel.post("/v1/aex/runs", &token, &json!({})).json();
    let looks = kernel.aex_json(&["token", "create", "a", "--read-only"]);
    let id = list(&kernel, &token)[0]["id"].clone();
    for token in [token_of(&run), token_of(&looks)] {
        for answer in [
            kernel.get(TOKENS, token),
            kernel.post(ROTATE, token, &json!({})),
            revoke(&kernel, token, &id),
        ] {
            assert_error(&answer, 403, "capability_not_allowed");
        }
    }
    assert_eq!(status(&kernel, &token), 200);
    // The run's own is not among the agent's; with the agent's rotation it ends.
    assert_eq!(list(&kernel, &token).len(), 2);
    let (token, _) = rotate(&kernel, &token, &json!({}));
    assert_eq!(status(&kernel, token_of(&run)), 401);
    kernel.aex_json(&["agent", "pause", "a"]);
    assert_error(
        &kernel.post(ROTATE, &token, &json!({})),
        423,
        "agent_paused",
    );
}

#[test]
fn changes_are_bounded_in_rate_and_a_refused_one_changes_nothing() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let mut token = kernel.create_agent("a", "1.00", 1_000_000, &[]);
    let other = kernel.create_agent("b", "1.00", 1_000_000, &[]);
    for _ in 0..120 {
        token = rotate(&kernel, &token, &json!({})).0;
    }
    let refused = kernel.post(ROTATE, &token, &json!({}));
    assert_error(&refused, 429, "rate_limit_exceeded");
    assert_retry_after(&refused);
    assert_eq!(status(&kernel, &token), 200);
    assert_eq!(list(&kernel, &token).len(), 1, "looking is free");
    rotate(&kernel, &other, &json!({}));
}

#[test]
fn a_token_in_its_grace_does_its_work_and_cannot_end_its_successor() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let old = kernel.create_agent("a", "1.00", 1_000_000, &[]);
    let (new, made) = rotate(&kernel, &old, &json!({"grace": "1h"}));
    assert_eq!(made["expires_at_ms"], Value::Null);
    // A second process of the tenant, or whoever has stolen the old one.
    let again = kernel.post(ROTATE, &old, &json!({"grace": "1h"}));
    assert_error(&again, 403, "capability_not_allowed");
    let id = list(&kernel, &new).last().unwrap()["id"].clone();
    assert_error(&revoke(&kernel, &old, &id), 403, "capability_not_allowed");
    for token in [&old, &new] {
        assert_eq!(kernel.chat(token, &hello(json!({}))).status, 200);
    }
    let (newest, _) = rotate(&kernel, &new, &json!({}));
    for token in [&old, &new] {
        assert_eq!(kernel.chat(token, &hello(json!({}))).status, 401);
    }
    assert_eq!(kernel.chat(&newest, &hello(json!({}))).status, 200);
    kernel.audit();
}

//! Ceilings of sessions and of their number; limits that are only tried out.

use aex_tests::harness::Kernel;
use aex_tests::http::Response;
use serde_json::{Value, json};

use super::{limit, make_group, member};
use crate::common::{assert_error, hello, sim};

fn in_session(kernel: &Kernel, token: &str, session: Option<&str>, body: &Value) -> Response {
    let headers: Vec<_> = session
        .map(|id| ("x-aex-session", id))
        .into_iter()
        .collect();
    kernel.chat_with(token, body, &headers)
}

#[test]
fn a_ceiling_holds_of_each_session_and_a_new_id_is_no_way_out() {
    let sim = sim();
    let mut kernel = Kernel::on(&sim);
    let options = ["--max-session-tokens", "150", "--max-sessions", "2"];
    let token = member(&kernel, "a", &options);
    let body = hello(json!({}));
    // Each is 20 tokens and its prompt; the last is refused before it is sent.
    let use_up = |kernel: &Kernel, session: Option<&str>| -> u64 {
        let mut served = 0;
        loop {
            let answer = in_session(kernel, &token, session, &body);
            if answer.status != 200 {
                assert_error(&answer, 402, "insufficient_budget");
                let figures = answer.json()["error"]["aex"].clone();
                assert_eq!(figures["limit"], "tokens/session", "{figures}");
                return served;
            }
            served += 1;
            assert!(served < 10, "no ceiling");
            kernel.settled();
        }
    };
    // No header is a session too.
    let first = use_up(&kernel, None);
    assert!(first >= 2, "{first}");
    assert_eq!(use_up(&kernel, Some("one")), first);
    let third = |kernel: &Kernel| {
        let answer = in_session(kernel, &token, Some("two"), &body);
        assert_error(&answer, 403, "capability_not_allowed");
        assert!(
            answer.detail().contains("max_sessions"),
            "{}",
            answer.text()
        );
    };
    third(&kernel);
    let used: Vec<_> = {
        let view = kernel.agent("a");
        let limits = view["limits"].as_array().unwrap();
        limits
            .iter()
            .map(|one| (one["session"].clone(), one["used"].clone()))
            .collect()
    };
    assert_eq!(used.len(), 2, "{used:?}");

    kernel.stop();
    kernel.start_again();
    for session in [None, Some("one")] {
        assert_eq!(use_up(&kernel, session), 0);
    }
    third(&kernel);
    kernel.aex_json(&["agent", "set", "a", "--max-sessions", "3"]);
    assert_eq!(use_up(&kernel, Some("two")), first);
    let bad = in_session(&kernel, &token, Some("two words"), &body);
    assert_error(&bad, 400, "invalid_request");
    kernel.audit();
}

#[test]
fn a_limit_can_be_tried_out_before_it_is_enforced() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    make_group(&kernel, "team", &["--limit", "tokens/day=5:warn"]);
    let options = [
        "--group",
        "team",
        "--limit",
        "requests/minute=1:shadow",
        "--limit",
        "output=10:warn",
    ];
    let token = member(&kernel, "a", &options);
    let warned = |answer: &Response| {
        answer
            .header("x-aex-warning")
            .unwrap_or_default()
            .to_owned()
    };

    let answer = kernel.chat(&token, &hello(json!({})));
    assert_eq!(answer.status, 200);
    assert_eq!(
        warned(&answer),
        "limit output of this agent; limit tokens/day of this group"
    );
    kernel.settled();
    let streamed = kernel.chat_stream(&token, &hello(json!({"stream": true, "max_tokens": 10})));
    assert_eq!(streamed.head.status, 200);
    let told = streamed.head.header("x-aex-warning");
    assert_eq!(
        told,
        Some("limit tokens/day of this group"),
        "shadow is told nobody"
    );
    drop(streamed);
    kernel.settled();
    let plain = kernel.sqlite("SELECT detail FROM events WHERE action='hold.open' ORDER BY id");
    let lines: Vec<&str> = plain.lines().collect();
    assert_eq!(lines.len(), 2, "{plain}");
    let of_agent = "limit requests/minute of this agent";
    assert!(
        !lines[0].contains(of_agent) && lines[1].contains(of_agent),
        "{plain}"
    );

    let group = kernel.aex_json(&["group", "show", "team"]);
    let day = limit(&group, "tokens/day");
    assert!(day["left"].as_i64().unwrap() < 0, "{day}");
    kernel.aex_json(&["group", "set", "team", "--limit", "tokens/day=5"]);
    assert_error(
        &kernel.chat(&token, &hello(json!({}))),
        402,
        "insufficient_budget",
    );
    kernel.audit();
}

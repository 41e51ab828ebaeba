//! Exchanges under rules of tools: what is sent, what is charged, what is kept.

use aex_admin_proto::worker::{Grant, Usage, UsageSeen};
use serde_json::json;

use super::super::{Asked, Ending, Head, Step, Verdict, Way};
use super::*;

const TEXT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"hey\"}}]}\n\n";
const CALL: &str = "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"name\":\"evil\",\"arguments\":\"{}\"}}]}}]}\n\n";
const END: &str = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n\
    data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\n\
    data: [DONE]\n\n";

fn exchange(stream: bool, refuses: bool) -> Exchange {
    let grant: Grant = serde_json::from_value(json!({
        "ticket": "t", "tenant": "a1", "provider": "p", "path": "/x", "upstream_model": "m", "output_cap": 7,
        "output_cap_param": "max_tokens", "output_tokens": 1000, "stream_usage": true,
        "remaining_micro": 0, "on_disconnect": "drain", "drain_timeout_ms": 30_000,
        "deadline_boot_ms": 0, "max_response_bytes": 1_000_000,
    }))
    .unwrap();
    let asked = Asked {
        route: Route::ChatCompletions,
        stream,
        hide_usage: true,
        echoed_tokens: 0,
        hides_choices: false,
        own_key: false,
    };
    let offered = Offered {
        refuses,
        ..Offered::default()
    };
    Exchange::new(asked, &grant).under(Some(offered))
}

fn head(event_stream: bool, encoded: bool) -> Head {
    Head {
        status: 200,
        event_stream,
        encoded,
        other_charset: false,
        failure: None,
    }
}

fn whole_usage() -> UsageSeen {
    UsageSeen::Reported(Usage {
        prompt: 5,
        output: 2,
        ..Usage::default()
    })
}

#[test]
fn a_refused_stream_is_read_on_for_its_usage_and_told_once() {
    let mut exchange = exchange(true, true);
    assert_eq!(exchange.head(head(true, false)), Way::Relay);
    let Step::Send(sent) = exchange.chunk([TEXT, CALL].concat().into()) else {
        panic!("nothing was sent")
    };
    let sent = String::from_utf8(sent.to_vec()).unwrap();
    let error = sent.strip_prefix(TEXT).unwrap();
    assert!(
        error.contains("capability_not_allowed") && error.ends_with("\n\n"),
        "{error}"
    );
    assert!(exchange.is_over_for_the_client());
    assert_eq!(exchange.chunk(END.into()), Step::Read);
    assert_eq!(exchange.ended(Ending::Whole), None);
    let observed = exchange.observed();
    assert_eq!((observed.usage, observed.complete), (whole_usage(), true));
    for severed in [true, false] {
        assert_eq!(exchange.stream_fault(severed), None);
    }
    assert!(!exchange.is_whole_success(), "nothing to give again");
}

#[test]
fn a_stripped_stream_ends_as_any_other() {
    let mut exchange = exchange(true, false);
    exchange.head(head(true, false));
    assert_eq!(
        exchange.chunk([TEXT, CALL].concat().into()),
        Step::Send(TEXT.into())
    );
    let Step::Send(end) = exchange.chunk(END.into()) else {
        panic!("nothing was sent")
    };
    let end = String::from_utf8(end.to_vec()).unwrap();
    assert!(
        end.contains(r#""finish_reason":"stop""#) && !end.contains("usage"),
        "{end}"
    );
    assert_eq!(exchange.ended(Ending::Whole), None);
    assert!(exchange.is_whole_success());
    assert_eq!(exchange.observed().usage, whole_usage());
}

#[test]
fn what_is_held_back_is_lost_with_a_stream_that_breaks_off() {
    let mut exchange = exchange(true, true);
    exchange.head(head(true, false));
    let open = CALL.replace("{}", "");
    assert_eq!(exchange.chunk(open.into()), Step::Read);
    assert_eq!(exchange.ended(Ending::Cut), None);
    assert!(matches!(
        exchange.stream_fault(false),
        Some(Fault::Upstream(_))
    ));
}

#[test]
fn an_answer_in_a_content_encoding_does_not_pass() {
    for stream in [true, false] {
        let mut exchange = exchange(stream, false);
        assert_eq!(exchange.head(head(stream, true)), Way::Collect);
        exchange.chunk(CALL.into());
        exchange.ended(Ending::Whole);
        assert_eq!(exchange.verdict(false), Verdict::Fault(unreadable()));
    }
}

#[test]
fn an_answer_in_another_charset_does_not_pass() {
    for stream in [true, false] {
        let mut exchange = exchange(stream, false);
        let head = Head {
            other_charset: true,
            ..head(stream, false)
        };
        assert_eq!(exchange.head(head), Way::Collect);
        exchange.chunk([TEXT, END].concat().into());
        exchange.ended(Ending::Whole);
        assert_eq!(exchange.verdict(false), Verdict::Fault(unreadable()));
        assert!(!exchange.is_whole_success());
    }
}

#[test]
fn a_plain_answer_is_kept_as_the_client_gets_it() {
    let call = |name: &str| json!({"function": {"name": name, "arguments": "{}"}});
    let answer = json!({"choices": [{"message": {"tool_calls": [call("evil")]}}]}).to_string();
    let mut stripped = exchange(false, false);
    stripped.head(head(false, false));
    stripped.chunk(answer.clone().into());
    stripped.ended(Ending::Whole);
    assert_eq!(stripped.collected(), br#"{"choices":[{"message":{}}]}"#);
    assert_eq!(stripped.left_out(), ["choices[0].message.tool_calls[0]"]);
    let mut refused = exchange(false, true);
    refused.head(head(false, false));
    refused.chunk(answer.into());
    refused.ended(Ending::Whole);
    let told = Refusal::CapabilityNotAllowed {
        capability: "tool evil".into(),
    };
    assert_eq!(refused.verdict(false), Verdict::Fault(Fault::Refused(told)));
    let mut error = exchange(false, true);
    error.head(Head {
        status: 429,
        ..head(false, false)
    });
    error.chunk(Bytes::from_static(b"busy"));
    error.ended(Ending::Whole);
    assert_eq!(error.verdict(false), Verdict::Provider("busy".into()));
}

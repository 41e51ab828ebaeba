//! Each way in which a model calls a tool that was not offered.

use aex_tests::harness::Kernel;
use aex_tests::sim::{Behaviour, Sim, ToolCall};
use serde_json::{Value, json};

use super::{CHAT, RESPONSES, assert_forbidden, body, flat, function};
use crate::common::{bill_pico, sim, spent_pico};

/// The simulator's model calls this tool.
fn calls(name: &str) -> ToolCall {
    ToolCall {
        name: name.into(),
        arguments: json!({"path": "/secret"}),
        ..ToolCall::default()
    }
}

fn behave(sim: &Sim, call: ToolCall) {
    sim.behave(Behaviour {
        tool_call: Some(call),
        natural_tokens: Some(20),
        ..Behaviour::default()
    });
}

/// The ways in which a model calls a tool that was not offered.
fn unoffered() -> Vec<(&'static str, &'static str, ToolCall, &'static str)> {
    let cut = |call: ToolCall| ToolCall {
        cut_name: true,
        ..call
    };
    let legacy = |call: ToolCall| ToolCall {
        legacy: true,
        ..call
    };
    vec![
        ("not offered", CHAT, calls("evil"), "tool evil"),
        (
            "allowed but not offered",
            CHAT,
            calls("get_it"),
            "tool get_it",
        ),
        (
            "its name cut over chunks",
            CHAT,
            cut(calls("evil")),
            "tool evil",
        ),
        (
            "an allowed name that goes on",
            CHAT,
            cut(calls("goodevil")),
            "tool goodevil",
        ),
        ("function_call", CHAT, legacy(calls("evil")), "tool evil"),
        (
            "function_call cut over chunks",
            CHAT,
            legacy(cut(calls("evil"))),
            "tool evil",
        ),
        ("another case", CHAT, calls("Good"), "tool Good"),
        (
            "a look-alike",
            CHAT,
            cut(calls("g\u{43e}od")),
            r"tool g\u{43e}od",
        ),
        (
            "an item of a response",
            RESPONSES,
            calls("evil"),
            "tool evil",
        ),
        (
            "an item in another case",
            RESPONSES,
            calls("GOOD"),
            "tool GOOD",
        ),
    ]
}

fn offering(route: &str, stream: bool) -> Value {
    let tool = if route == CHAT {
        function("good")
    } else {
        flat("good")
    };
    body(
        route,
        json!({"model": "gpt-oss-20b", "tools": [tool], "stream": stream}),
    )
}

fn assert_charged_as_billed(kernel: &Kernel, sim: &Sim) {
    kernel.settled();
    assert_eq!(spent_pico(kernel, "a"), bill_pico(&sim.bill()));
}

#[test]
fn a_call_that_was_not_offered_does_not_reach_the_client() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &["--allowed-tools", "good,get_*"]);
    for (what, route, call, told) in unoffered() {
        behave(&sim, call);
        let answer = kernel.post(route, &token, &offering(route, false));
        assert_eq!(answer.status, 403, "{what}: {}", answer.text());
        assert_forbidden(&answer, told);
        let mut events = kernel.post_stream(route, &token, &offering(route, true));
        let all: Vec<Value> = events.by_ref().map(|event| event.json()).collect();
        assert!(events.complete, "{what}");
        let (error, before) = all.split_last().unwrap();
        assert_eq!(
            error["error"]["code"], "capability_not_allowed",
            "{what}: {error}"
        );
        assert_eq!(
            error["error"]["message"],
            format!("Capability not allowed: {told}")
        );
        let before = Value::from(before.to_vec()).to_string();
        for secret in ["\"tool_calls\"", "function_call", "secret", "evil"] {
            assert!(!before.contains(secret), "{what}: {before}");
        }
    }
    assert_charged_as_billed(&kernel, &sim);
    kernel.audit();
}

#[test]
fn a_call_that_was_offered_passes_untouched() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let ruled = kernel.create_agent(
        "a",
        "1.00",
        1000,
        &["--allowed-tools", "good", "--no-hosted-tools"],
    );
    let free = kernel.create_agent("free", "1.00", 1000, &[]);
    let texts = |token: &str, route: &str| -> Vec<String> {
        let events = kernel.post_stream(route, token, &offering(route, true));
        events.map(|event| without_numbers(&event.data)).collect()
    };
    for route in [CHAT, RESPONSES] {
        behave(&sim, calls("good"));
        assert_eq!(texts(&ruled, route), texts(&free, route));
        let answer = kernel.post(route, &ruled, &offering(route, false));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.text().contains("secret"));
        behave(&sim, calls("evil"));
        assert!(
            texts(&free, route).concat().contains("evil"),
            "no rule, no reading"
        );
    }
}

#[test]
fn an_offered_name_in_pieces_is_not_passed_on() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &["--allowed-tools", "good"]);
    behave(
        &sim,
        ToolCall {
            cut_name: true,
            ..calls("good")
        },
    );
    let events = kernel.post_stream(CHAT, &token, &offering(CHAT, true));
    let all: Vec<Value> = events.map(|event| event.json()).collect();
    assert_eq!(
        all.last().unwrap()["error"]["message"],
        "Capability not allowed: tool good with its name in pieces"
    );
    assert!(!Value::from(all).to_string().contains("secret"));
}

/// The simulator numbers its answers.
fn without_numbers(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

#[test]
fn a_call_is_cut_out_of_the_answer_where_that_is_the_rule() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let options = [
        "--allowed-tools",
        "good,get_*",
        "--on-forbidden-tool",
        "strip",
    ];
    let token = kernel.create_agent("a", "1.00", 1000, &options);
    for (what, route, call, _) in unoffered() {
        behave(&sim, call);
        let answer = kernel.post(route, &token, &offering(route, false));
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        assert!(!answer.text().contains("secret"), "{what}");
        let whole = answer.json();
        if route == CHAT {
            assert_eq!(whole["choices"][0]["finish_reason"], "stop", "{what}");
        } else {
            assert_eq!(whole["output"], json!([]), "{what}");
        }
        assert!(answer.header("x-aex-left-out").is_some(), "{what}");
        let events: Vec<_> = kernel
            .post_stream(route, &token, &offering(route, true))
            .collect();
        let text: String = events.iter().map(|event| event.data.as_str()).collect();
        assert!(
            !text.contains("secret") && !text.contains("evil"),
            "{what}: {text}"
        );
        if route == CHAT {
            assert_eq!(events.last().unwrap().data, "[DONE]", "{what}");
            assert!(text.contains(r#""finish_reason":"stop""#), "{what}: {text}");
        } else {
            assert_eq!(
                events.last().unwrap().json()["response"]["output"],
                json!([])
            );
        }
    }
    assert_charged_as_billed(&kernel, &sim);
    kernel.audit();
}

/// A stream of the chat route with these calls in one chunk each.
fn stream_of(calls: &[Value]) -> String {
    let event = |delta: Value, reason: Value| {
        let choices = json!([{"index": 0, "delta": delta, "finish_reason": reason}]);
        format!("data: {}\n\n", json!({"choices": choices}))
    };
    let calls = calls
        .iter()
        .map(|call| event(json!({"tool_calls": [call]}), json!(null)));
    let mut out: String = calls.collect();
    out += &event(json!({}), json!("tool_calls"));
    out + "data: [DONE]\n\n"
}

#[test]
fn what_the_simulator_does_not_say_by_itself_is_seen_too() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let rules = ["--allowed-tools", "good", "--no-parallel-tool-calls"];
    let token = kernel.create_agent("a", "1.00", 1000, &rules);
    let call = |index: u64, name: &str, arguments: &str| json!({"index": index, "id": format!("c{index}"), "function": {"name": name, "arguments": arguments}});
    let item = |kind: &str| json!({"type": "response.output_item.added", "output_index": 0, "item": {"type": kind}});
    let sse = |event: Value| format!("data: {event}\n\n");
    for (what, route, raw, told) in [
        (
            "a name after its arguments",
            CHAT,
            stream_of(&[call(0, "", "{"), call(0, "evil", "")]),
            "Capability not allowed: tool ",
        ),
        (
            "a name that goes on after them",
            CHAT,
            stream_of(&[call(0, "good", "{"), call(0, "_evil", "}")]),
            "Capability not allowed: tool good_evil",
        ),
        (
            "arguments cut over chunks",
            CHAT,
            stream_of(&[call(0, "evil", ""), call(0, "", "{"), call(0, "", "}")]),
            "Capability not allowed: tool evil",
        ),
        (
            "a second call",
            CHAT,
            stream_of(&[call(0, "good", "{}"), call(1, "good", "{}")]),
            "Capability not allowed: parallel tool calls",
        ),
        (
            "a key in another case",
            CHAT,
            sse(json!({"choices": [{"delta": {"Tool_Calls": [call(0, "evil", "{}")]}}]})),
            "Capability not allowed: tool evil",
        ),
        (
            "a key twice",
            CHAT,
            "data: {\"choices\":[{\"delta\":{\"tool_calls\":[],\"tool_calls\":[]}}]}\n\n".into(),
            "the provider's answer is not in a form",
        ),
        (
            "no JSON",
            CHAT,
            "data: tool_calls\n\n".into(),
            "the provider's answer is not in a form",
        ),
        (
            "a hosted call",
            RESPONSES,
            sse(item("web_search_call")),
            "Capability not allowed: hosted tool web_search",
        ),
        (
            "a call without its item",
            RESPONSES,
            sse(
                json!({"type": "response.function_call_arguments.delta", "output_index": 0, "delta": "{}"}),
            ),
            "Capability not allowed: tool function_call_arguments",
        ),
        (
            "in the last event alone",
            RESPONSES,
            sse(
                json!({"type": "response.completed", "response": {"output": [{"type": "function_call", "name": "evil"}]}}),
            ),
            "Capability not allowed: tool evil",
        ),
    ] {
        sim.behave(Behaviour {
            raw_body: Some(raw),
            ..Behaviour::default()
        });
        let events = kernel.post_stream(route, &token, &offering(route, true));
        let all: Vec<Value> = events.map(|event| event.json()).collect();
        let last = all.last().unwrap()["error"]["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(last.starts_with(told), "{what}: {all:?}");
    }
    let answer = json!({"choices": [{"message": {"tool_calls": [{"function": {"name": "good", "arguments": "{}"}}, {"function": {"name": "good", "arguments": "{}"}}]}}]});
    sim.behave(Behaviour {
        raw_body: Some(answer.to_string()),
        ..Behaviour::default()
    });
    assert_forbidden(
        &kernel.post(CHAT, &token, &offering(CHAT, false)),
        "parallel tool calls",
    );
    kernel.settled();
    assert!(kernel.holds_nothing());
}

//! Answers that tell less than they cost: usages of one choice, usages that came too early, answers
//! of no known shape, and answers that were left before they were read.

use std::fmt::Write as _;

use aex_tests::harness::{Kernel, wait_for};
use aex_tests::sim::Behaviour;
use serde_json::json;

use crate::common::{bill_pico, hello, in_flight, sim, spent_pico};
use crate::money::{charged, rich};

/// A provider that says just this.
fn says(text: String, stream: bool) -> Behaviour {
    let form = if stream {
        "text/event-stream"
    } else {
        "application/json"
    };
    Behaviour {
        raw_body: Some(text),
        headers: [("content-type".to_owned(), form.to_owned())].into(),
        ..Behaviour::default()
    }
}

/// What so many tokens of output cost.
fn output_pico(tokens: u64) -> i64 {
    i64::try_from(tokens * Kernel::OUTPUT_PICO).unwrap()
}

/// llama.cpp's way with several choices: a usage a choice in a stream, that of one in a plain answer.
/// All but the last choice are `tokens` long, and the last is one token.
fn each_by_itself(choices: u64, tokens: u64, stream: bool) -> String {
    let usage =
        |output: u64| format!(r#""usage":{{"prompt_tokens":11,"completion_tokens":{output}}}"#);
    let length = |index| if index + 1 == choices { 1 } else { tokens };
    let text = |index| "tok ".repeat(usize::try_from(length(index)).unwrap());
    let mut out = String::new();
    if !stream {
        let all: Vec<String> = (0..choices)
            .map(|index| {
                let text = text(index);
                format!(r#"{{"index":{index},"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}"#)
            })
            .collect();
        let _ = write!(out, r#"{{"choices":[{}],{}}}"#, all.join(","), usage(1));
        return out;
    }
    for index in 0..choices {
        let text = text(index);
        let _ = write!(
            out,
            "data: {{\"choices\":[{{\"index\":{index},\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n\
             data: {{\"choices\":[{{\"index\":{index},\"delta\":{{}},\"finish_reason\":\"stop\"}}]}}\n\n"
        );
    }
    for index in 0..choices {
        let _ = write!(out, "data: {{\"choices\":[],{}}}\n\n", usage(length(index)));
    }
    out.push_str("data: [DONE]\n\n");
    out
}

#[test]
fn a_server_that_counts_each_choice_by_itself_is_charged_for_all() {
    let sim = sim();
    let (kernel, token) = rich(&sim);
    for stream in [false, true] {
        for (choices, tokens) in [(2, 40), (8, 50)] {
            let answer = says(each_by_itself(choices, tokens, stream), stream);
            let body = hello(json!({"n": choices, "max_tokens": tokens, "stream": stream}));
            let (charge, _) = charged(&kernel, &sim, &token, answer, &body);
            let real = output_pico((choices - 1) * tokens + 1);
            let case = format!("n {choices}, stream {stream}: {charge} of {real}");
            assert!(charge >= real && charge < 6 * real, "{case}");
        }
    }
    kernel.audit();
}

#[test]
fn a_usage_that_comes_before_the_text_is_not_believed() {
    let sim = sim();
    let (kernel, token) = rich(&sim);
    let mut text = String::from(
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":0}}\n\n",
    );
    for _ in 0..20 {
        text.push_str("data: {\"choices\":[{\"delta\":{\"content\":\"tok \"}}]}\n\n");
    }
    text.push_str("data: [DONE]\n\n");
    let body = hello(json!({"stream": true}));
    let (charge, _) = charged(&kernel, &sim, &token, says(text, true), &body);
    assert!(charge >= output_pico(20), "{charge}");
}

#[test]
fn an_answer_of_no_known_shape_costs_its_hold() {
    let sim = sim();
    let (kernel, token) = rich(&sim);
    for (text, stream) in [
        (r#"{"response":"tok tok"}"#, false),
        ("{}", false),
        ("data: {\"response\":\"tok tok\"}\n\ndata: [DONE]\n\n", true),
        (
            "data: {\"choices\":null,\"delta\":{\"content\":\"t\"}}\n\ndata: [DONE]\n\n",
            true,
        ),
    ] {
        let body = hello(json!({"stream": stream}));
        let answer = says(text.to_owned(), stream);
        let (charge, _) = charged(&kernel, &sim, &token, answer, &body);
        assert!(charge >= output_pico(20), "{text}: {charge}");
    }
    kernel.audit();
}

#[test]
fn who_hangs_up_pays_for_what_was_written_and_not_read() {
    let sim = sim();
    let kernel = Kernel::builder()
        .default_models_and(&sim, "on_disconnect: abort\n")
        .start();
    let token = kernel.create_agent("rich", "50.00", 1000, &[]);
    // A stream that runs far ahead of its reader, and a plain answer of which nothing is known yet.
    let fast = Behaviour {
        natural_tokens: Some(60_000),
        ..Behaviour::default()
    };
    let late = Behaviour {
        delay_ms: 300,
        ..Behaviour::default()
    };
    for (behaviour, stream) in [(fast, true), (late, false)] {
        sim.behave(behaviour);
        let body = hello(json!({"stream": stream, "max_tokens": 60_000}));
        if stream {
            let mut events = kernel.chat_stream(&token, &body);
            assert!(events.next().is_some());
        } else {
            drop(in_flight(&kernel, &sim, &token, &body));
        }
        kernel.settled();
        wait_for("the provider's end", || {
            (sim.bill().in_flight == 0).then_some(())
        });
        let (spent, bill) = (spent_pico(&kernel, "rich"), bill_pico(&sim.bill()));
        assert!(
            spent >= bill && bill > 0,
            "stream {stream}: {spent} of {bill}"
        );
    }
    kernel.audit();
}

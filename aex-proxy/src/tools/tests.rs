//! Calls in answers, plain and in streams cut anywhere.

mod attacks;

use aex_admin_proto::worker::Route;
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::sse::Splitter;

fn offered(names: &[&str], refuses: bool) -> Offered {
    Offered {
        names: names.iter().map(|&name| name.to_owned()).collect(),
        refuses,
        ..Offered::default()
    }
}

fn event(json: &Value) -> String {
    format!("data: {json}\n\n")
}

/// An event of the Responses API, with its name.
fn named(json: &Value) -> String {
    format!(
        "event: {}\ndata: {json}\n\n",
        json["type"].as_str().unwrap()
    )
}

fn delta(delta: &Value) -> String {
    event(&json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]}))
}

fn fragment(index: u64, name: Option<&str>, arguments: &str) -> String {
    let mut function = json!({"arguments": arguments});
    if let Some(name) = name {
        function["name"] = json!(name);
    }
    delta(&json!({"tool_calls": [{"index": index, "function": function}]}))
}

fn finish(reason: &str) -> String {
    event(&json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}))
}

const DONE: &str = "data: [DONE]\n\n";

/// What the client gets of a stream that comes in these chunks.
fn passed(route: Route, offered: &Offered, chunks: &[&[u8]]) -> (String, Option<Stop>) {
    let mut stream = Stream::new(route, offered.clone()).unwrap();
    let (mut splitter, mut out, mut stop) = (Splitter::default(), Vec::new(), None);
    for chunk in chunks {
        splitter
            .push(&Bytes::copy_from_slice(chunk), |event| {
                if stop.is_none() {
                    stop = stream.event(event, &mut out).err();
                }
            })
            .unwrap();
    }
    if stop.is_none() {
        stop = stream.end(&mut out).err();
    }
    (String::from_utf8(out.concat()).unwrap(), stop)
}

fn chat(offered: &Offered, events: &[String]) -> (String, Option<Stop>) {
    passed(
        Route::ChatCompletions,
        offered,
        &[events.concat().as_bytes()],
    )
}

fn forbidden(name: &str) -> Option<Stop> {
    Some(Stop::Forbidden(name.to_owned()))
}

#[test]
fn an_allowed_stream_passes_byte_for_byte() {
    let events = [
        ": a comment\n\n".to_owned(),
        delta(&json!({"role": "assistant", "content": "hi"})),
        fragment(0, Some("good"), ""),
        fragment(0, None, "{\"a\""),
        fragment(0, None, ":1}"),
        fragment(1, Some("good"), ""),
        finish("tool_calls"),
        event(&json!({"choices": [], "usage": {"prompt_tokens": 1}})),
        DONE.to_owned(),
    ];
    for refuses in [true, false] {
        let (text, stop) = chat(&offered(&["good"], refuses), &events);
        assert_eq!((text, stop), (events.concat(), None));
    }
}

#[test]
fn no_part_of_a_forbidden_call_reaches_the_client_where_it_is_refused() {
    let before = delta(&json!({"content": "let me see"}));
    for (what, calls, told) in [
        ("whole", vec![fragment(0, Some("evil"), "{}")], "tool evil"),
        (
            "cut",
            vec![
                fragment(0, Some("ev"), ""),
                fragment(0, Some("il"), ""),
                fragment(0, None, "{}"),
            ],
            "tool evil",
        ),
        (
            "begins as an allowed one",
            vec![
                fragment(0, Some("good"), ""),
                fragment(0, Some("_evil"), "{}"),
            ],
            "tool good_evil",
        ),
        (
            "arguments first",
            vec![fragment(0, None, "{}"), fragment(0, Some("evil"), "")],
            "tool ",
        ),
        (
            "at the finish",
            vec![fragment(0, Some("evil"), ""), finish("tool_calls")],
            "tool evil",
        ),
        (
            "at the end",
            vec![fragment(0, Some("evil"), "")],
            "tool evil",
        ),
        (
            "by another case",
            vec![fragment(0, Some("Good"), "{}")],
            "tool Good",
        ),
        (
            "by a look-alike",
            vec![fragment(0, Some("gооd"), "{}")],
            r"tool g\u{43e}\u{43e}d",
        ),
        (
            "function_call",
            vec![delta(
                &json!({"function_call": {"name": "evil", "arguments": "{}"}}),
            )],
            "tool evil",
        ),
        (
            "cut function_call",
            vec![
                delta(&json!({"function_call": {"name": "ev"}})),
                delta(&json!({"function_call": {"name": "il"}})),
                finish("function_call"),
            ],
            "tool evil",
        ),
        (
            "custom",
            vec![delta(
                &json!({"tool_calls": [{"index": 0, "type": "custom", "custom": {"name": "evil", "input": "x"}}]}),
            )],
            "tool evil",
        ),
        (
            "both forms",
            vec![delta(
                &json!({"tool_calls": [{"index": 0, "function": {"name": "good"}, "custom": {"name": "evil"}}]}),
            )],
            "tool goodevil",
        ),
        (
            "beside",
            vec![delta(
                &json!({"tool_calls": [{"index": 0, "name": "evil", "function": {"name": "good", "arguments": "{}"}}]}),
            )],
            "tool evilgood",
        ),
        (
            "another kind",
            vec![delta(
                &json!({"tool_calls": [{"index": 0, "type": "mcp", "function": {"name": "good"}}]}),
            )],
            "hosted tool mcp",
        ),
        (
            "by the key's case",
            vec![delta(
                &json!({"Tool_Calls": [{"index": 0, "Function": {"Name": "evil", "arguments": "{}"}}]}),
            )],
            "tool evil",
        ),
        (
            "in a message",
            vec![event(
                &json!({"choices": [{"message": {"tool_calls": [{"function": {"name": "evil", "arguments": "{}"}}]}}]}),
            )],
            "tool evil",
        ),
        (
            "in the second choice",
            vec![event(
                &json!({"choices": [{"index": 1, "delta": {"tool_calls": [{"index": 0, "function": {"name": "evil", "arguments": "{}"}}]}}]}),
            )],
            "tool evil",
        ),
        (
            "beside an allowed one",
            vec![delta(
                &json!({"tool_calls": [{"index": 0, "function": {"name": "good", "arguments": "{}"}}, {"index": 1, "function": {"name": "evil", "arguments": "{}"}}]}),
            )],
            "tool evil",
        ),
    ] {
        let mut events = vec![before.clone()];
        events.extend(calls);
        let (text, stop) = chat(&offered(&["good"], true), &events);
        assert_eq!(stop, forbidden(told), "{what}");
        assert_eq!(text, before, "{what}");
    }
}

#[test]
fn a_name_that_goes_on_after_its_arguments_ends_the_stream() {
    let first = fragment(0, Some("good"), "{");
    for refuses in [true, false] {
        let events = [first.clone(), fragment(0, Some("_evil"), "}")];
        let (text, stop) = chat(&offered(&["good"], refuses), &events);
        assert_eq!((text, stop), (first.clone(), forbidden("tool good_evil")));
    }
}

#[test]
fn what_is_cut_out_of_a_stream_leaves_a_sound_one() {
    let strip = offered(&["good"], false);
    let events = [
        delta(&json!({"role": "assistant", "content": null})),
        fragment(0, Some("evil"), ""),
        fragment(0, None, "{}"),
        fragment(1, Some("good"), "{}"),
        finish("tool_calls"),
        DONE.to_owned(),
    ];
    let (text, stop) = chat(&strip, &events);
    let left = [
        events[0].clone(),
        fragment(0, Some("good"), "{}"),
        events[4].clone(),
        DONE.to_owned(),
    ];
    assert_eq!(stop, None);
    assert_eq!(values(&text), values(&left.concat()));
    let (text, _) = chat(
        &strip,
        &[
            fragment(0, Some("evil"), "{}"),
            finish("tool_calls"),
            DONE.into(),
        ],
    );
    assert_eq!(
        values(&text),
        values(&[finish("stop"), DONE.into()].concat())
    );
    let mut first = delta(
        &json!({"role": "assistant", "content": null, "tool_calls": [{"index": 0, "function": {"name": "evil", "arguments": "{}"}}]}),
    );
    first.insert_str(0, "id: 7\n");
    let (text, _) = chat(&strip, &[first]);
    assert!(text.starts_with("id: 7\ndata: "), "{text}");
    assert_eq!(
        values(&text)[0]["choices"][0]["delta"],
        json!({"role": "assistant", "content": null})
    );
}

/// The data of each event.
fn values(text: &str) -> Vec<Value> {
    text.split("\n\n")
        .filter_map(|event| event.lines().find_map(|line| line.strip_prefix("data: ")))
        .map(|data| serde_json::from_str(data).unwrap_or_else(|_| json!(data)))
        .collect()
}

#[test]
fn calls_of_the_same_index_are_told_apart_by_their_ids() {
    let call = |id: &str, name: &str| {
        delta(
            &json!({"tool_calls": [{"index": 0, "id": id, "type": "function", "function": {"name": name, "arguments": "{}"}}]}),
        )
    };
    let both = [call("a", "good"), call("b", "good"), finish("tool_calls")];
    assert_eq!(
        chat(&offered(&["good"], true), &both),
        (both.concat(), None)
    );
    let (text, stop) = chat(
        &offered(&["good"], true),
        &[call("a", "good"), call("b", "evil")],
    );
    assert_eq!((text, stop), (call("a", "good"), forbidden("tool evil")));
    let (text, stop) = chat(
        &offered(&["good"], false),
        &[call("a", "evil"), call("b", "good")],
    );
    assert_eq!((text, stop), (call("b", "good"), None));
}

#[test]
fn a_second_call_is_one_too_many_where_calls_come_one_by_one() {
    let one = |refuses| Offered {
        one_call: true,
        ..offered(&["good"], refuses)
    };
    let (first, second) = (
        fragment(0, Some("good"), "{}"),
        fragment(1, Some("good"), "{}"),
    );
    let events = [first.clone(), second, finish("tool_calls")];
    assert_eq!(
        chat(&one(true), &events),
        (first.clone(), forbidden(PARALLEL))
    );
    assert_eq!(
        chat(&one(false), &events),
        ([first, finish("tool_calls")].concat(), None)
    );
}

#[test]
fn what_cannot_be_judged_does_not_pass() {
    for bad in [
        "data: nonsense\n\n",
        "data: [1]\n\n",
        "\u{feff}data: {}\n\n",
        " data: {}\n\n",
        "data: {\"choices\":{}}\n\n",
        "data: {\"choices\":[5]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":{}}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[5]}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[],\"tool_calls\":[]}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[],\"tool_call\u{17f}\":[]}}]}\n\n",
        "data: {\"choices\":[],\"Choices\":[]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":-1}]}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"function\":{\"name\":5}}]}}]}\n\n",
    ] {
        let (text, stop) = chat(&offered(&["good"], false), &[bad.to_owned()]);
        assert_eq!(
            (text, stop),
            (String::new(), Some(Stop::Unreadable)),
            "{bad}"
        );
    }
    let held: Vec<String> = std::iter::once(fragment(0, Some("good"), ""))
        .chain((0..1000).map(|_| delta(&json!({"content": "x".repeat(2000)}))))
        .collect();
    assert_eq!(
        chat(&offered(&["good"], true), &held),
        (String::new(), Some(Stop::Unreadable))
    );
}

fn plain(route: Route, offered: &Offered, body: &Value) -> Result<(Value, Vec<String>), Stop> {
    let bytes = body.to_string().into_bytes();
    Ok(match offered.plain(route, &bytes)? {
        Plain::AsItIs => (body.clone(), Vec::new()),
        Plain::Without { body, places } => (serde_json::from_slice(&body).unwrap(), places),
    })
}

#[test]
fn a_plain_answer_is_judged_whole() {
    let call = |name: &str| json!({"id": "c", "type": "function", "function": {"name": name, "arguments": "{}"}});
    let answer = |calls: Vec<Value>, reason: &str| json!({"id": "x", "choices": [{"index": 0, "message": {"role": "assistant", "content": null, "tool_calls": calls}, "finish_reason": reason}], "usage": {"total_tokens": 1.50}});
    let route = Route::ChatCompletions;
    let both = answer(vec![call("evil"), call("good")], "tool_calls");
    assert_eq!(
        plain(route, &offered(&["good"], true), &both),
        Err(Stop::Forbidden("tool evil".into()))
    );
    let (left, places) = plain(route, &offered(&["good"], false), &both).unwrap();
    assert_eq!(left, answer(vec![call("good")], "tool_calls"));
    assert_eq!(places, ["choices[0].message.tool_calls[0]"]);
    let one = answer(vec![call("evil")], "tool_calls");
    let (left, _) = plain(route, &offered(&[], false), &one).unwrap();
    assert_eq!(
        left["choices"][0]["message"],
        json!({"role": "assistant", "content": null})
    );
    assert_eq!(left["choices"][0]["finish_reason"], "stop");
    let allowed = answer(vec![call("good"), call("good")], "tool_calls");
    assert_eq!(
        plain(route, &offered(&["good"], true), &allowed).unwrap().0,
        allowed
    );
    let single = Offered {
        one_call: true,
        ..offered(&["good"], true)
    };
    assert_eq!(
        plain(route, &single, &allowed),
        Err(Stop::Forbidden(PARALLEL.into()))
    );
    let legacy = json!({"choices": [{"message": {"content": null, "function_call": {"name": "evil", "arguments": "{}"}}, "finish_reason": "function_call"}]});
    assert_eq!(
        plain(route, &offered(&["good"], true), &legacy),
        Err(Stop::Forbidden("tool evil".into()))
    );
    let (left, _) = plain(route, &offered(&["good"], false), &legacy).unwrap();
    assert_eq!(
        left,
        json!({"choices": [{"message": {"content": null}, "finish_reason": "stop"}]})
    );
    for bad in [json!([]), json!({"choices": {}}), json!("x")] {
        assert_eq!(
            plain(route, &offered(&[], false), &bad),
            Err(Stop::Unreadable),
            "{bad}"
        );
    }
}

fn item(kind: &str, name: &str) -> Value {
    json!({"id": "i", "type": kind, "name": name, "arguments": "{}"})
}

#[test]
fn items_of_a_response_are_judged_by_type_and_name() {
    let route = Route::Responses;
    let response = |output: Vec<Value>| json!({"id": "r", "status": "completed", "output": output});
    let with_hosted = |kind: &str, refuses| Offered {
        hosted: [kind.to_owned()].into(),
        ..offered(&["good"], refuses)
    };
    let text = json!({"type": "message", "content": []});
    for (kind, name, hosted, told) in [
        ("function_call", "good", "", ""),
        ("custom_tool_call", "good", "", ""),
        ("function_call", "evil", "", "tool evil"),
        ("custom_tool_call", "evil", "", "tool evil"),
        ("web_search_call", "", "web_search_preview", ""),
        ("computer_call", "", "computer_use_preview", ""),
        ("mcp_list_tools", "", "mcp", ""),
        ("mcp_call", "good", "", "hosted tool mcp"),
        (
            "code_interpreter_call",
            "",
            "web_search",
            "hosted tool code_interpreter",
        ),
        ("local_shell_call", "", "shell", "hosted tool local_shell"),
        ("good", "good", "", "hosted tool good"),
    ] {
        let body = response(vec![text.clone(), item(kind, name)]);
        let judged = plain(route, &with_hosted(hosted, true), &body);
        let expected = if told.is_empty() {
            Ok((body.clone(), vec![]))
        } else {
            Err(Stop::Forbidden(told.into()))
        };
        assert_eq!(judged, expected, "{kind} {name}");
        if !told.is_empty() {
            let (left, places) = plain(route, &with_hosted(hosted, false), &body).unwrap();
            assert_eq!(
                (left, places),
                (response(vec![text.clone()]), vec!["output[1]".to_owned()])
            );
        }
    }
}

fn responses_stream(name: &str) -> Vec<String> {
    let call = item("function_call", name);
    let text =
        json!({"id": "m", "type": "message", "content": [{"type": "output_text", "text": "hi"}]});
    vec![
        named(&json!({"type": "response.created", "response": {"id": "r", "output": []}})),
        named(&json!({"type": "response.output_item.added", "output_index": 0, "item": call})),
        named(
            &json!({"type": "response.function_call_arguments.delta", "output_index": 0, "item_id": "i", "delta": "{}"}),
        ),
        named(
            &json!({"type": "response.function_call_arguments.done", "output_index": 0, "item_id": "i", "name": name, "arguments": "{}"}),
        ),
        named(&json!({"type": "response.output_item.done", "output_index": 0, "item": call})),
        named(&json!({"type": "response.output_item.added", "output_index": 1, "item": text})),
        named(&json!({"type": "response.output_text.delta", "output_index": 1, "delta": "hi"})),
        named(&json!({"type": "response.output_item.done", "output_index": 1, "item": text})),
        named(
            &json!({"type": "response.completed", "response": {"id": "r", "output": [call, text]}}),
        ),
    ]
}

fn responses(offered: &Offered, events: &[String]) -> (String, Option<Stop>) {
    passed(Route::Responses, offered, &[events.concat().as_bytes()])
}

#[test]
fn a_responses_stream_is_cut_consistently() {
    let good = responses_stream("good");
    for refuses in [true, false] {
        assert_eq!(
            responses(&offered(&["good"], refuses), &good),
            (good.concat(), None)
        );
    }
    let evil = responses_stream("evil");
    assert_eq!(
        responses(&offered(&["good"], true), &evil),
        (evil[0].clone(), forbidden("tool evil"))
    );
    let (text, stop) = responses(&offered(&["good"], false), &evil);
    assert_eq!(stop, None);
    assert!(
        !text.contains("evil") && text.contains("event: response.completed\n"),
        "{text}"
    );
    let left = values(&text);
    assert_eq!(left.len(), 5);
    assert_eq!(left[1]["output_index"], 0);
    assert_eq!(
        left[2],
        json!({"type": "response.output_text.delta", "output_index": 0, "delta": "hi"})
    );
    assert_eq!(left[4]["response"]["output"].as_array().unwrap().len(), 1);
}

#[test]
fn a_piece_of_a_call_that_was_not_announced_is_forbidden() {
    let text = json!({"type": "response.output_item.added", "output_index": 0, "item": {"type": "message"}});
    for (piece, told) in [
        (
            json!({"type": "response.function_call_arguments.delta", "output_index": 1, "delta": "x"}),
            "tool function_call_arguments",
        ),
        (
            json!({"type": "response.function_call_arguments.done", "output_index": 0, "name": "evil"}),
            "tool evil",
        ),
        (
            json!({"type": "response.mcp_call.completed", "output_index": 3}),
            "tool mcp_call",
        ),
        (
            json!({"type": "response.web_search_call.searching", "item_id": "w"}),
            "tool web_search_call",
        ),
        (
            json!({"type": "response.output_item.done", "output_index": 1, "item": item("function_call", "evil")}),
            "tool evil",
        ),
        (
            json!({"type": "response.completed", "response": {"output": [item("function_call", "evil")]}}),
            "tool evil",
        ),
        (
            json!({"type": "response.output_item.done", "output_index": 0, "item": item("function_call", "evil")}),
            "tool evil",
        ),
    ] {
        let events = [named(&text), named(&piece)];
        let (before, stop) = responses(&offered(&["good"], true), &events);
        assert_eq!((before, stop), (named(&text), forbidden(told)), "{piece}");
    }
    for bad in [
        "event: response.created\ndata: {\"type\":\"response.output_item.added\",\"output_index\":0,\"item\":{}}\n\n".to_owned(),
        named(&json!({"type": "response.completed", "response": {}, "item": item("function_call", "evil"), "output_index": 0})),
        named(&json!({"type": "response.output_item.added", "item": {"type": "message"}})),
    ] {
        assert_eq!(responses(&offered(&["good"], true), &[bad]).1, Some(Stop::Unreadable));
    }
    let harmless = [named(&json!({"type": "codex.rate_limits", "left": 5}))];
    assert_eq!(
        responses(&offered(&[], true), &harmless),
        (harmless.concat(), None)
    );
}

#[test]
fn a_second_item_is_one_too_many_where_calls_come_one_by_one() {
    let added = |at: u64| {
        named(
            &json!({"type": "response.output_item.added", "output_index": at, "item": item("function_call", "good")}),
        )
    };
    let done = |at: u64| {
        named(
            &json!({"type": "response.output_item.done", "output_index": at, "item": item("function_call", "good")}),
        )
    };
    let one = |refuses| Offered {
        one_call: true,
        ..offered(&["good"], refuses)
    };
    let events = [added(0), done(0), added(1), done(1)];
    let first = [added(0), done(0)].concat();
    assert_eq!(
        responses(&one(true), &events),
        (first.clone(), forbidden(PARALLEL))
    );
    assert_eq!(responses(&one(false), &events), (first, None));
}

/// A call of a random stream: its name and arguments, cut at these places.
#[derive(Debug, Clone)]
struct RandomCall {
    choice: u64,
    name: &'static str,
    cut: usize,
    text_between: bool,
}

fn random_call() -> impl Strategy<Value = RandomCall> {
    let names = prop::sample::select(vec!["good", "fine", "evil", "goodevil"]);
    (0..2_u64, names, 0..8_usize, any::<bool>()).prop_map(|(choice, name, cut, text_between)| {
        RandomCall {
            choice,
            name,
            cut,
            text_between,
        }
    })
}

fn random_stream(calls: &[RandomCall]) -> String {
    let choice = |choice: u64, delta: Value, reason: Value| {
        event(&json!({"choices": [{"index": choice, "delta": delta, "finish_reason": reason}]}))
    };
    let (mut out, mut next) = (String::new(), [0_u64; 2]);
    for call in calls {
        let place = usize::try_from(call.choice).unwrap();
        let index = next[place];
        next[place] += 1;
        let (a, b) = call.name.split_at(call.cut.min(call.name.len()));
        let piece = |name: &str, arguments: &str| {
            choice(
                call.choice,
                json!({"tool_calls": [{"index": index, "function": {"name": name, "arguments": arguments}}]}),
                json!(null),
            )
        };
        out += &piece(a, "");
        if call.text_between {
            out += &choice(1 - call.choice, json!({"content": "t"}), json!(null));
        }
        out += &piece(b, "");
        out += &piece("", "{\"x\":");
        out += &piece("", "1}");
    }
    for (place, count) in (0..).zip(next) {
        let reason = if count > 0 { "tool_calls" } else { "stop" };
        out += &choice(place, json!({}), json!(reason));
    }
    out + DONE
}

/// What a client makes of one choice: its calls by index, its text, its reason.
type Seen = (Vec<(String, String)>, String, String);

fn client(text: &str) -> [Seen; 2] {
    let mut seen: [Seen; 2] = Default::default();
    for value in values(text) {
        for choice in value["choices"].as_array().into_iter().flatten() {
            let place = usize::try_from(choice["index"].as_u64().unwrap()).unwrap();
            let (calls, text, reason) = &mut seen[place];
            *text += choice["delta"]["content"].as_str().unwrap_or_default();
            *reason += choice["finish_reason"].as_str().unwrap_or_default();
            for call in choice["delta"]["tool_calls"]
                .as_array()
                .into_iter()
                .flatten()
            {
                let index = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
                assert!(index <= calls.len(), "an index is left out: {value}");
                if index == calls.len() {
                    calls.push((String::new(), String::new()));
                }
                calls[index].0 += call["function"]["name"].as_str().unwrap();
                calls[index].1 += call["function"]["arguments"].as_str().unwrap();
            }
        }
    }
    seen
}

proptest! {
    #[test]
    fn any_chunking_of_any_stream_gives_the_same_sound_one(
        calls in prop::collection::vec(random_call(), 0..6),
        cuts in prop::collection::vec(0..4000_usize, 0..12),
        refuses: bool,
    ) {
        let stream = random_stream(&calls);
        let offered = offered(&["good", "fine"], refuses);
        let whole = passed(Route::ChatCompletions, &offered, &[stream.as_bytes()]);
        let mut cuts: Vec<usize> = cuts.into_iter().filter(|&at| at < stream.len()).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let chunks: Vec<&[u8]> = cuts.windows(2).map(|w| &stream.as_bytes()[w[0]..w[1]]).collect();
        prop_assert_eq!(&passed(Route::ChatCompletions, &offered, &chunks), &whole);

        let (text, stop) = whole;
        let is_evil = |call: &&RandomCall| {
            call.name.contains("evil") || (1..call.name.len()).contains(&call.cut)
        };
        if calls.iter().find(is_evil).is_none() {
            prop_assert_eq!(&text, &stream);
            prop_assert_eq!(stop, None);
            return Ok(());
        }
        prop_assert!(!text.contains("evil"));
        if refuses {
            prop_assert!(matches!(stop, Some(Stop::Forbidden(_))));
            let first = calls.iter().position(|call| is_evil(&call)).unwrap();
            let before = random_stream(&calls[..first]);
            let before = before.split_once("\"finish_reason\":\"").map_or("", |(before, _)| before);
            prop_assert!(before.starts_with(&text) || text.starts_with(before.rsplit_once("data: ").map_or("", |(before, _)| before)));
            return Ok(());
        }
        prop_assert_eq!(stop, None);
        let seen = client(&text);
        for (choice, (got, said, reason)) in (0..).zip(seen) {
            let mine = || calls.iter().filter(move |call| call.choice == choice);
            let kept: Vec<_> = mine()
                .filter(|call| !is_evil(call))
                .map(|call| (call.name.to_owned(), "{\"x\":1}".to_owned()))
                .collect();
            let expected = if kept.is_empty() { "stop" } else { "tool_calls" };
            prop_assert_eq!(&reason, expected);
            prop_assert_eq!(got, kept);
            let texts = calls.iter().filter(|call| call.choice != choice && call.text_between);
            prop_assert_eq!(said, "t".repeat(texts.count()));
        }
    }
}

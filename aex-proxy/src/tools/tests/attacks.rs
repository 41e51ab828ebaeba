//! Calls that some client sees and a strict reader of the format does not.

use super::*;

const UNREADABLE: Option<Stop> = Some(Stop::Unreadable);

fn hosting(kinds: &[&str], names: &[&str], refuses: bool) -> Offered {
    Offered {
        hosted: kinds.iter().map(|&kind| kind.to_owned()).collect(),
        ..offered(names, refuses)
    }
}

/// The lines as a client reads them that ends one at every character that Unicode calls a line end.
fn lenient_lines(text: &str) -> Vec<&str> {
    let ends = |c: char| {
        matches!(
            c,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'
                ..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    text.split(ends).collect()
}

#[test]
fn no_line_of_a_stream_is_two_to_a_client_with_other_line_ends() {
    let evil = "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"function\":{\"name\":\"evil\",\"arguments\":\"{}\"}}]}}]}";
    let strict = offered(&["good"], true);
    for end in [
        "\u{b}", "\u{c}", "\u{1c}", "\u{1d}", "\u{1e}", "\u{85}", "\u{2028}", "\u{2029}",
    ] {
        for field in [": keepalive", "id: x", "retry: 5"] {
            let (text, stop) = chat(&strict, &[format!("{field}{end}{evil}\n\n")]);
            assert_eq!((text.as_str(), stop), (":\n\n", None), "{field} {end:?}");
            let more = delta(&json!({"content": "t"}));
            let (text, stop) = chat(&strict, &[format!("{field}{end}{evil}\n{more}")]);
            assert_eq!((text, stop), (more, None), "{field} {end:?}");
        }
        for field in ["event: x", "event", "eventual: x", "data: {}"] {
            let (text, stop) = chat(&strict, &[format!("{field}{end}{evil}\n\n")]);
            assert_eq!((text.as_str(), stop), ("", UNREADABLE), "{field} {end:?}");
        }
    }
    for plain in [": ping\n\n", "id: 7\nretry: 5\n\n", ": é\r\n\r\n"] {
        let (text, stop) = chat(&strict, &[plain.to_owned()]);
        assert_eq!((text.as_str(), stop), (plain, None));
    }
}

#[test]
fn a_text_with_other_line_ends_stays_the_same_text() {
    let said = "a\u{85}b\u{2028}data: {}\u{2029}c";
    let events = [
        delta(&json!({"content": said})),
        delta(&json!({"content": "ä"})),
    ];
    let (text, stop) = chat(&offered(&["good"], true), &events);
    assert_eq!(stop, None);
    assert!(text.contains(r"a\u0085b\u2028data: {}\u2029c"), "{text}");
    assert!(text.ends_with(&events[1]), "{text}");
    assert_eq!(values(&text)[0]["choices"][0]["delta"]["content"], said);
    assert_eq!(lenient_lines(&text).len(), text.split('\n').count());
}

#[test]
fn data_of_several_lines_becomes_one_line() {
    let evil =
        r#"{"choices":[{"delta":{"tool_calls":[{"function":{"name":"evil","arguments":"{}"}}]}}]}"#;
    let strict = offered(&["good"], true);
    let parts = "id: 1\r\ndata: {\"choices\":\r\ndata: []}\r\n\r\n".to_owned();
    assert_eq!(
        chat(&strict, &[parts]),
        ("id: 1\ndata: {\"choices\": []}\n\n".to_owned(), None)
    );
    for bad in [
        format!("data: {{\"x\":\ndata: {evil}\ndata: \n\n"),
        format!("data: {{\"choices\":[]}}\ndata: {evil}\n\n"),
        "data: {\"x\":\"a\ndata: b\"}\n\n".to_owned(),
        "data: {\"x\":1\ndata: 2}\n\n".to_owned(),
    ] {
        assert_eq!(
            chat(&strict, std::slice::from_ref(&bad)),
            (String::new(), UNREADABLE),
            "{bad}"
        );
    }
    // A member that no one reads is no document of its own any more.
    let (text, stop) = chat(
        &strict,
        &["data: {\"x\":\ndata: [{\"y\":1}]\ndata: }\n\n".to_owned()],
    );
    assert_eq!(
        (text.as_str(), stop),
        ("data: {\"x\": [{\"y\":1}] }\n\n", None)
    );
}

#[test]
fn a_hosted_type_does_not_hide_the_name_of_a_call() {
    let hosted = |refuses| hosting(&["web_search"], &["good"], refuses);
    let call = |kind: &str, name: &str| json!({"type": kind, "id": "c", "index": 0, "function": {"name": name, "arguments": "{}"}});
    let answer = |call: &Value| json!({"choices": [{"message": {"tool_calls": [call]}}]});
    for (kind, name, told) in [
        ("web_search", "evil", "tool evil"),
        ("web_search_call", "evil", "tool evil"),
        ("web", "good", "hosted tool web"),
        ("web", "evil", "hosted tool web"),
    ] {
        let call = call(kind, name);
        let streamed = delta(&json!({"tool_calls": [call]}));
        assert_eq!(
            chat(&hosted(true), std::slice::from_ref(&streamed)),
            (String::new(), forbidden(told)),
            "{kind} {name}"
        );
        assert_eq!(
            chat(&hosted(false), &[streamed]),
            (String::new(), None),
            "{kind}"
        );
        let judged = plain(Route::ChatCompletions, &hosted(true), &answer(&call));
        assert_eq!(judged, Err(Stop::Forbidden(told.into())), "{kind} {name}");
    }
    // The name before the type, after it, and in the type's own object.
    let piece = |call: Value| delta(&json!({"tool_calls": [call]}));
    for events in [
        vec![
            piece(json!({"index": 0, "function": {"name": "evil"}})),
            piece(json!({"index": 0, "type": "web_search"})),
        ],
        vec![piece(
            json!({"index": 0, "type": "web_search", "web_search": {"name": "evil"}}),
        )],
    ] {
        assert_eq!(
            chat(&hosted(true), &events),
            (String::new(), forbidden("tool evil"))
        );
    }
    let late = [
        piece(json!({"index": 0, "type": "web_search"})),
        piece(json!({"index": 0, "function": {"name": "evil", "arguments": "{}"}})),
    ];
    assert_eq!(
        chat(&hosted(true), &late),
        (late[0].clone(), forbidden("tool evil"))
    );
    for name in ["", "web_search", "good"] {
        let whole = delta(&json!({"tool_calls": [call("web_search", name)]}));
        assert_eq!(
            chat(&hosted(true), std::slice::from_ref(&whole)),
            (whole, None)
        );
    }
}

#[test]
fn a_name_in_pieces_is_none_that_was_offered() {
    let strict = offered(&["good_evil", "good_"], true);
    let told = forbidden("tool good_evil with its name in pieces");
    for events in [
        vec![
            fragment(0, Some("good_"), ""),
            fragment(0, Some("evil"), "{}"),
        ],
        vec![
            fragment(0, Some("good_evi"), ""),
            fragment(0, Some("l"), ""),
            finish("tool_calls"),
        ],
        vec![
            delta(&json!({"function_call": {"name": "good_"}})),
            delta(&json!({"function_call": {"name": "evil", "arguments": "{}"}})),
        ],
    ] {
        assert_eq!(
            chat(&strict, &events),
            (String::new(), told.clone()),
            "{events:?}"
        );
        let (text, stop) = chat(&offered(&["good_evil"], false), &events);
        assert!(stop.is_none() && !text.contains("evil"), "{text}");
    }
    let again = [
        fragment(0, Some("good_evil"), ""),
        fragment(0, Some("good_evil"), ""),
        fragment(0, Some(""), ""),
        fragment(0, Some("good_evil"), "{}"),
        finish("tool_calls"),
    ];
    assert_eq!(chat(&strict, &again), (again.concat(), None));
}

#[test]
fn a_call_where_a_chat_answer_has_none_does_not_pass() {
    let call = json!({"index": 0, "function": {"name": "evil", "arguments": "{}"}});
    for refuses in [true, false] {
        let rules = offered(&["good"], refuses);
        for choice in [
            json!({"delta": {"content": [{"type": "tool_use", "name": "evil", "input": {}}]}}),
            json!({"message": {"content": [{"type": "tool_use", "name": "evil"}]}}),
            json!({"message": {"content": [{"type": "text", "function": {"name": "evil"}}]}}),
            json!({"delta": {"functionCall": {"name": "evil", "args": {}}}}),
            json!({"delta": {}, "tool_calls": [call]}),
            json!({"delta": {}, "function_call": {"name": "evil"}}),
            json!({"delta": {"tool_calls": [{"index": 0, "function": {"name": "good", "arguments": "{}"}, "x": {"tool_calls": [call]}}]}}),
        ] {
            let answer = json!({"choices": [choice]});
            assert_eq!(
                chat(&rules, &[event(&answer)]),
                (String::new(), UNREADABLE),
                "{answer}"
            );
            assert_eq!(
                plain(Route::ChatCompletions, &rules, &answer),
                Err(Stop::Unreadable),
                "{answer}"
            );
        }
        let ollama = json!({"message": {"tool_calls": [call]}, "done": true});
        assert_eq!(chat(&rules, &[event(&ollama)]), (String::new(), UNREADABLE));
        // What servers say beside: no calls of the client.
        for beside in [
            delta(
                &json!({"content": [{"type": "text", "text": "x"}], "tool_calls": [], "function_call": null}),
            ),
            delta(
                &json!({"executed_tools": [{"index": 0, "type": "function", "name": "browser.search", "arguments": "{}"}]}),
            ),
            "data: {\"choices\":[{\"delta\":{\"content\":\"\\ud83d\"},\"logprobs\":{\"content\":[]}}],\"usage\":{\"tool_calls\":2}}\n\n".to_owned(),
        ] {
            let got = chat(&rules, std::slice::from_ref(&beside));
            assert_eq!(got, (beside, None));
        }
    }
}

fn added(place: u64, item: &Value) -> String {
    named(&json!({"type": "response.output_item.added", "output_index": place, "item": item}))
}

#[test]
fn a_hosted_item_lends_its_place_to_no_other_call() {
    let rules = hosting(&["web_search", "code_interpreter"], &["good"], true);
    let search = added(0, &json!({"type": "web_search_call", "id": "w"}));
    for (piece, told) in [
        (
            json!({"type": "response.function_call_arguments.done", "output_index": 0, "name": "evil", "arguments": "{}"}),
            "tool evil",
        ),
        (
            json!({"type": "response.function_call_arguments.delta", "output_index": 0, "delta": "{}"}),
            "tool function_call_arguments",
        ),
        (
            json!({"type": "response.web_search_call.completed", "output_index": 0, "name": "evil"}),
            "tool evil",
        ),
        (
            json!({"type": "response.web_search_calls.completed", "output_index": 0}),
            "tool web_search_calls",
        ),
    ] {
        let got = responses(&rules, &[search.clone(), named(&piece)]);
        assert_eq!(got, (search.clone(), forbidden(told)), "{piece}");
    }
    let sound = [
        search,
        named(&json!({"type": "response.web_search_call.searching", "output_index": 0})),
        added(1, &json!({"type": "code_interpreter_call", "code": "x"})),
        named(
            &json!({"type": "response.code_interpreter_call_code.delta", "output_index": 1, "delta": "y"}),
        ),
    ];
    assert_eq!(responses(&rules, &sound), (sound.concat(), None));
    let named_item = json!({"type": "web_search_call", "name": "evil", "arguments": "{}"});
    assert_eq!(
        responses(&rules, &[added(0, &named_item)]).1,
        forbidden("tool evil")
    );
    let mcp = json!({"type": "mcp_call", "server_label": "other", "name": "evil"});
    assert_eq!(
        responses(&rules, &[added(0, &mcp)]).1,
        forbidden("hosted tool mcp")
    );
}

#[test]
fn an_event_or_a_part_of_an_unknown_kind_brings_in_no_call() {
    let call = item("function_call", "evil");
    let chat_call = json!({"function": {"name": "evil", "arguments": "{}"}});
    let part = |kind: &str| json!({"type": kind, "name": "evil"});
    let message = |part: &Value| json!({"type": "message", "content": [part]});
    for refuses in [true, false] {
        let rules = offered(&["good"], refuses);
        for event in [
            json!({"type": "response.output_items", "items": [call]}),
            json!({"type": "response.output_items", "output": [call]}),
            json!({"type": "response.content_part.added", "output_index": 0, "part": part("function_call")}),
            json!({"choices": [{"delta": {"tool_calls": [chat_call]}}]}),
            json!({"type": "response.completed", "response": {"output": [message(&part("function_call"))]}}),
            json!({"type": "response.completed", "response": {"output": [], "required_action": {"submit_tool_outputs": {"tool_calls": [chat_call]}}}}),
            json!({"type": "response.completed", "response": {"output": [], "choices": [{"message": {"tool_calls": [chat_call]}}]}}),
            json!({"type": "response.output_item.added", "output_index": 0, "item": message(&part("tool_use"))}),
            json!({"type": "response.output_item.added", "output_index": 0, "item": {"type": "function_call", "name": "good", "function": {"name": "evil"}}}),
            json!({"type": "response.function_call_arguments.done", "output_index": 0, "item": {"type": "message"}, "name": "evil"}),
            json!({"type": "response.function_call_arguments.done", "response": {}, "name": "evil"}),
            json!({"type": "response.x", "item_id": "i", "name": "evil", "arguments": "{}"}),
        ] {
            let name = event["type"].as_str().unwrap_or_default();
            let text = if name.is_empty() {
                format!("data: {event}\n\n")
            } else {
                named(&event)
            };
            assert_eq!(
                responses(&rules, &[text]),
                (String::new(), UNREADABLE),
                "{event}"
            );
        }
        for answer in [
            json!({"output": [message(&part("function_call"))]}),
            json!({"output": [], "required_action": {"tool_calls": [chat_call]}}),
        ] {
            assert_eq!(
                plain(Route::Responses, &rules, &answer),
                Err(Stop::Unreadable),
                "{answer}"
            );
        }
    }
    // What a response repeats of its request is no call.
    let echo = json!({"type": "response.created", "response": {"output": [],
        "tools": [{"type": "function", "name": "good", "parameters": {"properties": {"tool_calls": {"type": "array"}}}}],
        "tool_choice": {"type": "function", "name": "good"}, "metadata": {"function_call": "x"}, "instructions": [call]}});
    assert_eq!(
        responses(&offered(&["good"], true), &[named(&echo)]),
        (named(&echo), None)
    );
}

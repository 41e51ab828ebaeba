//! Requests under rules of tools: what is forwarded of them.

use aex_admin_proto::worker::{Facts, Grant};
use serde_json::{Value, json};

use super::super::{ApiRequest, read};
use super::*;

fn grant() -> Grant {
    serde_json::from_value(json!({
        "ticket": "t", "tenant": "a1", "provider": "p", "path": "/x", "upstream_model": "m", "output_cap": 7,
        "output_cap_param": "max_tokens", "output_tokens": 7, "stream_usage": false,
        "remaining_micro": 0, "on_disconnect": "drain", "drain_timeout_ms": 0,
        "deadline_boot_ms": 0, "max_response_bytes": 0,
    }))
    .unwrap()
}

fn body(route: Route, more: &Value) -> String {
    let mut body = match route {
        Route::Responses => json!({"model": "m", "input": "hi"}),
        Route::Completions => json!({"model": "m", "prompt": "hi"}),
        _ => json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]}),
    };
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body.to_string()
}

fn request(route: Route, more: &Value) -> (ApiRequest, String) {
    let text = body(route, more);
    (read(route, text.as_bytes()).unwrap(), text)
}

/// What is forwarded beside what always is, and what the client is told of the rest.
fn governed(route: Route, more: &Value, rules: &[ToolRules]) -> (Value, String, Offered) {
    let (mut request, text) = request(route, more);
    let offered = request.govern(rules).unwrap();
    let forwarded = request.forwarded(text.as_bytes(), &grant());
    let mut forwarded: Value = serde_json::from_slice(&forwarded).unwrap();
    let always = ["model", "messages", "input", "max_tokens"];
    let fields = forwarded.as_object_mut().unwrap();
    fields.retain(|name, _| !always.contains(&name.as_str()));
    (forwarded, request.left_out_places().join(","), offered)
}

fn only(allowed: &str) -> ToolRules {
    ToolRules {
        allowed: Some(vec![allowed.into()]),
        on_forbidden: OnForbiddenTool::Strip,
        ..ToolRules::default()
    }
}

fn function(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name}})
}

#[test]
fn without_rules_nothing_is_touched() {
    let (mut request, text) = request(Route::ChatCompletions, &json!({"tools": [function("a")]}));
    assert!(request.govern(&[]).is_none());
    let forwarded = request.forwarded(text.as_bytes(), &grant());
    assert!(
        String::from_utf8(forwarded)
            .unwrap()
            .contains(r#""tools":[{"#)
    );
}

#[test]
fn forbidden_tools_are_cut_out_and_told() {
    let chat = Route::ChatCompletions;
    let flat = |name: &str| json!({"type": "function", "name": name});
    for (route, more, left, told) in [
        (
            chat,
            json!({"tools": [function("evil"), function("good")], "tool_choice": "auto"}),
            json!({"tools": [function("good")], "tool_choice": "auto"}),
            "tools[0]",
        ),
        (
            chat,
            json!({"tools": [function("evil")], "tool_choice": "required", "parallel_tool_calls": true, "top_p": 1}),
            json!({"top_p": 1}),
            "tools[0]",
        ),
        (
            chat,
            json!({"functions": [{"name": "evil"}, {"name": "good"}], "function_call": "auto"}),
            json!({"functions": [{"name": "good"}], "function_call": "auto"}),
            "functions[0]",
        ),
        (
            chat,
            json!({"functions": [{"name": "evil"}], "function_call": "auto"}),
            json!({}),
            "functions[0]",
        ),
        (
            chat,
            json!({"tools": [{"type": "function", "function": {"name": "good"}, "name": "evil"}, function("good")], "web_search_options": {}}),
            json!({"tools": [function("good")]}),
            "tools[0],web_search_options",
        ),
        (
            Route::Responses,
            json!({"tools": [flat("good"), {"type": "web_search"}, {"type": "custom", "name": "evil"}]}),
            json!({"tools": [flat("good")], "store": false}),
            "tools[1],tools[2]",
        ),
        (
            chat,
            json!({"tools": [function("good")]}),
            json!({"tools": [function("good")]}),
            "",
        ),
        (chat, json!({"tools": []}), json!({"tools": []}), ""),
    ] {
        let (forwarded, places, offered) = governed(route, &more, &[only("good")]);
        let mut left = left;
        if route == Route::Responses {
            left.as_object_mut().unwrap().remove("store");
        }
        assert_eq!(forwarded, left, "{more}");
        assert_eq!(places, told, "{more}");
        assert!(!offered.names.contains("evil") && offered.hosted.is_empty());
        assert_eq!(
            offered.names.contains("good"),
            left.to_string().contains("good")
        );
    }
}

#[test]
fn what_stays_of_a_list_is_its_own_bytes() {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"tools":[{"type":"function","function":{"name":"evil"}}, { "type" : "function","function":{"name":"g\u006fod","parameters":{"x":1.50e0}} }]}"#;
    let mut request = read(Route::ChatCompletions, body.as_bytes()).unwrap();
    let offered = request.govern(&[only("good")]).unwrap();
    let forwarded = String::from_utf8(request.forwarded(body.as_bytes(), &grant())).unwrap();
    let element =
        r#"{ "type" : "function","function":{"name":"g\u006fod","parameters":{"x":1.50e0}} }"#;
    assert!(
        forwarded.contains(&format!(r#""tools":[{element}]"#)),
        "{forwarded}"
    );
    assert!(offered.names.contains("good"));
}

#[test]
fn calls_come_one_by_one_where_that_is_the_rule() {
    let one = ToolRules {
        one_call: true,
        ..ToolRules::default()
    };
    let tools = json!([function("a")]);
    for said in [json!(null), json!(false)] {
        let more = json!({"tools": tools, "parallel_tool_calls": said});
        let (forwarded, ..) = governed(Route::ChatCompletions, &more, std::slice::from_ref(&one));
        assert_eq!(
            forwarded,
            json!({"tools": tools, "parallel_tool_calls": false})
        );
    }
    let (forwarded, _, offered) = governed(Route::ChatCompletions, &json!({}), &[one]);
    assert_eq!(forwarded, json!({}), "a provider refuses it without tools");
    assert!(offered.one_call && offered.refuses);
}

#[test]
fn the_rules_of_all_scopes_hold() {
    let more = json!({"tools": [function("a1"), function("b1"), function("b2")]});
    let scopes = [only("*1"), only("b*")];
    let (forwarded, places, offered) = governed(Route::ChatCompletions, &more, &scopes);
    assert_eq!(forwarded, json!({"tools": [function("b1")]}));
    assert_eq!(
        (places.as_str(), offered.refuses),
        ("tools[0],tools[2]", false)
    );
    let mut scopes = scopes;
    scopes[1].on_forbidden = OnForbiddenTool::Refuse;
    assert!(governed(Route::ChatCompletions, &more, &scopes).2.refuses);
}

fn facts(route: Route, more: &Value) -> Facts {
    request(route, more).0.facts
}

#[test]
fn what_a_choice_names_is_found_in_each_form() {
    for (more, chosen) in [
        (json!({"tool_choice": "auto"}), vec![]),
        (json!({"tool_choice": "required"}), vec![]),
        (json!({"tool_choice": "evil"}), vec!["evil"]),
        (json!({"tool_choice": function("evil")}), vec!["evil"]),
        (
            json!({"tool_choice": {"type": "custom", "name": "evil"}}),
            vec!["evil"],
        ),
        (
            json!({"tool_choice": {"type": "web_search_preview"}}),
            vec!["type web_search_preview"],
        ),
        (
            json!({"tool_choice": {"type": "mcp", "server_label": "s", "name": "evil"}}),
            vec!["type mcp", "evil"],
        ),
        (
            json!({"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "evil"}, {"type": "mcp"}]}}),
            vec!["evil", "type mcp"],
        ),
        (
            json!({"tool_choice": {"type": "allowed_tools", "tools": ["evil"]}}),
            vec!["evil"],
        ),
    ] {
        for route in [Route::ChatCompletions, Route::Responses] {
            let mut found = facts(route, &more).chosen_tools;
            let mut chosen = chosen.clone();
            found.sort();
            chosen.sort_unstable();
            assert_eq!(found, chosen, "{more}");
        }
    }
    let old = facts(
        Route::ChatCompletions,
        &json!({"function_call": {"name": "evil"}}),
    );
    assert_eq!(old.chosen_tools, ["evil"]);
}

#[test]
fn calls_of_before_are_no_offers() {
    let history = json!({"messages": [
        {"role": "assistant", "content": null, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "evil", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c", "name": "evil", "content": "x"},
    ]});
    let found = facts(Route::ChatCompletions, &history);
    assert!(found.tools.is_empty() && found.chosen_tools.is_empty());
}

#[test]
fn media_are_told_apart() {
    let part = |part: Value| {
        let facts = facts(
            Route::ChatCompletions,
            &json!({"messages": [{"role": "user", "content": [part]}]}),
        );
        assert!(facts.media);
        (facts.audio, facts.files, facts.other_media)
    };
    assert_eq!(
        part(json!({"type": "input_audio", "input_audio": {"data": "x"}})),
        (true, false, false)
    );
    assert_eq!(
        part(json!({"type": "file", "file": {"file_id": "x"}})),
        (false, true, false)
    );
    assert_eq!(
        part(json!({"type": "input_file", "file_id": "x"})),
        (false, true, false)
    );
    assert_eq!(
        part(json!({"type": "video_url", "video_url": "x"})),
        (false, false, true)
    );
    assert_eq!(
        part(json!({"type": "text", "text": "", "audio": {}})),
        (true, false, false)
    );
    let spoken = json!({"modalities": ["text", "audio"], "audio": {"voice": "v"}});
    assert!(facts(Route::ChatCompletions, &spoken).audio);
    let before = json!({"messages": [{"role": "assistant", "audio": {"id": "a"}}]});
    assert!(facts(Route::ChatCompletions, &before).audio);
}

#[test]
fn form_and_parallel_calls_and_temperature_are_read() {
    let chat = Route::ChatCompletions;
    assert!(facts(chat, &json!({"response_format": {"type": "json_object"}})).structured_output);
    assert!(!facts(chat, &json!({"response_format": {"type": "text"}})).structured_output);
    let form = json!({"text": {"format": {"type": "json_schema"}}});
    assert!(facts(Route::Responses, &form).structured_output);
    assert_eq!(
        facts(chat, &json!({"parallel_tool_calls": 1})).parallel_tool_calls,
        Some(true)
    );
    assert_eq!(
        facts(chat, &json!({"parallel_tool_calls": null})).parallel_tool_calls,
        None
    );
    assert!(
        facts(chat, &json!({"temperature": 0.5}))
            .temperature
            .is_some()
    );
}

#[test]
fn keys_in_another_case_hide_no_tool() {
    for tool in [
        json!({"type": "function", "function": {"name": "good"}, "Function": {"name": "evil"}}),
        json!({"type": "function", "function": {"name": "good", "Name": "evil"}}),
        json!({"type": "function", "function": {"name": "good"}, "NAME": "evil"}),
    ] {
        let more = json!({"tools": [tool]});
        let names = facts(Route::ChatCompletions, &more).tools;
        assert!(names.contains(&"evil".to_owned()), "{more}");
        let (left, ..) = governed(Route::ChatCompletions, &more, &[only("good")]);
        assert_eq!(left, json!({}));
    }
    for (route, more) in [
        (
            Route::ChatCompletions,
            json!({"messages": [{"role": "system", "content": "", "tools": [function("evil")]}]}),
        ),
        (
            Route::Responses,
            json!({"input": [{"type": "additional_tools", "Tools": [function("evil")]}]}),
        ),
        (
            Route::ChatCompletions,
            json!({"chat_template_kwargs": {"x": {"tools": [function("evil")]}}}),
        ),
    ] {
        let chosen = facts(route, &more).chosen_tools;
        assert_eq!(chosen, ["tools (inside another field)"]);
    }
}

#[test]
fn a_key_in_another_case_is_no_request() {
    let image = json!({"type": "image_url", "image_url": {"url": "x"}});
    for (route, more, key) in [
        (Route::ChatCompletions, json!({"Model": "dear"}), "model"),
        (
            Route::ChatCompletions,
            json!({"Messages": [{"role": "user", "content": "x"}]}),
            "messages",
        ),
        (
            Route::ChatCompletions,
            json!({"max_to\u{212a}ens": 9999}),
            "max_tokens",
        ),
        (Route::Responses, json!({"INPUT": "x"}), "input"),
        (Route::Completions, json!({"Prompt": "x"}), "prompt"),
        (
            Route::ChatCompletions,
            json!({"messages": [{"role": "user", "content": "x", "Content": [image]}]}),
            "content",
        ),
        (
            Route::ChatCompletions,
            json!({"messages": [{"role": "user", "content": "x", "Images": ["x"]}]}),
            "images",
        ),
        (
            Route::ChatCompletions,
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "Type": "image_url"}]}]}),
            "type",
        ),
        (
            Route::ChatCompletions,
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "Image_url": "x"}]}]}),
            "image_url",
        ),
        (
            Route::Responses,
            json!({"input": [{"role": "user", "Content": [image]}]}),
            "content",
        ),
    ] {
        let error = read(route, body(route, &more).as_bytes()).unwrap_err();
        let expected = format!("{key} in another case");
        assert!(
            error.message.contains(&expected),
            "{more}: {}",
            error.message
        );
    }
}

#[test]
fn doors_inside_other_fields_are_looked_at() {
    let chat = Route::ChatCompletions;
    for (more, nested) in [
        (
            json!({"chat_template_kwargs": {"xml_tools": [], "enable_thinking": true}}),
            "xml_tools",
        ),
        (
            json!({"x": {"y": [{"toolDeclarations": {}}]}}),
            "toolDeclarations",
        ),
        (json!({"grounding": {"google_search": {}}}), "google_search"),
        (json!({"nvext": {"guided_json": {}}}), "guided_json"),
        (json!({"sampling": {"temperature": 2}}), "temperature"),
        (
            json!({"chat_template_kwargs": {"json_schema": {}}}),
            "json_schema",
        ),
    ] {
        assert_eq!(facts(chat, &more).nested_params, [nested], "{more}");
    }
    assert_eq!(
        facts(chat, &json!({"metadata": {"search": "x"}})).nested_params,
        [""; 0]
    );
    for (more, hidden) in [
        (
            json!({"tools": [{"type": "namespace", "tools": [function("evil")]}]}),
            true,
        ),
        (
            json!({"tools": [{"type": "function", "function": {"name": "good"}, "googleSearch": {}}]}),
            true,
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "tools": []}]}]}),
            true,
        ),
        (
            json!({"messages": [{"role": "user", "content": "x", "xml_tools": []}]}),
            true,
        ),
        (
            json!({"messages": [
                {"role": "assistant", "content": null, "tool_calls": [
                    {"id": "c", "type": "function", "function": {"name": "good", "arguments": "{}"}}
                ]},
                {"role": "tool", "tool_call_id": "c", "content": "x"},
            ]}),
            false,
        ),
        (
            json!({"tools": [{"type": "mcp", "server_label": "s", "allowed_tools": ["a"]}]}),
            false,
        ),
    ] {
        let chosen = facts(chat, &more).chosen_tools;
        assert_eq!(!chosen.is_empty(), hidden, "{more}: {chosen:?}");
    }
}

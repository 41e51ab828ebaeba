use aex_admin_proto::scope::ScopeId;
use aex_admin_proto::worker::{Grant, OnDisconnect};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// A good body with `more` put in before its end.
fn with(more: &str) -> String {
    format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}]{more}}}"#)
}

/// A good body with this as its messages.
fn messages(list: &str) -> String {
    format!(r#"{{"model":"m","messages":{list}}}"#)
}

fn good(body: &str) -> ApiRequest {
    read(Route::ChatCompletions, body.as_bytes()).unwrap_or_else(|error| panic!("{body}: {error}"))
}

/// The parameter to blame, then the message.
fn refused(body: &[u8]) -> String {
    let shown = String::from_utf8_lossy(body);
    let error = read(Route::ChatCompletions, body).expect_err(&shown);
    format!("{}|{}", error.param.unwrap_or_default(), error.message)
}

fn grant() -> Grant {
    Grant {
        ticket: "ticket".into(),
        tenant: ScopeId::Agent(1),
        provider: "p".into(),
        path: "/chat/completions".into(),
        upstream_model: "vendor/model".into(),
        output_cap: 7,
        output_cap_param: "max_tokens".into(),
        output_tokens: 7,
        cap_is_ours: true,
        stream_usage: true,
        service_tier: None,
        force_store_off: true,
        knows_store: false,
        hidden_output: false,
        remaining_micro: Some(0),
        warnings: Vec::new(),
        on_disconnect: OnDisconnect::Drain,
        drain_timeout_ms: 0,
        deadline_boot_ms: 0,
        max_response_bytes: 0,
        retry_until_boot_ms: 0,
        first_byte_ms: 0,
        tools: Vec::new(),
    }
}

fn forwarded(body: &str, grant: &Grant) -> String {
    let forwarded = good(body).forwarded(body.as_bytes(), grant);
    String::from_utf8(forwarded).unwrap()
}

#[test]
fn hostile_bodies_are_refused_with_the_place_and_the_reason() {
    let deep = format!("{}1{}", "[".repeat(64), "]".repeat(64));
    let very_deep = format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000));
    let long_model = format!(r#"{{"model":"{}","messages":[{{}}]}}"#, "m".repeat(257));
    for (body, expected) in [
        ("", "|the body is empty"),
        ("[]", "|the body is not a JSON object"),
        ("\"text\"", "|the body is not a JSON object"),
        ("{", "|the body is not a JSON object: EOF"),
        ("{\n  \"model\": }", "line 2 column 12"),
        (
            &format!("{}x", with("")),
            "|the body is not a JSON object: trailing characters",
        ),
        (&format!("{}{{}}", with("")), "trailing characters"),
        (
            r#"{"model":"m","messages":[{}],"model":"n"}"#,
            "duplicate key \"model\"",
        ),
        (
            r#"{"model":"m","messages":[{}],"mod\u0065l":"n"}"#,
            "duplicate key \"model\"",
        ),
        (
            &messages(r#"[{"role":"a","rol\u0065":"b"}]"#),
            "messages[0]|messages[0]: duplicate key",
        ),
        (
            &with(r#","x":{"a":[{"b":1,"b":1}]}"#),
            "x.a[0]|x.a[0]: duplicate key \"b\"",
        ),
        (&with(&format!(r#","x":{deep}"#)), "nested deeper than 64"),
        (
            &with(&format!(r#","x":{very_deep}"#)),
            "nested deeper than 64",
        ),
        (
            &messages(r#"[{"content":"\ud800"}]"#),
            "messages[0].content|",
        ),
        (
            &with(r#","temperature":1e999"#),
            "temperature|temperature: number out of range",
        ),
        (
            &with(r#","temperature":NaN"#),
            "|the body is not a JSON object",
        ),
        (
            &with(r#","temperature":01"#),
            "|the body is not a JSON object",
        ),
        (r#"{"messages":[{}]}"#, "model|model is missing"),
        (
            r#"{"model":null,"messages":[{}]}"#,
            "model|model must be a string",
        ),
        (r#"{"model":"","messages":[{}]}"#, "model|model is empty"),
        (&long_model, "model|model is longer"),
        (r#"{"model":"m"}"#, "messages|messages is missing"),
        (&messages("null"), "messages|messages: must be a list"),
        (&messages("[]"), "messages|messages: must have at least one"),
        (&messages("{}"), "messages|messages: must be a list"),
        (
            &messages(r#"["hi"]"#),
            "messages[0]|messages[0]: must be an object",
        ),
        (&messages(r#"[{},{"content":{}}]"#), "messages[1].content|"),
        (&messages(r#"[{"content":[1]}]"#), "messages[0].content[0]|"),
        (
            &messages(r#"[{"content":[{"type":1}]}]"#),
            "messages[0].content[0].type|",
        ),
        (
            &with(r#","stream":"true""#),
            "stream|stream must be true or false",
        ),
        (&with(r#","stream":1"#), "stream|"),
        (
            &with(r#","n":0"#),
            "n|n must be a whole number from 1 to 128",
        ),
        (&with(r#","n":129"#), "n|"),
        (&with(r#","n":"2""#), "n|"),
        (
            &with(r#","max_tokens":0"#),
            "max_tokens|max_tokens must be a whole number from 1",
        ),
        (&with(r#","max_tokens":-1"#), "max_tokens|"),
        (&with(r#","max_tokens":1.5"#), "max_tokens|"),
        (&with(r#","max_tokens":1e3"#), "max_tokens|"),
        (&with(r#","max_tokens":"5""#), "max_tokens|"),
        (&with(r#","max_tokens":true"#), "max_tokens|"),
        (&with(r#","max_tokens":4294967295"#), "max_tokens|"),
        (
            &with(r#","max_tokens":99999999999999999999999"#),
            "max_tokens|",
        ),
        (
            &with(r#","max_completion_tokens":1e999"#),
            "max_completion_tokens|",
        ),
        (
            &with(r#","max_tokens":5,"max_completion_tokens":5"#),
            "are both set",
        ),
        (
            &with(r#","stream_options":{"include_usage":true}"#),
            "stream_options|",
        ),
        (
            &with(r#","stream":true,"stream_options":{"x":1}"#),
            "stream_options|",
        ),
        (
            &with(r#","stream":true,"stream_options":[true]"#),
            "stream_options|",
        ),
        (
            &with(r#","stream":true,"stream_options":{"include_usage":1}"#),
            "stream_options|",
        ),
        (&with(r#","tools":{}"#), "tools|tools: must be a list"),
        (&with(r#","tools":[{"type":1}]"#), "tools[0].type|"),
        (
            &with(r#","tools":[{"function":{"name":7}}]"#),
            "tools[0].function.name|",
        ),
    ] {
        let refused = refused(body.as_bytes());
        assert!(refused.contains(expected), "{body:.80}: {refused}");
    }
    let mut bytes = with("").into_bytes();
    bytes[30] = 0xff;
    assert!(refused(&bytes).contains("not UTF-8: see byte 30"));
}

#[test]
fn the_deepest_nesting_allowed_is_read() {
    let deep = format!("{}1{}", "[".repeat(63), "]".repeat(63));
    good(&with(&format!(r#","x":{deep}"#)));
}

#[test]
fn the_error_text_repeats_only_a_little_of_the_client() {
    let key = "k".repeat(10_000);
    let error = refused(with(&format!(r#","x":{{"{key}":1,"{key}":2}}"#)).as_bytes());
    assert!(error.len() < 300, "{}", error.len());
}

#[test]
fn too_many_strange_parameters_are_refused() {
    let many: String = (0..33).map(|i| format!(r#","x{i}":1"#)).collect();
    assert!(refused(with(&many).as_bytes()).contains("more than 32"));
    let long = format!(r#","{}":1"#, "y".repeat(65));
    assert!(refused(with(&long).as_bytes()).contains("over 64 bytes"));
}

#[test]
fn parameters_are_sorted_into_known_costly_and_unknown() {
    let costly = |more: &str| good(&with(more)).facts.costly_params;
    let unknown = |more: &str| good(&with(more)).facts.unknown_params;
    for known in [
        r#","temperature":0.5,"top_p":1,"stop":["a"],"logit_bias":{"1":2},"user":"u","seed":1"#,
        r#","presence_penalty":1,"frequency_penalty":1,"logprobs":true,"top_logprobs":3"#,
        r#","parallel_tool_calls":false,"reasoning_effort":"low","verbosity":"low","metadata":{}"#,
        r#","store":true,"service_tier":"flex","safety_identifier":"s","prompt_cache_key":"k""#,
        r#","modalities":["text"]"#,
        r#","modalities":null,"audio":null,"prediction":null,"tools":null,"max_tokens":null"#,
    ] {
        assert_eq!(costly(known), Vec::<String>::new(), "{known}");
        assert_eq!(unknown(known), Vec::<String>::new(), "{known}");
    }
    for name in params_that_cost() {
        assert_eq!(costly(&format!(r#","{name}":1"#)), [name]);
    }
    assert_eq!(costly(r#","modalities":["text","audio"]"#), ["modalities"]);
    // What is no label or figure any more counts as prompt text.
    let counted =
        |more: &str| good(&with(more)).facts.ascii_bytes - good(&with("")).facts.ascii_bytes;
    assert_eq!(
        counted(r#","reasoning_effort":"minimal","stop":["a","b"]"#),
        0
    );
    let long = "word ".repeat(1000);
    for odd in [
        format!(r#","reasoning_effort":"{long}""#),
        format!(r#","verbosity":{{"a":["{long}"]}}"#),
        format!(r#","parallel_tool_calls":["{long}"]"#),
    ] {
        assert!(counted(&odd) >= 5000, "{}", &odd[..40]);
    }
    let hosted = r#","tools":[{"type":"function","function":{"name":"f"}},{"type":"web_search"}]"#;
    assert_eq!(costly(hosted), ["tools[].type web_search"]);
    assert_eq!(unknown(r#","top_k":5,"min_p":1"#), ["top_k", "min_p"]);
}

fn params_that_cost() -> [&'static str; 19] {
    [
        "web_search_options",
        "prediction",
        "audio",
        "best_of",
        "plugins",
        "models",
        "route",
        "transforms",
        "extra_body",
        "options",
        "n_predict",
        "num_predict",
        "min_tokens",
        "ignore_eos",
        "previous_response_id",
        "conversation",
        "prompt",
        "background",
        "prompt_cache_retention",
    ]
}

#[test]
fn the_prompt_is_measured_decoded() {
    let facts = good(&messages(
        r#"[{"role":"user","content":"\u00e9a"},{"content":null}]"#,
    ))
    .facts;
    // role, content, user, a, content; é is two bytes of UTF-8. A null content is no text.
    assert_eq!(facts.ascii_bytes, 4 + 7 + 4 + 1 + 7);
    assert_eq!(
        (facts.other_bytes, facts.messages, facts.choices),
        (2, 2, 1)
    );
    let tools = r#","tools":[{"type":"function","function":{"name":"look","parameters":{"a":1}}}]"#;
    let facts = good(&with(tools)).facts;
    let text = [
        "type",
        "function",
        "function",
        "name",
        "look",
        "parameters",
        "a",
    ];
    let least: usize = text.iter().map(|text| text.len()).sum();
    assert!(facts.tool_bytes >= least as u64, "{}", facts.tool_bytes);
    assert_eq!(facts.tools, ["look"]);
    assert_eq!(facts.output_cap, None);
    assert_eq!(
        good(&with(r#","max_tokens":5,"n":3"#)).facts.output_cap,
        Some(5)
    );
}

#[test]
fn every_name_of_a_tool_is_found() {
    for (more, expected) in [
        (r#","tools":[{"type":"custom","custom":{"name":"c"}}]"#, "c"),
        (r#","tools":[{"type":"function","name":"flat"}]"#, "flat"),
        (r#","functions":[{"name":"f"}]"#, "f"),
        (r#","function_call":{"name":"g"}"#, "g"),
        (
            r#","tool_choice":{"type":"function","function":{"name":"h"}}"#,
            "h",
        ),
        (
            r#","tool_choice":{"type":"allowed_tools","allowed_tools":{"tools":[{"function":{"name":"i"}}]}}"#,
            "i",
        ),
    ] {
        let facts = good(&with(more)).facts;
        let names = if more.contains("_c") {
            facts.chosen_tools
        } else {
            facts.tools
        };
        assert_eq!(names, [expected], "{more}");
    }
    let many: Vec<Value> = (0..1025).map(|i| json!({"name": i.to_string()})).collect();
    let more = format!(r#","functions":{}"#, Value::Array(many));
    assert!(refused(with(&more).as_bytes()).contains("more than 1024 tools"));
}

#[test]
fn a_tool_without_a_name_is_refused() {
    for more in [
        r#","tools":[{"type":"function","function":{}}]"#,
        r#","tools":[{"type":"function","function":{"Name":"evil"}}]"#,
        r#","tools":[{"type":"function"}]"#,
        r#","tools":[{}]"#,
        r#","tools":[{"type":"web_search"},{}]"#,
        r#","functions":[{}]"#,
    ] {
        assert!(
            refused(with(more).as_bytes()).contains("must have a name"),
            "{more}"
        );
    }
    good(&with(
        r#","tools":[{"type":"web_search"},{"type":"web_search"}]"#,
    ));
}

#[test]
fn what_stands_for_more_than_it_shows_is_noted_or_refused() {
    let flat = with(r#","tools":[{"name":"web_search"}]"#);
    assert!(refused(flat.as_bytes()).contains("must have a type"));
    let read_as = |route, body: &str| read(route, body.as_bytes());
    let item = |item: &str| {
        let body = format!(r#"{{"model":"m","input":[{item}]}}"#);
        read_as(Route::Responses, &body).unwrap().facts
    };
    let by_id = item(r#"{"id":"msg_1"}"#);
    assert_eq!(by_id.costly_params, ["input[].type item_reference"]);
    let spoken = item(r#"{"role":"user","content":"hi"}"#);
    assert_eq!((spoken.costly_params.len(), spoken.media), (0, false));
    let part = |kind: &str| {
        let part = format!(r#"{{"type":"{kind}","file_id":"file-1"}}"#);
        item(&format!(r#"{{"role":"user","content":[{part}]}}"#))
    };
    assert!(part("input_text").media);
    let image = part("input_image");
    assert_eq!((image.images, image.media), (1, false));
    let with_suffix = |prompt: &str| {
        let body = format!(r#"{{"model":"m","suffix":"end","prompt":{prompt}}}"#);
        read_as(Route::Completions, &body)
    };
    assert!(with_suffix(r#"["a"]"#).is_ok());
    let many = with_suffix(r#"["a","b"]"#).unwrap_err();
    assert_eq!(many.param.as_deref(), Some("suffix"));
}

#[test]
fn an_echo_comes_back_with_every_choice_whoever_has_the_facts() {
    let echoed = |more: &str| {
        let body = format!(r#"{{"model":"m","prompt":["abc",[1,2]],"n":3{more}}}"#);
        let mut request = read(Route::Completions, body.as_bytes()).unwrap();
        drop(std::mem::take(&mut request.facts));
        request.echoed_tokens
    };
    assert_eq!(echoed(r#","echo":true"#), 15);
    assert_eq!((echoed(r#","echo":false"#), echoed("")), (0, 0));
}

#[test]
fn a_schema_is_measured_as_a_provider_writes_it_again() {
    let bytes = |text: &str| {
        let format = json!({"type": "json_schema", "x": text});
        good(&with(&format!(r#","response_format":{format}"#)))
            .facts
            .tool_bytes
    };
    for text in [
        "\t\n\r\"\\",
        "\u{1}\u{1f}",
        "tok",
        "\u{8}\u{c}",
        "日本\u{7f}",
    ] {
        let written = json!(text).to_string().len() - 2;
        assert_eq!(bytes(text) - bytes(""), written as u64, "{text:?}");
    }
}

#[test]
fn empty_lists_and_objects_are_measured_where_a_provider_may_write_them() {
    let empties = |one: &str| vec![one; 1000].join(",");
    let bytes = |more: &str| {
        let facts = good(&with(more)).facts;
        facts.ascii_bytes + facts.tool_bytes
    };
    for one in ["[]", "{}"] {
        let list = empties(one);
        for more in [
            format!(r#","functions":[{{"name":"f","parameters":{{"enum":[{list}]}}}}]"#),
            format!(r#","response_format":{{"json_schema":{{"enum":[{list}]}}}}"#),
        ] {
            assert!(bytes(&more) >= 3000, "{one}: {}", bytes(&more));
        }
    }
    let calls = format!(
        r#"{{"model":"m","messages":[{{"role":"user","tool_calls":[{}]}}]}}"#,
        empties("{}")
    );
    assert!(good(&calls).facts.ascii_bytes >= 3000);
}

#[test]
fn parts_that_cost_by_item_are_found() {
    for (part, image, media) in [
        (r#"{"type":"text","text":"a"}"#, false, false),
        (
            r#"{"type":"image_url","image_url":{"url":"u"}}"#,
            true,
            false,
        ),
        (r#"{"type":"input_image"}"#, true, false),
        (r#"{"type":"input_image","image_url":null}"#, true, false),
        (r#"{"type":"text","text":"a","image_url":"u"}"#, true, false),
        (r#"{"type":"input_audio","input_audio":{}}"#, false, true),
        (r#"{"type":"file","file":{}}"#, false, true),
        (r#"{"type":"hologram"}"#, false, true),
        (r#"{"text":"a"}"#, false, true),
    ] {
        let facts = good(&messages(&format!(r#"[{{"content":[{part}]}}]"#))).facts;
        assert_eq!(
            (facts.images, facts.media),
            (u64::from(image), media),
            "{part}"
        );
    }
    assert!(good(&messages(r#"[{"audio":{"id":"a"}}]"#)).facts.media);
    assert!(!good(&messages(r#"[{"audio":null}]"#)).facts.media);
}

#[test]
fn the_clients_own_values_are_forwarded_as_they_were_written() {
    let body = r#"{ "seed" : 1.50 , "model":"m", "messages" : [ {"role":"user" , "content":"\u0061"} ],"odd\u006e":{"a" : 1e2}}"#;
    assert_eq!(
        forwarded(body, &grant()),
        r#"{"seed":1.50,"model":"vendor/model","messages":[ {"role":"user" , "content":"\u0061"} ],"oddn":{"a" : 1e2},"max_tokens":7,"store":false}"#
    );
}

#[test]
fn what_aex_sets_is_set_once() {
    let read = |body: &str, grant: &Grant| -> Value {
        // A doubled key would be refused by the same strict reading.
        let out = forwarded(body, grant);
        good(&out);
        serde_json::from_str(&out).unwrap()
    };
    let plain = read(
        &with(r#","max_completion_tokens":100,"store":true"#),
        &grant(),
    );
    assert_eq!(plain["max_tokens"], 7);
    assert_eq!(plain.get("max_completion_tokens"), None);
    assert_eq!(plain["store"], false);
    assert_eq!(plain.get("stream_options"), None);

    let stream =
        r#","stream":true,"stream_options":{"include_usage":false,"include_obfuscation":false}"#;
    let streamed = read(&with(stream), &grant());
    let options = json!({"include_usage": true, "include_obfuscation": false});
    assert_eq!(streamed["stream_options"], options);

    let own_name = Grant {
        output_cap_param: "max_completion_tokens".into(),
        stream_usage: false,
        force_store_off: false,
        service_tier: Some("default".into()),
        ..grant()
    };
    let other = read(
        &with(r#","max_tokens":9,"stream":true,"store":true,"service_tier":"priority""#),
        &own_name,
    );
    assert_eq!(other["max_completion_tokens"], 7);
    assert_eq!(other.get("max_tokens"), None);
    assert_eq!(other["store"], false);
    assert_eq!(other["service_tier"], "default");
    let unknown_provider = Grant {
        force_store_off: false,
        ..grant()
    };
    let tame = read(
        &with(r#","store":true,"service_tier":"priority""#),
        &unknown_provider,
    );
    assert_eq!(tame["store"], false);
    assert_eq!(tame["service_tier"], "default");
    let silent = read(&with(""), &unknown_provider);
    assert_eq!(
        (silent.get("store"), silent.get("service_tier")),
        (None, None)
    );
    assert_eq!(read(&with(""), &grant())["store"], false);
    assert_eq!(other.get("stream_options"), None);
    // A null that costs nothing is not forwarded either: another reader could take it for something.
    assert_eq!(
        read(&with(r#","prediction":null"#), &grant()).get("prediction"),
        None
    );
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(".{0,6}", inner, 0..20)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(Route::ChatCompletions, &body);
    }

    #[test]
    fn any_value_of_an_unknown_field_arrives_unchanged(value in any_json()) {
        let body = with(&format!(r#","strange":{value}"#));
        let out = forwarded(&body, &grant());
        prop_assert!(out.contains(&format!(r#""strange":{value},"#)), "{}", out);
    }

    #[test]
    fn the_measure_bounds_the_text(text in ".*") {
        let content = Value::from(text.as_str());
        let facts = good(&messages(&format!(r#"[{{"content":{content}}}]"#))).facts;
        prop_assert_eq!(facts.ascii_bytes + facts.other_bytes, text.len() as u64 + 7);
    }

    #[test]
    fn messages_of_any_form_never_panic(value in any_json()) {
        let _ = read(Route::ChatCompletions, messages(&value.to_string()).as_bytes());
        let _ = read(Route::ChatCompletions, with(&format!(r#","tools":{value},"tool_choice":{value}"#)).as_bytes());
    }
}

//! What each route reads beside chat: prompts, inputs, items, and what is forwarded of them.

use aex_admin_proto::worker::{Grant, OnDisconnect};
use serde_json::{Value, json};

use super::*;

fn good(route: Route, body: &Value) -> ApiRequest {
    let text = body.to_string();
    read(route, text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The parameter to blame, then the message.
fn refused(route: Route, body: &Value) -> String {
    let text = body.to_string();
    let error = read(route, text.as_bytes()).expect_err(&text);
    format!("{}|{}", error.param.unwrap_or_default(), error.message)
}

fn grant(route: Route) -> Grant {
    Grant {
        ticket: "ticket".into(),
        tenant: aex_admin_proto::scope::ScopeId::Agent(1),
        provider: "p".into(),
        path: route.path().into(),
        upstream_model: "vendor/model".into(),
        output_cap: if route.generates() { 7 } else { 0 },
        output_cap_param: "the_cap".into(),
        output_tokens: 7,
        cap_is_ours: true,
        stream_usage: true,
        service_tier: None,
        force_store_off: false,
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

fn forwarded(route: Route, body: &Value, grant: &Grant) -> Value {
    let text = body.to_string();
    let bytes = good(route, body).forwarded(text.as_bytes(), grant);
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn prompts_and_tokens_are_counted_in_every_form() {
    for (prompt, prompts, token_ids, ascii_bytes) in [
        (json!("four"), 1, 0, 4),
        (json!(["a", "bc"]), 2, 0, 3),
        (json!([1, 2, 3]), 1, 3, 0),
        (json!([[1, 2], [3]]), 2, 3, 0),
        (json!([[1, 2], "a"]), 2, 2, 1),
    ] {
        for (route, name) in [(Route::Completions, "prompt"), (Route::Embeddings, "input")] {
            let facts = good(route, &json!({"model": "m", name: prompt})).facts;
            assert_eq!(
                (facts.prompts, facts.token_ids, facts.ascii_bytes),
                (prompts, token_ids, ascii_bytes),
                "{prompt}"
            );
        }
    }
    let many = |count: usize| json!({"model": "m", "input": vec!["a"; count]});
    assert_eq!(good(Route::Embeddings, &many(2048)).facts.prompts, 2048);
    for (prompt, expected) in [
        (json!([]), "prompt|prompt: must not be empty"),
        (json!([[]]), "prompt[0]|prompt[0]: must not be empty"),
        (json!({}), "prompt|prompt: must be a string, a list"),
        (json!(5), "prompt|prompt: must be"),
        (json!(null), "prompt|prompt: must be"),
        (json!(["a", 5]), "prompt|prompt: mixes tokens"),
        (json!([5, "a"]), "prompt|prompt: mixes tokens"),
        (json!([5, [6]]), "prompt|prompt: mixes tokens"),
        (json!([-1]), "prompt[0]|prompt[0]: must be"),
        (json!([1.5]), "prompt[0]|prompt[0]: must be"),
        (json!([true]), "prompt[0]|prompt[0]: must be"),
        (json!([4_294_967_296_u64]), "prompt[0]|prompt[0]: must be"),
        (json!([["a"]]), "prompt[0][0]|"),
        (json!([[[1]]]), "prompt[0][0]|"),
        (json!([{"a": 1}]), "prompt[0]|"),
    ] {
        let told = refused(Route::Completions, &json!({"model": "m", "prompt": prompt}));
        assert!(told.starts_with(expected), "{prompt}: {told}");
    }
    let told = refused(Route::Embeddings, &many(2049));
    assert!(told.contains("more than 2048"), "{told}");
}

#[test]
fn answers_are_as_many_as_the_larger_of_n_and_best_of() {
    let choices = |n: Value, best_of: Value| {
        let body = json!({"model": "m", "prompt": "p", "n": n, "best_of": best_of});
        good(Route::Completions, &body).facts.choices
    };
    assert_eq!(choices(json!(2), json!(5)), 5);
    assert_eq!(choices(json!(6), json!(5)), 6);
    assert_eq!(choices(json!(null), json!(null)), 1);
}

#[test]
fn a_responses_input_is_measured_item_by_item() {
    let facts = |input: Value| good(Route::Responses, &json!({"model": "m", "input": input})).facts;
    let plain = facts(json!("hello"));
    assert_eq!((plain.messages, plain.ascii_bytes), (1, 5));
    let items = facts(json!([
        {"role": "user", "content": "hi"},
        {"type": "message", "role": "user", "content": [
            {"type": "input_text", "text": "look"},
            {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"},
        ]},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "s"}],
         "encrypted_content": "abc"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "42"},
    ]));
    assert_eq!((items.messages, items.images, items.media), (5, 1, false));
    assert!(items.costly_params.is_empty());
    let counted = |text: &str| facts(json!([{"role": "user", "content": text}])).ascii_bytes;
    assert_eq!(counted("12345") - counted("1"), 4);
    for (item, costly) in [
        (
            json!({"type": "item_reference", "id": "msg_1"}),
            "input[].type item_reference",
        ),
        (
            json!({"type": "computer_call_output"}),
            "input[].type computer_call_output",
        ),
    ] {
        assert_eq!(facts(json!([item])).costly_params, [costly]);
    }
    let file = json!([{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]);
    assert!(facts(file).media);
    let told = json!({"model": "m", "input": "hi", "instructions": "be brief"});
    let told = good(Route::Responses, &told).facts;
    assert_eq!((told.messages, told.ascii_bytes), (2, 10));
    for input in [json!([]), json!(null), json!({}), json!(5), json!(["hi"])] {
        refused(Route::Responses, &json!({"model": "m", "input": input}));
    }
}

#[test]
fn a_route_does_not_take_the_parameters_of_another() {
    for (route, prompt, foreign) in [
        (Route::Completions, "prompt", "max_completion_tokens"),
        (Route::Completions, "prompt", "max_output_tokens"),
        (Route::Completions, "prompt", "service_tier"),
        (Route::Embeddings, "input", "max_tokens"),
        (Route::Embeddings, "input", "n"),
        (Route::Responses, "input", "max_tokens"),
        (Route::Responses, "input", "n"),
        (Route::Responses, "input", "best_of"),
        (Route::Responses, "input", "prompt"),
        (Route::Responses, "input", "previous_response_id"),
        (Route::Responses, "input", "conversation"),
        (Route::Responses, "input", "background"),
    ] {
        let facts = good(route, &json!({"model": "m", prompt: "p", foreign: 5})).facts;
        assert_eq!(facts.costly_params, [foreign], "{route:?}");
        assert_eq!((facts.output_cap, facts.choices), (None, 1));
    }
    let facts = good(
        Route::Responses,
        &json!({"model": "m", "input": "p", "tools": [{"type": "web_search"}, {"type": "mcp"}]}),
    )
    .facts;
    let hosted = ["tools[].type web_search", "tools[].type mcp"];
    assert_eq!(facts.costly_params, hosted);
    let unknown = good(
        Route::Embeddings,
        &json!({"model": "m", "input": "p", "stream": true}),
    );
    assert_eq!(unknown.facts.unknown_params, ["stream"]);
    assert!(!unknown.stream);
}

#[test]
fn one_cap_is_forwarded_and_none_where_nothing_is_generated() {
    let body = json!({"model": "m", "prompt": "p", "max_tokens": 7, "echo": true, "stream": true});
    let out = forwarded(Route::Completions, &body, &grant(Route::Completions));
    let expected = json!({"model": "vendor/model", "prompt": "p", "echo": true, "stream": true,
        "the_cap": 7, "stream_options": {"include_usage": true}});
    assert_eq!(out, expected);

    let body = json!({"model": "m", "input": ["p"], "dimensions": 8});
    let out = forwarded(Route::Embeddings, &body, &grant(Route::Embeddings));
    let expected = json!({"model": "vendor/model", "input": ["p"], "dimensions": 8});
    assert_eq!(out, expected);

    let body = json!({"model": "m", "input": "p", "max_output_tokens": 7, "stream": true,
        "store": true, "service_tier": "priority"});
    let out = forwarded(Route::Responses, &body, &grant(Route::Responses));
    let expected = json!({"model": "vendor/model", "input": "p", "the_cap": 7, "stream": true,
        "store": false, "service_tier": "default"});
    assert_eq!(out, expected, "the Responses API always tells its usage");
}

#[test]
fn reasoning_comes_back_encrypted_where_nothing_is_stored() {
    let terms = |hidden_output| Grant {
        force_store_off: true,
        knows_store: true,
        hidden_output,
        ..grant(Route::Responses)
    };
    let include = |asked: Value, grant: &Grant| {
        let body = json!({"model": "m", "input": "p", "include": asked});
        forwarded(Route::Responses, &body, grant)["include"].clone()
    };
    let encrypted = "reasoning.encrypted_content";
    assert_eq!(include(json!([]), &terms(true)), json!([encrypted]));
    assert_eq!(include(json!(null), &terms(true)), json!([encrypted]));
    assert_eq!(
        include(json!(["a", encrypted]), &terms(true)),
        json!(["a", encrypted])
    );
    assert_eq!(include(json!(["a"]), &terms(true)), json!(["a", encrypted]));
    assert_eq!(include(json!(["a"]), &terms(false)), json!(["a"]));
    let unknown = Grant {
        knows_store: false,
        ..terms(true)
    };
    assert_eq!(include(json!(["a"]), &unknown), json!(["a"]));
    let kept = json!({"model": "m", "input": "p", "store": true});
    let kept = forwarded(Route::Responses, &kept, &unknown);
    assert_eq!(
        (&kept["store"], &kept["include"]),
        (&json!(false), &json!([encrypted]))
    );
    for wrong in [json!("a"), json!([1]), json!({}), json!(["x".repeat(65)])] {
        let body = json!({"model": "m", "input": "p", "include": wrong});
        assert!(refused(Route::Responses, &body).starts_with("include|"));
    }
}

#[test]
fn a_count_takes_text_and_tools_apart() {
    let measured = |route, body: &Value| {
        let tokenizer = Tokenizer::named("o200k_base").unwrap();
        measure(route, body.to_string().as_bytes(), tokenizer).unwrap()
    };
    let text = "The quick brown fox jumps over the lazy dog.";
    let chat = json!({"model": "m", "messages": [{"role": "user", "content": text}]});
    // Ten of the text, one of its role; the frame's own keys are in the template.
    assert_eq!(
        measured(Route::ChatCompletions, &chat),
        Measured { text: 11, tools: 0 }
    );
    let many = json!({"model": "m", "prompt": [text, text]});
    assert_eq!(
        measured(Route::Completions, &many),
        Measured { text: 20, tools: 0 }
    );
    let tools = json!({"model": "m", "input": text, "tools": [
        {"type": "function", "name": "f", "parameters": {"type": "object"}}]});
    let counted = measured(Route::Responses, &tools);
    assert_eq!(counted.text, 10);
    assert!((10..40).contains(&counted.tools), "{counted:?}");
}

#[test]
fn a_reference_to_reasoning_that_nobody_kept_is_left_out_and_told() {
    let said = json!({"role": "user", "content": "hi"});
    let call = json!({"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"});
    let body = json!({"model": "m", "input": [said, {"type": "item_reference", "id": "rs_1"}, call, {"id": "rs_2"}]});
    let request = good(Route::Responses, &body);
    assert_eq!(request.left_out, [1, 3]);
    assert!(request.facts.costly_params.is_empty());
    let out = forwarded(Route::Responses, &body, &grant(Route::Responses));
    assert_eq!(out["input"], json!([said, call]));
    let text = json!({"model": "m", "input": [said, {"type": "item_reference", "id": "msg_1"}]});
    assert_eq!(good(Route::Responses, &text).left_out, [0; 0]);
}

#[test]
fn each_way_in_which_a_part_names_an_image_is_one() {
    let read_part = |part: Value| {
        let body = json!({"model": "m", "input": [{"role": "user", "content": [part]}]});
        read(Route::Responses, body.to_string().as_bytes())
    };
    let images = |part: Value| read_part(part).unwrap().facts.images;
    assert_eq!(images(json!({"type": "input_image", "image_url": "u"})), 1);
    assert_eq!(
        images(json!({"type": "input_image", "image_url": "u", "file_id": "f"})),
        2
    );
    assert_eq!(
        images(json!({"type": "image_url", "image_url": {"url": "u", "detail": "high"}})),
        1
    );
    assert_eq!(
        images(json!({"type": "image_url", "image_url": {"url": "u"}, "image": "v"})),
        2
    );
    assert_eq!(
        images(json!({"type": "image_url", "image_url": {"url": "u", "file_id": "f"}})),
        2
    );
    for several in [
        json!(["u", "v"]),
        json!({"url": ["u", "v"]}),
        json!({"url": {"u": "v"}}),
        json!(5),
    ] {
        assert!(read_part(json!({"type": "image_url", "image_url": several})).is_err());
    }
    let spoken = json!({"type": "image_url", "image_url": {"url": "u", "prompt": "many words"}});
    let silent = json!({"type": "image_url", "image_url": {"url": "u"}});
    let bytes = |part: Value| read_part(part).unwrap().facts.ascii_bytes;
    assert!(bytes(spoken) >= bytes(silent) + 16);
}

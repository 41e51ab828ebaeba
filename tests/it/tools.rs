//! Capabilities one by one, and each way to smuggle a tool past its rules: in the request, and in the
//! answer, plain and streamed.

use aex_tests::harness::Kernel;
use aex_tests::http::Response;
use aex_tests::sim::{Behaviour, Sim, ToolCall};
use serde_json::{Value, json};

use crate::common::{assert_error, bill_pico, sim, spent_pico};

const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/v1/responses";
/// On this machine and free: hosted tools and media are let through to it.
const MODEL: &str = "sim-free";

#[expect(clippy::needless_pass_by_value, reason = "callers write json!({...})")]
fn body(route: &str, more: Value) -> Value {
    let mut body = match route {
        CHAT => json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}),
        RESPONSES => json!({"input": "hi", "max_output_tokens": 20}),
        "/v1/completions" => json!({"prompt": "hi", "max_tokens": 20}),
        _ => json!({"input": "hi"}),
    };
    body["model"] = json!(MODEL);
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn function(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}})
}

fn flat(name: &str) -> Value {
    json!({"type": "function", "name": name, "parameters": {"type": "object"}})
}

fn said(part: Value) -> Value {
    json!({"messages": [{"role": "user", "content": [part]}]})
}

#[track_caller]
fn assert_forbidden(answer: &Response, capability: &str) {
    assert_error(answer, 403, "capability_not_allowed");
    let told = format!("Capability not allowed: {capability}");
    assert_eq!(answer.detail(), told);
}

struct Case {
    what: &'static str,
    route: &'static str,
    more: Value,
    told: &'static str,
}

fn case(what: &'static str, route: &'static str, more: Value, told: &'static str) -> Case {
    Case {
        what,
        route,
        more,
        told,
    }
}

/// Each is refused, and the provider hears nothing of it.
fn all_refused(kernel: &Kernel, sim: &Sim, token: &str, cases: &[Case]) {
    let before = sim.bill().log.len();
    for Case {
        what,
        route,
        more,
        told,
    } in cases
    {
        let answer = kernel.post(route, token, &body(route, more.clone()));
        assert_eq!(answer.status, 403, "{what}: {}", answer.text());
        assert_forbidden(&answer, told);
    }
    assert_eq!(sim.bill().log.len(), before);
}

#[test]
fn each_capability_has_a_request_that_it_refuses_and_one_that_it_lets_go() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let audio =
        said(json!({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}));
    let file = said(json!({"type": "file", "file": {"file_id": "file-1"}}));
    let image =
        said(json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}));
    let tools = json!({"tools": [function("f")]});
    let form = json!({"response_format": {"type": "json_object"}});
    for (options, route, refused, told, allowed) in [
        ("--allowed-providers si*", CHAT, None, "", json!({})),
        (
            "--allowed-routes embeddings",
            CHAT,
            Some(json!({})),
            "route chat_completions",
            json!(null),
        ),
        (
            "--allowed-routes chat-completions",
            CHAT,
            None,
            "",
            json!({}),
        ),
        (
            "--no-streaming",
            CHAT,
            Some(json!({"stream": true})),
            "streaming",
            json!({}),
        ),
        (
            "--no-tools",
            CHAT,
            Some(tools.clone()),
            "tools",
            form.clone(),
        ),
        (
            "--allowed-tools a,f_*",
            CHAT,
            Some(tools.clone()),
            "tool f",
            json!({"tools": [function("f_1"), function("a")]}),
        ),
        (
            "--denied-tools f*",
            CHAT,
            Some(tools.clone()),
            "tool f",
            json!({"tools": [function("a")]}),
        ),
        (
            "--no-hosted-tools",
            CHAT,
            Some(json!({"web_search_options": {}})),
            "hosted tool web_search_options",
            tools.clone(),
        ),
        (
            "--no-vision",
            CHAT,
            Some(image.clone()),
            "vision",
            json!({}),
        ),
        (
            "--no-audio",
            CHAT,
            Some(audio.clone()),
            "audio",
            image.clone(),
        ),
        (
            "--no-files",
            CHAT,
            Some(file.clone()),
            "files",
            audio.clone(),
        ),
        (
            "--no-structured-output",
            CHAT,
            Some(form),
            "structured output",
            json!({"response_format": {"type": "text"}}),
        ),
        (
            "--no-structured-output",
            RESPONSES,
            Some(json!({"text": {"format": {"type": "json_schema"}}})),
            "structured output",
            json!({"text": {"verbosity": "low"}}),
        ),
        (
            "--no-parallel-tool-calls",
            CHAT,
            Some(json!({"tools": [function("f")], "parallel_tool_calls": true})),
            "parallel tool calls",
            tools.clone(),
        ),
        (
            "--max-choices 2",
            CHAT,
            Some(json!({"n": 3})),
            "choices above 2",
            json!({"n": 2}),
        ),
        (
            "--max-choices 2",
            "/v1/completions",
            Some(json!({"best_of": 3})),
            "choices above 2",
            json!({"best_of": 2}),
        ),
        (
            "--temperature 0.2..1.5",
            CHAT,
            Some(json!({"temperature": 1.5001})),
            "temperature outside 0.2..1.5",
            json!({"temperature": 1.5}),
        ),
        (
            "--temperature 0.2..1.5",
            RESPONSES,
            Some(json!({"temperature": 0})),
            "temperature outside 0.2..1.5",
            json!({}),
        ),
        (
            "--temperature ..1",
            "/v1/completions",
            Some(json!({"temperature": 2})),
            "temperature outside ..1",
            json!({"temperature": 1}),
        ),
    ] {
        let name = format!(
            "agent-{}",
            kernel.sqlite_number("SELECT COUNT(*) FROM agents")
        );
        let words: Vec<&str> = options.split(' ').collect();
        let token = kernel.create_agent(&name, "1.00", 1000, &words);
        if let Some(refused) = refused {
            let answer = kernel.post(route, &token, &body(route, refused));
            assert_eq!(answer.status, 403, "{options}: {}", answer.text());
            assert_forbidden(&answer, told);
        }
        if !allowed.is_null() {
            let answer = kernel.post(route, &token, &body(route, allowed));
            assert_eq!(answer.status, 200, "{options}: {}", answer.text());
        }
    }
}

#[test]
fn a_setting_is_shown_changed_and_cleared_and_a_useless_one_refused() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent(
        "a",
        "1.00",
        1000,
        &["--allowed-models", "sim-*", "--max-choices", "1"],
    );
    assert_eq!(
        kernel.agent("a")["settings"]["capabilities"],
        json!({"max_choices": 1})
    );
    let two = body(CHAT, json!({"n": 2}));
    assert_forbidden(&kernel.chat(&token, &two), "choices above 1");
    let other = json!({"model": "gpt-oss-20b", "messages": [{"role": "user", "content": "hi"}]});
    assert_error(&kernel.chat(&token, &other), 403, "model_not_allowed");
    let changed = kernel.aex_json(&[
        "agent",
        "set",
        "a",
        "--clear",
        "max-choices",
        "--temperature",
        "0..1",
    ]);
    assert_eq!(
        changed["settings"]["capabilities"],
        json!({"min_temperature_milli": 0, "max_temperature_milli": 1000})
    );
    assert_eq!(kernel.chat(&token, &two).status, 200);
    kernel.sqlite("UPDATE agents SET capabilities = '{\"max_choices\":1}' WHERE name = 'a'");
    assert_forbidden(&kernel.chat(&token, &two), "choices above 1");
    kernel.sqlite("UPDATE agents SET capabilities = '{\"max_chioces\":1}' WHERE name = 'a'");
    assert!(
        kernel.chat(&token, &two).status >= 500,
        "what cannot be read lets nothing through"
    );
    kernel.sqlite("UPDATE agents SET capabilities = NULL WHERE name = 'a'");
    assert_eq!(kernel.chat(&token, &two).status, 200);
    for (option, value) in [
        ("--allowed-models", "gpt-9*"),
        ("--allowed-providers", "nobody"),
        ("--allowed-tools", "sp@m"),
        ("--denied-tools", "é*"),
    ] {
        let output = kernel.aex(&["agent", "set", "a", option, value]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && text.contains("match"),
            "{option}: {text}"
        );
    }
    let both = [
        "agent",
        "set",
        "a",
        "--allowed-tools",
        "rm_all",
        "--denied-tools",
        "RM_*",
    ];
    assert!(!kernel.aex(&both).status.success());
    let listed = kernel.aex_json(&["agent", "set", "a", "--allowed-providers", "sim"]);
    assert_eq!(
        listed["settings"]["capabilities"]["allowed_providers"],
        json!(["sim"])
    );
    kernel.audit();
}

#[test]
fn each_way_to_offer_a_tool_in_a_request_is_seen() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1000, &["--allowed-tools", "good,get_*"]);
    let with = |other: Value| json!({"tools": [function("good"), other]});
    let cases = [
        case("a function", CHAT, with(function("evil")), "tool evil"),
        case(
            "functions of before",
            CHAT,
            json!({"functions": [{"name": "evil"}]}),
            "tool evil",
        ),
        case(
            "the Responses form",
            RESPONSES,
            json!({"tools": [flat("evil")]}),
            "tool evil",
        ),
        case(
            "the Responses form on the chat route",
            CHAT,
            json!({"tools": [flat("evil")]}),
            "tool evil",
        ),
        case(
            "the chat form on the Responses route",
            RESPONSES,
            json!({"tools": [function("evil")]}),
            "tool evil",
        ),
        case(
            "a custom tool",
            CHAT,
            with(json!({"type": "custom", "custom": {"name": "evil"}})),
            "tool evil",
        ),
        case(
            "a custom tool of Responses",
            RESPONSES,
            json!({"tools": [{"type": "custom", "name": "evil"}]}),
            "tool evil",
        ),
        case(
            "two names at once",
            CHAT,
            with(json!({"type": "function", "function": {"name": "good"}, "name": "evil"})),
            "tool evil",
        ),
        case(
            "a hosted search",
            RESPONSES,
            json!({"tools": [{"type": "web_search"}]}),
            "tool web_search",
        ),
        case(
            "a hosted search of a version",
            RESPONSES,
            json!({"tools": [{"type": "web_search_preview_2025_03_11"}]}),
            "tool web_search_preview_2025_03_11",
        ),
        case(
            "file search",
            RESPONSES,
            json!({"tools": [{"type": "file_search", "vector_store_ids": []}]}),
            "tool file_search",
        ),
        case(
            "code",
            RESPONSES,
            json!({"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]}),
            "tool code_interpreter",
        ),
        case(
            "MCP",
            RESPONSES,
            json!({"tools": [{"type": "mcp", "server_label": "s", "server_url": "https://x.test"}]}),
            "tool mcp",
        ),
        case(
            "a computer",
            RESPONSES,
            json!({"tools": [{"type": "computer_use_preview"}]}),
            "tool computer_use_preview",
        ),
        case(
            "images",
            RESPONSES,
            json!({"tools": [{"type": "image_generation"}]}),
            "tool image_generation",
        ),
        case(
            "a shell",
            RESPONSES,
            json!({"tools": [{"type": "local_shell"}]}),
            "tool local_shell",
        ),
        case(
            "a hosted type that bears an allowed name",
            CHAT,
            with(json!({"type": "mcp", "name": "good"})),
            "tool mcp",
        ),
        case(
            "search by its options",
            CHAT,
            json!({"web_search_options": {}}),
            "tool web_search_options",
        ),
        case(
            "plugins",
            CHAT,
            json!({"plugins": [{"id": "web"}]}),
            "tool plugins",
        ),
        case(
            "an unknown parameter of tools",
            CHAT,
            json!({"tool_config": {"x": 1}}),
            "tool tool_config",
        ),
        case(
            "tools on a route without them",
            "/v1/completions",
            json!({"tools": [function("evil")]}),
            "tool tools",
        ),
        case(
            "functions on the Responses route",
            RESPONSES,
            json!({"functions": [{"name": "evil"}]}),
            "tool functions",
        ),
        case(
            "a template's own tools",
            CHAT,
            json!({"chat_template_kwargs": {"tools": []}}),
            "tool tools (inside another field)",
        ),
        case(
            "a choice of one that is not offered",
            CHAT,
            json!({"tools": [function("good")], "tool_choice": function("get_it")}),
            "tool get_it",
        ),
        case(
            "a choice of one that is not allowed",
            CHAT,
            json!({"tools": [function("good")], "tool_choice": function("evil")}),
            "tool evil",
        ),
        case(
            "a choice as a text",
            CHAT,
            json!({"tools": [function("good")], "tool_choice": "evil"}),
            "tool evil",
        ),
        case(
            "a choice among allowed tools",
            RESPONSES,
            json!({"tools": [flat("good")], "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [flat("evil")]}}),
            "tool evil",
        ),
        case(
            "a choice by type",
            RESPONSES,
            json!({"tools": [flat("good")], "tool_choice": {"type": "web_search"}}),
            "tool web_search",
        ),
        case(
            "function_call",
            CHAT,
            json!({"functions": [{"name": "good"}], "function_call": {"name": "evil"}}),
            "tool evil",
        ),
        case(
            "another case",
            CHAT,
            json!({"tools": [function("GOOD")]}),
            "tool GOOD",
        ),
        case(
            "a Cyrillic letter",
            CHAT,
            json!({"tools": [function("g\u{43e}od")]}),
            r"tool g\u{43e}od",
        ),
        case(
            "full-width letters",
            CHAT,
            json!({"tools": [function("\u{ff47}ood")]}),
            r"tool \u{ff47}ood",
        ),
        case(
            "an invisible letter",
            CHAT,
            json!({"tools": [function("good\u{200b}")]}),
            r"tool good\u{200b}",
        ),
        case(
            "a control character",
            CHAT,
            json!({"tools": [function("good\u{0}")]}),
            r"tool good\u{0}",
        ),
        case(
            "a space",
            CHAT,
            json!({"tools": [function(" good")]}),
            "tool  good",
        ),
    ];
    all_refused(&kernel, &sim, &token, &cases);
    for (route, more) in [
        (
            CHAT,
            json!({"tools": [function("good"), function("get_x")], "tool_choice": function("get_x")}),
        ),
        (
            RESPONSES,
            json!({"tools": [flat("good")], "tool_choice": "required"}),
        ),
        (
            CHAT,
            json!({"messages": [
            {"role": "assistant", "content": null, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "evil", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "c", "content": "x"}]}),
        ),
    ] {
        let answer = kernel.post(route, &token, &body(route, more));
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

#[test]
fn a_denied_tool_is_denied_in_each_spelling() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent(
        "a",
        "1.00",
        1000,
        &["--denied-tools", "delete_*,web_search"],
    );
    let cases = [
        case(
            "as it is",
            CHAT,
            json!({"tools": [function("delete_all")]}),
            "tool delete_all",
        ),
        case(
            "another case",
            CHAT,
            json!({"tools": [function("Delete_All")]}),
            "tool Delete_All",
        ),
        case(
            "a look-alike",
            CHAT,
            json!({"tools": [function("d\u{435}lete_all")]}),
            r"tool d\u{435}lete_all",
        ),
        case(
            "an escape in its JSON",
            RESPONSES,
            json!({"tools": [flat("delete\u{5f}all")]}),
            "tool delete_all",
        ),
        case(
            "a version",
            RESPONSES,
            json!({"tools": [{"type": "web_search_preview"}]}),
            "tool web_search_preview",
        ),
        case(
            "its options",
            CHAT,
            json!({"web_search_options": {}}),
            "tool web_search_options",
        ),
    ];
    all_refused(&kernel, &sim, &token, &cases);
    let others = body(CHAT, json!({"tools": [function("undelete_all")]}));
    assert_eq!(kernel.chat(&token, &others).status, 200);
}

#[test]
fn forbidden_tools_are_cut_out_where_that_is_the_rule() {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let options = [
        "--allowed-tools",
        "good",
        "--no-parallel-tool-calls",
        "--on-forbidden-tool",
        "strip",
    ];
    let token = kernel.create_agent("a", "1.00", 1000, &options);
    let sent = |route: &str, more: Value| {
        let answer = kernel.post(route, &token, &body(route, more));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let told = answer
            .header("x-aex-left-out")
            .unwrap_or_default()
            .to_owned();
        (sim.bill().log.last().unwrap().body.clone(), told)
    };
    let (received, told) = sent(
        CHAT,
        json!({"tools": [function("evil"), function("good")], "tool_choice": "auto", "web_search_options": {}}),
    );
    assert_eq!(received["tools"], json!([function("good")]));
    assert_eq!(received["parallel_tool_calls"], false);
    assert!(received.get("web_search_options").is_none());
    assert_eq!(told, "tools[0],web_search_options");
    let (received, told) = sent(
        RESPONSES,
        json!({"tools": [{"type": "web_search"}], "tool_choice": "required"}),
    );
    for gone in ["tools", "tool_choice", "parallel_tool_calls"] {
        assert!(received.get(gone).is_none(), "{gone}");
    }
    assert_eq!(told, "tools[0]");
    let (received, told) = sent(
        CHAT,
        json!({"functions": [{"name": "evil"}, {"name": "good"}]}),
    );
    assert_eq!(received["functions"], json!([{"name": "good"}]));
    assert_eq!(told, "functions[0]");
    // A priced model refuses hosted tools, but not those that it never sees.
    let (received, _) = sent(
        RESPONSES,
        json!({"model": "gpt-oss-20b", "tools": [{"type": "mcp"}, flat("good")]}),
    );
    assert_eq!(received["tools"], json!([flat("good")]));
    all_refused(
        &kernel,
        &sim,
        &token,
        &[
            case(
                "a choice of what is cut out",
                CHAT,
                json!({"tools": [function("evil"), function("good")], "tool_choice": function("evil")}),
                "tool evil",
            ),
            case(
                "an unknown parameter",
                CHAT,
                json!({"tool_config": {}}),
                "tool tool_config",
            ),
        ],
    );
}

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
        for cut_name in [true, false] {
            behave(
                &sim,
                ToolCall {
                    cut_name,
                    ..calls("good")
                },
            );
            assert_eq!(texts(&ruled, route), texts(&free, route));
            let answer = kernel.post(route, &ruled, &offering(route, false));
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert!(answer.text().contains("secret"));
        }
        behave(&sim, calls("evil"));
        assert!(
            texts(&free, route).concat().contains("evil"),
            "no rule, no reading"
        );
    }
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

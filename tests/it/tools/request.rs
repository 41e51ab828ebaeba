//! Each way to offer a tool in a request.

use aex_tests::harness::Kernel;
use serde_json::{Value, json};

use super::{CHAT, RESPONSES, all_refused, body, case, flat, function};
use crate::common::sim;

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

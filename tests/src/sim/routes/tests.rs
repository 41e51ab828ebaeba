use serde_json::{Value, json};

use super::super::behaviour::{NATURAL_TOKENS, Tokenizer, ToolCall};
use super::super::plan::TOKEN_TEXT;
use super::*;

const ALL: [Route; 4] = [
    Route::Chat,
    Route::Completions,
    Route::Embeddings,
    Route::Responses,
];

fn none() -> Behaviour {
    Behaviour::default()
}

/// A short request of each route; `more` is laid over it.
#[expect(clippy::needless_pass_by_value, reason = "callers write json!({...})")]
fn hello(route: Route, more: Value) -> Value {
    let text = "hello there, 42";
    let mut body = match route {
        Route::Chat => json!({"messages": [{"role": "user", "content": text}]}),
        Route::Completions => json!({"prompt": text}),
        Route::Embeddings | Route::Responses => json!({"input": text}),
    };
    body["model"] = json!("m");
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn with<T>(
    route: Route,
    body: &Value,
    behaviour: &Behaviour,
    then: impl FnOnce(&Exchange<'_>) -> T,
) -> Result<T, Refusal> {
    let mut bytes = body.to_string().into_bytes();
    let mut knobs = Knobs::default();
    if behaviour.greedy {
        (knobs, bytes) = route.take_knobs(&bytes)?;
    }
    route
        .read(&bytes, behaviour, &knobs, 1)
        .map(|exchange| then(&exchange))
}

#[track_caller]
fn plan(route: Route, body: &Value, behaviour: &Behaviour) -> Plan {
    with(route, body, behaviour, |exchange| exchange.plan.clone()).unwrap()
}

#[track_caller]
fn plain(route: Route, body: &Value, behaviour: &Behaviour) -> Value {
    let bytes = with(route, body, behaviour, |exchange| route.plain(exchange)).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

/// The events' data, `[DONE]` and comments as strings; and the output tokens that they bill.
#[track_caller]
fn events(route: Route, body: &Value, behaviour: &Behaviour) -> (Vec<Value>, u64) {
    let mut body = body.clone();
    body["stream"] = json!(true);
    let script = with(route, &body, behaviour, |exchange| {
        route.script_if_streamed(exchange).unwrap()
    });
    let mut billed = 0;
    let events = script.unwrap().map(|event| {
        billed += event.tokens;
        let text = String::from_utf8(event.bytes.to_vec()).unwrap();
        let text = text.strip_suffix("\n\n").unwrap();
        let data = match text.split_once('\n') {
            Some((name, data)) => {
                let data = data.strip_prefix("data: ").unwrap();
                let value: Value = serde_json::from_str(data).unwrap();
                assert_eq!(name, format!("event: {}", value["type"].as_str().unwrap()));
                return value;
            }
            None => text.strip_prefix("data: ").unwrap_or(text),
        };
        serde_json::from_str(data).unwrap_or_else(|_| Value::from(data))
    });
    (events.collect(), billed)
}

/// The chunks' texts of one choice, put together; a call's arguments where there is one.
fn joined(events: &[Value], index: u64) -> String {
    let choices = events
        .iter()
        .flat_map(|event| event["choices"].as_array().into_iter().flatten())
        .filter(|choice| choice["index"] == index);
    choices
        .filter_map(|choice| {
            let delta = &choice["delta"];
            let call = &delta["tool_calls"][0]["function"]["arguments"];
            [&choice["text"], &delta["content"], call]
                .into_iter()
                .find_map(Value::as_str)
        })
        .collect()
}

fn tool_call() -> Behaviour {
    Behaviour {
        tool_call: Some(ToolCall {
            name: "now".into(),
            arguments: json!({"zone": "UTC, \"exactly\""}),
            ..ToolCall::default()
        }),
        ..none()
    }
}

#[test]
fn messages_parts_and_tools_are_counted() {
    let chat = |more| plan(Route::Chat, &hello(Route::Chat, more), &none()).prompt;
    assert_eq!(chat(json!({})), 3 + 4 + 5);
    let parts = json!([{"type": "text", "text": "hello \"there\""}, {"image_url": {"url": ""}}]);
    let parts = json!([{"role": "user", "content": parts}]);
    assert_eq!(chat(json!({"messages": parts})), 3 + 4 + 4 + 85);
    assert_eq!(
        chat(json!({"tools": [{"type": "function"}]})),
        3 + 4 + 5 + 3
    );
    let items = json!([
        {"role": "user", "content": [{"type": "input_text", "text": "hello"}]},
        {"type": "function_call", "name": "now", "arguments": "{}"},
        {"type": "function_call_output", "output": "noon"},
    ]);
    let body = hello(
        Route::Responses,
        json!({"input": items, "instructions": "be brief"}),
    );
    assert_eq!(
        plan(Route::Responses, &body, &none()).prompt,
        3 + 4 * 4 + 1 + 3 + 1 + 2
    );
}

#[test]
fn prompts_and_inputs_may_be_lists_and_tokens() {
    for (given, tokens, count) in [
        (json!("hello there"), 3, 1),
        (json!(["hello", "there", "you"]), 6, 3),
        (json!([1, 2, 3]), 3, 1),
        (json!([[1, 2], [3, 4, 5]]), 5, 2),
    ] {
        let body = hello(Route::Completions, json!({"prompt": given}));
        let found = plan(Route::Completions, &body, &none());
        assert_eq!((found.prompt, found.choices), (tokens, count), "{given}");
        assert_eq!(found.completion(), count * NATURAL_TOKENS);
        let body = hello(Route::Embeddings, json!({"input": given}));
        let answer = plain(Route::Embeddings, &body, &none());
        assert_eq!(answer["data"].as_array().unwrap().len() as u64, count);
        assert_eq!(
            answer["usage"],
            json!({"prompt_tokens": tokens, "total_tokens": tokens})
        );
        assert_eq!(plan(Route::Embeddings, &body, &none()).completion(), 0);
    }
}

#[test]
fn vectors_come_as_numbers_or_as_base64() {
    let body = hello(Route::Embeddings, json!({"dimensions": 2}));
    let answer = plain(Route::Embeddings, &body, &none());
    assert_eq!(answer["data"][0]["embedding"], json!([1.0, 0.0]));
    let body = hello(
        Route::Embeddings,
        json!({"dimensions": 2, "encoding_format": "base64"}),
    );
    let answer = plain(Route::Embeddings, &body, &none());
    assert_eq!(answer["data"][0]["embedding"], "AACAPwAAAAA=");
}

#[test]
fn caps_are_obeyed_and_multiplied() {
    let completion =
        |body: &Value, behaviour: &Behaviour| plan(Route::Chat, body, behaviour).completion();
    let fill = Behaviour {
        fill: true,
        ..none()
    };
    let mut body = hello(Route::Chat, json!({}));
    assert_eq!(completion(&body, &none()), NATURAL_TOKENS);
    body["max_tokens"] = json!(7);
    assert_eq!(completion(&body, &none()), 7);
    assert_eq!(plan(Route::Chat, &body, &none()).finish_reason(), "length");
    body["n"] = json!(3);
    assert_eq!(completion(&body, &none()), 21);
    body["max_completion_tokens"] = json!(100);
    assert_eq!(completion(&body, &none()), 60);
    assert_eq!(completion(&body, &fill), 300);
    let unbound = Behaviour {
        ignore_cap: true,
        natural_tokens: Some(5000),
        ..none()
    };
    assert_eq!(completion(&body, &unbound), 15_000);
    let thinking = Behaviour {
        reasoning_tokens: 95,
        ..none()
    };
    assert_eq!(completion(&body, &thinking), 300);
    let body = hello(
        Route::Completions,
        json!({"max_tokens": 5, "n": 2, "best_of": 4}),
    );
    assert_eq!(plan(Route::Completions, &body, &none()).completion(), 20);
    let body = hello(Route::Responses, json!({"max_output_tokens": 6}));
    assert_eq!(plan(Route::Responses, &body, &none()).completion(), 6);
}

#[test]
fn a_stream_shows_what_a_plain_answer_shows_and_bills_the_same() {
    let behaviour = Behaviour {
        tokens_per_chunk: Some(3),
        reasoning_tokens: 2,
        x_groq: true,
        ..none()
    };
    for route in [Route::Chat, Route::Completions] {
        for choices in [1, 2] {
            let asked = json!({"n": choices, "stream_options": {"include_usage": true}});
            let body = hello(route, asked);
            let (events, billed) = events(route, &body, &behaviour);
            assert_eq!(billed, plan(route, &body, &behaviour).completion());
            let plain = plain(route, &body, &behaviour);
            for choice in plain["choices"].as_array().unwrap() {
                let text = if route == Route::Chat {
                    &choice["message"]["content"]
                } else {
                    &choice["text"]
                };
                assert_eq!(&joined(&events, choice["index"].as_u64().unwrap()), text);
            }
            let [.., finish, usage, done] = &events[..] else {
                panic!("too few events")
            };
            assert_eq!(done, "[DONE]");
            assert_eq!(usage["choices"], json!([]));
            assert_eq!(usage["usage"], plain["usage"]);
            assert_eq!(finish["x_groq"]["usage"], plain["usage"]);
            assert_eq!(finish["choices"][0]["finish_reason"], "stop");
        }
    }
}

#[test]
fn a_prompt_is_repeated_where_that_is_asked_for() {
    let asked = json!({"prompt": ["a", "b"], "n": 2, "echo": true, "max_tokens": 1});
    let body = hello(Route::Completions, asked);
    let answer = plain(Route::Completions, &body, &none());
    let (events, billed) = events(Route::Completions, &body, &none());
    assert_eq!(billed, 4);
    for (index, text) in ["atok ", "atok ", "btok ", "btok "].into_iter().enumerate() {
        assert_eq!(answer["choices"][index]["text"], text);
        assert_eq!(joined(&events, index as u64), text);
    }
}

#[test]
fn a_response_comes_in_typed_events_that_count() {
    let thinking = Behaviour {
        reasoning_tokens: 2,
        ..none()
    };
    let mut body = hello(
        Route::Responses,
        json!({"max_output_tokens": 5, "store": false}),
    );
    body["include"] = json!(["reasoning.encrypted_content"]);
    let (events, billed) = events(Route::Responses, &body, &thinking);
    assert_eq!(billed, 5);
    let names: Vec<_> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    let names: Vec<_> = names
        .iter()
        .map(|name| name.strip_prefix("response.").unwrap())
        .collect();
    let expected = [
        "created",
        "in_progress",
        "output_item.added",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "incomplete",
    ];
    assert_eq!(names, expected);
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
    }
    let last = &events[12]["response"];
    assert_eq!(last, &plain(Route::Responses, &body, &thinking));
    assert_eq!(events[0]["response"]["usage"], Value::Null);
    assert_eq!(last["usage"]["output_tokens"], 5);
    assert_eq!(
        last["usage"]["output_tokens_details"]["reasoning_tokens"],
        2
    );
    assert_eq!(last["incomplete_details"]["reason"], "max_output_tokens");
    assert_eq!(last["output"][0]["id"], "rs_sim_1");
    assert!(last["output"][0]["encrypted_content"].is_string());
    assert_eq!(
        last["output"][1]["content"][0]["text"],
        TOKEN_TEXT.repeat(3)
    );
    for (behaviour, status) in [
        (none(), "completed"),
        (
            Behaviour {
                fail: true,
                ..none()
            },
            "failed",
        ),
    ] {
        let body = hello(Route::Responses, json!({}));
        let (events, _) = super::tests::events(Route::Responses, &body, &behaviour);
        let last = events.last().unwrap();
        assert_eq!(last["type"], format!("response.{status}"));
        assert_eq!(last["response"]["status"], status);
    }
}

#[test]
fn what_was_not_kept_cannot_be_referred_to() {
    let read = |more| {
        with(
            Route::Responses,
            &hello(Route::Responses, more),
            &none(),
            |_| (),
        )
    };
    let thought = |id: &str| json!({"input": [{"type": "reasoning", "id": id, "summary": []}]});
    assert_eq!(
        read(thought("rs_sim_7")).unwrap_err().status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(read(thought("rs_kept_7")), Ok(()));
    let sealed = json!([{"type": "reasoning", "id": "rs_sim_7", "encrypted_content": "x"}]);
    assert_eq!(read(json!({"input": sealed})), Ok(()));
    assert!(read(json!({"previous_response_id": "resp_sim_1"})).is_err());
    let stored = plain(
        Route::Responses,
        &hello(Route::Responses, json!({})),
        &none(),
    );
    assert_eq!(
        (&stored["id"], &stored["store"]),
        (&json!("resp_kept_1"), &json!(true))
    );
}

#[test]
fn a_tool_is_called_until_its_result_is_there() {
    let behaviour = tool_call();
    let arguments = r#"{"zone":"UTC, \"exactly\""}"#;
    let body = hello(Route::Chat, json!({}));
    let answer = plain(Route::Chat, &body, &behaviour);
    let call = &answer["choices"][0]["message"]["tool_calls"][0];
    assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(
        call["function"],
        json!({"name": "now", "arguments": arguments})
    );
    let (streamed, billed) = events(Route::Chat, &body, &behaviour);
    assert_eq!(joined(&streamed, 0), arguments);
    assert_eq!(answer["usage"]["completion_tokens"], billed);
    let first = &streamed[0]["choices"][0]["delta"]["tool_calls"][0];
    assert_eq!(
        (&first["id"], &first["function"]["name"]),
        (&call["id"], &json!("now"))
    );
    let after = hello(
        Route::Chat,
        json!({"messages": [{"role": "tool", "content": "noon"}]}),
    );
    let answer = plain(Route::Chat, &after, &behaviour);
    assert_eq!(
        answer["choices"][0]["message"]["content"],
        TOKEN_TEXT.repeat(20)
    );

    let body = hello(Route::Responses, json!({}));
    let answer = plain(Route::Responses, &body, &behaviour);
    assert_eq!(answer["output"][0]["arguments"], arguments);
    let (streamed, _) = events(Route::Responses, &body, &behaviour);
    let deltas = streamed
        .iter()
        .filter(|event| event["type"] == "response.function_call_arguments.delta");
    let text: String = deltas.filter_map(|event| event["delta"].as_str()).collect();
    assert_eq!(text, arguments);
    assert_eq!(streamed.last().unwrap()["response"], answer);
    let result = json!([{"type": "function_call_output", "call_id": "c", "output": "noon"}]);
    let after = hello(Route::Responses, json!({"input": result}));
    assert_eq!(
        plain(Route::Responses, &after, &behaviour)["output"][0]["type"],
        "message"
    );
}

#[test]
fn a_text_is_shown_whole_and_cut_by_the_cap() {
    let behaviour = Behaviour {
        text: Some("{\"né\": 1}".into()),
        ..none()
    };
    for (cap, text, reason) in [
        (99, "{\"né\": 1}", "stop"),
        (3, "{\"né\": 1}", "stop"),
        (2, "{\"né\": 1", "length"),
    ] {
        let body = hello(Route::Chat, json!({"max_tokens": cap}));
        let answer = plain(Route::Chat, &body, &behaviour);
        assert_eq!(answer["choices"][0]["message"]["content"], text);
        assert_eq!(answer["choices"][0]["finish_reason"], reason);
        assert_eq!(joined(&events(Route::Chat, &body, &behaviour).0, 0), text);
    }
}

#[test]
fn usage_is_given_bent_or_left_out_as_told() {
    let bent = Behaviour {
        usage: Some(json!({"prompt_tokens": -1})),
        ..none()
    };
    let silent = Behaviour {
        omit_usage: true,
        ..none()
    };
    for route in ALL {
        let body = hello(route, json!({}));
        assert_eq!(
            plain(route, &body, &bent)["usage"],
            json!({"prompt_tokens": -1})
        );
        assert!(plain(route, &body, &silent)["usage"].is_null());
    }
    let (unasked, _) = events(Route::Chat, &hello(Route::Chat, json!({})), &none());
    assert!(unasked.iter().all(|event| event.get("usage").is_none()));
}

/// What the usage of a stream says at each place: in chunks with choices, and in those without.
#[track_caller]
fn told(shape: Shape, more: Value) -> (Vec<Value>, Vec<Value>) {
    let behaviour = Behaviour {
        shape,
        natural_tokens: Some(2),
        reasoning_tokens: 3,
        cached_tokens: 5,
        ..none()
    };
    let (events, billed) = events(Route::Chat, &hello(Route::Chat, more), &behaviour);
    assert_eq!(billed % 5, 0);
    let told = events
        .into_iter()
        .filter(|event| event["usage"].is_object());
    let (own, with): (Vec<_>, Vec<_>) = told.partition(|event| event["choices"] == json!([]));
    let usage = |of: Vec<Value>| of.into_iter().map(|event| event["usage"].clone()).collect();
    (usage(with), usage(own))
}

#[test]
fn each_family_tells_its_usage_in_its_own_place() {
    let asked = || json!({"stream_options": {"include_usage": true}});
    for (shape, unasked, wanted) in [
        (Shape::Openai, (0, 0), (0, 1)),
        (Shape::Groq, (0, 0), (0, 1)),
        (Shape::Deepseek, (0, 0), (0, 1)),
        (Shape::Gemini, (4, 0), (4, 0)),
        (Shape::Together, (1, 0), (1, 0)),
        (Shape::Openrouter, (0, 1), (0, 1)),
        (Shape::Vllm, (0, 0), (0, 1)),
        (Shape::Ollama, (0, 0), (0, 1)),
        (Shape::Anthropic, (0, 0), (0, 1)),
        (Shape::LlamaCpp, (0, 0), (0, 1)),
    ] {
        let places = |more| {
            let (with, own) = told(shape, more);
            (with.len(), own.len())
        };
        assert_eq!(places(json!({})), unasked, "{shape:?}");
        assert_eq!(places(asked()), wanted, "{shape:?}");
    }
    assert_eq!(told(Shape::Mistral, json!({})).0.len(), 1);
    let continuous =
        json!({"stream_options": {"include_usage": true, "continuous_usage_stats": true}});
    let (with, own) = told(Shape::Vllm, continuous);
    let so_far: Vec<_> = with
        .iter()
        .map(|usage| usage["completion_tokens"].clone())
        .collect();
    assert_eq!(
        (so_far, own.len()),
        (vec![json!(3), json!(4), json!(5), json!(5)], 1)
    );
}

#[test]
fn each_family_tells_its_usage_in_its_own_words() {
    let usage = |shape, n| {
        let behaviour = Behaviour {
            shape,
            natural_tokens: Some(2),
            reasoning_tokens: 3,
            cached_tokens: 5,
            ..none()
        };
        plain(
            Route::Chat,
            &hello(Route::Chat, json!({"n": n})),
            &behaviour,
        )["usage"]
            .clone()
    };
    let plain = json!({"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17});
    for shape in [
        Shape::Mistral,
        Shape::Together,
        Shape::Ollama,
        Shape::Anthropic,
    ] {
        assert_eq!(usage(shape, 1), plain, "{shape:?}");
    }
    assert_eq!(usage(Shape::LlamaCpp, 2), plain);
    assert_eq!(usage(Shape::Gemini, 1)["completion_tokens"], 2);
    assert_eq!(usage(Shape::Gemini, 1)["total_tokens"], 17);
    assert_eq!(usage(Shape::Deepseek, 1)["prompt_cache_hit_tokens"], 5);
    assert_eq!(usage(Shape::Deepseek, 1)["prompt_cache_miss_tokens"], 7);
    assert_eq!(
        usage(Shape::Vllm, 1).get("prompt_tokens_details"),
        Some(&Value::Null)
    );
    assert!(usage(Shape::Openrouter, 1)["cost"].is_number());
}

#[test]
fn some_families_refuse() {
    let status = |shape, more| {
        let behaviour = Behaviour { shape, ..none() };
        with(Route::Chat, &hello(Route::Chat, more), &behaviour, |_| ())
            .err()
            .map(|refusal| refusal.status.as_u16())
    };
    assert_eq!(
        status(Shape::Mistral, json!({"stream_options": {}})),
        Some(422)
    );
    assert_eq!(status(Shape::Anthropic, json!({"n": 2})), Some(400));
    assert_eq!(status(Shape::Anthropic, json!({})), None);
}

#[test]
fn the_greedy_bill_all_that_can_be_read_into_a_request() {
    let greedy = Behaviour {
        greedy: true,
        ..none()
    };
    let text = "hello there, 42".len() as u64;
    let found = |route, more| plan(route, &hello(route, more), &greedy);
    let chat = |more| found(Route::Chat, more);
    assert_eq!(chat(json!({"max_tokens": 7})).prompt, 40 + 6 + text);
    assert_eq!(chat(json!({"max_tokens": 7})).completion(), 7);
    assert_eq!(
        chat(json!({"max_tokens": 7, "n_predict": 5000})).completion(),
        5000
    );
    assert_eq!(
        chat(json!({"max_tokens": 7, "n": 2, "best_of": 3})).completion(),
        21
    );
    assert_eq!(
        chat(json!({"max_tokens": 7, "service_tier": "priority"})).factor,
        2
    );
    assert!(chat(json!({})).completion() >= 100_000);
    let tools = json!({"max_tokens": 7, "tools": [{"type": "function"}]});
    assert_eq!(chat(tools).prompt, 40 + 6 + text + 4 * 11);
    let prompts = json!({"prompt": ["a", "b", "c"], "max_tokens": 9});
    assert_eq!(found(Route::Completions, prompts).completion(), 27);
    let response = found(
        Route::Responses,
        json!({"max_output_tokens": 3, "background": true}),
    );
    assert_eq!((response.completion(), response.kept), (3, 2));
    assert_eq!(
        found(Route::Embeddings, json!({"max_tokens": 9})).completion(),
        0
    );
    let asked = json!({"max_tokens": 5000, "n": 2});
    let (_, billed) = events(Route::Chat, &hello(Route::Chat, asked), &greedy);
    assert_eq!(billed, 10_000);
}

#[test]
fn a_tokenizer_counts_exactly() {
    let exact = Behaviour {
        tokenizer: Some(Tokenizer::O200kBase),
        ..none()
    };
    let prompt = |route, more| plan(route, &hello(route, more), &exact).prompt;
    let messages = json!({"messages": [{"role": "user", "content": "hello world"}]});
    assert_eq!(prompt(Route::Chat, messages), 3 + 3 + 2);
    assert_eq!(
        prompt(Route::Embeddings, json!({"input": "hello world"})),
        2
    );
}

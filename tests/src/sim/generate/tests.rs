use super::*;
use serde_json::{Value, json};

fn plan(body: &Value, behaviour: &Behaviour) -> Plan {
    let text = body.to_string();
    Plan::of(&serde_json::from_str(&text).unwrap(), behaviour)
}

fn hello() -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": "hello there, 42"}]})
}

fn events(script: Script) -> Vec<Value> {
    script
        .map(|event| {
            let text = String::from_utf8(event.bytes.to_vec()).unwrap();
            let data = text.strip_prefix("data: ").unwrap().trim_end();
            if data == "[DONE]" {
                Value::from("[DONE]")
            } else {
                serde_json::from_str(data).unwrap()
            }
        })
        .collect()
}

#[test]
fn a_text_never_has_more_tokens_than_bytes() {
    for (text, tokens) in [
        ("", 0),
        ("hello", 1),
        ("hello world", 2),
        ("antidisestablish", 3),
        ("1234", 4),
        ("a, b.", 4),
        ("日本語", 3),
        ("  \n", 0),
    ] {
        assert_eq!(count_tokens(text), tokens, "{text:?}");
        assert!(tokens <= text.len() as u64);
    }
}

#[test]
fn messages_parts_and_tools_are_counted() {
    let none = Behaviour::default();
    assert_eq!(plan(&hello(), &none).prompt, 3 + 4 + 5);
    let mut parts = hello();
    parts["messages"][0]["content"] = json!([{"type": "text", "text": "hello \"there\""}]);
    assert_eq!(plan(&parts, &none).prompt, 3 + 4 + 4);
    let mut tools = hello();
    tools["tools"] = json!([{"type": "function"}]);
    assert_eq!(plan(&tools, &none).prompt, 3 + 4 + 5 + 3);
}

#[test]
fn caps_are_obeyed_and_multiplied() {
    let none = Behaviour::default();
    let fill = Behaviour {
        fill: true,
        ..Behaviour::default()
    };
    let mut body = hello();
    assert_eq!(plan(&body, &none).completion(), NATURAL_TOKENS);
    body["max_tokens"] = json!(7);
    assert_eq!(plan(&body, &none).completion(), 7);
    assert_eq!(plan(&body, &none).finish_reason(), "length");
    body["n"] = json!(3);
    assert_eq!(plan(&body, &none).completion(), 21);
    body["max_completion_tokens"] = json!(100);
    assert_eq!(plan(&body, &none).completion(), 60);
    assert_eq!(plan(&body, &fill).completion(), 300);
    let unbound = Behaviour {
        ignore_cap: true,
        natural_tokens: Some(5000),
        ..Behaviour::default()
    };
    assert_eq!(plan(&body, &unbound).completion(), 15_000);
    let thinking = Behaviour {
        reasoning_tokens: 95,
        ..Behaviour::default()
    };
    assert_eq!(plan(&body, &thinking).completion(), 300);
}

#[test]
fn a_stream_shows_what_a_plain_answer_shows_and_bills_the_same() {
    for choices in [1, 2] {
        let mut body = hello();
        body["n"] = json!(choices);
        let behaviour = Behaviour {
            tokens_per_chunk: Some(3),
            reasoning_tokens: 2,
            x_groq: true,
            ..Behaviour::default()
        };
        let plan = plan(&body, &behaviour);
        let billed: u64 = Script::new(plan, &behaviour, "m", 1, true)
            .map(|event| event.tokens)
            .sum();
        assert_eq!(billed, plan.completion());

        let plain: Value =
            serde_json::from_slice(&plain_answer(&plan, &behaviour, "m", 1)).unwrap();
        let events = events(Script::new(plan, &behaviour, "m", 1, true));
        for choice in plain["choices"].as_array().unwrap() {
            let text: String = events
                .iter()
                .flat_map(|event| event["choices"].as_array().cloned().unwrap_or_default())
                .filter(|part| part["index"] == choice["index"])
                .filter_map(|part| part["delta"]["content"].as_str().map(str::to_owned))
                .collect();
            assert_eq!(text, choice["message"]["content"]);
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

#[test]
fn usage_is_given_bent_or_left_out_as_told() {
    let bent = Behaviour {
        usage: Some(json!({"prompt_tokens": -1})),
        ..Behaviour::default()
    };
    let plan = plan(&hello(), &bent);
    let answer = |behaviour: &Behaviour| -> Value {
        serde_json::from_slice(&plain_answer(&plan, behaviour, "m", 1)).unwrap()
    };
    assert_eq!(answer(&bent)["usage"], json!({"prompt_tokens": -1}));
    let silent = Behaviour {
        omit_usage: true,
        ..Behaviour::default()
    };
    assert_eq!(answer(&silent).get("usage"), None);
    let unasked = events(Script::new(plan, &Behaviour::default(), "m", 1, false));
    assert!(unasked.iter().all(|event| event.get("usage").is_none()));
}

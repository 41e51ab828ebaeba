//! Random requests of every route.

use aex_admin_proto::worker::Route;
use serde_json::{Map, Value, json};

use super::texts;
use crate::disk::Chance;

pub(super) const MODELS: [&str; 3] = ["bytes", "exact", "hidden"];

/// One request: where it goes, and its body.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) route: Route,
    pub(super) body: Value,
}

fn one_in(chance: &mut Chance, n: usize) -> bool {
    chance.below(n) == 0
}

pub(super) fn draw(chance: &mut Chance, model: &str) -> Request {
    let route = Route::ALL[chance.below(4)];
    let mut body = match route {
        Route::ChatCompletions => chat(chance),
        Route::Completions => completions(chance),
        Route::Embeddings => json!({"input": prompts(chance)}),
        Route::Responses => responses(chance),
    };
    body["model"] = json!(model);
    if route.generates() {
        set_output(chance, route, &mut body);
    }
    if one_in(chance, 4) {
        body["user"] = json!(texts::draw(chance));
    }
    Request { route, body }
}

fn set_output(chance: &mut Chance, route: Route, body: &mut Value) {
    let cap = match (route, chance.below(2)) {
        (Route::Responses, _) => "max_output_tokens",
        (Route::ChatCompletions, 0) => "max_completion_tokens",
        _ => "max_tokens",
    };
    if !one_in(chance, 4) {
        let most = [10, 100, 1000][chance.below(3)];
        body[cap] = json!(1 + chance.below(most));
    }
    body["stream"] = json!(one_in(chance, 2));
    if route != Route::Responses {
        if one_in(chance, 3) {
            body["n"] = json!(1 + chance.below(4));
        }
        if body["stream"] == true && one_in(chance, 2) {
            body["stream_options"] = json!({"include_usage": one_in(chance, 2)});
        }
    }
}

fn chat(chance: &mut Chance) -> Value {
    let messages: Vec<Value> = (0..=chance.below(4)).map(|_| message(chance)).collect();
    let mut body = json!({"messages": messages});
    if one_in(chance, 3) {
        let tools: Vec<Value> = (0..=chance.below(3))
            .map(|_| json!({"type": "function", "function": function(chance)}))
            .collect();
        body["tools"] = json!(tools);
    }
    if one_in(chance, 5) {
        let schema = schema(chance, 0);
        body["response_format"] =
            json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
    }
    body
}

fn message(chance: &mut Chance) -> Value {
    let role = ["system", "user", "assistant", "tool", "developer"][chance.below(5)];
    let mut message = json!({"role": role});
    if one_in(chance, 4) {
        message["name"] = json!(texts::draw(chance));
    }
    if one_in(chance, 6) {
        let arguments = texts::draw(chance);
        message["tool_calls"] = json!([{"id": "call_1", "type": "function",
            "function": {"name": "f", "arguments": arguments}}]);
    }
    message["content"] = match chance.below(6) {
        0 => Value::Null,
        1 => json!([]),
        2 => {
            let parts: Vec<Value> = (0..=chance.below(3))
                .map(|_| json!({"type": "text", "text": texts::draw(chance)}))
                .collect();
            json!(parts)
        }
        3 if one_in(chance, 2) => {
            json!([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}])
        }
        _ => json!(texts::draw(chance)),
    };
    message
}

fn function(chance: &mut Chance) -> Value {
    json!({"name": format!("f{}", chance.below(100)), "description": texts::draw(chance),
        "parameters": schema(chance, 0)})
}

fn schema(chance: &mut Chance, depth: usize) -> Value {
    match chance.below(5) {
        0 if depth < 4 => {
            let properties: Map<String, Value> = (0..chance.below(5))
                .map(|nth| (format!("p{nth}"), schema(chance, depth + 1)))
                .collect();
            json!({"type": "object", "properties": properties, "additionalProperties": false})
        }
        1 if depth < 4 => json!({"type": "array", "items": schema(chance, depth + 1)}),
        2 => {
            let values: Vec<String> = (0..chance.below(6)).map(|_| texts::draw(chance)).collect();
            json!({"enum": values})
        }
        3 => json!({"type": "string", "description": texts::draw(chance)}),
        _ => json!({"type": "integer", "minimum": -1e300, "anyOf": [[], {}, null, true]}),
    }
}

fn completions(chance: &mut Chance) -> Value {
    let mut body = json!({"prompt": prompts(chance)});
    if one_in(chance, 4) {
        body["suffix"] = json!(texts::draw(chance));
    }
    if one_in(chance, 4) {
        body["echo"] = json!(true);
    }
    if one_in(chance, 4) {
        body["best_of"] = json!(4 + chance.below(9));
    }
    body
}

/// A text, some texts, or tokens.
fn prompts(chance: &mut Chance) -> Value {
    let count = 1 + chance.below(5);
    let tokens = |chance: &mut Chance| -> Vec<usize> {
        (0..=chance.below(200))
            .map(|_| chance.below(200_000))
            .collect()
    };
    match chance.below(4) {
        0 => json!(tokens(chance)),
        1 => json!((0..count).map(|_| tokens(chance)).collect::<Vec<_>>()),
        2 => json!((0..count).map(|_| texts::draw(chance)).collect::<Vec<_>>()),
        _ => json!(texts::draw(chance)),
    }
}

fn responses(chance: &mut Chance) -> Value {
    let mut body = json!({});
    body["input"] = if one_in(chance, 3) {
        json!(texts::draw(chance))
    } else {
        let items: Vec<Value> = (0..=chance.below(4)).map(|_| item(chance)).collect();
        json!(items)
    };
    if one_in(chance, 3) {
        body["instructions"] = json!(texts::draw(chance));
    }
    if one_in(chance, 3) {
        let mut tool = function(chance);
        tool["type"] = json!("function");
        body["tools"] = json!([tool]);
    }
    if one_in(chance, 5) {
        let schema = schema(chance, 0);
        body["text"] = json!({"format": {"type": "json_schema", "name": "n", "schema": schema}});
    }
    body
}

fn item(chance: &mut Chance) -> Value {
    let text = texts::draw(chance);
    match chance.below(4) {
        0 => json!({"type": "function_call", "call_id": "c", "name": "f", "arguments": text}),
        1 => json!({"type": "function_call_output", "call_id": "c", "output": text}),
        2 => json!({"role": "user", "content": [{"type": "input_text", "text": text}]}),
        _ => json!({"role": "user", "content": text}),
    }
}

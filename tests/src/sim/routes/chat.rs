//! `/v1/chat/completions`.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::count::Counter;
use super::super::plan::{Asked, Form, Refusal, Shown, StreamOptions};
use super::super::script::Script;
use super::super::usage;
use super::chunks::{self, Choice};
use super::{CREATED, Exchange, json_string};

/// The part of a request that the simulator understands. Others are ignored, as by most servers.
#[derive(Debug, Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    #[serde(borrow)]
    messages: Vec<Message<'a>>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    #[serde(default)]
    n: Option<u64>,
    #[serde(default)]
    max_tokens: Option<u64>,
    #[serde(default)]
    max_completion_tokens: Option<u64>,
    #[serde(borrow, default)]
    tools: Option<&'a RawValue>,
    #[serde(borrow, default)]
    functions: Option<&'a RawValue>,
    #[serde(borrow, default)]
    response_format: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    role: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    refusal: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    tool_calls: Option<&'a RawValue>,
}

impl Message<'_> {
    fn tokens(&self, counter: Counter) -> u64 {
        let text =
            |text: &Option<Cow<'_, str>>| text.as_deref().map_or(0, |text| counter.text(text));
        counter.per_message()
            + self.content.map_or(0, |content| counter.content(content))
            + text(&self.name)
            + text(&self.refusal)
            + self.tool_calls.map_or(0, |calls| counter.tool_calls(calls))
    }
}

pub(super) fn read(body: &[u8], counter: Counter) -> Result<Asked<'_>, Refusal> {
    let request: Request<'_> = serde_json::from_slice(body)?;
    let messages = request
        .messages
        .iter()
        .map(|message| message.tokens(counter));
    let tools = [request.tools, request.functions];
    let prompt = messages.sum::<u64>()
        + counter.once()
        + tools
            .iter()
            .flatten()
            .map(|tools| counter.tools(tools))
            .sum::<u64>()
        + request
            .response_format
            .map_or(0, |format| counter.schema(format));
    let last = request
        .messages
        .last()
        .and_then(|message| message.role.as_deref());
    Ok(Asked {
        after_tool: matches!(last, Some("tool" | "function")),
        model: request.model,
        stream: request.stream == Some(true),
        stream_options: request.stream_options,
        prompt,
        prompts: 1,
        choices: request.n,
        best_of: None,
        // As llama.cpp does: `max_completion_tokens` beats `max_tokens`.
        cap: request.max_completion_tokens.or(request.max_tokens),
        form: Form::Chat,
    })
}

/// A call's opening, before its arguments.
fn call_head(choice: u64, number: u64, name: &str) -> String {
    let name = json_string(name);
    format!(
        r#""id":"call_sim_{number}_{choice}","type":"function","function":{{"name":{name},"arguments":"#
    )
}

/// A whole call, or the beginning of one, with these arguments.
fn call(legacy: bool, choice: u64, number: u64, name: &str, arguments: &str) -> String {
    if legacy {
        let name = json_string(name);
        return format!(r#""function_call":{{"name":{name},"arguments":{arguments}}}"#);
    }
    let head = call_head(choice, number, name);
    format!(r#""tool_calls":[{{"index":0,{head}{arguments}}}}}]"#)
}

pub(super) fn plain(exchange: &Exchange<'_>) -> String {
    let Exchange {
        plan,
        number,
        model,
        ..
    } = exchange;
    let text = json_string(&plan.shown.whole());
    let mut out = String::with_capacity(640 + text.len());
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        r#"{{"id":"chatcmpl-sim-{number}","object":"chat.completion","created":{CREATED},"model":{model},"choices":["#
    );
    for index in 0..plan.choices {
        let comma = if index == 0 { "" } else { "," };
        let said = match &plan.shown {
            Shown::Call {
                name, legacy: true, ..
            } => {
                let call = call(true, index, *number, name, &text);
                format!(r#""content":null,{call}"#)
            }
            Shown::Call { name, .. } => {
                let head = call_head(index, *number, name);
                format!(r#""content":null,"tool_calls":[{{{head}{text}}}}}]"#)
            }
            _ => format!(r#""content":{text}"#),
        };
        let _ = write!(
            out,
            r#"{comma}{{"index":{index},"message":{{"role":"assistant",{said},"refusal":null}},"logprobs":null,"finish_reason":"{}"}}"#,
            plan.finish_reason()
        );
    }
    out.push(']');
    if let Some(usage) = usage::told(plan, exchange.behaviour) {
        let _ = write!(out, r#","usage":{usage}"#);
    }
    out.push_str(r#","system_fingerprint":"sim"}"#);
    out
}

#[derive(Debug)]
struct Delta {
    number: u64,
    /// The tool that is called: its name in one piece or two.
    call: Option<(String, String)>,
    legacy: bool,
}

impl Delta {
    /// A further piece of the call.
    fn goes_on(&self, field: &str, text: &str) -> String {
        let text = json_string(text);
        if self.legacy {
            return format!(r#""delta":{{"function_call":{{"{field}":{text}}}}}"#);
        }
        format!(r#""delta":{{"tool_calls":[{{"index":0,"function":{{"{field}":{text}}}}}]}}"#)
    }
}

impl Choice for Delta {
    fn opens(&self, choice: u64) -> Vec<String> {
        let Some((name, rest)) = &self.call else {
            return vec![r#""delta":{"role":"assistant","content":"","refusal":null}"#.to_owned()];
        };
        let call = call(self.legacy, choice, self.number, name, r#""""#);
        let mut opening = vec![format!(
            r#""delta":{{"role":"assistant","content":null,{call}}}"#
        )];
        if !rest.is_empty() {
            opening.push(self.goes_on("name", rest));
        }
        opening
    }

    fn shows(&self, text: &str) -> String {
        match &self.call {
            None => format!(r#""delta":{{"content":{}}}"#, json_string(text)),
            Some(_) => self.goes_on("arguments", text),
        }
    }

    fn ends(&self) -> String {
        r#""delta":{}"#.to_owned()
    }
}

pub(super) fn script(exchange: &Exchange<'_>) -> Script {
    let cut = (exchange.behaviour.tool_call.as_ref()).is_some_and(|call| call.cut_name);
    let (call, legacy) = match &exchange.plan.shown {
        Shown::Call { name, legacy, .. } => {
            let middle = name.char_indices().nth(name.chars().count() / 2);
            let at = middle.map_or(name.len(), |(at, _)| at);
            let (first, rest) = name.split_at(if cut { at } else { name.len() });
            (Some((first.to_owned(), rest.to_owned())), *legacy)
        }
        _ => (None, false),
    };
    let delta = Delta {
        number: exchange.number,
        call,
        legacy,
    };
    chunks::script(exchange, "chatcmpl", "chat.completion.chunk", delta)
}

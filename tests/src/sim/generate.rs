//! The simulator's model, as pure code: how many tokens a request has, how many its answer gets, and
//! the bytes of that answer.
//!
//! No socket, clock or randomness: the same request always costs the same.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::behaviour::{Behaviour, MAX_TOKENS_PER_CHUNK, NATURAL_TOKENS};

/// One output token, as text.
pub const TOKEN_TEXT: &str = "tok ";
/// Tokens of the chat template: a message's, and the answer's opening.
const TOKENS_PER_MESSAGE: u64 = 4;
const TOKENS_TO_OPEN: u64 = 3;
const TOKENS_PER_IMAGE: u64 = 85;
/// More is not generated, whatever a request or behaviour says.
const MAX_TOKENS: u64 = 2_000_000;
const MAX_CHOICES: u64 = 128;
/// Fixed, so that two equal requests get equal answers.
const CREATED: u64 = 1_750_000_000;

/// The part of a chat request that the simulator understands. Others are ignored, as by most servers.
#[derive(Debug, Deserialize)]
pub struct ChatRequest<'a> {
    #[serde(borrow)]
    pub model: Cow<'a, str>,
    #[serde(borrow)]
    pub messages: Vec<Message<'a>>,
    #[serde(default)]
    pub stream: Option<bool>,
    #[serde(default)]
    pub stream_options: Option<StreamOptions>,
    #[serde(default)]
    pub n: Option<u64>,
    #[serde(default)]
    pub max_tokens: Option<u64>,
    #[serde(default)]
    pub max_completion_tokens: Option<u64>,
    #[serde(borrow, default)]
    pub tools: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
pub struct Message<'a> {
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_calls: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
pub struct StreamOptions {
    #[serde(default)]
    pub include_usage: Option<bool>,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    image_url: Option<&'a RawValue>,
}

/// Tokens of a text, roughly as a tokenizer counts: six letters, one digit, one mark or one character
/// beyond ASCII each make a token. Never more than the text has bytes.
#[must_use]
pub fn count_tokens(text: &str) -> u64 {
    let (mut tokens, mut letters) = (0, 0);
    for byte in text.bytes() {
        if byte.is_ascii_alphabetic() {
            tokens += u64::from(letters % 6 == 0);
            letters += 1;
            continue;
        }
        letters = 0;
        let continues_a_character = byte & 0xC0 == 0x80;
        tokens += u64::from(!byte.is_ascii_whitespace() && !continues_a_character);
    }
    tokens
}

/// Words alone: for JSON that a provider renders again in its own way.
fn count_words(text: &str) -> u64 {
    text.split(|c: char| !c.is_ascii_alphanumeric())
        .map(|word| (word.len() as u64).div_ceil(6))
        .sum()
}

fn content_tokens(content: &RawValue) -> u64 {
    let raw = content.get();
    match raw.as_bytes().first() {
        Some(b'"') if !raw.contains('\\') => count_tokens(&raw[1..raw.len() - 1]),
        Some(b'"') => serde_json::from_str::<String>(raw).map_or(0, |text| count_tokens(&text)),
        _ => serde_json::from_str::<Vec<Part<'_>>>(raw).map_or(0, |parts| {
            parts
                .iter()
                .map(|part| {
                    part.text.as_deref().map_or(0, count_tokens)
                        + part.image_url.map_or(0, |_| TOKENS_PER_IMAGE)
                })
                .sum()
        }),
    }
}

impl ChatRequest<'_> {
    #[must_use]
    pub fn prompt_tokens(&self) -> u64 {
        let messages: u64 = self
            .messages
            .iter()
            .map(|message| {
                TOKENS_PER_MESSAGE
                    + message.content.map_or(0, content_tokens)
                    + message
                        .tool_calls
                        .map_or(0, |calls| count_words(calls.get()))
            })
            .sum();
        messages + TOKENS_TO_OPEN + self.tools.map_or(0, |tools| count_words(tools.get()))
    }

    /// As llama.cpp does: `max_completion_tokens` beats `max_tokens`.
    fn cap(&self) -> Option<u64> {
        self.max_completion_tokens.or(self.max_tokens)
    }
}

/// What one request costs and gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    pub prompt: u64,
    pub cached: u64,
    pub choices: u64,
    /// Of one choice.
    pub visible: u64,
    /// Of one choice.
    pub reasoning: u64,
    /// The cap ended it.
    pub capped: bool,
}

impl Plan {
    #[must_use]
    pub fn of(request: &ChatRequest<'_>, behaviour: &Behaviour) -> Self {
        let prompt = request.prompt_tokens();
        let natural = behaviour.natural_tokens.unwrap_or(NATURAL_TOKENS);
        let cap = if behaviour.ignore_cap {
            MAX_TOKENS
        } else {
            request.cap().unwrap_or(MAX_TOKENS).min(MAX_TOKENS)
        };
        let reasoning = behaviour.reasoning_tokens.min(cap);
        let room = cap - reasoning;
        let visible = if behaviour.fill && request.cap().is_some() {
            room
        } else {
            natural.min(room)
        };
        Self {
            prompt,
            cached: behaviour.cached_tokens.min(prompt),
            choices: request.n.unwrap_or(1).clamp(1, MAX_CHOICES),
            visible,
            reasoning,
            capped: visible == room,
        }
    }

    #[must_use]
    pub fn completion(&self) -> u64 {
        self.choices * (self.visible + self.reasoning)
    }

    fn finish_reason(&self) -> &'static str {
        if self.capped { "length" } else { "stop" }
    }

    fn usage(&self) -> String {
        let (prompt, completion) = (self.prompt, self.completion());
        format!(
            r#"{{"prompt_tokens":{prompt},"completion_tokens":{completion},"total_tokens":{},"prompt_tokens_details":{{"cached_tokens":{}}},"completion_tokens_details":{{"reasoning_tokens":{}}}}}"#,
            prompt + completion,
            self.cached,
            self.choices * self.reasoning,
        )
    }
}

/// The usage as it is told, which a behaviour may bend; nothing when it is left out.
fn told_usage(plan: &Plan, behaviour: &Behaviour) -> Option<String> {
    if behaviour.omit_usage {
        return None;
    }
    Some(
        behaviour
            .usage
            .as_ref()
            .map_or_else(|| plan.usage(), ToString::to_string),
    )
}

fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A whole plain answer.
#[must_use]
pub fn plain_answer(plan: &Plan, behaviour: &Behaviour, model: &str, number: u64) -> Bytes {
    if let Some(raw) = &behaviour.raw_body {
        return Bytes::copy_from_slice(raw.as_bytes());
    }
    let text = TOKEN_TEXT.repeat(usize::try_from(plan.visible).unwrap_or(0));
    let mut out = String::with_capacity(640 + text.len());
    let model = json_string(model);
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        r#"{{"id":"chatcmpl-sim-{number}","object":"chat.completion","created":{CREATED},"model":{model},"choices":["#
    );
    for index in 0..plan.choices {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(
            out,
            r#"{comma}{{"index":{index},"message":{{"role":"assistant","content":"{text}","refusal":null}},"logprobs":null,"finish_reason":"{}"}}"#,
            plan.finish_reason()
        );
    }
    out.push(']');
    if let Some(usage) = told_usage(plan, behaviour) {
        let _ = write!(out, r#","usage":{usage}"#);
    }
    out.push_str(r#","system_fingerprint":"sim"}"#);
    Bytes::from(out)
}

/// One streamed event, and the output tokens that were generated for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub bytes: Bytes,
    pub tokens: u64,
    /// It shows output; `cut_after_chunks` counts these.
    pub content: bool,
}

/// The events of one stream, in order.
#[derive(Debug)]
pub struct Script {
    plan: Plan,
    per_chunk: u64,
    /// Per choice, the events that repeat: made once, shared by reference count.
    content: Vec<Bytes>,
    opening: std::vec::IntoIter<Bytes>,
    /// Visible tokens of each choice not sent yet; the choices take turns.
    left: Vec<u64>,
    turn: usize,
    /// Choices whose reasoning was not billed yet.
    unreasoned: u64,
    ending: std::vec::IntoIter<Bytes>,
    head: String,
    tail: &'static str,
}

impl Script {
    #[must_use]
    pub fn new(
        plan: Plan,
        behaviour: &Behaviour,
        model: &str,
        number: u64,
        include_usage: bool,
    ) -> Self {
        let head = format!(
            r#"data: {{"id":"chatcmpl-sim-{number}","object":"chat.completion.chunk","created":{CREATED},"model":{},"choices":["#,
            json_string(model)
        );
        let tail = if include_usage {
            "],\"usage\":null}\n\n"
        } else {
            "]}\n\n"
        };
        let per_chunk = behaviour
            .tokens_per_chunk
            .unwrap_or(1)
            .clamp(1, MAX_TOKENS_PER_CHUNK);
        let mut script = Self {
            plan,
            per_chunk,
            content: Vec::new(),
            opening: Vec::new().into_iter(),
            left: Vec::new(),
            turn: 0,
            unreasoned: plan.choices,
            ending: Vec::new().into_iter(),
            head,
            tail,
        };
        if let Some(raw) = &behaviour.raw_body {
            script.unreasoned = 0;
            script.opening = vec![Bytes::copy_from_slice(raw.as_bytes())].into_iter();
            return script;
        }
        script.content = (0..plan.choices)
            .map(|choice| script.content_event(choice, per_chunk))
            .collect();
        script.left = vec![plan.visible; script.content.len()];
        script.opening = script.open(behaviour).into_iter();
        script.ending = script.end(behaviour, include_usage).into_iter();
        script
    }

    fn event(&self, choice: u64, delta: &str, finish: &str) -> Bytes {
        self.event_with_tail(choice, delta, finish, self.tail)
    }

    fn event_with_tail(&self, choice: u64, delta: &str, finish: &str, tail: &str) -> Bytes {
        let head = &self.head;
        Bytes::from(format!(
            r#"{head}{{"index":{choice},"delta":{delta},"logprobs":null,"finish_reason":{finish}}}{tail}"#
        ))
    }

    fn content_event(&self, choice: u64, tokens: u64) -> Bytes {
        let text = TOKEN_TEXT.repeat(usize::try_from(tokens).unwrap_or(0));
        self.event(choice, &format!(r#"{{"content":"{text}"}}"#), "null")
    }

    fn open(&self, behaviour: &Behaviour) -> Vec<Bytes> {
        let mut events = Vec::new();
        if behaviour.comments {
            events.push(Bytes::from_static(b": SIM PROCESSING\n\n"));
        }
        for choice in 0..self.plan.choices {
            let delta = r#"{"role":"assistant","content":"","refusal":null}"#;
            events.push(self.event(choice, delta, "null"));
        }
        events
    }

    fn end(&self, behaviour: &Behaviour, include_usage: bool) -> Vec<Bytes> {
        let usage = told_usage(&self.plan, behaviour);
        let finish = format!("\"{}\"", self.plan.finish_reason());
        let groq = usage
            .as_ref()
            .filter(|_| behaviour.x_groq)
            .map(|usage| format!("],\"x_groq\":{{\"id\":\"req_sim\",\"usage\":{usage}}}}}\n\n"));
        let mut events: Vec<Bytes> = (0..self.plan.choices)
            .map(|choice| {
                let last = choice + 1 == self.plan.choices;
                let tail = groq.as_deref().filter(|_| last).unwrap_or(self.tail);
                self.event_with_tail(choice, "{}", &finish, tail)
            })
            .collect();
        if let (true, Some(usage)) = (include_usage, &usage) {
            events.push(Bytes::from(format!(
                "{}],\"usage\":{usage}}}\n\n",
                self.head
            )));
        }
        if !behaviour.omit_done {
            events.push(Bytes::from_static(b"data: [DONE]\n\n"));
        }
        events
    }

    fn next_content(&mut self) -> Option<Event> {
        let choices = self.left.len();
        for step in 0..choices {
            let choice = (self.turn + step) % choices;
            let left = self.left[choice];
            if left == 0 {
                continue;
            }
            let tokens = left.min(self.per_chunk);
            self.left[choice] -= tokens;
            self.turn = choice + 1;
            let bytes = if tokens == self.per_chunk {
                self.content[choice].clone()
            } else {
                self.content_event(choice as u64, tokens)
            };
            return Some(Event {
                bytes,
                tokens,
                content: true,
            });
        }
        None
    }
}

impl Iterator for Script {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let silent = |bytes| Event {
            bytes,
            tokens: 0,
            content: false,
        };
        if let Some(bytes) = self.opening.next() {
            // What is thought out of sight is thought before the first word.
            let tokens = std::mem::take(&mut self.unreasoned) * self.plan.reasoning;
            return Some(Event {
                tokens,
                ..silent(bytes)
            });
        }
        self.next_content()
            .or_else(|| self.ending.next().map(silent))
    }
}

#[cfg(test)]
mod tests;

//! `/v1/responses`: items in, items out, and a stream of typed events that counts itself.
//!
//! Nothing is stored. An id says whether its request wished it to be: a later request may refer to
//! what was wished to be kept, and is refused where it refers to anything else.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::Bytes;
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::behaviour::Behaviour;
use super::super::count::Counter;
use super::super::plan::{Asked, Form, Plan, Refusal, Shown};
use super::super::script::{self, Frame, Piece, Script};
use super::{CREATED, Exchange, json_string};

/// In the ids of what was wished to be kept.
const KEPT: &str = "_kept_";
const NOT_KEPT: &str = "_sim_";

#[derive(Debug, Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
    #[serde(borrow, default)]
    instructions: Option<Cow<'a, str>>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    max_output_tokens: Option<u64>,
    #[serde(borrow, default)]
    tools: Option<&'a RawValue>,
    #[serde(borrow, default)]
    text: Option<TextFormat<'a>>,
    #[serde(borrow, default)]
    include: Option<Vec<Cow<'a, str>>>,
    #[serde(default)]
    store: Option<bool>,
    #[serde(borrow, default)]
    previous_response_id: Option<Cow<'a, str>>,
}

#[derive(Debug, Deserialize)]
struct TextFormat<'a> {
    #[serde(borrow, default)]
    format: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
struct Item<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    arguments: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    output: Option<&'a RawValue>,
    #[serde(borrow, default)]
    encrypted_content: Option<Cow<'a, str>>,
}

impl Item<'_> {
    fn tokens(&self, counter: Counter) -> u64 {
        let text =
            |text: &Option<Cow<'_, str>>| text.as_deref().map_or(0, |text| counter.text(text));
        let content = [self.content, self.output];
        counter.per_message()
            + content
                .iter()
                .flatten()
                .map(|content| counter.content(content))
                .sum::<u64>()
            + text(&self.name)
            + text(&self.arguments)
    }

    fn is_a_result(&self) -> bool {
        self.kind
            .as_deref()
            .is_some_and(|kind| kind.ends_with("_output"))
    }

    /// It stands for something that only the provider has.
    fn refers(&self) -> bool {
        match self.kind.as_deref() {
            Some("item_reference") => true,
            Some("reasoning") => self.encrypted_content.is_none(),
            _ => false,
        }
    }
}

fn was_kept(id: &str) -> Result<(), Refusal> {
    if id.contains(KEPT) {
        return Ok(());
    }
    Err(Refusal {
        status: StatusCode::NOT_FOUND,
        text: format!(
            "Item with id '{id}' not found. Items are not persisted when `store` is set to false."
        ),
    })
}

pub(super) fn read(body: &[u8], counter: Counter) -> Result<Asked<'_>, Refusal> {
    let request: Request<'_> = serde_json::from_slice(body)?;
    let input = request.input.map_or("null", RawValue::get);
    let (mut prompt, mut after_tool) = (counter.once(), false);
    match input.as_bytes().first() {
        Some(b'"') => {
            let text: String = serde_json::from_str(input)?;
            prompt += counter.per_message() + counter.text(&text);
        }
        Some(b'[') => {
            let items: Vec<Item<'_>> = serde_json::from_str(input)?;
            for item in items.iter().filter(|item| item.refers()) {
                was_kept(item.id.as_deref().unwrap_or_default())?;
            }
            prompt += items.iter().map(|item| item.tokens(counter)).sum::<u64>();
            after_tool = items.last().is_some_and(Item::is_a_result);
        }
        _ => return Err(Refusal::bad("input: a text or a list of items is needed")),
    }
    if let Some(id) = &request.previous_response_id {
        was_kept(id)?;
    }
    if let Some(text) = &request.instructions {
        prompt += counter.per_message() + counter.text(text);
    }
    let format = request.text.and_then(|text| text.format);
    prompt += request.tools.map_or(0, |tools| counter.tools(tools));
    prompt += format.map_or(0, |format| counter.schema(format));
    let include = request.include.unwrap_or_default();
    Ok(Asked {
        model: request.model,
        stream: request.stream == Some(true),
        stream_options: None,
        prompt,
        prompts: 1,
        choices: None,
        best_of: None,
        cap: request.max_output_tokens,
        after_tool,
        form: Form::Responses {
            tools: request.tools,
            format,
            instructions: request.instructions,
            encrypted_reasoning: include
                .iter()
                .any(|name| name == "reasoning.encrypted_content"),
            stored: request.store != Some(false),
        },
    })
}

/// How far a response is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    InProgress,
    Completed,
    Incomplete,
    Failed,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
            Self::Failed => "failed",
        }
    }
}

/// What one response says of itself again and again.
struct Answer<'a> {
    plan: &'a Plan,
    behaviour: &'a Behaviour,
    /// The ids' common end.
    id: String,
    /// The response's fields that do not change.
    fields: String,
    reasoning: Option<String>,
}

impl<'a> Answer<'a> {
    fn of(exchange: &'a Exchange<'_>) -> Self {
        let Exchange {
            asked,
            plan,
            behaviour,
            number,
            model,
        } = exchange;
        let Form::Responses {
            tools,
            format,
            instructions,
            encrypted_reasoning,
            stored,
        } = &asked.form
        else {
            unreachable!("a response is read by `read`")
        };
        let id = format!("{}{number}", if *stored { KEPT } else { NOT_KEPT });
        let raw = |value: Option<&RawValue>, or: &str| value.map_or(or, RawValue::get).to_owned();
        let or_null = |value: Option<String>| value.unwrap_or_else(|| "null".to_owned());
        let fields = format!(
            r#""id":"resp{id}","object":"response","created_at":{CREATED},"background":false,"instructions":{},"max_output_tokens":{},"model":{model},"parallel_tool_calls":true,"previous_response_id":null,"reasoning":{{"effort":null,"summary":null}},"service_tier":"default","store":{stored},"temperature":1.0,"text":{{"format":{}}},"tool_choice":"auto","tools":{},"top_p":1.0,"truncation":"disabled","metadata":{{}}"#,
            or_null(instructions.as_deref().map(json_string)),
            or_null(asked.cap.map(|cap| cap.to_string())),
            raw(*format, r#"{"type":"text"}"#),
            raw(*tools, "[]"),
        );
        let reasoning = (behaviour.reasoning_tokens > 0).then(|| {
            let sealed = if *encrypted_reasoning {
                r#","encrypted_content":"c2ltdWxhdGVkIHRob3VnaHRz""#
            } else {
                ""
            };
            format!(r#"{{"id":"rs{id}","type":"reasoning","summary":[]{sealed}}}"#)
        });
        Self {
            plan,
            behaviour,
            id,
            fields,
            reasoning,
        }
    }

    fn ending(&self) -> Status {
        match (self.behaviour.fail, self.plan.capped) {
            (true, _) => Status::Failed,
            (false, true) => Status::Incomplete,
            (false, false) => Status::Completed,
        }
    }

    /// The response, with its output so far. Its usage is told at the end.
    fn response(&self, status: Status, output: &str) -> String {
        let error = match status {
            Status::Failed => r#"{"code":"server_error","message":"simulated failure"}"#,
            _ => "null",
        };
        let incomplete = match status {
            Status::Incomplete => r#"{"reason":"max_output_tokens"}"#,
            _ => "null",
        };
        let usage = match (status, self.behaviour.omit_usage, &self.behaviour.usage) {
            (Status::InProgress, ..) | (_, true, _) => "null".to_owned(),
            (_, false, Some(bent)) => bent.to_string(),
            (_, false, None) => self.usage(),
        };
        format!(
            r#"{{{},"status":"{}","error":{error},"incomplete_details":{incomplete},"output":[{output}],"usage":{usage}}}"#,
            self.fields,
            status.name(),
        )
    }

    fn usage(&self) -> String {
        let (input, output) = (self.plan.prompt, self.plan.completion());
        format!(
            r#"{{"input_tokens":{input},"input_tokens_details":{{"cached_tokens":{}}},"output_tokens":{output},"output_tokens_details":{{"reasoning_tokens":{}}},"total_tokens":{}}}"#,
            self.plan.cached,
            self.plan.reasoning(),
            input + output,
        )
    }

    /// The item that shows the answer, whole or not begun yet.
    fn item(&self, status: Status) -> String {
        let (id, status_name) = (&self.id, status.name());
        let begun = status != Status::InProgress;
        let whole = || json_string(&self.plan.shown.whole());
        match &self.plan.shown {
            Shown::Call { name, .. } => {
                let arguments = if begun { whole() } else { r#""""#.to_owned() };
                let name = json_string(name);
                format!(
                    r#"{{"id":"fc{id}","type":"function_call","status":"{status_name}","call_id":"call{id}","name":{name},"arguments":{arguments}}}"#
                )
            }
            _ => {
                let content = if begun { part(&whole()) } else { String::new() };
                format!(
                    r#"{{"id":"msg{id}","type":"message","status":"{status_name}","role":"assistant","content":[{content}]}}"#
                )
            }
        }
    }

    /// A failed answer's last item is as incomplete as a capped one's.
    fn item_at_the_end(&self) -> String {
        self.item(match self.ending() {
            Status::Completed => Status::Completed,
            _ => Status::Incomplete,
        })
    }

    fn output(&self) -> String {
        let item = self.item_at_the_end();
        match &self.reasoning {
            Some(reasoning) => format!("{reasoning},{item}"),
            None => item,
        }
    }
}

fn part(text: &str) -> String {
    format!(r#"{{"type":"output_text","annotations":[],"logprobs":[],"text":{text}}}"#)
}

pub(super) fn plain(exchange: &Exchange<'_>) -> String {
    let answer = Answer::of(exchange);
    answer.response(answer.ending(), &answer.output())
}

/// One event; `rest` are its fields after the number.
fn event(name: &str, number: u64, rest: &str) -> Bytes {
    let mut out = String::with_capacity(96 + rest.len());
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "event: {name}\ndata: {{\"type\":\"{name}\",\"sequence_number\":{number},{rest}}}\n\n"
    );
    Bytes::from(out)
}

/// Numbers events from where others stopped.
struct Numbered {
    next: u64,
    events: Vec<Bytes>,
}

impl Numbered {
    fn push(&mut self, name: &str, rest: &str) {
        self.events.push(event(name, self.next, rest));
        self.next += 1;
    }
}

#[derive(Debug)]
struct Deltas {
    first: u64,
    name: &'static str,
    /// The fields before the delta.
    place: String,
    /// The fields after it.
    after: &'static str,
}

impl Frame for Deltas {
    fn show(&self, piece: &Piece<'_>) -> Bytes {
        let text = json_string(piece.text);
        let rest = format!(r#"{},"delta":{text}{}"#, self.place, self.after);
        event(self.name, self.first + piece.nth, &rest)
    }

    fn repeats(&self) -> bool {
        false
    }
}

pub(super) fn script(exchange: &Exchange<'_>) -> Script {
    let answer = Answer::of(exchange);
    let index = u64::from(answer.reasoning.is_some());
    let is_call = matches!(answer.plan.shown, Shown::Call { .. });
    let id = &answer.id;
    let place = if is_call {
        format!(r#""item_id":"fc{id}","output_index":{index}"#)
    } else {
        format!(r#""item_id":"msg{id}","output_index":{index},"content_index":0"#)
    };
    let opening = opening(&answer, index, &place);
    let pieces = answer
        .plan
        .shown
        .tokens()
        .div_ceil(script::per_chunk(exchange.behaviour));
    let deltas = Deltas {
        first: opening.next,
        name: if is_call {
            "response.function_call_arguments.delta"
        } else {
            "response.output_text.delta"
        },
        after: if is_call { "" } else { r#","logprobs":[]"# },
        place: place.clone(),
    };
    let ending = ending(&answer, index, &place, opening.next + pieces);
    Script::new(
        answer.plan,
        answer.behaviour,
        opening.events,
        Box::new(deltas),
        ending.events,
    )
}

fn opening(answer: &Answer<'_>, index: u64, place: &str) -> Numbered {
    let mut events = Numbered {
        next: 0,
        events: Vec::new(),
    };
    let begun = format!(r#""response":{}"#, answer.response(Status::InProgress, ""));
    events.push("response.created", &begun);
    events.push("response.in_progress", &begun);
    if let Some(reasoning) = &answer.reasoning {
        let item = format!(r#""output_index":0,"item":{reasoning}"#);
        events.push("response.output_item.added", &item);
        events.push("response.output_item.done", &item);
    }
    let item = answer.item(Status::InProgress);
    let item = format!(r#""output_index":{index},"item":{item}"#);
    events.push("response.output_item.added", &item);
    if !matches!(answer.plan.shown, Shown::Call { .. }) {
        let empty = part(r#""""#);
        events.push(
            "response.content_part.added",
            &format!(r#"{place},"part":{empty}"#),
        );
    }
    events
}

fn ending(answer: &Answer<'_>, index: u64, place: &str, next: u64) -> Numbered {
    let mut events = Numbered {
        next,
        events: Vec::new(),
    };
    let status = answer.ending();
    if status != Status::Failed {
        let whole = json_string(&answer.plan.shown.whole());
        match &answer.plan.shown {
            Shown::Call { name, .. } => {
                let name = json_string(name);
                let done = format!(r#"{place},"name":{name},"arguments":{whole}"#);
                events.push("response.function_call_arguments.done", &done);
            }
            _ => {
                let done = format!(r#"{place},"text":{whole},"logprobs":[]"#);
                events.push("response.output_text.done", &done);
                let done = format!(r#"{place},"part":{}"#, part(&whole));
                events.push("response.content_part.done", &done);
            }
        }
        let item = answer.item_at_the_end();
        let done = format!(r#""output_index":{index},"item":{item}"#);
        events.push("response.output_item.done", &done);
    }
    let name = format!("response.{}", status.name());
    let response = answer.response(status, &answer.output());
    events.push(&name, &format!(r#""response":{response}"#));
    events
}

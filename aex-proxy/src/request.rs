//! The one strict reading of a request body: what is judged here is, byte for byte, what is forwarded.
//!
//! Owns the rules of the chat completions body: which top-level fields there are, what AEX sets
//! itself (the model's name, the one output cap, `stream_options`, `store`, `service_tier`), and the
//! facts that `aex-admin` decides by. Every other value is passed on as the raw text it came as, so
//! no second parser can see another request than this one did: duplicate keys, trailing bytes, bad
//! UTF-8 and deep nesting are refused at any level, whoever would have ignored them.
//!
//! Absent on purpose: sockets, clock, randomness, and every decision about price or policy.

mod forward;
mod params;
mod strict;
#[cfg(test)]
mod tests;
mod walk;

use std::borrow::Cow;
use std::ops::Range;

use aex_admin_proto::worker::Facts;
use serde::Deserialize;

use params::Param;
use walk::{Place, Walk};

/// Longest model name that is looked at.
const MAX_MODEL_BYTES: usize = 256;
/// Largest output cap that is a number of tokens and not an attempt to overflow one.
const MAX_OUTPUT_CAP: u64 = 1 << 31;
const MAX_CHOICES: u64 = 128;
/// Bounds of the two lists of names that go to `aex-admin`.
const MAX_NAMED_PARAMS: usize = 32;
const MAX_PARAM_BYTES: usize = 64;
/// A plain parameter up to this long is not counted as prompt text.
const SHORT_PARAM_BYTES: usize = 24;

/// Why a body is refused, and which parameter is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    pub message: String,
    /// A path such as `messages[2].content`.
    pub param: Option<String>,
}

impl Invalid {
    pub(crate) fn whole(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            param: None,
        }
    }

    pub(crate) fn at(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            param: Some(param.into()),
        }
    }
}

/// A chat completions body, read and measured.
#[derive(Debug)]
pub struct ChatRequest {
    pub model: String,
    pub facts: Facts,
    pub stream: bool,
    /// The client itself asked for a usage chunk.
    pub include_usage: bool,
    include_obfuscation: Option<bool>,
    fields: Vec<Field>,
}

/// One top-level field: its value is a range of the body it was read from.
#[derive(Debug)]
struct Field {
    name: Param,
    value: Range<usize>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamOptions {
    include_usage: Option<bool>,
    include_obfuscation: Option<bool>,
}

/// Reads a chat completions body.
///
/// # Errors
/// What is wrong with it, and where.
pub fn read_chat(body: &[u8]) -> Result<ChatRequest, Invalid> {
    if body.is_empty() {
        return Err(Invalid::whole("the body is empty; send a JSON object"));
    }
    let text = std::str::from_utf8(body).map_err(|error| {
        let at = error.valid_up_to();
        Invalid::whole(format!("the body is not UTF-8: see byte {at}"))
    })?;
    let top = strict::top_level(text)?;
    let mut reader = Reader::default();
    reader.fields.reserve(top.len());
    for (name, raw) in top {
        // `raw` is a slice of `text`, so the difference is its offset.
        let start = raw.as_ptr() as usize - text.as_ptr() as usize;
        reader.field(&name, raw, start)?;
    }
    reader.finish(body.len())
}

#[derive(Default)]
struct Reader {
    model: Option<String>,
    seen_messages: bool,
    stream: bool,
    stream_options: Option<StreamOptions>,
    choices: Option<u64>,
    output_cap: Option<(&'static str, u64)>,
    costly: Vec<String>,
    unknown: Vec<String>,
    walk: Walk,
    fields: Vec<Field>,
}

impl Reader {
    fn field(&mut self, name: &str, raw: &str, start: usize) -> Result<(), Invalid> {
        let param = params::of(name);
        match &param {
            Param::Model => self.model = Some(model(raw)?),
            Param::Messages => {
                self.walk.value(name, raw, Place::Messages)?;
                self.seen_messages = true;
            }
            Param::Stream => self.stream = boolean(name, raw)?,
            Param::StreamOptions => self.stream_options = stream_options(raw, &mut self.walk)?,
            Param::Choices => self.choices = whole(name, raw, MAX_CHOICES)?,
            Param::OutputCap(name) => self.output_cap(name, raw)?,
            Param::Tools => self.walk_unless_null(name, raw, Place::Tools)?,
            Param::Functions => self.walk_unless_null(name, raw, Place::Functions)?,
            Param::ToolChoice(_) => self.walk_unless_null(name, raw, Place::ToolChoice)?,
            Param::ResponseFormat => self.walk_unless_null(name, raw, Place::Schema)?,
            Param::Store | Param::ServiceTier => {
                self.walk.value(name, raw, Place::Uncounted)?;
            }
            Param::Plain(plain) => {
                // A template may write some of them out. As they are meant to be, they are too short
                // to matter, but for two that may be long and are never text.
                let uncounted =
                    raw.len() <= SHORT_PARAM_BYTES || matches!(*plain, "logit_bias" | "metadata");
                let place = if uncounted {
                    Place::Uncounted
                } else {
                    Place::Text
                };
                self.walk.value(name, raw, place)?;
            }
            Param::Modalities => {
                self.walk.value(name, raw, Place::Uncounted)?;
                if raw != "null" && !only_text(raw) {
                    note(&mut self.costly, name)?;
                }
            }
            Param::Costly(_) => {
                self.walk.value(name, raw, Place::Uncounted)?;
                if raw == "null" {
                    // The same as absent; so it is not forwarded either.
                    return Ok(());
                }
                note(&mut self.costly, name)?;
            }
            Param::Other(_) => {
                self.walk.value(name, raw, Place::Uncounted)?;
                note(&mut self.unknown, name)?;
            }
        }
        let value = start..start + raw.len();
        self.fields.push(Field { name: param, value });
        Ok(())
    }

    fn walk_unless_null(&mut self, name: &str, raw: &str, place: Place) -> Result<(), Invalid> {
        if raw == "null" {
            return Ok(());
        }
        self.walk.value(name, raw, place)
    }

    fn output_cap(&mut self, name: &'static str, raw: &str) -> Result<(), Invalid> {
        let Some(cap) = whole(name, raw, MAX_OUTPUT_CAP)? else {
            return Ok(());
        };
        if let Some((other, _)) = self.output_cap.replace((name, cap)) {
            return Err(Invalid::at(
                name,
                format!("{other} and {name} are both set; send one of them"),
            ));
        }
        Ok(())
    }

    fn finish(self, body_bytes: usize) -> Result<ChatRequest, Invalid> {
        let model = self
            .model
            .ok_or_else(|| Invalid::at("model", "model is missing"))?;
        if !self.seen_messages {
            return Err(Invalid::at("messages", "messages is missing"));
        }
        if self.stream_options.is_some() && !self.stream {
            return Err(Invalid::at(
                "stream_options",
                "stream_options is only for requests with \"stream\": true",
            ));
        }
        let mut costly = self.costly;
        for kind in &self.walk.hosted_tools {
            note(&mut costly, &format!("tools[].type {kind}"))?;
        }
        let options = self.stream_options.unwrap_or_default();
        Ok(ChatRequest {
            model,
            facts: Facts {
                body_bytes: body_bytes as u64,
                ascii_bytes: self.walk.ascii_bytes,
                other_bytes: self.walk.other_bytes,
                messages: self.walk.messages,
                tool_bytes: self.walk.tool_bytes,
                output_cap: self.output_cap.map(|(_, cap)| cap),
                choices: self.choices.unwrap_or(1),
                stream: self.stream,
                tools: self.walk.tools,
                vision: self.walk.vision,
                media: self.walk.media,
                unknown_params: self.unknown,
                costly_params: costly,
                own_key: false,
                session: None,
            },
            stream: self.stream,
            include_usage: options.include_usage == Some(true),
            include_obfuscation: options.include_obfuscation,
            fields: self.fields,
        })
    }
}

fn note(names: &mut Vec<String>, name: &str) -> Result<(), Invalid> {
    if name.len() > MAX_PARAM_BYTES {
        return Err(Invalid::at(
            strict::shortened(name),
            format!("unknown parameter with a name over {MAX_PARAM_BYTES} bytes"),
        ));
    }
    if names.len() == MAX_NAMED_PARAMS {
        return Err(Invalid::at(
            name,
            format!("more than {MAX_NAMED_PARAMS} parameters that need a decision"),
        ));
    }
    names.push(name.to_owned());
    Ok(())
}

fn model(raw: &str) -> Result<String, Invalid> {
    if !raw.starts_with('"') {
        return Err(Invalid::at("model", "model must be a string"));
    }
    let name: Cow<'_, str> = serde_json::from_str(raw)
        .map_err(|_| Invalid::at("model", "model is not a valid string"))?;
    if name.is_empty() {
        return Err(Invalid::at("model", "model is empty"));
    }
    if name.len() > MAX_MODEL_BYTES {
        return Err(Invalid::at(
            "model",
            format!("model is longer than {MAX_MODEL_BYTES} bytes"),
        ));
    }
    Ok(name.into_owned())
}

fn boolean(name: &str, raw: &str) -> Result<bool, Invalid> {
    match raw {
        "true" => Ok(true),
        "false" | "null" => Ok(false),
        _ => Err(Invalid::at(name, format!("{name} must be true or false"))),
    }
}

/// A whole number from 1 to `most`, written with digits alone; nothing for null.
fn whole(name: &str, raw: &str, most: u64) -> Result<Option<u64>, Invalid> {
    if raw == "null" {
        return Ok(None);
    }
    let digits = !raw.is_empty() && raw.bytes().all(|b| b.is_ascii_digit());
    match raw.parse::<u64>() {
        Ok(number) if digits && (1..=most).contains(&number) => Ok(Some(number)),
        _ => Err(Invalid::at(
            name,
            format!("{name} must be a whole number from 1 to {most}"),
        )),
    }
}

fn stream_options(raw: &str, walk: &mut Walk) -> Result<Option<StreamOptions>, Invalid> {
    if raw == "null" {
        return Ok(None);
    }
    walk.value("stream_options", raw, Place::Uncounted)?;
    let wrong = || {
        Invalid::at(
            "stream_options",
            "stream_options must be an object with include_usage true or false",
        )
    };
    // serde would read a list as a struct's fields in order.
    if !raw.starts_with('{') {
        return Err(wrong());
    }
    serde_json::from_str(raw).map(Some).map_err(|_| wrong())
}

fn only_text(raw: &str) -> bool {
    serde_json::from_str::<Vec<Cow<'_, str>>>(raw)
        .is_ok_and(|list| list.len() == 1 && list[0] == "text")
}

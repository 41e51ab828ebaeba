//! The one strict reading of a request body: what is judged here is, byte for byte, what is forwarded.
//!
//! Owns the rules of each route's body: which top-level fields there are, what AEX sets itself (the
//! model's name, the one output cap, `stream_options`, `store`, `service_tier`), and the facts that
//! `aex-admin` decides by. Every other value is passed on as the raw text it came as, so no second
//! parser can see another request than this one did: duplicate keys, trailing bytes, bad UTF-8 and
//! deep nesting are refused at any level, whoever would have ignored them.
//!
//! Absent on purpose: sockets, clock, randomness, and every decision about price or policy.

mod forward;
mod judged;
mod offers;
mod params;
mod place;
#[cfg(test)]
mod routes;
mod strict;
#[cfg(test)]
mod tests;
mod walk;

use std::borrow::Cow;
use std::ops::Range;

use aex_admin_proto::worker::{Facts, Measured, Route, Temperature};
use serde::Deserialize;

use crate::tokenizer::Tokenizer;
use offers::{Cut, Offer};
use params::Kind;
use place::Place;
use walk::Walk;

/// Longest model name that is looked at.
const MAX_MODEL_BYTES: usize = 256;
/// Largest output cap that is a number of tokens and not an attempt to overflow one.
const MAX_OUTPUT_CAP: u64 = 1 << 31;
const MAX_CHOICES: u64 = 128;
/// Bounds of the two lists of names that go to `aex-admin`.
const MAX_NAMED_PARAMS: usize = 32;
const MAX_PARAM_BYTES: usize = 64;
/// How tools are told to `aex-admin` that no rule of tools can judge: none of that name is offered.
const HIDDEN_TOOLS: &str = "tools (inside another field)";
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

/// A request's body, read and measured.
#[derive(Debug)]
pub struct ApiRequest {
    pub route: Route,
    pub model: String,
    pub facts: Facts,
    pub stream: bool,
    /// The client itself asked for a usage chunk.
    pub include_usage: bool,
    /// Tokens of the prompt that come back as part of the answer, at most.
    pub echoed_tokens: u64,
    /// More answers are generated than shown: `best_of` above `n`.
    pub hides_choices: bool,
    include_obfuscation: Option<bool>,
    /// `include` of the Responses API.
    include: Vec<String>,
    /// The client asks the provider to keep the answer.
    store: bool,
    /// Items of `input` that are not forwarded, by place: references to reasoning which nobody kept.
    pub left_out: Vec<usize>,
    /// Tools that are offered, and what of them is not forwarded.
    offers: Vec<Offer>,
    cut: Option<Cut>,
    fields: Vec<Field>,
}

/// One top-level field: its value is a range of the body it was read from.
#[derive(Debug)]
struct Field {
    name: Cow<'static, str>,
    kind: Kind,
    value: Range<usize>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamOptions {
    include_usage: Option<bool>,
    include_obfuscation: Option<bool>,
}

/// Reads the body of a request to `route`.
///
/// # Errors
/// What is wrong with it, and where.
pub fn read(route: Route, body: &[u8]) -> Result<ApiRequest, Invalid> {
    Reader::new(route, None).read(body)
}

/// Counts the prompt of a body that was read before. Takes time: a tenth of a second a megabyte.
#[must_use]
pub fn measure(route: Route, body: &[u8], tokenizer: Tokenizer) -> Option<Measured> {
    let reader = Reader::new(route, Some(tokenizer));
    reader.read(body).ok()?.facts.measured
}

struct Reader {
    route: Route,
    model: Option<String>,
    seen_prompt: bool,
    seen_suffix: bool,
    stream: bool,
    stream_options: Option<StreamOptions>,
    echo: bool,
    choices: Option<u64>,
    shown_choices: Option<u64>,
    output_cap: Option<(String, u64)>,
    include: Vec<String>,
    store: bool,
    costly: Vec<String>,
    unknown: Vec<String>,
    parallel_tool_calls: Option<bool>,
    structured_output: bool,
    temperature: Option<Temperature>,
    walk: Walk,
    fields: Vec<Field>,
}

impl Reader {
    fn new(route: Route, tokenizer: Option<Tokenizer>) -> Self {
        Self {
            route,
            model: None,
            seen_prompt: false,
            seen_suffix: false,
            stream: false,
            stream_options: None,
            echo: false,
            choices: None,
            shown_choices: None,
            output_cap: None,
            include: Vec::new(),
            store: false,
            costly: Vec::new(),
            unknown: Vec::new(),
            parallel_tool_calls: None,
            structured_output: false,
            temperature: None,
            walk: Walk::new(tokenizer),
            fields: Vec::new(),
        }
    }

    fn read(mut self, body: &[u8]) -> Result<ApiRequest, Invalid> {
        if body.is_empty() {
            return Err(Invalid::whole("the body is empty; send a JSON object"));
        }
        let text = std::str::from_utf8(body).map_err(|error| {
            let at = error.valid_up_to();
            Invalid::whole(format!("the body is not UTF-8: see byte {at}"))
        })?;
        let top = strict::top_level(text)?;
        self.fields.reserve(top.len());
        for (name, raw) in top {
            // `raw` is a slice of `text`, so the difference is its offset.
            let start = raw.as_ptr() as usize - text.as_ptr() as usize;
            self.field(&name, raw, start)?;
        }
        self.finish(body.len())
    }

    fn field(&mut self, name: &str, raw: &str, start: usize) -> Result<(), Invalid> {
        let (known, kind) = params::of(self.route, name);
        match kind {
            Kind::Model => self.model = Some(model(raw)?),
            Kind::Prompt(place) => {
                self.walk.value(name, raw, place)?;
                self.seen_prompt = true;
            }
            Kind::Text if raw != "null" => {
                self.walk.value(name, raw, Place::Text)?;
                self.walk.messages += 1;
                self.seen_suffix |= known == Some("suffix");
            }
            Kind::Text => {}
            Kind::Stream => self.stream = boolean(name, raw)?,
            Kind::StreamOptions => self.stream_options = stream_options(raw, &mut self.walk)?,
            Kind::Echo => self.echo = boolean(name, raw)?,
            Kind::Choices => {
                let choices = whole(name, raw, MAX_CHOICES)?;
                if name == "n" {
                    self.shown_choices = choices;
                }
                self.choices = self.choices.max(choices);
            }
            Kind::OutputCap => self.output_cap(name, raw)?,
            Kind::Tools(place) if raw != "null" => {
                self.walk.tools(name, raw, place)?;
                self.judge(name, raw);
            }
            Kind::Tools(_) => {}
            Kind::Store => self.store = boolean(name, raw)?,
            Kind::ServiceTier => self.walk.value(name, raw, Place::Uncounted)?,
            Kind::Include => self.include = names(name, raw, &mut self.walk)?,
            Kind::Plain => {
                // A template may write some of them out. As they are meant to be, they are too short
                // to matter, but for two that may be long and are never text.
                let uncounted =
                    raw.len() <= SHORT_PARAM_BYTES || matches!(name, "logit_bias" | "metadata");
                let place = if uncounted {
                    Place::Uncounted
                } else {
                    Place::Text
                };
                self.walk.value(name, raw, place)?;
                self.judge(name, raw);
            }
            Kind::Modalities => {
                self.walk.value(name, raw, Place::Uncounted)?;
                if raw != "null" && !only_text(raw) {
                    self.walk.audio = true;
                    note(&mut self.costly, name)?;
                }
            }
            Kind::Costly => {
                self.walk.outside(name, raw)?;
                if raw == "null" {
                    // The same as absent; so it is not forwarded either.
                    return Ok(());
                }
                self.walk.audio |= name == "audio";
                note(&mut self.costly, name)?;
            }
            Kind::Unknown => {
                if let Some(known) = params::in_another_case(self.route, name) {
                    return Err(Invalid::at(
                        strict::shortened(name),
                        format!(
                            "this is {known} in another case, which some servers take for it: write {known}"
                        ),
                    ));
                }
                // Where it is let through, a template may write it into the prompt.
                self.walk.outside(name, raw)?;
                note(&mut self.unknown, name)?;
            }
        }
        self.fields.push(Field {
            name: known.map_or_else(|| Cow::Owned(name.to_owned()), Cow::Borrowed),
            kind,
            value: start..start + raw.len(),
        });
        Ok(())
    }

    /// Reads what a capability is about.
    fn judge(&mut self, name: &str, raw: &str) {
        match name {
            "temperature" => self.temperature = judged::temperature(raw),
            "parallel_tool_calls" => self.parallel_tool_calls = judged::parallel(raw),
            "response_format" => self.structured_output |= judged::prescribes_form(raw),
            "text" => self.structured_output |= judged::text_prescribes_form(raw),
            _ => {}
        }
    }

    fn output_cap(&mut self, name: &str, raw: &str) -> Result<(), Invalid> {
        let Some(cap) = whole(name, raw, MAX_OUTPUT_CAP)? else {
            return Ok(());
        };
        if let Some((other, _)) = self.output_cap.replace((name.to_owned(), cap)) {
            return Err(Invalid::at(
                name,
                format!("{other} and {name} are both set; send one of them"),
            ));
        }
        Ok(())
    }

    fn finish(self, body_bytes: usize) -> Result<ApiRequest, Invalid> {
        let missing = |name| Invalid::at(name, format!("{name} is missing"));
        let model = self.model.ok_or_else(|| missing("model"))?;
        if !self.seen_prompt {
            return Err(missing(params::prompt_name(self.route)));
        }
        if self.stream_options.is_some() && !self.stream {
            return Err(Invalid::at(
                "stream_options",
                "stream_options is only for requests with \"stream\": true",
            ));
        }
        let mut walk = self.walk;
        if self.seen_suffix && walk.prompts > 1 {
            // It is read, and billed, once more with each of them.
            return Err(Invalid::at(
                "suffix",
                "suffix is for one prompt; send the prompts one by one",
            ));
        }
        let mut costly = self.costly;
        for kind in &walk.hosted_tools {
            note(&mut costly, &format!("tools[].type {kind}"))?;
        }
        for kind in &walk.stored_items {
            note(&mut costly, &format!("input[].type {kind}"))?;
        }
        if walk.hides_tools {
            walk.chosen.push(HIDDEN_TOOLS.to_owned());
        }
        let choices = self.choices.unwrap_or(1);
        let echoed_tokens = if self.echo {
            (walk.ascii_bytes + walk.other_bytes + walk.token_ids).saturating_mul(choices)
        } else {
            0
        };
        let options = self.stream_options.unwrap_or_default();
        Ok(ApiRequest {
            route: self.route,
            model,
            stream: self.stream,
            include_usage: options.include_usage == Some(true),
            echoed_tokens,
            hides_choices: self.choices > Some(self.shown_choices.unwrap_or(1)),
            include_obfuscation: options.include_obfuscation,
            include: self.include,
            store: self.store,
            left_out: std::mem::take(&mut walk.left_out),
            cut: None,
            fields: self.fields,
            facts: Facts {
                body_bytes: body_bytes as u64,
                measured: walk.measured(),
                measured_by: None,
                ascii_bytes: walk.ascii_bytes,
                other_bytes: walk.other_bytes,
                messages: walk.messages,
                prompts: walk.prompts,
                token_ids: walk.token_ids,
                tool_bytes: walk.tool_bytes,
                output_cap: self.output_cap.map(|(_, cap)| cap),
                choices,
                stream: self.stream,
                tools: names_of(&walk.offers),
                chosen_tools: walk.chosen,
                parallel_tool_calls: self.parallel_tool_calls,
                structured_output: self.structured_output,
                temperature: self.temperature,
                images: walk.images,
                media: walk.media,
                audio: walk.audio,
                files: walk.files,
                other_media: walk.other_media,
                unknown_params: self.unknown,
                nested_params: walk.nested,
                costly_params: costly,
                own_key: false,
                session: None,
            },
            offers: walk.offers,
        })
    }
}

/// Names of the tools that are not hosted ones.
fn names_of(offers: &[Offer]) -> Vec<String> {
    let named = offers.iter().filter(|offer| !offer.hosted);
    named.map(|offer| offer.name.clone()).collect()
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

/// A list of short names.
fn names(name: &str, raw: &str, walk: &mut Walk) -> Result<Vec<String>, Invalid> {
    walk.value(name, raw, Place::Uncounted)?;
    if raw == "null" {
        return Ok(Vec::new());
    }
    let list = serde_json::from_str::<Vec<String>>(raw);
    let short = |list: &Vec<String>| {
        list.len() <= MAX_NAMED_PARAMS && list.iter().all(|item| item.len() <= MAX_PARAM_BYTES)
    };
    list.ok().filter(short).ok_or_else(|| {
        Invalid::at(
            name,
            format!("{name} must be a list of at most {MAX_NAMED_PARAMS} short names"),
        )
    })
}

fn only_text(raw: &str) -> bool {
    serde_json::from_str::<Vec<Cow<'_, str>>>(raw)
        .is_ok_and(|list| list.len() == 1 && list[0] == "text")
}

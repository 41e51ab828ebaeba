//! What a request asks for, whichever route it came by, and what it costs and gets.
//!
//! Pure. The routes read a request into [`Asked`]; from [`Plan`] they write the answer.

use std::borrow::Cow;
use std::sync::Arc;

use hyper::StatusCode;
use serde_json::Value;
use serde_json::value::RawValue;

use super::behaviour::{Behaviour, NATURAL_TOKENS};
use super::greed::Knobs;

/// One output token, as text.
pub const TOKEN_TEXT: &str = "tok ";
/// Letters of a token of a text that was asked for.
const TOKEN_CHARS: usize = 4;
/// More is not generated, whatever a request or behaviour says.
const MAX_TOKENS: u64 = 2_000_000;
const MAX_CHOICES: u64 = 128;
const MAX_PROMPTS: u64 = 2048;
/// What the greedy generate where nothing limits them, and the most of it that they show.
pub(super) const GREEDY_TOKENS: u64 = 100_000;
const MAX_GREEDY_SHOWN: u64 = 2048;

/// A request that the provider does not serve. Nothing is billed.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    pub text: String,
}

impl Refusal {
    pub(super) fn bad(text: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            text: text.into(),
        }
    }
}

impl From<serde_json::Error> for Refusal {
    fn from(problem: serde_json::Error) -> Self {
        Self::bad(format!("cannot read the request: {problem}"))
    }
}

/// What a request asks for.
#[derive(Debug)]
pub struct Asked<'a> {
    pub model: Cow<'a, str>,
    pub stream: bool,
    pub stream_options: Option<StreamOptions>,
    /// Tokens of everything that is read.
    pub prompt: u64,
    /// Prompts, each of which is answered.
    pub prompts: u64,
    /// Answers to one prompt that are shown (`n`).
    pub choices: Option<u64>,
    /// Answers to one prompt that are generated.
    pub best_of: Option<u64>,
    pub cap: Option<u64>,
    /// The last message is a tool's result.
    pub after_tool: bool,
    pub form: Form<'a>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
pub struct StreamOptions {
    #[serde(default)]
    pub include_usage: Option<bool>,
    #[serde(default)]
    pub continuous_usage_stats: Option<bool>,
}

/// What only one route's answer needs.
#[derive(Debug)]
pub enum Form<'a> {
    Chat,
    /// The prompts, where they are to be repeated in the answers.
    Completions {
        echo: Vec<String>,
    },
    Embeddings {
        inputs: usize,
        dimensions: usize,
        base64: bool,
    },
    Responses {
        tools: Option<&'a RawValue>,
        format: Option<&'a RawValue>,
        instructions: Option<Cow<'a, str>>,
        encrypted_reasoning: bool,
        stored: bool,
    },
}

/// What is shown of one answer, token by token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// This many times [`TOKEN_TEXT`].
    Words(u64),
    Text(Arc<[String]>),
    Call {
        name: Arc<str>,
        arguments: Arc<[String]>,
        /// As `function_call`, where the route knows that.
        legacy: bool,
    },
}

/// Cut into tokens.
fn tokens_of(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    chars.chunks(TOKEN_CHARS).map(String::from_iter).collect()
}

impl Shown {
    #[must_use]
    pub fn tokens(&self) -> u64 {
        match self {
            Self::Words(count) => *count,
            Self::Text(tokens)
            | Self::Call {
                arguments: tokens, ..
            } => tokens.len() as u64,
        }
    }

    /// `count` tokens of it, `from` the given one.
    #[must_use]
    pub fn slice(&self, from: u64, count: u64) -> String {
        let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        match self {
            Self::Words(_) => TOKEN_TEXT.repeat(index(count)),
            Self::Text(tokens)
            | Self::Call {
                arguments: tokens, ..
            } => tokens
                .iter()
                .skip(index(from))
                .take(index(count))
                .map(String::as_str)
                .collect(),
        }
    }

    #[must_use]
    pub fn whole(&self) -> String {
        self.slice(0, self.tokens())
    }

    /// The answer as far as `room` goes, and whether that ended it.
    fn of(asked: &Asked<'_>, behaviour: &Behaviour, room: u64) -> (Self, bool) {
        let within = |text: &str| -> (Arc<[String]>, bool) {
            let mut tokens = tokens_of(text);
            let whole = tokens.len();
            tokens.truncate(usize::try_from(room).unwrap_or(usize::MAX));
            let cut = tokens.len() < whole;
            (tokens.into(), cut)
        };
        if let (Some(call), false) = (&behaviour.tool_call, asked.after_tool) {
            let (arguments, cut) = within(&match &call.arguments {
                Value::Null => "{}".to_owned(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            });
            let name = call.name.as_str().into();
            let legacy = call.legacy;
            return (
                Self::Call {
                    name,
                    arguments,
                    legacy,
                },
                cut,
            );
        }
        if let Some(text) = &behaviour.text {
            let (tokens, cut) = within(text);
            return (Self::Text(tokens), cut);
        }
        let natural = behaviour.natural_tokens.unwrap_or(NATURAL_TOKENS);
        let fills = behaviour.greedy || (behaviour.fill && asked.cap.is_some());
        let words = if fills { room } else { natural.min(room) };
        (Self::Words(words), words == room)
    }
}

/// What one request costs and gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub prompt: u64,
    pub cached: u64,
    /// Answers that are shown, of all prompts.
    pub choices: u64,
    /// Answers that are generated, of all prompts; never fewer.
    pub generated: u64,
    /// Of one choice.
    pub shown: Shown,
    /// Of one choice: billed, and never shown.
    pub hidden: u64,
    /// Billed on top, once.
    pub extra: u64,
    /// Each token is billed this many times, and told once.
    pub factor: u64,
    pub fees: u64,
    pub kept: u64,
    /// The cap ended it.
    pub capped: bool,
}

impl Plan {
    #[must_use]
    pub fn of(asked: &Asked<'_>, behaviour: &Behaviour, knobs: &Knobs) -> Self {
        let limit = match asked.cap.max(knobs.cap) {
            _ if matches!(asked.form, Form::Embeddings { .. }) => 0,
            _ if behaviour.ignore_cap => MAX_TOKENS,
            Some(cap) => cap.min(MAX_TOKENS),
            None if behaviour.greedy => GREEDY_TOKENS,
            None => MAX_TOKENS,
        };
        let mut hidden = behaviour.reasoning_tokens.min(limit);
        let mut room = limit - hidden;
        if behaviour.greedy {
            room = room.min(MAX_GREEDY_SHOWN);
        }
        let (shown, capped) = Shown::of(asked, behaviour, room);
        if behaviour.greedy {
            hidden = limit - shown.tokens();
        }
        let choices = asked.choices.max(knobs.choices).unwrap_or(1);
        let choices = choices.clamp(1, MAX_CHOICES);
        let best_of = asked.best_of.max(knobs.best_of).unwrap_or(1);
        let prompts = asked.prompts.clamp(1, MAX_PROMPTS);
        Self {
            prompt: asked.prompt,
            cached: if behaviour.shape.tells_cached() {
                behaviour.cached_tokens.min(asked.prompt)
            } else {
                0
            },
            choices: prompts * choices,
            generated: prompts * choices.max(best_of.min(MAX_CHOICES)),
            shown,
            hidden,
            extra: knobs.extra_tokens,
            factor: knobs.factor,
            fees: knobs.fees,
            kept: knobs.kept,
            capped,
        }
    }

    /// Output tokens, as they are told.
    #[must_use]
    pub fn completion(&self) -> u64 {
        self.generated * (self.shown.tokens() + self.hidden) + self.extra
    }

    /// Of these, the ones that no choice shows.
    #[must_use]
    pub fn unseen(&self) -> u64 {
        self.completion() - self.choices * self.shown.tokens()
    }

    /// Of these, the ones that were thought.
    #[must_use]
    pub fn reasoning(&self) -> u64 {
        self.generated * self.hidden
    }

    pub(super) fn finish_reason(&self) -> &'static str {
        match self.shown {
            Shown::Call { legacy: true, .. } if !self.capped => "function_call",
            Shown::Call { .. } if !self.capped => "tool_calls",
            _ if self.capped => "length",
            _ => "stop",
        }
    }
}

//! `/v1/completions`: one prompt or many, as text or as tokens.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Deserialize;

use super::super::count::Counter;
use super::super::plan::{Asked, Form, Refusal, Shown, StreamOptions, TOKEN_TEXT};
use super::super::script::Script;
use super::super::usage;
use super::chunks::{self, Choice};
use super::{CREATED, Exchange, json_string};

#[derive(Debug, Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    prompt: Texts,
    #[serde(default)]
    suffix: Option<String>,
    #[serde(default)]
    echo: Option<bool>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    #[serde(default)]
    n: Option<u64>,
    #[serde(default)]
    best_of: Option<u64>,
    #[serde(default)]
    max_tokens: Option<u64>,
}

/// What prompts and inputs may be.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Texts {
    One(String),
    Tokens(Vec<u64>),
    Many(Vec<String>),
    ManyTokens(Vec<Vec<u64>>),
}

/// A prompt, and how many tokens it has.
pub(super) struct Text {
    pub(super) text: String,
    pub(super) tokens: u64,
}

impl Texts {
    pub(super) fn each(self, counter: Counter) -> Vec<Text> {
        let text = |text: String| Text {
            tokens: counter.text(&text) + counter.per_prompt(),
            text,
        };
        let given = |tokens: Vec<u64>| Text {
            text: TOKEN_TEXT.repeat(tokens.len()),
            tokens: tokens.len() as u64,
        };
        match self {
            Self::One(one) => vec![text(one)],
            Self::Tokens(tokens) => vec![given(tokens)],
            Self::Many(many) => many.into_iter().map(text).collect(),
            Self::ManyTokens(many) => many.into_iter().map(given).collect(),
        }
    }
}

pub(super) fn read(body: &[u8], counter: Counter) -> Result<Asked<'_>, Refusal> {
    let request: Request<'_> = serde_json::from_slice(body)?;
    let prompts = request.prompt.each(counter);
    let choices = request.n.unwrap_or(1);
    if request.best_of.is_some_and(|best_of| best_of < choices) {
        return Err(Refusal::bad("best_of must not be less than n"));
    }
    let suffix = request
        .suffix
        .as_deref()
        .map_or(0, |suffix| counter.text(suffix));
    Ok(Asked {
        model: request.model,
        stream: request.stream == Some(true),
        stream_options: request.stream_options,
        prompt: prompts.iter().map(|prompt| prompt.tokens + suffix).sum(),
        prompts: prompts.len() as u64,
        choices: request.n,
        best_of: request.best_of,
        cap: request.max_tokens,
        after_tool: true,
        form: Form::Completions {
            echo: match request.echo {
                Some(true) => prompts.into_iter().map(|prompt| prompt.text).collect(),
                _ => Vec::new(),
            },
        },
    })
}

/// The prompt that is repeated before each choice; the choices of a prompt stand together.
fn echoes(exchange: &Exchange<'_>) -> Vec<String> {
    let Form::Completions { echo } = &exchange.asked.form else {
        return Vec::new();
    };
    let each = exchange.plan.choices / exchange.asked.prompts.max(1);
    let repeat =
        |text: &String| std::iter::repeat_n(text.clone(), usize::try_from(each).unwrap_or(1));
    echo.iter().flat_map(repeat).collect()
}

pub(super) fn plain(exchange: &Exchange<'_>) -> String {
    let Exchange {
        plan,
        number,
        model,
        ..
    } = exchange;
    let (echoes, text) = (echoes(exchange), plan.shown.whole());
    let mut out = String::with_capacity(640 + text.len());
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        r#"{{"id":"cmpl-sim-{number}","object":"text_completion","created":{CREATED},"model":{model},"choices":["#
    );
    let mut echoes = echoes.iter();
    for index in 0..plan.choices {
        let comma = if index == 0 { "" } else { "," };
        let echo = echoes.next().map_or("", String::as_str);
        let text = json_string(&format!("{echo}{text}"));
        let _ = write!(
            out,
            r#"{comma}{{"text":{text},"index":{index},"logprobs":null,"finish_reason":"{}"}}"#,
            plan.finish_reason()
        );
    }
    out.push(']');
    if let Some(usage) = usage::told(plan, exchange.behaviour) {
        let _ = write!(out, r#","usage":{usage}"#);
    }
    out.push('}');
    out
}

#[derive(Debug)]
struct Plain {
    echoes: Vec<String>,
}

impl Choice for Plain {
    fn opens(&self, choice: u64) -> Vec<String> {
        let echo = usize::try_from(choice)
            .ok()
            .and_then(|at| self.echoes.get(at));
        echo.map(|echo| self.shows(echo)).into_iter().collect()
    }

    fn shows(&self, text: &str) -> String {
        format!(r#""text":{}"#, json_string(text))
    }

    fn ends(&self) -> String {
        r#""text":"""#.to_owned()
    }
}

pub(super) fn script(exchange: &Exchange<'_>) -> Script {
    debug_assert!(!matches!(exchange.plan.shown, Shown::Call { .. }));
    let choice = Plain {
        echoes: echoes(exchange),
    };
    chunks::script(exchange, "cmpl", "text_completion", choice)
}

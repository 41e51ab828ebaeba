//! The routes that are billed: one file each, with what its requests look like and how it answers.

mod chat;
mod chunks;
mod completions;
mod embeddings;
mod responses;

use bytes::Bytes;
use hyper::StatusCode;

use super::behaviour::{Behaviour, Shape};
use super::count::Counter;
use super::greed::Knobs;
use super::plan::{Asked, Plan, Refusal};
use super::script::Script;

/// Fixed, so that two equal requests get equal answers.
pub(super) const CREATED: u64 = 1_750_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    Chat,
    Completions,
    Embeddings,
    Responses,
}

/// A request that was read, and all that its answer is made of.
pub struct Exchange<'a> {
    pub asked: Asked<'a>,
    pub plan: Plan,
    pub behaviour: &'a Behaviour,
    pub number: u64,
    /// `model`, as JSON.
    model: String,
}

impl Route {
    /// The path without its version.
    #[must_use]
    pub fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/chat/completions" => Self::Chat,
            "/completions" => Self::Completions,
            "/embeddings" => Self::Embeddings,
            "/responses" => Self::Responses,
            _ => return None,
        })
    }

    /// What the greedy find in a request, and what is left of it to read.
    ///
    /// # Errors
    /// It is no JSON object.
    pub fn take_knobs(self, body: &[u8]) -> Result<(Knobs, Vec<u8>), Refusal> {
        Ok(Knobs::take(body, self == Self::Responses)?)
    }

    /// # Errors
    /// The provider does not serve this request.
    pub fn read<'a>(
        self,
        body: &'a [u8],
        behaviour: &'a Behaviour,
        knobs: &Knobs,
        number: u64,
    ) -> Result<Exchange<'a>, Refusal> {
        let counter = Counter::of(behaviour);
        let mut asked = match self {
            Self::Chat => chat::read(body, counter)?,
            Self::Completions => completions::read(body, counter)?,
            Self::Embeddings => embeddings::read(body, counter)?,
            Self::Responses => responses::read(body, counter)?,
        };
        if let Some(model) = &knobs.model {
            asked.model = model.clone().into();
        }
        refuse(&asked, behaviour.shape)?;
        let plan = Plan::of(&asked, behaviour, knobs);
        Ok(Exchange {
            model: json_string(&asked.model),
            asked,
            plan,
            behaviour,
            number,
        })
    }

    /// A whole plain answer.
    #[must_use]
    pub fn plain(self, exchange: &Exchange<'_>) -> Bytes {
        if let Some(raw) = &exchange.behaviour.raw_body {
            return Bytes::copy_from_slice(raw.as_bytes());
        }
        Bytes::from(match self {
            Self::Chat => chat::plain(exchange),
            Self::Completions => completions::plain(exchange),
            Self::Embeddings => embeddings::plain(exchange),
            Self::Responses => responses::plain(exchange),
        })
    }

    /// A streamed one, where that was asked for.
    #[must_use]
    pub fn script_if_streamed(self, exchange: &Exchange<'_>) -> Option<Script> {
        if !exchange.asked.stream {
            return None;
        }
        if let Some(raw) = &exchange.behaviour.raw_body {
            return Some(Script::raw(raw));
        }
        match self {
            Self::Chat => Some(chat::script(exchange)),
            Self::Completions => Some(completions::script(exchange)),
            Self::Embeddings => None,
            Self::Responses => Some(responses::script(exchange)),
        }
    }
}

/// What a family is known not to take.
fn refuse(asked: &Asked<'_>, shape: Shape) -> Result<(), Refusal> {
    match shape {
        Shape::Mistral if asked.stream_options.is_some() => Err(Refusal {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            text: "stream_options: extra inputs are not permitted".to_owned(),
        }),
        Shape::Anthropic if asked.choices.is_some_and(|n| n != 1) => {
            Err(Refusal::bad("n must be 1"))
        }
        _ => Ok(()),
    }
}

fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests;

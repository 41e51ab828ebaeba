//! The shape of the Responses API's answers, as far as usage needs it: the response itself, and the
//! events of its stream. Everything else is skipped unread.

use std::borrow::Cow;

use serde::Deserialize;

use super::document::{Object, Reported, Text};

/// A whole response, or one inside an event.
#[derive(Deserialize)]
pub(super) struct Response {
    #[serde(default)]
    pub(super) usage: Option<Reported>,
    #[serde(default)]
    pub(super) output: Option<Text>,
}

/// One event of a stream.
#[derive(Deserialize)]
pub(super) struct Event<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Cow<'a, str>,
    /// A piece of text, arguments or reasoning.
    #[serde(default)]
    pub(super) delta: Text,
    /// An output item, whole in its last event.
    #[serde(default)]
    pub(super) item: Text,
    #[serde(default)]
    pub(super) response: Option<Object<Response>>,
}

impl Event<'_> {
    /// After it nothing more comes, and only it tells the usage.
    pub(super) fn is_terminal(&self) -> bool {
        matches!(
            &*self.kind,
            "response.completed" | "response.incomplete" | "response.failed"
        )
    }

    /// Output that its own pieces have told already.
    pub(super) fn repeated_bytes(&self) -> u64 {
        match &*self.kind {
            "response.output_item.done" => self.item.0,
            _ => 0,
        }
    }
}

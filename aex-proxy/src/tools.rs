//! What a model calls in its answer, under the rules of its token: a call of a tool that was not
//! forwarded is refused or cut out, plain and streamed.
//!
//! Pure: an answer or its events go in, what the client may have comes out. A token without rules of
//! tools never comes here. Absent on purpose: which tools are allowed. That was decided when the
//! request was forwarded; here a call is compared with what was.

mod chat;
mod event;
mod json;
mod responses;
mod stray;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashSet;

use aex_admin_proto::tools::{hosted_text, tool_text};
use aex_admin_proto::worker::Route;
use bytes::Bytes;

/// What an answer may call.
#[derive(Debug, Clone, Default)]
pub struct Offered {
    pub names: HashSet<String>,
    /// Types of hosted tools.
    pub hosted: HashSet<String>,
    /// One call a message.
    pub one_call: bool,
    /// A forbidden call ends the answer; else it is cut out.
    pub refuses: bool,
}

/// Why an answer does not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The capability that it would need.
    Forbidden(String),
    /// It is not in a form that can be judged.
    Unreadable,
}

/// A plain answer, judged.
#[derive(Debug, PartialEq, Eq)]
pub enum Plain {
    AsItIs,
    /// Without these places.
    Without {
        body: Vec<u8>,
        places: Vec<String>,
    },
}

impl Offered {
    /// Answers of the route can have calls.
    #[must_use]
    pub fn concerns(route: Route) -> bool {
        matches!(route, Route::ChatCompletions | Route::Responses)
    }

    /// Judges a whole answer.
    ///
    /// # Errors
    /// It must not reach the client.
    pub fn plain(&self, route: Route, body: &[u8]) -> Result<Plain, Stop> {
        let text = std::str::from_utf8(body).map_err(|_| Stop::Unreadable)?;
        let (rewritten, places) = match route {
            Route::ChatCompletions => chat::plain(self, text)?,
            Route::Responses => responses::plain(self, text)?,
            Route::Completions | Route::Embeddings => (None, Vec::new()),
        };
        Ok(match rewritten {
            None => Plain::AsItIs,
            Some(text) => Plain::Without {
                body: text.into_bytes(),
                places,
            },
        })
    }

    /// What a call by these names would need, where one of them was not offered.
    fn forbids_named(&self, names: &[impl AsRef<str>]) -> Option<String> {
        let unknown = |name: &&str| !self.names.contains(*name);
        let mut names = names.iter().map(AsRef::as_ref).peekable();
        if names.peek().is_none() {
            return Some(tool_text(""));
        }
        names.find(unknown).map(tool_text)
    }

    /// The same of a call that the provider carries out, by the item's type: `web_search_call` is of
    /// `web_search` and of `web_search_preview`. A type that has no versions is of itself alone.
    fn forbids_hosted(&self, item_type: &str) -> Option<String> {
        let base = hosted_base(item_type);
        let has_versions = HAVE_VERSIONS.contains(&base);
        let is_version = |kind: &str| {
            let rest = kind.strip_prefix(base);
            has_versions && rest.is_some_and(|rest| rest.starts_with('_'))
        };
        let is_of = |kind: &String| kind == base || is_version(kind);
        (!self.hosted.iter().any(is_of)).then(|| hosted_text(base))
    }

    /// The same of a name that a hosted call bears: it may be its tool's own. Without one nothing.
    fn forbids_name_of_hosted(&self, names: &[impl AsRef<str>]) -> Option<String> {
        let mut names = names.iter().map(AsRef::as_ref);
        let known = |name: &str| self.names.contains(name) || self.hosted.contains(name);
        names
            .find(|name| !name.is_empty() && !known(name))
            .map(tool_text)
    }

    /// A forbidden call: the end, or one that is cut out.
    fn forbidden(&self, capability: String) -> Result<(), Stop> {
        if self.refuses {
            Err(Stop::Forbidden(capability))
        } else {
            Ok(())
        }
    }
}

/// Hosted tools that are offered in several versions, each as this type and more.
const HAVE_VERSIONS: [&str; 9] = [
    "web_search",
    "file_search",
    "code_interpreter",
    "computer",
    "image_generation",
    "local_shell",
    "shell",
    "apply_patch",
    "mcp",
];

/// Of which hosted tool an item is, by the item's type.
fn hosted_base(item_type: &str) -> &str {
    let mut base = item_type;
    for suffix in ["_output", "_call", "_list_tools", "_approval_request"] {
        base = base.strip_suffix(suffix).unwrap_or(base);
    }
    base
}

/// A key as those read it that do not mind the case: with it two letters beyond ASCII.
pub(crate) fn folded(key: &str) -> Cow<'_, str> {
    let plain = |b: u8| b.is_ascii() && !b.is_ascii_uppercase();
    if key.bytes().all(plain) {
        return Cow::Borrowed(key);
    }
    let fold = |letter: char| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    Cow::Owned(key.chars().map(fold).collect())
}

/// What a second call of a message would need.
const PARALLEL: &str = "parallel tool calls";

/// Judges a stream, event by event.
#[derive(Debug)]
pub enum Stream {
    Chat(chat::Stream),
    Responses(responses::Stream),
}

impl Stream {
    /// Nothing for a route whose answers have no calls.
    #[must_use]
    pub fn new(route: Route, offered: Offered) -> Option<Self> {
        match route {
            Route::ChatCompletions => Some(Self::Chat(chat::Stream::new(offered))),
            Route::Responses => Some(Self::Responses(responses::Stream::new(offered))),
            Route::Completions | Route::Embeddings => None,
        }
    }

    /// Takes in one whole event; `out` gets what the client may have by now, in order.
    ///
    /// # Errors
    /// Nothing more may reach the client. What is in `out` still may.
    pub fn event(&mut self, event: Bytes, out: &mut Vec<Bytes>) -> Result<(), Stop> {
        let event = event::one_reading(event)?;
        match self {
            Self::Chat(stream) => stream.event(event, out),
            Self::Responses(stream) => stream.event(event, out),
        }
    }

    /// The stream came to its end: gives what was held back.
    ///
    /// # Errors
    /// As with an event.
    pub fn end(&mut self, out: &mut Vec<Bytes>) -> Result<(), Stop> {
        match self {
            Self::Chat(stream) => stream.end(out),
            Self::Responses(_) => Ok(()),
        }
    }
}

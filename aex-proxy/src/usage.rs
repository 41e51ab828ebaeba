//! Reads what a provider says it used: pure, document by document, one answer under any chunking.
//!
//! A document is a whole JSON answer or the data of one SSE event. The last usage that is not null
//! wins, at the top level alone; `x_groq.usage` counts where there is no other. The Responses API tells
//! it in the last event of a stream, inside the response. An explicit zero is a figure; a negative, fractional, absurd or doubled one is not believed. One that visible output
//! follows was not the last word: it counts as missing.

mod document;
mod responses;
mod template;

use aex_admin_proto::worker::{Route, Usage, UsageChunks, UsageSeen};
use serde::Deserialize;

use document::{Document, Object, Reported};
use template::Template;

/// No request uses more tokens than this; a figure above it is an error or a lie.
pub const MAX_BELIEVED_TOKENS: u64 = 100_000_000;

/// Longer than the tokens of any text are on the average: English has 4 to 5 bytes a token, code with
/// deep indents 6 to 8.
const LONG_TOKEN_BYTES: u64 = 24;

/// What the documents of one answer said so far.
#[derive(Debug, Default)]
pub struct Tally {
    route: Route,
    top_level: Option<UsageSeen>,
    groq: Option<UsageSeen>,
    /// A document was not JSON, or ambiguous: nothing it said can be believed.
    unreadable: bool,
    finished: bool,
    /// Usages that stood alone in their document.
    chunks: UsageChunks,
    /// Visible output came after the last usage.
    outdated: bool,
    output_bytes: u64,
    /// Output told again as a whole, after its pieces.
    repeated_bytes: u64,
    /// Documents of a stream that bore visible output: none bears less than a token.
    output_chunks: u64,
    template: Template,
}

/// What one document is, to whoever relays it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Usage and an empty list of choices: sent because it was asked for.
    UsageOnly,
    Other,
}

impl Tally {
    /// For the answer of a request to `route`.
    #[must_use]
    pub fn new(route: Route) -> Self {
        Self {
            route,
            ..Self::default()
        }
    }

    /// Takes in a document that is one of many.
    pub fn chunk(&mut self, json: &[u8]) -> Kind {
        if self.route == Route::Responses {
            self.event(json);
            return Kind::Other;
        }
        if let Some(bytes) = self.template.output_bytes(json) {
            self.count(bytes);
            return Kind::Other;
        }
        let Some(document) = read(json) else {
            self.unreadable = true;
            return Kind::Other;
        };
        if let Some(bytes) = text_alone(&document) {
            let read_text = |json: &[u8]| read(json).as_ref().and_then(text_alone);
            self.template.keep(json, bytes, read_text);
        }
        self.take_in(document)
    }

    /// Takes in one document.
    pub fn document(&mut self, json: &[u8]) -> Kind {
        if self.route == Route::Responses {
            match parse(json) {
                Some(response) => self.whole_response(response),
                None => self.unreadable = true,
            }
            return Kind::Other;
        }
        match read(json) {
            Some(document) => self.take_in(document),
            None => {
                self.unreadable = true;
                Kind::Other
            }
        }
    }

    /// Takes in an event of the Responses API.
    fn event(&mut self, json: &[u8]) {
        let Some(event) = parse::<responses::Event<'_>>(json) else {
            self.unreadable = true;
            return;
        };
        self.count(event.delta.0);
        let repeated_bytes = event.repeated_bytes();
        self.repeated_bytes = self.repeated_bytes.saturating_add(repeated_bytes);
        if event.is_terminal() {
            self.finished = true;
            if let Some(Object(response)) = event.response {
                self.whole_response(response);
            }
        }
    }

    fn whole_response(&mut self, response: responses::Response) {
        let usage = response.usage.and_then(believed);
        match response.output {
            Some(output) => self.repeated_bytes = self.repeated_bytes.max(output.0),
            // Whatever it is, its output cannot be counted.
            None if usage.is_none() => self.output_bytes = u64::MAX,
            None => {}
        }
        self.outdated &= usage.is_none();
        self.top_level = usage.or(self.top_level);
    }

    fn count(&mut self, output_bytes: u64) {
        self.output_bytes = self.output_bytes.saturating_add(output_bytes);
        self.outdated |= output_bytes > 0;
        self.output_chunks += u64::from(output_bytes > 0);
    }

    fn take_in(&mut self, document: Document) -> Kind {
        let of_groq = document.x_groq.and_then(|Object(groq)| groq.usage);
        let groq = of_groq.and_then(believed);
        let top_level = document.usage.and_then(believed);
        let said_usage = groq.is_some() || top_level.is_some();
        if document.choices.is_none() && !said_usage {
            // Whatever it is, its output cannot be counted.
            self.output_bytes = u64::MAX;
        }
        let choices = document.choices.unwrap_or_default();
        self.finished |= choices.finished;
        self.count(choices.output_bytes);
        let mut kind = Kind::Other;
        if let Some(seen) = top_level {
            if choices.present && choices.count == 0 {
                self.finished = true;
                kind = Kind::UsageOnly;
                if let UsageSeen::Reported(usage) = seen {
                    self.chunks.count += 1;
                    self.chunks.output = self.chunks.output.saturating_add(usage.output);
                }
            }
            self.top_level = Some(seen);
        }
        self.groq = groq.or(self.groq);
        self.outdated &= !said_usage;
        kind
    }

    /// The stream's own end mark came.
    pub fn done_mark(&mut self) {
        self.finished = true;
    }

    /// The answer's bytes cannot be read here (an unexpected encoding).
    pub fn unreadable(&mut self) {
        self.unreadable = true;
    }

    /// A finish reason, a usage chunk or the end mark was seen.
    #[must_use]
    pub fn finished(&self) -> bool {
        self.finished
    }

    /// Bytes of visible output: an upper bound of its tokens.
    #[must_use]
    pub fn output_bytes(&self) -> u64 {
        self.output_bytes.max(self.repeated_bytes)
    }

    /// A lower bound of the tokens that a stream has shown so far. A token has never been seen longer
    /// than [`LONG_TOKEN_BYTES`] on the average of a text.
    #[must_use]
    pub fn shown_tokens(&self) -> u64 {
        let reported = match self.usage() {
            UsageSeen::Reported(usage) => usage.output,
            UsageSeen::Missing | UsageSeen::Unreadable => 0,
        };
        let by_bytes = self.output_bytes / LONG_TOKEN_BYTES;
        self.output_chunks.max(by_bytes).max(reported)
    }

    #[must_use]
    pub fn usage(&self) -> UsageSeen {
        if self.unreadable {
            return UsageSeen::Unreadable;
        }
        match self.top_level.or(self.groq) {
            Some(UsageSeen::Reported(_)) if self.outdated => UsageSeen::Missing,
            seen => seen.unwrap_or_default(),
        }
    }

    /// The usages that stood alone, when there was more than one.
    #[must_use]
    pub fn usage_chunks(&self) -> Option<UsageChunks> {
        (self.chunks.count > 1).then_some(self.chunks)
    }
}

fn read(json: &[u8]) -> Option<Document> {
    parse(json)
}

fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Option<T> {
    // serde would read a list as a struct's fields in order.
    if json.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'{') {
        return None;
    }
    // Checked as UTF-8 in one go where it is, and else string by string, as far as they are read.
    let parsed = match std::str::from_utf8(json) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(json),
    };
    parsed.ok()
}

/// The output bytes of a document that tells of nothing else.
fn text_alone(document: &Document) -> Option<u64> {
    let choices = document.choices.as_ref()?;
    let groq = document
        .x_groq
        .as_ref()
        .and_then(|Object(groq)| groq.usage.as_ref());
    (document.usage.is_none() && groq.is_none() && !choices.finished)
        .then_some(choices.output_bytes)
}

/// The usage as AEX counts it; nothing for an object that names no tokens.
fn believed(reported: Reported) -> Option<UsageSeen> {
    match reported {
        Reported::Nonsense => Some(UsageSeen::Unreadable),
        Reported::Counts(counts) if counts == document::Counts::default() => None,
        Reported::Counts(counts) => {
            Some(normalised(&counts).map_or(UsageSeen::Unreadable, UsageSeen::Reported))
        }
    }
}

fn normalised(counts: &document::Counts) -> Option<Usage> {
    let prompt = counts.prompt?;
    // Some leave hidden output out of `completion_tokens` and count it in the total alone.
    let by_total = counts.total.and_then(|total| total.checked_sub(prompt));
    let output = match (counts.completion, by_total) {
        (Some(completion), Some(by_total)) => completion.max(by_total),
        (Some(completion), None) => completion,
        (None, by_total) => by_total?,
    };
    let usage = Usage {
        prompt,
        cached: counts
            .cached
            .unwrap_or(0)
            .max(counts.cache_hit.unwrap_or(0)),
        cache_write: counts.cache_write.unwrap_or(0),
        output,
        reasoning: counts.reasoning.unwrap_or(0),
    };
    let whole = usage.cached + usage.cache_write <= prompt && usage.reasoning <= output;
    whole.then_some(usage)
}

#[cfg(test)]
mod tests;

//! Writes the body that goes to the provider: the client's own values, and the few that AEX sets.

use std::borrow::Cow;

use aex_admin_proto::worker::{Grant, Route};
use serde::Serialize;
use serde_json::value::RawValue;

use super::offers::{Cut, Fate};
use super::params::Kind;
use super::{ApiRequest, Field};

/// Room for what AEX adds: a cap, `stream_options`, `store`, a tier.
const ADDED_BYTES: usize = 224;

/// A provider that keeps nothing gives the client its reasoning to bring back next time, if asked.
const ENCRYPTED_REASONING: &str = "reasoning.encrypted_content";

impl ApiRequest {
    /// The body to forward under `grant`. `body` is the one that this request was read from.
    ///
    /// Exactly one output cap is in it where the route has one, and no field that was not judged.
    #[must_use]
    pub fn forwarded(&self, body: &[u8], grant: &Grant) -> Vec<u8> {
        let mut out = Object::with_capacity(body.len() + grant.upstream_model.len() + ADDED_BYTES);
        let asks_for_usage = self.asks_for_usage(grant);
        let adds_reasoning = self.adds_reasoning(grant);
        for Field { name, kind, value } in &self.fields {
            let raw = &body[value.clone()];
            let null = raw == b"null";
            let fate = |cut: &Cut| cut.fate(name, *kind, raw);
            match self.cut.as_ref().map_or(Fate::Stays, fate) {
                Fate::Stays => {}
                Fate::Goes => continue,
                Fate::Becomes(list) => {
                    out.raw(name, &list);
                    continue;
                }
            }
            match kind {
                Kind::Model => out.value("model", &grant.upstream_model),
                // Each is set below, once, when the grant says so.
                Kind::OutputCap => {}
                Kind::StreamOptions if asks_for_usage || null => {}
                Kind::ServiceTier if grant.service_tier.is_some() || null => {}
                Kind::Store if grant.force_store_off || null => {}
                Kind::Include if adds_reasoning || null => {}
                Kind::Prompt(_) if !self.left_out.is_empty() => {
                    out.raw(name, &without(raw, &self.left_out));
                }
                // Whatever the provider makes of them: not dearer than the hold, and not kept.
                Kind::ServiceTier => out.raw("service_tier", br#""default""#),
                Kind::Store => out.raw("store", b"false"),
                _ => out.raw(name, raw),
            }
        }
        if self.route.generates() {
            out.value(&grant.output_cap_param, &grant.output_cap);
        }
        if asks_for_usage {
            let options: &[u8] = match self.include_obfuscation {
                None => br#"{"include_usage":true}"#,
                Some(false) => br#"{"include_usage":true,"include_obfuscation":false}"#,
                Some(true) => br#"{"include_usage":true,"include_obfuscation":true}"#,
            };
            out.raw("stream_options", options);
        }
        if grant.force_store_off {
            out.raw("store", b"false");
        }
        if adds_reasoning {
            let asked = self.include.iter().map(|item| Cow::Borrowed(item.as_str()));
            let all: Vec<_> = asked.chain([Cow::Borrowed(ENCRYPTED_REASONING)]).collect();
            out.value("include", &all);
        }
        if self.cut.as_ref().is_some_and(Cut::sets_one_call) {
            out.raw("parallel_tool_calls", b"false");
        }
        if let Some(tier) = &grant.service_tier {
            out.value("service_tier", tier);
        }
        out.finish()
    }

    /// Whether AEX sets `stream_options.include_usage`; the Responses API always tells.
    pub(crate) fn asks_for_usage(&self, grant: &Grant) -> bool {
        self.stream && grant.stream_usage && self.route != Route::Responses
    }

    /// A client that replays reasoning by its id finds nothing where nothing was stored.
    fn adds_reasoning(&self, grant: &Grant) -> bool {
        self.route == Route::Responses
            && grant.hidden_output
            && (grant.knows_store || self.store)
            && !self.include.iter().any(|item| item == ENCRYPTED_REASONING)
    }
}

/// A list without some of its elements.
pub(super) fn without(list: &[u8], left_out: &[usize]) -> Vec<u8> {
    let all: Vec<&RawValue> =
        serde_json::from_slice(list).expect("it was read as a list, and each place is of one");
    let kept: Vec<&RawValue> = all
        .into_iter()
        .enumerate()
        .filter_map(|(at, element)| (!left_out.contains(&at)).then_some(element))
        .collect();
    serde_json::to_vec(&kept).expect("raw values always serialise into memory")
}

struct Object {
    bytes: Vec<u8>,
}

impl Object {
    fn with_capacity(capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity);
        bytes.push(b'{');
        Self { bytes }
    }

    fn key(&mut self, name: &str) {
        if self.bytes.len() > 1 {
            self.bytes.push(b',');
        }
        self.json(name);
        self.bytes.push(b':');
    }

    fn json<T: Serialize + ?Sized>(&mut self, value: &T) {
        serde_json::to_writer(&mut self.bytes, value)
            .expect("strings and numbers always serialise into memory");
    }

    fn raw(&mut self, name: &str, json: &[u8]) {
        self.key(name);
        self.bytes.extend_from_slice(json);
    }

    fn value<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        self.key(name);
        self.json(value);
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes.push(b'}');
        self.bytes
    }
}

//! Writes the body that goes to the provider: the client's own values, and the few that AEX sets.

use aex_admin_proto::worker::Grant;
use serde::Serialize;

use super::params::Param;
use super::{ChatRequest, Field};

/// Room for what AEX adds: a cap, `stream_options`, `store`, a tier.
const ADDED_BYTES: usize = 192;

impl ChatRequest {
    /// The body to forward under `grant`. `body` is the one that this request was read from.
    ///
    /// Exactly one output cap is in it, and no field that was not judged.
    #[must_use]
    pub fn forwarded(&self, body: &[u8], grant: &Grant) -> Vec<u8> {
        let mut out = Object::with_capacity(body.len() + grant.upstream_model.len() + ADDED_BYTES);
        for Field { name, value } in &self.fields {
            let raw = &body[value.clone()];
            match name {
                Param::Model => out.value("model", &grant.upstream_model),
                // Each is set below, once, when the grant says so.
                Param::OutputCap(_) => {}
                Param::StreamOptions if self.asks_for_usage(grant) || raw == b"null" => {}
                Param::ServiceTier if grant.service_tier.is_some() => {}
                Param::Store if grant.force_store_off => {}
                Param::ServiceTier | Param::Store if raw == b"null" => {}
                // Whatever the provider makes of them: not dearer than the hold, and not kept.
                Param::ServiceTier => out.raw("service_tier", br#""default""#),
                Param::Store => out.raw("store", b"false"),
                other => out.raw(other.name(), raw),
            }
        }
        out.value(&grant.output_cap_param, &grant.output_cap);
        if self.asks_for_usage(grant) {
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
        if let Some(tier) = &grant.service_tier {
            out.value("service_tier", tier);
        }
        out.finish()
    }

    fn asks_for_usage(&self, grant: &Grant) -> bool {
        self.stream && grant.stream_usage
    }
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

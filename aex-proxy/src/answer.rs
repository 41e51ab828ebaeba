//! The one table that turns refusals and faults into HTTP. Pure.
//!
//! Clients read three things: the status, `detail` (the seed's scripts) and `error` (the OpenAI
//! SDKs). Some decide by the words of a text, so no text of a 402 or 403 speaks of rates.

mod table;

use aex_admin_proto::{HoldId, Refusal};
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::body::Outgoing;
use crate::headers;
use crate::request::Invalid;

/// Trouble that is not a refusal of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    NotAuthenticated,
    InvalidToken,
    NoRoute,
    NoModel(String),
    /// The agent has no token of that id.
    NoToken(i64),
    MethodNotAllowed {
        allow: &'static str,
    },
    Invalid(Invalid),
    BodyTooLarge {
        limit_bytes: u64,
    },
    UnsupportedType(&'static str),
    /// The client began a request and did not go on with it.
    TooSlow(&'static str),
    /// What the kernel refuses of a token, before the body is read.
    Refused(Refusal),
    /// The kernel cannot decide: fail closed.
    Kernel(String),
    Upstream(String),
    UpstreamTimeout,
    /// The agent was severed while its request was under way.
    Severed,
}

/// One row of the table: all that a client is told.
#[derive(Debug, Clone)]
pub struct Row {
    pub status: StatusCode,
    pub kind: &'static str,
    pub code: &'static str,
    pub message: String,
    pub param: Option<String>,
    pub figures: Map<String, Value>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Serialize)]
struct WithDetail<'a> {
    detail: &'a str,
    error: Inner<'a>,
}

#[derive(Serialize)]
struct InStream<'a> {
    error: Inner<'a>,
}

#[derive(Serialize)]
struct Inner<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    code: &'a str,
    param: Option<&'a str>,
    aex: &'a Map<String, Value>,
}

impl Fault {
    #[must_use]
    pub fn row(&self) -> Row {
        table::of_fault(self)
    }
}

/// The row of a refusal.
#[must_use]
pub fn of_refusal(refusal: &Refusal) -> Row {
    table::of_refusal(refusal)
}

impl Row {
    fn inner(&self) -> Inner<'_> {
        Inner {
            message: &self.message,
            kind: self.kind,
            code: self.code,
            param: self.param.as_deref(),
            aex: &self.figures,
        }
    }

    /// The body as it is sent.
    #[must_use]
    pub fn body(&self) -> Bytes {
        json(&WithDetail {
            detail: &self.message,
            error: self.inner(),
        })
    }

    /// The row as the last event of a stream that has begun.
    #[must_use]
    pub fn event(&self) -> Bytes {
        let json = json(&InStream {
            error: self.inner(),
        });
        let mut event = Vec::with_capacity(json.len() + 8);
        event.extend_from_slice(b"data: ");
        event.extend_from_slice(&json);
        event.extend_from_slice(b"\n\n");
        event.into()
    }

    /// The row as a response, with the request's id where it has one.
    #[must_use]
    pub fn response(self, id: Option<HoldId>) -> Response<Outgoing> {
        let mut response = Response::new(Outgoing::full(self.body()));
        *response.status_mut() = self.status;
        let head = response.headers_mut();
        head.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in self.headers {
            head.insert(name, value);
        }
        if let Some(id) = id {
            head.insert(headers::REQUEST_ID, id_value(id));
        }
        response
    }

    /// The row as raw HTTP/1.1, for a connection whose request head never became whole.
    #[must_use]
    pub fn raw(&self) -> Vec<u8> {
        let body = self.body();
        let mut out = format!(
            "HTTP/1.1 {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            self.status,
            body.len()
        )
        .into_bytes();
        out.extend_from_slice(&body);
        out
    }
}

/// A request's id as a header.
#[must_use]
pub fn id_value(id: HoldId) -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(id.as_bytes()) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    HeaderValue::from_bytes(&text).expect("an id is hexadecimal digits")
}

/// Gives a provider's error object the `detail` that the seed's scripts read. Nothing where it has
/// one, or is no JSON object.
#[must_use]
pub fn with_detail(body: &[u8]) -> Option<Bytes> {
    let object: Map<String, Value> = serde_json::from_slice(body).ok()?;
    if object.contains_key("detail") {
        return None;
    }
    let said = match object.get("error") {
        Some(Value::String(text)) => Some(text.as_str()),
        Some(Value::Object(error)) => error.get("message").and_then(Value::as_str),
        _ => object.get("message").and_then(Value::as_str),
    };
    let detail = serde_json::to_string(said.unwrap_or("The provider answered with an error"))
        .expect("a string always serialises");
    // Put in by text, so that the provider's own bytes stay as they are.
    let brace = body.iter().position(|&b| b == b'{')? + 1;
    let mut out = Vec::with_capacity(body.len() + detail.len() + 16);
    out.extend_from_slice(&body[..brace]);
    out.extend_from_slice(b"\"detail\":");
    out.extend_from_slice(detail.as_bytes());
    if !object.is_empty() {
        out.push(b',');
    }
    out.extend_from_slice(&body[brace..]);
    Some(out.into())
}

fn json<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value)
        .expect("texts and numbers always serialise")
        .into()
}

/// Headers of a row, by what they are for.
fn should_not_retry() -> (HeaderName, HeaderValue) {
    (
        HeaderName::from_static("x-should-retry"),
        HeaderValue::from_static("false"),
    )
}

fn retry_after(after_ms: u64) -> (HeaderName, HeaderValue) {
    // Clients sleep out whatever they are told, so it is never more than a minute.
    (RETRY_AFTER, after_ms.div_ceil(1000).clamp(1, 60).into())
}

fn allow(method: &'static str) -> (HeaderName, HeaderValue) {
    (ALLOW, HeaderValue::from_static(method))
}

#[cfg(test)]
mod tests;

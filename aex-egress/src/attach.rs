//! The rules for headers, both ways, and the answers that the egress makes itself. Pure.
//!
//! Upstream an allow-list: what is not named here does not reach a provider. Downstream a deny-list:
//! a provider's own headers help clients, except those that carry a secret, an account, or a
//! connection's business.
//!
//! Absent on purpose: keys (they are given ready to send), sockets, time, bodies.

use aex_admin_proto::egress::{FAILURE_HEADER, Failure};
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST,
    HeaderName, TRANSFER_ENCODING, USER_AGENT,
};
use http::{HeaderMap, HeaderValue, StatusCode};

/// Header by which a caller may name the provider it means; it must then be the ticket's.
pub const PROVIDER_HEADER: &str = "x-aex-provider";

/// What stands in for the body of an answer that [`refuses_key`].
pub const KEY_REFUSED_BODY: &[u8] = br#"{"error":{"message":"The provider refused the operator's key","type":"upstream_error","code":"upstream_error","param":null}}"#;

/// Longest own key that is looked at.
const MAX_KEY_BYTES: usize = 4096;

/// What a worker's request may hand to the provider, besides what the egress sets itself.
const PASSED_UP: [HeaderName; 2] = [CONTENT_TYPE, ACCEPT];

const AGENT: HeaderValue = HeaderValue::from_static(concat!("aex/", env!("CARGO_PKG_VERSION")));
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// Never passed down: hop-by-hop (RFC 9110, 7.6.1), secrets, accounts, and what only the egress may
/// say.
fn is_kept_back(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "set-cookie"
            | "set-cookie2"
            | "authorization"
            | "x-api-key"
            | "api-key"
            | "openai-organization"
            | "openai-project"
            | "anthropic-organization-id"
            | "x-groq-organization"
    ) || name.starts_with("x-aex-")
}

/// The length that the worker gives for its body; without one there is no body.
///
/// `None`: given more than once, unreadable, or there is a transfer coding.
#[must_use]
pub fn body_length(headers: &HeaderMap) -> Option<u64> {
    if headers.contains_key(TRANSFER_ENCODING) {
        return None;
    }
    if !headers.contains_key(CONTENT_LENGTH) {
        return Some(0);
    }
    let text = only(headers, &CONTENT_LENGTH)?.to_str().ok()?;
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// The one value of a header; nothing when it is absent or there are several.
pub fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut all = headers.get_all(name).iter();
    let first = all.next()?;
    all.next().is_none().then_some(first)
}

/// `Bearer <key>`, marked so that it is printed nowhere and never indexed by HPACK.
///
/// `None`: the key is empty, too long, or not visible ASCII.
#[must_use]
pub fn bearer(key: &[u8]) -> Option<HeaderValue> {
    if key.is_empty() || key.len() > MAX_KEY_BYTES || !key.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    let mut text = zeroize::Zeroizing::new(Vec::with_capacity(7 + key.len()));
    text.extend_from_slice(b"Bearer ");
    text.extend_from_slice(key);
    let mut value = HeaderValue::from_bytes(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The key in what [`bearer`] made.
#[must_use]
pub fn key_of(authorization: &HeaderValue) -> Option<&[u8]> {
    authorization.as_bytes().strip_prefix(b"Bearer ")
}

/// The headers of the request to the provider. `host` is absent for HTTP/2, where the URI says it.
#[must_use]
pub fn request_headers(
    given: &HeaderMap,
    authorization: Option<HeaderValue>,
    host: Option<&HeaderValue>,
    body_bytes: u64,
) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    if let Some(host) = host {
        headers.insert(HOST, host.clone());
    }
    for name in PASSED_UP {
        // Two of one kind are two readings of one request: neither is passed.
        if let Some(value) = only(given, &name) {
            headers.insert(name, value.clone());
        }
    }
    if let Some(authorization) = authorization {
        headers.insert(AUTHORIZATION, authorization);
    }
    headers.insert(ACCEPT_ENCODING, IDENTITY);
    headers.insert(USER_AGENT, AGENT);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body_bytes));
    headers
}

/// Takes out of a provider's answer what a worker must not see. `secret` is the whole
/// `Authorization` value that was sent: a header that repeats its key goes too.
pub fn clean_answer(headers: &mut HeaderMap, secret: Option<&HeaderValue>) {
    drop_named_by_connection(headers);
    let key = secret.and_then(key_of);
    // Few or none, so one pass over what is there costs less than looking for each.
    let found: Vec<HeaderName> = headers
        .iter()
        .filter(|(name, value)| {
            is_kept_back(name.as_str()) || key.is_some_and(|key| contains(value.as_bytes(), key))
        })
        .map(|(name, _)| name.clone())
        .collect();
    for name in found {
        headers.remove(name);
    }
}

fn drop_named_by_connection(headers: &mut HeaderMap) {
    if !headers.contains_key(CONNECTION) {
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // Its own length is the body's, not the connection's.
        .filter(|name| name != CONTENT_LENGTH)
        .collect();
    for name in named {
        headers.remove(name);
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.len() >= needle.len()
        && haystack
            .windows(needle.len())
            .any(|window| window[0] == needle[0] && window == needle)
}

/// The provider's words on the operator's key or account (402: unpaid) are the operator's alone: of
/// such an answer under the operator's key only the status goes on.
#[must_use]
pub fn refuses_key(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::UNAUTHORIZED | StatusCode::PAYMENT_REQUIRED | StatusCode::FORBIDDEN
    )
}

/// Status of an answer that the egress makes because no provider's answer came.
#[must_use]
pub fn status_of(failure: Failure) -> StatusCode {
    match failure {
        Failure::Ticket => StatusCode::FORBIDDEN,
        Failure::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Failure::Connect
        | Failure::Tls
        | Failure::NotConfigured
        | Failure::RequestBody
        | Failure::Reset
        | Failure::ResponseTooLarge
        | Failure::Severed
        | Failure::WorkerGone
        | Failure::EgressGone => StatusCode::BAD_GATEWAY,
    }
}

/// The header that marks such an answer.
#[must_use]
pub fn failure_header(failure: Failure) -> (HeaderName, HeaderValue) {
    (
        HeaderName::from_static(FAILURE_HEADER),
        HeaderValue::from_static(failure.as_str()),
    )
}

/// An event stream: its head is told to `aex-admin` at once.
#[must_use]
pub fn is_event_stream(headers: &HeaderMap) -> bool {
    const KIND: &[u8] = b"text/event-stream";
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        value.len() >= KIND.len()
            && value[..KIND.len()].eq_ignore_ascii_case(KIND)
            && matches!(value.get(KIND.len()), None | Some(b';' | b' ' | b'\t'))
    })
}

#[cfg(test)]
mod tests;

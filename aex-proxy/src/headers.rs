//! Which headers cross, and what a request's head says of its sender. Pure.
//!
//! Towards the egress nothing crosses but what the shell writes itself; so only the way back to the
//! agent is filtered here.

use aex_admin_proto::TokenDigest;
use http::header::{
    ALT_SVC, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT,
    HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RETRY_AFTER,
    SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, WWW_AUTHENTICATE,
};
use secrecy::SecretString;

use crate::answer::Fault;
use crate::request::Invalid;

/// Longest token that is looked at.
const MAX_TOKEN_BYTES: usize = 512;
const MAX_PROVIDER_KEY_BYTES: usize = 4096;
const MAX_SESSION_BYTES: usize = 128;
const MAX_IDEMPOTENCY_KEY_BYTES: usize = 255;

pub const PROVIDER_KEY: HeaderName =
    HeaderName::from_static(aex_admin_proto::egress::OWN_KEY_HEADER);
/// Limits and policies that the request passed, and that only warn.
pub const WARNING: HeaderName = HeaderName::from_static("x-aex-warning");
pub const SESSION: HeaderName = HeaderName::from_static("x-aex-session");
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-aex-request-id");
pub const REMAINING: HeaderName = HeaderName::from_static("x-aex-remaining-micro");
pub const COST: HeaderName = HeaderName::from_static("x-aex-cost-micro");
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// What of the request was not forwarded, by its place.
pub const LEFT_OUT: HeaderName = HeaderName::from_static("x-aex-left-out");
/// Who served the answer: the provider, and its own name for the model.
pub const SERVED_BY: HeaderName = HeaderName::from_static("x-aex-provider");
pub const SERVED_MODEL: HeaderName = HeaderName::from_static("x-aex-model");
pub const OUTPUT_CAP: HeaderName = HeaderName::from_static("x-aex-output-cap");

/// Never from a provider to an agent: hop-by-hop, cookies, what names the operator's account, and what
/// AEX alone may say.
const NOT_FOR_AGENTS: [HeaderName; 17] = [
    CONNECTION,
    CONTENT_LENGTH,
    TRANSFER_ENCODING,
    SET_COOKIE,
    TE,
    TRAILER,
    UPGRADE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    WWW_AUTHENTICATE,
    ALT_SVC,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("set-cookie2"),
    HeaderName::from_static("openai-organization"),
    HeaderName::from_static("openai-project"),
    REPLAYED,
];

/// Takes out of a provider's headers what is not for an agent.
pub fn keep_for_agent(headers: &mut HeaderMap) {
    if let Some(named) = headers.remove(CONNECTION) {
        for name in named.to_str().unwrap_or_default().split(',') {
            headers.remove(name.trim());
        }
    }
    let unwanted: Vec<HeaderName> = headers
        .keys()
        .filter(|name| NOT_FOR_AGENTS.contains(name) || name.as_str().starts_with("x-aex-"))
        .cloned()
        .collect();
    for name in unwanted {
        headers.remove(name);
    }
}

/// Says who served an answer.
pub fn tell_server(headers: &mut HeaderMap, provider: &str, upstream_model: &str) {
    for (name, text) in [(SERVED_BY, provider), (SERVED_MODEL, upstream_model)] {
        // A name that no header can carry is left out.
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    }
}

/// How long a provider asks to be left alone, in seconds. A date is not read.
#[must_use]
pub fn retry_after_s(headers: &HeaderMap) -> Option<u32> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

/// Whose request it is: the digest of the one bearer token. The token itself is not kept.
///
/// # Errors
/// No token, or one that is malformed.
pub fn bearer(headers: &HeaderMap) -> Result<TokenDigest, Fault> {
    token(headers).map(TokenDigest::of)
}

/// The one bearer token itself.
///
/// # Errors
/// As [`bearer`].
pub fn token(headers: &HeaderMap) -> Result<&[u8], Fault> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Fault::NotAuthenticated)?;
    if values.next().is_some() {
        return Err(Fault::InvalidToken);
    }
    let value = value.as_bytes();
    let Some((scheme, token)) = value.split_at_checked(7) else {
        return Err(Fault::InvalidToken);
    };
    let visible = !token.is_empty() && token.iter().all(u8::is_ascii_graphic);
    if !scheme.eq_ignore_ascii_case(b"bearer ") || !visible || token.len() > MAX_TOKEN_BYTES {
        return Err(Fault::InvalidToken);
    }
    if aex_admin_proto::token::is_mistyped(token) {
        return Err(Fault::InvalidToken);
    }
    Ok(token)
}

/// The agent's own provider key, when it brings one.
///
/// # Errors
/// The header is there more than once, or is not one visible word.
pub fn provider_key(headers: &HeaderMap) -> Result<Option<SecretString>, Fault> {
    Ok(one_word(headers, &PROVIDER_KEY, MAX_PROVIDER_KEY_BYTES)?.map(SecretString::from))
}

/// The session that the client counts this request to.
///
/// # Errors
/// As [`provider_key`].
pub fn session(headers: &HeaderMap) -> Result<Option<String>, Fault> {
    Ok(one_word(headers, &SESSION, MAX_SESSION_BYTES)?.map(str::to_owned))
}

/// A session's name, by the rule of its header.
///
/// # Errors
/// It is not one visible word, or too long.
pub fn session_named(name: &str) -> Result<&str, Invalid> {
    word(name.as_bytes(), MAX_SESSION_BYTES).ok_or_else(|| not_a_word(&SESSION, MAX_SESSION_BYTES))
}

/// The name under which this request must not be carried out twice.
///
/// # Errors
/// As [`provider_key`].
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Fault> {
    one_word(headers, &IDEMPOTENCY_KEY, MAX_IDEMPOTENCY_KEY_BYTES)
}

fn one_word<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
    max_bytes: usize,
) -> Result<Option<&'h str>, Fault> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    match word(value.as_bytes(), max_bytes) {
        Some(word) if values.next().is_none() => Ok(Some(word)),
        _ => Err(Fault::Invalid(not_a_word(name, max_bytes))),
    }
}

fn word(bytes: &[u8], max_bytes: usize) -> Option<&str> {
    let good = (1..=max_bytes).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
    std::str::from_utf8(bytes).ok().filter(|_| good)
}

fn not_a_word(name: &HeaderName, max_bytes: usize) -> Invalid {
    Invalid::at(
        name.as_str(),
        format!("{name} must be sent once, as one word of at most {max_bytes} characters"),
    )
}

/// Checks that the body is JSON as it stands, and tells its length where the head does.
///
/// # Errors
/// 415 for another type or a packed body, 413 when the head already says that it is too long.
pub fn json_body(headers: &HeaderMap, max_body_bytes: u64) -> Result<Option<u64>, Fault> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (first, second) = (types.next(), types.next());
    if second.is_some() || first.is_some_and(|value| !is_type(value, "application/json")) {
        return Err(Fault::UnsupportedType(
            "the body must be JSON: send the header Content-Type: application/json",
        ));
    }
    let identity = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(CONTENT_ENCODING).iter().all(identity) {
        return Err(Fault::UnsupportedType(
            "packed bodies are not taken: send the body without Content-Encoding",
        ));
    }
    let Some(length) = headers.get(CONTENT_LENGTH) else {
        return Ok(None);
    };
    // The server checked it already; one that no number holds is too long in any case.
    let length = length.to_str().ok().and_then(|text| text.parse().ok());
    match length {
        Some(length) if length <= max_body_bytes => Ok(Some(length)),
        _ => Err(Fault::BodyTooLarge {
            limit_bytes: max_body_bytes,
        }),
    }
}

/// The client waits for `100 Continue` before it sends its body.
#[must_use]
pub fn expects_continue(headers: &HeaderMap) -> bool {
    headers.contains_key(EXPECT)
}

/// Whether a content type is `wanted`, whatever its parameters.
#[must_use]
pub fn is_type(value: &HeaderValue, wanted: &str) -> bool {
    let bytes = value.as_bytes();
    let end = bytes.iter().position(|&b| b == b';');
    bytes[..end.unwrap_or(bytes.len())]
        .trim_ascii()
        .eq_ignore_ascii_case(wanted.as_bytes())
}

#[cfg(test)]
mod tests;

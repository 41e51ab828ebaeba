//! The heads of answers: what is seen of a provider's, and what AEX adds to it.

use aex_admin_proto::egress::{FAILURE_HEADER, Failure};
use aex_admin_proto::worker::SettleReply;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response, response};

use super::reader::Reader;
use crate::answer;
use crate::body::Outgoing;
use crate::exchange::Head;
use crate::headers;

const FAILURE: HeaderName = HeaderName::from_static(FAILURE_HEADER);
/// Error objects larger than this are passed on without looking into them.
const MAX_DETAILED_BYTES: usize = 1024 * 1024;

impl Reader {
    /// The provider's answer, with what AEX adds to it.
    pub(super) fn provider_answer(
        &self,
        mut head: response::Parts,
        body: Bytes,
        settled: Option<SettleReply>,
    ) -> Response<Outgoing> {
        let detailed = (head.status.as_u16() >= 400
            && body.len() <= MAX_DETAILED_BYTES
            && !encoded(&head.headers))
        .then(|| answer::with_detail(&body))
        .flatten();
        headers::keep_for_agent(&mut head.headers);
        if let Some(reply) = settled {
            self.add_headers(&mut head.headers, reply.remaining_micro);
            let cost_micro = reply.cost_micro.saturating_add(self.earlier_micro);
            head.headers
                .insert(headers::COST, HeaderValue::from(cost_micro));
        } else {
            head.headers
                .insert(headers::REQUEST_ID, answer::id_value(self.id));
            headers::tell_server(
                &mut head.headers,
                &self.grant.provider,
                &self.grant.upstream_model,
            );
        }
        response_of(head, Outgoing::full(detailed.unwrap_or(body)))
    }

    pub(super) fn add_headers(&self, head: &mut HeaderMap, remaining_micro: Option<i64>) {
        head.insert(headers::REQUEST_ID, answer::id_value(self.id));
        if let Some(remaining_micro) = remaining_micro {
            head.insert(headers::REMAINING, remaining_micro.into());
        }
        if let Some(warnings) = warnings(&self.grant.warnings) {
            head.insert(headers::WARNING, warnings);
        }
        headers::tell_server(head, &self.grant.provider, &self.grant.upstream_model);
        if self.grant.cap_is_ours {
            head.insert(headers::OUTPUT_CAP, self.grant.output_cap.into());
        }
        if let Some(left_out) = places(&self.left_out, self.exchange.left_out()) {
            head.insert(headers::LEFT_OUT, left_out);
        }
    }
}

/// Limits and policies that the request passed, for its client to know.
fn warnings(warnings: &[String]) -> Option<HeaderValue> {
    let text = (!warnings.is_empty()).then(|| warnings.join("; "))?;
    HeaderValue::try_from(text).ok()
}

/// Places of request and answer, as in an error's `param`.
fn places(request: &[String], answer: &[String]) -> Option<HeaderValue> {
    let all: Vec<&str> = request.iter().chain(answer).map(String::as_str).collect();
    (!all.is_empty())
        .then(|| HeaderValue::try_from(all.join(",")).ok())
        .flatten()
}

pub(super) fn response_of(head: response::Parts, body: Outgoing) -> Response<Outgoing> {
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response
}

fn encoded(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// Whether a content type says a charset other than UTF-8, or says one in a way that is not plain.
fn has_other_charset(value: &HeaderValue) -> bool {
    let Ok(text) = value.to_str() else {
        return true;
    };
    let is_utf8 = |rest: &str| {
        let charset = rest.trim_start().strip_prefix('=').unwrap_or_default();
        let charset = charset.split(';').next().unwrap_or_default().trim();
        matches!(charset.trim_matches('"'), "utf-8" | "utf8")
    };
    let text = text.to_ascii_lowercase();
    !text.split("charset").skip(1).all(is_utf8)
}

pub(super) fn seen(head: &response::Parts) -> Head {
    let failure = head.headers.get(FAILURE).map(|value| {
        let name = value.to_str().unwrap_or_default();
        // The egress said that it failed; a name that this worker does not know changes nothing.
        Failure::parse(name).unwrap_or(Failure::Reset)
    });
    Head {
        status: head.status.as_u16(),
        event_stream: head
            .headers
            .get(CONTENT_TYPE)
            .is_some_and(|value| headers::is_type(value, "text/event-stream")),
        encoded: encoded(&head.headers),
        other_charset: (head.headers.get_all(CONTENT_TYPE).iter()).any(has_other_charset),
        failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charset_other_than_utf_8_is_seen_in_any_writing() {
        for (value, other) in [
            ("application/json", false),
            ("application/json; charset=utf-8", false),
            ("text/event-stream;Charset = \"UTF-8\"; x=y", false),
            ("application/json; charset=utf-7", true),
            ("application/json;CHARSET=\"utf-16le\"", true),
            ("application/json; charset=utf-8; charset=utf-7", true),
            ("application/json; charset*=utf-8''utf-7", true),
            ("application/json; charset", true),
        ] {
            let value = HeaderValue::from_static(value);
            assert_eq!(has_other_charset(&value), other, "{value:?}");
        }
        let raw = HeaderValue::from_bytes(b"application/json; \xff").unwrap();
        assert!(has_other_charset(&raw));
    }
}

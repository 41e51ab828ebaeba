//! What `aex-proxy facts` tells of a request body, for `aex policy explain`: the facts by which a worker
//! would ask for a hold. Pure: bytes in, a document out.
//!
//! Absent on purpose: any reading of its own. A body is read by [`request::read`] and a session's name
//! judged by [`headers`], so what is explained is the request that a worker sees.

use aex_admin_proto::explain::{BodyRead, Invalid, MAX_BODY_BYTES};
use aex_admin_proto::worker::Route;

use crate::headers;
use crate::request;
use crate::tokenizer::Tokenizer;

/// What is known of a request beside its body.
#[derive(Debug, Clone, Default)]
pub struct Beside {
    pub route: Route,
    /// It brings its own provider key.
    pub own_key: bool,
    /// Of its header `x-aex-session`.
    pub session: Option<String>,
    /// The prompt is counted with this one as well.
    pub tokenizer: Option<Tokenizer>,
}

/// The body is longer than any that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the request is longer than {MAX_BODY_BYTES} bytes, the most that max_body_bytes can allow"
)]
pub struct TooLong;

/// Reads a request's body as a worker does.
///
/// # Errors
/// It is longer than [`MAX_BODY_BYTES`].
pub fn of(beside: &Beside, body: &[u8]) -> Result<BodyRead, TooLong> {
    if body.len() as u64 > MAX_BODY_BYTES {
        return Err(TooLong);
    }
    Ok(
        read(beside, body).unwrap_or_else(|invalid| BodyRead::NotARequest {
            invalid: Invalid {
                message: invalid.message,
                param: invalid.param,
            },
        }),
    )
}

/// Headers are judged first, as in [`crate::serve`].
fn read(beside: &Beside, body: &[u8]) -> Result<BodyRead, request::Invalid> {
    let session = beside.session.as_deref().map(headers::session_named);
    let session = session.transpose()?.map(str::to_owned);
    let read = request::read(beside.route, body)?;
    let mut facts = Box::new(read.facts);
    facts.own_key = beside.own_key;
    facts.session = session;
    if let Some(tokenizer) = beside.tokenizer {
        facts.measured = request::measure(beside.route, body, tokenizer);
        facts.measured_by = facts.measured.map(|_| tokenizer.name().to_owned());
    }
    Ok(BodyRead::Request {
        model: read.model,
        facts,
    })
}

/// The route of a path as clients write it: `/v1/chat/completions`.
///
/// # Errors
/// There is none; the text says which there are.
pub fn route_at(path: &str) -> Result<Route, String> {
    Route::at(path).ok_or_else(|| {
        let paths = Route::ALL.map(|route| format!("/v1{}", route.path()));
        format!("there is no such route: {}", paths.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use aex_admin_proto::worker::{Facts, Measured};

    use super::*;

    const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"Hello, world!"}],
        "max_tokens":16,"tools":[{"type":"function","function":{"name":"look_up"}}]}"#;

    fn facts(beside: &Beside, body: &str) -> Facts {
        match of(beside, body.as_bytes()) {
            Ok(BodyRead::Request { model, facts }) => {
                assert_eq!(model, "m");
                *facts
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_facts_are_those_of_a_worker() {
        let worker = request::read(Route::ChatCompletions, CHAT.as_bytes()).unwrap();
        let read = facts(&Beside::default(), CHAT);
        assert_eq!(read, worker.facts);
        assert_eq!(
            (read.output_cap, &read.tools[..]),
            (Some(16), &["look_up".to_owned()][..])
        );
        assert_eq!(read.measured, None);
        let beside = Beside {
            own_key: true,
            session: Some("s-1".into()),
            ..Beside::default()
        };
        let expected = Facts {
            own_key: true,
            session: Some("s-1".into()),
            ..worker.facts
        };
        assert_eq!(facts(&beside, CHAT), expected);
    }

    #[test]
    fn a_prompt_is_counted_where_a_tokenizer_is_named() {
        let beside = Beside {
            tokenizer: Tokenizer::named("o200k_base"),
            ..Beside::default()
        };
        let body = r#"{"model":"m","messages":[{"role":"user","content":"Hello, world!"}]}"#;
        let read = facts(&beside, body);
        let Some(Measured { text, tools: 0 }) = read.measured else {
            panic!("{read:?}");
        };
        // The text alone is 4.
        assert!((4..20).contains(&text), "{text}");
        assert_eq!(read.measured_by.as_deref(), Some("o200k_base"));
        let without = facts(&Beside::default(), body);
        let counted = Facts {
            measured: read.measured,
            measured_by: read.measured_by.clone(),
            ..without
        };
        assert_eq!(read, counted);
    }

    #[test]
    fn what_is_no_request_is_told_as_the_agent_is_told() {
        let in_session = |name: &str| Beside {
            session: Some(name.into()),
            ..Beside::default()
        };
        let plain = Beside::default();
        for (beside, body, message, param) in [
            (&plain, "", "empty", None),
            (&plain, "{", "not a JSON object", None),
            (&plain, r#"{"model":"m"}"#, "missing", Some("messages")),
            (
                &plain,
                r#"{"model":"m","model":"n","messages":[]}"#,
                "duplicate key",
                None,
            ),
            (&in_session(""), CHAT, "one word", Some("x-aex-session")),
            (
                &in_session("two words"),
                CHAT,
                "one word",
                Some("x-aex-session"),
            ),
            (&in_session("s\n"), CHAT, "one word", Some("x-aex-session")),
            (
                &in_session(&"s".repeat(129)),
                CHAT,
                "128",
                Some("x-aex-session"),
            ),
            // As a worker, which looks at the head first.
            (&in_session(""), "{", "one word", Some("x-aex-session")),
        ] {
            match of(beside, body.as_bytes()).unwrap() {
                BodyRead::NotARequest { invalid } => {
                    assert!(invalid.message.contains(message), "{invalid:?}");
                    assert_eq!(invalid.param.as_deref(), param, "{invalid:?}");
                }
                other => panic!("{body}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_no_worker_takes_is_not_read() {
        let longest = usize::try_from(MAX_BODY_BYTES).unwrap();
        let mut body = vec![b' '; longest];
        assert!(of(&Beside::default(), &body).is_ok());
        body.push(b' ');
        let error = of(&Beside::default(), &body).unwrap_err();
        assert!(error.to_string().contains("67108864 bytes"), "{error}");
    }

    #[test]
    fn routes_are_named_by_their_paths() {
        for route in Route::ALL {
            assert_eq!(route_at(&format!("/v1{}", route.path())), Ok(route));
        }
        for path in [
            "",
            "/v1",
            "/chat/completions",
            "/v1/models",
            "/v1/responses/",
        ] {
            assert!(
                route_at(path).unwrap_err().contains("/v1/embeddings"),
                "{path}"
            );
        }
    }

    #[test]
    fn both_documents_read_as_they_are_written() {
        for (body, text) in [
            (CHAT, r#"{"model":"m","facts":{"#),
            ("{}", r#"{"invalid":{"message":""#),
        ] {
            let read = of(&Beside::default(), body.as_bytes()).unwrap();
            let document = serde_json::to_string(&read).unwrap();
            assert!(document.starts_with(text), "{document}");
            assert_eq!(serde_json::from_str::<BodyRead>(&document).unwrap(), read);
        }
    }
}

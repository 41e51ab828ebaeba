//! What AEX itself answers to a token's holder, below `/v1/aex/`: its own budget and limits, what a request
//! would come to, narrower runs for its helpers, and its tokens. Pure translation: `aex-admin` decides.

use std::borrow::Cow;

use aex_admin_proto::duration::seconds;
use aex_admin_proto::limit::Limit;
use aex_admin_proto::operator::{self, ScopeView, Settings, TokenReply, TokenView};
use aex_admin_proto::worker::{Quote, Route as Api};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::answer::Row;
use crate::request::Invalid;

/// `POST /v1/aex/quote`: the request as it would be sent, and to which route.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuoteAsk<'a> {
    #[serde(default)]
    route: Option<&'a str>,
    #[serde(borrow)]
    request: &'a RawValue,
}

impl<'a> QuoteAsk<'a> {
    /// The route, and the request's own bytes.
    ///
    /// # Errors
    /// It is not of that form, or there is no such route.
    pub fn read(body: &'a [u8]) -> Result<(Api, &'a str), Invalid> {
        let ask: Self = serde_json::from_slice(body).map_err(|error| {
            Invalid::whole(format!(
                "expected {{\"route\": \"/v1/chat/completions\", \"request\": {{…}}}}: {error}"
            ))
        })?;
        let route = ask.route.unwrap_or("/v1/chat/completions");
        let api = Api::at(route).ok_or_else(|| {
            Invalid::at(
                "route",
                "expected /v1/chat/completions, /v1/completions, /v1/embeddings or /v1/responses"
                    .to_owned(),
            )
        })?;
        Ok((api, ask.request.get()))
    }
}

/// The answer to a quote.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Quoted<'a> {
    Passes {
        passes: bool,
        #[serde(flatten)]
        quote: &'a Quote,
    },
    Refused {
        passes: bool,
        status: u16,
        detail: &'a str,
        code: &'a str,
        aex: &'a serde_json::Map<String, serde_json::Value>,
    },
}

impl<'a> From<&'a Quote> for Quoted<'a> {
    fn from(quote: &'a Quote) -> Self {
        Self::Passes {
            passes: true,
            quote,
        }
    }
}

impl<'a> From<&'a Row> for Quoted<'a> {
    fn from(row: &'a Row) -> Self {
        Self::Refused {
            passes: false,
            status: row.status.as_u16(),
            detail: &row.message,
            code: row.code,
            aex: &row.figures,
        }
    }
}

/// `POST /v1/aex/runs`: what is left out is limited by what is above alone.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunAsk {
    /// Micro-dollars.
    budget_micro: Option<i64>,
    /// Tokens in all.
    max_tokens: Option<u64>,
    /// Requests in any 60 seconds.
    rpm: Option<u64>,
    ttl_s: Option<u64>,
    allowed_models: Option<Vec<String>>,
    allowed_tools: Option<Vec<String>>,
    max_tokens_per_minute: Option<u64>,
    max_input_tokens: Option<u64>,
    max_output_tokens: Option<u64>,
    max_concurrency: Option<u64>,
    streaming: Option<bool>,
    tools: Option<bool>,
    vision: Option<bool>,
    limits: Vec<Limit>,
}

impl RunAsk {
    /// # Errors
    /// It is not of that form.
    pub fn read(body: &[u8]) -> Result<operator::RunParams, Invalid> {
        let ask: Self = match body.trim_ascii_start().first() {
            None => Self::default(),
            Some(b'{') => serde_json::from_slice(body)
                .map_err(|error| Invalid::whole(format!("not a run's limits: {error}")))?,
            Some(_) => {
                return Err(Invalid::whole(
                    "a run's limits are one JSON object".to_owned(),
                ));
            }
        };
        // By its text, which says what a limit may be.
        let in_all = ask
            .max_tokens
            .map(|most| format!("tokens={most}").parse::<Limit>());
        let in_all = in_all.transpose();
        let in_all = in_all.map_err(|error| Invalid::at("max_tokens", error.to_string()))?;
        let limits: Vec<Limit> = in_all.into_iter().chain(ask.limits).collect();
        Ok(operator::RunParams {
            budget_micro: ask.budget_micro,
            rpm: ask.rpm,
            ttl_s: ask.ttl_s,
            settings: Settings {
                allowed_models: ask.allowed_models,
                allowed_tools: ask.allowed_tools,
                max_tokens_per_minute: ask.max_tokens_per_minute,
                max_input_tokens: ask.max_input_tokens,
                max_output_tokens: ask.max_output_tokens,
                max_concurrency: ask.max_concurrency,
                streaming: ask.streaming,
                tools: ask.tools,
                vision: ask.vision,
                limits: (!limits.is_empty()).then_some(limits),
                ..Settings::default()
            },
        })
    }
}

/// The answer to a new run: the one time that its token is shown.
#[derive(Serialize)]
pub struct NewRun<'a> {
    run: &'a str,
    token: &'a str,
    expires_at_ms: Option<i64>,
    budget_micro: Option<i64>,
    rpm: Option<u64>,
    settings: &'a Settings,
}

impl<'a> From<&'a TokenReply> for NewRun<'a> {
    fn from(reply: &'a TokenReply) -> Self {
        Self {
            run: reply.run.as_deref().unwrap_or_default(),
            token: &reply.token,
            expires_at_ms: reply.expires_at_ms,
            budget_micro: reply.budget_micro,
            rpm: reply.rpm,
            settings: &reply.settings,
        }
    }
}

/// `DELETE /v1/aex/runs/{name}`.
#[derive(Serialize)]
pub struct EndedRun<'a> {
    run: &'a str,
    spent_micro: i64,
    ended: bool,
}

impl<'a> From<&'a ScopeView> for EndedRun<'a> {
    fn from(view: &'a ScopeView) -> Self {
        Self {
            run: &view.name,
            spent_micro: view.spent_micro,
            ended: true,
        }
    }
}

/// `POST /v1/aex/tokens/rotate`: durations as the command line takes them.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RotateAsk<'a> {
    #[serde(borrow)]
    ttl: Option<Cow<'a, str>>,
    #[serde(borrow)]
    grace: Option<Cow<'a, str>>,
}

impl RotateAsk<'_> {
    /// The life of the new token, and how much longer the old ones have, in seconds.
    ///
    /// # Errors
    /// It is not of that form.
    pub fn read(body: &[u8]) -> Result<(Option<u64>, Option<u64>), Invalid> {
        let form = "expected {\"ttl\": \"24h\", \"grace\": \"5m\"}, each of them optional";
        let ask: RotateAsk<'_> = match body.trim_ascii_start().first() {
            None => RotateAsk::default(),
            Some(b'{') => serde_json::from_slice(body)
                .map_err(|error| Invalid::whole(format!("{form}: {error}")))?,
            Some(_) => return Err(Invalid::whole(form.to_owned())),
        };
        let of = |name: &str, text: Option<Cow<'_, str>>| {
            let read = text.map(|text| seconds(&text)).transpose();
            read.map_err(|why| Invalid::at(name, why))
        };
        Ok((of("ttl", ask.ttl)?, of("grace", ask.grace)?))
    }
}

/// The answer to a rotation: the one time that the token is shown.
#[derive(Serialize)]
pub struct NewToken<'a> {
    name: &'a str,
    token: &'a str,
    id: i64,
    expires_at_ms: Option<i64>,
}

impl<'a> From<&'a TokenReply> for NewToken<'a> {
    fn from(reply: &'a TokenReply) -> Self {
        Self {
            name: &reply.name,
            token: &reply.token,
            id: reply.token_id,
            expires_at_ms: reply.expires_at_ms,
        }
    }
}

/// `GET /v1/aex/tokens`: never a token itself.
#[derive(Serialize)]
pub struct TokenList<'a> {
    object: &'static str,
    data: Vec<ListedToken<'a>>,
}

#[derive(Serialize)]
struct ListedToken<'a> {
    id: i64,
    label: &'a str,
    created_at_ms: i64,
    expires_at_ms: Option<i64>,
    read_only: bool,
}

impl<'a> From<&'a [TokenView]> for TokenList<'a> {
    fn from(tokens: &'a [TokenView]) -> Self {
        let listed = tokens.iter().map(|token| ListedToken {
            id: token.id,
            label: &token.label,
            created_at_ms: token.created_at_ms,
            expires_at_ms: token.expires_at_ms,
            read_only: token.read_only,
        });
        Self {
            object: "list",
            data: listed.collect(),
        }
    }
}

/// `DELETE /v1/aex/tokens/{id}`.
#[derive(Serialize)]
pub struct RevokedToken {
    pub id: i64,
    pub revoked: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_names_its_route_and_keeps_the_requests_bytes() {
        let body = br#"{"route":"/v1/embeddings","request":{"model": "m",  "input":"x"}}"#;
        let Ok((api, request)) = QuoteAsk::read(body) else {
            panic!("not read")
        };
        assert_eq!(
            (api, request),
            (Api::Embeddings, r#"{"model": "m",  "input":"x"}"#)
        );
        for bad in [
            &b"{}"[..],
            br#"{"request":{},"route":"/v1/files"}"#,
            br#"{"request":{},"rote":"/v1/embeddings"}"#,
            b"no",
        ] {
            assert!(QuoteAsk::read(bad).is_err());
        }
    }

    #[test]
    fn a_run_has_what_it_names_and_nothing_else() {
        let run =
            RunAsk::read(br#"{"budget_micro":5,"max_tokens":7,"limits":["requests/minute=3"]}"#);
        let Ok(run) = run else { panic!("not read") };
        let limits: Vec<String> = run
            .settings
            .limits
            .iter()
            .flatten()
            .map(ToString::to_string)
            .collect();
        assert_eq!(limits, ["tokens=7", "requests/minute=3"]);
        for bad in [
            &br#"{"budget":5}"#[..],
            b"[5, 7]",
            br#"{"max_tokens":0}"#,
            br#"{"max_tokens":18446744073709551615}"#,
            br#"{"limits":["tokens=0"]}"#,
            br#"{"budget_micro":1.5}"#,
        ] {
            assert!(RunAsk::read(bad).is_err());
        }
        assert!(RunAsk::read(b"").is_ok());
    }

    #[test]
    fn a_rotation_has_durations_with_a_unit_or_nothing() {
        for (body, read) in [
            (&b""[..], (None, None)),
            (b"{}", (None, None)),
            (br#"{"ttl":"24h"}"#, (Some(86_400), None)),
            (br#"{"grace":"5m","ttl":"1d"}"#, (Some(86_400), Some(300))),
            (br#"{"ttl":null}"#, (None, None)),
        ] {
            let Ok(asked) = RotateAsk::read(body) else {
                panic!("{body:?}")
            };
            assert_eq!(asked, read);
        }
        for bad in [
            &br#"{"ttl":24}"#[..],
            br#"{"ttl":"0s"}"#,
            br#"{"ttl":"-1h"}"#,
            br#"{"ttl":"24"}"#,
            br#"{"ttl_s":24}"#,
            b"[]",
            b"24h",
        ] {
            assert!(RotateAsk::read(bad).is_err(), "{bad:?}");
        }
    }
}

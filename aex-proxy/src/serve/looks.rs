//! What carries no request to a provider: models, a token's own figures, quotes, runs.

use aex_admin_proto::TokenDigest;
use aex_admin_proto::peer::Peer;
use aex_admin_proto::worker::{
    MeReply, ModelEntry, ModelsReply, QuoteReply, ReserveParams, RunEndParams, RunParams, RunReply,
};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use hyper::body::Incoming;
use serde::Serialize;

use super::arrival::{self, Sender};
use super::{Shared, judge};
use crate::answer::{self, Fault, Row};
use crate::body::Outgoing;
use crate::headers;
use crate::measure;
use crate::own::{EndedRun, NewRun, QuoteAsk, Quoted, RunAsk};
use crate::room::Taken;

/// Limits of a run are a few hundred bytes.
const MAX_RUN_BYTES: u64 = 64 * 1024;

pub(super) fn refused(row: Row) -> Response<Outgoing> {
    row.response(None)
}

pub(super) fn unavailable(error: &impl ToString) -> Response<Outgoing> {
    refused(Fault::Kernel(error.to_string()).row())
}

/// The token's own scope.
pub(super) async fn me(shared: &Shared, headers: &HeaderMap, peer: Peer) -> Response<Outgoing> {
    let token = match headers::bearer(headers) {
        Ok(token) => token,
        Err(fault) => return refused(fault.row()),
    };
    match shared.admin.me(token, peer).await {
        Ok(MeReply::Me(view)) => json(&view),
        Ok(MeReply::Refused(refusal)) => refused(answer::of_refusal(&refusal)),
        Err(error) => unavailable(&error),
    }
}

/// Whose request it is, its body, and the room that a large one takes.
pub(super) async fn asked(
    shared: &Shared,
    headers: HeaderMap,
    body: Incoming,
    limit_bytes: u64,
    peer: Peer,
) -> Result<(TokenDigest, HeaderMap, Bytes, Option<Taken>), Fault> {
    let judged = headers::bearer(&headers)
        .and_then(|token| Ok((token, headers::json_body(&headers, limit_bytes)?)));
    let (token, length) = match judged {
        Ok(judged) => judged,
        Err(fault) => {
            arrival::refuse(shared, &headers, body);
            return Err(fault);
        }
    };
    let (body, room) =
        arrival::read(shared, Sender::new(token, peer), body, length, limit_bytes).await?;
    Ok((token, headers, body, room))
}

/// What a request would come to: nothing is held, nothing is sent.
pub(super) async fn quote(
    shared: &Shared,
    headers: HeaderMap,
    body: Incoming,
    peer: Peer,
) -> Response<Outgoing> {
    match quoted(shared, headers, body, peer).await {
        Ok(response) => response,
        Err(fault) => refused(fault.row()),
    }
}

async fn quoted(
    shared: &Shared,
    headers: HeaderMap,
    body: Incoming,
    peer: Peer,
) -> Result<Response<Outgoing>, Fault> {
    let limit_bytes = shared.admin.max_body_bytes();
    // Its room is held until it is answered.
    let (token, headers, body, _room) = asked(shared, headers, body, limit_bytes, peer).await?;
    let (route, request) = QuoteAsk::read(&body).map_err(Fault::Invalid)?;
    let request = body.slice_ref(request.as_bytes());
    let mut read = judge(route, &request).await?;
    let mut facts = std::mem::take(&mut read.facts);
    facts.own_key = headers::provider_key(&headers)?.is_some();
    facts.session = headers::session(&headers)?;
    let id = shared
        .ids
        .next()
        .map_err(|_| Fault::Kernel("the kernel has no randomness".into()))?;
    let mut params = ReserveParams {
        id,
        token,
        route,
        model: std::mem::take(&mut read.model),
        facts,
        idempotency: None,
        again: None,
        peer,
    };
    let kernel = |error: crate::admin::Unavailable| Fault::Kernel(error.to_string());
    let mut reply = shared.admin.quote(&params).await.map_err(kernel)?;
    if let QuoteReply::Measure { tokenizer, .. } = &reply
        && let Ok(measured) = measure::count(&params, request, tokenizer).await
    {
        params.facts.measured = Some(measured);
        params.facts.measured_by = Some(tokenizer.clone());
        reply = shared.admin.quote(&params).await.map_err(kernel)?;
    }
    Ok(match reply {
        QuoteReply::Passes(quote) => json(&Quoted::from(&quote)),
        QuoteReply::Refused(refusal) | QuoteReply::Measure { refusal, .. } => {
            let row = answer::of_refusal(&refusal);
            // Who may not ask at all gets no quote.
            if row.status == StatusCode::UNAUTHORIZED {
                return Ok(refused(row));
            }
            json(&Quoted::from(&row))
        }
    })
}

/// A narrower scope, and its token.
pub(super) async fn create_run(
    shared: &Shared,
    headers: HeaderMap,
    body: Incoming,
    peer: Peer,
) -> Response<Outgoing> {
    let (token, _, body, _room) = match asked(shared, headers, body, MAX_RUN_BYTES, peer).await {
        Ok(asked) => asked,
        Err(fault) => return refused(fault.row()),
    };
    let run = match RunAsk::read(&body) {
        Ok(run) => run,
        Err(invalid) => return refused(Fault::Invalid(invalid).row()),
    };
    match shared
        .admin
        .create_run(&RunParams { token, run, peer })
        .await
    {
        Ok(RunReply::Made(reply)) => {
            let mut response = json(&NewRun::from(&*reply));
            *response.status_mut() = StatusCode::CREATED;
            response
        }
        reply => run_refused(reply),
    }
}

/// Ends a run of this token, and all that is open below it.
pub(super) async fn end_run(
    shared: &Shared,
    headers: &HeaderMap,
    name: String,
    peer: Peer,
) -> Response<Outgoing> {
    let token = match headers::bearer(headers) {
        Ok(token) => token,
        Err(fault) => return refused(fault.row()),
    };
    match shared
        .admin
        .end_run(&RunEndParams { token, name, peer })
        .await
    {
        Ok(RunReply::Ended(view)) => json(&EndedRun::from(&*view)),
        reply => run_refused(reply),
    }
}

fn run_refused(reply: Result<RunReply, crate::admin::Unavailable>) -> Response<Outgoing> {
    match reply {
        Ok(RunReply::Refused(refusal)) => refused(answer::of_refusal(&refusal)),
        Ok(_) => unavailable(&"the kernel gave another answer than was asked for"),
        Err(error) => unavailable(&error),
    }
}

#[derive(Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    owned_by: &'a str,
}

#[derive(Serialize)]
struct ModelList<'a> {
    object: &'static str,
    data: Vec<Model<'a>>,
}

impl<'a> From<&'a ModelEntry> for Model<'a> {
    fn from(entry: &'a ModelEntry) -> Self {
        Self {
            id: &entry.id,
            object: "model",
            created: entry.created,
            owned_by: &entry.owned_by,
        }
    }
}

pub(super) async fn models(shared: &Shared, headers: &HeaderMap, peer: Peer) -> Response<Outgoing> {
    match entries(shared, headers, peer).await {
        Ok(entries) => json(&ModelList {
            object: "list",
            data: entries.iter().map(Model::from).collect(),
        }),
        Err(response) => *response,
    }
}

pub(super) async fn model(
    shared: &Shared,
    headers: &HeaderMap,
    name: String,
    peer: Peer,
) -> Response<Outgoing> {
    match entries(shared, headers, peer).await {
        Ok(entries) => match entries.iter().find(|entry| entry.id == name) {
            Some(entry) => json(&Model::from(entry)),
            None => Fault::NoModel(name).row().response(None),
        },
        Err(response) => *response,
    }
}

/// The models that the sender may call.
async fn entries(
    shared: &Shared,
    headers: &HeaderMap,
    peer: Peer,
) -> Result<Vec<ModelEntry>, Box<Response<Outgoing>>> {
    let token = headers::bearer(headers);
    let row = match token {
        Err(fault) => fault.row(),
        Ok(token) => match shared.admin.models(token, peer).await {
            Ok(ModelsReply::Models(entries)) => return Ok(entries),
            Ok(ModelsReply::Refused(refusal)) => answer::of_refusal(&refusal),
            Err(error) => Fault::Kernel(error.to_string()).row(),
        },
    };
    Err(Box::new(row.response(None)))
}

pub(super) fn json<T: Serialize>(value: &T) -> Response<Outgoing> {
    let bytes = serde_json::to_vec(value).expect("texts and numbers always serialise");
    let mut response = Response::new(Outgoing::full(bytes));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

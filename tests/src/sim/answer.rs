//! From a request to its answer: the simulator's routes.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;

use aex_admin_proto::clock;

use super::behaviour::Behaviour;
use super::bill::{Ended, Memory, Running};
use super::body::{Broken, SimBody, Stream};
use super::greed::Knobs;
use super::plan::Refusal;
use super::routes::Route;

/// Longest request body taken.
const MAX_BODY_BYTES: usize = 128 * 1024 * 1024;
/// Answered by `GET /v1/models`.
const MODELS: [&str; 3] = ["gpt-oss-20b", "sim-large", "sim-free"];

/// The request was cut while it came in, so nobody is left to answer; or it is dropped on purpose.
#[derive(Debug, thiserror::Error)]
#[error("the request has no answer")]
pub(super) struct RequestCut;

pub(super) async fn answer(
    memory: Arc<Memory>,
    number: u64,
    request: Request<Incoming>,
) -> Result<Response<SimBody>, RequestCut> {
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_BODY_BYTES).collect().await else {
        return Err(RequestCut);
    };
    let body = body.to_bytes();
    let path = parts.uri.path();
    let path = path.strip_prefix("/v1").unwrap_or(path);
    if let (&Method::POST, Some(route)) = (&parts.method, Route::of(path)) {
        return billed(&memory, route, number, parts, body).await;
    }
    Ok(match path {
        "/models" if parts.method == Method::GET => models(),
        "/_sim/bill" if parts.method == Method::GET => json_answer(&memory.bill()),
        "/_sim/reset" if parts.method == Method::POST => {
            memory.reset();
            json_answer(&json!({}))
        }
        "/_sim/behaviour" if parts.method == Method::POST => behave(&memory, &body),
        _ => error(StatusCode::NOT_FOUND, "no such route", "not_found"),
    })
}

async fn billed(
    memory: &Arc<Memory>,
    route: Route,
    number: u64,
    parts: Parts,
    body: Bytes,
) -> Result<Response<SimBody>, RequestCut> {
    let authorization = parts.headers.get("authorization").cloned();
    let path = parts.uri.path();
    let (running, behaviour) = memory.receive(path, parts.headers, &body, clock::wall_ms());
    let mut response = match behaviour.status {
        Some(status) => {
            pause(behaviour.delay_ms).await;
            running.end(Ended::Refused);
            scripted_error(&behaviour, status, authorization.as_ref())
        }
        None => respond(running, &behaviour, route, &body, number).await?,
    };
    for (name, value) in &behaviour.headers {
        if let (Ok(name), Ok(value)) = (
            HeaderName::try_from(name.as_str()),
            HeaderValue::try_from(value.as_str()),
        ) {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

async fn respond(
    mut running: Running,
    behaviour: &Arc<Behaviour>,
    route: Route,
    body: &[u8],
    number: u64,
) -> Result<Response<SimBody>, RequestCut> {
    let taken = if behaviour.greedy {
        route
            .take_knobs(body)
            .map(|(knobs, rest)| (knobs, Cow::Owned(rest)))
    } else {
        Ok((Knobs::default(), Cow::Borrowed(body)))
    };
    let (knobs, body) = match taken {
        Ok(taken) => taken,
        Err(refusal) => return Ok(refused(&running, &refusal)),
    };
    let exchange = match route.read(&body, behaviour, &knobs, number) {
        Ok(exchange) => exchange,
        Err(refusal) => return Ok(refused(&running, &refusal)),
    };
    running.bill_prompt(&exchange.asked.model, &exchange.plan);
    let script = route.script_if_streamed(&exchange);
    if script.is_none() {
        // The whole answer is generated, whether or not anybody stays to read it.
        running.bill_output(exchange.plan.completion());
    }
    pause(behaviour.delay_ms).await;
    let mute = behaviour.mute && script.is_some();
    if behaviour.hang && !mute {
        std::future::pending::<()>().await;
    }
    if script.is_some() && (behaviour.drop || mute) {
        running.bill_output(exchange.plan.completion());
    }
    if behaviour.drop {
        return Err(RequestCut);
    }
    if let Some(script) = script {
        return Ok(event_stream(Stream::new(
            script,
            running,
            Arc::clone(behaviour),
        )));
    }
    let bytes = route.plain(&exchange);
    if behaviour.cut_after_chunks.is_some() {
        let mut response = json_bytes(SimBody::Broken(Broken::new(
            bytes.slice(..bytes.len() / 2),
            running,
        )));
        response
            .headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        return Ok(response);
    }
    running.end(Ended::Complete);
    Ok(json_bytes(SimBody::whole(bytes)))
}

fn refused(running: &Running, refusal: &Refusal) -> Response<SimBody> {
    running.end(Ended::Refused);
    error(refusal.status, &refusal.text, "invalid_request")
}

async fn pause(time_ms: u64) {
    if time_ms > 0 {
        tokio::time::sleep(Duration::from_millis(time_ms)).await;
    }
}

fn event_stream(stream: Stream) -> Response<SimBody> {
    let mut response = Response::new(SimBody::Stream(Box::new(stream)));
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn scripted_error(
    behaviour: &Behaviour,
    status: u16,
    authorization: Option<&HeaderValue>,
) -> Response<SimBody> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(raw) = &behaviour.raw_body {
        let mut response = json_bytes(SimBody::whole(raw.clone()));
        *response.status_mut() = status;
        return response;
    }
    let mut text = format!("simulated answer {}", status.as_u16());
    if behaviour.echo_authorization {
        let key = authorization.map_or("none".into(), |value| {
            String::from_utf8_lossy(value.as_bytes()).into_owned()
        });
        text = format!("Incorrect API key provided: {key}");
    }
    error(status, &text, "simulated")
}

fn error(status: StatusCode, text: &str, code: &str) -> Response<SimBody> {
    let body =
        json!({"error": {"message": text, "type": "sim_error", "code": code, "param": null}});
    let mut response = json_answer(&body);
    *response.status_mut() = status;
    response
}

fn models() -> Response<SimBody> {
    let list: Vec<_> = MODELS
        .iter()
        .map(|id| json!({"id": id, "object": "model", "created": 1_750_000_000, "owned_by": "sim"}))
        .collect();
    json_answer(&json!({"object": "list", "data": list}))
}

fn behave(memory: &Memory, body: &[u8]) -> Response<SimBody> {
    match serde_json::from_slice(body) {
        Ok(behaviour) => {
            memory.behave(behaviour);
            json_answer(&json!({}))
        }
        Err(problem) => error(
            StatusCode::BAD_REQUEST,
            &format!("no such behaviour: {problem}"),
            "invalid_request",
        ),
    }
}

fn json_answer<T: serde::Serialize>(value: &T) -> Response<SimBody> {
    match serde_json::to_vec(value) {
        Ok(bytes) => json_bytes(SimBody::whole(bytes)),
        Err(problem) => {
            let mut response = Response::new(SimBody::whole(problem.to_string()));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    }
}

fn json_bytes(body: SimBody) -> Response<SimBody> {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

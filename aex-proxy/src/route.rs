//! Which door a request knocks at. Pure; paths are compared as the raw text that came.
//!
//! No path is normalised: what is not spelt exactly like a route is not one.

use aex_admin_proto::worker::Route as Api;
use http::{Method, Uri};

use crate::answer::Fault;
use crate::request::Invalid;

#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    /// One that is carried to a provider.
    Api(Api),
    /// The token's own scope.
    Me,
    /// What a request would come to.
    Quote,
    /// A new run.
    Runs,
    /// The name of a run that is to end.
    Run(String),
    /// The tokens of an agent.
    Tokens,
    RotateToken,
    /// The id of a token that is to end.
    Token(i64),
    Models,
    /// The model's name, decoded.
    Model(String),
    Health,
    Ready,
}

const MODELS: &str = "/v1/models";
const RUNS: &str = "/v1/aex/runs";
const TOKENS: &str = "/v1/aex/tokens";

/// Finds the route.
///
/// # Errors
/// 404 for what is no route, 405 for another method on one, 400 for a query string on a request that
/// would be forwarded without it.
pub fn of(method: &Method, uri: &Uri) -> Result<Route, Fault> {
    // An absolute-form target names a host, and would be read differently by others.
    if uri.authority().is_some() || uri.scheme().is_some() {
        return Err(Fault::NoRoute);
    }
    let path = uri.path();
    let (route, allowed, name) = match (Api::at(path), path) {
        (Some(api), _) => (Route::Api(api), Method::POST, "POST"),
        (None, "/v1/aex/me") => (Route::Me, Method::GET, "GET"),
        (None, "/v1/aex/quote") => (Route::Quote, Method::POST, "POST"),
        (None, RUNS) => (Route::Runs, Method::POST, "POST"),
        (None, path) if path.starts_with(RUNS) => (one_run(path)?, Method::DELETE, "DELETE"),
        (None, TOKENS) => (Route::Tokens, Method::GET, "GET"),
        (None, "/v1/aex/tokens/rotate") => (Route::RotateToken, Method::POST, "POST"),
        (None, path) if path.starts_with(TOKENS) => (one_token(path)?, Method::DELETE, "DELETE"),
        (None, MODELS) => (Route::Models, Method::GET, "GET"),
        (None, "/healthz") => (Route::Health, Method::GET, "GET"),
        (None, "/readyz") => (Route::Ready, Method::GET, "GET"),
        (None, path) => (one_model(path)?, Method::GET, "GET"),
    };
    // The server leaves out the body of an answer to HEAD.
    let is_head = *method == Method::HEAD && allowed == Method::GET;
    if *method != allowed && !is_head {
        return Err(Fault::MethodNotAllowed { allow: name });
    }
    if uri.query().is_some() && allowed != Method::GET {
        return Err(Fault::Invalid(Invalid::whole(
            "query strings are not taken here; remove everything from the ? on",
        )));
    }
    Ok(route)
}

fn one_run(path: &str) -> Result<Route, Fault> {
    let name = path
        .strip_prefix(RUNS)
        .and_then(|rest| rest.strip_prefix('/'));
    let name = name.filter(|name| !name.is_empty()).ok_or(Fault::NoRoute)?;
    decoded(name).map(Route::Run).ok_or(Fault::NoRoute)
}

fn one_token(path: &str) -> Result<Route, Fault> {
    let id = path
        .strip_prefix(TOKENS)
        .and_then(|rest| rest.strip_prefix('/'))
        // One spelling each: no sign, no zero before it.
        .filter(|id| id.bytes().all(|b| b.is_ascii_digit()) && !id.starts_with('0'))
        .ok_or(Fault::NoRoute)?;
    id.parse().map(Route::Token).map_err(|_| Fault::NoRoute)
}

fn one_model(path: &str) -> Result<Route, Fault> {
    let id = path
        .strip_prefix(MODELS)
        .and_then(|rest| rest.strip_prefix('/'))
        .filter(|id| !id.is_empty())
        .ok_or(Fault::NoRoute)?;
    // SDKs write the `/` of a model's name as %2F. The name is only looked up, never forwarded.
    decoded(id).map(Route::Model).ok_or(Fault::NoRoute)
}

fn decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| char::from(b?).to_digit(16);
        let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(line: &str) -> Result<Route, u16> {
        let (method, target) = line.split_once(' ').unwrap();
        let uri: Uri = target.parse().unwrap();
        of(&method.parse().unwrap(), &uri).map_err(|fault| fault.row().status.as_u16())
    }

    #[test]
    fn only_the_exact_spelling_is_a_route() {
        for (line, expected) in [
            (
                "POST /v1/chat/completions",
                Ok(Route::Api(Api::ChatCompletions)),
            ),
            ("POST /v1/completions", Ok(Route::Api(Api::Completions))),
            ("POST /v1/embeddings", Ok(Route::Api(Api::Embeddings))),
            ("POST /v1/responses", Ok(Route::Api(Api::Responses))),
            ("GET /v1/models", Ok(Route::Models)),
            ("GET /v1/models/a/b", Ok(Route::Model("a/b".into()))),
            ("GET /v1/models/a%2Fb", Ok(Route::Model("a/b".into()))),
            ("GET /v1/aex/me", Ok(Route::Me)),
            ("POST /v1/aex/quote", Ok(Route::Quote)),
            ("POST /v1/aex/runs", Ok(Route::Runs)),
            ("DELETE /v1/aex/runs/a/7", Ok(Route::Run("a/7".into()))),
            ("DELETE /v1/aex/runs/a%2F7", Ok(Route::Run("a/7".into()))),
            ("DELETE /v1/aex/runs/", Err(404)),
            ("POST /v1/aex/runsx", Err(404)),
            ("GET /v1/aex/runs/a/7", Err(405)),
            ("GET /v1/aex/runs", Err(405)),
            ("POST /v1/aex/me", Err(405)),
            ("GET /v1/aex/you", Err(404)),
            ("GET /v1/aex/tokens", Ok(Route::Tokens)),
            ("POST /v1/aex/tokens", Err(405)),
            ("POST /v1/aex/tokens/rotate", Ok(Route::RotateToken)),
            ("GET /v1/aex/tokens/rotate", Err(405)),
            ("DELETE /v1/aex/tokens/7", Ok(Route::Token(7))),
            ("GET /v1/aex/tokens/7", Err(405)),
            ("DELETE /v1/aex/tokens/07", Err(404)),
            ("DELETE /v1/aex/tokens/+7", Err(404)),
            ("DELETE /v1/aex/tokens/", Err(404)),
            ("DELETE /v1/aex/tokensx", Err(404)),
            ("DELETE /v1/aex/tokens/99999999999999999999", Err(404)),
            ("GET /healthz", Ok(Route::Health)),
            ("GET /readyz", Ok(Route::Ready)),
            ("POST //v1/chat/completions", Err(404)),
            ("POST /v1/chat/completions/", Err(404)),
            ("POST /v1/%63hat/completions", Err(404)),
            ("POST /chat/completions", Err(404)),
            ("POST /V1/chat/completions", Err(404)),
            ("POST /v1/chat/../chat/completions", Err(404)),
            ("POST http://127.0.0.1:9000/v1/chat/completions", Err(404)),
            ("POST /v1/responses/", Err(404)),
            ("GET /v1/responses/resp_1", Err(404)),
            ("POST /v1/responses/resp_1/cancel", Err(404)),
            ("POST /v1/files", Err(404)),
            ("POST /v1/batches", Err(404)),
            ("GET /v1/realtime", Err(404)),
            ("POST /v1/images/generations", Err(404)),
            ("POST /v1/audio/speech", Err(404)),
            ("POST /v1/audio/transcriptions", Err(404)),
            ("POST /v1/moderations", Err(404)),
            ("POST /completions", Err(404)),
            ("POST /completion", Err(404)),
            ("POST /v1/v1/completions", Err(404)),
            ("POST /", Err(404)),
            ("GET /v1/models/", Err(404)),
            ("GET /v1/models/%zz", Err(404)),
            ("GET /", Err(404)),
            ("GET /v1/chat/completions", Err(405)),
            ("HEAD /v1/chat/completions", Err(405)),
            ("OPTIONS /v1/models", Err(405)),
            ("POST /v1/chat/completions?api_key=x", Err(400)),
            // The parser of `Uri` drops a fragment before anybody can see it.
            (
                "POST /v1/chat/completions#x",
                Ok(Route::Api(Api::ChatCompletions)),
            ),
            ("GET /healthz?probe=1", Ok(Route::Health)),
            ("GET /v1/models?limit=20", Ok(Route::Models)),
            ("HEAD /healthz", Ok(Route::Health)),
            ("HEAD /readyz", Ok(Route::Ready)),
        ] {
            assert_eq!(route(line), expected, "{line}");
        }
    }
}

//! An agent's own tokens, by its agent token: listed without their text, replaced, ended.

use aex_admin_proto::peer::Peer;
use aex_admin_proto::worker::{TokenRevokeParams, TokenRotateParams, TokensReply};
use http::header::{CACHE_CONTROL, HeaderValue};
use http::{HeaderMap, Response};
use hyper::body::Incoming;

use super::Shared;
use super::looks::{asked, json, refused, unavailable};
use crate::admin::Unavailable;
use crate::answer::{self, Fault};
use crate::body::Outgoing;
use crate::headers;
use crate::own::{NewToken, RevokedToken, RotateAsk, TokenList};

/// Two durations.
const MAX_ROTATE_BYTES: u64 = 4096;

pub(super) async fn list(shared: &Shared, headers: &HeaderMap, peer: Peer) -> Response<Outgoing> {
    let token = match headers::bearer(headers) {
        Ok(token) => token,
        Err(fault) => return refused(fault.row()),
    };
    match shared.admin.tokens(token, peer).await {
        Ok(TokensReply::Listed(tokens)) => json(&TokenList::from(&tokens[..])),
        reply => other(reply),
    }
}

pub(super) async fn rotate(
    shared: &Shared,
    headers: HeaderMap,
    body: Incoming,
    peer: Peer,
) -> Response<Outgoing> {
    let (token, _, body, _room) = match asked(shared, headers, body, MAX_ROTATE_BYTES, peer).await {
        Ok(asked) => asked,
        Err(fault) => return refused(fault.row()),
    };
    let (ttl_s, grace_s) = match RotateAsk::read(&body) {
        Ok(asked) => asked,
        Err(invalid) => return refused(Fault::Invalid(invalid).row()),
    };
    let params = TokenRotateParams {
        token,
        ttl_s,
        grace_s,
        peer,
    };
    match shared.admin.rotate_token(&params).await {
        Ok(TokensReply::Made(reply)) => {
            let mut response = json(&NewToken::from(&*reply));
            let headers = response.headers_mut();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        reply => other(reply),
    }
}

pub(super) async fn revoke(
    shared: &Shared,
    headers: &HeaderMap,
    id: i64,
    peer: Peer,
) -> Response<Outgoing> {
    let token = match headers::bearer(headers) {
        Ok(token) => token,
        Err(fault) => return refused(fault.row()),
    };
    let params = TokenRevokeParams { token, id, peer };
    match shared.admin.revoke_token(&params).await {
        Ok(TokensReply::Revoked { id }) => json(&RevokedToken { id, revoked: true }),
        // Another's token is not known here.
        Ok(TokensReply::NoSuch) => refused(Fault::NoToken(id).row()),
        reply => other(reply),
    }
}

fn other(reply: Result<TokensReply, Unavailable>) -> Response<Outgoing> {
    match reply {
        Ok(TokensReply::Refused(refusal)) => refused(answer::of_refusal(&refusal)),
        Ok(_) => unavailable(&"the kernel gave another answer than was asked for"),
        Err(error) => unavailable(&error),
    }
}

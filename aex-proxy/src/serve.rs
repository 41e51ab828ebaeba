//! One request: finds its route, reads its body within bounds, and has it carried. What carries nothing
//! out is in [`looks`] and [`tokens`].

mod arrival;
mod looks;
mod tokens;

use std::convert::Infallible;
use std::sync::Arc;

use aex_admin_proto::peer::Peer;
use aex_admin_proto::worker::{ReserveParams, Route as Api};
use aex_admin_proto::{HoldId, TokenDigest};
use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;

use crate::admin::Admin;
use crate::answer::Fault;
use crate::body::Outgoing;
use crate::carry::{self, Job};
use crate::egress::Egress;
use crate::headers;
use crate::idempotency;
use crate::ids::Ids;
use crate::request::{self, ApiRequest};
use crate::room::{Room, SMALL_BYTES};
use crate::route::{self, Route};
use crate::spool::Spool;
use arrival::Sender;

/// What every connection of this worker shares.
pub struct Shared {
    pub admin: Admin,
    pub egress: Egress,
    ids: Arc<Ids>,
    /// For the bodies of requests.
    room: Room,
    /// For plain answers, which are kept until they are settled.
    answers: Room,
    spool: Spool,
    /// Cloned into every task that must end before the worker may: see [`crate::server`].
    alive: mpsc::Sender<Infallible>,
}

impl Shared {
    #[must_use]
    pub fn new(
        admin: Admin,
        egress: Egress,
        spool: Spool,
        alive: mpsc::Sender<Infallible>,
    ) -> Self {
        Self {
            admin,
            egress,
            ids: Arc::default(),
            room: Room::default(),
            answers: Room::default(),
            spool,
            alive,
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let alive = self.alive.clone();
        // Pinned here, once: the runtime moves a task several times, and this one is large.
        let task = Box::pin(task);
        tokio::spawn(async move {
            task.await;
            drop(alive);
        });
    }
}

/// Answers one request of `peer`.
pub async fn serve(shared: &Shared, request: Request<Incoming>, peer: Peer) -> Response<Outgoing> {
    // The connection's buffers hold the head as it came. With an own key in it they must not outlive it.
    let ends = request.headers().contains_key(headers::PROVIDER_KEY)
        && request.version() <= http::Version::HTTP_11;
    let mut response = answer(shared, request, peer).await;
    if ends {
        (response.headers_mut()).insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn answer(shared: &Shared, request: Request<Incoming>, peer: Peer) -> Response<Outgoing> {
    let (head, body) = request.into_parts();
    let route = match route::of(&head.method, &head.uri) {
        Ok(route) => route,
        Err(fault) => {
            arrival::refuse(shared, &head.headers, body);
            return fault.row().response(None);
        }
    };
    match route {
        Route::Api(api) => carried(shared, api, head.headers, body, peer).await,
        Route::Models => looks::models(shared, &head.headers, peer).await,
        Route::Model(name) => looks::model(shared, &head.headers, name, peer).await,
        Route::Me => looks::me(shared, &head.headers, peer).await,
        Route::Quote => looks::quote(shared, head.headers, body, peer).await,
        Route::Runs => looks::create_run(shared, head.headers, body, peer).await,
        Route::Run(name) => looks::end_run(shared, &head.headers, name, peer).await,
        Route::Tokens => tokens::list(shared, &head.headers, peer).await,
        Route::RotateToken => tokens::rotate(shared, head.headers, body, peer).await,
        Route::Token(id) => tokens::revoke(shared, &head.headers, id, peer).await,
        Route::Health => looks::json(&Health { status: "ok" }),
        Route::Ready => ready(shared).await,
    }
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
}

async fn ready(shared: &Shared) -> Response<Outgoing> {
    let why = match shared.admin.ready().await {
        Ok(reply) if reply.ready => return looks::json(&Health { status: "ready" }),
        Ok(reply) => reply.why.unwrap_or_else(|| "the kernel is starting".into()),
        Err(error) => error.to_string(),
    };
    Fault::Kernel(why).row().response(None)
}

/// A request that is governed: judged, held for, carried.
async fn carried(
    shared: &Shared,
    api: Api,
    headers: HeaderMap,
    body: Incoming,
    peer: Peer,
) -> Response<Outgoing> {
    let id = match shared.ids.next() {
        Ok(id) => id,
        Err(error) => {
            tracing::error!(%error, "no randomness for a request's id");
            let fault = Fault::Kernel("the kernel has no randomness; try again shortly".into());
            return fault.row().response(None);
        }
    };
    match read_job(shared, api, id, (headers, body), peer).await {
        Ok(job) => {
            let (answer, answered) = oneshot::channel();
            let ways = carry::Ways {
                admin: shared.admin.clone(),
                egress: shared.egress.clone(),
                ids: Arc::clone(&shared.ids),
                bodies: shared.room.clone(),
                answers: shared.answers.clone(),
                spool: shared.spool.clone(),
            };
            shared.spawn(carry::carry(ways, job, answer));
            answered.await.unwrap_or_else(|_| {
                let fault = Fault::Kernel("the request was lost inside the worker".into());
                fault.row().response(Some(id))
            })
        }
        Err(fault) => fault.row().response(Some(id)),
    }
}

/// Everything that can be refused without asking anybody.
async fn read_job(
    shared: &Shared,
    api: Api,
    id: HoldId,
    (headers, body): (HeaderMap, Incoming),
    peer: Peer,
) -> Result<Box<Job>, Fault> {
    let limit_bytes = shared.admin.max_body_bytes();
    let judged = headers::token(&headers).and_then(|token| {
        let idempotency = idempotency::of(&headers, token)?;
        let own_key = headers::provider_key(&headers)?;
        let session = headers::session(&headers)?;
        let length = headers::json_body(&headers, limit_bytes)?;
        Ok((
            TokenDigest::of(token),
            idempotency,
            own_key,
            session,
            length,
        ))
    });
    let (token, idempotency, own_key, session, length) = match judged {
        Ok(judged) => judged,
        Err(fault) => {
            arrival::refuse(shared, &headers, body);
            return Err(fault);
        }
    };
    // With it goes the token itself.
    drop(headers);
    let (body, room) =
        arrival::read(shared, Sender::new(token, peer), body, length, limit_bytes).await?;
    let mut request = judge(api, &body).await?;
    let mut facts = std::mem::take(&mut request.facts);
    facts.own_key = own_key.is_some();
    facts.session = session;
    Ok(Box::new(Job {
        id,
        params: ReserveParams {
            id,
            token,
            route: api,
            model: std::mem::take(&mut request.model),
            facts,
            idempotency: (idempotency.as_ref()).map(|key| key.claim(api, &body)),
            again: None,
            peer,
        },
        request,
        body,
        own_key,
        spool_key: idempotency.map(|key| key.spool),
        room,
    }))
}

/// Judges a body. A large one takes up to a second: others are not to wait for that.
async fn judge(api: Api, body: &Bytes) -> Result<ApiRequest, Fault> {
    if body.len() as u64 <= SMALL_BYTES {
        return request::read(api, body).map_err(Fault::Invalid);
    }
    let body = body.clone();
    match spawn_blocking(move || request::read(api, &body)).await {
        Ok(read) => read.map_err(Fault::Invalid),
        Err(_) => Err(Fault::Kernel(
            "the request was lost inside the worker".into(),
        )),
    }
}

//! Carries one request from its reserve to its settle, in a task of its own that outlives the client.
//!
//! The steps: reserve, dispatch, read, settle, answer. What each step means is decided by the pure
//! [`Exchange`]; the waits are in [`reader`]. An attempt that came to nothing before its client saw a byte may
//! be followed by one at another target of the model: [`attempts`].

mod asking;
mod attempts;
mod heads;
mod reader;

use std::sync::Arc;
use std::time::Duration;

use aex_admin_proto::egress::{Failure, TICKET_HEADER};
use aex_admin_proto::worker::{Grant, ReserveParams};
use aex_admin_proto::{HoldId, clock};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::{Method, Request, Response, Uri};
use http_body_util::Full;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep};

use crate::admin::{Admin, Held};
use crate::answer::Fault;
use crate::body::Outgoing;
use crate::egress::Egress;
use crate::exchange::{self, Asked, Exchange};
use crate::headers;
use crate::ids::Ids;
use crate::keeping::{self, Keeping};
use crate::request::ApiRequest;
use crate::room::{Room, Taken};
use crate::spool::{Spool, SpoolKey};
use asking::{NoGrant, reserve};
use attempts::{Course, Failed, Kept, Next};
use reader::Reader;

const TICKET: HeaderName = HeaderName::from_static(TICKET_HEADER);
/// The egress ends an exchange at its deadline; this is how much later the worker stops waiting.
const DEADLINE_GRACE_MS: u64 = 2_000;

/// A request that was read and may be carried.
pub struct Job {
    pub id: HoldId,
    pub params: ReserveParams,
    pub request: ApiRequest,
    pub body: Bytes,
    pub own_key: Option<SecretString>,
    /// The request has an `Idempotency-Key`: under this its answer is kept, and found again.
    pub spool_key: Option<SpoolKey>,
    /// The room that a large body takes, given back when the request has been sent.
    pub room: Option<Taken>,
}

/// Whom and what a request needs on its way.
pub struct Ways {
    pub admin: Admin,
    pub egress: Egress,
    /// For the ids of further attempts.
    pub ids: Arc<Ids>,
    /// For bodies that are kept for them.
    pub bodies: Room,
    pub answers: Room,
    pub spool: Spool,
}

type Answer = oneshot::Sender<Response<Outgoing>>;

/// Carries `job` to its end. The answer goes to `client`; when that is dropped, the client has left.
pub async fn carry(ways: Ways, mut job: Box<Job>, mut client: Answer) {
    let mut course = Course::default();
    let mut grant = match reserve(&ways.admin, &mut job, &mut client).await {
        Ok(grant) => grant,
        Err(why) => return drop(client.send(not_granted(&ways, &job, why).await)),
    };
    while let Some(failed) = attempt(&ways, &course, job, grant, client).await {
        (job, client) = (failed.job, failed.client);
        match course
            .next(&ways, &mut job, &mut client, failed.tried)
            .await
        {
            Next::Granted(next) => grant = next,
            Next::Last => return drop(client.send(failed.told)),
            Next::Before(before) => {
                let why = NoGrant::Before(before);
                return drop(client.send(not_granted(&ways, &job, why).await));
            }
        }
    }
}

async fn not_granted(ways: &Ways, job: &Job, why: NoGrant) -> Response<Outgoing> {
    match why {
        NoGrant::Row(row) => row.response(Some(job.id)),
        NoGrant::Before(before) => {
            keeping::replay(&ways.spool, job.spool_key.as_ref(), before).await
        }
    }
}

/// Carries a request that was granted to its settle and its answer. Gives it back when it came to nothing
/// and another target may be asked: then the client waits still.
async fn attempt(
    ways: &Ways,
    course: &Course,
    mut job: Box<Job>,
    grant: Box<Grant>,
    client: Answer,
) -> Option<Box<Failed>> {
    let (id, admin) = (job.id, &ways.admin);
    let held = Arc::new(admin.hold(id, &grant));
    let asked = Asked {
        route: job.request.route,
        stream: job.request.stream,
        hide_usage: job.request.asks_for_usage(&grant) && !job.request.include_usage,
        echoed_tokens: job.request.echoed_tokens,
        hides_choices: job.request.hides_choices,
        own_key: job.own_key.is_some(),
    };
    let offered = job.request.govern(&grant.tools);
    let exchange = Exchange::new(asked, &grant).under(offered);
    if client.is_closed() {
        never_sent(admin, held, exchange).await;
        return None;
    }
    let request = match dispatch(&job, &grant) {
        Ok(request) => request,
        Err(error) => {
            tracing::error!(%id, %error, "request cannot be written for the egress");
            let fault = Fault::Kernel("the request cannot be dispatched".into());
            drop(client.send(fault.row().response(Some(id))));
            never_sent(admin, held, exchange).await;
            return None;
        }
    };
    let key = job.spool_key.clone();
    let left_out = job.request.left_out_places();
    let room = job.room.take();
    let patience = Box::pin(sleep(Duration::from_millis(grant.first_byte_ms)));
    let limit = until(grant.deadline_boot_ms.saturating_add(DEADLINE_GRACE_MS));
    let mut reader = Reader {
        admin: admin.clone(),
        id,
        again: Kept::of(job, &grant, &ways.bodies),
        earlier_micro: course.cost_micro,
        grant,
        held,
        exchange,
        retry_after_s: None,
        unsent_head: None,
        patience,
        left_out,
        keeping: key.map(|key| Keeping::new(ways.spool.clone(), id, key)),
        room,
        answers: ways.answers.clone(),
        answer_room: None,
        limit: Box::pin(limit),
    };
    reader.run(&ways.egress, request, client).await
}

/// Settles a hold under which nothing was sent.
async fn never_sent(admin: &Admin, held: Arc<Held>, mut exchange: Exchange) {
    // The ticket stays unused, whatever the reason.
    exchange.failed(Failure::Ticket, exchange::fault_of(Failure::Ticket));
    admin.settle(held, exchange.observed()).await;
}

/// The request as the egress gets it.
fn dispatch(job: &Job, grant: &Grant) -> Result<Request<Full<Bytes>>, http::Error> {
    let body = job.request.forwarded(&job.body, grant);
    let accept = if job.request.stream {
        "text/event-stream, application/json"
    } else {
        "application/json"
    };
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::try_from(&grant.path)?;
    let head = request.headers_mut();
    head.reserve(5);
    head.insert(HOST, HeaderValue::from_static("aex-egress"));
    head.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    head.insert(ACCEPT, HeaderValue::from_static(accept));
    head.insert(TICKET, HeaderValue::from_str(&grant.ticket)?);
    if let Some(key) = &job.own_key {
        let mut value = HeaderValue::from_str(key.expose_secret())?;
        value.set_sensitive(true);
        head.insert(headers::PROVIDER_KEY, value);
    }
    Ok(request)
}

fn until(boot_ms: u64) -> Sleep {
    sleep(Duration::from_millis(
        boot_ms.saturating_sub(clock::boot_ms()),
    ))
}

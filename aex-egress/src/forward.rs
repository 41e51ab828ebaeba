//! One exchange: check the ticket, use it, send the request, hand back the answer.
//!
//! Each step that can fail ends the exchange with its [`Failure`]; from the moment that a ticket is
//! used there is a [`Running`] whose drop makes sure of an ending.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use aex_admin_proto::clock::boot_ms;
use aex_admin_proto::egress::{Failure, OWN_KEY_HEADER, TICKET_HEADER};
use aex_admin_proto::ticket::{Claims, KeyMode};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::attach;
use crate::body::{Answer, DownBody, UpBody};
use crate::flight::{Control, Flight, Running};
use crate::mask::Mask;
use crate::pool::Lease;
use crate::provider::{Active, Provider};
use crate::register::{Redeem, Register};

/// Connections that may turn out dead, unsent, before the provider counts as unreachable.
const MAX_TRIES: usize = 4;
/// What is read of a refused request, so that the worker can read the answer.
const DRAIN_BYTES: u64 = 16 * 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// What all exchanges share.
pub struct Egress {
    pub register: Arc<Register>,
    active: Mutex<Option<Arc<Active>>>,
    activated: Notify,
}

impl Egress {
    #[must_use]
    pub fn new(register: Arc<Register>) -> Self {
        Self {
            register,
            active: Mutex::new(None),
            activated: Notify::new(),
        }
    }

    /// The configuration in force; none before `aex-admin` gave one.
    #[must_use]
    pub fn active(&self) -> Option<Arc<Active>> {
        self.active
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn activate(&self, active: Arc<Active>) {
        *self.active.lock().unwrap_or_else(PoisonError::into_inner) = Some(active);
        self.activated.notify_waiters();
    }

    /// Ends when there is a configuration.
    pub async fn configured(&self) {
        loop {
            // Made before the look: what comes between is not missed.
            let activated = self.activated.notified();
            if self.active().is_some() {
                return;
            }
            activated.await;
        }
    }
}

/// A used ticket and what it allows.
struct Admitted {
    running: Running,
    claims: Claims,
    provider: Option<Arc<Provider>>,
}

/// Serves one request of a worker.
///
/// # Errors
/// Never: every failure is an answer.
pub async fn exchange(
    egress: Arc<Egress>,
    control: Arc<Control>,
    request: Request<Incoming>,
) -> Result<Response<DownBody>, Infallible> {
    let (parts, body) = request.into_parts();
    let admitted = match admit(&egress, &control, &parts) {
        Ok(admitted) => admitted,
        Err(why) => {
            drain(body).await;
            return Ok(own_answer(why));
        }
    };
    Ok(match dispatch(&egress, &parts, body, admitted).await {
        Ok(answer) => answer,
        Err((why, unread)) => {
            if let Some(body) = unread {
                drain(body).await;
            }
            own_answer(why)
        }
    })
}

/// Checks a request against its ticket, and uses the ticket. Nothing is forwarded before.
fn admit(egress: &Egress, control: &Arc<Control>, parts: &Parts) -> Result<Admitted, Failure> {
    const TICKET: HeaderName = HeaderName::from_static(TICKET_HEADER);
    let now = boot_ms();
    let active = egress.active().ok_or(Failure::Ticket)?;
    let ticket = attach::only(&parts.headers, &TICKET)
        .and_then(|ticket| ticket.to_str().ok())
        .ok_or(Failure::Ticket)?;
    let claims = active.ticket_key.open(ticket, now).map_err(|error| {
        tracing::warn!(%error, "a ticket was refused");
        Failure::Ticket
    })?;
    if !is_what_the_ticket_says(&claims, &parts.method, &parts.uri, &parts.headers) {
        tracing::warn!(id = %claims.id, "a ticket was presented for another request");
        return Err(Failure::Ticket);
    }
    let provider = active.providers.get(&claims.provider).cloned();
    let deadline = match &provider {
        Some(provider) => claims
            .deadline_boot_ms
            .min(now.saturating_add(provider.config.request_timeout_ms)),
        None => claims.deadline_boot_ms,
    };
    let flight = Flight::new(claims.id, deadline, control);
    egress
        .register
        .redeem(&flight, claims.expires_boot_ms)
        .map_err(|why| match why {
            Redeem::Refused => {
                tracing::warn!(id = %claims.id, "a ticket was presented again");
                Failure::Ticket
            }
            // The ticket is still good: nothing was sent.
            Redeem::Unable => Failure::Connect,
        })?;
    Ok(Admitted {
        running: Running::new(&egress.register, flight),
        claims,
        provider,
    })
}

fn is_what_the_ticket_says(
    claims: &Claims,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> bool {
    let named = headers.get(attach::PROVIDER_HEADER);
    method.as_str() == claims.method
        && uri.authority().is_none()
        && uri
            .path_and_query()
            .is_some_and(|path| path.as_str() == claims.path)
        && claims.path.starts_with('/')
        && named.is_none_or(|name| name.as_bytes() == claims.provider.as_bytes())
}

/// A failure, with the request's body if none of it was taken for sending.
type Failed = (Failure, Option<Incoming>);

async fn dispatch(
    egress: &Egress,
    parts: &Parts,
    body: Incoming,
    admitted: Admitted,
) -> Result<Response<DownBody>, Failed> {
    let Admitted {
        mut running,
        claims,
        provider,
    } = admitted;
    let outgoing = provider
        .ok_or(Failure::NotConfigured)
        .and_then(|provider| Outgoing::prepare(parts, &claims, provider));
    let outgoing = match outgoing {
        Ok(outgoing) => outgoing,
        Err(why) => {
            running.failed(why);
            return Err((why, Some(body)));
        }
    };
    let (lease, head, answer) = match outgoing.send(&mut running, body, &claims).await {
        Ok(answered) => answered,
        Err((why, unread)) => {
            running.failed(why);
            return Err((why, unread));
        }
    };
    Ok(outgoing.answer(egress, running, &claims, lease, head, answer))
}

/// A request that is ready to go.
struct Outgoing<'a> {
    provider: Arc<Provider>,
    given: &'a Parts,
    authorization: Option<HeaderValue>,
    body_bytes: u64,
}

impl<'a> Outgoing<'a> {
    fn prepare(
        given: &'a Parts,
        claims: &Claims,
        provider: Arc<Provider>,
    ) -> Result<Self, Failure> {
        let authorization = authorization(claims.key, &given.headers, &provider)?;
        let body_bytes = attach::body_length(&given.headers)
            .filter(|&bytes| bytes <= claims.max_body_bytes)
            .ok_or(Failure::RequestBody)?;
        Ok(Self {
            provider,
            given,
            authorization,
            body_bytes,
        })
    }

    /// Sends it once. Another connection is tried only while no byte was written.
    async fn send(
        &self,
        running: &mut Running,
        body: Incoming,
        claims: &Claims,
    ) -> Result<(Lease, http::response::Parts, Incoming), Failed> {
        let flight = Arc::clone(&running.flight);
        let mut body = UpBody::new(body, Arc::clone(&flight), claims.max_body_bytes);
        let alone = claims.key == KeyMode::Own;
        for _ in 0..MAX_TRIES {
            let acquired = flight
                .unless_cut(Lease::acquire(&self.provider, alone))
                .await;
            let mut lease = match acquired.and_then(|lease| lease) {
                Ok(lease) => lease,
                Err(why) => return Err((why, Some(body.into_inner()))),
            };
            let request = match self.request(&lease, &claims.path, body) {
                Ok(request) => request,
                Err(body) => return Err((Failure::NotConfigured, Some(body.into_inner()))),
            };
            running.sent = true;
            match flight.unless_cut(lease.send(request)).await {
                Ok(Ok(answer)) if !answer.status().is_informational() => {
                    let (head, answer) = answer.into_parts();
                    return Ok((lease, head, answer));
                }
                Ok(Ok(_)) => return Err((Failure::Reset, None)),
                Ok(Err(mut error)) => match error.take_message() {
                    Some(request) => {
                        running.sent = false;
                        body = request.into_body();
                    }
                    None => return Err((self.why_lost(&flight, &error.into_error()), None)),
                },
                Err(why) => return Err((why, None)),
            }
        }
        Err((Failure::Connect, Some(body.into_inner())))
    }

    fn why_lost(&self, flight: &Flight, error: &hyper::Error) -> Failure {
        if flight.upload_failed.load(Ordering::Relaxed) {
            return Failure::RequestBody;
        }
        // hyper's texts tell of connections and framing, never of content.
        tracing::warn!(provider = self.provider.config.name, id = %flight.id, %error, "no answer");
        Failure::Reset
    }

    fn request(&self, lease: &Lease, path: &str, body: UpBody) -> Result<Request<UpBody>, UpBody> {
        let place = &self.provider.place;
        let Some(uri) = place.target(path, lease.is_http2()) else {
            return Err(body);
        };
        let is_http2 = lease.is_http2();
        let mut request = Request::new(body);
        *request.method_mut() = self.given.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = attach::request_headers(
            &self.given.headers,
            self.authorization.clone(),
            (!is_http2).then_some(&place.host_header),
            self.body_bytes,
        );
        if is_http2 {
            *request.version_mut() = http::Version::HTTP_2;
        }
        Ok(request)
    }

    /// What the worker gets of a provider's answer.
    fn answer(
        &self,
        egress: &Egress,
        mut running: Running,
        claims: &Claims,
        lease: Lease,
        mut head: http::response::Parts,
        body: Incoming,
    ) -> Response<DownBody> {
        let now = boot_ms();
        running.status = Some(head.status.as_u16());
        running.head_boot_ms = Some(now);
        if claims.key == KeyMode::Operator && attach::refuses_key(head.status) {
            running.completed();
            return key_refused(head.status);
        }
        if body.size_hint().lower() > claims.max_response_bytes {
            running.failed(Failure::ResponseTooLarge);
            return own_answer(Failure::ResponseTooLarge);
        }
        attach::clean_answer(&mut head.headers, self.authorization.as_ref());
        if attach::is_event_stream(&head.headers) {
            egress.register.opened(claims.id, now);
        }
        running.answering();
        let masked = match claims.key {
            KeyMode::Operator => self.provider.masked.clone(),
            // An own key is the agent's to see.
            KeyMode::Own | KeyMode::None => None,
        };
        let mut answer = Answer::new(
            body,
            running,
            lease,
            masked.map(Mask::new),
            self.body_bytes,
            claims.max_response_bytes,
        );
        answer.end_if_empty(&mut Context::from_waker(Waker::noop()));
        let mut response = Response::new(DownBody::Provider(Box::new(answer)));
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        response
    }
}

fn authorization(
    mode: KeyMode,
    headers: &HeaderMap,
    provider: &Provider,
) -> Result<Option<HeaderValue>, Failure> {
    const OWN_KEY: HeaderName = HeaderName::from_static(OWN_KEY_HEADER);
    match mode {
        KeyMode::None => Ok(None),
        KeyMode::Operator => match &provider.authorization {
            Some(key) => Ok(Some(key.clone())),
            None => Err(Failure::NotConfigured),
        },
        KeyMode::Own => attach::only(headers, &OWN_KEY)
            .and_then(|key| attach::bearer(key.as_bytes()))
            .map(Some)
            .ok_or(Failure::NotConfigured),
    }
}

fn own_answer(why: Failure) -> Response<DownBody> {
    let mut response = Response::new(DownBody::Own(None));
    *response.status_mut() = attach::status_of(why);
    let (name, value) = attach::failure_header(why);
    response.headers_mut().insert(name, value);
    response
}

fn key_refused(status: http::StatusCode) -> Response<DownBody> {
    let text = Bytes::from_static(attach::KEY_REFUSED_BODY);
    let mut response = Response::new(DownBody::Own(Some(text)));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// Reads a request to its end, so that a worker that still writes is not broken off before it can
/// read why. What takes too long, or is too long, is broken off all the same.
async fn drain(mut body: Incoming) {
    let all = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            if bytes > DRAIN_BYTES {
                return;
            }
        }
    };
    // Too slow is the same as too long.
    let _ = timeout(DRAIN_TIME, all).await;
}

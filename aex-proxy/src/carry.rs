//! Carries one request from its reserve to its settle, in a task of its own that outlives the client.
//!
//! The steps: reserve, dispatch, read, settle, answer. What each step means is decided by the pure
//! [`Exchange`]; here are only the waits.

mod asking;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use aex_admin_proto::egress::{FAILURE_HEADER, Failure, TICKET_HEADER};
use aex_admin_proto::worker::{Grant, ReserveParams, SettleReply};
use aex_admin_proto::{HoldId, clock};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, Uri, response};
use http_body_util::Full;
use hyper::body::Frame;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::admin::{Admin, Held};
use crate::answer::{self, Fault};
use crate::body::Outgoing;
use crate::egress::{Egress, SendError, Upstream};
use crate::exchange::{self, Asked, Collected, Ending, Exchange, Head, Step, Verdict, Way};
use crate::headers;
use crate::keeping::{self, Keeping};
use crate::request::ApiRequest;
use crate::room::{Room, SMALL_BYTES, Taken};
use crate::spool::{Spool, SpoolKey};
use asking::{NoGrant, reserve};

/// Largest plain answer whose length its head did not tell.
const MAX_UNTOLD_BYTES: u64 = 64 * 1024 * 1024;
/// What is readable at once is put together up to about this.
const MAX_WRITE_BYTES: usize = 16 * 1024;
const TICKET: HeaderName = HeaderName::from_static(TICKET_HEADER);
const FAILURE: HeaderName = HeaderName::from_static(FAILURE_HEADER);
/// The egress ends an exchange at its deadline; this is how much later the worker stops waiting.
const DEADLINE_GRACE_MS: u64 = 2_000;
/// How long a stream's error event waits for a client that reads slowly.
const LAST_EVENT_LIMIT: Duration = Duration::from_secs(2);
/// Error objects larger than this are passed on without looking into them.
const MAX_DETAILED_BYTES: usize = 1024 * 1024;

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
    pub answers: Room,
    pub spool: Spool,
}

type Answer = oneshot::Sender<Response<Outgoing>>;

/// Carries `job` to its end. The answer goes to `client`; when that is dropped, the client has left.
pub async fn carry(ways: Ways, mut job: Box<Job>, mut client: Answer) {
    let Ways {
        admin,
        egress,
        answers,
        spool,
    } = ways;
    let id = job.id;
    let room = job.room.take();
    let grant = match reserve(&admin, &mut job, &mut client).await {
        Ok(grant) => grant,
        Err(NoGrant::Row(row)) => return drop(client.send(row.response(Some(id)))),
        Err(NoGrant::Before(before)) => {
            let response = keeping::replay(&spool, job.spool_key.as_ref(), before).await;
            return drop(client.send(response));
        }
    };
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
        return never_sent(&admin, held, exchange).await;
    }
    let request = match dispatch(&job, &grant) {
        Ok(request) => request,
        Err(error) => {
            tracing::error!(%id, %error, "request cannot be written for the egress");
            let fault = Fault::Kernel("the request cannot be dispatched".into());
            drop(client.send(fault.row().response(Some(id))));
            return never_sent(&admin, held, exchange).await;
        }
    };
    let keeping = (job.spool_key.take()).map(|key| Keeping::new(spool, id, key));
    let left_out = job.request.left_out_places();
    drop(job);
    let limit = until(grant.deadline_boot_ms.saturating_add(DEADLINE_GRACE_MS));
    let mut reader = Reader {
        admin,
        id,
        grant,
        held,
        exchange,
        left_out,
        keeping,
        room,
        answers,
        answer_room: None,
        limit: Box::pin(limit),
    };
    reader.run(&egress, request, client).await;
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

/// What it means that the egress gave no answer.
fn no_answer(error: &SendError) -> (Failure, Fault) {
    match error {
        SendError::Unreachable(_) => (
            Failure::Connect,
            Fault::Kernel("the kernel's way to the providers is down; try again shortly".into()),
        ),
        SendError::Lost(_) => (Failure::EgressGone, exchange::fault_of(Failure::EgressGone)),
    }
}

fn until(boot_ms: u64) -> Sleep {
    sleep(Duration::from_millis(
        boot_ms.saturating_sub(clock::boot_ms()),
    ))
}

/// Everything that an exchange under way needs.
struct Reader {
    admin: Admin,
    id: HoldId,
    grant: Box<Grant>,
    held: Arc<Held>,
    exchange: Exchange,
    /// What of the request was not forwarded, by place, for the client to know.
    left_out: Vec<String>,
    /// The answer on its way into the spool.
    keeping: Option<Keeping>,
    /// Held until the request has been taken over.
    room: Option<Taken>,
    answers: Room,
    /// Held by a plain answer that is large, until it is handed to the client's connection.
    answer_room: Option<Taken>,
    /// When this worker stops waiting, whatever happens.
    limit: Pin<Box<Sleep>>,
}

/// Who waits for the bytes.
enum Client {
    /// For a whole answer.
    Waiting(Answer),
    /// For a stream that has begun.
    Streaming(mpsc::Sender<Bytes>),
    Gone,
}

/// What comes next while a body is read.
enum Next {
    Frame(Option<Result<Frame<Bytes>, hyper::Error>>),
    /// No frame is there now.
    NothingYet,
    ClientLeft,
    OutOfTime,
}

impl Client {
    /// Ends when the client leaves; never for one that has left.
    async fn left(&mut self) {
        match self {
            Self::Waiting(answer) => answer.closed().await,
            Self::Streaming(chunks) => chunks.closed().await,
            Self::Gone => std::future::pending().await,
        }
    }
}

impl Reader {
    async fn run(&mut self, egress: &Egress, request: Request<Full<Bytes>>, client: Answer) {
        let mut client = Client::Waiting(client);
        let answered = self.await_head(egress, request, &mut client).await;
        self.room = None;
        match answered {
            Some((head, body)) => self.read(head, body, client).await,
            None => self.settle_and_answer(None, client).await,
        }
    }

    /// Sends the request and waits for the answer's head; nothing when none came.
    async fn await_head(
        &mut self,
        egress: &Egress,
        request: Request<Full<Bytes>>,
        client: &mut Client,
    ) -> Option<(response::Parts, Upstream)> {
        let sending = egress.send(request);
        tokio::pin!(sending);
        loop {
            tokio::select! {
                biased;
                sent = &mut sending => match sent {
                    Ok(answer) => return Some(answer),
                    Err(error) => {
                        tracing::warn!(id = %self.id, %error, "no answer from the egress");
                        let (failure, fault) = no_answer(&error);
                        self.exchange.failed(failure, fault);
                        return None;
                    }
                },
                () = client.left() => self.lose(client),
                () = &mut self.limit => {
                    self.out_of_time();
                    return None;
                }
            }
        }
    }

    /// The client left. The provider is still read for a while, for the usage.
    fn lose(&mut self, client: &mut Client) {
        *client = Client::Gone;
        let at_most_ms = self.exchange.client_gone();
        self.stop_within(at_most_ms);
    }

    fn stop_within(&mut self, at_most_ms: u64) {
        let end = Instant::now() + Duration::from_millis(at_most_ms);
        if end < self.limit.deadline() {
            self.limit.as_mut().reset(end);
        }
    }

    fn out_of_time(&mut self) {
        let failure = if self.exchange.is_abandoned() {
            Failure::WorkerGone
        } else {
            Failure::Timeout
        };
        self.exchange.ended(Ending::GivenUp(failure));
    }

    async fn read(&mut self, head: response::Parts, body: Upstream, client: Client) {
        match self.exchange.head(seen(&head)) {
            Way::Collect => {
                let mut client = client;
                self.read_body(body, &mut client).await;
                self.settle_and_answer(Some(head), client).await;
            }
            Way::Relay => {
                let client = self.begin_stream(head, client);
                self.relay(body, client).await;
            }
        }
    }

    /// Answers with the provider's head; the chunks follow.
    fn begin_stream(&mut self, mut head: response::Parts, client: Client) -> Client {
        if let Some(keeping) = &mut self.keeping {
            keeping.head(&head);
        }
        let Client::Waiting(answer) = client else {
            return client;
        };
        headers::keep_for_agent(&mut head.headers);
        self.add_headers(&mut head.headers, self.grant.remaining_micro);
        let (sender, stream) = Outgoing::stream();
        // A client that has left is seen at the next read: the stream is closed then.
        let _ = answer.send(response_of(head, stream));
        Client::Streaming(sender)
    }

    /// Reads the body to its end, or as far as somebody wants it. What is readable at once goes to the
    /// client at once, as one write; nothing is kept back to wait for more.
    async fn read_body(&mut self, mut body: Upstream, client: &mut Client) {
        let mut unsent = Collected::default();
        let ending = loop {
            match self.next(&mut body, client, !unsent.is_empty()).await {
                Next::Frame(None) => {
                    body.give_back();
                    break Ending::Whole;
                }
                Next::Frame(Some(Err(error))) => {
                    tracing::debug!(id = %self.id, %error, "answer cut");
                    break self.why_cut();
                }
                Next::Frame(Some(Ok(frame))) => {
                    let Ok(chunk) = frame.into_data() else {
                        continue;
                    };
                    match self.exchange.chunk(chunk) {
                        Step::Read => {
                            if self.make_room(&body, client).await {
                                continue;
                            }
                            return;
                        }
                        Step::WindDown => {
                            self.stop_within(exchange::ABORT_READ_MS);
                            continue;
                        }
                        Step::Stop => break Ending::Cut,
                        Step::Send(bytes) => unsent.push(bytes),
                    }
                    if unsent.len() < MAX_WRITE_BYTES {
                        continue;
                    }
                }
                Next::NothingYet => {}
                // Nothing is unsent in these two: it was sent before anything was waited for.
                Next::ClientLeft => {
                    self.lose(client);
                    continue;
                }
                Next::OutOfTime => return self.out_of_time(),
            }
            if !self.send(unsent.take(), client).await {
                return;
            }
            if self.exchange.is_over_for_the_client() {
                // It was told why; the provider is read on for the usage alone.
                *client = Client::Gone;
            }
        };
        if let Some(last) = self.exchange.ended(ending) {
            unsent.push(last);
        }
        if !unsent.is_empty() {
            self.send(unsent.take(), client).await;
        }
    }

    /// At the deadline it is the egress that cuts.
    fn why_cut(&self) -> Ending {
        if clock::boot_ms() < self.grant.deadline_boot_ms {
            Ending::Cut
        } else {
            Ending::GivenUp(Failure::Timeout)
        }
    }

    /// Waits for room when a plain answer turns out large; the provider waits too. Whether reading
    /// goes on.
    async fn make_room(&mut self, body: &Upstream, client: &mut Client) -> bool {
        let collected_bytes = self.exchange.collected_bytes();
        if collected_bytes <= SMALL_BYTES || self.answer_room.is_some() {
            return true;
        }
        let bytes = match body.bytes_to_come() {
            Some(bytes) => bytes.saturating_add(collected_bytes),
            None => MAX_UNTOLD_BYTES,
        };
        self.exchange.limit_bytes(bytes);
        let room = self.answers.clone();
        let taking = room.take(bytes);
        tokio::pin!(taking);
        loop {
            tokio::select! {
                biased;
                taken = &mut taking => {
                    self.answer_room = Some(taken);
                    return true;
                }
                () = client.left() => self.lose(client),
                () = &mut self.limit => {
                    self.out_of_time();
                    return false;
                }
            }
        }
    }

    /// What happens next. With bytes unsent nothing is waited for.
    async fn next(&mut self, body: &mut Upstream, client: &mut Client, unsent: bool) -> Next {
        tokio::select! {
            biased;
            frame = body.frame() => Next::Frame(frame),
            () = std::future::ready(()), if unsent => Next::NothingYet,
            () = client.left() => Next::ClientLeft,
            () = &mut self.limit => Next::OutOfTime,
        }
    }

    /// Passes bytes on to a client that reads a stream. Waits while it is slow, so that the provider
    /// waits too. Whether reading goes on.
    async fn send(&mut self, bytes: Bytes, client: &mut Client) -> bool {
        if let Some(keeping) = &mut self.keeping {
            keeping.push(&bytes);
        }
        let Client::Streaming(chunks) = client else {
            return true;
        };
        let sent = tokio::select! {
            biased;
            sent = chunks.send(bytes) => sent,
            () = &mut self.limit => {
                self.out_of_time();
                return false;
            }
        };
        if sent.is_err() {
            self.lose(client);
        }
        true
    }

    /// An answer is kept before it is settled: whoever is told that it ended finds it.
    async fn settle(&mut self) -> Option<SettleReply> {
        if let Some(keeping) = self.keeping.take()
            && self.exchange.is_whole_success()
        {
            keeping.keep().await;
        }
        let observed = self.exchange.observed();
        self.admin.settle(Arc::clone(&self.held), observed).await
    }

    async fn relay(&mut self, body: Upstream, mut client: Client) {
        self.read_body(body, &mut client).await;
        let reply = self.settle().await;
        let severed = reply.is_some_and(|reply| reply.severed);
        if let (Client::Streaming(chunks), Some(fault)) =
            (client, self.exchange.stream_fault(severed))
        {
            // A client that left meanwhile does not read it; one that does not read holds nothing up.
            let _ = timeout(LAST_EVENT_LIMIT, chunks.send(fault.row().event())).await;
        }
    }

    async fn settle_and_answer(&mut self, head: Option<response::Parts>, client: Client) {
        if let (Some(keeping), Some(head)) = (&mut self.keeping, &head) {
            keeping.head(head);
            keeping.push(self.exchange.collected());
        }
        let settled = self.settle().await;
        let Client::Waiting(answer) = client else {
            return;
        };
        let severed = settled.as_ref().is_some_and(|reply| reply.severed);
        let response = match (self.exchange.verdict(severed), head) {
            (Verdict::Provider(body), Some(head)) => self.provider_answer(head, body, settled),
            (Verdict::Provider(_), None) => {
                let fault = Fault::Kernel("the egress gave no answer".into());
                fault.row().response(Some(self.id))
            }
            (Verdict::Fault(fault), _) => fault.row().response(Some(self.id)),
        };
        // A client that left meanwhile wants nothing any more.
        let _ = answer.send(response);
    }

    /// The provider's answer, with what AEX adds to it.
    fn provider_answer(
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
            head.headers
                .insert(headers::COST, HeaderValue::from(reply.cost_micro));
        } else {
            head.headers
                .insert(headers::REQUEST_ID, answer::id_value(self.id));
        }
        response_of(head, Outgoing::full(detailed.unwrap_or(body)))
    }

    fn add_headers(&self, head: &mut HeaderMap, remaining_micro: i64) {
        head.insert(headers::REQUEST_ID, answer::id_value(self.id));
        head.insert(headers::REMAINING, remaining_micro.into());
        if self.grant.cap_is_ours {
            head.insert(headers::OUTPUT_CAP, self.grant.output_cap.into());
        }
        if let Some(left_out) = places(&self.left_out, self.exchange.left_out()) {
            head.insert(headers::LEFT_OUT, left_out);
        }
    }
}

/// Places of request and answer, as in an error's `param`.
fn places(request: &[String], answer: &[String]) -> Option<HeaderValue> {
    let all: Vec<&str> = request.iter().chain(answer).map(String::as_str).collect();
    (!all.is_empty())
        .then(|| HeaderValue::try_from(all.join(",")).ok())
        .flatten()
}

fn response_of(head: response::Parts, body: Outgoing) -> Response<Outgoing> {
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

fn seen(head: &response::Parts) -> Head {
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
        failure,
    }
}

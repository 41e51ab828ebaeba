//! Reads the answer of one attempt: its head, its body as it comes, its end; and settles.
//!
//! What each step means is decided by the pure [`Exchange`]; here are only the waits.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use aex_admin_proto::egress::Failure;
use aex_admin_proto::worker::{Grant, Observed, SettleReply};
use aex_admin_proto::{HoldId, clock};
use bytes::Bytes;
use http::{Request, response};
use http_body_util::Full;
use hyper::body::Frame;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, timeout};

use super::Answer;
use super::attempts::{Attempted, Failed, Kept};
use super::heads::{response_of, seen};
use crate::admin::{Admin, Held};
use crate::answer::Fault;
use crate::body::Outgoing;
use crate::egress::{Egress, SendError, Upstream};
use crate::exchange::{self, Collected, Ending, Exchange, Step, Verdict, Way};
use crate::fallback;
use crate::headers;
use crate::keeping::Keeping;
use crate::room::{Room, SMALL_BYTES, Taken};

/// Largest plain answer whose length its head did not tell.
const MAX_UNTOLD_BYTES: u64 = 64 * 1024 * 1024;
/// What is readable at once is put together up to about this.
const MAX_WRITE_BYTES: usize = 16 * 1024;
/// How long a stream's error event waits for a client that reads slowly.
const LAST_EVENT_LIMIT: Duration = Duration::from_secs(2);

/// Everything that an exchange under way needs.
pub(super) struct Reader {
    pub(super) admin: Admin,
    pub(super) id: HoldId,
    pub(super) grant: Box<Grant>,
    pub(super) held: Arc<Held>,
    pub(super) exchange: Exchange,
    /// What of the request was not forwarded, by place, for the client to know.
    pub(super) left_out: Vec<String>,
    /// The answer on its way into the spool.
    pub(super) keeping: Option<Keeping>,
    /// The request itself, while another target may be asked in this one's place.
    pub(super) again: Option<Kept>,
    /// What earlier attempts cost.
    pub(super) earlier_micro: i64,
    /// See [`Observed::retry_after_s`].
    pub(super) retry_after_s: Option<u32>,
    /// Of a stream of which nothing else has come, while another target may be asked in this one's place.
    pub(super) unsent_head: Option<response::Parts>,
    /// How long the first byte is waited for, where another target may be faster.
    pub(super) patience: Pin<Box<Sleep>>,
    /// Held until the request has been taken over.
    pub(super) room: Option<Taken>,
    pub(super) answers: Room,
    /// Held by a plain answer that is large, until it is handed to the client's connection.
    pub(super) answer_room: Option<Taken>,
    /// When this worker stops waiting, whatever happens.
    pub(super) limit: Pin<Box<Sleep>>,
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
enum Came {
    Frame(Option<Result<Frame<Bytes>, hyper::Error>>),
    /// No frame is there now.
    NothingYet,
    ClientLeft,
    OutOfPatience,
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
    pub(super) async fn run(
        &mut self,
        egress: &Egress,
        request: Request<Full<Bytes>>,
        client: Answer,
    ) -> Option<Box<Failed>> {
        let mut client = Client::Waiting(client);
        match self.await_head(egress, request, &mut client).await {
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
                        // No other target would do better.
                        self.again = None;
                        return None;
                    }
                },
                () = client.left() => self.lose(client),
                () = self.patience.as_mut(), if self.may_lose_patience(client) => {
                    self.exchange.ended(Ending::GivenUp(Failure::Timeout));
                    return None;
                }
                () = &mut self.limit => {
                    self.out_of_time();
                    return None;
                }
            }
        }
    }

    /// As [`Self::may_lose_patience`], of a stream whose head has come.
    fn is_impatient(&self, client: &Client) -> bool {
        self.unsent_head.is_some() && self.may_lose_patience(client)
    }

    /// Somebody waits, and another target may be faster.
    fn may_lose_patience(&self, client: &Client) -> bool {
        self.grant.first_byte_ms != 0
            && self.again.is_some()
            && matches!(client, Client::Waiting(_))
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

    async fn read(
        &mut self,
        head: response::Parts,
        body: Upstream,
        client: Client,
    ) -> Option<Box<Failed>> {
        let seen = seen(&head);
        if seen.status == 429 {
            self.retry_after_s = headers::retry_after_s(&head.headers);
        }
        let way = self.exchange.head(seen);
        if way == Way::Collect && !fallback::may_go_elsewhere(Some(seen.status), seen.failure) {
            self.again = None;
        }
        if self.again.is_none() {
            self.room = None;
        }
        match way {
            Way::Collect => {
                let mut client = client;
                self.read_body(body, &mut client).await;
                self.settle_and_answer(Some(head), client).await
            }
            Way::Relay if self.again.is_some() => {
                self.unsent_head = Some(head);
                self.relay(body, client).await
            }
            Way::Relay => {
                let client = self.begin_stream(head, client);
                self.relay(body, client).await
            }
        }
    }

    /// Answers with the provider's head; the chunks follow.
    fn begin_stream(&mut self, mut head: response::Parts, client: Client) -> Client {
        if let Some(keeping) = &mut self.keeping {
            keeping.head(&head, &self.grant);
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
                Came::Frame(None) => {
                    body.give_back();
                    break Ending::Whole;
                }
                Came::Frame(Some(Err(error))) => {
                    tracing::debug!(id = %self.id, %error, "answer cut");
                    break self.why_cut();
                }
                Came::Frame(Some(Ok(frame))) => {
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
                Came::NothingYet => {}
                // Nothing is unsent in these two: it was sent before anything was waited for.
                Came::ClientLeft => {
                    self.lose(client);
                    continue;
                }
                Came::OutOfPatience => {
                    self.exchange.ended(Ending::GivenUp(Failure::Timeout));
                    return;
                }
                Came::OutOfTime => return self.out_of_time(),
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
    async fn next(&mut self, body: &mut Upstream, client: &mut Client, unsent: bool) -> Came {
        tokio::select! {
            biased;
            frame = body.frame() => Came::Frame(frame),
            () = std::future::ready(()), if unsent => Came::NothingYet,
            () = client.left() => Came::ClientLeft,
            () = self.patience.as_mut(), if self.is_impatient(client) => Came::OutOfPatience,
            () = &mut self.limit => Came::OutOfTime,
        }
    }

    /// Passes bytes on to a client that reads a stream. Waits while it is slow, so that the provider
    /// waits too. Whether reading goes on.
    async fn send(&mut self, bytes: Bytes, client: &mut Client) -> bool {
        if let Some(head) = self.unsent_head.take() {
            (self.again, self.room) = (None, None);
            *client = self.begin_stream(head, std::mem::replace(client, Client::Gone));
        }
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
        let observed = Observed {
            retry_after_s: self.retry_after_s,
            ..self.exchange.observed()
        };
        self.admin.settle(Arc::clone(&self.held), observed).await
    }

    async fn relay(&mut self, body: Upstream, mut client: Client) -> Option<Box<Failed>> {
        self.read_body(body, &mut client).await;
        if let Some(head) = self.unsent_head.take() {
            // Its client has seen nothing yet: it gets a plain answer, this one's error or another target's.
            return self.settle_and_answer(Some(head), client).await;
        }
        let reply = self.settle().await;
        let severed = reply.is_some_and(|reply| reply.severed);
        if let (Client::Streaming(chunks), Some(fault)) =
            (client, self.exchange.stream_fault(severed))
        {
            // A client that left meanwhile does not read it; one that does not read holds nothing up.
            let _ = timeout(LAST_EVENT_LIMIT, chunks.send(fault.row().event())).await;
        }
        None
    }

    /// Settles, and answers a client that waits for the whole answer; gives the request back when another
    /// target may be asked instead.
    async fn settle_and_answer(
        &mut self,
        head: Option<response::Parts>,
        client: Client,
    ) -> Option<Box<Failed>> {
        if let (Some(keeping), Some(head)) = (&mut self.keeping, &head) {
            keeping.head(head, &self.grant);
            keeping.push(self.exchange.collected());
        }
        let settled = self.settle().await;
        let Client::Waiting(answer) = client else {
            return None;
        };
        let severed = settled.as_ref().is_some_and(|reply| reply.severed);
        let again = (self.again.take()).filter(|_| !severed && self.may_go_elsewhere());
        let cost_micro = settled.as_ref().map(|reply| reply.cost_micro);
        let response = match (self.exchange.verdict(severed), head) {
            (Verdict::Provider(body), Some(head)) => self.provider_answer(head, body, settled),
            (Verdict::Provider(_), None) => {
                let fault = Fault::Kernel("the egress gave no answer".into());
                fault.row().response(Some(self.id))
            }
            (Verdict::Fault(fault), _) => fault.row().response(Some(self.id)),
        };
        // An attempt that is not settled holds its money still: there is no next one beside it.
        if let (Some(kept), Some(cost_micro)) = (again, cost_micro) {
            return Some(Box::new(Failed {
                job: kept.give_back(self.room.take()),
                client: answer,
                told: response,
                tried: Attempted {
                    id: self.id,
                    cost_micro,
                    retry_until_boot_ms: self.grant.retry_until_boot_ms,
                    provider: std::mem::take(&mut self.grant.provider),
                    upstream_model: std::mem::take(&mut self.grant.upstream_model),
                },
                _room: self.answer_room.take(),
            }));
        }
        // A client that left meanwhile wants nothing any more.
        let _ = answer.send(response);
        None
    }

    fn may_go_elsewhere(&self) -> bool {
        let observed = self.exchange.observed();
        self.exchange.broke_before_its_first_byte()
            || fallback::may_go_elsewhere(observed.status, observed.failure)
    }
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

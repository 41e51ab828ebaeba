//! One request from its grant to its settle, as a pure machine.
//!
//! The shell ([`crate::carry`]) tells it what happens (the provider's head, chunks, the end, the
//! client's leaving) and does what it answers: collect or relay, pass these bytes on, stop reading.
//! At the end it says what was observed, for the settle, and what the client is to be told.
//!
//! Absent on purpose: sockets, tasks, clock, randomness. A machine is made from a [`Grant`] alone:
//! without the terms of a hold there is nothing to dispatch with.

mod governed;

use aex_admin_proto::egress::Failure;
use aex_admin_proto::worker::{Grant, Observed, OnDisconnect, Route, UsageSeen};
use bytes::{Bytes, BytesMut};

use crate::answer::Fault;
use crate::sse::{self, Splitter};
use crate::tools::Offered;
use crate::usage::{Kind, Tally};
use governed::Governed;

/// What the client asked for, as far as the way back depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    pub route: Route,
    pub stream: bool,
    /// AEX asks the provider for a usage chunk that this client does not expect.
    pub hide_usage: bool,
    /// Prompt tokens that come back in the answer, beside its output.
    pub echoed_tokens: u64,
    /// More answers are generated than shown, so that no own count bounds the output.
    pub hides_choices: bool,
    /// The request travels under the agent's own provider key.
    pub own_key: bool,
}

/// The head of an answer, as far as it decides anything.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    pub status: u16,
    pub event_stream: bool,
    /// A content encoding other than identity.
    pub encoded: bool,
    /// Its text is, by its own word, in another charset than UTF-8.
    pub other_charset: bool,
    /// The egress made this answer, not the provider.
    pub failure: Option<Failure>,
}

/// What to do with an answer's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Read it to its end, settle, then answer.
    Collect,
    /// Answer with the head now, and pass each chunk on.
    Relay,
}

/// What to do after a chunk.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing is for the client yet.
    Read,
    /// Pass these bytes on, then read.
    Send(Bytes),
    /// Nothing more is for the client. Read on for [`ABORT_READ_MS`] at most, then stop.
    WindDown,
    /// Read no further: drop the connection.
    Stop,
}

/// A stream that is to be ended at once is still read for so long: what the provider had written
/// already is billed, and must be counted.
pub const ABORT_READ_MS: u64 = 100;
/// More than this in that time, and the provider was ahead by nobody knows how much.
const MAX_ABORT_READ_BYTES: u64 = 64 * 1024;

/// A stream may show so many tokens more than it was granted, and an eighth on top, before it is cut:
/// a few servers send a token in two pieces.
const OUTRUN_TOKENS: u64 = 16;

/// How the reading of an answer came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The body's own end.
    Whole,
    /// The connection broke.
    Cut,
    /// This worker gave up: nobody waits any more, or time ran out.
    GivenUp(Failure),
}

/// What a client that waits for the whole answer is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The provider's answer, with this body.
    Provider(Bytes),
    Fault(Fault),
}

#[derive(Debug)]
pub struct Exchange {
    asked: Asked,
    /// Above so many shown tokens a stream is cut.
    most_tokens: u64,
    /// It showed more, and is wound down.
    outran: bool,
    on_disconnect: OnDisconnect,
    drain_timeout_ms: u64,
    max_response_bytes: u64,
    head: Option<Head>,
    failure: Option<Failure>,
    received_bytes: u64,
    way: Way,
    body: Collected,
    splitter: Splitter,
    tally: Tally,
    /// How much had come when the client left.
    gone_at_bytes: Option<u64>,
    complete: bool,
    /// The stream to the client must end with an error event.
    broken: Option<Fault>,
    /// What the answer may call, where its token has rules of tools.
    governed: Option<Governed>,
}

/// Bytes as they gather; one chunk alone is not copied.
#[derive(Debug, Default)]
pub struct Collected {
    first: Bytes,
    all: BytesMut,
}

impl Collected {
    pub fn push(&mut self, chunk: Bytes) {
        if self.is_empty() {
            self.first = chunk;
            return;
        }
        let first = std::mem::take(&mut self.first);
        self.all.reserve(first.len() + chunk.len());
        self.all.extend_from_slice(&first);
        self.all.extend_from_slice(&chunk);
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    fn bytes(&self) -> &[u8] {
        if self.all.is_empty() {
            &self.first
        } else {
            &self.all
        }
    }

    /// All that has gathered; nothing is left.
    pub fn take(&mut self) -> Bytes {
        if self.all.is_empty() {
            std::mem::take(&mut self.first)
        } else {
            self.all.split().freeze()
        }
    }
}

impl Exchange {
    #[must_use]
    pub fn new(asked: Asked, grant: &Grant) -> Self {
        let granted = grant.output_tokens.saturating_add(asked.echoed_tokens);
        Self {
            asked,
            most_tokens: granted
                .saturating_add(granted / 8)
                .saturating_add(OUTRUN_TOKENS),
            outran: false,
            on_disconnect: grant.on_disconnect,
            drain_timeout_ms: grant.drain_timeout_ms,
            max_response_bytes: grant.max_response_bytes,
            head: None,
            failure: None,
            received_bytes: 0,
            way: Way::Collect,
            body: Collected::default(),
            splitter: Splitter::default(),
            tally: Tally::new(asked.route),
            gone_at_bytes: None,
            complete: false,
            broken: None,
            governed: None,
        }
    }

    /// Puts the answer under the rules of tools; none: it passes as it is.
    #[must_use]
    pub fn under(mut self, offered: Option<Offered>) -> Self {
        let route = self.asked.route;
        self.governed = offered.and_then(|offered| Governed::new(route, offered));
        self
    }

    /// No answer head came, or this worker never sent the request.
    pub fn failed(&mut self, failure: Failure, told: Fault) {
        self.failure = Some(failure);
        self.broken = Some(told);
    }

    /// What is kept of a plain answer so far; nothing of a stream.
    #[must_use]
    pub fn collected_bytes(&self) -> u64 {
        self.body.len() as u64
    }

    /// The same, the bytes themselves.
    #[must_use]
    pub fn collected(&self) -> &[u8] {
        self.body.bytes()
    }

    /// A success that came to its proper end: worth giving again.
    #[must_use]
    pub fn is_whole_success(&self) -> bool {
        self.complete && self.broken.is_none() && self.succeeded()
    }

    /// It failed and nothing of the answer's body has come.
    #[must_use]
    pub fn broke_before_its_first_byte(&self) -> bool {
        self.received_bytes == 0 && !self.complete && self.broken.is_some()
    }

    /// Lets no more than this come in all, if it was more.
    pub fn limit_bytes(&mut self, bytes: u64) {
        self.max_response_bytes = self.max_response_bytes.min(bytes);
    }

    /// The answer's head came.
    pub fn head(&mut self, head: Head) -> Way {
        self.head = Some(head);
        self.failure = head.failure;
        let success = (200..300).contains(&head.status) && head.failure.is_none();
        if success && head.encoded {
            self.tally.unreadable();
        }
        if self.asked.stream && success && head.event_stream {
            self.way = Way::Relay;
        }
        if success && (head.encoded || head.other_charset) && self.governed.is_some() {
            // What cannot be read, or a client reads otherwise, is not passed on where it must be.
            self.broken = Some(governed::unreadable());
            self.way = Way::Collect;
        }
        self.way
    }

    /// A piece of the body came.
    pub fn chunk(&mut self, chunk: Bytes) -> Step {
        self.received_bytes += chunk.len() as u64;
        if self.received_bytes > self.max_response_bytes {
            self.failure = Some(Failure::ResponseTooLarge);
            self.broken = Some(Fault::Upstream(
                "the provider's answer is larger than allowed".into(),
            ));
            return Step::Stop;
        }
        match self.way {
            Way::Collect => {
                self.body.push(chunk);
                Step::Read
            }
            // What cannot be read can only be passed on.
            Way::Relay if self.encoded() => Step::Send(chunk),
            Way::Relay => self.events(&chunk),
        }
    }

    fn encoded(&self) -> bool {
        self.head.is_some_and(|head| head.encoded)
    }

    /// Reads the events of a chunk and gives those for the client.
    fn events(&mut self, chunk: &Bytes) -> Step {
        let whole_before = self.splitter.is_between_events();
        let (tally, hide) = (&mut self.tally, self.asked.hide_usage);
        let mut kept: Vec<Bytes> = Vec::new();
        let mut hidden = false;
        let split = self.splitter.push(chunk, |event| {
            if read_event(tally, &event) == Kind::UsageOnly && hide {
                hidden = true;
            } else {
                kept.push(event);
            }
        });
        if split.is_err() {
            self.tally.unreadable();
            self.broken = Some(Fault::Upstream(
                "the provider's stream has an event that is too long".into(),
            ));
            return Step::Stop;
        }
        if self.outran {
            return Step::Read;
        }
        let muted = self.is_over_for_the_client();
        if !self.tally.finished() && self.tally.shown_tokens() > self.most_tokens {
            self.outran = true;
            let fault = Fault::Upstream(
                "the provider sent more output than the request's cap allows; the stream was cut"
                    .into(),
            );
            self.broken.get_or_insert(fault);
            return Step::WindDown;
        }
        if muted {
            return Step::Read;
        }
        if self.governed.is_some() {
            return self.govern(kept, false).map_or(Step::Read, Step::Send);
        }
        if whole_before && !hidden && self.splitter.is_between_events() {
            return Step::Send(chunk.clone());
        }
        match kept.len() {
            0 => Step::Read,
            1 => Step::Send(kept.swap_remove(0)),
            _ => Step::Send(kept.concat().into()),
        }
    }

    /// The body came to its end, or will not be read any further. Gives the last bytes for a client
    /// that reads a stream.
    pub fn ended(&mut self, ending: Ending) -> Option<Bytes> {
        let mut last = None;
        match ending {
            Ending::Whole if self.way == Way::Relay => last = self.stream_ended(),
            Ending::Whole => self.body_ended(),
            Ending::Cut => {
                self.broken.get_or_insert_with(|| {
                    Fault::Upstream("the provider's answer broke off before its end".into())
                });
            }
            Ending::GivenUp(failure) => {
                self.failure.get_or_insert(failure);
                let fault = match failure {
                    Failure::Timeout => Fault::UpstreamTimeout,
                    _ => Fault::Upstream("the request was given up".into()),
                };
                self.broken.get_or_insert(fault);
            }
        }
        last.filter(|bytes| !bytes.is_empty())
    }

    fn body_ended(&mut self) {
        self.complete = self.failure.is_none();
        if self.succeeded() && !self.encoded() {
            self.tally.document(self.body.bytes());
            self.govern_body();
        }
    }

    fn stream_ended(&mut self) -> Option<Bytes> {
        let rest = self.splitter.rest();
        let hidden = !rest.is_empty() && read_event(&mut self.tally, &rest) == Kind::UsageOnly;
        // Without an end mark or a finish reason a clean close is still a cut.
        self.complete = self.tally.finished() || self.encoded();
        if !self.complete {
            self.broken.get_or_insert_with(|| {
                Fault::Upstream("the provider's stream ended before it was finished".into())
            });
            // Half an event would run into the error that follows.
            return None;
        }
        if self.outran || self.is_over_for_the_client() {
            return None;
        }
        let kept_back = hidden && self.asked.hide_usage;
        let rest = (!kept_back).then_some(rest);
        if self.governed.is_some() {
            return self.govern(rest.into_iter().collect(), true);
        }
        rest
    }

    /// The client left. Says how many milliseconds the provider is still read, for the usage.
    pub fn client_gone(&mut self) -> u64 {
        self.gone_at_bytes = Some(self.received_bytes);
        match self.on_disconnect {
            OnDisconnect::Drain => self.drain_timeout_ms,
            OnDisconnect::Abort => ABORT_READ_MS,
        }
    }

    /// It is this side that ends it: the client is gone, or the stream outran its hold.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.gone_at_bytes.is_some() || self.outran
    }

    /// Upper bound of the visible output's tokens. Nobody knows of an answer that was given up before
    /// it was read as far as it had come.
    fn own_output_tokens(&self) -> u64 {
        let read_bytes =
            (self.gone_at_bytes).map_or(0, |at_bytes| self.received_bytes.saturating_sub(at_bytes));
        let unread = self.way == Way::Collect
            || read_bytes > MAX_ABORT_READ_BYTES
            || self.tally.usage() == UsageSeen::Unreadable;
        if self.asked.hides_choices || (!self.complete && unread) {
            u64::MAX
        } else {
            self.tally.output_bytes()
        }
    }

    fn succeeded(&self) -> bool {
        self.failure.is_none()
            && self
                .head
                .is_some_and(|head| (200..300).contains(&head.status))
    }

    /// For the settle.
    #[must_use]
    pub fn observed(&self) -> Observed {
        let provider_head = self.head.filter(|head| head.failure.is_none());
        let success = provider_head.is_some_and(|head| (200..300).contains(&head.status));
        Observed {
            status: provider_head.map(|head| head.status),
            failure: self.failure,
            complete: self.complete,
            usage: if success {
                self.tally.usage()
            } else {
                UsageSeen::Missing
            },
            usage_chunks: self.tally.usage_chunks(),
            own_output_tokens: self.own_output_tokens(),
            outran: self.outran || self.tally.shown_tokens() > self.most_tokens,
            retry_after_s: None,
        }
    }

    /// The error with which a stream to the client must end, if it must. `severed` comes from the
    /// settle's answer.
    #[must_use]
    pub fn stream_fault(&self, severed: bool) -> Option<Fault> {
        if self.is_over_for_the_client() {
            // It was told already.
            return None;
        }
        if severed && !self.complete {
            return Some(Fault::Severed);
        }
        self.broken.clone()
    }

    /// What a client that waits for the whole answer is told.
    #[must_use]
    pub fn verdict(&mut self, severed: bool) -> Verdict {
        if severed && !self.complete {
            return Verdict::Fault(Fault::Severed);
        }
        if let Some(fault) = &self.broken {
            return Verdict::Fault(fault.clone());
        }
        if let Some(failure) = self.failure {
            return Verdict::Fault(fault_of(failure));
        }
        let status = self.head.map_or(0, |head| head.status);
        match status {
            // The agent can do nothing about the operator's account, and must not take it for its own.
            401..=403 if !self.asked.own_key => Verdict::Fault(Fault::Upstream(format!(
                "the provider refused the operator's key or account (status {status}); tell the operator"
            ))),
            200..300 | 400.. => Verdict::Provider(self.body.take()),
            _ => Verdict::Fault(Fault::Upstream(format!(
                "the provider answered with status {status}, which is no answer to this request"
            ))),
        }
    }
}

/// Takes an event's data into the tally.
fn read_event(tally: &mut Tally, event: &[u8]) -> Kind {
    match sse::data(event) {
        None => Kind::Other,
        Some(data) if data.trim_ascii() == b"[DONE]" => {
            tally.done_mark();
            Kind::Other
        }
        Some(data) if data.trim_ascii().is_empty() => Kind::Other,
        Some(data) => tally.chunk(&data),
    }
}

/// What a client is told of an exchange that the egress, or its absence, ended.
#[must_use]
pub fn fault_of(failure: Failure) -> Fault {
    let text = match failure {
        Failure::Connect => "the provider cannot be reached",
        Failure::Tls => "no secure connection to the provider could be made",
        Failure::NotConfigured => {
            "no key for the provider is loaded; the operator sets one and runs `aex daemon restart`"
        }
        Failure::Ticket => {
            return Fault::Kernel("the request could not be dispatched in time; try again".into());
        }
        Failure::Timeout => return Fault::UpstreamTimeout,
        Failure::Severed => return Fault::Severed,
        Failure::RequestBody => "the request was cut on its way to the provider",
        Failure::Reset => "the provider closed the connection before it answered",
        Failure::ResponseTooLarge => "the provider's answer is larger than allowed",
        Failure::WorkerGone | Failure::EgressGone => "the connection to the provider was lost",
    };
    Fault::Upstream(text.into())
}

#[cfg(test)]
mod tests;

//! HTTP/2 on one connection: the same handlers as HTTP/1.1, and bounds for what it has beyond that: streams
//! at once, resets, windows, connections on which nothing goes on.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use aex_admin_proto::peer::Peer;
use bytes::Bytes;
use http::header::CONNECTION;
use http::{Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, interval};

use super::{Connection, MAX_HEADERS, told};
use crate::answer::Fault;
use crate::body::{Keeping, Outgoing};
use crate::crowd::Seat;
use crate::headers::PROVIDER_KEY;
use crate::serve::{self, Shared};

/// Requests at once on one connection: what a client's pool would have as connections.
const MAX_STREAMS_EACH: u32 = 64;
/// Headers of one request are not kept for the next: tokens and own keys are among them, and those are to
/// live no longer than their request.
const NO_TABLE: u32 = 0;
const MAX_HEADER_LIST_BYTES: u32 = 64 * 1024;
const MAX_FRAME_BYTES: u32 = 16 * 1024;
/// What a client may send ahead of what is read, of one request and of all on a connection.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Streams that a client has reset and that are not yet looked at; beyond it the connection is closed.
const MAX_PENDING_RESETS: usize = 20;
/// Streams that were reset for the client's mistakes; beyond it the connection is closed.
const MAX_OWN_RESETS: usize = 128;
const PING_EVERY: Duration = Duration::from_secs(20);
const PONG_LIMIT: Duration = Duration::from_secs(20);
/// How long nothing may go on between requests, in times that a head may take. Longer than over HTTP/1.1,
/// since coming back costs a handshake.
const IDLE_HEADS: u32 = 6;
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a worker that is told to stop waits for a moment without an open request.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// The requests on one connection.
#[derive(Clone)]
struct Streams {
    seat: Arc<Seat>,
    open: Arc<AtomicUsize>,
    /// All that there ever were.
    begun: Arc<AtomicUsize>,
    /// One of them brought a provider key, which must not stay in the connection's buffers: it ends.
    spent: Arc<AtomicBool>,
    /// Of all connections.
    room: Arc<Semaphore>,
}

/// A request, from its head to the end of its answer.
struct Open {
    seat: Arc<Seat>,
    open: Arc<AtomicUsize>,
    _room: OwnedSemaphorePermit,
}

impl Streams {
    /// None: there are too many.
    fn begin(&self) -> Option<Open> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        let room = Arc::clone(&self.room).try_acquire_owned().ok()?;
        self.open.fetch_add(1, Ordering::Relaxed);
        self.seat.busy();
        Some(Open {
            seat: Arc::clone(&self.seat),
            open: Arc::clone(&self.open),
            _room: room,
        })
    }

    fn are_open(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.seat.quiet();
        }
    }
}

pub(super) async fn serve<S>(connection: Connection, stream: S, peer: Peer, seat: Seat)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Connection {
        shared,
        mut stopped,
        head_limit,
        rooms,
        ..
    } = connection;
    let seat = Arc::new(seat);
    let streams = Streams {
        seat: Arc::clone(&seat),
        open: Arc::default(),
        begun: Arc::default(),
        spent: Arc::default(),
        room: rooms.streams,
    };
    let counted = streams.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        if request.headers().contains_key(PROVIDER_KEY) {
            counted.spent.store(true, Ordering::Relaxed);
        }
        let answering = answer(Arc::clone(&shared), counted.begin(), request, peer);
        let seat = Arc::clone(&counted.seat);
        async move {
            let answer = answering.await;
            seat.answered(&answer);
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS_EACH)
        .header_table_size(NO_TABLE)
        .max_header_list_size(MAX_HEADER_LIST_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_OWN_RESETS)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_LIMIT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let mut look = interval(LOOK_EVERY);
    let mut quiet_since = Instant::now();
    let mut ending = false;
    let mut stopping_since = None;
    loop {
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended");
                }
                return;
            }
            () = told(&mut stopped), if stopping_since.is_none() => {
                stopping_since = Some(Instant::now());
            }
            // Nothing goes on: whoever needs the place more has it.
            () = seat.asked_to_leave(), if !streams.are_open() => return,
            _ = look.tick() => {}
        }
        let spent = streams.spent.load(Ordering::Relaxed);
        // There are clients that give up what is open at the word that the connection ends (GOAWAY), so it
        // is said between requests; where there is no such moment, and the worker must go, all the same.
        let is_overdue = stopping_since.is_some_and(|since: Instant| since.elapsed() >= STOP_LIMIT);
        let is_to_end = spent || stopping_since.is_some();
        if !ending && (is_overdue || (is_to_end && !streams.are_open())) {
            connection.as_mut().graceful_shutdown();
            (ending, quiet_since) = (true, Instant::now());
        }
        if streams.are_open() {
            quiet_since = Instant::now();
            continue;
        }
        let first = streams.begun.load(Ordering::Relaxed) == 0;
        let limit = match (ending, first) {
            // From the word that it ends to its end: what is written may still be on its way to a slow reader.
            (true, _) | (false, true) => head_limit,
            (false, false) => head_limit * IDLE_HEADS,
        };
        if quiet_since.elapsed() < limit {
            continue;
        }
        if ending {
            return;
        }
        connection.as_mut().graceful_shutdown();
        (ending, quiet_since) = (true, Instant::now());
    }
}

async fn answer(
    shared: Arc<Shared>,
    open: Option<Open>,
    request: Request<Incoming>,
    peer: Peer,
) -> Response<Keeping<Option<Open>>> {
    let response = if open.is_none() {
        let busy = "too many requests at once; try again shortly";
        Fault::Kernel(busy.into()).row().response(None)
    } else if request.headers().len() > MAX_HEADERS {
        let mut response = Response::new(Outgoing::full(Bytes::new()));
        *response.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        response
    } else {
        serve::serve(&shared, as_h1(request), peer).await
    };
    let mut response = response.map(|body| Keeping { body, _kept: open });
    // Only HTTP/1.1 has a connection for each request at a time, to be closed after it.
    response.headers_mut().remove(CONNECTION);
    response
}

/// HTTP/2 names scheme and host with every request; routes are found by what HTTP/1.1 would name.
fn as_h1(mut request: Request<Incoming>) -> Request<Incoming> {
    if let Some(target) = request.uri().path_and_query() {
        *request.uri_mut() = Uri::from(target.clone());
    }
    request
}

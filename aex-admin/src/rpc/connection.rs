//! One connection: frames in, calls out to their handlers, answers back in coalesced writes.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aex_admin_proto::frame::{self, Decoder};
use aex_admin_proto::peer::GroupMark;
use aex_admin_proto::quiet::QuietStream;
use aex_admin_proto::rpc::{Answer, Incoming, RpcError, code};
use serde::Serialize;
use tokio::sync::Notify;

use super::{Call, Door, Kernel, Role, dispatch};
use crate::writer::{Outlet, SessionId};

/// Calls of one connection that are read but not answered; then reading pauses.
const MAX_IN_FLIGHT: usize = 4096;
/// The same of people's connections, whose answers may be as large as a frame.
const MAX_ASKED: usize = 8;
/// Answers that the other side does not take; then reading pauses.
const MAX_OUT_BYTES: usize = 4 * 1024 * 1024;

/// Where answers go, from whichever thread. Whoever has put some in writes them itself; what the
/// socket does not take is left to the connection's task.
pub(super) struct Outbox {
    out: Mutex<Out>,
    /// Something is left to write, or the socket has failed.
    left_over: Notify,
    in_flight: AtomicUsize,
    most_in_flight: usize,
    room: Notify,
}

struct Out {
    bytes: Vec<u8>,
    /// None once the connection has ended: an answer may come after that.
    stream: Option<Arc<QuietStream>>,
}

impl Outbox {
    fn new(stream: Arc<QuietStream>, role: Role) -> Self {
        let most_in_flight = match role {
            Role::Worker | Role::Egress => MAX_IN_FLIGHT,
            Role::Operator | Role::Auditor => MAX_ASKED,
        };
        Self {
            most_in_flight,
            out: Mutex::new(Out {
                bytes: Vec::new(),
                stream: Some(stream),
            }),
            left_over: Notify::new(),
            in_flight: AtomicUsize::new(0),
            room: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an answer in, and sends it.
    pub(super) fn answer<T: Serialize>(&self, id: Option<u64>, answer: Result<T, RpcError>) {
        self.put(id, answer);
        self.flush();
    }

    /// Puts an answer in, to be sent by [`Outlet::flush`].
    pub(super) fn put<T: Serialize>(&self, id: Option<u64>, answer: Result<T, RpcError>) {
        let Some(number) = id else { return };
        let out = &mut self.lock().bytes;
        let written = match &answer {
            Ok(result) => frame::encode(&Answer::result(number, result), out),
            Err(error) => frame::encode(&Answer::error(id, error), out),
        };
        if written.is_err() {
            let error = RpcError::new(code::INTERNAL, "the answer is too large; ask for less");
            // A short fixed text always fits a frame.
            let _ = frame::encode(&Answer::error(id, &error), out);
        }
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// The connection has ended: nobody waits for an answer.
    pub(super) fn is_gone(&self) -> bool {
        self.lock().stream.is_none()
    }

    fn is_full(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) >= self.most_in_flight
            || self.lock().bytes.len() > MAX_OUT_BYTES
    }

    /// Writes what is left, whenever the socket takes some. Ends with the socket's failure.
    async fn write_left_over(&self, stream: &QuietStream) -> io::Result<()> {
        loop {
            let is_left = self.lock().write()?;
            self.room.notify_one();
            if is_left {
                stream.writable().await?;
            } else {
                self.left_over.notified().await;
            }
        }
    }
}

impl Outlet for Outbox {
    fn flush(&self) {
        let written = self.lock().write();
        if !matches!(written, Ok(false)) {
            // Its task meets a failure again, and ends the connection.
            self.left_over.notify_one();
        } else {
            self.room.notify_one();
        }
    }
}

impl Out {
    /// Writes what the socket takes now. Whether something is left.
    fn write(&mut self) -> io::Result<bool> {
        let Some(stream) = &self.stream else {
            self.bytes.clear();
            return Ok(false);
        };
        let mut written = 0;
        let is_left = loop {
            if written == self.bytes.len() {
                break false;
            }
            match stream.try_write(&self.bytes[written..]) {
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break true,
                Err(error) => return Err(error),
            }
        };
        self.bytes.drain(..written);
        Ok(is_left)
    }
}

/// Serves a connection until either side ends it.
pub(super) async fn serve(stream: QuietStream, door: Arc<Door>, by_uid: u32, kernel: Arc<Kernel>) {
    let session = kernel.next_session();
    let stream = Arc::new(stream);
    let outbox = Arc::new(Outbox::new(Arc::clone(&stream), door.role));
    let ended = tokio::select! {
        ended = read_calls(&stream, &door, by_uid, &kernel, &outbox, session) => ended,
        ended = outbox.write_left_over(&stream) => ended,
    };
    outbox.lock().stream = None;
    if let Err(error) = ended {
        tracing::debug!(role = ?door.role, %error, "connection ended");
    }
    kernel.session_gone(door.role, session);
}

async fn read_calls(
    stream: &QuietStream,
    door: &Door,
    by_uid: u32,
    kernel: &Arc<Kernel>,
    outbox: &Arc<Outbox>,
    session: u64,
) -> io::Result<()> {
    let mut decoder = Decoder::default();
    let caller = Caller {
        door,
        by_uid,
        within: door.group.as_deref().map(GroupMark::of),
        session,
    };
    loop {
        if stream.read(decoder.buffer()).await? == 0 {
            return Ok(());
        }
        loop {
            // Between calls too: one read may bring thousands.
            while outbox.is_full() {
                outbox.room.notified().await;
            }
            let Some(frame) = decoder.next_frame().map_err(io::Error::other)? else {
                break;
            };
            take_call(frame, &caller, kernel, outbox)?;
        }
    }
}

/// What all calls of one connection have in common.
struct Caller<'a> {
    door: &'a Door,
    by_uid: u32,
    within: Option<GroupMark>,
    session: SessionId,
}

fn take_call(
    frame: &[u8],
    caller: &Caller<'_>,
    kernel: &Arc<Kernel>,
    outbox: &Arc<Outbox>,
) -> io::Result<()> {
    let incoming: Incoming<'_> = match serde_json::from_slice(frame) {
        Ok(incoming) => incoming,
        Err(error) => {
            // After this the two sides may disagree on what is a frame.
            let error = RpcError::new(code::PARSE_ERROR, format!("not a JSON-RPC call: {error}"));
            let _ = frame::encode(&Answer::error(None, &error), &mut outbox.lock().bytes);
            outbox.flush();
            return Err(io::Error::other(error));
        }
    };
    if incoming.id.is_some() {
        outbox.in_flight.fetch_add(1, Ordering::Relaxed);
    }
    let call = Call {
        outbox: Arc::clone(outbox),
        id: incoming.id,
        session: caller.session,
        role: caller.door.role,
        by_uid: caller.by_uid,
        within: caller.within,
    };
    dispatch(kernel, caller.door, call, &incoming);
    Ok(())
}

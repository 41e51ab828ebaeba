//! One connection: frames in, calls out to their handlers, answers back in coalesced writes.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aex_admin_proto::frame::{self, Decoder};
use aex_admin_proto::rpc::{Answer, Incoming, RpcError, code};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;

use super::{Call, Kernel, Role, dispatch};

/// Calls of one connection that are read but not answered; then reading pauses.
const MAX_IN_FLIGHT: usize = 4096;
/// Answers that the other side does not take; then reading pauses.
const MAX_OUT_BYTES: usize = 4 * 1024 * 1024;

/// Where answers go, from whichever thread.
#[derive(Default)]
pub(super) struct Outbox {
    out: Mutex<Vec<u8>>,
    to_write: Notify,
    in_flight: AtomicUsize,
    room: Notify,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn answer<T: Serialize>(&self, id: Option<u64>, answer: Result<T, RpcError>) {
        let Some(number) = id else { return };
        let mut out = self.lock();
        let written = match &answer {
            Ok(result) => frame::encode(&Answer::result(number, result), &mut out),
            Err(error) => frame::encode(&Answer::error(id, error), &mut out),
        };
        if written.is_err() {
            let error = RpcError::new(code::INTERNAL, "the answer is too large; ask for less");
            // A short fixed text always fits a frame.
            let _ = frame::encode(&Answer::error(id, &error), &mut out);
        }
        drop(out);
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.to_write.notify_one();
    }

    fn is_full(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) >= MAX_IN_FLIGHT || self.lock().len() > MAX_OUT_BYTES
    }
}

/// Serves a connection until either side ends it.
pub(super) async fn serve(stream: UnixStream, role: Role, kernel: Arc<Kernel>) {
    let session = kernel.next_session();
    let outbox = Arc::new(Outbox::default());
    let (reader, writer) = stream.into_split();
    let ended = tokio::select! {
        ended = read_calls(reader, role, &kernel, &outbox, session) => ended,
        ended = write_answers(writer, &outbox) => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(?role, %error, "connection ended");
    }
    kernel.session_gone(role, session);
}

async fn read_calls(
    mut reader: OwnedReadHalf,
    role: Role,
    kernel: &Arc<Kernel>,
    outbox: &Arc<Outbox>,
    session: u64,
) -> io::Result<()> {
    let mut decoder = Decoder::default();
    loop {
        while outbox.is_full() {
            outbox.room.notified().await;
        }
        let buffer = decoder.buffer();
        buffer.reserve(16 * 1024);
        if reader.read_buf(buffer).await? == 0 {
            return Ok(());
        }
        while let Some(frame) = decoder.next_frame().map_err(io::Error::other)? {
            take_call(frame, role, kernel, outbox, session)?;
        }
    }
}

fn take_call(
    frame: &[u8],
    role: Role,
    kernel: &Arc<Kernel>,
    outbox: &Arc<Outbox>,
    session: u64,
) -> io::Result<()> {
    let incoming: Incoming<'_> = match serde_json::from_slice(frame) {
        Ok(incoming) => incoming,
        Err(error) => {
            // After this the two sides may disagree on what is a frame.
            let error = RpcError::new(code::PARSE_ERROR, format!("not a JSON-RPC call: {error}"));
            let _ = frame::encode(&Answer::error(None, &error), &mut outbox.lock());
            outbox.to_write.notify_one();
            return Err(io::Error::other(error));
        }
    };
    if incoming.id.is_some() {
        outbox.in_flight.fetch_add(1, Ordering::Relaxed);
    }
    let call = Call {
        outbox: Arc::clone(outbox),
        id: incoming.id,
        session,
    };
    dispatch(kernel, role, call, &incoming);
    Ok(())
}

async fn write_answers(mut writer: OwnedWriteHalf, outbox: &Outbox) -> io::Result<()> {
    let mut batch = Vec::new();
    loop {
        std::mem::swap(&mut batch, &mut outbox.lock());
        if batch.is_empty() {
            outbox.to_write.notified().await;
            continue;
        }
        writer.write_all(&batch).await?;
        batch.clear();
        outbox.room.notify_one();
    }
}

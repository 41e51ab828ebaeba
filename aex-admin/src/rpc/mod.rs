//! The Unix sockets: who may ask what, and the way of a call to the writer or a reader and back.
//!
//! Owns: roles, framing of connections, long polls, the state of the egress and the workers as their
//! connections tell it. Absent on purpose: rules, and SQL.

mod backups;
mod connection;
mod desk;
mod discover;
mod egress;
mod kernel;
mod operator;
mod places;
mod reader;
mod reload;
mod worker;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aex_admin_proto::peer::GroupMark;
use aex_admin_proto::quiet::QuietStream;
use aex_admin_proto::rpc::{Incoming, RpcError, code};
use nix::sys::stat::{Mode, umask};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::net::{UnixListener, UnixStream};

pub use kernel::{InForce, Kernel};

use crate::writer::{Reply, SessionId};
use connection::Outbox;
use places::Places;

/// What a socket's callers may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Operator,
    Auditor,
    Worker,
    Egress,
}

/// One socket: what its callers may do, and who may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    pub role: Role,
    /// Whose processes may call; none: whomever the socket's file lets in.
    pub only_uid: Option<u32>,
    /// The group below which the agents of a worker must be; none: any agent.
    pub group: Option<String>,
}

/// One call on its way: where to answer, and for whom.
struct Call {
    outbox: Arc<Outbox>,
    /// Absent: a notification, which nobody answers.
    id: Option<u64>,
    session: SessionId,
    /// By which socket it came.
    role: Role,
    /// Whose process asks.
    by_uid: u32,
    /// The mark of [`Door::group`].
    within: Option<GroupMark>,
}

impl Call {
    /// Who asks, where it is another user than this process's: what goes into the ledger.
    fn by_another(&self) -> Option<u32> {
        (self.by_uid != nix::unistd::geteuid().as_raw()).then_some(self.by_uid)
    }

    fn answer<T: Serialize>(self, answer: Result<T, RpcError>) {
        self.outbox.answer(self.id, answer);
    }
}

/// Makes a socket that only this user can connect to. Its directory is private already; the mask
/// makes the file private from its first moment.
///
/// # Errors
/// The directory cannot be written.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let before = umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path);
    umask(before);
    listener
}

/// Accepts for ever. Callers of a uid that may not call are refused before a byte is read.
pub async fn accept(listener: UnixListener, door: Door, kernel: Arc<Kernel>) {
    let door = Arc::new(door);
    let places = Places::new(door.only_uid.is_none());
    let mut turned_away: u64 = 0;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let Some(peer) = admitted(&stream, &door) else {
                    kernel.shared.role_violation();
                    tracing::warn!(role = ?door.role, "refused a caller of another uid");
                    continue;
                };
                let Some(place) = places.take(peer) else {
                    turned_away += 1;
                    // One line a doubling: who insists does not fill the log.
                    if turned_away.is_power_of_two() {
                        tracing::warn!(role = ?door.role, uid = peer, turned_away, "too many connections");
                    }
                    continue;
                };
                let stream = match QuietStream::new(stream) {
                    Ok(stream) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "cannot listen to a connection");
                        continue;
                    }
                };
                let (kernel, door) = (Arc::clone(&kernel), Arc::clone(&door));
                tokio::spawn(async move {
                    connection::serve(stream, door, peer, kernel).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: later there may be some.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// The caller's uid, if it may call here.
fn admitted(stream: &UnixStream, door: &Door) -> Option<u32> {
    let uid = stream.peer_cred().ok()?.uid();
    door.only_uid.is_none_or(|only| only == uid).then_some(uid)
}

/// Hands a call to those who carry it out, by the role of its socket.
fn dispatch(kernel: &Arc<Kernel>, door: &Door, call: Call, incoming: &Incoming<'_>) {
    let role = door.role;
    if incoming.jsonrpc != "2.0" {
        let error = RpcError::new(code::INVALID_REQUEST, "jsonrpc must be \"2.0\"");
        return call.answer::<()>(Err(error));
    }
    let method = incoming.method.as_ref();
    if !discover::allowed(role, method) {
        let known = discover::known(method);
        if known {
            kernel.shared.role_violation();
            tracing::warn!(?role, method, "refused a method outside the role");
        }
        let error = if known {
            RpcError::new(
                code::NOT_PERMITTED,
                format!("{method} is not for this socket"),
            )
        } else {
            RpcError::new(
                code::METHOD_NOT_FOUND,
                format!("no such method: {method}; see rpc.discover"),
            )
        };
        return call.answer::<()>(Err(error));
    }
    let params = incoming.params;
    // Nothing comes back when the parameters did not fit; then the call is answered already.
    let _ = match role {
        Role::Worker => worker::dispatch(kernel, door, call, method, params),
        Role::Egress => egress::dispatch(kernel, call, method, params),
        Role::Operator | Role::Auditor => operator::dispatch(kernel, call, method, params),
    };
}

/// The writer's way to answer a call.
fn reply<T: Serialize + 'static>(call: Call) -> Reply<T> {
    reply_as(call, |answer| answer)
}

/// As [`reply`], with what the writer answers put into the form that goes out.
fn reply_as<T: 'static, R: Serialize>(
    call: Call,
    form: impl FnOnce(T) -> R + Send + 'static,
) -> Reply<T> {
    let outbox = Arc::clone(&call.outbox);
    Reply::through(outbox, move |answer: Result<T, RpcError>| {
        call.outbox.put(call.id, answer.map(form));
    })
}

/// Reads a call's parameters; answers it when they do not fit.
fn params<T: DeserializeOwned>(call: Call, params: Option<&RawValue>) -> Option<(Call, T)> {
    match serde_json::from_str(params.map_or("{}", RawValue::get)) {
        Ok(value) => Some((call, value)),
        Err(error) => {
            let text = format!("parameters do not fit: {error}");
            call.answer::<()>(Err(RpcError::new(code::INVALID_PARAMS, text)));
            None
        }
    }
}

//! How a request's body arrives: within a bound of size and of time, and none at the cost of others.
//!
//! A body that is small and comes at once costs nobody a question. One that is large takes room, one that
//! is slow a place, both of its tenant's share, once `aex-admin` has said that its token is one.

use std::time::Duration;

use aex_admin_proto::TokenDigest;
use aex_admin_proto::peer::Peer;
use aex_admin_proto::scope::ScopeId;
use aex_admin_proto::worker::WhoseReply;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, timeout, timeout_at};

use super::Shared;
use crate::answer::Fault;
use crate::headers;
use crate::request;
use crate::room::{SMALL_BYTES, Taken};

/// A body that makes no progress for so long is given up.
const BODY_STALL: Duration = Duration::from_secs(30);
/// A body that takes longer than this, however it trickles, is given up.
const BODY_LIMIT: Duration = Duration::from_secs(300);
/// A body that is not whole by then is a slow one.
const SLOW_AFTER: Duration = Duration::from_secs(1);
/// What is still read of a body that was refused, so that its sender sees the answer.
const DISCARD_BYTES: usize = 64 * 1024 * 1024;
const DISCARD_LIMIT: Duration = Duration::from_secs(3);
const ROOM_LIMIT: Duration = Duration::from_secs(10);

/// Whose body it is, as far as that is known.
pub(super) struct Sender {
    pub(super) token: TokenDigest,
    pub(super) peer: Peer,
    tenant: Option<ScopeId>,
}

impl Sender {
    pub(super) fn new(token: TokenDigest, peer: Peer) -> Self {
        Self {
            token,
            peer,
            tenant: None,
        }
    }

    /// Asked once, and only where something is to be taken: nobody without a token takes anything.
    async fn tenant(&mut self, shared: &Shared) -> Result<ScopeId, Fault> {
        if let Some(tenant) = self.tenant {
            return Ok(tenant);
        }
        match shared.admin.whose(self.token, self.peer).await {
            Ok(WhoseReply::Tenant(tenant)) => {
                self.tenant = Some(tenant);
                Ok(tenant)
            }
            Ok(WhoseReply::Refused(refusal)) => Err(Fault::Refused(refusal)),
            Err(error) => Err(Fault::Kernel(error.to_string())),
        }
    }

    async fn room(&mut self, shared: &Shared, bytes: u64) -> Result<Taken, Fault> {
        let tenant = self.tenant(shared).await?;
        (timeout(ROOM_LIMIT, shared.room.take_share(tenant, bytes)).await)
            .map_err(|_| Fault::Kernel("too many large requests at once; try again shortly".into()))
    }
}

/// Reads a body of at most `limit_bytes`. `length` is what its head said.
pub(super) async fn read(
    shared: &Shared,
    mut sender: Sender,
    mut body: Incoming,
    length: Option<u64>,
    limit_bytes: u64,
) -> Result<(Bytes, Option<Taken>), Fault> {
    let reading = whole(shared, &mut sender, &mut body, length, limit_bytes);
    let read = timeout(BODY_LIMIT, reading)
        .await
        .unwrap_or(Err(Fault::TooSlow("the body took too long to arrive")));
    if read.is_err() {
        discard(shared, body);
    }
    read
}

async fn whole(
    shared: &Shared,
    sender: &mut Sender,
    body: &mut Incoming,
    length: Option<u64>,
    limit_bytes: u64,
) -> Result<(Bytes, Option<Taken>), Fault> {
    let mut room = match length {
        Some(bytes) if bytes > SMALL_BYTES => Some(sender.room(shared, bytes).await?),
        _ => None,
    };
    let slow_at = Instant::now() + SLOW_AFTER;
    let mut slow = None;
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    loop {
        let next = match slow {
            Some(_) => next_chunk(body).await,
            None => match timeout_at(slow_at, next_chunk(body)).await {
                Ok(next) => next,
                Err(_) => {
                    let tenant = sender.tenant(shared).await?;
                    let place = shared.room.slow_place(tenant);
                    slow = Some(place.ok_or(Fault::TooSlow(
                        "too many bodies of this tenant arrive slowly; send them at once",
                    ))?);
                    continue;
                }
            },
        };
        let Some(chunk) = next? else { break };
        if first.is_empty() && all.is_empty() {
            first = chunk;
            continue;
        }
        if all.is_empty() {
            let expected = length.unwrap_or(0).max(first.len() as u64);
            all.reserve(usize::try_from(expected).unwrap_or(0));
            all.extend_from_slice(&first);
            first = Bytes::new();
        }
        let total = all.len() as u64 + chunk.len() as u64;
        if total > limit_bytes {
            return Err(Fault::BodyTooLarge { limit_bytes });
        }
        if room.is_none() && total > SMALL_BYTES {
            // How long it becomes is not known: as long as it may.
            room = Some(sender.room(shared, limit_bytes).await?);
        }
        all.extend_from_slice(&chunk);
    }
    let whole = if all.is_empty() { first } else { all.freeze() };
    if whole.len() as u64 > limit_bytes {
        return Err(Fault::BodyTooLarge { limit_bytes });
    }
    Ok((whole, room))
}

async fn next_chunk(body: &mut Incoming) -> Result<Option<Bytes>, Fault> {
    loop {
        match timeout(BODY_STALL, body.frame()).await {
            Err(_) => return Err(Fault::TooSlow("the body stopped arriving")),
            Ok(None) => return Ok(None),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Ok(Some(Err(_))) => {
                return Err(Fault::Invalid(request::Invalid::whole(
                    "the body broke off, or its chunks are malformed",
                )));
            }
        }
    }
}

/// Leaves a body unread whose request was refused by its head.
pub(super) fn refuse(shared: &Shared, headers: &HeaderMap, body: Incoming) {
    // A client that waits for `100 Continue` has sent nothing, and is not asked to.
    if !headers::expects_continue(headers) {
        discard(shared, body);
    }
}

/// Reads on for a while: a connection closed with bytes unread is reset, and the answer with it.
fn discard(shared: &Shared, mut body: Incoming) {
    if body.is_end_stream() {
        return;
    }
    shared.spawn(async move {
        let reading = async {
            let mut bytes = 0;
            while let Some(Ok(frame)) = body.frame().await {
                bytes += frame.data_ref().map_or(0, Bytes::len);
                if bytes > DISCARD_BYTES {
                    return;
                }
            }
        };
        // Out of time is as good as read: the connection is closed.
        let _ = timeout(DISCARD_LIMIT, reading).await;
    });
}

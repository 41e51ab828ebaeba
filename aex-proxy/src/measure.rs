//! Counts prompts beside the requests that go on: one at a time, on a thread of its own.
//!
//! A megabyte takes about a tenth of a second. Whoever finds no turn in time is answered without.

use std::time::Duration;

use aex_admin_proto::worker::{Measured, Route};
use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::request;
use crate::tokenizer::Tokenizer;

/// How long a request waits for its turn.
const TURN_LIMIT: Duration = Duration::from_secs(5);

static TURN: Semaphore = Semaphore::const_new(1);

/// The tokens of a body that was read before; nothing when it was not counted.
pub async fn count(route: Route, body: Bytes, tokenizer: &str) -> Option<Measured> {
    let Some(tokenizer) = Tokenizer::named(tokenizer) else {
        tracing::warn!(tokenizer, "the admin asks for a tokenizer that is not here");
        return None;
    };
    let turn = timeout(TURN_LIMIT, TURN.acquire()).await.ok()?.ok()?;
    // The turn ends with the count, also where the request does not wait for it any longer.
    let counted = spawn_blocking(move || {
        let measured = request::measure(route, &body, tokenizer);
        drop(turn);
        measured
    });
    counted.await.ok().flatten()
}

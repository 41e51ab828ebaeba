//! Counts prompts beside the requests that go on: one at a time, on a thread of its own, and of each
//! agent one after the other, so that none waits for all that another has sent.
//!
//! A megabyte takes about a tenth of a second.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use aex_admin_proto::TokenDigest;
use aex_admin_proto::worker::{Measured, ReserveParams};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::request;
use crate::tokenizer::Tokenizer;

/// How long a request waits for its turn.
const TURN_LIMIT: Duration = Duration::from_secs(5);

/// One for all, and one for each token that counts or waits.
static TURN: LazyLock<Arc<Semaphore>> = LazyLock::new(one);
static OF_TOKENS: LazyLock<Mutex<HashMap<TokenDigest, Arc<Semaphore>>>> =
    LazyLock::new(Mutex::default);

fn one() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(1))
}

/// Why a prompt was not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotCounted {
    /// There is no such tokenizer here.
    Unknown,
    /// Too many others are counted.
    Busy,
}

/// The tokens of a body that was read before.
///
/// # Errors
/// It was not counted.
pub async fn count(
    params: &ReserveParams,
    body: Bytes,
    tokenizer: &str,
) -> Result<Measured, NotCounted> {
    let Some(tokenizer) = Tokenizer::named(tokenizer) else {
        tracing::warn!(tokenizer, "the admin asks for a tokenizer that is not here");
        return Err(NotCounted::Unknown);
    };
    let of_token = OfToken::enter(params.token);
    let turn = timeout(TURN_LIMIT, of_token.turn()).await;
    let (Ok(Some(turn)), route) = (turn, params.route) else {
        return Err(NotCounted::Busy);
    };
    // The turn ends with the count, also where the request does not wait for it any longer.
    let counted = spawn_blocking(move || {
        let measured = request::measure(route, &body, tokenizer);
        drop((turn, of_token));
        measured
    });
    counted.await.ok().flatten().ok_or(NotCounted::Unknown)
}

/// A token's own queue. Forgotten when the last of it is gone.
struct OfToken {
    token: TokenDigest,
    /// None while it is dropped.
    queue: Option<Arc<Semaphore>>,
}

impl OfToken {
    fn enter(token: TokenDigest) -> Self {
        let mut all = OF_TOKENS.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = Arc::clone(all.entry(token).or_insert_with(one));
        Self {
            token,
            queue: Some(queue),
        }
    }

    async fn turn(&self) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let own = self.queue.clone()?.acquire_owned().await.ok()?;
        let of_all = Arc::clone(&TURN).acquire_owned().await.ok()?;
        Some((own, of_all))
    }
}

impl Drop for OfToken {
    fn drop(&mut self) {
        let mut all = OF_TOKENS.lock().unwrap_or_else(PoisonError::into_inner);
        self.queue = None;
        // Only the map's is left, and nobody can take it while the map is locked.
        if all
            .get(&self.token)
            .is_some_and(|queue| Arc::strong_count(queue) == 1)
        {
            all.remove(&self.token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_counts_no_more_is_forgotten() {
        let token = TokenDigest::of(b"aex-fake-token");
        let other = TokenDigest::of(b"aex-fake-other");
        let queues = || OF_TOKENS.lock().unwrap().len();
        let (first, second) = (OfToken::enter(token), OfToken::enter(token));
        let third = OfToken::enter(other);
        assert_eq!(queues(), 2);
        drop(first);
        assert_eq!(queues(), 2);
        drop((second, third));
        assert_eq!(queues(), 0);
    }
}

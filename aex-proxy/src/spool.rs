//! Answers that are kept for a day, for requests with an `Idempotency-Key`.
//!
//! One encrypted file each ([`sealed`]) in one private directory that all workers share ([`shelf`]), so
//! that any of them can give an answer again. What is too much goes by tenant ([`surplus`]). Whatever goes wrong here costs the answer's second giving
//! and nothing else. Disks are slow: they are waited for on threads of their own, few at a time, and not
//! for long.

mod gather;
mod sealed;
mod shelf;
mod surplus;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aex_admin_proto::HoldId;
use aex_admin_proto::scope::ScopeId;
use http::{HeaderMap, StatusCode};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

pub use gather::Gathering;
use gather::{Room, Taken};
pub use sealed::{Kept, SpoolKey};
use shelf::Shelf;

/// Largest answer that is kept.
pub const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// Threads that wait for the disk at once.
const MAX_AT_ONCE: usize = 4;
/// How long a settle waits for its answer to be kept, and a client for one to be found.
const DISK_LIMIT: Duration = Duration::from_secs(2);
/// Between two looks for old files.
const TIDY: Duration = Duration::from_secs(300);

/// A handle; clones share the directory.
#[derive(Clone)]
pub struct Spool {
    inner: Arc<Inner>,
}

struct Inner {
    /// None: nothing is kept.
    shelf: Option<Arc<Shelf>>,
    turns: Arc<Semaphore>,
    room: Arc<Room>,
    /// The last write failed, and that was told.
    failing: AtomicBool,
}

impl Spool {
    /// Makes the directory where it is missing. Without one, or where it cannot be private, nothing is
    /// kept, and that is logged.
    #[must_use]
    pub fn open(directory: Option<&Path>) -> Self {
        let shelf = directory.and_then(|path| match Shelf::open(path) {
            Ok(shelf) => Some(Arc::new(shelf)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "no answers are kept");
                None
            }
        });
        Self {
            inner: Arc::new(Inner {
                shelf,
                turns: Arc::new(Semaphore::new(MAX_AT_ONCE)),
                room: Arc::default(),
                failing: AtomicBool::new(false),
            }),
        }
    }

    /// Begins to gather an answer of `tenant`'s.
    #[must_use]
    pub fn gather(&self, tenant: ScopeId, status: StatusCode, headers: HeaderMap) -> Gathering {
        Gathering {
            status,
            headers,
            body: self.inner.shelf.is_some().then(Vec::new),
            taken: Taken::none_yet(&self.inner.room, tenant),
        }
    }

    /// Keeps an answer. Returns when it is there for every worker, or will not be in time.
    pub async fn keep(&self, id: HoldId, key: SpoolKey, answer: Gathering) {
        let Gathering {
            status,
            headers,
            body: Some(body),
            taken,
        } = answer
        else {
            return;
        };
        let kept = Kept {
            status,
            headers,
            body: body.into(),
        };
        let put = move |shelf: &Shelf| {
            let (tenant, sealed) = (taken.tenant, key.seal(id, &kept)?);
            drop((kept, taken));
            shelf.put(id, tenant, &sealed)
        };
        match self.on_disk(put).await {
            Some(Ok(())) => self.inner.failing.store(false, Ordering::Relaxed),
            failed => {
                let why = failed.and_then(Result::err).map(|error| error.to_string());
                let why = why.unwrap_or_else(|| "the disk is too slow".to_owned());
                if self.inner.failing.swap(true, Ordering::Relaxed) {
                    tracing::debug!(%id, why, "answer not kept");
                } else {
                    tracing::warn!(%id, why, "answer not kept; its request is not affected");
                }
            }
        }
    }

    /// The answer that was kept under `id`; nothing when there is none, or it is not this key's.
    pub async fn find(&self, id: HoldId, key: SpoolKey) -> Option<Kept> {
        let get = move |shelf: &Shelf| key.open(id, &shelf.get(id).ok()?);
        self.on_disk(get).await?
    }

    /// Removes what is old, what was left half-written, and what is too much. Never ends.
    pub async fn tend(self) {
        loop {
            self.on_disk(Shelf::tidy).await;
            sleep(TIDY).await;
        }
    }

    /// Does `work` on a thread that may wait. Nothing when there is no directory, or it takes too long;
    /// what was begun is then done all the same.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shelf) -> T + Send + 'static,
    ) -> Option<T> {
        let shelf = Arc::clone(self.inner.shelf.as_ref()?);
        let turns = Arc::clone(&self.inner.turns);
        let working = async move {
            let turn = turns.acquire_owned().await.ok()?;
            let worked = spawn_blocking(move || {
                let done = work(&shelf);
                drop(turn);
                done
            });
            worked.await.ok()
        };
        timeout(DISK_LIMIT, working).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests;

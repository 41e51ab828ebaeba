//! Places for connections, and who gives one up when all are taken: the connection on which nothing goes
//! on, of those that never asked with a good token the one that has been quiet for longest, then of the
//! others. So idle connections, however many, keep nobody out, and no request that is under way is lost.
//!
//! Absent on purpose: requests, sockets, time. When a connection is quiet is told by its own task.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderName, Response, StatusCode};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Every answer of a governed route has one.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-aex-request-id");

/// A handle; clones share the places.
#[derive(Clone)]
pub(crate) struct Crowd {
    places: Arc<Semaphore>,
    quiet: Arc<Mutex<Quiet>>,
}

/// Connections on which nothing goes on, the longest quiet first.
#[derive(Default)]
struct Quiet {
    strangers: BTreeMap<u64, Arc<Notify>>,
    known: BTreeMap<u64, Arc<Notify>>,
    next: u64,
}

/// One connection's place, given up when dropped.
pub(crate) struct Seat {
    crowd: Crowd,
    /// Its number among the quiet; none while a request is under way.
    number: Mutex<Option<u64>>,
    is_known: AtomicBool,
    leave: Arc<Notify>,
    _place: OwnedSemaphorePermit,
}

impl Crowd {
    pub(crate) fn new(places: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places)),
            quiet: Arc::default(),
        }
    }

    /// A place, as soon as there is one: when all are taken, somebody quiet is asked to leave. None when
    /// there will never be one.
    pub(crate) async fn seat(&self) -> Option<Seat> {
        let place = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                self.ask_one_to_leave();
                Arc::clone(&self.places).acquire_owned().await.ok()?
            }
        };
        let seat = Seat {
            crowd: self.clone(),
            number: Mutex::default(),
            is_known: AtomicBool::new(false),
            leave: Arc::default(),
            _place: place,
        };
        seat.quiet();
        Some(seat)
    }

    fn lock(&self) -> MutexGuard<'_, Quiet> {
        self.quiet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask_one_to_leave(&self) {
        let mut quiet = self.lock();
        let first = quiet.strangers.pop_first();
        if let Some((_, leave)) = first.or_else(|| quiet.known.pop_first()) {
            leave.notify_one();
        }
    }
}

impl Seat {
    /// Nothing goes on any more.
    pub(crate) fn quiet(&self) {
        let mut quiet = self.crowd.lock();
        let number = quiet.next;
        quiet.next += 1;
        let list = match self.is_known.load(Ordering::Relaxed) {
            true => &mut quiet.known,
            false => &mut quiet.strangers,
        };
        list.insert(number, Arc::clone(&self.leave));
        *self.number() = Some(number);
    }

    /// A request has come. False: it was asked to leave before that.
    pub(crate) fn busy(&self) -> bool {
        let mut quiet = self.crowd.lock();
        let Some(number) = self.number().take() else {
            return true;
        };
        let stranger = quiet.strangers.remove(&number);
        stranger.or_else(|| quiet.known.remove(&number)).is_some()
    }

    fn number(&self) -> MutexGuard<'_, Option<u64>> {
        self.number.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was answered tells whether the token was a good one.
    pub(crate) fn answered<B>(&self, answer: &Response<B>) {
        let is_governed = answer.headers().contains_key(REQUEST_ID);
        let is_authenticated = answer.status().is_success()
            || matches!(
                answer.status(),
                StatusCode::PAYMENT_REQUIRED
                    | StatusCode::FORBIDDEN
                    | StatusCode::TOO_MANY_REQUESTS
            );
        if is_governed && is_authenticated {
            self.is_known.store(true, Ordering::Relaxed);
        }
    }

    /// Ends when somebody else needs the place more.
    pub(crate) async fn asked_to_leave(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.busy();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn now<F: Future>(future: F) -> Option<F::Output> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    fn seat(crowd: &Crowd) -> Option<Seat> {
        now(crowd.seat()).flatten()
    }

    fn is_asked(seat: &Seat) -> bool {
        now(seat.asked_to_leave()).is_some()
    }

    fn good_answer(seat: &Seat) {
        let answer = Response::builder().header(REQUEST_ID, "1").body(());
        seat.answered(&answer.unwrap());
    }

    #[test]
    fn the_longest_quiet_stranger_leaves_first_and_who_is_busy_stays() {
        let crowd = Crowd::new(4);
        let [busy, known, old, young] = std::array::from_fn(|_| seat(&crowd).unwrap());
        assert!(busy.busy());
        assert!(known.busy());
        good_answer(&known);
        known.quiet();
        for next_to_leave in [old, young, known] {
            assert!(seat(&crowd).is_none());
            assert!(is_asked(&next_to_leave));
            // Too late for it: whoever asked has its place.
            assert!(!next_to_leave.busy());
            drop(next_to_leave);
            let taken = seat(&crowd).unwrap();
            assert!(taken.busy());
            std::mem::forget(taken);
        }
        assert!(seat(&crowd).is_none());
        assert!(!is_asked(&busy));
    }

    #[test]
    fn who_asked_with_a_bad_token_or_only_for_health_stays_a_stranger() {
        let crowd = Crowd::new(1);
        let seat = seat(&crowd).unwrap();
        for (status, id) in [(200, false), (401, true), (400, true), (413, true)] {
            let mut answer = Response::builder().status(status);
            if id {
                answer = answer.header(REQUEST_ID, "1");
            }
            seat.answered(&answer.body(()).unwrap());
            assert!(!seat.is_known.load(Ordering::Relaxed), "{status}");
        }
        good_answer(&seat);
        assert!(seat.is_known.load(Ordering::Relaxed));
    }

    #[test]
    fn what_is_dropped_is_forgotten() {
        let crowd = Crowd::new(2);
        let (one, two) = (seat(&crowd).unwrap(), seat(&crowd).unwrap());
        assert!(two.busy());
        two.quiet();
        drop((one, two));
        let quiet = crowd.lock();
        assert!(quiet.strangers.is_empty() && quiet.known.is_empty());
    }
}

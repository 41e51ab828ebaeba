//! How a worker that is told to stop takes leave of a client that keeps its connection open.
//!
//! Closing a connection between two requests loses the one that is on its way just then, and the client
//! cannot know whether it was carried out. So a connection is closed with an answer that says so, where
//! another request comes soon; one on which nothing comes for a while is closed as it is.
//!
//! Absent on purpose: requests, and the end of those that take too long ([`crate::server`]).

use std::sync::Arc;
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderValue, Response};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::body::{Keeping, Outgoing};
use crate::crowd::Seat;

/// How long a connection is kept for one more request. Clients that are at work come back sooner.
const LINGER: Duration = Duration::from_millis(500);

/// One connection's.
pub(crate) struct Leaving {
    stopped: watch::Receiver<bool>,
    /// Requests that came and are not answered to the end.
    open: Arc<watch::Sender<usize>>,
    seat: Arc<Seat>,
}

/// Such a request; dropped when it is over.
pub(crate) struct Open {
    open: Arc<watch::Sender<usize>>,
    seat: Arc<Seat>,
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut is_last = false;
        self.open.send_modify(|open| {
            *open -= 1;
            is_last = *open == 0;
        });
        if is_last {
            self.seat.quiet();
        }
    }
}

impl Leaving {
    pub(crate) fn new(stopped: watch::Receiver<bool>, seat: Seat) -> Self {
        Self {
            stopped,
            open: Arc::new(watch::Sender::new(0)),
            seat: Arc::new(seat),
        }
    }

    /// A request has come.
    pub(crate) fn open(&self) -> Open {
        self.open.send_modify(|open| *open += 1);
        self.seat.busy();
        Open {
            open: Arc::clone(&self.open),
            seat: Arc::clone(&self.seat),
        }
    }

    /// Ends when somebody else needs the place more, and nothing goes on.
    pub(crate) async fn asked_to_leave(&self) {
        self.seat.asked_to_leave().await;
        // What came just then is finished first.
        let mut open = self.open.subscribe();
        let _ = open.wait_for(|&open| open == 0).await;
    }

    /// Its answer, which of a worker that is to stop is the last one of the connection, and says so.
    pub(crate) fn answer(&self, answer: Response<Outgoing>, open: Open) -> Response<Keeping<Open>> {
        self.seat.answered(&answer);
        let mut answer = answer.map(|body| Keeping { body, _kept: open });
        if *self.stopped.borrow() {
            let headers = answer.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    /// Ends when the worker is told to stop and nothing has come for a while.
    pub(crate) async fn quiet(&self) {
        // An error means that the server is gone, which is the same.
        let _ = self.stopped.clone().wait_for(|&stopped| stopped).await;
        let mut open = self.open.subscribe();
        loop {
            let _ = open.wait_for(|&open| open == 0).await;
            if timeout(LINGER, open.changed()).await.is_err() {
                return;
            }
        }
    }
}

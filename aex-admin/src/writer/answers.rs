//! Answers on their way back: those of a batch wait for the commit, and go out together after it, or
//! are turned into an error when it failed.

use std::sync::Arc;

use aex_admin_proto::rpc::{RpcError, code};

/// Where answers are put one by one and sent together, so that a batch wakes each asker once.
pub trait Outlet: Send + Sync {
    /// Sends what was put in. From whichever thread; never waits.
    fn flush(&self);
}

type Put<T> = Box<dyn FnOnce(Result<T, RpcError>) + Send>;

/// Takes one answer. Dropped without one, it answers that nothing was done: whoever asks is not left
/// waiting by a batch that was given up half-way.
pub struct Reply<T> {
    put: Option<Put<T>>,
    outlet: Option<Arc<dyn Outlet>>,
}

impl<T> Reply<T> {
    /// Hands the answer to `put`, and has no more to do.
    pub fn new(put: impl FnOnce(Result<T, RpcError>) + Send + 'static) -> Self {
        Self {
            put: Some(Box::new(put)),
            outlet: None,
        }
    }

    /// `put` leaves the answer in `outlet`.
    pub fn through(
        outlet: Arc<dyn Outlet>,
        put: impl FnOnce(Result<T, RpcError>) + Send + 'static,
    ) -> Self {
        Self {
            put: Some(Box::new(put)),
            outlet: Some(outlet),
        }
    }

    /// Answers now: for what does not wait for a commit.
    pub(crate) fn send(mut self, answer: Result<T, RpcError>) {
        self.answer(answer);
    }

    fn answer(&mut self, answer: Result<T, RpcError>) {
        let Some(put) = self.put.take() else { return };
        put(answer);
        if let Some(outlet) = &self.outlet {
            outlet.flush();
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        self.answer(Err(RpcError::new(
            code::UNAVAILABLE,
            "nothing was done; ask again",
        )));
    }
}

struct Pending {
    put: Box<dyn FnOnce(Option<RpcError>) + Send>,
    outlet: Option<Arc<dyn Outlet>>,
}

#[derive(Default)]
pub(crate) struct Answers {
    pending: Vec<Pending>,
}

impl Answers {
    pub(crate) fn push<T: Send + 'static>(
        &mut self,
        mut reply: Reply<T>,
        answer: Result<T, RpcError>,
    ) {
        let (Some(put), outlet) = (reply.put.take(), reply.outlet.take()) else {
            return;
        };
        self.pending.push(Pending {
            put: Box::new(move |failed| match failed {
                None => put(answer),
                Some(error) => put(Err(error)),
            }),
            outlet,
        });
    }

    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    pub(crate) fn send(self) {
        self.put_all(None);
    }

    pub(crate) fn fail(self, error: &RpcError) {
        self.put_all(Some(error));
    }

    fn put_all(self, failed: Option<&RpcError>) {
        // Few: one a connection.
        let mut outlets: Vec<Arc<dyn Outlet>> = Vec::new();
        for Pending { put, outlet } in self.pending {
            put(failed.cloned());
            if let Some(outlet) = outlet
                && !outlets.iter().any(|known| Arc::ptr_eq(known, &outlet))
            {
                outlets.push(outlet);
            }
        }
        for outlet in outlets {
            outlet.flush();
        }
    }
}

//! One exchange while it runs, and the guard that makes sure that it ends exactly once.
//!
//! A worker's connection, its service and its body all run in one task; whoever cuts an exchange
//! from outside sets why, and wakes that task.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use aex_admin_proto::HoldId;
use aex_admin_proto::clock::boot_ms;
use aex_admin_proto::egress::{Exchange, Failure};
use futures_util::task::AtomicWaker;

use crate::register::Register;

/// A worker's connection, as others may act on it.
#[derive(Debug, Default)]
pub struct Control {
    pub(crate) waker: AtomicWaker,
    stopping: AtomicBool,
    current: Mutex<Option<Arc<Flight>>>,
}

impl Control {
    /// Ends the connection after the exchange that it carries.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.waker.wake();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn set_current(&self, flight: Option<Arc<Flight>>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = flight;
    }

    /// Its exchange was cut after the answer's head went out: only a broken connection tells the
    /// worker, and only that works when it does not read.
    pub(crate) fn must_break(&self) -> bool {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .is_some_and(|flight| {
                flight.cut_by().is_some() && flight.answering.load(Ordering::Acquire)
            })
    }
}

#[derive(Debug)]
pub struct Flight {
    pub id: HoldId,
    /// Boot clock: the ticket's deadline or the provider's time limit, whichever comes first.
    pub deadline_boot_ms: u64,
    pub(crate) bytes_up: AtomicU64,
    /// The worker's body broke off or was too long.
    pub(crate) upload_failed: AtomicBool,
    answering: AtomicBool,
    cut: OnceLock<Failure>,
    control: Arc<Control>,
}

impl Flight {
    #[must_use]
    pub fn new(id: HoldId, deadline_boot_ms: u64, control: &Arc<Control>) -> Arc<Self> {
        Arc::new(Self {
            id,
            deadline_boot_ms,
            bytes_up: AtomicU64::new(0),
            upload_failed: AtomicBool::new(false),
            answering: AtomicBool::new(false),
            cut: OnceLock::new(),
            control: Arc::clone(control),
        })
    }

    /// Ends it, for this reason if there is none yet.
    pub fn cut(&self, why: Failure) {
        if self.cut.set(why).is_ok() {
            self.control.waker.wake();
        }
    }

    #[must_use]
    pub fn cut_by(&self) -> Option<Failure> {
        self.cut.get().copied()
    }

    /// Runs a future of the exchange's own task until it is done or the exchange is cut.
    ///
    /// # Errors
    /// Why it was cut.
    pub async fn unless_cut<F: Future>(&self, future: F) -> Result<F::Output, Failure> {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| match self.cut_by() {
            Some(why) => std::task::Poll::Ready(Err(why)),
            None => future.as_mut().poll(cx).map(Ok),
        })
        .await
    }
}

/// A redeemed ticket. However this goes away, the exchange gets its one ending.
pub(crate) struct Running {
    register: Arc<Register>,
    pub(crate) flight: Arc<Flight>,
    pub(crate) sent: bool,
    pub(crate) status: Option<u16>,
    pub(crate) bytes_down: u64,
    pub(crate) head_boot_ms: Option<u64>,
    is_over: bool,
}

impl Running {
    pub(crate) fn new(register: &Arc<Register>, flight: Arc<Flight>) -> Self {
        flight.control.set_current(Some(Arc::clone(&flight)));
        Self {
            register: Arc::clone(register),
            flight,
            sent: false,
            status: None,
            bytes_down: 0,
            head_boot_ms: None,
            is_over: false,
        }
    }

    /// The answer's head goes to the worker now.
    pub(crate) fn answering(&self) {
        self.flight.answering.store(true, Ordering::Release);
    }

    pub(crate) fn completed(&mut self) {
        self.end(None);
    }

    pub(crate) fn failed(&mut self, why: Failure) {
        self.end(Some(why));
    }

    fn end(&mut self, failure: Option<Failure>) {
        if self.is_over {
            return;
        }
        self.is_over = true;
        let exchange = Exchange {
            sent: self.sent,
            status: self.status,
            failure,
            bytes_up: self.flight.bytes_up.load(Ordering::Relaxed),
            bytes_down: self.bytes_down,
            complete: failure.is_none(),
            head_boot_ms: self.head_boot_ms.unwrap_or_else(boot_ms),
        };
        self.register.end(self.flight.id, exchange);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_over {
            let why = self.flight.cut_by().unwrap_or_else(|| {
                if self.flight.upload_failed.load(Ordering::Relaxed) {
                    Failure::RequestBody
                } else {
                    Failure::WorkerGone
                }
            });
            self.end(Some(why));
        }
        // A cut that comes later must not break what the connection carries next.
        self.flight.control.set_current(None);
    }
}

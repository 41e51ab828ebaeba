//! The book and its journal under one lock: what must be durable is written before it counts.
//!
//! The lock is held for one small write to a file in memory, never across an await.
//!
//! Endings wait for the next write, but at most until every task that is ready now has run: a write
//! costs far more than a line, and at load many exchanges begin and end in one turn of the runtime.
//! They are written before they are told to `aex-admin`.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aex_admin_proto::HoldId;
use aex_admin_proto::clock::boot_ms;
use aex_admin_proto::egress::{Exchange, Failure, Receipt};
use tokio::sync::Notify;

use crate::EgressError;
use crate::book::{Book, Limits, NotRedeemed};
use crate::flight::Flight;
use crate::journal::{self, Journal};
use crate::record::Record;

pub struct Register {
    inner: Mutex<Inner>,
    /// There may be receipts to send.
    pub(crate) owing: Notify,
    /// There are endings to write.
    unwritten: Notify,
}

struct Inner {
    book: Book<Arc<Flight>>,
    journal: Journal,
}

/// Why a ticket was not redeemed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redeem {
    /// It was used, or can never be.
    Refused,
    /// It may be good, but nothing can be written down about it now.
    Unable,
}

impl Register {
    /// Takes up what an earlier process left in the journal.
    ///
    /// # Errors
    /// The journal cannot be used.
    pub fn open(path: &Path) -> Result<Self, EgressError> {
        let now = boot_ms();
        let (mut journal, found) = Journal::open(path, &journal::boot_id()?, now)?;
        let mut book = Book::restored(Limits::default(), found.records, now);
        book.sweep(now);
        journal.rewrite(book.records())?;
        Ok(Self {
            inner: Mutex::new(Inner { book, journal }),
            owing: Notify::new(),
            unwritten: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it holds the lock; a poisoned one is still whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Uses a ticket. Afterwards the journal knows that its exchange may have been sent.
    ///
    /// # Errors
    /// See [`Redeem`].
    pub fn redeem(&self, flight: &Arc<Flight>, expires_boot_ms: u64) -> Result<(), Redeem> {
        let mut inner = self.lock();
        if !inner.journal.vouches_for(expires_boot_ms, boot_ms()) {
            return Err(Redeem::Refused);
        }
        match inner.book.may_redeem(flight.id) {
            Ok(()) => {}
            Err(NotRedeemed::Used | NotRedeemed::Dead) => return Err(Redeem::Refused),
            Err(NotRedeemed::Full) => {
                tracing::error!("too many exchanges wait for aex-admin's acknowledgement");
                return Err(Redeem::Unable);
            }
        }
        let record = Record::Redeemed {
            id: flight.id,
            expires_boot_ms,
        };
        if !inner.write(&record) {
            return Err(Redeem::Unable);
        }
        inner
            .book
            .redeemed(flight.id, expires_boot_ms, Arc::clone(flight));
        Ok(())
    }

    pub fn opened(&self, id: HoldId, head_boot_ms: u64) {
        self.lock().book.opened(id, head_boot_ms);
        self.owing.notify_one();
    }

    pub fn end(&self, id: HoldId, exchange: Exchange) {
        let mut inner = self.lock();
        if let Some(record) = inner.book.end(id, exchange) {
            // Unwritten, it would be told as cut after a kill: dearer, never cheaper.
            inner.journal.push(&record);
        }
        drop(inner);
        self.unwritten.notify_one();
        self.owing.notify_one();
    }

    /// Writes endings, always after the tasks that were ready before. Runs for as long as the
    /// process, in a task of its own.
    pub async fn write_endings(&self) {
        loop {
            self.unwritten.notified().await;
            self.lock().flush();
        }
    }

    pub fn void(&self, id: HoldId) {
        let mut inner = self.lock();
        if let Some(record) = inner.book.void(id, boot_ms())
            && inner.write(&record)
            && let Record::Dead { id, until_boot_ms } = record
        {
            inner.book.died(id, until_boot_ms);
        }
        drop(inner);
        self.owing.notify_one();
    }

    /// Ends a running exchange. One that never began is voided, so that it cannot begin.
    pub fn cut(&self, id: HoldId, why: Failure) {
        let inner = self.lock();
        let flight = inner.book.handle(id).map(Arc::clone);
        let is_known = inner.book.knows(id);
        // Waking runs code of the runtime: not under the lock.
        drop(inner);
        match flight {
            Some(flight) => flight.cut(why),
            None if is_known => {}
            None => self.void(id),
        }
    }

    pub fn cut_all(&self, why: Failure) {
        self.cut_where(why, |_| true);
    }

    pub fn cut_overdue(&self, now_boot_ms: u64) {
        self.cut_where(Failure::Timeout, |flight| {
            flight.deadline_boot_ms <= now_boot_ms
        });
    }

    fn cut_where(&self, why: Failure, wanted: impl Fn(&Flight) -> bool) {
        let inner = self.lock();
        let found: Vec<Arc<Flight>> = inner
            .book
            .handles()
            .filter(|flight| wanted(flight))
            .map(Arc::clone)
            .collect();
        drop(inner);
        for flight in found {
            flight.cut(why);
        }
    }

    #[must_use]
    pub fn open_count(&self) -> usize {
        self.lock().book.open_count()
    }

    #[must_use]
    pub fn owes_receipts(&self) -> bool {
        self.lock().book.owes_receipts()
    }

    /// See [`Book::take_batch`]. What is told is in the journal.
    #[must_use]
    pub fn take_batch(&self) -> Vec<Receipt> {
        let mut inner = self.lock();
        inner.flush();
        inner.book.take_batch()
    }

    pub fn give_back(&self, batch: Vec<Receipt>) {
        self.lock().book.give_back(batch);
    }

    pub fn acknowledged(&self, batch: &[Receipt]) {
        self.lock().book.acknowledged(batch, boot_ms());
    }

    /// Since when every redemption is known, boot clock.
    #[must_use]
    pub fn journal_begun_boot_ms(&self) -> u64 {
        self.lock().journal.begun_boot_ms()
    }

    pub fn sweep(&self, now_boot_ms: u64) {
        self.lock().book.sweep(now_boot_ms);
    }
}

impl Inner {
    /// Writes a record, of something that the book learns of after this.
    fn write(&mut self, record: &Record) -> bool {
        self.journal.push(record);
        if !self.flush() {
            return false;
        }
        if self.journal.wants_rewrite() {
            let records = self.book.records().chain(std::iter::once(record.clone()));
            if let Err(error) = self.journal.rewrite(records) {
                tracing::error!(%error, "the journal keeps growing");
            }
        }
        true
    }

    fn flush(&mut self) -> bool {
        let written = self.journal.flush();
        if let Err(error) = &written {
            tracing::error!(%error, "the journal cannot be written: is its file system full?");
        }
        written.is_ok()
    }
}

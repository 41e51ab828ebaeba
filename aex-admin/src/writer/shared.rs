//! What the writer shows to the sockets: its memory for views, counters, orders for the egress, and
//! the number of the last event.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use aex_admin_proto::HoldId;
use aex_admin_proto::operator::PolicyCounts;
use aex_admin_proto::scope::ScopeId;
use aex_admin_proto::worker::Basis;
use tokio::sync::{Notify, watch};

use super::memory::Memory;
use crate::core::book::{Counter, LiveKey, Sum};

/// Most orders of a kind that wait for the egress; more are asked again at a later sweep.
const MAX_ORDERS: usize = 4096;

pub struct Shared {
    memory: Mutex<Memory>,
    counters: Mutex<Counters>,
    orders: Mutex<PendingOrders>,
    /// Told when there are orders.
    pub orders_wait: Notify,
    last_event: watch::Sender<i64>,
    waiting: Mutex<u64>,
    /// As of the last commit: memory is ahead of the ledger while a batch is written.
    open_holds: Mutex<u64>,
    /// Why the last batch was not written; gone with the next that is.
    trouble: Mutex<Option<String>>,
    /// When the writer last came round, by the boot clock.
    writer_boot_ms: AtomicU64,
}

/// Counted since the start.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    pub reserves: u64,
    pub granted: u64,
    /// Answered by a request that was carried out before.
    pub replayed: u64,
    pub refused: BTreeMap<&'static str, u64>,
    pub settled: BTreeMap<&'static str, u64>,
    /// Policies that matched, by name. Bounded.
    pub policies: BTreeMap<String, PolicyCounts>,
    pub overruns: u64,
    pub role_violations: u64,
    pub wrong_peers: u64,
    pub outside_updates: u64,
    pub commits: u64,
    pub operations: u64,
}

#[derive(Debug, Default, Clone)]
pub struct PendingOrders {
    pub void: Vec<HoldId>,
    pub cut: Vec<HoldId>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            memory: Mutex::default(),
            counters: Mutex::default(),
            orders: Mutex::default(),
            orders_wait: Notify::new(),
            last_event: watch::Sender::new(0),
            waiting: Mutex::default(),
            open_holds: Mutex::default(),
            trouble: Mutex::default(),
            writer_boot_ms: AtomicU64::new(u64::MAX),
        }
    }
}

/// A panic while it is held ends the process, so a poisoned lock is never seen by others.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn writer_lives(&self, now_boot_ms: u64) {
        self.writer_boot_ms.store(now_boot_ms, Ordering::Relaxed);
    }

    /// For how long the writer has not come round: it does so every 50 ms, or is at work on a batch.
    #[must_use]
    pub fn writer_silent_ms(&self, now_boot_ms: u64) -> u64 {
        now_boot_ms.saturating_sub(self.writer_boot_ms.load(Ordering::Relaxed))
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }

    pub(crate) fn count(&self, count: impl FnOnce(&mut Counters)) {
        count(&mut lock(&self.counters));
    }

    pub fn role_violation(&self) {
        self.count(|counters| counters.role_violations += 1);
    }

    #[must_use]
    pub fn counters(&self) -> Counters {
        lock(&self.counters).clone()
    }

    pub(crate) fn order_void(&self, id: HoldId) {
        push(&mut lock(&self.orders).void, id);
        self.orders_wait.notify_one();
    }

    pub(crate) fn order_cut(&self, id: HoldId) {
        push(&mut lock(&self.orders).cut, id);
        self.orders_wait.notify_one();
    }

    #[must_use]
    pub fn take_orders(&self) -> PendingOrders {
        std::mem::take(&mut *lock(&self.orders))
    }

    pub(crate) fn publish_event(&self, id: i64) {
        self.last_event
            .send_if_modified(|last| std::mem::replace(last, id) != id);
    }

    /// Watches the id of the last committed event.
    #[must_use]
    pub fn events(&self) -> watch::Receiver<i64> {
        self.last_event.subscribe()
    }

    pub(crate) fn set_waiting(&self, count: usize) {
        *lock(&self.waiting) = count as u64;
    }

    #[must_use]
    pub fn waiting(&self) -> u64 {
        *lock(&self.waiting)
    }

    pub(crate) fn set_trouble(&self, trouble: Option<String>) {
        *lock(&self.trouble) = trouble;
    }

    /// Why the ledger cannot be written now.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }

    /// Holds that the ledger has open.
    #[must_use]
    pub fn open_holds(&self) -> u64 {
        *lock(&self.open_holds)
    }

    /// What memory has is what the ledger has.
    pub(crate) fn publish_open_holds(&self) {
        let count = self.memory().open.len() as u64;
        *lock(&self.open_holds) = count;
    }

    /// Open holds, and requests and tokens of the last minute, of one scope.
    #[must_use]
    pub fn activity(&self, scope: ScopeId, now_boot_ms: u64) -> (u64, u64, u64) {
        let mut memory = self.memory();
        let key = LiveKey::Scope(scope);
        memory.book.expire([&key], now_boot_ms);
        let live = memory.book.live(&key);
        live.map_or((0, 0, 0), |live| {
            (live.open, live.requests_used(), live.tokens_used())
        })
    }

    /// What a scope's limits over periods, sessions and all time have counted.
    #[must_use]
    pub fn counters_of(&self, scope: ScopeId) -> Vec<(Sum, Counter)> {
        let memory = self.memory();
        let mut found: Vec<_> = (memory.book.counters_of(scope))
            .map(|(sum, counter)| (sum.clone(), *counter))
            .collect();
        found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        found
    }

    /// Open holds of each worker connection.
    #[must_use]
    pub fn in_flight(&self, session: super::SessionId) -> u64 {
        let owner = crate::core::reservation::Owner::Session(session);
        self.memory()
            .open
            .values()
            .filter(|hold| hold.course.owner == owner)
            .count() as u64
    }
}

fn push(orders: &mut Vec<HoldId>, id: HoldId) {
    if orders.len() < MAX_ORDERS && !orders.contains(&id) {
        orders.push(id);
    }
}

pub(crate) fn basis_name(basis: Basis) -> &'static str {
    match basis {
        Basis::Exact => "exact",
        Basis::Estimated => "estimated",
        Basis::Ceiling => "ceiling",
        Basis::Released => "released",
    }
}

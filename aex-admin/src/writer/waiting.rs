//! Requests that wait for what is held. First come, first served at the scope that refused it; each has
//! a deadline, and an agent has at most [`MAX_WAITING`]. A waiter holds nothing.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use aex_admin_proto::scope::ScopeId;
use aex_admin_proto::worker::{ReserveParams, ReserveReply};
use aex_admin_proto::{HoldId, Refusal};

use super::{Reply, SessionId};

/// Most waiters an agent; the next is refused at once.
pub(crate) const MAX_WAITING: usize = 64;

pub(crate) struct Waiter {
    /// Agent id.
    pub agent: i64,
    pub params: Box<ReserveParams>,
    pub session: SessionId,
    pub reply: Reply<ReserveReply>,
    /// Why it waits: its answer when nothing comes free in time.
    pub refusal: Refusal,
    pub deadline_boot_ms: u64,
}

#[derive(Default)]
pub(crate) struct Waiting {
    queues: HashMap<ScopeId, VecDeque<Waiter>>,
    scope_of: HashMap<HoldId, ScopeId>,
    /// How many each agent has.
    agents: HashMap<i64, usize>,
}

impl Waiting {
    pub(crate) fn len(&self) -> usize {
        self.scope_of.len()
    }

    pub(crate) fn of(&self, scope: ScopeId) -> usize {
        self.queues.get(&scope).map_or(0, VecDeque::len)
    }

    pub(crate) fn scopes(&self) -> Vec<ScopeId> {
        self.queues.keys().copied().collect()
    }

    /// The waiter back, when its agent has too many.
    pub(crate) fn push(&mut self, scope: ScopeId, waiter: Waiter) -> Result<(), Box<Waiter>> {
        let count = self.agents.entry(waiter.agent).or_insert(0);
        if *count >= MAX_WAITING {
            return Err(Box::new(waiter));
        }
        *count += 1;
        self.scope_of.insert(waiter.params.id, scope);
        self.queues.entry(scope).or_default().push_back(waiter);
        Ok(())
    }

    pub(crate) fn pop_front(&mut self, scope: ScopeId) -> Option<Waiter> {
        self.take(scope, 0)
    }

    /// Back to where it stood: it was looked at, and must wait on.
    pub(crate) fn push_front(&mut self, scope: ScopeId, waiter: Waiter) {
        *self.agents.entry(waiter.agent).or_insert(0) += 1;
        self.scope_of.insert(waiter.params.id, scope);
        self.queues.entry(scope).or_default().push_front(waiter);
    }

    /// Takes a waiter that gave up, or is asked for anew.
    pub(crate) fn remove(&mut self, id: &HoldId) -> Option<Waiter> {
        let scope = *self.scope_of.get(id)?;
        let queue = self.queues.get(&scope)?;
        let at = queue.iter().position(|waiter| waiter.params.id == *id)?;
        self.take(scope, at)
    }

    /// Takes those whose deadline has passed, or whose worker went away.
    pub(crate) fn take_if(&mut self, mut gone: impl FnMut(&Waiter) -> bool) -> Vec<Waiter> {
        let mut taken = Vec::new();
        for scope in self.scopes() {
            let mut at = 0;
            while let Some(waiter) = self.queues.get(&scope).and_then(|queue| queue.get(at)) {
                if gone(waiter) {
                    taken.extend(self.take(scope, at));
                } else {
                    at += 1;
                }
            }
        }
        taken
    }

    /// The nearest deadline, boot clock.
    pub(crate) fn next_deadline_boot_ms(&self) -> Option<u64> {
        self.queues
            .values()
            .flatten()
            .map(|waiter| waiter.deadline_boot_ms)
            .min()
    }

    fn take(&mut self, scope: ScopeId, at: usize) -> Option<Waiter> {
        let queue = self.queues.get_mut(&scope)?;
        let waiter = queue.remove(at)?;
        if queue.is_empty() {
            self.queues.remove(&scope);
        }
        self.scope_of.remove(&waiter.params.id);
        if let Entry::Occupied(mut count) = self.agents.entry(waiter.agent) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        Some(waiter)
    }
}

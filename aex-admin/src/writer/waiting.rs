//! Requests that wait for what is held. First come, first served among those of one own scope (a run, or an
//! agent) for one scope that is short, so that nobody stands in another's way; each has a deadline, and each
//! own scope and each agent a bound. A waiter holds nothing.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;

use aex_admin_proto::scope::ScopeId;
use aex_admin_proto::worker::{ReserveParams, ReserveReply};
use aex_admin_proto::{HoldId, Refusal};

use super::{Reply, SessionId};
use crate::core::reserve::Queue;

/// Most waiters of one own scope; the next is refused at once.
pub(crate) const MAX_WAITING: usize = 64;
/// Most waiters of an agent and its runs together.
const MAX_WAITING_OF_AGENT: usize = 512;

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
    /// By scope, and in it by their own.
    queues: HashMap<ScopeId, BTreeMap<ScopeId, VecDeque<Waiter>>>,
    queue_of: HashMap<HoldId, Queue>,
    /// How many each agent has, and each own scope.
    agents: HashMap<i64, usize>,
    own: HashMap<ScopeId, usize>,
}

impl Waiting {
    pub(crate) fn len(&self) -> usize {
        self.queue_of.len()
    }

    pub(crate) fn of(&self, scope: ScopeId) -> usize {
        let children = self.queues.get(&scope).into_iter().flatten();
        children.map(|(_, queue)| queue.len()).sum()
    }

    pub(crate) fn in_queue(&self, queue: Queue) -> usize {
        self.queue(queue).map_or(0, VecDeque::len)
    }

    pub(crate) fn scopes(&self) -> Vec<ScopeId> {
        self.queues.keys().copied().collect()
    }

    /// The queues of a scope, that of the longest waiter first.
    pub(crate) fn queues_of(&self, scope: ScopeId) -> Vec<Queue> {
        let children = self.queues.get(&scope).into_iter().flatten();
        let mut queues: Vec<(u64, Queue)> = children
            .filter_map(|(&own, queue)| {
                let first = queue.front()?;
                Some((first.deadline_boot_ms, Queue { scope, own }))
            })
            .collect();
        queues.sort_unstable();
        queues.into_iter().map(|(_, queue)| queue).collect()
    }

    /// The waiter back, when its own scope or its agent has too many.
    pub(crate) fn push(&mut self, queue: Queue, waiter: Waiter) -> Result<(), Box<Waiter>> {
        let of_agent = self.agents.get(&waiter.agent).copied().unwrap_or(0);
        let own = self.own.get(&queue.own).copied().unwrap_or(0);
        if own >= MAX_WAITING || of_agent >= MAX_WAITING_OF_AGENT {
            return Err(Box::new(waiter));
        }
        self.place(queue, &waiter).push_back(waiter);
        Ok(())
    }

    pub(crate) fn pop_front(&mut self, queue: Queue) -> Option<Waiter> {
        self.take(queue, 0)
    }

    /// Back to where it stood: it was looked at, and must wait on.
    pub(crate) fn push_front(&mut self, queue: Queue, waiter: Waiter) {
        self.place(queue, &waiter).push_front(waiter);
    }

    fn place(&mut self, queue: Queue, waiter: &Waiter) -> &mut VecDeque<Waiter> {
        *self.agents.entry(waiter.agent).or_insert(0) += 1;
        *self.own.entry(queue.own).or_insert(0) += 1;
        self.queue_of.insert(waiter.params.id, queue);
        let children = self.queues.entry(queue.scope).or_default();
        children.entry(queue.own).or_default()
    }

    /// Takes a waiter that gave up, or is asked for anew, and where it stood.
    pub(crate) fn remove(&mut self, id: &HoldId) -> Option<(Waiter, Queue)> {
        let queue = *self.queue_of.get(id)?;
        let waiters = self.queue(queue)?;
        let at = waiters.iter().position(|waiter| waiter.params.id == *id)?;
        Some((self.take(queue, at)?, queue))
    }

    /// Takes those whose deadline has passed, or whose worker went away, and where they stood.
    pub(crate) fn take_if(
        &mut self,
        mut gone: impl FnMut(&Waiter) -> bool,
    ) -> Vec<(Waiter, Queue)> {
        let scopes = self.scopes().into_iter();
        let queues: Vec<Queue> = scopes.flat_map(|scope| self.queues_of(scope)).collect();
        let mut taken = Vec::new();
        for queue in queues {
            let mut at = 0;
            while let Some(waiter) = self.queue(queue).and_then(|queue| queue.get(at)) {
                if gone(waiter) {
                    taken.extend(self.take(queue, at).map(|waiter| (waiter, queue)));
                } else {
                    at += 1;
                }
            }
        }
        taken
    }

    /// The nearest deadline, boot clock.
    pub(crate) fn next_deadline_boot_ms(&self) -> Option<u64> {
        let queues = self.queues.values().flat_map(BTreeMap::values);
        let deadlines = queues.flatten().map(|waiter| waiter.deadline_boot_ms);
        deadlines.min()
    }

    fn queue(&self, queue: Queue) -> Option<&VecDeque<Waiter>> {
        self.queues.get(&queue.scope)?.get(&queue.own)
    }

    fn take(&mut self, queue: Queue, at: usize) -> Option<Waiter> {
        let children = self.queues.get_mut(&queue.scope)?;
        let waiters = children.get_mut(&queue.own)?;
        let waiter = waiters.remove(at)?;
        if waiters.is_empty() {
            children.remove(&queue.own);
        }
        if children.is_empty() {
            self.queues.remove(&queue.scope);
        }
        self.queue_of.remove(&waiter.params.id);
        one_less(&mut self.agents, waiter.agent);
        one_less(&mut self.own, queue.own);
        Some(waiter)
    }
}

fn one_less<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: K) {
    if let Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

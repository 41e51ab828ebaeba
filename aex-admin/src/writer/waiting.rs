//! Requests that wait for what is held. First come, first served among those of one child of the scope that
//! lacks it, so that no child stands in the way of its siblings; each has a deadline, and an agent has at most [`MAX_WAITING`]. A waiter holds nothing.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};

use aex_admin_proto::scope::ScopeId;
use aex_admin_proto::worker::{ReserveParams, ReserveReply};
use aex_admin_proto::{HoldId, Refusal};

use super::{Reply, SessionId};
use crate::core::reserve::Queue;

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
    /// By scope, and in it by the child through which they wait.
    queues: HashMap<ScopeId, BTreeMap<ScopeId, VecDeque<Waiter>>>,
    queue_of: HashMap<HoldId, Queue>,
    /// How many each agent has.
    agents: HashMap<i64, usize>,
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
            .filter_map(|(&child, queue)| {
                let first = queue.front()?;
                Some((first.deadline_boot_ms, Queue { scope, child }))
            })
            .collect();
        queues.sort_unstable();
        queues.into_iter().map(|(_, queue)| queue).collect()
    }

    /// The waiter back, when its agent has too many.
    pub(crate) fn push(&mut self, queue: Queue, waiter: Waiter) -> Result<(), Box<Waiter>> {
        let count = self.agents.get(&waiter.agent).copied().unwrap_or(0);
        if count >= MAX_WAITING {
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
        self.queue_of.insert(waiter.params.id, queue);
        let children = self.queues.entry(queue.scope).or_default();
        children.entry(queue.child).or_default()
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
        self.queues.get(&queue.scope)?.get(&queue.child)
    }

    fn take(&mut self, queue: Queue, at: usize) -> Option<Waiter> {
        let children = self.queues.get_mut(&queue.scope)?;
        let waiters = children.get_mut(&queue.child)?;
        let waiter = waiters.remove(at)?;
        if waiters.is_empty() {
            children.remove(&queue.child);
        }
        if children.is_empty() {
            self.queues.remove(&queue.scope);
        }
        self.queue_of.remove(&waiter.params.id);
        if let Entry::Occupied(mut count) = self.agents.entry(waiter.agent) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        Some(waiter)
    }
}

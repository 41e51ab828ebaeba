//! Requests that wait for held money. First come, first served; each has a deadline, and an agent
//! has at most [`MAX_WAITING`]. A waiter holds nothing.

use std::collections::{HashMap, VecDeque};

use aex_admin_proto::worker::{ReserveParams, ReserveReply};
use aex_admin_proto::{HoldId, Refusal};

use super::{Reply, SessionId};

/// Most waiters an agent; the next is refused at once.
pub(crate) const MAX_WAITING: usize = 64;

pub(crate) struct Waiter {
    pub params: Box<ReserveParams>,
    pub session: SessionId,
    pub reply: Reply<ReserveReply>,
    /// Why it waits: its answer when nothing comes free in time.
    pub refusal: Refusal,
    pub deadline_boot_ms: u64,
}

#[derive(Default)]
pub(crate) struct Waiting {
    /// By agent id.
    queues: HashMap<i64, VecDeque<Waiter>>,
    agent_of: HashMap<HoldId, i64>,
}

impl Waiting {
    pub(crate) fn len(&self) -> usize {
        self.agent_of.len()
    }

    pub(crate) fn of(&self, agent: i64) -> usize {
        self.queues.get(&agent).map_or(0, VecDeque::len)
    }

    pub(crate) fn agents(&self) -> Vec<i64> {
        self.queues.keys().copied().collect()
    }

    /// The waiter back, when the queue is full.
    pub(crate) fn push(&mut self, agent: i64, waiter: Waiter) -> Result<(), Waiter> {
        let queue = self.queues.entry(agent).or_default();
        if queue.len() >= MAX_WAITING {
            return Err(waiter);
        }
        self.agent_of.insert(waiter.params.id, agent);
        queue.push_back(waiter);
        Ok(())
    }

    pub(crate) fn pop_front(&mut self, agent: i64) -> Option<Waiter> {
        let queue = self.queues.get_mut(&agent)?;
        let waiter = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&agent);
        }
        if let Some(waiter) = &waiter {
            self.agent_of.remove(&waiter.params.id);
        }
        waiter
    }

    /// Back to where it stood: it was looked at, and must wait on.
    pub(crate) fn push_front(&mut self, agent: i64, waiter: Waiter) {
        self.agent_of.insert(waiter.params.id, agent);
        self.queues.entry(agent).or_default().push_front(waiter);
    }

    /// Takes a waiter that gave up, or is asked for anew.
    pub(crate) fn remove(&mut self, id: &HoldId) -> Option<Waiter> {
        let agent = *self.agent_of.get(id)?;
        let at = self
            .queues
            .get(&agent)?
            .iter()
            .position(|waiter| waiter.params.id == *id)?;
        self.take(agent, at)
    }

    /// Takes those whose deadline has passed, or whose worker went away.
    pub(crate) fn take_if(&mut self, mut gone: impl FnMut(&Waiter) -> bool) -> Vec<Waiter> {
        let mut taken = Vec::new();
        for agent in self.agents() {
            let mut at = 0;
            while let Some(waiter) = self.queues.get(&agent).and_then(|queue| queue.get(at)) {
                if gone(waiter) {
                    taken.extend(self.take(agent, at));
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

    fn take(&mut self, agent: i64, at: usize) -> Option<Waiter> {
        let queue = self.queues.get_mut(&agent)?;
        let waiter = queue.remove(at)?;
        if queue.is_empty() {
            self.queues.remove(&agent);
        }
        self.agent_of.remove(&waiter.params.id);
        Some(waiter)
    }
}

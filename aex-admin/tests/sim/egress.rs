//! The egress as the core sees it: what `aex-egress/src/book.rs` promises, once more and small.
//!
//! Its journal survives a kill, not the machine. Absent: bytes, providers, time of its own.

use std::collections::VecDeque;

use aex_admin_proto::HoldId;
use aex_admin_proto::egress::{Ending, Exchange, Failure, Receipt};

/// How long an acknowledged ending is remembered at least.
const SETTLED_FOR_MS: u64 = 30_000;
const DEAD_FOR_MS: u64 = 600_000;

#[derive(Debug, Default)]
pub(crate) struct Egress {
    pub(crate) is_up: bool,
    /// Counts its processes: an answer to an earlier one reaches nobody.
    pub(crate) process: u64,
    /// To the core.
    pub(crate) is_connected: bool,
    /// Since when it knows every redemption. 0: before anything that is looked at.
    pub(crate) journal_began_ms: u64,
    open: Vec<Open>,
    ended: Vec<Ended>,
    used: Vec<(HoldId, u64)>,
    dead: Vec<(HoldId, u64)>,
    owed: VecDeque<Receipt>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Open {
    pub(crate) id: HoldId,
    expires_boot_ms: u64,
    pub(crate) deadline_boot_ms: u64,
}

#[derive(Debug)]
struct Ended {
    id: HoldId,
    expires_boot_ms: u64,
    exchange: Exchange,
    /// In the journal.
    written: bool,
}

impl Egress {
    pub(crate) fn open(&self) -> &[Open] {
        &self.open
    }

    pub(crate) fn is_open(&self, id: HoldId) -> bool {
        self.open.iter().any(|open| open.id == id)
    }

    fn knows(&self, id: HoldId) -> bool {
        self.is_open(id)
            || self.ended.iter().any(|ended| ended.id == id)
            || self.used.iter().any(|used| used.0 == id)
            || self.dead.iter().any(|dead| dead.0 == id)
    }

    /// False: the ticket is used, or can never be.
    pub(crate) fn redeem(&mut self, id: HoldId, expires_ms: u64, deadline_ms: u64) -> bool {
        if self.knows(id) {
            return false;
        }
        self.open.push(Open {
            id,
            expires_boot_ms: expires_ms,
            deadline_boot_ms: deadline_ms,
        });
        true
    }

    pub(crate) fn opened(&mut self, id: HoldId, head_boot_ms: u64) {
        let ending = Ending::Opened { head_boot_ms };
        self.owed.push_back(Receipt { id, ending });
    }

    pub(crate) fn end(&mut self, id: HoldId, exchange: Exchange) {
        if let Some(at) = self.open.iter().position(|open| open.id == id) {
            let open = self.open.remove(at);
            self.note_ended(open, exchange, false);
        }
    }

    fn note_ended(&mut self, open: Open, exchange: Exchange, written: bool) {
        self.owe(open.id, Ending::Ended(exchange.clone()));
        self.ended.push(Ended {
            id: open.id,
            expires_boot_ms: open.expires_boot_ms,
            exchange,
            written,
        });
    }

    fn owe(&mut self, id: HoldId, ending: Ending) {
        self.owed.push_back(Receipt { id, ending });
    }

    pub(crate) fn void(&mut self, id: HoldId, now_boot_ms: u64) {
        if let Some(ended) = self.ended.iter().find(|ended| ended.id == id) {
            let ending = Ending::Ended(ended.exchange.clone());
            self.owe(id, ending);
        } else if self.dead.iter().any(|dead| dead.0 == id) {
            self.owe(id, Ending::Unknown);
        } else if !self.knows(id) {
            self.dead.push((id, now_boot_ms + DEAD_FOR_MS));
            self.owe(id, Ending::Unknown);
        }
    }

    /// True: it is open, and must be ended by whoever knows how. What never began is voided.
    pub(crate) fn cut(&mut self, id: HoldId, now_boot_ms: u64) -> bool {
        if self.is_open(id) {
            return true;
        }
        if !self.knows(id) {
            self.void(id, now_boot_ms);
        }
        false
    }

    pub(crate) fn connect(&mut self) {
        self.is_connected = self.is_up;
    }

    pub(crate) fn take_batch(&mut self, most: usize) -> Vec<Receipt> {
        for ended in &mut self.ended {
            ended.written = true;
        }
        let count = self.owed.len().min(most);
        self.owed.drain(..count).collect()
    }

    pub(crate) fn give_back(&mut self, batch: Vec<Receipt>) {
        for receipt in batch.into_iter().rev() {
            self.owed.push_front(receipt);
        }
    }

    pub(crate) fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    pub(crate) fn acknowledged(&mut self, batch: &[Receipt], now_boot_ms: u64) {
        for receipt in batch {
            let is_ending = matches!(receipt.ending, Ending::Ended(_));
            let at = self.ended.iter().position(|ended| ended.id == receipt.id);
            if let (true, Some(at)) = (is_ending, at) {
                let ended = self.ended.remove(at);
                let until_ms = ended.expires_boot_ms.max(now_boot_ms + SETTLED_FOR_MS);
                self.used.push((ended.id, until_ms));
            }
        }
    }

    pub(crate) fn forget(&mut self, now_boot_ms: u64) {
        self.used.retain(|&(_, until_ms)| until_ms >= now_boot_ms);
        self.dead.retain(|&(_, until_ms)| until_ms >= now_boot_ms);
    }

    /// SIGKILL. The journal tells the next process what it has; an ending that was not written yet
    /// looks unfinished.
    /// Those whose ending was not written.
    pub(crate) fn kill(&mut self) -> Vec<HoldId> {
        self.is_up = false;
        self.process += 1;
        self.is_connected = false;
        self.owed.clear();
        let unwritten = self.ended.iter().filter(|ended| !ended.written);
        unwritten.map(|ended| ended.id).collect()
    }

    pub(crate) fn restart(&mut self, now_boot_ms: u64) {
        self.is_up = true;
        let gone = Exchange {
            sent: true,
            failure: Some(Failure::EgressGone),
            head_boot_ms: now_boot_ms,
            ..Exchange::default()
        };
        for ended in &mut self.ended {
            if !ended.written {
                ended.exchange = gone.clone();
                ended.written = true;
            }
        }
        let told: Vec<(HoldId, Exchange)> = (self.ended.iter())
            .map(|ended| (ended.id, ended.exchange.clone()))
            .collect();
        for (id, exchange) in told {
            self.owe(id, Ending::Ended(exchange));
        }
        for open in std::mem::take(&mut self.open) {
            self.note_ended(open, gone.clone(), true);
        }
    }

    /// The journal is gone, with the machine or without it: nothing is known of what was.
    pub(crate) fn lose_journal(&mut self, now_boot_ms: u64) {
        self.journal_began_ms = now_boot_ms;
        self.open.clear();
        self.ended.clear();
        self.used.clear();
        self.dead.clear();
    }
}

//! Which tickets were redeemed, how their exchanges ended, and which can never be redeemed. Pure:
//! times are passed in, and what must be durable is handed back as [`Record`]s to be written first.
//!
//! # What may be answered to `void(id)`
//!
//! An id that this book knows gets the truth: nothing yet while the exchange is open, its own
//! ending, or `Unknown` again. An id that it does not know is `Unknown`, and dead from then on: it
//! cannot be redeemed later either.
//!
//! `Unknown` says by itself neither that money was spent nor that it was not. But `aex-admin` is told
//! since when the journal has been kept without a gap ([`crate::journal`]), and knows when it granted
//! the hold. A journal that was there before knows every redemption of it: it forgets one only when its
//! ticket has expired *and* `aex-admin` acknowledged its ending [`SETTLED_FOR_MS`] ago, and of those it
//! says nothing more, because `aex-admin` has the truth already. So `Unknown` of a younger hold means
//! never sent; of an older one, that nobody knows.
//!
//! # Bounds
//!
//! Exchanges that are open or not acknowledged, used ids, dead ids and waiting receipts each have a
//! limit. At a limit the book refuses new redemptions, or leaves a question to be asked again; it never forgets something that it owes.

use std::collections::{HashMap, VecDeque};

use aex_admin_proto::HoldId;
use aex_admin_proto::egress::{Ending, Exchange, Failure, MAX_RECEIPTS, Receipt};

use crate::record::Record;

/// How long a ticket can be redeemed, as `aex-admin` grants them.
pub const TICKET_LIFE_MS: u64 = 30_000;
/// How long an acknowledged ending is remembered at least.
pub const SETTLED_FOR_MS: u64 = 30_000;
/// How long a dead id is remembered; its ticket has expired long before.
const DEAD_FOR_MS: u64 = 20 * TICKET_LIFE_MS;

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Exchanges open, or ended and not acknowledged.
    pub live: usize,
    pub used: usize,
    pub dead: usize,
    pub waiting: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            live: 65_536,
            used: 1_000_000,
            dead: 65_536,
            waiting: 131_072,
        }
    }
}

/// Why a ticket is not redeemed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotRedeemed {
    /// It was, before.
    Used,
    /// It never can be.
    Dead,
    /// The book is full: `aex-admin` has not taken the receipts for too long.
    Full,
}

#[derive(Debug)]
struct Open<H> {
    expires_boot_ms: u64,
    handle: H,
}

#[derive(Debug)]
struct Ended {
    expires_boot_ms: u64,
    exchange: Exchange,
}

/// `H` is a handle to a running exchange, for those who must cut it.
#[derive(Debug)]
pub struct Book<H> {
    limits: Limits,
    open: HashMap<HoldId, Open<H>>,
    ended: HashMap<HoldId, Ended>,
    /// Until when, in whole seconds of the boot clock: there may be many.
    used: HashMap<HoldId, u32>,
    /// Until when, boot clock.
    dead: HashMap<HoldId, u64>,
    waiting: VecDeque<Receipt>,
}

impl<H> Book<H> {
    /// A book that knows nothing.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            open: HashMap::new(),
            ended: HashMap::new(),
            used: HashMap::new(),
            dead: HashMap::new(),
            waiting: VecDeque::new(),
        }
    }

    /// The book that an earlier process wrote. What it left open was ended by its own end.
    #[must_use]
    pub fn restored(limits: Limits, records: Vec<Record>, now_boot_ms: u64) -> Self {
        let mut book = Self::new(limits);
        let mut redeemed = HashMap::new();
        for record in records {
            match record {
                Record::Redeemed {
                    id,
                    expires_boot_ms,
                } => {
                    redeemed.insert(id, expires_boot_ms);
                }
                Record::Ended {
                    id,
                    expires_boot_ms,
                    exchange,
                } => {
                    redeemed.remove(&id);
                    book.note_ended(id, expires_boot_ms, exchange);
                }
                Record::Used {
                    id,
                    expires_boot_ms,
                } => {
                    book.used.insert(id, whole_seconds(expires_boot_ms));
                }
                Record::Dead { id, until_boot_ms } => {
                    book.dead.insert(id, until_boot_ms);
                }
            }
        }
        for (id, expires_boot_ms) in redeemed {
            let gone = Exchange {
                sent: true,
                failure: Some(Failure::EgressGone),
                head_boot_ms: now_boot_ms,
                ..Exchange::default()
            };
            book.note_ended(id, expires_boot_ms, gone);
        }
        book
    }

    fn note_ended(&mut self, id: HoldId, expires_boot_ms: u64, exchange: Exchange) {
        self.waiting.push_back(Receipt {
            id,
            ending: Ending::Ended(exchange.clone()),
        });
        let ended = Ended {
            expires_boot_ms,
            exchange,
        };
        self.ended.insert(id, ended);
    }

    /// Whether a ticket may be redeemed now. The caller writes its record, then calls
    /// [`Book::redeemed`], under the same lock.
    ///
    /// # Errors
    /// See [`NotRedeemed`].
    pub fn may_redeem(&self, id: HoldId) -> Result<(), NotRedeemed> {
        if self.open.contains_key(&id)
            || self.ended.contains_key(&id)
            || self.used.contains_key(&id)
        {
            return Err(NotRedeemed::Used);
        }
        if self.dead.contains_key(&id) {
            return Err(NotRedeemed::Dead);
        }
        let live = self.open.len() + self.ended.len();
        if live >= self.limits.live || self.used.len() + live >= self.limits.used {
            return Err(NotRedeemed::Full);
        }
        Ok(())
    }

    pub fn redeemed(&mut self, id: HoldId, expires_boot_ms: u64, handle: H) {
        let open = Open {
            expires_boot_ms,
            handle,
        };
        self.open.insert(id, open);
    }

    /// A stream's head came. Told only if there is room: it is no ending.
    pub fn opened(&mut self, id: HoldId, head_boot_ms: u64) {
        if self.open.contains_key(&id) && self.waiting.len() < self.limits.waiting {
            let ending = Ending::Opened { head_boot_ms };
            self.waiting.push_back(Receipt { id, ending });
        }
    }

    /// An exchange is over. `None`: it already was. The record is owed to the journal, but the
    /// ending holds even if it cannot be written.
    #[must_use]
    pub fn end(&mut self, id: HoldId, exchange: Exchange) -> Option<Record> {
        let open = self.open.remove(&id)?;
        let record = Record::Ended {
            id,
            expires_boot_ms: open.expires_boot_ms,
            exchange: exchange.clone(),
        };
        self.note_ended(id, open.expires_boot_ms, exchange);
        Some(record)
    }

    /// `aex-admin` asks that a ticket never be redeemed. A record handed back must be in the journal
    /// before [`Book::died`] makes the answer known.
    #[must_use]
    pub fn void(&mut self, id: HoldId, now_boot_ms: u64) -> Option<Record> {
        if self.open.contains_key(&id) || self.waiting.len() >= self.limits.waiting {
            // Its ending follows; or the question comes again.
            return None;
        }
        let ending = if let Some(ended) = self.ended.get(&id) {
            Ending::Ended(ended.exchange.clone())
        } else if self.dead.contains_key(&id) {
            Ending::Unknown
        } else if self.used.contains_key(&id) {
            return None;
        } else if self.dead.len() >= self.limits.dead {
            // It cannot be remembered as dead, so nothing is said: the question comes again.
            return None;
        } else {
            return Some(Record::Dead {
                id,
                until_boot_ms: now_boot_ms.saturating_add(DEAD_FOR_MS),
            });
        };
        self.waiting.push_back(Receipt { id, ending });
        None
    }

    /// The record of [`Book::void`] is in the journal: the ticket is dead, and may be said to be.
    pub fn died(&mut self, id: HoldId, until_boot_ms: u64) {
        self.dead.insert(id, until_boot_ms);
        let ending = Ending::Unknown;
        self.waiting.push_back(Receipt { id, ending });
    }

    /// Something can be said of this id without declaring it dead.
    #[must_use]
    pub fn knows(&self, id: HoldId) -> bool {
        self.may_redeem(id)
            .is_err_and(|why| why != NotRedeemed::Full)
    }

    /// The running exchange of an id.
    #[must_use]
    pub fn handle(&self, id: HoldId) -> Option<&H> {
        self.open.get(&id).map(|open| &open.handle)
    }

    pub fn handles(&self) -> impl Iterator<Item = &H> {
        self.open.values().map(|open| &open.handle)
    }

    #[must_use]
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    #[must_use]
    pub fn owes_receipts(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The next receipts to send, oldest first. They stay owed until [`Book::acknowledged`].
    #[must_use]
    pub fn take_batch(&mut self) -> Vec<Receipt> {
        let count = self.waiting.len().min(MAX_RECEIPTS);
        self.waiting.drain(..count).collect()
    }

    /// A batch was not acknowledged: it is owed again, before the others.
    pub fn give_back(&mut self, batch: Vec<Receipt>) {
        for receipt in batch.into_iter().rev() {
            self.waiting.push_front(receipt);
        }
    }

    /// `aex-admin` has them safe.
    pub fn acknowledged(&mut self, batch: &[Receipt], now_boot_ms: u64) {
        for receipt in batch {
            if !matches!(receipt.ending, Ending::Ended(_)) {
                continue;
            }
            if let Some(ended) = self.ended.remove(&receipt.id) {
                let settled_until = now_boot_ms.saturating_add(SETTLED_FOR_MS);
                let until = whole_seconds(ended.expires_boot_ms.max(settled_until));
                self.used.insert(receipt.id, until);
            }
        }
    }

    /// Forgets what has expired.
    pub fn sweep(&mut self, now_boot_ms: u64) {
        self.used
            .retain(|_, until_s| u64::from(*until_s) * 1000 >= now_boot_ms);
        self.dead
            .retain(|_, until_boot_ms| *until_boot_ms >= now_boot_ms);
        shrink(&mut self.used);
        shrink(&mut self.dead);
        shrink(&mut self.ended);
        shrink(&mut self.open);
        if self.waiting.capacity() > 1024 && self.waiting.len() * 4 < self.waiting.capacity() {
            self.waiting.shrink_to(self.waiting.len() * 2);
        }
    }

    /// Everything that a restart must know, as the records of a new journal.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        let open = self.open.iter().map(|(&id, open)| Record::Redeemed {
            id,
            expires_boot_ms: open.expires_boot_ms,
        });
        let ended = self.ended.iter().map(|(&id, ended)| Record::Ended {
            id,
            expires_boot_ms: ended.expires_boot_ms,
            exchange: ended.exchange.clone(),
        });
        let used = self.used.iter().map(|(&id, &until_s)| Record::Used {
            id,
            expires_boot_ms: u64::from(until_s) * 1000,
        });
        let dead = self
            .dead
            .iter()
            .map(|(&id, &until_boot_ms)| Record::Dead { id, until_boot_ms });
        used.chain(dead).chain(ended).chain(open)
    }
}

/// Rounded up; a ticket is never forgotten early.
fn whole_seconds(boot_ms: u64) -> u32 {
    u32::try_from(boot_ms.div_ceil(1000)).unwrap_or(u32::MAX)
}

/// A burst's memory is given back.
fn shrink<V>(map: &mut HashMap<HoldId, V>) {
    if map.capacity() > 1024 && map.len() * 4 < map.capacity() {
        map.shrink_to(map.len() * 2);
    }
}

#[cfg(test)]
mod tests;

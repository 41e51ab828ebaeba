//! What the writer keeps in memory: open holds, windows, and the last answers.
//!
//! All of it can be rebuilt from the ledger, and is, at a start and after a commit that failed: one
//! path for both. Times are passed in.

use std::collections::{HashMap, VecDeque};

use aex_admin_proto::HoldId;
use aex_admin_proto::egress::Ending;
use aex_admin_proto::worker::{Observed, SettleReply};

use super::Reply;
use crate::audit::CORRECTION;
use crate::core::book::{Book, Used};
use crate::core::breaker::Breakers;
use crate::core::hold::Terms;
use crate::core::reservation::{Owner, Reservation};
use crate::core::reserve::Now;
use crate::core::scope::Charged;
use crate::core::window::WINDOW_MS;
use crate::ledger::{Ended, HoldRow, Ledger, Result};

/// Answers kept for a settle that is asked again.
const RECENT: usize = 8192;

#[derive(Default)]
pub(crate) struct Memory {
    /// What counts now.
    pub book: Book,
    pub open: HashMap<HoldId, OpenHold>,
    /// Ended, and their receipt not here yet.
    pub booked: HashMap<HoldId, BookedHold>,
    /// Ended at their ceiling without their worker's figure, which may still come.
    pub late: HashMap<HoldId, LateHold>,
    /// Not of the ledger: they are as they were after a rebuild, and closed after a start.
    pub breakers: Breakers,
    recent: HashMap<HoldId, (u64, SettleReply)>,
    recent_order: VecDeque<HoldId>,
}

pub(crate) struct OpenHold {
    /// Id of its `hold.open` event, and of its row.
    pub event: i64,
    pub agent: i64,
    pub terms: Terms,
    /// As this process sealed it; none when an earlier one did.
    pub ticket: Option<String>,
    pub request: i64,
    pub course: Reservation,
    /// The worker's settle, where it must wait for the receipt.
    pub claim: Option<Claim>,
}

pub(crate) struct Claim {
    pub observed: Observed,
    pub digest: u64,
    /// Gone when the worker was told to come back later.
    pub reply: Option<Reply<SettleReply>>,
    pub since_boot_ms: u64,
}

/// How an ended hold was booked, for its receipt to be compared with.
pub(crate) struct BookedHold {
    pub agent: i64,
    pub charged: Charged,
    pub hold_pico: i64,
    pub cost_pico: i64,
    /// As the worker claimed them.
    pub status: Option<u16>,
    pub complete: bool,
    pub since_boot_ms: u64,
    pub asked_boot_ms: u64,
}

/// See [`Memory::late`].
pub(crate) struct LateHold {
    pub agent: i64,
    pub terms: Terms,
    pub cost_pico: i64,
    pub receipt: Option<Ending>,
    pub since_boot_ms: u64,
}

/// A hold as its event tells that its worker's figure may still come.
struct Unsaid {
    id: HoldId,
    /// Its `hold.open` event.
    opened: i64,
    agent: i64,
    cost_pico: i64,
    receipt: Option<Ending>,
    since_boot_ms: u64,
}

/// How long a figure may be late, and for how many holds it is waited.
const LATE_MS: u64 = 600_000;
const MAX_LATE: usize = 4096;

impl Memory {
    /// Rebuilds everything from the ledger.
    pub(crate) fn rebuild(&mut self, ledger: &Ledger, now: Now) -> Result<()> {
        self.book.clear();
        self.open.clear();
        self.booked.clear();
        self.late.clear();
        // Answers that were never given are among them when a batch is undone.
        self.recent.clear();
        self.recent_order.clear();
        for (key, from_ms, used) in ledger.counters()? {
            self.book.take_up(key, from_ms, used);
        }
        for row in ledger.holds()? {
            self.take_up(row, now);
        }
        // The wall clock may have been set back: then the last event counts as now.
        let last_ms = ledger.last_event_at_ms()?.unwrap_or(i64::MIN);
        let now_ms = now.wall_ms.max(last_ms);
        let before = |ms: u64| now_ms.saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX));
        let (mut unsaid, mut with_sums) = (Vec::new(), Vec::new());
        // Newest first: a correction comes before what it corrects.
        let mut corrected_pico: HashMap<String, i64> = HashMap::new();
        ledger.ended_since(before(WINDOW_MS), before(LATE_MS), |ended| {
            if ended.detail.starts_with(CORRECTION) {
                let sum = corrected_pico.entry(ended.hold.to_owned()).or_insert(0);
                *sum = sum.saturating_add(ended.cost_pico);
                return;
            }
            let age_ms = u64::try_from(now_ms.saturating_sub(ended.at_ms)).unwrap_or(0);
            let at_boot_ms = now.boot_ms.saturating_sub(age_ms);
            let corrected_pico = corrected_pico.remove(ended.hold);
            let counts = age_ms < WINDOW_MS;
            let corrected = corrected_pico.unwrap_or(0);
            let found = self.remember(ended, corrected, at_boot_ms, counts, &mut with_sums);
            // A late figure counts once.
            unsaid.extend(found.filter(|_| corrected_pico.is_none()));
        })?;
        for (id, opened) in with_sums {
            let terms = ledger.terms(opened)?;
            if let (Some(terms), Some(booked)) = (terms, self.booked.get_mut(&id)) {
                booked.charged = terms.charged;
            }
        }
        for hold in unsaid {
            if let Some(terms) = ledger.terms(hold.opened)? {
                let late = LateHold {
                    agent: hold.agent,
                    terms,
                    cost_pico: hold.cost_pico,
                    receipt: hold.receipt,
                    since_boot_ms: hold.since_boot_ms,
                };
                self.late.insert(hold.id, late);
            }
        }
        Ok(())
    }

    fn take_up(&mut self, found: HoldRow, now: Now) {
        let hold = OpenHold {
            event: found.row.event,
            agent: found.row.agent,
            ticket: None,
            request: found.row.request,
            course: Reservation {
                opened_boot_ms: found.row.opened_boot_ms,
                expires_boot_ms: found.row.expires_boot_ms,
                deadline_boot_ms: found.row.deadline_boot_ms,
                dispatched: false,
                owner: Owner::Nobody {
                    since_boot_ms: now.boot_ms,
                },
                severed: false,
                receipt: found.receipt,
                receipt_boot_ms: now.boot_ms,
                asked_boot_ms: 0,
                cut_boot_ms: 0,
            },
            claim: None,
            terms: found.terms,
        };
        self.book.taken_up(hold.agent, &hold.terms);
        self.open.insert(found.id, hold);
    }

    /// Counts an ended request of the last minute again, and keeps any for a receipt that may come, also
    /// for the second time: what was corrected is not corrected again. Answers it when its worker's
    /// figure may still come too.
    fn remember(
        &mut self,
        ended: &Ended<'_>,
        corrected_pico: i64,
        at_boot_ms: u64,
        counts: bool,
        with_sums: &mut Vec<(HoldId, i64)>,
    ) -> Option<Unsaid> {
        #[derive(serde::Deserialize)]
        struct Detail {
            model: String,
            #[serde(default)]
            tokens: u64,
            #[serde(default)]
            sent: bool,
            #[serde(default)]
            hold_pico: i64,
            status: Option<u16>,
            #[serde(default)]
            complete: bool,
            #[serde(default)]
            receipt: bool,
            opened: Option<i64>,
            ending: Option<Ending>,
            #[serde(default)]
            charged: Charged,
            sums_in: Option<i64>,
        }
        let detail = serde_json::from_str::<Detail>(ended.detail).ok()?;
        if counts {
            let used = Used {
                cost_pico: ended.cost_pico,
                tokens: detail.tokens,
                sent: detail.sent,
            };
            let charged = &detail.charged;
            (self.book).remember(ended.agent, charged, &detail.model, &used, at_boot_ms);
        }
        let id: HoldId = ended.hold.parse().ok()?;
        if !detail.receipt {
            let hold = BookedHold {
                agent: ended.agent,
                charged: detail.charged,
                hold_pico: detail.hold_pico,
                cost_pico: ended.cost_pico.saturating_add(corrected_pico),
                status: detail.status,
                complete: detail.complete,
                since_boot_ms: at_boot_ms,
                asked_boot_ms: 0,
            };
            self.booked.insert(id, hold);
            with_sums.extend(detail.sums_in.map(|opened| (id, opened)));
        }
        Some(Unsaid {
            id,
            opened: detail.opened?,
            agent: ended.agent,
            cost_pico: ended.cost_pico,
            receipt: detail.ending,
            since_boot_ms: at_boot_ms,
        })
    }

    /// What an ended hold cost was corrected: a figure that comes late is no news any more, and a receipt
    /// is held against the sum.
    pub(crate) fn corrected(&mut self, id: &HoldId, cost_pico: i64) {
        self.late.remove(id);
        if let Some(booked) = self.booked.get_mut(id) {
            booked.cost_pico = booked.cost_pico.saturating_add(cost_pico);
        }
    }

    /// A hold ended at its ceiling, and its worker said nothing yet.
    pub(crate) fn expect_late(
        &mut self,
        id: HoldId,
        hold: OpenHold,
        cost_pico: i64,
        now_boot_ms: u64,
    ) {
        if self.late.len() < MAX_LATE {
            let late = LateHold {
                agent: hold.agent,
                terms: hold.terms,
                cost_pico,
                receipt: hold.course.receipt,
                since_boot_ms: now_boot_ms,
            };
            self.late.insert(id, late);
        }
    }

    pub(crate) fn open_hold(&mut self, id: HoldId, hold: OpenHold) {
        self.book.opened(hold.agent, &hold.terms);
        self.open.insert(id, hold);
    }

    /// The answer to a request began: its RPM slot counts from there.
    pub(crate) fn dispatched(&mut self, id: &HoldId, at_boot_ms: u64) {
        if let Some(hold) = self.open.get_mut(id).filter(|hold| !hold.course.dispatched) {
            hold.course.dispatched = true;
            self.book.dispatched(hold.agent, &hold.terms, at_boot_ms);
        }
    }

    /// Takes an open hold out; its tokens count for a minute, and one that was sent keeps its RPM slot.
    pub(crate) fn close_hold(
        &mut self,
        id: &HoldId,
        used: &Used,
        now_boot_ms: u64,
    ) -> Option<OpenHold> {
        if used.sent {
            self.dispatched(id, now_boot_ms);
        }
        let hold = self.open.remove(id)?;
        let dispatched = hold.course.dispatched;
        (self.book).ended(hold.agent, &hold.terms, used, dispatched, now_boot_ms);
        Some(hold)
    }

    pub(crate) fn remember_answer(&mut self, id: HoldId, digest: u64, reply: SettleReply) {
        if self.recent_order.len() >= RECENT
            && let Some(oldest) = self.recent_order.pop_front()
        {
            self.recent.remove(&oldest);
        }
        self.recent.insert(id, (digest, reply));
        self.recent_order.push_back(id);
    }

    pub(crate) fn answered(&self, id: &HoldId) -> Option<&(u64, SettleReply)> {
        self.recent.get(id)
    }

    /// Forgets windows of scopes in which nothing goes on.
    pub(crate) fn sweep(&mut self, now_boot_ms: u64) {
        self.book.sweep(now_boot_ms);
        (self.late).retain(|_, late| now_boot_ms < late.since_boot_ms.saturating_add(LATE_MS));
        // A start after a busy minute takes up all of that minute; its memory is given back.
        if self.booked.capacity() > 1024 && self.booked.len() * 4 < self.booked.capacity() {
            self.booked.shrink_to(self.booked.len() * 2);
        }
    }
}

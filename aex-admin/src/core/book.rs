//! What counts now, in every scope: windows of 60 seconds and open holds ([`Live`]), and the sums of
//! calendar periods, totals and sessions ([`Counter`]). Pure: times are passed in, and what must be
//! written is asked for.

use std::collections::{HashMap, HashSet};

use aex_admin_proto::limit::{LimitKey, Quantity, Span, Subject};
use aex_admin_proto::scope::ScopeId;

use super::hold::Terms;
use super::live::Live;
use super::scope::{Charged, Meter};
use super::share::{self, Shares};

/// Whose window.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LiveKey {
    Scope(ScopeId),
    /// Of a scope's requests, those of one model or provider.
    Part(ScopeId, Subject),
    /// A model's own limits, shared by all.
    Model(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CounterKey {
    pub scope: ScopeId,
    pub sum: Sum,
}

/// Which of a scope's sums.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sum {
    pub key: LimitKey,
    /// Empty where it is not of a session.
    pub session: String,
}

/// One sum. Money in picodollars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counter {
    /// When it was first counted, in its calendar period where it has one. Periods never reopen, and what was
    /// held before its limit was set anew does not count in it.
    pub from_ms: i64,
    pub used: i64,
    pub held: i64,
}

#[derive(Debug, Default)]
pub struct Book {
    lives: HashMap<LiveKey, Live>,
    counters: HashMap<ScopeId, HashMap<Sum, Counter>>,
    /// Sessions that each scope has, by whose they are.
    sessions: HashMap<ScopeId, HashMap<String, u64>>,
    /// Sums to be written.
    changed: HashSet<CounterKey>,
    pub shares: Shares,
}

/// What marks a session as there.
fn session_key() -> LimitKey {
    LimitKey::of_all(Quantity::Sessions, Span::Session)
}

/// Whose a session is, where its scope tells them apart: the agent before the space, which no id has.
fn owner_of(session: &str) -> &str {
    session.split_once(' ').map_or("", |(owner, _)| owner)
}

fn counter_of(meter: &Meter) -> CounterKey {
    CounterKey {
        scope: meter.scope,
        sum: Sum {
            key: meter.key.clone(),
            session: meter.session.clone().unwrap_or_default(),
        },
    }
}

/// What a meter counts of a hold while it is open.
fn held_amount(key: &LimitKey, terms: &Terms) -> i64 {
    match key.what {
        Quantity::Money => terms.hold_pico,
        Quantity::Tokens => count(terms.tokens()),
        _ => 1,
    }
}

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// How a hold ended.
#[derive(Debug, Clone, Copy)]
pub struct Used {
    pub cost_pico: i64,
    pub tokens: u64,
    /// It counts among requests: the provider saw it, or was tried in vain.
    pub sent: bool,
}

impl Used {
    fn amount(&self, key: &LimitKey) -> i64 {
        match key.what {
            Quantity::Money => self.cost_pico,
            Quantity::Tokens => count(self.tokens),
            _ => i64::from(self.sent),
        }
    }
}

/// The windows in which a hold counts: each scope's own, those of parts, and the model's.
fn live_keys(agent: i64, charged: &Charged, model: &str) -> Vec<LiveKey> {
    let mut keys: Vec<LiveKey> = charged.path(agent).map(LiveKey::Scope).collect();
    keys.push(LiveKey::Model(model.to_owned()));
    for meter in charged.meters.iter().filter(|meter| meter.key.is_window()) {
        let key = LiveKey::Part(meter.scope, meter.key.subject.clone());
        // One window serves every limit of the same part.
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

impl Book {
    #[must_use]
    pub fn live(&self, key: &LiveKey) -> Option<&Live> {
        self.lives.get(key)
    }

    /// Brings windows up to now, so that what they say is exact.
    pub fn expire<'a>(&mut self, keys: impl IntoIterator<Item = &'a LiveKey>, now_boot_ms: u64) {
        for key in keys {
            if let Some(live) = self.lives.get_mut(key) {
                live.expire(now_boot_ms);
            }
        }
    }

    /// What is counted in the period that began at `from_ms`, or in a later one that was reached before.
    #[must_use]
    pub fn counter(&self, key: &CounterKey, from_ms: i64) -> Counter {
        let is_calendar = key.sum.key.span.is_calendar();
        let kept = self.find(key);
        kept.filter(|counter| counter.from_ms >= from_ms || !is_calendar)
            .copied()
            .unwrap_or(Counter {
                from_ms,
                ..Counter::default()
            })
    }

    /// When the sum was first counted in which a hold counts now: the one that is kept, unless it is of a
    /// calendar period before the one that began at `begin_ms`; else now. So a limit that is taken away and
    /// set again has another sum than before, in the same period too.
    #[must_use]
    pub fn begin(&self, key: &CounterKey, begin_ms: i64, now_ms: i64) -> i64 {
        let kept = self.find(key).map(|counter| counter.from_ms);
        let is_calendar = key.sum.key.span.is_calendar();
        let still = kept.filter(|&kept| !is_calendar || kept >= begin_ms);
        still.unwrap_or(now_ms)
    }

    fn find(&self, key: &CounterKey) -> Option<&Counter> {
        self.counters.get(&key.scope)?.get(&key.sum)
    }

    /// Every sum of a scope, for views.
    pub fn counters_of(&self, scope: ScopeId) -> impl Iterator<Item = (&Sum, &Counter)> {
        self.counters.get(&scope).into_iter().flatten()
    }

    #[must_use]
    pub fn has_session(&self, scope: ScopeId, session: &str) -> bool {
        let sum = Sum {
            key: session_key(),
            session: session.to_owned(),
        };
        self.find(&CounterKey { scope, sum }).is_some()
    }

    /// How many sessions there are of the one to whom this one belongs.
    #[must_use]
    pub fn sessions(&self, scope: ScopeId, session: &str) -> u64 {
        let of_scope = self.sessions.get(&scope);
        let count = of_scope.and_then(|sessions| sessions.get(owner_of(session)));
        count.copied().unwrap_or(0)
    }

    /// The meter that makes a session known.
    #[must_use]
    pub fn session_meter(scope: ScopeId, session: String) -> Meter {
        Meter {
            scope,
            key: session_key(),
            from_ms: 0,
            session: Some(session),
        }
    }

    pub fn opened(&mut self, agent: i64, terms: &Terms) {
        for meter in &terms.charged.meters {
            if meter.key.is_counter() {
                self.begin_sum(counter_of(meter), meter.from_ms);
            }
        }
        self.taken_up(agent, terms);
    }

    /// A hold that was open before. Sums that have no row were forgotten since it was granted.
    pub fn taken_up(&mut self, agent: i64, terms: &Terms) {
        let tenant = share::tenant(agent, &terms.charged);
        self.shares.opened(&terms.provider, tenant);
        for key in live_keys(agent, &terms.charged, &terms.model) {
            self.lives.entry(key).or_default().opened(terms.tokens());
        }
        for meter in &terms.charged.meters {
            let key = counter_of(meter);
            let sums = self.counters.get_mut(&key.scope);
            let counter = sums.and_then(|sums| sums.get_mut(&key.sum));
            if let Some(counter) = counter.filter(|counter| counter.from_ms == meter.from_ms) {
                let amount = held_amount(&meter.key, terms);
                counter.held = counter.held.saturating_add(amount);
            }
        }
    }

    /// The sum of a period is there; begun anew when a later one is named.
    fn begin_sum(&mut self, key: CounterKey, from_ms: i64) {
        let new = Counter {
            from_ms,
            ..Counter::default()
        };
        let sums = self.counters.entry(key.scope).or_default();
        match sums.get_mut(&key.sum) {
            Some(counter) if counter.from_ms >= from_ms => return,
            Some(counter) => *counter = new,
            None => {
                if key.sum.key == session_key() {
                    let sessions = self.sessions.entry(key.scope).or_default();
                    *sessions
                        .entry(owner_of(&key.sum.session).to_owned())
                        .or_insert(0) += 1;
                }
                sums.insert(key.sum.clone(), new);
            }
        }
        // Written at once: what has a row was not forgotten.
        self.changed.insert(key);
    }

    /// The provider's answer began.
    pub fn dispatched(&mut self, agent: i64, terms: &Terms, at_boot_ms: u64) {
        for key in live_keys(agent, &terms.charged, &terms.model) {
            if let Some(live) = self.lives.get_mut(&key) {
                live.dispatched(at_boot_ms);
            }
        }
    }

    /// A hold ended. `dispatched`: it was known to be.
    pub fn ended(
        &mut self,
        agent: i64,
        terms: &Terms,
        used: &Used,
        dispatched: bool,
        now_boot_ms: u64,
    ) {
        let tenant = share::tenant(agent, &terms.charged);
        self.shares.ended(&terms.provider, tenant);
        for key in live_keys(agent, &terms.charged, &terms.model) {
            if let Some(live) = self.lives.get_mut(&key) {
                if !dispatched {
                    live.never_sent();
                }
                live.ended(terms.tokens(), used.tokens, now_boot_ms);
            }
        }
        for meter in terms
            .charged
            .meters
            .iter()
            .filter(|meter| meter.key.is_counter())
        {
            self.change(meter, |counter| {
                let held = held_amount(&meter.key, terms);
                counter.held = counter.held.saturating_sub(held).max(0);
                counter.used = counter.used.saturating_add(used.amount(&meter.key));
            });
        }
    }

    /// An ended request of the last minute, as its event tells it.
    pub fn remember(
        &mut self,
        agent: i64,
        charged: &Charged,
        model: &str,
        used: &Used,
        at_boot_ms: u64,
    ) {
        for key in live_keys(agent, charged, model) {
            let live = self.lives.entry(key).or_default();
            live.tokens.add(at_boot_ms, used.tokens);
            if used.sent {
                live.requests.add(at_boot_ms, 1);
            }
        }
    }

    /// The cost of an ended hold was corrected: signed.
    pub fn corrected(&mut self, charged: &Charged, cost_pico: i64) {
        let money = |meter: &&Meter| meter.key.what == Quantity::Money;
        for meter in charged.meters.iter().filter(money) {
            self.change(meter, |counter| {
                counter.used = counter.used.saturating_add(cost_pico);
            });
        }
    }

    /// Changes the sum of a meter; nothing where its period is over, or its limit was taken away since.
    fn change(&mut self, meter: &Meter, change: impl FnOnce(&mut Counter)) {
        let key = counter_of(meter);
        let sums = self.counters.get_mut(&key.scope);
        let counter = sums.and_then(|sums| sums.get_mut(&key.sum));
        if let Some(counter) = counter.filter(|counter| counter.from_ms == meter.from_ms) {
            change(counter);
            self.changed.insert(key);
        }
    }

    /// A sum as it was written.
    pub fn take_up(&mut self, key: CounterKey, from_ms: i64, used: i64) {
        if key.sum.key == session_key() {
            let sessions = self.sessions.entry(key.scope).or_default();
            *sessions
                .entry(owner_of(&key.sum.session).to_owned())
                .or_insert(0) += 1;
        }
        let counter = Counter {
            from_ms,
            used,
            held: 0,
        };
        self.counters
            .entry(key.scope)
            .or_default()
            .insert(key.sum, counter);
    }

    /// Forgets a sum whose limit is gone.
    pub fn forget(&mut self, scope: ScopeId, limit: &LimitKey) {
        if let Some(sums) = self.counters.get_mut(&scope) {
            sums.retain(|sum, _| sum.key != *limit);
        }
        self.changed
            .retain(|key| key.scope != scope || key.sum.key != *limit);
    }

    /// Forgets all sums of a scope that has ended.
    pub fn forget_scope(&mut self, scope: ScopeId) {
        self.counters.remove(&scope);
        self.sessions.remove(&scope);
        self.changed.retain(|key| key.scope != scope);
    }

    /// The sums that changed since this was asked last.
    pub fn take_changed(&mut self) -> Vec<(CounterKey, Counter)> {
        let changed = std::mem::take(&mut self.changed);
        let of = |key: CounterKey| {
            let counter = *self.find(&key)?;
            Some((key, counter))
        };
        changed.into_iter().filter_map(of).collect()
    }

    #[cfg(test)]
    pub(crate) fn set_live(&mut self, key: LiveKey, live: Live) {
        self.lives.insert(key, live);
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Forgets windows in which nothing goes on.
    pub fn sweep(&mut self, now_boot_ms: u64) {
        self.lives.retain(|_, live| {
            live.expire(now_boot_ms);
            !live.is_idle()
        });
    }

    /// Whether any window has something in it.
    #[must_use]
    pub fn has_lives(&self) -> bool {
        !self.lives.is_empty()
    }
}

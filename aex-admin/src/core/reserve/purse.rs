//! What a request draws from: a scope's budget, its sums over a period, a session or all time, and the
//! share of its parent's that one child may hold. Every purse must have what is needed, or none gives.

use aex_admin_proto::Refusal;
use aex_admin_proto::explain::{Figures, Look, Verdict};
use aex_admin_proto::limit::{LimitKey, Mode, Quantity, Span, Subject};
use aex_admin_proto::scope::ScopeKind;

use super::told::look;
use super::{Ask, Caller, Queue, Sight, Stop, Told};
use crate::core::book::{Book, CounterKey, Sum};
use crate::core::money::{ceil_micro, floor_micro};
use crate::core::period;
use crate::core::price::PICO_PER_MICRO;
use crate::core::scope::{Bound, Meter, Scope};

/// Amounts are picodollars for money, else counts.
struct Purse<'a> {
    /// Place in the path.
    at: usize,
    scope: &'a Scope,
    what: Quantity,
    /// What is left when every hold is freed; negative after an overrun or a cut.
    unspent: i128,
    held: i128,
    from: Source<'a>,
    /// The sum that it is.
    meter: Option<Meter>,
}

enum Source<'a> {
    /// The budget in all.
    Budget,
    Limit {
        bound: Bound<'a>,
        resets_at_ms: Option<i64>,
    },
    /// The share of what the scope above has left that this one may hold beside another hold.
    Share { of: &'a Scope },
}

pub(super) struct Purses<'a> {
    purses: Vec<Purse<'a>>,
}

/// The calendar period of a limit: when it began (0 for none), and when the next one does.
fn period_of(sight: Sight<'_>, at: usize, span: Span) -> (i64, Option<i64>) {
    if !span.is_calendar() {
        return (0, None);
    }
    let zone = sight.caller.zone(at, sight.defaults);
    // A time beyond the calendar has one period, without end.
    period::around(span, &zone, sight.now.wall_ms)
        .map_or((0, None), |(begin, end)| (begin, Some(end)))
}

fn counter_key(sight: Sight<'_>, scope: &Scope, bound: &Bound<'_>) -> CounterKey {
    let by_session = bound.span == Span::Session;
    CounterKey {
        scope: scope.id,
        sum: Sum {
            key: bound.key(),
            session: if by_session {
                sight.session_in(scope)
            } else {
                String::new()
            },
        },
    }
}

impl<'a> Purses<'a> {
    /// Where a hold of this request counts, beyond each scope's own windows and budget.
    pub(super) fn meters(self, sight: Sight<'_>) -> Vec<Meter> {
        let sums = self.purses.into_iter().filter_map(|purse| purse.meter);
        let mut meters: Vec<Meter> = sums.collect();
        for (_, scope, bound) in sight.bounds() {
            let key = bound.key();
            if key.is_window() && key.subject != Subject::All {
                meters.push(Meter {
                    scope: scope.id,
                    key,
                    from_ms: 0,
                    session: None,
                });
            }
        }
        for (_, scope) in sight.caller.scopes() {
            if scope.max_sessions().is_some() {
                meters.push(Book::session_meter(scope.id, sight.session_in(scope)));
            }
        }
        meters
    }
}

impl<'a> Purses<'a> {
    pub(super) fn of(sight: Sight<'a>) -> Self {
        let mut purses = Vec::new();
        for (at, scope) in sight.caller.scopes() {
            if let Some(unspent) = scope.balance.unspent_pico() {
                purses.push(Purse {
                    at,
                    scope,
                    what: Quantity::Money,
                    unspent,
                    held: i128::from(scope.balance.held_pico),
                    from: Source::Budget,
                    meter: None,
                });
            }
        }
        for (at, scope, bound) in sight.bounds() {
            if bound.key().is_counter() {
                purses.push(Purse::of_limit(sight, at, scope, bound));
            }
        }
        // First: who has its share waits at its own scope, and in nobody's way.
        let shares = purses.iter().filter_map(|purse| purse.share(sight));
        let mut all: Vec<Purse<'a>> = shares.collect();
        all.append(&mut purses);
        Self { purses: all }
    }

    /// What is not there even when every hold is freed. A scope whose budget is all spent is cut off
    /// whole, from free models too.
    pub(super) fn check_unspent(
        &self,
        ask: &Ask<'_>,
        caller: &Caller,
        told: &Told<'_>,
    ) -> Result<(), Stop> {
        for purse in self.enforced() {
            let needed = purse.needed(ask, ask.caps.least);
            let cut_off = matches!(purse.from, Source::Budget) && purse.unspent <= 0;
            if matches!(purse.from, Source::Share { .. }) {
                continue;
            }
            if !cut_off && needed <= purse.unspent {
                told.note(|| purse.look(needed, Verdict::Passes));
                continue;
            }
            told.note(|| purse.look(needed, Verdict::Refuses));
            let output_alone = Ask {
                input_tokens: 0,
                ..*ask
            };
            let refusal = caller.by(purse.at, purse.spent(ask, needed));
            let hopeless = cut_off || purse.needed(&output_alone, ask.caps.least) > purse.unspent;
            return Err(if hopeless {
                Stop::Refuse(refusal)
            } else {
                Stop::TooLong(refusal)
            });
        }
        Ok(())
    }

    /// The output cap and the hold, or for whom it must wait. That the least fits once holds are freed is
    /// settled before.
    pub(super) fn fit(
        &self,
        sight: Sight<'_>,
        ask: &Ask<'_>,
        told: &mut Told<'_>,
    ) -> Result<(u64, i64), Stop> {
        let mut cap = ask.caps.most;
        for purse in self.enforced() {
            cap = cap.min(purse.cap(sight, ask, told)?);
        }
        for purse in self.enforced() {
            let needed = purse.needed(ask, cap);
            let short = needed > purse.free() || sight.around.queue_ahead(purse.queue(sight));
            if needed > 0 && short {
                return Err(purse.wait(sight, needed, told));
            }
        }
        for purse in self.purses.iter().filter(|purse| !purse.is_enforced()) {
            if let Source::Limit { bound, .. } = &purse.from {
                let needed = purse.needed(ask, cap);
                let fits = needed <= purse.free();
                told.stops(purse.scope, bound, fits, || purse.figures(needed));
            }
        }
        Ok((cap, ask.hold_pico(cap)))
    }

    fn enforced(&self) -> impl Iterator<Item = &Purse<'a>> {
        self.purses.iter().filter(|purse| purse.is_enforced())
    }
}

impl<'a> Purse<'a> {
    fn of_limit(sight: Sight<'a>, at: usize, scope: &'a Scope, bound: Bound<'a>) -> Self {
        let (begin, end) = period_of(sight, at, bound.span);
        let key = counter_key(sight, scope, &bound);
        let book = sight.around.book;
        let counter = book.counter(&key, begin);
        let from_ms = book.begin(&key, begin, sight.now.wall_ms);
        let by_session = bound.span == Span::Session;
        let meter = Meter {
            scope: scope.id,
            from_ms,
            session: by_session.then(|| key.sum.session.clone()),
            key: key.sum.key,
        };
        let unit = if bound.what == Quantity::Money {
            i128::from(PICO_PER_MICRO)
        } else {
            1
        };
        Self {
            at,
            scope,
            what: bound.what,
            unspent: i128::from(bound.most) * unit - i128::from(counter.used),
            held: i128::from(counter.held),
            from: Source::Limit {
                bound,
                resets_at_ms: end,
            },
            meter: Some(meter),
        }
    }

    /// The purse of the child, where this one's scope limits what a child may hold. A child that holds
    /// nothing may have what there is: a share makes no request impossible.
    fn share(&self, sight: Sight<'a>) -> Option<Self> {
        let percent = self.scope.grant.settings.max_held_percent?;
        let at = self.at.checked_sub(1)?;
        let child: &'a Scope = sight.caller.path.get(at)?;
        let of_all = match &self.from {
            Source::Budget => true,
            Source::Limit { bound, .. } => {
                *bound.subject == Subject::All && bound.mode == Mode::Enforce
            }
            Source::Share { .. } => false,
        };
        let held = i128::from(child.balance.held_pico);
        (of_all && self.what == Quantity::Money && held > 0).then(|| Purse {
            at,
            scope: child,
            what: Quantity::Money,
            unspent: self.unspent.max(0) * i128::from(percent) / 100,
            held,
            from: Source::Share { of: self.scope },
            meter: None,
        })
    }

    fn is_enforced(&self) -> bool {
        match &self.from {
            Source::Limit { bound, .. } => bound.mode == Mode::Enforce,
            _ => true,
        }
    }

    fn free(&self) -> i128 {
        self.unspent - self.held
    }

    fn needed(&self, ask: &Ask<'_>, cap: u64) -> i128 {
        match self.what {
            Quantity::Money => i128::from(ask.hold_pico(cap)),
            Quantity::Tokens => i128::from(ask.tokens(cap)),
            _ => 1,
        }
    }

    /// Largest output cap that `amount` pays for.
    fn affordable(&self, ask: &Ask<'_>, amount: i128) -> u64 {
        match self.what {
            Quantity::Money => ask.affordable(amount),
            Quantity::Tokens => {
                let left = amount - i128::from(ask.input_tokens);
                u64::try_from(left / i128::from(ask.choices().max(1))).unwrap_or(0)
            }
            _ => u64::MAX,
        }
    }

    /// The cap that this purse gives: the even share of what is free among those in flight.
    fn cap(&self, sight: Sight<'_>, ask: &Ask<'_>, told: &Told<'_>) -> Result<u64, Stop> {
        let caps = ask.caps;
        let least = self.needed(ask, caps.least);
        if caps.least == caps.most || least == 0 {
            return Ok(caps.most);
        }
        let in_flight = i128::from(sight.around.in_flight(self.scope.id));
        let share = self.affordable(ask, self.free() / in_flight).min(caps.most);
        if share >= caps.least {
            Ok(share)
        } else if self.held == 0 {
            // Nothing will come free: the least is all that this gives.
            Ok(caps.least)
        } else {
            Err(self.wait(sight, least, told))
        }
    }

    fn name(&self) -> String {
        match self.scope.kind {
            ScopeKind::Run => "run".to_owned(),
            _ => self.scope.name.clone(),
        }
    }

    fn limit(&self) -> Option<LimitKey> {
        match &self.from {
            Source::Limit { bound, .. } => Some(bound.key()),
            _ => None,
        }
    }

    /// Micro-dollars, rounded against the one who asks, or a count.
    fn shown(&self, amount: i128, round_up: bool) -> i64 {
        match (self.what, round_up) {
            (Quantity::Money, true) => ceil_micro(amount),
            (Quantity::Money, false) => floor_micro(amount),
            _ => i64::try_from(amount).unwrap_or(i64::MAX),
        }
    }

    fn spent(&self, ask: &Ask<'_>, needed: i128) -> Refusal {
        let needed_shown = self.shown(needed, true);
        let remaining = self.shown(self.unspent, false).max(0);
        match (&self.from, self.limit()) {
            (Source::Limit { resets_at_ms, .. }, Some(limit)) => Refusal::LimitSpent {
                scope: self.name(),
                limit: limit.to_string(),
                needed: needed_shown,
                remaining,
                resets_at_ms: *resets_at_ms,
            },
            _ => Refusal::InsufficientBudget {
                scope: self.name(),
                needed_micro: needed_shown,
                remaining_micro: remaining,
                affordable_output_tokens: if self.unspent > 0 {
                    ask.affordable(self.unspent)
                } else {
                    0
                },
            },
        }
    }

    /// As an operator sees it.
    fn look(&self, needed: i128, verdict: Verdict) -> Look {
        let rule = match (&self.from, self.limit()) {
            (Source::Share { of }, _) => format!("max_held of {} {}", of.kind.name(), of.name),
            (_, Some(limit)) => limit.to_string(),
            (_, None) => "budget".to_owned(),
        };
        Look {
            rule,
            figures: Some(self.figures(needed)),
            ..look(Some(self.scope), verdict)
        }
    }

    fn figures(&self, needed: i128) -> Figures {
        let left = self.shown(self.unspent, false);
        let most = match &self.from {
            Source::Budget => self.scope.balance.budget_micro,
            Source::Limit { bound, .. } => i64::try_from(bound.most).ok(),
            Source::Share { .. } => None,
        };
        let most = most.unwrap_or(left);
        Figures {
            used: Some(most.saturating_sub(left)),
            held: Some(self.shown(self.held, true)),
            resets_at_ms: match &self.from {
                Source::Limit { resets_at_ms, .. } => *resets_at_ms,
                _ => None,
            },
            ..Figures::new(self.what, self.shown(needed, true), most)
        }
    }

    fn wait(&self, sight: Sight<'_>, needed: i128, told: &Told<'_>) -> Stop {
        told.note(|| Look {
            why: (needed <= self.free())
                .then(|| "what is free is for requests that came before".to_owned()),
            ..self.look(needed, Verdict::Waits)
        });
        let needed = self.shown(needed, true);
        let free = self.shown(self.free(), false).max(0);
        let held = self.shown(self.held, true);
        let refusal = match self.limit() {
            Some(limit) => Refusal::LimitHeld {
                scope: self.name(),
                limit: limit.to_string(),
                needed,
                free,
                held,
            },
            None => Refusal::BudgetHeld {
                scope: self.name(),
                needed_micro: needed,
                free_micro: free,
                held_micro: held,
            },
        };
        // A share is made of what the scope above has, which is not the token's to know.
        let whose = match self.from {
            Source::Share { .. } => self.at + 1,
            _ => self.at,
        };
        Stop::Wait(sight.caller.by(whose, refusal), self.queue(sight))
    }

    fn queue(&self, sight: Sight<'_>) -> Queue {
        let own = sight.caller.path.first();
        Queue {
            scope: self.scope.id,
            own: own.map_or(self.scope.id, |own| own.id),
        }
    }
}

//! The stage: what counts while recorded requests are played, which of them are open, and which wait.

use std::collections::{HashMap, VecDeque};

use aex_admin_proto::explain::Look;
use aex_admin_proto::rehearsal::Rehearsal;
use aex_admin_proto::{HoldId, Refusal};
use rusqlite::Connection;
use serde::Deserialize;

use super::fate::{Fate, Replayed, decide_again};
use super::proposal::Proposal;
use super::recent::Recent;
use super::report::{Counts, Report, Trials};
use super::scopes::Scopes;
use crate::audit::CORRECTION;
use crate::config::Config;
use crate::core::book::{Book, Used};
use crate::core::hold::Terms;
use crate::core::reserve::Now;
use crate::core::scope::{Charged, Scope};
use crate::core::window::WINDOW_MS;
use crate::ledger::{Event, LedgerError};
use crate::policy::{Denial, Judged};

/// Of those that wait, how many are looked at when something comes free.
const MOST_WOKEN: usize = 64;
/// How often what has left the windows is forgotten, in events.
const SWEEP_EVENTS: u64 = 10_000;

pub(super) struct Stage<'a> {
    config: &'a Config,
    proposal: &'a Proposal,
    scopes: Scopes<'a>,
    book: Book,
    open: HashMap<HoldId, Open>,
    /// In order of arrival, with the time at which they are refused.
    waiting: VecDeque<(u64, HoldId)>,
    /// In order of arrival: open holds that count in a rate as not sent yet.
    unsent: VecDeque<(u64, HoldId)>,
    /// For corrections of their cost.
    ended: Recent<Ended>,
    /// Requests that are refused, by their first hold: for further attempts.
    refused: Recent<Counts>,
    report: Report,
    events: u64,
    now: Now,
}

/// A request that has not ended yet.
enum Open {
    Served(Box<Served>),
    /// It waits for what is held.
    Waits(Box<Later>),
    /// What its prompt comes to is known when it ends.
    Uncounted(Box<Later>),
    Refused(Counts),
}

struct Served {
    agent: i64,
    /// Those that it would have got.
    terms: Terms,
    /// When it was granted.
    since_boot_ms: u64,
    counts: Counts,
    trials: Trials,
}

/// A request whose fate is not known yet, as it was recorded.
struct Later {
    terms: Terms,
    agent: i64,
    name: String,
    hold: String,
    /// Why it is refused when nothing comes free.
    why: Option<(Look, Refusal)>,
}

struct Ended {
    counts: Counts,
    /// Where a correction of its cost counts.
    charged: Option<Box<Charged>>,
}

/// Of an event that ends a hold.
#[derive(Deserialize)]
struct EndDetail {
    #[serde(default)]
    tokens: u64,
    #[serde(default)]
    sent: bool,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Usage {
    prompt: u64,
}

/// Of an event about refusals.
#[derive(Deserialize)]
struct RefusedDetail {
    count: u64,
}

impl<'a> Stage<'a> {
    pub(super) fn new(config: &'a Config, proposal: &'a Proposal, scopes: Vec<Scope>) -> Self {
        Self {
            config,
            proposal,
            scopes: Scopes::new(proposal, scopes),
            book: Book::default(),
            open: HashMap::new(),
            waiting: VecDeque::new(),
            unsent: VecDeque::new(),
            ended: Recent::default(),
            refused: Recent::default(),
            report: Report::default(),
            events: 0,
            now: Now {
                boot_ms: 0,
                wall_ms: 0,
            },
        }
    }

    /// Plays one event.
    pub(super) fn event(
        &mut self,
        conn: &Connection,
        event: &Event<'_>,
    ) -> Result<(), LedgerError> {
        self.report.until_ms = event.at_ms;
        self.now = Now {
            // The wall clock may have been set back; windows go on.
            boot_ms: self
                .now
                .boot_ms
                .max(u64::try_from(event.at_ms).unwrap_or(0)),
            wall_ms: event.at_ms,
        };
        self.events += 1;
        if self.events.is_multiple_of(SWEEP_EVENTS) {
            self.book.sweep(self.now.boot_ms);
            self.book.take_changed();
        }
        self.give_up_waiting();
        self.let_windows_pass();
        match event.action {
            "hold.open" => self.opened(conn, event)?,
            "usage.commit" | "hold.release" => self.ended(conn, event)?,
            "request.refused" => {
                let refused = serde_json::from_str::<RefusedDetail>(event.detail);
                self.report.refused_then += refused.map_or(0, |refused| refused.count);
            }
            _ => {}
        }
        Ok(())
    }

    fn opened(&mut self, conn: &Connection, event: &Event<'_>) -> Result<(), LedgerError> {
        let (name, hold) = (
            event.agent.unwrap_or_default(),
            event.hold.unwrap_or_default(),
        );
        let terms = serde_json::from_str::<Terms>(event.detail);
        let (Ok(id), Ok(terms), Some(agent)) =
            (hold.parse::<HoldId>(), terms, self.scopes.agent(name))
        else {
            self.report.unreadable += 1;
            return Ok(());
        };
        match &terms.attempt {
            // A request that is refused is tried nowhere else.
            Some(attempt) => {
                if let Some(&counts) = self.refused.get(&attempt.first) {
                    self.open.insert(id, Open::Refused(counts));
                    return Ok(());
                }
            }
            None => {
                self.report.requests.requests += 1;
                self.report.tools_unrecorded += u64::from(terms.names_left_out > 0);
            }
        }
        let later = Later {
            terms,
            agent,
            name: name.to_owned(),
            hold: hold.to_owned(),
            why: None,
        };
        let open = match self.decide(conn, &later, None)? {
            Fate::Served(new, judged) => self.serve(id, &later, *new, &judged, Counts::default()),
            Fate::Refused(look, refusal) => Open::Refused(self.refuse(&later, &look, &refusal)),
            Fate::Waits(look, refusal) => {
                let deadline = self.now.boot_ms.saturating_add(self.config.hold_wait_ms);
                self.waiting.push_back((deadline, id));
                let why = Some((look, refusal));
                Open::Waits(Box::new(Later { why, ..later }))
            }
            Fate::Uncounted => Open::Uncounted(Box::new(later)),
        };
        self.open.insert(id, open);
        Ok(())
    }

    fn ended(&mut self, conn: &Connection, event: &Event<'_>) -> Result<(), LedgerError> {
        let Some(Ok(id)) = event.hold.map(str::parse::<HoldId>) else {
            return Ok(());
        };
        if event.detail.starts_with(CORRECTION) {
            self.corrected(id, event.cost_pico);
            return Ok(());
        }
        // It was granted before.
        let Some(open) = self.open.remove(&id) else {
            return Ok(());
        };
        // What cannot be read is the audit's to tell.
        let detail = serde_json::from_str::<EndDetail>(event.detail).unwrap_or(EndDetail {
            tokens: 0,
            sent: event.action == "usage.commit",
            usage: None,
        });
        let open = match open {
            Open::Waits(later) | Open::Uncounted(later) => {
                self.at_its_end(conn, id, &later, &detail)?
            }
            open => open,
        };
        let (counts, charged) = match open {
            Open::Served(served) => {
                let used = Used {
                    cost_pico: event.cost_pico,
                    tokens: detail.tokens,
                    sent: detail.sent,
                };
                self.end(&served, &used);
                self.report.trials_cost(&served.trials, event.cost_pico);
                let charged = served.terms.charged;
                (served.counts, charged.has_sums().then(|| Box::new(charged)))
            }
            Open::Refused(counts) => (counts, None),
            Open::Waits(_) | Open::Uncounted(_) => (Counts::default(), None),
        };
        self.report.cost(counts, event.cost_pico);
        self.ended.put(id, Ended { counts, charged });
        self.wake(conn)
    }

    /// A request that still waits, or whose prompt was not counted, when it ends: now it is known.
    fn at_its_end(
        &mut self,
        conn: &Connection,
        id: HoldId,
        later: &Later,
        detail: &EndDetail,
    ) -> Result<Open, LedgerError> {
        let bound = later.terms.input_tokens;
        let prompt = detail.usage.as_ref().map(|usage| usage.prompt.min(bound));
        let prompt = prompt.unwrap_or(bound);
        Ok(match self.decide(conn, later, Some(prompt))? {
            Fate::Served(new, judged) => {
                let waited = later.why.is_some();
                self.serve(id, later, *new, &judged, Counts::waited(waited))
            }
            Fate::Refused(look, refusal) | Fate::Waits(look, refusal) => {
                Open::Refused(self.refuse(later, &look, &refusal))
            }
            // It was counted.
            Fate::Uncounted => Open::Refused(Counts::default()),
        })
    }

    /// Something came free.
    fn wake(&mut self, conn: &Connection) -> Result<(), LedgerError> {
        let mut left = VecDeque::new();
        for _ in 0..MOST_WOKEN {
            let Some((deadline, id)) = self.waiting.pop_front() else {
                break;
            };
            match self.open.remove(&id) {
                Some(Open::Waits(later)) => match self.decide(conn, &later, None)? {
                    Fate::Served(new, judged) => {
                        let open = self.serve(id, &later, *new, &judged, Counts::waited(true));
                        self.open.insert(id, open);
                    }
                    Fate::Refused(look, refusal) => {
                        let counts = self.refuse(&later, &look, &refusal);
                        self.open.insert(id, Open::Refused(counts));
                    }
                    Fate::Waits(..) | Fate::Uncounted => {
                        self.open.insert(id, Open::Waits(later));
                        left.push_back((deadline, id));
                    }
                },
                Some(open) => {
                    self.open.insert(id, open);
                }
                None => {}
            }
        }
        while let Some(waits) = left.pop_back() {
            self.waiting.push_front(waits);
        }
        Ok(())
    }

    /// Those that have waited `hold_wait` are refused.
    fn give_up_waiting(&mut self) {
        while let Some(&(deadline, id)) = self.waiting.front() {
            if deadline > self.now.boot_ms {
                return;
            }
            self.waiting.pop_front();
            let Some(Open::Waits(mut later)) = self.open.remove(&id) else {
                continue;
            };
            if let Some((look, refusal)) = later.why.take() {
                let counts = self.refuse(&later, &look, &refusal);
                self.open.insert(id, Open::Refused(counts));
            }
        }
    }

    /// What was granted 60 seconds ago is in no window of requests any more, sent or not.
    fn let_windows_pass(&mut self) {
        while let Some(&(since, id)) = self.unsent.front() {
            if since.saturating_add(WINDOW_MS) > self.now.boot_ms {
                return;
            }
            self.unsent.pop_front();
            if let Some(Open::Served(served)) = self.open.get(&id) {
                self.book.dispatched(served.agent, &served.terms, since);
            }
        }
    }

    fn serve(
        &mut self,
        id: HoldId,
        later: &Later,
        terms: Terms,
        judged: &Judged,
        counts: Counts,
    ) -> Open {
        self.report.waited.requests += u64::from(counts.waited);
        let mut trials = Trials::default();
        // A further attempt is the same request.
        if later.terms.attempt.is_none() {
            let policy = |denial: &Denial| format!("policy {}", denial.policy);
            let warned = terms.warned.iter().cloned();
            for rule in warned.chain(judged.warned.iter().map(policy)) {
                self.report
                    .on_trial(&mut trials, &later.name, &rule, "warn");
            }
            let shadowed = terms.shadowed.iter().cloned();
            for rule in shadowed.chain(judged.shadowed.iter().map(policy)) {
                self.report
                    .on_trial(&mut trials, &later.name, &rule, "shadow");
            }
        }
        self.scopes.hold(later.agent, &terms, terms.hold_pico);
        self.book.opened(later.agent, &terms);
        self.unsent.push_back((self.now.boot_ms, id));
        Open::Served(Box::new(Served {
            agent: later.agent,
            terms,
            since_boot_ms: self.now.boot_ms,
            counts,
            trials,
        }))
    }

    fn refuse(&mut self, later: &Later, look: &Look, refusal: &Refusal) -> Counts {
        let at_ms = self.now.wall_ms;
        let counts = (self.report).refuse(&later.name, look, refusal, at_ms, &later.hold);
        let attempt = later.terms.attempt.map(|attempt| attempt.first);
        let first = attempt.or_else(|| later.hold.parse().ok());
        if let Some(first) = first {
            self.refused.put(first, counts);
        }
        counts
    }

    fn end(&mut self, served: &Served, used: &Used) {
        let (agent, terms) = (served.agent, &served.terms);
        let passed = served.since_boot_ms.saturating_add(WINDOW_MS) <= self.now.boot_ms;
        if used.sent && !passed {
            self.book.dispatched(agent, terms, served.since_boot_ms);
        }
        let dispatched = used.sent || passed;
        self.book
            .ended(agent, terms, used, dispatched, self.now.boot_ms);
        self.scopes.hold(agent, terms, -terms.hold_pico);
    }

    fn corrected(&mut self, id: HoldId, cost_pico: i64) {
        if let Some(ended) = self.ended.get(&id) {
            self.report.cost(ended.counts, cost_pico);
            if let Some(charged) = &ended.charged {
                self.book.corrected(charged, cost_pico);
            }
        }
    }

    fn decide(
        &mut self,
        conn: &Connection,
        later: &Later,
        prompt_tokens: Option<u64>,
    ) -> Result<Fate, LedgerError> {
        let replayed = Replayed {
            recorded: &later.terms,
            path: self.scopes.path(conn, &later.terms, later.agent)?,
            prompt_tokens,
            now: self.now,
        };
        Ok(decide_again(
            self.config,
            self.proposal,
            &mut self.book,
            replayed,
        ))
    }

    /// What there is to tell once every event was played.
    pub(super) fn told(self, since_ms: i64) -> Rehearsal {
        let undecided = |open: &&Open| matches!(open, Open::Waits(_) | Open::Uncounted(_));
        let undecided = self.open.values().filter(undecided).count() as u64;
        let (refusals, on_trial) = self.report.lines();
        let report = self.report;
        Rehearsal {
            since_ms,
            until_ms: report.until_ms.max(since_ms),
            policies: self.proposal.policies.len() as u64,
            scopes: self.proposal.scopes.len() as u64,
            warnings: self.proposal.warnings.clone(),
            requests: report.requests.tally(),
            refused: report.refused.tally(),
            waited: report.waited.tally(),
            undecided,
            refusals,
            on_trial,
            lines_left_out: report.left_out,
            refused_then: report.refused_then,
            tools_unrecorded: report.tools_unrecorded,
            unreadable: report.unreadable,
        }
    }
}

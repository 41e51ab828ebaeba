//! The stage: scopes that have what is proposed and nothing else, what counts in them, and the recorded
//! requests that are played on it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use aex_admin_proto::HoldId;
use aex_admin_proto::Refusal;
use aex_admin_proto::egress::KeyPolicy;
use aex_admin_proto::explain::{Look, Verdict};
use aex_admin_proto::operator::Settings;
use aex_admin_proto::rehearsal::Rehearsal;
use aex_admin_proto::scope::{ScopeId, ScopeKind};
use aex_admin_proto::worker::Facts;
use rusqlite::Connection;
use serde::Deserialize;

use super::proposal::Proposal;
use super::report::{Counts, Report};
use crate::audit::CORRECTION;
use crate::config::Config;
use crate::core::book::{Book, Used};
use crate::core::hold::Terms;
use crate::core::money::Balance;
use crate::core::recall::{AS_RECORDED, facts_of};
use crate::core::reserve::{
    Around, Asked, Caller, Defaults, ModelFacts, Now, Question, Stop, Trail, decide,
};
use crate::core::scope::{DefaultLimits, Recorded, Scope};
use crate::ledger::{Event, LedgerError, reader};
use crate::policy::{Denial, Judged, ToJudge};

/// Ended requests that are still known: for corrections of their cost, and for further attempts.
const MOST_ENDED: usize = 100_000;
/// Runs that are kept while nothing of theirs is open.
const MOST_RUNS: usize = 4096;
/// How often what has left the windows is forgotten, in events.
const SWEEP_EVENTS: u64 = 10_000;

pub(super) struct Stage<'a> {
    config: &'a Config,
    proposal: &'a Proposal,
    scopes: HashMap<ScopeId, Arc<Scope>>,
    agents: HashMap<String, i64>,
    book: Book,
    open: HashMap<HoldId, Open>,
    ended: HashMap<HoldId, Counts>,
    ended_order: VecDeque<HoldId>,
    report: Report,
    events: u64,
    boot_ms: u64,
}

/// A request that has not ended yet.
enum Open {
    /// With the terms that it would have got.
    Served(Played, Counts),
    /// As it was recorded: it waits for what is held.
    Waits(Box<Terms>, i64),
    Refused(Counts),
}

struct Played {
    agent: i64,
    terms: Box<Terms>,
}

/// What the proposal says of a request.
enum Fate {
    Served(Box<Terms>, Judged),
    Refused(Look, Refusal),
    Waits(Look, Refusal),
}

/// Of an event that ends a hold.
#[derive(Deserialize)]
struct Ended {
    #[serde(default)]
    tokens: u64,
    #[serde(default)]
    sent: bool,
}

/// Of an event about refusals.
#[derive(Deserialize)]
struct Refused {
    count: u64,
}

impl<'a> Stage<'a> {
    pub(super) fn new(config: &'a Config, proposal: &'a Proposal, scopes: Vec<Scope>) -> Self {
        let agents = scopes.iter().filter_map(|scope| match scope.id {
            ScopeId::Agent(id) => Some((scope.name.clone(), id)),
            ScopeId::Node(_) => None,
        });
        Self {
            config,
            proposal,
            agents: agents.collect(),
            scopes: scopes
                .into_iter()
                .map(|scope| (scope.id, Arc::new(staged(scope, proposal))))
                .collect(),
            book: Book::default(),
            open: HashMap::new(),
            ended: HashMap::new(),
            ended_order: VecDeque::new(),
            report: Report::default(),
            events: 0,
            boot_ms: 0,
        }
    }

    /// Plays one event.
    pub(super) fn event(
        &mut self,
        conn: &Connection,
        event: &Event<'_>,
    ) -> Result<(), LedgerError> {
        self.report.until_ms = event.at_ms;
        // The wall clock may have been set back; windows go on.
        self.boot_ms = self.boot_ms.max(u64::try_from(event.at_ms).unwrap_or(0));
        self.events += 1;
        if self.events.is_multiple_of(SWEEP_EVENTS) {
            self.book.sweep(self.boot_ms);
            self.book.take_changed();
        }
        match event.action {
            "hold.open" => self.opened(conn, event)?,
            "usage.commit" | "hold.release" => self.ended(conn, event)?,
            "request.refused" => {
                let refused = serde_json::from_str::<Refused>(event.detail);
                self.report.refused_then += refused.map_or(0, |refused| refused.count);
            }
            _ => {}
        }
        Ok(())
    }

    fn opened(&mut self, conn: &Connection, event: &Event<'_>) -> Result<(), LedgerError> {
        let hold = event.hold.unwrap_or_default();
        let agent = event.agent.and_then(|name| self.agents.get(name).copied());
        let terms = serde_json::from_str::<Terms>(event.detail);
        let (Ok(id), Ok(terms), Some(agent)) = (hold.parse::<HoldId>(), terms, agent) else {
            self.report.unreadable += 1;
            return Ok(());
        };
        if let Some(attempt) = &terms.attempt {
            // A request that is refused is tried nowhere else.
            let first = self.ended.get(&attempt.first);
            if let Some(counts) = first.filter(|counts| counts.refused) {
                self.open.insert(id, Open::Refused(counts.clone()));
                return Ok(());
            }
        } else {
            self.report.requests.requests += 1;
        }
        self.report.tools_unrecorded += u64::from(terms.names_left_out > 0);
        let fate = self.decide(conn, &terms, agent, event.at_ms)?;
        let open = match fate {
            Fate::Served(new, judged) => self.serve(agent, new, &judged, event),
            Fate::Refused(look, refusal) => {
                let name = event.agent.unwrap_or_default();
                let counts = (self.report).refuse(name, &look, &refusal, event.at_ms, hold);
                Open::Refused(counts)
            }
            Fate::Waits(..) => Open::Waits(Box::new(terms), agent),
        };
        self.open.insert(id, open);
        Ok(())
    }

    fn ended(&mut self, conn: &Connection, event: &Event<'_>) -> Result<(), LedgerError> {
        let hold = event.hold.unwrap_or_default();
        let Ok(id) = hold.parse::<HoldId>() else {
            return Ok(());
        };
        if event.detail.starts_with(CORRECTION) {
            if let Some(counts) = self.ended.get(&id) {
                self.report.cost(counts, event.cost_pico);
            }
            return Ok(());
        }
        // It was granted before.
        let Some(open) = self.open.remove(&id) else {
            return Ok(());
        };
        let open = match open {
            // What it waited for may have come free meanwhile.
            Open::Waits(terms, agent) => self.waited(conn, &terms, agent, event)?,
            open => open,
        };
        let counts = match open {
            Open::Served(played, counts) => {
                self.end(&played, event);
                counts
            }
            Open::Refused(counts) => counts,
            Open::Waits(..) => Counts::default(),
        };
        self.report.cost(&counts, event.cost_pico);
        self.remember(id, counts);
        Ok(())
    }

    /// A request that had to wait, at the time when it ended.
    fn waited(
        &mut self,
        conn: &Connection,
        terms: &Terms,
        agent: i64,
        event: &Event<'_>,
    ) -> Result<Open, LedgerError> {
        Ok(match self.decide(conn, terms, agent, event.at_ms)? {
            Fate::Served(new, judged) => {
                self.report.waited.requests += 1;
                match self.serve(agent, new, &judged, event) {
                    Open::Served(played, counts) => {
                        let waited = true;
                        Open::Served(played, Counts { waited, ..counts })
                    }
                    open => open,
                }
            }
            Fate::Refused(look, refusal) | Fate::Waits(look, refusal) => {
                let (name, hold) = (event.agent.unwrap_or_default(), event.hold);
                Open::Refused(self.report.refuse(
                    name,
                    &look,
                    &refusal,
                    event.at_ms,
                    hold.unwrap_or_default(),
                ))
            }
        })
    }

    fn serve(&mut self, agent: i64, terms: Box<Terms>, judged: &Judged, event: &Event<'_>) -> Open {
        let mut counts = Counts::default();
        let name = event.agent.unwrap_or_default();
        let policy = |denial: &Denial| format!("policy {}", denial.policy);
        let warned = terms.warned.iter().cloned();
        for rule in warned.chain(judged.warned.iter().map(policy)) {
            self.report.on_trial(&mut counts, name, &rule, "warn");
        }
        let shadowed = terms.shadowed.iter().cloned();
        for rule in shadowed.chain(judged.shadowed.iter().map(policy)) {
            self.report.on_trial(&mut counts, name, &rule, "shadow");
        }
        self.hold(agent, &terms, terms.hold_pico);
        self.book.opened(agent, &terms);
        self.book.dispatched(agent, &terms, self.boot_ms);
        Open::Served(Played { agent, terms }, counts)
    }

    fn end(&mut self, played: &Played, event: &Event<'_>) {
        let (agent, terms) = (played.agent, &played.terms);
        // What cannot be read is the audit's to tell.
        let ended = serde_json::from_str::<Ended>(event.detail).unwrap_or(Ended {
            tokens: terms.tokens(),
            sent: true,
        });
        let used = Used {
            cost_pico: event.cost_pico,
            tokens: ended.tokens,
            sent: ended.sent,
        };
        self.book.ended(agent, terms, &used, true, self.boot_ms);
        self.hold(agent, terms, -terms.hold_pico);
    }

    /// Moves what the scopes of a path hold.
    fn hold(&mut self, agent: i64, terms: &Terms, pico: i64) {
        for id in terms.charged.path(agent) {
            if let Some(scope) = self.scopes.get_mut(&id) {
                let balance = &mut Arc::make_mut(scope).balance;
                balance.held_pico = balance.held_pico.saturating_add(pico).max(0);
            }
        }
    }

    fn remember(&mut self, id: HoldId, counts: Counts) {
        if self.ended_order.len() >= MOST_ENDED
            && let Some(oldest) = self.ended_order.pop_front()
        {
            self.ended.remove(&oldest);
        }
        self.ended_order.push_back(id);
        self.ended.insert(id, counts);
    }

    /// The kernel's own decision, over what is proposed.
    fn decide(
        &mut self,
        conn: &Connection,
        recorded: &Terms,
        agent: i64,
        at_ms: i64,
    ) -> Result<Fate, LedgerError> {
        let path = self.path(conn, recorded, agent)?;
        let own_key = facts_of(recorded).own_key;
        // Without a word about keys it is not asked where the request's came from.
        let of_keys = |scope: &Arc<Scope>| scope.grant.settings.passthrough.is_some();
        let facts = Facts {
            own_key: own_key && path.iter().any(of_keys),
            ..facts_of(recorded)
        };
        let caller = Caller {
            path,
            token_revoked: false,
            token_expires_at_ms: None,
            read_only: false,
        };
        let model = as_recorded(recorded, &facts.unknown_params);
        let defaults = Defaults {
            default_output_tokens: recorded.output_cap.max(1),
            min_output_tokens: self.config.min_output_tokens,
            on_disconnect: recorded.on_disconnect,
            limits: DefaultLimits::default(),
            time_zone: self.config.time_zone.clone(),
        };
        let now = Now {
            boot_ms: self.boot_ms,
            wall_ms: at_ms,
        };
        let windows = caller.windows(std::slice::from_ref(&model), &recorded.model, &defaults);
        self.book.expire(&windows, now.boot_ms);
        let question = Question {
            asked: Asked {
                route: recorded.route,
                model: &recorded.model,
                facts: &facts,
            },
            caller: Some(&caller),
            model: Some(&model),
            around: Around {
                book: &self.book,
                peers: 0,
                waiting: &|_| 0,
                queued: &|_| 0,
                queue: None,
            },
            defaults: &defaults,
            now,
            trail: None,
        };
        Ok(match decide(question) {
            Ok(terms) => {
                let judged = self.proposal.policies.judge_request(&ToJudge {
                    caller: &caller,
                    facts: &facts,
                    terms: &terms,
                    own_key,
                    time_zone: &self.config.time_zone,
                    wall_ms: at_ms,
                });
                match judged.denied.clone() {
                    Some(denial) => forbidden(denial),
                    None => Fate::Served(Box::new(terms), judged),
                }
            }
            Err(stop) => {
                let look = why(question, stop.refusal());
                match stop {
                    Stop::Wait(refusal, _) => Fate::Waits(look, refusal),
                    Stop::Refuse(refusal) | Stop::TooLong(refusal) => Fate::Refused(look, refusal),
                }
            }
        })
    }

    /// The path that was recorded, as far as its scopes are still there.
    fn path(
        &mut self,
        conn: &Connection,
        recorded: &Terms,
        agent: i64,
    ) -> Result<Vec<Arc<Scope>>, LedgerError> {
        let mut path = Vec::new();
        for id in recorded.charged.path(agent) {
            if let (ScopeId::Node(node), None) = (id, self.scopes.get(&id)) {
                self.forget_runs();
                if let Some(run) = reader::node(conn, node)? {
                    self.scopes.insert(id, Arc::new(staged(run, self.proposal)));
                }
            }
            path.extend(self.scopes.get(&id).cloned());
        }
        Ok(path)
    }

    fn forget_runs(&mut self) {
        if self.scopes.len() >= MOST_RUNS + self.agents.len() {
            let is_idle_run =
                |scope: &Scope| scope.kind == ScopeKind::Run && scope.balance.held_pico == 0;
            self.scopes.retain(|_, scope| !is_idle_run(scope));
        }
    }

    /// What there is to tell once every event was played.
    pub(super) fn told(mut self, since_ms: i64) -> Rehearsal {
        let waiting = self
            .open
            .values()
            .filter(|open| matches!(open, Open::Waits(..)));
        self.report.waited.requests += waiting.count() as u64;
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
            refusals,
            on_trial,
            lines_left_out: report.left_out,
            refused_then: report.refused_then,
            tools_unrecorded: report.tools_unrecorded,
            unreadable: report.unreadable,
        }
    }
}

/// A scope with what is proposed for it, its labels and its time zone, and nothing else.
fn staged(scope: Scope, proposal: &Proposal) -> Scope {
    let own = scope.grant.settings;
    let proposed = proposal.scopes.get(&scope.id).cloned().unwrap_or_default();
    Scope {
        expires_at_ms: None,
        balance: Balance::default(),
        grant: Recorded {
            settings: Settings {
                labels: proposed.labels.or(own.labels),
                time_zone: proposed.time_zone.or(own.time_zone),
                ..proposed
            },
            ..Recorded::none()
        },
        ..scope
    }
}

/// The model as the request met it.
fn as_recorded<'t>(recorded: &'t Terms, unknown_params: &'t [String]) -> ModelFacts<'t> {
    ModelFacts {
        name: &recorded.model,
        provider: &recorded.provider,
        upstream_model: &recorded.upstream_model,
        price: Some(recorded.price.clone()),
        price_source: &recorded.price_source,
        max_output_tokens: None,
        rendering: AS_RECORDED,
        embeds_only: false,
        hidden_output: recorded.hidden_output,
        counts_choices: recorded.counts_choices,
        extra_params: unknown_params,
        keys: KeyPolicy::Either,
        loopback: recorded.price.is_free(),
        operator_key: true,
        max_requests_per_minute: None,
        max_tokens_per_minute: None,
    }
}

fn forbidden(denial: Denial) -> Fate {
    let look = Look {
        scope: None,
        rule: format!("policy {}", denial.policy),
        verdict: Verdict::Refuses,
        figures: None,
        why: denial.reason.clone(),
    };
    let refusal = Refusal::PolicyForbids {
        policy: denial.policy,
        reason: denial.reason,
    };
    Fate::Refused(look, refusal)
}

/// The rule that stops a request: decided once more, and written down.
fn why(question: Question<'_>, refusal: &Refusal) -> Look {
    let trail = Trail::default();
    let _ = decide(Question {
        trail: Some(&trail),
        ..question
    });
    trail.decisive(refusal)
}

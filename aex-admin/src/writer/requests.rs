//! Reserve, and what goes with it: waiting for held money, the list of models, whose hold is whose.

use std::sync::Arc;

use aex_admin_proto::HoldId;
use aex_admin_proto::peer::Peer;
use aex_admin_proto::refusal::Refusal;
use aex_admin_proto::rpc::{RpcError, code};
use aex_admin_proto::scope::ScopeId;
use aex_admin_proto::worker::{Replay, ReserveParams, ReserveReply};

use super::answers::Answers;
use super::idempotency::Before;
use super::memory::OpenHold;
use super::waiting::Waiter;
use super::{Reply, SessionId, Writer, grants};
use crate::core::hold::Terms;
use crate::core::money::Balance;
use crate::core::recall;
use crate::core::reservation::{Owner, Reservation};
use crate::core::reserve::{self, Around, Asked, Caller, Now, Question, Queue, Stop, Trail};
use crate::core::routing::{self, Instead};
use crate::core::scope::Scope;
use crate::core::share;
use crate::ledger::{Event, LedgerError, NewHold, TokenRow};

/// What a decision came to.
pub(super) enum Decided {
    Grant {
        path: Vec<Arc<Scope>>,
        terms: Box<Terms>,
    },
    Refuse {
        /// Zero: nobody has that token.
        agent: i64,
        refusal: Refusal,
    },
    Measure {
        tokenizer: String,
        refusal: Refusal,
    },
    Replay(Replay),
    Wait {
        agent: i64,
        queue: Queue,
        refusal: Refusal,
    },
}

/// How a request is decided.
#[derive(Clone, Copy)]
pub(super) struct Manner<'a> {
    /// How many more of the same token its batch holds.
    pub peers: u64,
    /// Where it stood and waited.
    pub queue: Option<Queue>,
    /// Where the rules that are looked at are written, for who asks why.
    pub trail: Option<&'a Trail>,
    /// False: it is not asked for, only about.
    pub counts: bool,
}

impl<'a> Manner<'a> {
    pub(super) fn only_asked(trail: Option<&'a Trail>) -> Self {
        Self {
            peers: 0,
            queue: None,
            trail,
            counts: false,
        }
    }
}

/// Where a request waits, of which agent, and its answer when nothing comes free.
struct MustWait {
    agent: i64,
    queue: Queue,
    refusal: Refusal,
}

/// An answer, or that it must wait.
type Outcome = Result<Result<ReserveReply, RpcError>, MustWait>;

impl Writer {
    /// Decides one request. `peers`: how many more of the same token this batch holds.
    pub(super) fn reserve(
        &mut self,
        params: Box<ReserveParams>,
        session: SessionId,
        reply: Reply<ReserveReply>,
        peers: u64,
        answers: &mut Answers,
    ) -> Result<(), LedgerError> {
        if let Some(answer) = self.asked_again(&params, session)? {
            answers.push(reply, Ok(answer));
            return Ok(());
        }
        // One that was sent back to be counted is the same request.
        let first = u64::from(params.facts.measured.is_none());
        self.shared.count(|counters| counters.reserves += first);
        let now = self.now();
        let decided = self.decide(&params, peers, None, now);
        match self.carry_out(decided, &params, session, now)? {
            Ok(answer) => answers.push(reply, answer),
            Err(must) => {
                let deadline_boot_ms = now.boot_ms.saturating_add(self.config.hold_wait_ms);
                let waiter = Waiter {
                    agent: must.agent,
                    params,
                    session,
                    reply,
                    refusal: must.refusal,
                    deadline_boot_ms,
                };
                if let Err(waiter) = self.waiting.push(must.queue, waiter) {
                    let answer = self.refuse(waiter.agent, &waiter.params, waiter.refusal);
                    answers.push(waiter.reply, Ok(answer));
                }
                self.shared.set_waiting(self.waiting.len());
            }
        }
        Ok(())
    }

    /// The answer to an id that is known already.
    fn asked_again(
        &mut self,
        params: &ReserveParams,
        session: SessionId,
    ) -> Result<Option<ReserveReply>, LedgerError> {
        if let Some((waiter, queue)) = self.waiting.remove(&params.id) {
            self.stirred.insert(queue.scope);
            // Its reply was lost with its connection; this one takes its place.
            waiter
                .reply
                .send(Ok(ReserveReply::Refused(Refusal::Cancelled)));
        }
        let digest = grants::digest(params).cast_signed();
        let mut memory = self.shared.memory();
        let Some(hold) = memory.open.get_mut(&params.id) else {
            return Ok(None);
        };
        if hold.request != digest {
            return Ok(Some(ReserveReply::Refused(Refusal::HoldIdReused)));
        }
        hold.course.owner = Owner::Session(session);
        let own = hold.terms.charged.path(hold.agent).next();
        let own = own
            .map(|own| self.staged.scope(&self.ledger, own))
            .transpose()?;
        let remaining = own.flatten().and_then(|own| remaining_micro(&own.balance));
        let grant = grants::grant(&self.config, &self.key, params.id, hold, remaining);
        Ok(Some(ReserveReply::Granted(Box::new(grant))))
    }

    /// Looks again at those that wait where money or rights have changed.
    pub(super) fn wake_waiters(&mut self, answers: &mut Answers) -> Result<(), LedgerError> {
        for scope in std::mem::take(&mut self.stirred) {
            for queue in self.waiting.queues_of(scope) {
                self.wake_queue(queue, answers)?;
            }
        }
        self.shared.set_waiting(self.waiting.len());
        Ok(())
    }

    /// One after the other, until one must wait on.
    fn wake_queue(&mut self, queue: Queue, answers: &mut Answers) -> Result<(), LedgerError> {
        while let Some(mut waiter) = self.waiting.pop_front(queue) {
            let now = self.now();
            let decided = self.decide(&waiter.params, 0, Some(queue), now);
            match self.carry_out(decided, &waiter.params, waiter.session, now)? {
                Ok(answer) => answers.push(waiter.reply, answer),
                Err(must) => {
                    waiter.refusal = must.refusal;
                    if must.queue == queue {
                        self.waiting.push_front(queue, waiter);
                        return Ok(());
                    }
                    // Its place was given up a moment ago, so there is one.
                    if let Err(waiter) = self.waiting.push(must.queue, waiter) {
                        let refused = self.refuse(waiter.agent, &waiter.params, waiter.refusal);
                        answers.push(waiter.reply, Ok(refused));
                    }
                }
            }
        }
        Ok(())
    }

    /// Waiters whose time is up are refused.
    pub(super) fn expire_waiters(&mut self, answers: &mut Answers, now: Now) {
        if self.waiting.len() == 0 {
            return;
        }
        let late = |waiter: &Waiter| waiter.deadline_boot_ms <= now.boot_ms;
        for (waiter, queue) in self.waiting.take_if(late) {
            self.stirred.insert(queue.scope);
            let answer = self.refuse(waiter.agent, &waiter.params, waiter.refusal);
            answers.push(waiter.reply, Ok(answer));
        }
        self.shared.set_waiting(self.waiting.len());
    }

    /// Who asks with this token.
    pub(super) fn caller(&mut self, token: TokenRow, peer: &Peer) -> Result<Caller, LedgerError> {
        let own = token.run.map_or(ScopeId::Agent(token.agent), ScopeId::Node);
        let path = self.staged.path(&self.ledger, own)?;
        Ok(grants::caller(path, token, peer))
    }

    /// `queue`: where it stood and waited.
    fn decide(
        &mut self,
        params: &ReserveParams,
        peers: u64,
        queue: Option<Queue>,
        now: Now,
    ) -> Result<Decided, LedgerError> {
        let token = self.staged.token(&self.ledger, &params.token)?;
        let peer = &params.peer;
        let caller = token.map(|token| self.caller(token, peer)).transpose()?;
        let agent = token.map_or(0, |token| token.agent);
        if let (Some(asked), Some(caller)) = (&params.idempotency, &caller)
            && reserve::authenticate(Some(caller), now).is_ok()
            && !caller.read_only
            && let Some(before) = self.asked_before(agent, caller, asked, params, now)?
        {
            return Ok(match before {
                Before::Refuse(refusal) => Decided::Refuse { agent, refusal },
                Before::Replay(replay) => Decided::Replay(replay),
            });
        }
        let manner = Manner {
            peers,
            queue,
            trail: None,
            counts: true,
        };
        Ok(self.decide_for(caller, agent, params, manner, now))
    }

    /// The decision itself: nothing is written.
    pub(super) fn decide_for(
        &self,
        caller: Option<Caller>,
        agent: i64,
        params: &ReserveParams,
        manner: Manner<'_>,
        now: Now,
    ) -> Decided {
        let targets = self.targets(params, now);
        let defaults = grants::defaults(&self.config);
        let mut memory = self.shared.memory();
        if let Some(caller) = &caller {
            let windows = caller.windows(&targets, &params.model, &defaults);
            memory.book.expire(&windows, now.boot_ms);
        }
        let waiting = |scope| self.waiting.of(scope) as u64;
        let queued = |queue| self.waiting.in_queue(queue) as u64;
        let around = Around {
            book: &memory.book,
            peers: manner.peers,
            waiting: &waiting,
            queued: &queued,
            queue: manner.queue,
        };
        let decided = routing::first_granted(&targets, |model| {
            let question = Question {
                asked: Asked {
                    route: params.route,
                    model: &params.model,
                    facts: &routing::facts_for(&params.facts, model),
                },
                caller: caller.as_ref(),
                model,
                around,
                defaults: &defaults,
                now,
                trail: manner.trail,
            };
            if let Some(trail) = manner.trail {
                trail.begin(model);
            }
            let decided = self.decide_target(question, params, manner);
            if let (Some(trail), Err(Instead::Stop(stop))) = (manner.trail, &decided) {
                trail.ended(stop.refusal());
            }
            decided
        });
        drop(memory);
        match decided {
            Ok(terms) => Decided::Grant {
                path: caller.map(|caller| caller.path).unwrap_or_default(),
                terms: Box::new(terms),
            },
            Err(Instead::Measure { tokenizer, refusal }) => Decided::Measure { tokenizer, refusal },
            Err(Instead::Stop(Stop::Wait(refusal, queue))) => Decided::Wait {
                agent,
                queue,
                refusal,
            },
            Err(Instead::Stop(Stop::Refuse(refusal) | Stop::TooLong(refusal))) => {
                Decided::Refuse { agent, refusal }
            }
        }
    }

    /// By every rule, and by policies; whether its prompt is worth counting.
    fn decide_target(
        &self,
        question: Question<'_>,
        params: &ReserveParams,
        manner: Manner<'_>,
    ) -> Result<Terms, Instead> {
        let stop = match (reserve::decide(question), question.caller) {
            (Ok(mut terms), Some(caller)) => {
                return match self.judge(caller, params, &mut terms, manner, question.now) {
                    Ok(()) => within_share(question, terms),
                    Err(refusal) => Err(Instead::Stop(Stop::Refuse(refusal))),
                };
            }
            (Ok(terms), None) => return Ok(terms),
            (Err(stop), _) => stop,
        };
        if params.facts.measured.is_some() {
            return Err(Instead::Stop(stop));
        }
        match reserve::counted_first(stop, question) {
            Ok((tokenizer, refusal)) => Err(Instead::Measure { tokenizer, refusal }),
            Err(stop) => Err(Instead::Stop(stop)),
        }
    }

    fn carry_out(
        &mut self,
        decided: Result<Decided, LedgerError>,
        params: &ReserveParams,
        session: SessionId,
        now: Now,
    ) -> Result<Outcome, LedgerError> {
        let done = match decided {
            Ok(Decided::Wait {
                agent,
                queue,
                refusal,
            }) => {
                return Ok(Err(MustWait {
                    agent,
                    queue,
                    refusal,
                }));
            }
            Ok(Decided::Refuse { agent, refusal }) => Ok(self.refuse(agent, params, refusal)),
            Ok(Decided::Measure { tokenizer, refusal }) => {
                Ok(ReserveReply::Measure { tokenizer, refusal })
            }
            Ok(Decided::Replay(replay)) => Ok(self.replay(replay)),
            Ok(Decided::Grant { path, terms }) => self.hold(path, *terms, params, session, now),
            Err(error) => Err(error),
        };
        match done {
            Ok(answer) => Ok(Ok(Ok(answer))),
            Err(error) => Ok(Ok(Err(of_one_operation(error)?))),
        }
    }

    fn replay(&self, replay: Replay) -> ReserveReply {
        self.shared.count(|counters| counters.replayed += 1);
        ReserveReply::Replay(replay)
    }

    /// Writes the hold, in every scope of its path. From here it must succeed.
    fn hold(
        &mut self,
        path: Vec<Arc<Scope>>,
        mut terms: Terms,
        params: &ReserveParams,
        session: SessionId,
        now: Now,
    ) -> Result<ReserveReply, LedgerError> {
        let too_large = || LedgerError::Value("a hold beyond 64 bits".to_owned());
        let held = |scope: &Arc<Scope>| {
            let balance = scope.balance.with_hold(terms.hold_pico)?;
            Some((scope.id, balance))
        };
        let balances: Option<Vec<_>> = path.iter().map(held).collect();
        let balances = balances.ok_or_else(too_large)?;
        let agent = agent_of(&path).ok_or_else(too_large)?;
        let (agent, name) = (agent.0, agent.1.to_owned());
        let left_ms = left_ms(&path, now);
        // Let go, so that the staged rows are changed in place.
        drop(path);
        let timeout_ms = self
            .config
            .providers
            .get(&terms.provider)
            .map_or(0, |provider| provider.request_timeout_ms);
        let mut course = Reservation::granted(session, now.boot_ms, grants::TICKET_MS, timeout_ms);
        terms.attempt = self.attempt(agent, params)?;
        if let Some(left_ms) = left_ms {
            let end_boot_ms = now.boot_ms.saturating_add(left_ms);
            course.deadline_boot_ms = course.deadline_boot_ms.min(end_boot_ms);
        }
        if let Some(again) = &params.again {
            course.deadline_boot_ms = course.deadline_boot_ms.min(again.until_boot_ms);
        }
        terms.idempotency = params.idempotency.map(|asked| asked.key.mark());
        (terms.asked, terms.names_left_out) = recall::kept(&params.facts);
        let mut row = NewHold {
            event: 0,
            agent,
            request: grants::digest(params).cast_signed(),
            opened_boot_ms: course.opened_boot_ms,
            expires_boot_ms: course.expires_boot_ms,
            deadline_boot_ms: course.deadline_boot_ms,
        };
        self.write_hold(&mut row, params, &terms, &name, now)?;
        let remaining = balances.first().and_then(|(_, own)| remaining_micro(own));
        if terms.hold_pico != 0 {
            for (scope, balance) in balances {
                self.staged.set_balance(scope, balance)?;
            }
        }
        let mut hold = OpenHold {
            event: row.event,
            agent: row.agent,
            ticket: None,
            terms,
            request: row.request,
            course,
            claim: None,
        };
        let grant = grants::grant(&self.config, &self.key, params.id, &hold, remaining);
        hold.ticket = Some(grant.ticket.clone());
        let mut memory = self.shared.memory();
        (memory.breakers).tried(
            &hold.terms.provider,
            &hold.terms.upstream_model,
            now.boot_ms,
        );
        memory.open_hold(params.id, hold);
        drop(memory);
        self.shared.count(|counters| counters.granted += 1);
        Ok(ReserveReply::Granted(Box::new(grant)))
    }

    fn write_hold(
        &mut self,
        row: &mut NewHold,
        params: &ReserveParams,
        terms: &Terms,
        agent: &str,
        now: Now,
    ) -> Result<(), LedgerError> {
        let hold = params.id.to_string();
        let detail =
            serde_json::to_string(terms).map_err(|error| LedgerError::Value(error.to_string()))?;
        self.ledger.within(|ledger| {
            row.event = ledger.append(&Event {
                agent: Some(agent),
                held_pico: terms.hold_pico,
                hold: Some(&hold),
                ..Event::note(now.wall_ms, None, "hold.open", &detail)
            })?;
            if let Some(asked) = &params.idempotency {
                ledger.use_key(row.agent, asked, row.event, now)?;
            }
            ledger.insert_hold(row)
        })
    }

    pub(super) fn cancel(&mut self, id: &HoldId) {
        if let Some(reply) = self.locked.cancel(id) {
            reply.send(Ok(ReserveReply::Refused(Refusal::Cancelled)));
        } else if let Some((waiter, queue)) = self.waiting.remove(id) {
            self.stirred.insert(queue.scope);
            waiter
                .reply
                .send(Ok(ReserveReply::Refused(Refusal::Cancelled)));
            self.shared.set_waiting(self.waiting.len());
        } else if let Some(hold) = self.shared.memory().open.get(id)
            && hold.course.receipt.is_none()
        {
            // It was granted meanwhile, and nobody will use it.
            self.shared.order_void(*id);
        }
    }

    /// A worker says which requests it still carries. Answers those that have ended.
    pub(super) fn reclaim(&mut self, tickets: &[String], session: SessionId) -> Vec<HoldId> {
        let mut memory = self.shared.memory();
        let mut ended = Vec::new();
        for ticket in tickets {
            let Ok(claims) = self.key.open_expired(ticket) else {
                continue;
            };
            match memory.open.get_mut(&claims.id) {
                Some(hold) => hold.course.owner = Owner::Session(session),
                None => ended.push(claims.id),
            }
        }
        ended
    }

    /// A worker's connection is gone: its waiters leave, its holds are nobody's until re-claimed.
    pub(super) fn session_gone(&mut self, session: SessionId) {
        self.locked.session_gone(session);
        let gone = self.waiting.take_if(|waiter| waiter.session == session);
        self.stirred
            .extend(gone.iter().map(|(_, queue)| queue.scope));
        drop(gone);
        self.shared.set_waiting(self.waiting.len());
        let since_boot_ms = self.now().boot_ms;
        for hold in self.shared.memory().open.values_mut() {
            if hold.course.owner == Owner::Session(session) {
                hold.course.owner = Owner::Nobody { since_boot_ms };
            }
        }
    }
}

/// How long the first scope of a path to end by itself still lasts. What is open under it ends with it.
fn left_ms(path: &[Arc<Scope>], now: Now) -> Option<u64> {
    let ends = path.iter().filter_map(|scope| scope.expires_at_ms).min()?;
    Some(u64::try_from(ends.saturating_sub(now.wall_ms)).unwrap_or(0))
}

/// The agent of a path: its id and name.
pub(super) fn agent_of(path: &[Arc<Scope>]) -> Option<(i64, &str)> {
    path.iter().find_map(|scope| match scope.id {
        ScopeId::Agent(id) => Some((id, scope.name.as_str())),
        ScopeId::Node(_) => None,
    })
}

/// What a token's own scope has free, for its client.
pub(super) fn remaining_micro(own: &Balance) -> Option<i64> {
    own.free_micro().map(|free_micro| free_micro.max(0))
}

/// Trouble of one operation is its own answer; trouble of the ledger is everybody's.
pub(super) fn of_one_operation(error: LedgerError) -> Result<RpcError, LedgerError> {
    let of_its_own = match &error {
        LedgerError::Value(_) => true,
        LedgerError::Sqlite(error) => {
            error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation)
        }
        _ => false,
    };
    if !of_its_own {
        return Err(error);
    }
    tracing::error!(%error, "an operation failed");
    Ok(RpcError::new(
        code::INTERNAL,
        "the ledger refused this operation; see the log of aex-admin",
    ))
}

/// Nobody's limit, so no scope is named: the provider is crowded, and the tenant has its share.
fn within_share(question: Question<'_>, terms: Terms) -> Result<Terms, Instead> {
    let agent = (question.caller)
        .and_then(|caller| agent_of(&caller.path))
        .map_or(0, |(id, _)| id);
    let tenant = share::tenant(agent, &terms.charged);
    match question
        .around
        .book
        .shares
        .exhausted(&terms.provider, tenant)
    {
        None => Ok(terms),
        Some(limit) => {
            let refusal = Refusal::ConcurrencyLimit { limit };
            Err(Instead::Stop(Stop::Refuse(refusal)))
        }
    }
}

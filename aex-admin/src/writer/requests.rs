//! Reserve, and what goes with it: waiting for held money, the list of models, whose hold is whose.

use aex_admin_proto::HoldId;
use aex_admin_proto::TokenDigest;
use aex_admin_proto::refusal::Refusal;
use aex_admin_proto::rpc::{RpcError, code};
use aex_admin_proto::worker::{ModelEntry, ModelsReply, Replay, ReserveParams, ReserveReply};

use super::answers::Answers;
use super::idempotency::Before;
use super::memory::OpenHold;
use super::waiting::Waiter;
use super::{Reply, SessionId, Writer, grants};
use crate::core::hold::Terms;
use crate::core::live::Live;
use crate::core::money::Balance;
use crate::core::reservation::{Owner, Reservation};
use crate::core::reserve::{self, Around, Asked, Now, Stop};
use crate::ledger::{AgentRow, Event, LedgerError, NewHold};

/// What a decision came to.
enum Decided {
    Grant {
        agent: Box<AgentRow>,
        terms: Box<Terms>,
    },
    Refuse(Refusal),
    Measure {
        tokenizer: String,
        refusal: Refusal,
    },
    Replay(Replay),
    Wait {
        agent: i64,
        refusal: Refusal,
    },
}

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
        let decided = self.decide(&params, peers, true, now);
        match self.carry_out(decided, &params, session, now)? {
            Ok(answer) => answers.push(reply, answer),
            Err((agent, refusal)) => {
                let deadline_boot_ms = now.boot_ms.saturating_add(self.config.hold_wait_ms);
                let waiter = Waiter {
                    params,
                    session,
                    reply,
                    refusal,
                    deadline_boot_ms,
                };
                if let Err(waiter) = self.waiting.push(agent, waiter) {
                    answers.push(waiter.reply, Ok(self.refuse(waiter.refusal)));
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
        if let Some(waiter) = self.waiting.remove(&params.id) {
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
        let free_micro = self
            .staged
            .agent(&self.ledger, hold.agent)?
            .map_or(0, |agent| agent.balance.free_micro());
        let grant = grants::grant(&self.config, &self.key, params.id, hold, free_micro.max(0));
        Ok(Some(ReserveReply::Granted(Box::new(grant))))
    }

    /// Looks again at those that wait where money or rights have changed.
    pub(super) fn wake_waiters(&mut self, answers: &mut Answers) -> Result<(), LedgerError> {
        for agent in std::mem::take(&mut self.stirred) {
            while let Some(mut waiter) = self.waiting.pop_front(agent) {
                let now = self.now();
                let decided = self.decide(&waiter.params, 0, false, now);
                match self.carry_out(decided, &waiter.params, waiter.session, now)? {
                    Ok(answer) => answers.push(waiter.reply, answer),
                    Err((_, refusal)) => {
                        waiter.refusal = refusal;
                        self.waiting.push_front(agent, waiter);
                        break;
                    }
                }
            }
        }
        self.shared.set_waiting(self.waiting.len());
        Ok(())
    }

    /// Waiters whose time is up are refused.
    pub(super) fn expire_waiters(&mut self, answers: &mut Answers, now: Now) {
        if self.waiting.len() == 0 {
            return;
        }
        let late = |waiter: &Waiter| waiter.deadline_boot_ms <= now.boot_ms;
        for waiter in self.waiting.take_if(late) {
            let answer = self.refuse(waiter.refusal);
            answers.push(waiter.reply, Ok(answer));
        }
        self.shared.set_waiting(self.waiting.len());
    }

    fn decide(
        &mut self,
        params: &ReserveParams,
        peers: u64,
        newcomer: bool,
        now: Now,
    ) -> Result<Decided, LedgerError> {
        let found = self.staged.agent_of_token(&self.ledger, &params.token)?;
        let found = found.map(|(agent, token)| (agent.clone(), token));
        let model = grants::model(&self.config, &self.operator_keys, &params.model);
        let caller = found
            .as_ref()
            .map(|(agent, token)| grants::caller(agent, *token, &self.config));
        if let (Some(asked), Some((agent, _))) = (&params.idempotency, &found)
            && reserve::authenticate(caller.as_ref(), now).is_ok()
            && let Some(before) = self.asked_before(agent, asked, now)?
        {
            return Ok(match before {
                Before::Refuse(refusal) => Decided::Refuse(refusal),
                Before::Replay(replay) => Decided::Replay(replay),
            });
        }
        let agent_id = found.as_ref().map(|(agent, _)| agent.id);
        let waiting = agent_id.map_or(0, |agent| self.waiting.of(agent));
        let mut memory = self.shared.memory();
        let memory = &mut *memory;
        let idle = Live::default();
        let mut live = agent_id.and_then(|agent| memory.agents.get_mut(&agent));
        let mut model_live = memory.models.get_mut(&params.model);
        for live in live.iter_mut().chain(model_live.iter_mut()) {
            live.expire(now.boot_ms);
        }
        let around = Around {
            agent: live.as_deref().unwrap_or(&idle),
            model: model_live.as_deref().unwrap_or(&idle),
            contenders: (waiting as u64).saturating_add(peers).saturating_add(1),
            queue_ahead: newcomer && waiting > 0,
        };
        let asked = Asked {
            route: params.route,
            model: &params.model,
            facts: &params.facts,
        };
        let decided = reserve::decide(
            asked,
            caller.as_ref(),
            model.as_ref(),
            around,
            grants::defaults(&self.config),
            now,
        );
        let stop = match (decided, found) {
            (Ok(terms), Some((agent, _))) => {
                return Ok(Decided::Grant {
                    agent: Box::new(agent),
                    terms: Box::new(terms),
                });
            }
            (Ok(_), None) => Stop::Refuse(Refusal::InvalidToken),
            (Err(stop), _) => stop,
        };
        let counted_first = reserve::counted_first(
            stop,
            asked,
            caller.as_ref(),
            model.as_ref(),
            around,
            grants::defaults(&self.config),
            now,
        );
        Ok(match counted_first {
            Ok((tokenizer, refusal)) => Decided::Measure { tokenizer, refusal },
            Err(Stop::Wait(refusal)) => match agent_id {
                Some(agent) => Decided::Wait { agent, refusal },
                None => Decided::Refuse(refusal),
            },
            Err(Stop::Refuse(refusal) | Stop::TooLong(refusal)) => Decided::Refuse(refusal),
        })
    }

    /// The answer, or for whom to wait.
    #[expect(
        clippy::type_complexity,
        reason = "the two outcomes are named where they are used"
    )]
    fn carry_out(
        &mut self,
        decided: Result<Decided, LedgerError>,
        params: &ReserveParams,
        session: SessionId,
        now: Now,
    ) -> Result<Result<Result<ReserveReply, RpcError>, (i64, Refusal)>, LedgerError> {
        let done = match decided {
            Ok(Decided::Wait { agent, refusal }) => return Ok(Err((agent, refusal))),
            Ok(Decided::Refuse(refusal)) => Ok(self.refuse(refusal)),
            Ok(Decided::Measure { tokenizer, refusal }) => {
                Ok(ReserveReply::Measure { tokenizer, refusal })
            }
            Ok(Decided::Replay(replay)) => Ok(self.replay(replay)),
            Ok(Decided::Grant { agent, terms }) => self.hold(&agent, *terms, params, session, now),
            Err(error) => Err(error),
        };
        match done {
            Ok(answer) => Ok(Ok(Ok(answer))),
            Err(error) => Ok(Ok(Err(of_one_operation(error)?))),
        }
    }

    fn refuse(&self, refusal: Refusal) -> ReserveReply {
        self.shared
            .count(|counters| *counters.refused.entry(name(&refusal)).or_insert(0) += 1);
        ReserveReply::Refused(refusal)
    }

    fn replay(&self, replay: Replay) -> ReserveReply {
        self.shared.count(|counters| counters.replayed += 1);
        ReserveReply::Replay(replay)
    }

    /// Writes the hold. From here it must succeed.
    fn hold(
        &mut self,
        agent: &AgentRow,
        mut terms: Terms,
        params: &ReserveParams,
        session: SessionId,
        now: Now,
    ) -> Result<ReserveReply, LedgerError> {
        let too_large = || LedgerError::Value("a hold beyond 64 bits".to_owned());
        let balance = agent
            .balance
            .with_hold(terms.hold_pico)
            .ok_or_else(too_large)?;
        let timeout_ms = self
            .config
            .providers
            .get(&terms.provider)
            .map_or(0, |provider| provider.request_timeout_ms);
        let course = Reservation::granted(session, now.boot_ms, grants::TICKET_MS, timeout_ms);
        terms.idempotency = params.idempotency.map(|asked| asked.key.mark());
        let mut row = NewHold {
            event: 0,
            agent: agent.id,
            request: grants::digest(params).cast_signed(),
            opened_boot_ms: course.opened_boot_ms,
            expires_boot_ms: course.expires_boot_ms,
            deadline_boot_ms: course.deadline_boot_ms,
        };
        self.write_hold(&mut row, params, &terms, agent, &balance, now)?;
        let mut hold = OpenHold {
            event: row.event,
            agent: row.agent,
            ticket: None,
            terms,
            request: row.request,
            course,
            claim: None,
        };
        let remaining_micro = balance.free_micro().max(0);
        let grant = grants::grant(&self.config, &self.key, params.id, &hold, remaining_micro);
        hold.ticket = Some(grant.ticket.clone());
        self.shared.memory().open_hold(params.id, hold);
        self.shared.count(|counters| counters.granted += 1);
        Ok(ReserveReply::Granted(Box::new(grant)))
    }

    fn write_hold(
        &mut self,
        row: &mut NewHold,
        params: &ReserveParams,
        terms: &Terms,
        agent: &AgentRow,
        balance: &Balance,
        now: Now,
    ) -> Result<(), LedgerError> {
        let hold = params.id.to_string();
        let detail =
            serde_json::to_string(terms).map_err(|error| LedgerError::Value(error.to_string()))?;
        self.ledger.within(|ledger| {
            row.event = ledger.append(&Event {
                agent: Some(&agent.name),
                held_pico: terms.hold_pico,
                hold: Some(&hold),
                ..Event::note(now.wall_ms, None, "hold.open", &detail)
            })?;
            if let Some(asked) = &params.idempotency {
                ledger.use_key(agent.id, asked, row.event, now)?;
            }
            ledger.insert_hold(row)
        })?;
        self.staged.set_balance(agent.id, *balance)
    }

    /// The models that a token's agent may call.
    pub(super) fn models(&mut self, token: &TokenDigest) -> Result<ModelsReply, LedgerError> {
        let found = self.staged.agent_of_token(&self.ledger, token)?;
        let caller = found.map(|(agent, token)| grants::caller(agent, token, &self.config));
        let caller = match reserve::authenticate(caller.as_ref(), self.now()) {
            Ok(caller) => caller,
            Err(refusal) => return Ok(ModelsReply::Refused(refusal)),
        };
        let models = self
            .config
            .models
            .values()
            .filter(|model| reserve::may_use(&caller.settings, &model.name))
            .filter(|model| caller.settings.has_provider(&model.provider))
            .map(|model| ModelEntry {
                id: model.name.clone(),
                owned_by: model.provider.clone(),
                created: 0,
            })
            .collect();
        Ok(ModelsReply::Models(models))
    }

    pub(super) fn cancel(&mut self, id: &HoldId) {
        if let Some(reply) = self.locked.cancel(id) {
            reply.send(Ok(ReserveReply::Refused(Refusal::Cancelled)));
        } else if let Some(waiter) = self.waiting.remove(id) {
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
        drop(self.waiting.take_if(|waiter| waiter.session == session));
        self.shared.set_waiting(self.waiting.len());
        let since_boot_ms = self.now().boot_ms;
        for hold in self.shared.memory().open.values_mut() {
            if hold.course.owner == Owner::Session(session) {
                hold.course.owner = Owner::Nobody { since_boot_ms };
            }
        }
    }
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

/// The refusal's name in the metrics: its code on the HTTP surface.
fn name(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::HoldIdReused | Refusal::InvalidRequest { .. } => "invalid_request",
        Refusal::InvalidToken | Refusal::TokenExpired => "invalid_api_key",
        Refusal::AgentPaused => "agent_paused",
        Refusal::IdempotencyConflict { .. } => "idempotency_conflict",
        Refusal::ModelNotFound { .. } => "model_not_found",
        Refusal::ModelNotAllowed { .. } => "model_not_allowed",
        Refusal::ModelNotPriced { .. } => "model_not_priced",
        Refusal::CapabilityNotAllowed { .. } => "capability_not_allowed",
        Refusal::PassthroughNotEnabled => "passthrough_not_enabled",
        Refusal::ProviderKeyRequired => "provider_key_required",
        Refusal::BodyTooLarge { .. } => "body_too_large",
        Refusal::ConcurrencyLimit { .. }
        | Refusal::RequestRate { .. }
        | Refusal::TokenRate { .. } => "rate_limit_exceeded",
        Refusal::InsufficientBudget { .. } => "insufficient_budget",
        Refusal::BudgetHeld { .. } => "budget_held",
        Refusal::Cancelled => "cancelled",
    }
}

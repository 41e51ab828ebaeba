//! Runs: narrower scopes below an agent or another run, each with a token of its own. An operator makes
//! them (`aex run`), and so may an agent for its helpers. A run can only take away: everything above it is
//! asked at each request all the same.

use aex_admin_proto::money::usd;
use aex_admin_proto::operator::{AgentState, RunCreateParams, RunParams, TokenReply};
use aex_admin_proto::peer::Peer;
use aex_admin_proto::rpc::{RpcError, code};
use aex_admin_proto::scope::{ScopeId, ScopeKind};
use aex_admin_proto::worker::RunParams as WorkerRunParams;
use aex_admin_proto::worker::{RunEndParams, RunReply};
use aex_admin_proto::{Refusal, TokenDigest};

use super::Writer;
use super::operator::{Changed, TokenAsk, Trouble, invalid, reply_of, text_of};
use super::requests::agent_of;
use super::scopes::note_of;
use super::settings::{check_budget, check_rpm, check_settings};
use crate::core::reserve::{self, Caller, Now};
use crate::core::scope::{Recorded, Scope};
use crate::core::window::Window;
use crate::ledger::{Event, LedgerError, NewNode};
use crate::views;

/// Runs of one agent that have not ended, and runs below each other.
const MAX_OPEN_RUNS: usize = 256;
const MAX_RUNS_DEEP: usize = 8;
/// Runs that an agent may make in any 60 seconds: each is a row, and events.
const MAX_RUNS_PER_MINUTE: u64 = 120;
/// How long a run lasts that an agent made, where it does not say.
const DEFAULT_TTL_S: u64 = 24 * 3600;

impl Writer {
    /// An operator's.
    pub(super) fn create_run_of(&mut self, params: &RunCreateParams, now: Now) -> Changed {
        let parent = match self.ledger.node_by_name(&params.parent)? {
            Some(run) if run.kind == ScopeKind::Run => run.id,
            _ => self.living(&params.parent)?.id,
        };
        let path = self.staged.path(&self.ledger, parent)?;
        let above = Caller {
            path,
            token_revoked: false,
            token_expires_at_ms: None,
            read_only: false,
            wrong_peer: None,
        };
        if let Err(refusal @ (Refusal::InvalidToken | Refusal::TokenExpired)) =
            reserve::authenticate(Some(&above), now)
        {
            let text = format!("{} has ended ({refusal})", params.parent);
            return Err(RpcError::new(code::NOT_FOUND, text).into());
        }
        let made = self.create_run(&above, &params.run, now)?;
        reply_of(&made)
    }

    /// An agent's own, below the scope of its token.
    pub(super) fn create_run_for(&mut self, params: &WorkerRunParams) -> Result<RunReply, Trouble> {
        let now = self.now();
        let caller = match self.may_run(&params.token, &params.peer, now)? {
            Ok(caller) => caller,
            Err(refusal) => return Ok(RunReply::Refused(refusal)),
        };
        let mut run = params.run.clone();
        run.ttl_s = run.ttl_s.or(Some(DEFAULT_TTL_S));
        let agent = agent_of(&caller.path).map_or(0, |(id, _)| id);
        let made = self.runs_made.entry(agent).or_default();
        made.expire(now.boot_ms);
        if made.sum() >= MAX_RUNS_PER_MINUTE {
            return Ok(RunReply::Refused(Refusal::RequestRate {
                limit: MAX_RUNS_PER_MINUTE,
                retry_after_ms: made.wait_ms(now.boot_ms, 1),
            }));
        }
        let made = self.create_run(&caller, &run, now)?;
        let count: &mut Window = self.runs_made.entry(agent).or_default();
        count.add(now.boot_ms, 1);
        Ok(RunReply::Made(Box::new(made)))
    }

    /// Who asks, if it may make runs and end them.
    fn may_run(
        &mut self,
        token: &TokenDigest,
        peer: &Peer,
        now: Now,
    ) -> Result<Result<Caller, Refusal>, LedgerError> {
        let caller = self.authenticated(token, peer, now)?;
        Ok(caller.and_then(|caller| match caller.read_only {
            true => Err(Refusal::CapabilityNotAllowed {
                capability: "runs (this token is read-only)".to_owned(),
            }),
            false => Ok(caller),
        }))
    }

    fn create_run(
        &mut self,
        above: &Caller,
        asked: &RunParams,
        now: Now,
    ) -> Result<TokenReply, Trouble> {
        self.check_run(above, asked)?;
        let (agent, agent_name) = agent_of(&above.path)
            .map(|(id, name)| (id, name.to_owned()))
            .ok_or_else(|| invalid("there is no agent above"))?;
        self.end_expired_runs(agent, now)?;
        if self.ledger.open_runs(agent)?.len() >= MAX_OPEN_RUNS {
            return Err(invalid(format!(
                "agent {agent_name} has {MAX_OPEN_RUNS} runs that have not ended; end some first"
            )));
        }
        let parent = above.path.first().map(|own| own.id);
        let ends = above
            .path
            .iter()
            .filter_map(|scope| scope.expires_at_ms)
            .min();
        let own_end = asked
            .ttl_s
            .map(|ttl_s| super::operator::expiry(now, ttl_s))
            .transpose()?;
        let expires_at_ms = [ends, own_end, above.token_expires_at_ms]
            .into_iter()
            .flatten()
            .min();
        let grant = Recorded {
            state: AgentState::Active,
            budget_micro: asked.budget_micro,
            rpm: asked.rpm,
            settings: asked.settings.clone(),
            group: None,
        };
        let id = self.ledger.next_node()?;
        let name = format!("{agent_name}/{id}");
        let new = NewNode {
            kind: ScopeKind::Run,
            name: &name,
            parent: match parent {
                Some(ScopeId::Node(run)) => Some(run),
                _ => None,
            },
            agent: Some(agent),
            grant: &grant,
            created_at_ms: now.wall_ms,
            expires_at_ms,
        };
        let detail = text_of(&note_of(ScopeId::Node(id), &name, None, &grant));
        let event = Event::note(now.wall_ms, Some(&agent_name), "run.create", &detail);
        let made = TokenAsk {
            label: "run",
            ..TokenAsk::default()
        };
        let (token, token_id, _) = self.ledger_and_token(&made, &event, now, |ledger| {
            Ok((agent, Some(ledger.insert_node(&new)?)))
        })?;
        Ok(TokenReply {
            name: agent_name,
            token: token.to_string(),
            token_id,
            expires_at_ms,
            budget_micro: grant.budget_micro,
            rpm: grant.rpm,
            settings: grant.settings.clone(),
            run: Some(name),
        })
    }

    /// A run is within what is above it: what is plainly wider is a mistake that is told.
    fn check_run(&self, above: &Caller, asked: &RunParams) -> Result<(), Trouble> {
        let Some(own) = above.path.first() else {
            return Err(invalid("there is nothing above"));
        };
        let deep = above
            .path
            .iter()
            .filter(|scope| scope.kind == ScopeKind::Run)
            .count();
        if deep >= MAX_RUNS_DEEP {
            return Err(invalid(format!("runs are at most {MAX_RUNS_DEEP} deep")));
        }
        if asked.ttl_s == Some(0) {
            return Err(invalid("ttl_s is 1 or more"));
        }
        if let Some(budget_micro) = asked.budget_micro {
            check_budget(budget_micro)?;
            if let Some(most) = own.grant.budget_micro.filter(|&most| budget_micro > most) {
                return Err(invalid(format!(
                    "a run's budget is at most that of what is above it, here {}",
                    usd(most)
                )));
            }
        }
        if let Some(rpm) = asked.rpm {
            check_rpm(rpm)?;
            if let Some(most) = own.grant.rpm.filter(|&most| rpm > most) {
                return Err(invalid(format!(
                    "rpm: a run has at most what is above it, here {most} a minute"
                )));
            }
        }
        check_settings(&asked.settings, &self.config)?;
        let mut models = asked.settings.allowed_models.iter().flatten();
        if let Some(model) = models.find(|model| !reserve::may_use(above, model)) {
            return Err(invalid(format!(
                "allowed_models: what is above the run may not use {model}"
            )));
        }
        Ok(())
    }

    /// Ends runs whose time is over, with the next one that is made.
    fn end_expired_runs(&mut self, agent: i64, now: Now) -> Result<(), Trouble> {
        for run in self.ledger.open_runs(agent)? {
            if run.expires_at_ms.is_some_and(|at_ms| at_ms <= now.wall_ms) {
                self.close_run(&run, now)?;
            }
        }
        Ok(())
    }

    /// An operator's order.
    pub(super) fn end_run_named(&mut self, name: &str, now: Now) -> Changed {
        match self.ledger.node_by_name(name)? {
            Some(run) if run.kind == ScopeKind::Run => {
                self.end_run(&run, now)?;
                let ended = self.ledger.node_by_name(name)?.unwrap_or(run);
                self.show(&ended, now)
            }
            _ => {
                let text = format!("there is no run {name}; see aex tree");
                Err(RpcError::new(code::NOT_FOUND, text).into())
            }
        }
    }

    /// An agent ends a run of its own, or the one whose token this is.
    pub(super) fn end_run_for(&mut self, params: &RunEndParams) -> Result<RunReply, Trouble> {
        let now = self.now();
        let caller = match self.may_run(&params.token, &params.peer, now)? {
            Ok(caller) => caller,
            Err(refusal) => return Ok(RunReply::Refused(refusal)),
        };
        let Some(own) = caller.path.first() else {
            return Ok(RunReply::Refused(Refusal::InvalidToken));
        };
        let run = self.ledger.node_by_name(&params.name)?;
        let run = run.filter(|run| run.kind == ScopeKind::Run);
        let is_below = match &run {
            Some(run) => {
                let path = self.staged.path(&self.ledger, run.id)?;
                path.iter().any(|scope| scope.id == own.id)
            }
            None => false,
        };
        let Some(run) = run.filter(|_| is_below) else {
            // Another's run is not known here.
            return Ok(RunReply::Refused(Refusal::InvalidRequest {
                message: format!("there is no run {} of this token", params.name),
                param: Some("name".to_owned()),
            }));
        };
        self.end_run(&run, now)?;
        let ended = self.ledger.node_by_name(&params.name)?.unwrap_or(run);
        let zone = self.zone_of(ended.id)?;
        Ok(RunReply::Ended(Box::new(views::scope(
            &ended,
            &zone,
            &self.shared,
            now,
        ))))
    }

    /// Ends a run and all below it, what is open included.
    fn end_run(&mut self, run: &Scope, now: Now) -> Result<(), Trouble> {
        let mut ending = vec![run.clone()];
        let mut at = 0;
        while let Some(run) = ending.get(at) {
            if let ScopeId::Node(id) = run.id {
                let below = self.ledger.nodes_below(id)?;
                ending.extend(
                    below
                        .into_iter()
                        .filter(|below| below.kind == ScopeKind::Run),
                );
            }
            at += 1;
        }
        for run in ending
            .iter()
            .filter(|run| run.grant.state != AgentState::Closed)
        {
            self.close_run(run, now)?;
        }
        let ids: Vec<ScopeId> = ending.iter().map(|run| run.id).collect();
        self.cut_open(&ids);
        Ok(())
    }

    fn close_run(&mut self, run: &Scope, now: Now) -> Result<(), Trouble> {
        let ScopeId::Node(id) = run.id else {
            return Err(invalid("not a run"));
        };
        let grant = Recorded {
            state: AgentState::Closed,
            ..run.grant.clone()
        };
        let detail = text_of(&note_of(run.id, &run.name, Some(&run.grant), &grant));
        let agent = run.name.split('/').next();
        self.ledger.within(|ledger| {
            ledger.set_node_grant(id, ScopeKind::Run, &grant)?;
            ledger.end_run_tokens(id, now.wall_ms)?;
            ledger.append(&Event::note(now.wall_ms, agent, "run.end", &detail))
        })?;
        self.forget_dropped(run, &grant)?;
        self.stirred.extend(self.waiting.scopes());
        Ok(())
    }

    /// Ends every run of an agent that is deleted.
    pub(super) fn end_runs_of(&mut self, agent: i64, now: Now) -> Result<(), Trouble> {
        for run in self.ledger.open_runs(agent)? {
            self.close_run(&run, now)?;
        }
        Ok(())
    }
}

/// Trouble of a request that an agent made: what it did wrong is its refusal.
pub(super) fn as_refusal(trouble: Trouble) -> Result<Refusal, LedgerError> {
    match trouble {
        Trouble::Rpc(error) => Ok(Refusal::InvalidRequest {
            message: error.message,
            param: None,
        }),
        Trouble::Ledger(error) => Err(error),
    }
}

//! What an operator changes: agents, their limits, their state, their tokens. Each change and its
//! event are one operation.

use aex_admin_proto::explain::ExplainParams;
use aex_admin_proto::limit::LimitKey;
use aex_admin_proto::operator::{
    AgentState, CreateParams, GroupCreateParams, GroupSetParams, NameParams, ResolveParams,
    RotateParams, RunCreateParams, SetParams, Settings, TokenCreateParams, TokenIdParams,
    TokenReply,
};
use aex_admin_proto::rpc::{RpcError, code};
use aex_admin_proto::scope::ScopeId;
use serde::Serialize;
use serde_json::{Value, json};

use super::answers::Answers;
use super::configure::Configuration;
use super::requests::of_one_operation;
use super::settings::{
    check_budget, check_name, check_rpm, check_settings, clear, drop_limits, merge, taken,
};
use super::{Reply, Writer};
use crate::core::reserve::Now;
use crate::core::scope::{Recorded, Scope};
use crate::ledger::reader::HoldHistory;
use crate::ledger::{Event, Ledger, LedgerError, NewAgent, NewToken, ROTATED};
use crate::{token, views};

const MAX_LABEL_BYTES: usize = 64;

#[derive(Debug)]
pub enum OperatorCommand {
    Create(Box<CreateParams>),
    Set(Box<SetParams>),
    Rotate(RotateParams),
    Pause(NameParams),
    Resume(NameParams),
    Sever(NameParams),
    Delete(NameParams),
    GroupCreate(Box<GroupCreateParams>),
    GroupSet(Box<GroupSetParams>),
    GroupPause(NameParams),
    GroupResume(NameParams),
    GroupSever(NameParams),
    GroupDelete(NameParams),
    RunCreate(Box<RunCreateParams>),
    RunEnd(NameParams),
    TokenCreate(TokenCreateParams),
    TokenRevoke(TokenIdParams),
    Explain(Box<ExplainParams>),
    Configure(Box<Configuration>),
    Checkpoint,
    /// With what was read of the reservation before, if it is about one.
    Resolve(Box<ResolveParams>, Option<HoldHistory>),
}

/// A token to be made.
#[derive(Default)]
pub(super) struct TokenAsk<'a> {
    pub ttl_s: Option<u64>,
    /// It ends then at the latest.
    pub until_ms: Option<i64>,
    pub label: &'a str,
    pub read_only: bool,
}

/// Why a change is not made.
pub(super) enum Trouble {
    Rpc(RpcError),
    Ledger(LedgerError),
}

impl From<LedgerError> for Trouble {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

impl From<RpcError> for Trouble {
    fn from(error: RpcError) -> Self {
        Self::Rpc(error)
    }
}

pub(super) type Changed = Result<Value, Trouble>;

impl Writer {
    pub(super) fn operator(
        &mut self,
        command: OperatorCommand,
        reply: Reply<Value>,
        answers: &mut Answers,
    ) -> Result<(), LedgerError> {
        let now = self.now();
        // Rows are changed directly here: what is staged goes first, and is read anew after.
        self.staged.write(&self.ledger)?;
        let changed = match command {
            OperatorCommand::Create(params) => self.create(&params, now),
            OperatorCommand::Set(params) => self.set(&params, now),
            OperatorCommand::Rotate(params) => self.rotate(&params, now),
            OperatorCommand::Pause(params) => {
                self.turn(&params.name, AgentState::Paused, "agent.pause", now)
            }
            OperatorCommand::Resume(params) => {
                self.turn(&params.name, AgentState::Active, "agent.resume", now)
            }
            OperatorCommand::Sever(params) => self.sever(&params.name, now),
            OperatorCommand::Delete(params) => self.delete(&params.name, now),
            OperatorCommand::GroupCreate(params) => self.create_group(&params, now),
            OperatorCommand::GroupSet(params) => self.set_group(&params, now),
            OperatorCommand::GroupPause(params) => {
                self.turn_group(&params.name, AgentState::Paused, "group.pause", now)
            }
            OperatorCommand::GroupResume(params) => {
                self.turn_group(&params.name, AgentState::Active, "group.resume", now)
            }
            OperatorCommand::GroupSever(params) => self.sever_group(&params.name, now),
            OperatorCommand::GroupDelete(params) => self.delete_group(&params.name, now),
            OperatorCommand::RunCreate(params) => self.create_run_of(&params, now),
            OperatorCommand::RunEnd(params) => self.end_run_named(&params.name, now),
            OperatorCommand::TokenCreate(params) => self.create_token(&params, now),
            OperatorCommand::TokenRevoke(params) => self.revoke_token(params.id, now),
            OperatorCommand::Explain(params) => self.explain(&params, now),
            OperatorCommand::Configure(next) => self.configure(*next, now),
            OperatorCommand::Checkpoint => (self.ledger.checkpoint(now.wall_ms))
                .map_err(Trouble::Ledger)
                .and_then(|checkpoint| reply_of(&checkpoint)),
            OperatorCommand::Resolve(params, history) => self.resolve(&params, history),
        };
        let answer = match changed {
            Ok(value) => Ok(value),
            Err(Trouble::Rpc(error)) => Err(error),
            Err(Trouble::Ledger(error)) => Err(of_one_operation(error)?),
        };
        answers.push(reply, answer);
        Ok(())
    }

    fn create(&mut self, params: &CreateParams, now: Now) -> Changed {
        check_name(&params.name)?;
        check_budget(params.budget_micro)?;
        check_rpm(params.rpm)?;
        check_settings(&params.settings, &self.config)?;
        let group = self.group_id(params.group.as_deref())?;
        if let Some(agent) = self.ledger.agent_by_name(&params.name)? {
            return Err(taken(&agent).into());
        }
        let grant = Recorded {
            state: AgentState::Active,
            budget_micro: Some(params.budget_micro),
            rpm: Some(params.rpm),
            settings: params.settings.clone(),
            group,
        };
        let created_at_ms = now.wall_ms;
        let detail = text_of(&json!({ "now": grant }));
        let new = NewAgent {
            name: &params.name,
            grant: &grant,
            created_at_ms,
        };
        let made = TokenAsk {
            ttl_s: params.ttl_s,
            label: "create",
            ..TokenAsk::default()
        };
        let event = Event::note(now.wall_ms, Some(&params.name), "agent.create", &detail);
        let (token, token_id, expires_at_ms) =
            self.ledger_and_token(&made, &event, now, |ledger| {
                Ok((ledger.insert_agent(&new)?, None))
            })?;
        reply_of(&TokenReply {
            name: params.name.clone(),
            token: token.to_string(),
            token_id,
            expires_at_ms,
            budget_micro: grant.budget_micro,
            rpm: grant.rpm,
            settings: grant.settings,
            run: None,
        })
    }

    /// One operation: a change, its event, and a fresh token of the agent, or of the run, that the change
    /// answers.
    pub(super) fn ledger_and_token(
        &mut self,
        asked: &TokenAsk<'_>,
        event: &Event<'_>,
        now: Now,
        change: impl FnOnce(&mut Ledger) -> Result<(i64, Option<i64>), LedgerError>,
    ) -> Result<(zeroize::Zeroizing<String>, i64, Option<i64>), Trouble> {
        let (token, digest) = token::make().map_err(|error| {
            tracing::error!(%error, "no randomness");
            RpcError::new(code::UNAVAILABLE, "the system gives no randomness")
        })?;
        let own_end = asked.ttl_s.map(|ttl_s| expiry(now, ttl_s)).transpose()?;
        let expires_at_ms = own_end.into_iter().chain(asked.until_ms).min();
        let token_id = self.ledger.within(|ledger| {
            let (agent, run) = change(ledger)?;
            let new = NewToken {
                digest: &digest,
                label: asked.label,
                created_at_ms: now.wall_ms,
                expires_at_ms,
                run,
                read_only: asked.read_only,
            };
            let id = ledger.insert_token(agent, &new)?;
            ledger.append(event)?;
            Ok(id)
        })?;
        Ok((token, token_id, expires_at_ms))
    }

    fn set(&mut self, params: &SetParams, now: Now) -> Changed {
        let agent = self.living(&params.name)?;
        let mut grant = agent.grant.clone();
        grant.budget_micro = new_budget(&grant, params.budget_micro, params.add_micro)?;
        grant.rpm = params.rpm.or(grant.rpm);
        if let Some(rpm) = grant.rpm {
            check_rpm(rpm)?;
        }
        if let Some(group) = &params.group {
            grant.group = self.group_id(Some(group))?;
        }
        self.new_settings(
            &mut grant,
            &params.settings,
            &params.clear,
            &params.drop_limits,
        )?;
        self.change(&agent, &grant, "agent.set", now)
    }

    /// Takes a change of settings, as [`merge`] and [`clear`] do; what is there then is checked as a whole.
    pub(super) fn new_settings(
        &self,
        grant: &mut Recorded,
        settings: &Settings,
        cleared: &[String],
        dropped: &[LimitKey],
    ) -> Result<(), Trouble> {
        check_settings(settings, &self.config)?;
        let mut set = settings.limits.iter().flatten();
        if let Some(both) = set.find(|limit| dropped.contains(&limit.key)) {
            return Err(invalid(format!(
                "{} cannot be set and dropped at once: drop it first, then set it, and it counts from then",
                both.key
            )));
        }
        merge(&mut grant.settings, settings);
        for name in cleared {
            clear(&mut grant.settings, name)?;
        }
        if !dropped.is_empty() {
            drop_limits(&mut grant.settings, dropped)?;
        }
        check_settings(&grant.settings, &self.config)
    }

    fn turn(&mut self, name: &str, state: AgentState, action: &str, now: Now) -> Changed {
        let agent = self.living(name)?;
        let grant = Recorded {
            state,
            ..agent.grant.clone()
        };
        self.change(&agent, &grant, action, now)
    }

    /// Pause, and cut what is open.
    fn sever(&mut self, name: &str, now: Now) -> Changed {
        let agent = self.living(name)?;
        let grant = Recorded {
            state: AgentState::Paused,
            ..agent.grant.clone()
        };
        let view = self.change(&agent, &grant, "agent.sever", now)?;
        self.cut_open(&[agent.id]);
        Ok(view)
    }

    fn delete(&mut self, name: &str, now: Now) -> Changed {
        let agent = self.living(name)?;
        self.ledger
            .end_tokens(agent_id(&agent)?, now.wall_ms, now.wall_ms)?;
        let grant = Recorded {
            state: AgentState::Closed,
            ..agent.grant.clone()
        };
        self.end_runs_of(agent_id(&agent)?, now)?;
        let view = self.change(&agent, &grant, "agent.delete", now)?;
        self.cut_open(&[agent.id]);
        Ok(view)
    }

    /// Cuts what is open in any of these scopes, or below it.
    pub(super) fn cut_open(&mut self, scopes: &[ScopeId]) {
        let now_boot_ms = self.now().boot_ms;
        let mut memory = self.shared.memory();
        for (id, hold) in &mut memory.open {
            let mut path = hold.terms.charged.path(hold.agent);
            if path.any(|scope| scopes.contains(&scope)) {
                hold.course.severed = true;
                hold.course.cut_boot_ms = now_boot_ms;
                // Ordered once the ledger has it: a sever that failed has cut nothing.
                self.to_cut.push(*id);
            }
        }
    }

    /// Writes a changed grant and its event, and answers the agent as it is then.
    fn change(&mut self, agent: &Scope, grant: &Recorded, action: &str, now: Now) -> Changed {
        let detail = text_of(&json!({ "was": agent.grant, "now": grant }));
        let id = agent_id(agent)?;
        self.ledger.within(|ledger| {
            ledger.set_grant(id, grant)?;
            ledger.append(&Event::note(
                now.wall_ms,
                Some(&agent.name),
                action,
                &detail,
            ))?;
            Ok(())
        })?;
        self.forget_dropped(agent, grant)?;
        self.stirred.insert(agent.id);
        if grant.group != agent.grant.group {
            // What waits above may fit where it is now.
            self.stirred.extend(self.waiting.scopes());
        }
        let mut after = agent.clone();
        after.grant = grant.clone();
        after.balance.budget_micro = grant.budget_micro;
        let group = grant
            .group
            .map(|group| self.ledger.node(group))
            .transpose()?;
        let group = group.flatten().map(|group| group.name);
        let zone = self.zone_of(agent.id)?;
        reply_of(&views::agent(&after, group, &zone, &self.shared, now))
    }

    /// What a limit has counted goes with it, and all sums of a scope with its end.
    pub(super) fn forget_dropped(
        &mut self,
        scope: &Scope,
        grant: &Recorded,
    ) -> Result<(), LedgerError> {
        if grant.state == AgentState::Closed {
            self.ledger.forget_counters_of(scope.id)?;
            self.shared.memory().book.forget_scope(scope.id);
            return Ok(());
        }
        let before = scope.grant.settings.limits.iter().flatten();
        let still = |key: &LimitKey| {
            let mut limits = grant.settings.limits.iter().flatten();
            limits.any(|limit| limit.key == *key)
        };
        for limit in before.filter(|limit| !still(&limit.key)) {
            self.ledger.forget_counters(scope.id, &limit.key)?;
            self.shared.memory().book.forget(scope.id, &limit.key);
        }
        Ok(())
    }

    fn rotate(&mut self, params: &RotateParams, now: Now) -> Changed {
        let agent = self.living(&params.name)?;
        let end_ms = expiry(now, params.grace_s.unwrap_or(0))?;
        let detail = text_of(&json!({ "old_tokens_end_at_ms": end_ms }));
        let made = TokenAsk {
            ttl_s: params.ttl_s,
            label: ROTATED,
            ..TokenAsk::default()
        };
        let event = Event::note(
            now.wall_ms,
            Some(&agent.name),
            "agent.rotate_token",
            &detail,
        );
        let id = agent_id(&agent)?;
        let reply = self.token_reply(&agent, &made, &event, now, |ledger| {
            ledger.end_tokens(id, end_ms, now.wall_ms)?;
            Ok((id, None))
        })?;
        reply_of(&reply)
    }

    fn create_token(&mut self, params: &TokenCreateParams, now: Now) -> Changed {
        let agent = self.living(&params.name)?;
        let label = params.label.as_deref().unwrap_or("token");
        if label.is_empty() || label.len() > MAX_LABEL_BYTES || label.chars().any(char::is_control)
        {
            return Err(invalid("label is 1 to 64 bytes of printable text"));
        }
        let detail = text_of(&json!({ "label": label, "read_only": params.read_only }));
        let made = TokenAsk {
            ttl_s: params.ttl_s,
            label,
            read_only: params.read_only,
            until_ms: None,
        };
        let event = Event::note(now.wall_ms, Some(&agent.name), "token.create", &detail);
        let id = agent_id(&agent)?;
        let reply = self.token_reply(&agent, &made, &event, now, |_| Ok((id, None)))?;
        reply_of(&reply)
    }

    pub(super) fn token_reply(
        &mut self,
        agent: &Scope,
        asked: &TokenAsk<'_>,
        event: &Event<'_>,
        now: Now,
        change: impl FnOnce(&mut Ledger) -> Result<(i64, Option<i64>), LedgerError>,
    ) -> Result<TokenReply, Trouble> {
        let (token, token_id, expires_at_ms) = self.ledger_and_token(asked, event, now, change)?;
        Ok(TokenReply {
            name: agent.name.clone(),
            token: token.to_string(),
            token_id,
            expires_at_ms,
            budget_micro: agent.grant.budget_micro,
            rpm: agent.grant.rpm,
            settings: agent.grant.settings.clone(),
            run: None,
        })
    }

    fn revoke_token(&mut self, id: i64, now: Now) -> Changed {
        let agent = self.ledger.within(|ledger| {
            let agent = ledger.revoke_token(id, now.wall_ms)?;
            if let Some(agent) = &agent {
                let detail = text_of(&json!({ "token_id": id }));
                ledger.append(&Event::note(
                    now.wall_ms,
                    Some(agent),
                    "token.revoke",
                    &detail,
                ))?;
            }
            Ok(agent)
        })?;
        match agent {
            Some(agent) => Ok(json!({ "id": id, "agent": agent, "revoked": true })),
            None => Err(RpcError::new(
                code::NOT_FOUND,
                format!("there is no token {id}; see aex token list NAME"),
            )
            .into()),
        }
    }

    /// An agent that is not deleted.
    pub(super) fn living(&self, name: &str) -> Result<Scope, Trouble> {
        match self.ledger.agent_by_name(name)? {
            Some(agent) if agent.grant.state != AgentState::Closed => Ok(agent),
            Some(_) => {
                Err(RpcError::new(code::NOT_FOUND, format!("agent {name} is deleted")).into())
            }
            None => Err(RpcError::new(
                code::NOT_FOUND,
                format!("there is no agent {name}; see aex agent list"),
            )
            .into()),
        }
    }
}

/// The row of `agents` that a scope is.
pub(super) fn agent_id(agent: &Scope) -> Result<i64, Trouble> {
    match agent.id {
        ScopeId::Agent(id) => Ok(id),
        ScopeId::Node(_) => Err(LedgerError::Value("an agent that is none".to_owned()).into()),
    }
}

/// The budget that a change comes to; none stays none unless one is given.
pub(super) fn new_budget(
    grant: &Recorded,
    budget_micro: Option<i64>,
    add_micro: Option<i64>,
) -> Result<Option<i64>, Trouble> {
    let budget = match (budget_micro, add_micro) {
        (Some(_), Some(_)) => {
            return Err(invalid("budget_micro and add_micro exclude each other"));
        }
        (Some(budget_micro), None) => Some(budget_micro),
        (None, Some(add_micro)) => {
            let before = grant
                .budget_micro
                .ok_or_else(|| invalid("there is no budget to add to; set one first"))?;
            let sum = before.checked_add(add_micro);
            Some(sum.ok_or_else(|| invalid("the budget would be too large"))?)
        }
        (None, None) => grant.budget_micro,
    };
    if let Some(budget_micro) = budget {
        check_budget(budget_micro)?;
    }
    Ok(budget)
}

pub(super) fn invalid(message: impl Into<String>) -> Trouble {
    RpcError::new(code::INVALID_PARAMS, message).into()
}

pub(super) fn text_of(value: &Value) -> String {
    value.to_string()
}

pub(super) fn reply_of<T: Serialize>(value: &T) -> Changed {
    serde_json::to_value(value).map_err(|error| {
        LedgerError::Value(format!("an answer does not serialise: {error}")).into()
    })
}

pub(super) fn expiry(now: Now, after_s: u64) -> Result<i64, Trouble> {
    i64::try_from(after_s)
        .ok()
        .and_then(|after_s| after_s.checked_mul(1000))
        .and_then(|after_ms| now.wall_ms.checked_add(after_ms))
        .ok_or_else(|| invalid("the time is too far away"))
}

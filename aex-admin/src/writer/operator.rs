//! What an operator changes: agents, their limits, their state, their tokens. Each change and its
//! event are one operation.

use aex_admin_proto::operator::{
    AgentState, CreateParams, NameParams, ResolveParams, RotateParams, SetParams, Settings,
    TokenCreateParams, TokenIdParams, TokenReply,
};
use aex_admin_proto::rpc::{RpcError, code};
use serde::Serialize;
use serde_json::{Value, json};

use super::answers::Answers;
use super::patterns::{check_patterns, check_together};
use super::requests::of_one_operation;
use super::{Reply, Writer};
use crate::core::money::MAX_BUDGET_MICRO;
use crate::core::reserve::Now;
use crate::ledger::reader::HoldHistory;
use crate::ledger::{AgentRow, Event, LedgerError, NewAgent, Recorded};
use crate::{token, views};

const MAX_NAME_BYTES: usize = 64;
const MAX_LIST: usize = 256;

#[derive(Debug)]
pub enum OperatorCommand {
    Create(CreateParams),
    Set(Box<SetParams>),
    Rotate(RotateParams),
    Pause(NameParams),
    Resume(NameParams),
    Sever(NameParams),
    Delete(NameParams),
    TokenCreate(TokenCreateParams),
    TokenRevoke(TokenIdParams),
    Checkpoint,
    /// With what was read of the reservation before, if it is about one.
    Resolve(Box<ResolveParams>, Option<HoldHistory>),
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
            OperatorCommand::TokenCreate(params) => self.create_token(&params, now),
            OperatorCommand::TokenRevoke(params) => self.revoke_token(params.id, now),
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
        check_settings(&params.settings)?;
        check_patterns(&params.settings, &self.config)?;
        if self.ledger.agent_by_name(&params.name)?.is_some() {
            let text = format!(
                "the name {} is taken (also by a deleted agent, whose history stays); choose another",
                params.name
            );
            return Err(RpcError::new(code::CONFLICT, text).into());
        }
        let grant = Recorded {
            state: AgentState::Active,
            budget_micro: params.budget_micro,
            rpm: params.rpm,
            settings: params.settings.clone(),
        };
        let created_at_ms = now.wall_ms;
        let detail = text_of(&json!({ "now": grant }));
        let new = NewAgent {
            name: &params.name,
            grant: &grant,
            created_at_ms,
        };
        let (token, token_id, expires_at_ms) = self.ledger_and_token(
            &params.name,
            params.ttl_s,
            "agent.create",
            &detail,
            now,
            |ledger| ledger.insert_agent(&new),
            "create",
        )?;
        reply_of(&TokenReply {
            name: params.name.clone(),
            token: token.to_string(),
            token_id,
            expires_at_ms,
            budget_micro: grant.budget_micro,
            rpm: grant.rpm,
            settings: grant.settings,
        })
    }

    /// One operation: a change, its event, and a fresh token of the agent.
    #[expect(
        clippy::too_many_arguments,
        reason = "one operation of several parts, called thrice"
    )]
    fn ledger_and_token(
        &mut self,
        agent: &str,
        ttl_s: Option<u64>,
        action: &str,
        detail: &str,
        now: Now,
        change: impl FnOnce(&mut crate::ledger::Ledger) -> Result<i64, LedgerError>,
        label: &str,
    ) -> Result<(zeroize::Zeroizing<String>, i64, Option<i64>), Trouble> {
        let (token, digest) = token::make().map_err(|error| {
            tracing::error!(%error, "no randomness");
            RpcError::new(code::UNAVAILABLE, "the system gives no randomness")
        })?;
        let expires_at_ms = ttl_s.map(|ttl_s| expiry(now, ttl_s)).transpose()?;
        let token_id = self.ledger.within(|ledger| {
            let agent_id = change(ledger)?;
            let id = ledger.insert_token(agent_id, &digest, label, now.wall_ms, expires_at_ms)?;
            ledger.append(&Event::note(now.wall_ms, Some(agent), action, detail))?;
            Ok(id)
        })?;
        Ok((token, token_id, expires_at_ms))
    }

    fn set(&mut self, params: &SetParams, now: Now) -> Changed {
        let agent = self.living(&params.name)?;
        let mut grant = agent.grant.clone();
        grant.budget_micro = match (params.budget_micro, params.add_micro) {
            (Some(_), Some(_)) => {
                return Err(invalid("budget_micro and add_micro exclude each other"));
            }
            (Some(budget_micro), None) => budget_micro,
            (None, Some(add_micro)) => grant
                .budget_micro
                .checked_add(add_micro)
                .ok_or_else(|| invalid("the budget would be too large"))?,
            (None, None) => grant.budget_micro,
        };
        check_budget(grant.budget_micro)?;
        grant.rpm = params.rpm.unwrap_or(grant.rpm);
        check_rpm(grant.rpm)?;
        check_settings(&params.settings)?;
        check_patterns(&params.settings, &self.config)?;
        merge(&mut grant.settings, &params.settings);
        for name in &params.clear {
            clear(&mut grant.settings, name)?;
        }
        check_together(&grant.settings)?;
        self.change(&agent, &grant, "agent.set", now)
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
        self.cut_open(agent.id);
        Ok(view)
    }

    fn delete(&mut self, name: &str, now: Now) -> Changed {
        let agent = self.living(name)?;
        self.ledger.end_tokens(agent.id, now.wall_ms, now.wall_ms)?;
        let grant = Recorded {
            state: AgentState::Closed,
            ..agent.grant.clone()
        };
        let view = self.change(&agent, &grant, "agent.delete", now)?;
        self.cut_open(agent.id);
        Ok(view)
    }

    fn cut_open(&self, agent: i64) {
        let mut memory = self.shared.memory();
        for (id, hold) in memory
            .open
            .iter_mut()
            .filter(|(_, hold)| hold.agent == agent)
        {
            hold.course.severed = true;
            hold.course.cut_boot_ms = self.now().boot_ms;
            self.shared.order_cut(*id);
        }
    }

    /// Writes a changed grant and its event, and answers the agent as it is then.
    fn change(&mut self, agent: &AgentRow, grant: &Recorded, action: &str, now: Now) -> Changed {
        let detail = text_of(&json!({ "was": agent.grant, "now": grant }));
        self.ledger.within(|ledger| {
            ledger.set_grant(agent.id, grant)?;
            ledger.append(&Event::note(
                now.wall_ms,
                Some(&agent.name),
                action,
                &detail,
            ))?;
            Ok(())
        })?;
        self.stirred.insert(agent.id);
        let mut after = agent.clone();
        after.grant = grant.clone();
        after.balance.budget_micro = grant.budget_micro;
        reply_of(&views::agent(&after, &self.shared, now.boot_ms))
    }

    fn rotate(&mut self, params: &RotateParams, now: Now) -> Changed {
        let agent = self.living(&params.name)?;
        let end_ms = expiry(now, params.grace_s.unwrap_or(0))?;
        let detail = text_of(&json!({ "old_tokens_end_at_ms": end_ms }));
        self.token_reply(
            &agent,
            params.ttl_s,
            "agent.rotate_token",
            &detail,
            now,
            |ledger| {
                ledger.end_tokens(agent.id, end_ms, now.wall_ms)?;
                Ok(agent.id)
            },
            "rotate",
        )
    }

    fn create_token(&mut self, params: &TokenCreateParams, now: Now) -> Changed {
        let agent = self.living(&params.name)?;
        let label = params.label.as_deref().unwrap_or("token");
        if label.is_empty() || label.len() > MAX_NAME_BYTES || label.chars().any(char::is_control) {
            return Err(invalid("label is 1 to 64 bytes of printable text"));
        }
        let detail = text_of(&json!({ "label": label }));
        self.token_reply(
            &agent,
            params.ttl_s,
            "token.create",
            &detail,
            now,
            |_| Ok(agent.id),
            label,
        )
    }

    #[expect(clippy::too_many_arguments, reason = "see ledger_and_token")]
    fn token_reply(
        &mut self,
        agent: &AgentRow,
        ttl_s: Option<u64>,
        action: &str,
        detail: &str,
        now: Now,
        change: impl FnOnce(&mut crate::ledger::Ledger) -> Result<i64, LedgerError>,
        label: &str,
    ) -> Changed {
        let (token, token_id, expires_at_ms) =
            self.ledger_and_token(&agent.name, ttl_s, action, detail, now, change, label)?;
        reply_of(&TokenReply {
            name: agent.name.clone(),
            token: token.to_string(),
            token_id,
            expires_at_ms,
            budget_micro: agent.grant.budget_micro,
            rpm: agent.grant.rpm,
            settings: agent.grant.settings.clone(),
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
    fn living(&self, name: &str) -> Result<AgentRow, Trouble> {
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

fn invalid(message: impl Into<String>) -> Trouble {
    RpcError::new(code::INVALID_PARAMS, message).into()
}

fn text_of(value: &Value) -> String {
    value.to_string()
}

pub(super) fn reply_of<T: Serialize>(value: &T) -> Changed {
    serde_json::to_value(value).map_err(|error| {
        LedgerError::Value(format!("an answer does not serialise: {error}")).into()
    })
}

fn expiry(now: Now, after_s: u64) -> Result<i64, Trouble> {
    i64::try_from(after_s)
        .ok()
        .and_then(|after_s| after_s.checked_mul(1000))
        .and_then(|after_ms| now.wall_ms.checked_add(after_ms))
        .ok_or_else(|| invalid("the time is too far away"))
}

fn check_name(name: &str) -> Result<(), Trouble> {
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if starts_well && name.len() <= MAX_NAME_BYTES && name.chars().all(known) {
        return Ok(());
    }
    Err(invalid(
        "a name is 1 to 64 of A-Z a-z 0-9 . _ - and begins with a letter or digit",
    ))
}

fn check_budget(budget_micro: i64) -> Result<(), Trouble> {
    if (0..=MAX_BUDGET_MICRO).contains(&budget_micro) {
        return Ok(());
    }
    Err(invalid("a budget is 0 to 9000000 USD"))
}

fn check_rpm(rpm: u64) -> Result<(), Trouble> {
    if (1..=1_000_000_000).contains(&rpm) {
        return Ok(());
    }
    Err(invalid(
        "requests per minute are 1 to 1000000000; to stop an agent, pause it",
    ))
}

fn check_settings(settings: &Settings) -> Result<(), Trouble> {
    let limits = [
        ("max_tokens_per_minute", settings.max_tokens_per_minute),
        ("max_input_tokens", settings.max_input_tokens),
        ("max_output_tokens", settings.max_output_tokens),
        ("max_concurrency", settings.max_concurrency),
    ];
    for (name, limit) in limits {
        if limit.is_some_and(|limit| limit == 0 || limit > 1_000_000_000_000) {
            return Err(invalid(format!(
                "{name} is 1 to 1000000000000; leave it out for no limit"
            )));
        }
    }
    for (what, names) in [
        ("allowed_models", &settings.allowed_models),
        ("allowed_tools", &settings.allowed_tools),
        (
            "allowed_providers",
            &settings.capabilities.allowed_providers,
        ),
        ("denied_tools", &settings.capabilities.denied_tools),
    ] {
        let Some(names) = names else { continue };
        let fits = |name: &String| {
            !name.is_empty()
                && name.len() <= 256
                && !name
                    .chars()
                    .any(|c| c == ',' || c.is_control() || c.is_whitespace())
        };
        if names.is_empty() || names.len() > MAX_LIST || !names.iter().all(fits) {
            return Err(invalid(format!(
                "{what} is 1 to {MAX_LIST} names without spaces or commas"
            )));
        }
    }
    Ok(())
}

fn merge(into: &mut Settings, from: &Settings) {
    fn take<T: Clone>(into: &mut Option<T>, from: &Option<T>) {
        if from.is_some() {
            into.clone_from(from);
        }
    }
    take(&mut into.allowed_models, &from.allowed_models);
    take(&mut into.passthrough, &from.passthrough);
    take(&mut into.max_tokens_per_minute, &from.max_tokens_per_minute);
    take(&mut into.max_input_tokens, &from.max_input_tokens);
    take(&mut into.max_output_tokens, &from.max_output_tokens);
    take(&mut into.max_concurrency, &from.max_concurrency);
    take(&mut into.streaming, &from.streaming);
    take(&mut into.tools, &from.tools);
    take(&mut into.allowed_tools, &from.allowed_tools);
    take(&mut into.vision, &from.vision);
    into.capabilities.merge(&from.capabilities);
}

fn clear(settings: &mut Settings, name: &str) -> Result<(), Trouble> {
    match name {
        "allowed_models" => settings.allowed_models = None,
        "passthrough" => settings.passthrough = None,
        "max_tokens_per_minute" => settings.max_tokens_per_minute = None,
        "max_input_tokens" => settings.max_input_tokens = None,
        "max_output_tokens" => settings.max_output_tokens = None,
        "max_concurrency" => settings.max_concurrency = None,
        "streaming" => settings.streaming = None,
        "tools" => settings.tools = None,
        "allowed_tools" => settings.allowed_tools = None,
        "vision" => settings.vision = None,
        other if settings.capabilities.clear(other) => {}
        _ => return Err(invalid(format!("there is no setting {name}"))),
    }
    Ok(())
}

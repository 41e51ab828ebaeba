//! What an operator changes.

use aex_admin_proto::operator::{
    AgentState, AgentView, CreateParams, RotateParams, SetParams, Settings, TokenReply,
};
use aex_admin_proto::rpc::code;
use serde::Serialize;

use super::{Agent, Go, Grant, Model, Struck, Token, ceil_micro, floor_micro, free};
use crate::asks::{Answer, Change, Tag, Turn};

/// 9,000,000 USD.
const MAX_BUDGET_MICRO: i64 = 9_000_000_000_000;

impl Model {
    pub(super) fn change(&mut self, tag: Tag, change: Change) -> Go {
        self.write_rows()?;
        let answer = match change {
            Change::Create(params) => self.create(&params)?,
            Change::Set(params) => self.set(&params)?,
            Change::Rotate(params) => self.rotate(&params)?,
            Change::Turn(turn, name) => self.turn(turn, &name)?,
        };
        self.with_commit.push((tag, answer));
        Ok(())
    }

    fn create(&mut self, params: &CreateParams) -> Result<Answer, Struck> {
        if self.find_agent(&params.name).is_some() {
            return Ok(Answer::Error(code::CONFLICT));
        }
        self.append(None, false)?;
        let grant = Grant {
            state: AgentState::Active,
            budget_micro: params.budget_micro,
            rpm: params.rpm,
            settings: params.settings.clone(),
        };
        self.state.agents.push(Agent {
            name: params.name.clone(),
            recorded: grant.clone(),
            grant,
            spent: 0,
            held: 0,
            tokens: Vec::new(),
            created_at_ms: self.now.wall_ms,
        });
        Ok(self.new_token(self.state.agents.len() - 1, params.ttl_s))
    }

    /// A fresh token; its digest is learnt from the real answer.
    fn new_token(&mut self, index: usize, ttl_s: Option<u64>) -> Answer {
        let expires_at_ms = ttl_s.map(|ttl_s| self.later(ttl_s));
        let agent = &mut self.state.agents[index];
        agent.tokens.push(Token {
            digest: None,
            expires_at_ms,
            revoked: false,
        });
        changed(&TokenReply {
            name: agent.name.clone(),
            token: String::new(),
            token_id: 0,
            expires_at_ms,
            budget_micro: Some(agent.grant.budget_micro),
            rpm: Some(agent.grant.rpm),
            settings: agent.grant.settings.clone(),
            run: None,
        })
    }

    fn later(&self, after_s: u64) -> i64 {
        self.now.wall_ms + i64::try_from(after_s).unwrap() * 1000
    }

    fn living(&self, name: &str) -> Option<usize> {
        let index = self.find_agent(name)?;
        let closed = self.state.agents[index].grant.state == AgentState::Closed;
        (!closed).then_some(index)
    }

    fn set(&mut self, params: &SetParams) -> Result<Answer, Struck> {
        let Some(index) = self.living(&params.name) else {
            return Ok(Answer::Error(code::NOT_FOUND));
        };
        let mut grant = self.state.agents[index].grant.clone();
        let added = grant.budget_micro + params.add_micro.unwrap_or(0);
        grant.budget_micro = params.budget_micro.unwrap_or(added);
        grant.rpm = params.rpm.unwrap_or(grant.rpm);
        let both = params.budget_micro.is_some() && params.add_micro.is_some();
        if both || !(0..=MAX_BUDGET_MICRO).contains(&grant.budget_micro) || grant.rpm == 0 {
            return Ok(Answer::Error(code::INVALID_PARAMS));
        }
        merge(&mut grant.settings, &params.settings);
        for name in &params.clear {
            match name.as_str() {
                "allowed_models" => grant.settings.allowed_models = None,
                "max_concurrency" => grant.settings.max_concurrency = None,
                "max_tokens_per_minute" => grant.settings.max_tokens_per_minute = None,
                _ => return Ok(Answer::Error(code::INVALID_PARAMS)),
            }
        }
        self.grant_anew(index, grant)
    }

    fn grant_anew(&mut self, index: usize, grant: Grant) -> Result<Answer, Struck> {
        self.append(None, false)?;
        let agent = &mut self.state.agents[index];
        agent.grant = grant.clone();
        agent.recorded = grant;
        self.stirred.insert(index);
        Ok(self.view(index))
    }

    fn view(&self, index: usize) -> Answer {
        let agent = &self.state.agents[index];
        let (requests_last_minute, tokens_last_minute) = self.last_minute(index);
        changed(&AgentView {
            name: agent.name.clone(),
            state: agent.grant.state,
            budget_micro: agent.grant.budget_micro,
            spent_micro: floor_micro(agent.spent),
            reserved_micro: ceil_micro(agent.held),
            remaining_micro: floor_micro(free(agent)),
            rpm: agent.grant.rpm,
            settings: agent.grant.settings.clone(),
            created_at_ms: agent.created_at_ms,
            in_flight: self.open_of(index).count() as u64,
            requests_last_minute,
            tokens_last_minute,
            group: None,
            limits: Vec::new(),
        })
    }

    fn rotate(&mut self, params: &RotateParams) -> Result<Answer, Struck> {
        let Some(index) = self.living(&params.name) else {
            return Ok(Answer::Error(code::NOT_FOUND));
        };
        self.append(None, false)?;
        let end_ms = self.later(params.grace_s.unwrap_or(0));
        let now_ms = self.now.wall_ms;
        for token in &mut self.state.agents[index].tokens {
            if end_ms <= now_ms {
                token.revoked = true;
            } else if token.expires_at_ms.is_none_or(|at_ms| at_ms > end_ms) {
                token.expires_at_ms = Some(end_ms);
            }
        }
        Ok(self.new_token(index, params.ttl_s))
    }

    fn turn(&mut self, turn: Turn, name: &str) -> Result<Answer, Struck> {
        let Some(index) = self.living(name) else {
            return Ok(Answer::Error(code::NOT_FOUND));
        };
        let state = match turn {
            Turn::Pause | Turn::Sever => AgentState::Paused,
            Turn::Resume => AgentState::Active,
            Turn::Delete => AgentState::Closed,
        };
        let grant = Grant {
            state,
            ..self.state.agents[index].grant.clone()
        };
        let answer = self.grant_anew(index, grant)?;
        if turn == Turn::Delete {
            let tokens = self.state.agents[index].tokens.iter_mut();
            tokens.for_each(|token| token.revoked = true);
        }
        if matches!(turn, Turn::Sever | Turn::Delete) {
            let holds = self.state.holds.iter_mut();
            holds
                .filter(|hold| hold.open && hold.agent == index)
                .for_each(|hold| hold.severed = true);
        }
        Ok(answer)
    }
}

fn changed<T: Serialize>(value: &T) -> Answer {
    Answer::Changed(serde_json::to_value(value).unwrap())
}

/// What is said replaces; of settings, those that the simulation sets.
fn merge(into: &mut Settings, from: &Settings) {
    let from = from.clone();
    into.allowed_models = from.allowed_models.or(into.allowed_models.take());
    into.max_tokens_per_minute = from.max_tokens_per_minute.or(into.max_tokens_per_minute);
    into.max_input_tokens = from.max_input_tokens.or(into.max_input_tokens);
    into.max_output_tokens = from.max_output_tokens.or(into.max_output_tokens);
    into.max_concurrency = from.max_concurrency.or(into.max_concurrency);
    into.streaming = from.streaming.or(into.streaming);
    into.tools = from.tools.or(into.tools);
    into.allowed_tools = from.allowed_tools.or(into.allowed_tools.take());
    into.vision = from.vision.or(into.vision);
    into.passthrough = from.passthrough.or(into.passthrough);
}

//! May this request go? The order of refusals as docs/LEDGER.md has it.

use aex_admin_proto::operator::{AgentState, Passthrough};
use aex_admin_proto::scope::ScopeKind;
use aex_admin_proto::worker::{Facts, Measured, Replay, ReserveParams};
use aex_admin_proto::{IdempotencyConflict, Refusal};

use super::{
    Agent, DAY_MS, Entry, MINUTE_MS, Model, ceil_micro, floor_micro, free, remaining, unspent,
};
use crate::setup::{
    AGENT_MAX_OUTPUT, DEFAULT_OUTPUT, EXTRA_PARAM, MIN_OUTPUT, ModelFact, Prices, model,
};

pub(super) enum Decision {
    Grant {
        agent: usize,
        model: &'static ModelFact,
        input_tokens: u64,
        cap: u64,
        pico: i128,
    },
    Refuse(Refusal),
    Replay(Replay),
    /// The worker is to count first.
    Measure(Refusal),
    Wait {
        agent: usize,
        refusal: Refusal,
    },
}

enum Stop {
    Refuse(Refusal),
    /// For the bound of the prompt alone.
    Long(Refusal),
    Wait(Refusal),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

/// Whether something of this agent and model counts.
type IsIn<'a> = &'a dyn Fn(usize, &str) -> bool;
/// A limit, and what counts against it.
type Scope<'a> = (Option<u64>, IsIn<'a>);

/// One request before the windows and the money are looked at.
#[derive(Clone, Copy)]
struct Asked {
    price: Prices,
    input_tokens: u64,
    choices: u64,
    /// The least output that makes sense, and the most that may be granted.
    least: u64,
    most: u64,
}

impl Asked {
    fn hold(&self, cap: u64) -> i128 {
        let price = self.price;
        let dearest = price.input.max(price.cached).max(price.cache_write);
        dearest * i128::from(self.input_tokens)
            + price.output * i128::from(cap) * i128::from(self.choices)
    }

    /// The largest cap that `pico` pay for.
    fn affordable(&self, pico: i128) -> u64 {
        if pico < self.hold(0) {
            return 0;
        }
        let a_token = self.price.output * i128::from(self.choices);
        if a_token == 0 {
            return u64::MAX;
        }
        u64::try_from((pico - self.hold(0)) / a_token).unwrap()
    }
}

fn invalid(param: &str) -> Refusal {
    Refusal::InvalidRequest {
        message: String::new(),
        param: Some(param.to_owned()),
    }
}

fn denied(capability: &str) -> Refusal {
    Refusal::CapabilityNotAllowed {
        capability: capability.to_owned(),
    }
}

impl Model {
    /// `contenders`: this one, those that wait, and those that the same batch still holds.
    pub(super) fn decide(
        &self,
        params: &ReserveParams,
        contenders: u64,
        queue_ahead: bool,
    ) -> Decision {
        let agent = match self.who(params) {
            Ok(agent) => agent,
            Err(refusal) => return Decision::Refuse(refusal),
        };
        if let Some(before) = self.before(agent, params) {
            return before;
        }
        match self.terms(agent, params, contenders, queue_ahead) {
            Ok((model, input_tokens, cap, pico)) => Decision::Grant {
                agent,
                model,
                input_tokens,
                cap,
                pico,
            },
            Err(Stop::Long(refusal) | Stop::Wait(refusal))
                if self.may_be_counted(agent, params, contenders, queue_ahead) =>
            {
                Decision::Measure(refusal)
            }
            Err(Stop::Refuse(refusal) | Stop::Long(refusal)) => Decision::Refuse(refusal),
            Err(Stop::Wait(refusal)) => Decision::Wait { agent, refusal },
        }
    }

    /// Counting can be done, and a text of the longest tokens would fit, or wait.
    fn may_be_counted(
        &self,
        agent: usize,
        params: &ReserveParams,
        contenders: u64,
        queue_ahead: bool,
    ) -> bool {
        let facts = &params.facts;
        let counts = model(&params.model).is_some_and(|model| model.growth == 1);
        if facts.measured.is_some() || !counts {
            return false;
        }
        let mut least = params.clone();
        least.facts.measured = Some(Measured {
            text: (facts.ascii_bytes + facts.other_bytes) / 256,
            tools: facts.tool_bytes / 256,
        });
        let terms = self.terms(agent, &least, contenders, queue_ahead);
        matches!(terms, Ok(_) | Err(Stop::Wait(_)))
    }

    /// Whose token it is, whatever it is worth.
    pub(super) fn bearer(&self, params: &ReserveParams) -> Option<usize> {
        self.state.agents.iter().position(|agent| {
            let mut tokens = agent.tokens.iter();
            tokens.any(|token| token.digest == Some(params.token))
        })
    }

    fn who(&self, params: &ReserveParams) -> Result<usize, Refusal> {
        let index = self.bearer(params).ok_or(Refusal::InvalidToken)?;
        let agent = &self.state.agents[index];
        let token = (agent.tokens.iter())
            .find(|token| token.digest == Some(params.token))
            .ok_or(Refusal::InvalidToken)?;
        if token.revoked || agent.grant.state == AgentState::Closed {
            return Err(Refusal::InvalidToken);
        }
        if token
            .expires_at_ms
            .is_some_and(|at_ms| self.now.wall_ms >= at_ms)
        {
            return Err(Refusal::TokenExpired);
        }
        if agent.grant.state == AgentState::Paused {
            return Err(Refusal::AgentPaused);
        }
        Ok(index)
    }

    /// What was asked for under the same key before, unless it was given back or is a day old.
    fn before(&self, agent: usize, params: &ReserveParams) -> Option<Decision> {
        let asked = params.idempotency?;
        let first = self.state.holds.iter().rev().find(|hold| {
            let key = hold.params.idempotency.map(|before| before.key);
            hold.agent == agent && key == Some(asked.key) && !hold.released
        })?;
        let age_ms = i64::try_from(self.now.boot_ms).unwrap() - first.keyed_boot_ms;
        if !first.open && age_ms >= DAY_MS {
            return None;
        }
        let conflict = if first.params.idempotency != Some(asked) {
            IdempotencyConflict::AnotherRequest
        } else if first.open {
            IdempotencyConflict::StillRunning
        } else {
            return Some(Decision::Replay(Replay {
                id: first.id,
                remaining_micro: Some(remaining(&self.state.agents[agent])),
            }));
        };
        Some(Decision::Refuse(Refusal::IdempotencyConflict { conflict }))
    }

    fn terms(
        &self,
        index: usize,
        params: &ReserveParams,
        contenders: u64,
        queue_ahead: bool,
    ) -> Result<(&'static ModelFact, u64, u64, i128), Stop> {
        let agent = &self.state.agents[index];
        let (model, price) = choose_model(agent, &params.model)?;
        check_capabilities(agent, &params.facts)?;
        self.check_key(agent, &params.facts, model)?;
        check_params(&params.facts, model, price)?;
        let mut asked = bounds(agent, &params.facts, model, price)?;
        check_unspent(agent, &asked)?;
        let open = self.open_of(index).count() as u64;
        if let Some(limit) = agent.grant.settings.max_concurrency
            && open >= limit
        {
            return Err(Refusal::ConcurrencyLimit { limit }.into());
        }
        self.check_requests(index, model)?;
        asked.most = self.check_tokens(index, model, &asked)?;
        let (cap, pico) = fit(agent, &asked, open + contenders, queue_ahead)?;
        Ok((model, asked.input_tokens, cap, pico))
    }

    fn check_key(&self, agent: &Agent, facts: &Facts, model: &ModelFact) -> Result<(), Refusal> {
        let passthrough = agent.grant.settings.passthrough.unwrap_or_default();
        // `far` takes the operator's key alone.
        if facts.own_key && (passthrough == Passthrough::Deny || !model.loopback) {
            return Err(Refusal::PassthroughNotEnabled);
        }
        if facts.own_key {
            return Ok(());
        }
        let has_key = self.operator_keys.iter().any(|name| name == model.provider);
        if passthrough == Passthrough::Require || !(has_key || model.loopback) {
            return Err(Refusal::ProviderKeyRequired);
        }
        Ok(())
    }

    fn check_requests(&self, agent: usize, model: &ModelFact) -> Result<(), Refusal> {
        let rpm = self.state.agents[agent].grant.rpm;
        let scopes: [Scope<'_>; 2] = [
            (Some(rpm), &|of, _| of == agent),
            (model.rpm, &|_, of| of == model.name),
        ];
        for (whose, (limit, is_in)) in scopes.into_iter().enumerate() {
            let Some(limit) = limit else { continue };
            let waiting_for_an_answer = (self.state.holds.iter())
                .filter(|hold| hold.open && !hold.dispatched && is_in(hold.agent, hold.model.name))
                .count() as u64;
            let recent = self.recent(&self.state.requests, is_in);
            if waiting_for_an_answer + sum(&recent) >= limit {
                let retry_after_ms = self.until_left(&recent, 1);
                let refusal = Refusal::RequestRate {
                    limit,
                    retry_after_ms,
                };
                return Err(as_told(whose, refusal));
            }
        }
        Ok(())
    }

    fn check_tokens(&self, agent: usize, model: &ModelFact, asked: &Asked) -> Result<u64, Stop> {
        let tpm = self.state.agents[agent]
            .grant
            .settings
            .max_tokens_per_minute;
        let scopes: [Scope<'_>; 2] = [
            (tpm, &|of, _| of == agent),
            (model.tpm, &|_, of| of == model.name),
        ];
        let mut most = asked.most;
        for (whose, (limit, is_in)) in scopes.into_iter().enumerate() {
            let Some(limit) = limit else { continue };
            let held: u64 = (self.state.holds.iter())
                .filter(|hold| hold.open && is_in(hold.agent, hold.model.name))
                .map(super::Hold::tokens)
                .sum();
            let recent = self.recent(&self.state.tokens, is_in);
            let remaining = limit.saturating_sub(held + sum(&recent));
            let needed = asked.input_tokens + asked.least * asked.choices;
            if needed > remaining {
                let refusal = Refusal::TokenRate {
                    limit,
                    remaining,
                    retry_after_ms: self.until_left(&recent, needed - remaining),
                    never: needed > limit,
                };
                return Err(Stop::Long(as_told(whose, refusal)));
            }
            let left = (remaining - asked.input_tokens) / asked.choices;
            most = most.min(left).max(asked.least);
        }
        Ok(most)
    }

    /// What counts now, oldest first: when it leaves, and how much.
    fn recent(&self, entries: &[Entry], is_in: IsIn<'_>) -> Vec<(u64, u64)> {
        let mut recent: Vec<(u64, u64)> = (entries.iter())
            .filter(|entry| is_in(entry.agent, entry.model))
            .map(|entry| (entry.at_boot_ms + MINUTE_MS, entry.amount))
            .filter(|&(leaves_boot_ms, _)| leaves_boot_ms > self.now.boot_ms)
            .collect();
        recent.sort_unstable();
        recent
    }

    fn until_left(&self, recent: &[(u64, u64)], amount: u64) -> u64 {
        let mut left = 0;
        for &(leaves_boot_ms, part) in recent {
            left += part;
            if left >= amount {
                return (leaves_boot_ms - self.now.boot_ms).min(MINUTE_MS);
            }
        }
        MINUTE_MS
    }

    /// Requests and tokens of the last minute, those of open holds included.
    pub(super) fn last_minute(&self, agent: usize) -> (u64, u64) {
        let is_in = |of: usize, _: &str| of == agent;
        let undispatched = self.open_of(agent).filter(|hold| !hold.dispatched).count() as u64;
        let held: u64 = self.open_of(agent).map(super::Hold::tokens).sum();
        (
            undispatched + sum(&self.recent(&self.state.requests, &is_in)),
            held + sum(&self.recent(&self.state.tokens, &is_in)),
        )
    }

    /// Something of the last minute is remembered of the agent.
    pub(super) fn has_recent(&self, agent: usize) -> bool {
        let is_in = |of: usize, _: &str| of == agent;
        !self.recent(&self.state.requests, &is_in).is_empty()
            || !self.recent(&self.state.tokens, &is_in).is_empty()
    }
}

fn sum(recent: &[(u64, u64)]) -> u64 {
    recent.iter().map(|&(_, amount)| amount).sum()
}

fn choose_model(agent: &Agent, name: &str) -> Result<(&'static ModelFact, Prices), Refusal> {
    let allowed = agent.grant.settings.allowed_models.as_ref();
    let named = || name.to_owned();
    if allowed.is_some_and(|allowed| !allowed.iter().any(|allowed| allowed == name)) {
        return Err(Refusal::ModelNotAllowed { model: named() });
    }
    let found = model(name).ok_or_else(|| Refusal::ModelNotFound { model: named() })?;
    match found.price {
        Some(price) => Ok((found, price)),
        None => Err(Refusal::ModelNotPriced { model: named() }),
    }
}

fn check_capabilities(agent: &Agent, facts: &Facts) -> Result<(), Refusal> {
    let settings = &agent.grant.settings;
    if facts.stream && settings.streaming == Some(false) {
        return Err(denied("streaming"));
    }
    let searches = facts
        .costly_params
        .iter()
        .any(|p| p == "web_search_options");
    if settings.tools == Some(false) && (searches || !facts.tools.is_empty()) {
        return Err(denied("tools"));
    }
    if let Some(allowed) = &settings.allowed_tools {
        let mut offered = facts.tools.clone();
        offered.extend(searches.then(|| "web_search_options".to_owned()));
        if let Some(tool) = offered.iter().find(|tool| !allowed.contains(tool)) {
            return Err(denied(&format!("tool {tool}")));
        }
    }
    if facts.images > 0 && settings.vision == Some(false) {
        return Err(denied("vision"));
    }
    Ok(())
}

fn check_params(facts: &Facts, model: &ModelFact, price: Prices) -> Result<(), Refusal> {
    for param in facts.unknown_params.iter().chain(&facts.costly_params) {
        if ["n_predict", "models"].contains(&param.as_str()) {
            return Err(invalid(param));
        }
    }
    let is_free = price.output == 0 && price.input == 0;
    if is_free {
        // The one free model is on this machine.
        return Ok(());
    }
    if let Some(param) = facts.costly_params.first() {
        return Err(invalid(param));
    }
    let taken = |param: &str| model.provider == "far" && param == EXTRA_PARAM;
    if let Some(param) = facts.unknown_params.iter().find(|param| !taken(param)) {
        return Err(invalid(param));
    }
    if facts.images > 0 {
        return Err(invalid("messages"));
    }
    Ok(())
}

/// The model's limits are everybody's: what others have used is not the agent's to know.
fn as_told(whose: usize, refusal: Refusal) -> Refusal {
    if whose == 0 {
        return refusal;
    }
    Refusal::Above {
        scope: ScopeKind::Kernel,
        why: Box::new(refusal),
    }
}

fn bounds(agent: &Agent, facts: &Facts, model: &ModelFact, price: Prices) -> Result<Asked, Stop> {
    let settings = &agent.grant.settings;
    let text = match facts.measured {
        Some(measured) => measured.text + measured.tools * 4,
        None => facts.ascii_bytes + facts.other_bytes * model.growth + facts.tool_bytes * 4,
    };
    let bound = 48 + 8 * facts.messages + text + facts.images * 1024;
    let input_tokens = bound.min(model.context_window.unwrap_or(bound));
    if settings
        .max_input_tokens
        .is_some_and(|limit| input_tokens > limit)
    {
        return Err(Stop::Long(invalid("messages")));
    }
    // The agent's is of all answers together, the model's of each.
    let answers = facts.choices.max(1);
    let limit = settings.max_output_tokens.unwrap_or(AGENT_MAX_OUTPUT);
    let of_each = model.max_output.unwrap_or(u64::MAX);
    if facts.output_cap.unwrap_or(1) * answers > limit {
        return Err(invalid("max_tokens").into());
    }
    let limit = (limit / answers).min(of_each);
    let (least, most) = match facts.output_cap {
        Some(cap) if cap > of_each => return Err(invalid("max_tokens").into()),
        Some(cap) => (cap, cap),
        None => {
            let most = DEFAULT_OUTPUT.min(limit);
            (MIN_OUTPUT.min(most), most)
        }
    };
    Ok(Asked {
        price,
        input_tokens,
        choices: facts.choices.max(1),
        least,
        most,
    })
}

fn check_unspent(agent: &Agent, asked: &Asked) -> Result<(), Stop> {
    let unspent = unspent(agent);
    let needed = asked.hold(asked.least);
    if unspent > 0 && needed <= unspent {
        return Ok(());
    }
    let output_alone = asked.price.output * i128::from(asked.least) * i128::from(asked.choices);
    let stop = if unspent > 0 && output_alone <= unspent {
        Stop::Long
    } else {
        Stop::Refuse
    };
    Err(stop(Refusal::InsufficientBudget {
        scope: agent.name.clone(),
        needed_micro: ceil_micro(needed),
        remaining_micro: floor_micro(unspent).max(0),
        affordable_output_tokens: if unspent > 0 {
            asked.affordable(unspent)
        } else {
            0
        },
    }))
}

/// Even shares of the free money for those without a cap of their own; what does not fit waits.
fn fit(agent: &Agent, asked: &Asked, sharers: u64, queue_ahead: bool) -> Result<(u64, i128), Stop> {
    let wait = |needed: i128| {
        Stop::Wait(Refusal::BudgetHeld {
            scope: agent.name.clone(),
            needed_micro: ceil_micro(needed),
            free_micro: floor_micro(free(agent)).max(0),
            held_micro: ceil_micro(agent.held),
        })
    };
    let least = asked.hold(asked.least);
    if least == 0 {
        return Ok((asked.most, asked.hold(asked.most)));
    }
    let cap = if asked.least == asked.most {
        asked.most
    } else {
        let share = asked.affordable(free(agent) / i128::from(sharers));
        match share.min(asked.most) {
            cap if cap >= asked.least => cap,
            _ if agent.held == 0 => asked.least,
            _ => return Err(wait(least)),
        }
    };
    let pico = asked.hold(cap);
    if pico > free(agent) || queue_ahead {
        return Err(wait(pico));
    }
    Ok((cap, pico))
}

//! May this request go, and for how much? One decision over facts that were read in one transaction.
//!
//! The order is fixed, and told in docs/LEDGER.md: token, agent, model, capabilities, provider key,
//! the request's own bounds, money that could never fit, concurrency, requests a minute, tokens a
//! minute, and last the money that is only held. The first rule that is broken is the answer. What
//! is refused changes nothing.

mod params;

use aex_admin_proto::Refusal;
use aex_admin_proto::egress::KeyPolicy;
use aex_admin_proto::operator::{AgentState, Passthrough, Settings};
use aex_admin_proto::ticket::KeyMode;
use aex_admin_proto::tools::ToolRules;
use aex_admin_proto::worker::{Facts, Measured, OnDisconnect, Route};

use super::bound::Rendering;
use super::capabilities;
use super::hold::Terms;
use super::live::Live;
use super::money::{Balance, ceil_micro, floor_micro};
use super::price::Price;
use params::check_params;

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    pub name: String,
    pub state: AgentState,
    pub token_revoked: bool,
    pub token_expires_at_ms: Option<i64>,
    pub rpm: u64,
    /// The agent's own settings, with models.yaml's defaults where it has none.
    pub settings: Settings,
    pub balance: Balance,
}

/// What is asked for, as the configuration has it.
#[derive(Debug, Clone)]
pub struct ModelFacts<'a> {
    pub name: &'a str,
    pub provider: &'a str,
    pub upstream_model: &'a str,
    /// Absent: the model is listed, but has no price.
    pub price: Option<Price>,
    pub price_source: &'a str,
    pub max_output_tokens: Option<u64>,
    pub rendering: Rendering<'a>,
    /// It makes embeddings: its price has none of output.
    pub embeds_only: bool,
    pub hidden_output: bool,
    /// Its usage is of all choices; some servers report one choice's.
    pub counts_choices: bool,
    pub extra_params: &'a [String],
    pub keys: KeyPolicy,
    /// On this machine: needs no key.
    pub loopback: bool,
    pub operator_key: bool,
    pub max_requests_per_minute: Option<u64>,
    pub max_tokens_per_minute: Option<u64>,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub route: Route,
    pub model: &'a str,
    pub facts: &'a Facts,
}

/// What goes on around the request.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a> {
    pub agent: &'a Live,
    pub model: &'a Live,
    /// Requests of this agent that wait for money, or are being decided together with this one.
    pub contenders: u64,
    /// Others of this agent wait already: nobody overtakes them.
    pub queue_ahead: bool,
}

/// The operator's general settings that a decision needs.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    pub default_output_tokens: u64,
    pub min_output_tokens: u64,
    pub on_disconnect: OnDisconnect,
}

#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub boot_ms: u64,
    pub wall_ms: i64,
}

/// Why there is no grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    Refuse(Refusal),
    /// The bound of its prompt is what does not fit: a tighter one might.
    TooLong(Refusal),
    /// It would fit but for held money: worth waiting for. The refusal is for when none comes free.
    Wait(Refusal),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

/// The whole decision, in its order. `model` is absent when the configuration has none of that name.
///
/// # Errors
/// The first rule that is broken.
pub fn decide(
    asked: Asked<'_>,
    caller: Option<&Caller>,
    model: Option<&ModelFacts<'_>>,
    around: Around<'_>,
    defaults: Defaults,
    now: Now,
) -> Result<Terms, Stop> {
    let caller = authenticate(caller, now)?;
    let facts = asked.facts;
    let (model, price) = choose_model(asked.model, caller, model)?;
    capabilities::check(&caller.settings, asked.route, model.provider, facts)?;
    let tools: Vec<ToolRules> = ToolRules::of(&caller.settings).into_iter().collect();
    let left = capabilities::without_stripped(&tools, facts);
    let asked = Asked {
        facts: &left,
        ..asked
    };
    let key = choose_key(facts, caller, model)?;
    check_params(asked, model, &price)?;
    let input_tokens = bound_input(asked, caller, model)?;
    let caps = bound_output(asked, caller, model, defaults)?;
    let ask = Ask {
        facts,
        price: &price,
        input_tokens,
        caps,
    };
    check_unspent(caller, &ask)?;
    check_concurrency(caller, around.agent)?;
    check_request_rates(caller, model, around, now)?;
    let caps = check_token_rates(caller, model, around, &ask, now)?;
    let (output_cap, hold_pico) = fit_money(caller, around, &Ask { caps, ..ask })?;
    let choices = ask.choices();
    Ok(Terms {
        route: asked.route,
        model: model.name.to_owned(),
        provider: model.provider.to_owned(),
        upstream_model: model.upstream_model.to_owned(),
        key,
        price,
        price_source: model.price_source.to_owned(),
        hold_pico,
        input_tokens,
        output_cap,
        choices,
        prompts: facts.prompts.max(1),
        cap_is_ours: facts.output_cap.is_none() && asked.route.generates(),
        hidden_output: model.hidden_output,
        counts_choices: model.counts_choices,
        on_disconnect: defaults.on_disconnect,
        idempotency: None,
        tools,
    })
}

/// No token of any text is longer, in bytes.
const LONGEST_TOKEN_BYTES: u64 = 256;

/// The tokenizer to count the prompt with before `stop` is final, and the refusal where it is not
/// counted. Counting takes time: what cannot fit whatever the count is not worth it.
///
/// # Errors
/// The stop itself: counting would change nothing, or cannot be done.
pub fn counted_first(
    stop: Stop,
    asked: Asked<'_>,
    caller: Option<&Caller>,
    model: Option<&ModelFacts<'_>>,
    around: Around<'_>,
    defaults: Defaults,
    now: Now,
) -> Result<(String, Refusal), Stop> {
    let (Stop::TooLong(refusal) | Stop::Wait(refusal)) = &stop else {
        return Err(stop);
    };
    let facts = asked.facts;
    let countable = model.and_then(|model| model.rendering.countable());
    let Some(tokenizer) = countable.filter(|_| facts.measured.is_none()) else {
        return Err(stop);
    };
    let at_least = Facts {
        measured: Some(Measured {
            text: facts.ascii_bytes.saturating_add(facts.other_bytes) / LONGEST_TOKEN_BYTES,
            tools: facts.tool_bytes / LONGEST_TOKEN_BYTES,
        }),
        ..facts.clone()
    };
    let hopeful = Asked {
        facts: &at_least,
        ..asked
    };
    match decide(hopeful, caller, model, around, defaults, now) {
        Ok(_) | Err(Stop::Wait(_)) => Ok((tokenizer.to_owned(), refusal.clone())),
        Err(_) => Err(stop),
    }
}

/// Token and agent: who asks, and whether it may ask at all.
///
/// # Errors
/// 401 or 423.
pub fn authenticate(caller: Option<&Caller>, now: Now) -> Result<&Caller, Refusal> {
    let caller = caller.ok_or(Refusal::InvalidToken)?;
    if caller.token_revoked || caller.state == AgentState::Closed {
        return Err(Refusal::InvalidToken);
    }
    if caller
        .token_expires_at_ms
        .is_some_and(|expires_at_ms| now.wall_ms >= expires_at_ms)
    {
        return Err(Refusal::TokenExpired);
    }
    match caller.state {
        AgentState::Active => Ok(caller),
        AgentState::Paused | AgentState::Closed => Err(Refusal::AgentPaused),
    }
}

/// Whether the agent's whitelist, if it has one, names the model.
#[must_use]
pub fn may_use(settings: &Settings, model: &str) -> bool {
    settings.has_model(model)
}

fn choose_model<'a>(
    asked: &str,
    caller: &Caller,
    model: Option<&'a ModelFacts<'a>>,
) -> Result<(&'a ModelFacts<'a>, Price), Refusal> {
    if !may_use(&caller.settings, asked) {
        return Err(Refusal::ModelNotAllowed {
            model: asked.to_owned(),
        });
    }
    let model = model.ok_or_else(|| Refusal::ModelNotFound {
        model: asked.to_owned(),
    })?;
    let price = model.price.clone().ok_or_else(|| Refusal::ModelNotPriced {
        model: asked.to_owned(),
    })?;
    Ok((model, price))
}

fn choose_key(facts: &Facts, caller: &Caller, model: &ModelFacts<'_>) -> Result<KeyMode, Refusal> {
    let passthrough = caller.settings.passthrough.unwrap_or_default();
    if facts.own_key {
        let enabled = passthrough != Passthrough::Deny && model.keys != KeyPolicy::Operator;
        return if enabled {
            Ok(KeyMode::Own)
        } else {
            Err(Refusal::PassthroughNotEnabled)
        };
    }
    if passthrough == Passthrough::Require || model.keys == KeyPolicy::Passthrough {
        return Err(Refusal::ProviderKeyRequired);
    }
    match (model.operator_key, model.loopback) {
        (true, _) => Ok(KeyMode::Operator),
        (false, true) => Ok(KeyMode::None),
        (false, false) => Err(Refusal::ProviderKeyRequired),
    }
}

fn bound_input(asked: Asked<'_>, caller: &Caller, model: &ModelFacts<'_>) -> Result<u64, Stop> {
    let bound = model.rendering.prompt_tokens(asked.facts);
    match caller.settings.max_input_tokens {
        Some(limit) if bound > limit => Err(Stop::TooLong(Refusal::InvalidRequest {
            message: format!(
                "the prompt may be {bound} tokens; this agent may send {limit} (max_input_tokens)"
            ),
            param: Some(prompt_param(asked.route).to_owned()),
        })),
        _ => Ok(bound),
    }
}

/// Output tokens a choice: the least that makes sense, and the most that may be granted. Equal when
/// the client set its own cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Caps {
    least: u64,
    most: u64,
}

fn bound_output(
    asked: Asked<'_>,
    caller: &Caller,
    model: &ModelFacts<'_>,
    defaults: Defaults,
) -> Result<Caps, Refusal> {
    if !asked.route.generates() {
        return Ok(Caps { least: 0, most: 0 });
    }
    let limits = [
        (model.max_output_tokens, "this model"),
        (caller.settings.max_output_tokens, "this agent"),
    ];
    if let Some(cap) = asked.facts.output_cap {
        for (limit, whose) in limits {
            if let Some(limit) = limit.filter(|&limit| cap > limit) {
                return Err(Refusal::InvalidRequest {
                    message: format!(
                        "the output cap of {cap} tokens is above the limit of {whose}: {limit}"
                    ),
                    param: Some(cap_param(asked.route).to_owned()),
                });
            }
        }
        return Ok(Caps {
            least: cap,
            most: cap,
        });
    }
    let most = limits
        .into_iter()
        .filter_map(|(limit, _)| limit)
        .fold(defaults.default_output_tokens, u64::min)
        .max(1);
    Ok(Caps {
        least: defaults.min_output_tokens.min(most),
        most,
    })
}

/// What a client calls its output cap, for error texts.
fn cap_param(route: Route) -> &'static str {
    match route {
        Route::Responses => "max_output_tokens",
        _ => "max_tokens",
    }
}

/// What a client calls its prompt, for error texts.
fn prompt_param(route: Route) -> &'static str {
    match route {
        Route::ChatCompletions => "messages",
        Route::Completions => "prompt",
        Route::Embeddings | Route::Responses => "input",
    }
}

/// The request as money and tokens see it.
#[derive(Clone, Copy)]
struct Ask<'a> {
    facts: &'a Facts,
    price: &'a Price,
    input_tokens: u64,
    caps: Caps,
}

impl Ask<'_> {
    /// Answers in all: each prompt has its choices.
    fn choices(&self) -> u64 {
        let prompts = self.facts.prompts.max(1);
        self.facts.choices.max(1).saturating_mul(prompts)
    }

    fn tokens(&self, output_cap: u64) -> u64 {
        self.input_tokens
            .saturating_add(output_cap.saturating_mul(self.choices()))
    }

    /// The hold for an output cap; saturates where the ledger's numbers end, far above any budget.
    fn hold_pico(&self, output_cap: u64) -> i64 {
        self.price
            .ceiling_pico(self.input_tokens, output_cap.saturating_mul(self.choices()))
            .unwrap_or(i64::MAX)
    }

    /// Largest output cap that `pico` picodollars pay for; `u64::MAX` when output is free.
    fn affordable(&self, pico: i128) -> u64 {
        let after_input = pico - i128::from(self.hold_pico(0));
        if after_input < 0 {
            return 0;
        }
        let a_token = i128::from(self.price.dearest_output_pico(self.input_tokens))
            * i128::from(self.choices());
        if a_token == 0 {
            u64::MAX
        } else {
            u64::try_from(after_input / a_token).unwrap_or(u64::MAX)
        }
    }
}

/// Money that is not there even when every hold is freed. An agent whose money is all spent is cut
/// off whole, from free models too.
fn check_unspent(caller: &Caller, ask: &Ask<'_>) -> Result<(), Stop> {
    let unspent = caller.balance.unspent_pico();
    let needed = i128::from(ask.hold_pico(ask.caps.least));
    if unspent > 0 && needed <= unspent {
        return Ok(());
    }
    let refusal = Refusal::InsufficientBudget {
        scope: caller.name.clone(),
        needed_micro: ceil_micro(needed),
        remaining_micro: floor_micro(unspent).max(0),
        affordable_output_tokens: if unspent > 0 {
            ask.affordable(unspent)
        } else {
            0
        },
    };
    let output_alone = Ask {
        input_tokens: 0,
        ..*ask
    };
    if unspent <= 0 || i128::from(output_alone.hold_pico(ask.caps.least)) > unspent {
        return Err(Stop::Refuse(refusal));
    }
    Err(Stop::TooLong(refusal))
}

fn check_concurrency(caller: &Caller, agent: &Live) -> Result<(), Refusal> {
    match caller.settings.max_concurrency {
        Some(limit) if agent.open >= limit => Err(Refusal::ConcurrencyLimit { limit }),
        _ => Ok(()),
    }
}

fn check_request_rates(
    caller: &Caller,
    model: &ModelFacts<'_>,
    around: Around<'_>,
    now: Now,
) -> Result<(), Refusal> {
    let limits = [
        (Some(caller.rpm), around.agent),
        (model.max_requests_per_minute, around.model),
    ];
    for (limit, live) in limits {
        if let Some(limit) = limit.filter(|&limit| live.requests_used() >= limit) {
            let retry_after_ms = live.requests.wait_ms(now.boot_ms, 1);
            return Err(Refusal::RequestRate {
                limit,
                retry_after_ms,
            });
        }
    }
    Ok(())
}

/// Answers the caps with what the windows leave to a request that has none of its own.
fn check_token_rates(
    caller: &Caller,
    model: &ModelFacts<'_>,
    around: Around<'_>,
    ask: &Ask<'_>,
    now: Now,
) -> Result<Caps, Stop> {
    let mut caps = ask.caps;
    let limits = [
        (caller.settings.max_tokens_per_minute, around.agent),
        (model.max_tokens_per_minute, around.model),
    ];
    for (limit, live) in limits {
        let Some(limit) = limit else { continue };
        let remaining = limit.saturating_sub(live.tokens_used());
        let needed = ask.tokens(ask.caps.least);
        if needed > remaining {
            return Err(Stop::TooLong(Refusal::TokenRate {
                limit,
                remaining,
                retry_after_ms: live.tokens.wait_ms(now.boot_ms, needed - remaining),
                never: needed > limit,
            }));
        }
        let left = (remaining - ask.input_tokens) / ask.choices().max(1);
        caps.most = caps.most.min(left).max(caps.least);
    }
    Ok(caps)
}

/// The output cap and the hold, or why it must wait. That the least fits once holds are freed is
/// settled before.
fn fit_money(caller: &Caller, around: Around<'_>, ask: &Ask<'_>) -> Result<(u64, i64), Stop> {
    let least_pico = ask.hold_pico(ask.caps.least);
    if least_pico == 0 {
        return Ok((ask.caps.most, ask.hold_pico(ask.caps.most)));
    }
    let free = caller.balance.free_pico();
    let in_flight = around.agent.open.saturating_add(around.contenders).max(1);
    let share = ask
        .affordable(free / i128::from(in_flight))
        .min(ask.caps.most);
    let cap = if ask.caps.least == ask.caps.most {
        ask.caps.most
    } else if share >= ask.caps.least {
        share
    } else if caller.balance.held_pico == 0 {
        // Nothing will come free: the least is all that the money gives.
        ask.caps.least
    } else {
        return Err(wait(caller, least_pico));
    };
    let hold_pico = ask.hold_pico(cap);
    if i128::from(hold_pico) > free || around.queue_ahead {
        return Err(wait(caller, hold_pico));
    }
    Ok((cap, hold_pico))
}

fn wait(caller: &Caller, needed_pico: i64) -> Stop {
    Stop::Wait(Refusal::BudgetHeld {
        scope: caller.name.clone(),
        needed_micro: ceil_micro(i128::from(needed_pico)),
        free_micro: caller.balance.free_micro().max(0),
        held_micro: caller.balance.reserved_micro(),
    })
}

#[cfg(test)]
mod tests;

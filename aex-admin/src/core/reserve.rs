//! May this request go, and for how much? One decision over facts that were read in one transaction.
//!
//! The order is fixed, and told in docs/LEDGER.md: token, agent, model, capabilities, provider key,
//! the request's own bounds, money that could never fit, concurrency, requests a minute, tokens a
//! minute, and last the money that is only held; operators' policies come after it (`policy`). The
//! first rule that is broken is the answer. What is refused changes nothing.

mod limits;
mod params;
mod purse;
mod told;

use std::sync::Arc;

use aex_admin_proto::Refusal;
use aex_admin_proto::egress::KeyPolicy;
use aex_admin_proto::limit::Subject;
use aex_admin_proto::operator::{AgentState, Passthrough};
use aex_admin_proto::peer::BoundTo;
use aex_admin_proto::scope::{ScopeId, ScopeKind};
use aex_admin_proto::ticket::KeyMode;
use aex_admin_proto::tools::ToolRules;
use aex_admin_proto::worker::{Facts, Measured, OnDisconnect, Route};
use jiff::tz::TimeZone;

use super::book::{Book, LiveKey};
use super::bound::Rendering;
use super::capabilities;
use super::hold::Terms;
use super::price::Price;
use super::scope::{Bound, Charged, DefaultLimits, Scope};
use limits::{
    bound_input, bound_output, check_parallel, check_request_rates, check_sessions,
    check_token_rates,
};
use params::check_params;
use purse::Purses;
use told::Told;
pub use told::Trail;

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The token's own scope first, the kernel last.
    pub path: Vec<Arc<Scope>>,
    pub token_revoked: bool,
    pub token_expires_at_ms: Option<i64>,
    /// The token may look, and carry out nothing.
    pub read_only: bool,
    /// To what a scope of the path is bound that the sender of the token is not.
    pub wrong_peer: Option<BoundTo>,
}

impl Caller {
    fn scopes(&self) -> impl Iterator<Item = (usize, &Scope)> {
        self.path.iter().map(AsRef::as_ref).enumerate()
    }

    /// The windows that a decision about a request of it looks at.
    #[must_use]
    pub fn windows(
        &self,
        targets: &[ModelFacts<'_>],
        name: &str,
        defaults: &Defaults,
    ) -> Vec<LiveKey> {
        let scopes = self.path.iter().map(|scope| LiveKey::Scope(scope.id));
        let mut keys: Vec<LiveKey> = scopes.collect();
        keys.push(LiveKey::Model(name.to_owned()));
        for (scope, model) in self
            .path
            .iter()
            .flat_map(|scope| targets.iter().map(move |model| (scope, model)))
        {
            let bounds = scope.bounds(&defaults.limits, model.name, model.provider);
            let parts = bounds.filter(|bound| *bound.subject != Subject::All);
            keys.extend(parts.map(|bound| LiveKey::Part(scope.id, bound.subject.clone())));
        }
        keys
    }

    /// `refusal` by the limit of the scope at `at` of the path, as the token may know it.
    fn by(&self, at: usize, refusal: Refusal) -> Refusal {
        match self.path.get(at) {
            Some(scope) if at > 0 => Refusal::Above {
                scope: scope.kind,
                why: Box::new(refusal),
            },
            _ => refusal,
        }
    }

    /// The zone of the scope at `at`: its own, that of the next above it that has one, the kernel's.
    fn zone(&self, at: usize, defaults: &Defaults) -> TimeZone {
        let named = self.path.iter().skip(at);
        let mut named = named.filter_map(|scope| scope.grant.settings.time_zone.as_deref());
        let own = named.next().and_then(super::period::zone);
        own.unwrap_or_else(|| defaults.time_zone.clone())
    }
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

/// Where a request waits: for what is held in `scope`, behind others of the same own scope. So nobody stands
/// in the way of another, whatever is between them and the scope that is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Queue {
    pub scope: ScopeId,
    /// The token's own scope.
    pub own: ScopeId,
}

/// What goes on around the request.
#[derive(Clone, Copy)]
pub struct Around<'a> {
    /// Brought up to now for the scopes of the path and the model.
    pub book: &'a Book,
    /// Requests of the same token that are decided together with this one.
    pub peers: u64,
    /// How many wait for what is held in a scope, all together and in one queue of it.
    pub waiting: &'a dyn Fn(ScopeId) -> u64,
    pub queued: &'a dyn Fn(Queue) -> u64,
    /// The queue that this one stood in: it overtakes nobody there.
    pub queue: Option<Queue>,
}

impl Around<'_> {
    /// Others wait there already: nobody overtakes them.
    fn queue_ahead(&self, queue: Queue) -> bool {
        self.queue != Some(queue) && (self.queued)(queue) > 0
    }

    /// Among how many what is free in a scope is shared.
    fn in_flight(&self, scope: ScopeId) -> u64 {
        let open = self.open(scope);
        let waiting = (self.waiting)(scope);
        open.saturating_add(waiting)
            .saturating_add(self.peers)
            .saturating_add(1)
    }

    fn open(&self, scope: ScopeId) -> u64 {
        let live = self.book.live(&LiveKey::Scope(scope));
        live.map_or(0, |live| live.open)
    }
}

/// The operator's general settings that a decision needs.
#[derive(Debug, Clone)]
pub struct Defaults {
    pub default_output_tokens: u64,
    pub min_output_tokens: u64,
    pub on_disconnect: OnDisconnect,
    pub limits: DefaultLimits,
    pub time_zone: TimeZone,
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
    /// It would fit but for what is held in this scope: worth waiting for. The refusal is for when
    /// none comes free.
    Wait(Refusal, Queue),
}

impl Stop {
    #[must_use]
    pub fn refusal(&self) -> &Refusal {
        match self {
            Self::Refuse(refusal) | Self::TooLong(refusal) | Self::Wait(refusal, _) => refusal,
        }
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

/// All that one decision looks at.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    pub asked: Asked<'a>,
    pub caller: Option<&'a Caller>,
    /// Absent when the configuration has none of that name.
    pub model: Option<&'a ModelFacts<'a>>,
    pub around: Around<'a>,
    pub defaults: &'a Defaults,
    pub now: Now,
    /// Where every rule that is looked at is written; none on the way of a request.
    pub trail: Option<&'a Trail>,
}

/// What the rules are held against, once it is known who asks for what.
#[derive(Clone, Copy)]
struct Sight<'a> {
    asked: Asked<'a>,
    caller: &'a Caller,
    model: &'a ModelFacts<'a>,
    around: Around<'a>,
    defaults: &'a Defaults,
    now: Now,
}

impl<'a> Sight<'a> {
    /// Every limit of the path for this request, each with its place in the path.
    fn bounds(self) -> impl Iterator<Item = (usize, &'a Scope, Bound<'a>)> {
        self.caller.scopes().flat_map(move |(at, scope)| {
            let bounds = scope.bounds(&self.defaults.limits, self.model.name, self.model.provider);
            bounds.map(move |bound| (at, scope, bound))
        })
    }

    /// Answers in all: each prompt has its choices.
    fn answers(self) -> u64 {
        answers(self.asked.facts)
    }

    /// How a scope knows the request's session: above an agent each agent has sessions of its own, or one
    /// could use up its siblings'.
    fn session_in(self, scope: &Scope) -> String {
        let session = self.asked.facts.session.as_deref().unwrap_or_default();
        let mut agents = self
            .caller
            .path
            .iter()
            .filter(|scope| scope.kind == ScopeKind::Agent);
        match (scope.kind, agents.next()) {
            (ScopeKind::Kernel | ScopeKind::Group, Some(agent)) => {
                format!("{} {session}", agent.id)
            }
            _ => session.to_owned(),
        }
    }
}

/// The whole decision, in its order.
///
/// # Errors
/// The first rule that is broken.
pub fn decide(question: Question<'_>) -> Result<Terms, Stop> {
    let Question {
        asked,
        around,
        defaults,
        now,
        ..
    } = question;
    let mut told = Told {
        trail: question.trail,
        ..Told::default()
    };
    let caller = authenticate(question.caller, now)
        .or_else(|refusal| told.said(|| at_fault(question.caller, now), "state", Err(refusal)))?;
    check_scope(caller)?;
    let (model, price) = choose_model(asked.model, caller, question.model, &told)?;
    let mut tools: Vec<ToolRules> = Vec::new();
    for (_, scope) in caller.scopes() {
        let settings = &scope.grant.settings;
        let checked = capabilities::check(settings, asked.route, model.provider, asked.facts);
        told.said_of(settings, scope, checked)?;
        tools.extend(ToolRules::of(settings));
    }
    let left = capabilities::without_stripped(&tools, asked.facts);
    let asked = Asked {
        facts: &left,
        ..asked
    };
    let facts = asked.facts;
    let key = choose_key(facts, caller, model);
    let key = told.said(|| keys_scope(caller, facts, model), "provider key", key)?;
    told.said(|| None, "parameters", check_params(asked, model, &price))?;
    let sight = Sight {
        asked,
        caller,
        model,
        around,
        defaults,
        now,
    };
    let input_tokens = bound_input(sight, &mut told)?;
    let caps = bound_output(sight, &mut told)?;
    let ask = Ask {
        facts,
        price: &price,
        input_tokens,
        caps,
    };
    check_sessions(sight, &told)?;
    let purses = Purses::of(sight);
    purses.check_unspent(&ask, caller, &told)?;
    check_parallel(sight, &mut told)?;
    check_request_rates(sight, &mut told)?;
    let caps = check_token_rates(sight, &ask, &mut told)?;
    let (output_cap, hold_pico) = purses.fit(sight, &Ask { caps, ..ask }, &mut told)?;
    let charged = Charged::of(caller.path.iter().map(AsRef::as_ref), purses.meters(sight));
    Ok(Terms {
        route: asked.route,
        model: model.name.to_owned(),
        provider: model.provider.to_owned(),
        upstream_model: model.upstream_model.to_owned(),
        key,
        price_source: model.price_source.to_owned(),
        hold_pico,
        input_tokens,
        output_cap,
        choices: ask.choices(),
        price,
        prompts: facts.prompts.max(1),
        cap_is_ours: facts.output_cap.is_none() && asked.route.generates(),
        hidden_output: model.hidden_output,
        counts_choices: model.counts_choices,
        on_disconnect: defaults.on_disconnect,
        idempotency: None,
        charged,
        warned: told.warned,
        shadowed: told.shadowed,
        attempt: None,
        tools,
        asked: Facts::default(),
        names_left_out: 0,
    })
}

/// A token that may only look carries nothing out.
fn check_scope(caller: &Caller) -> Result<(), Refusal> {
    if caller.read_only {
        return Err(Refusal::CapabilityNotAllowed {
            capability: "execute (this token is read-only)".to_owned(),
        });
    }
    Ok(())
}

/// No token of any text is longer, in bytes.
const LONGEST_TOKEN_BYTES: u64 = 256;

/// The tokenizer to count the prompt with before `stop` is final, and the refusal where it is not
/// counted. Counting takes time: what cannot fit whatever the count is not worth it.
///
/// # Errors
/// The stop itself: counting would change nothing, or cannot be done.
pub fn counted_first(stop: Stop, question: Question<'_>) -> Result<(String, Refusal), Stop> {
    let (Stop::TooLong(refusal) | Stop::Wait(refusal, _)) = &stop else {
        return Err(stop);
    };
    let facts = question.asked.facts;
    let countable = question.model.and_then(|model| model.rendering.countable());
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
    let hopeful = Question {
        asked: Asked {
            facts: &at_least,
            ..question.asked
        },
        trail: None,
        ..question
    };
    match decide(hopeful) {
        Ok(_) | Err(Stop::Wait(..)) => Ok((tokenizer.to_owned(), refusal.clone())),
        Err(_) => Err(stop),
    }
}

/// Token and agent: who asks, and whether it may ask at all.
///
/// # Errors
/// 401 or 423.
pub fn authenticate(caller: Option<&Caller>, now: Now) -> Result<&Caller, Refusal> {
    let caller = caller.ok_or(Refusal::InvalidToken)?;
    if let Some(bound_to) = caller.wrong_peer {
        return Err(Refusal::WrongPeer { bound_to });
    }
    let closed = |scope: &Arc<Scope>| scope.grant.state == AgentState::Closed;
    if caller.token_revoked || caller.path.is_empty() || caller.path.iter().any(closed) {
        return Err(Refusal::InvalidToken);
    }
    let ends = caller.path.iter().filter_map(|scope| scope.expires_at_ms);
    let mut ends = ends.chain(caller.token_expires_at_ms);
    if ends.any(|expires_at_ms| now.wall_ms >= expires_at_ms) {
        return Err(Refusal::TokenExpired);
    }
    let paused = |scope: &Arc<Scope>| scope.grant.state == AgentState::Paused;
    if caller.path.iter().any(paused) {
        return Err(Refusal::AgentPaused);
    }
    Ok(caller)
}

/// The scope that is closed, paused or at its end, where that is why nothing may be asked.
fn at_fault(caller: Option<&Caller>, now: Now) -> Option<&Scope> {
    let mut path = caller?.path.iter().map(AsRef::as_ref);
    path.find(|scope| {
        let ended = scope.expires_at_ms.is_some_and(|at| now.wall_ms >= at);
        ended || scope.grant.state != AgentState::Active
    })
}

/// Whether every whitelist of the path names the model.
#[must_use]
pub fn may_use(caller: &Caller, model: &str) -> bool {
    let mut scopes = caller.path.iter();
    scopes.all(|scope| scope.grant.settings.has_model(model))
}

fn choose_model<'a>(
    asked: &str,
    caller: &Caller,
    model: Option<&'a ModelFacts<'a>>,
    told: &Told<'_>,
) -> Result<(&'a ModelFacts<'a>, Price), Refusal> {
    let named = || asked.to_owned();
    for (_, scope) in caller.scopes() {
        let settings = &scope.grant.settings;
        if settings.allowed_models.is_none() {
            continue;
        }
        let listed = settings.has_model(asked).then_some(());
        let listed = listed.ok_or_else(|| Refusal::ModelNotAllowed { model: named() });
        told.said(|| Some(scope), "allowed_models", listed)?;
    }
    let model = model.ok_or_else(|| Refusal::ModelNotFound { model: named() });
    let model = told.said(|| None, "models.yaml", model)?;
    let price = model.price.clone();
    let price = price.ok_or_else(|| Refusal::ModelNotPriced { model: named() });
    Ok((model, told.said(|| None, "price", price)?))
}

fn choose_key(facts: &Facts, caller: &Caller, model: &ModelFacts<'_>) -> Result<KeyMode, Refusal> {
    let (allowed, required) = passthrough(caller);
    if facts.own_key {
        return if allowed && model.keys != KeyPolicy::Operator {
            Ok(KeyMode::Own)
        } else {
            Err(Refusal::PassthroughNotEnabled)
        };
    }
    if required || model.keys == KeyPolicy::Passthrough {
        return Err(Refusal::ProviderKeyRequired);
    }
    match (model.operator_key, model.loopback) {
        (true, _) => Ok(KeyMode::Operator),
        (false, true) => Ok(KeyMode::None),
        (false, false) => Err(Refusal::ProviderKeyRequired),
    }
}

/// Whether an own key may be brought, and whether it must. Any scope may demand one or deny it, and where
/// one does this and another that, nothing passes; to allow it takes the agent, or a scope above it: a run
/// gives nothing that is not there.
fn passthrough(caller: &Caller) -> (bool, bool) {
    let (mut allowed, mut denied, mut required) = (false, false, false);
    for (_, scope) in caller.scopes() {
        let said = scope.grant.settings.passthrough;
        denied |= said == Some(Passthrough::Deny);
        required |= said == Some(Passthrough::Require);
        allowed |= said.is_some() && scope.kind != ScopeKind::Run;
    }
    (allowed && !denied, required)
}

/// The scope that has the last word on keys, where the provider itself has none.
fn keys_scope<'c>(caller: &'c Caller, facts: &Facts, model: &ModelFacts<'_>) -> Option<&'c Scope> {
    let said = |wanted: Passthrough| {
        let mut scopes = caller.scopes().map(|(_, scope)| scope);
        scopes.find(|scope| scope.grant.settings.passthrough == Some(wanted))
    };
    match model.keys {
        KeyPolicy::Operator if facts.own_key => None,
        KeyPolicy::Passthrough => None,
        _ if facts.own_key => said(Passthrough::Deny).or_else(|| {
            let mut scopes = caller.scopes().map(|(_, scope)| scope);
            scopes.find(|scope| scope.kind == ScopeKind::Agent)
        }),
        _ => said(Passthrough::Require),
    }
}

/// Output tokens a choice: the least that makes sense, and the most that may be granted. Equal when
/// the client set its own cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Caps {
    least: u64,
    most: u64,
}

/// What a client calls its prompt, for error texts.
fn prompt_param(route: Route) -> &'static str {
    match route {
        Route::ChatCompletions => "messages",
        Route::Completions => "prompt",
        Route::Embeddings | Route::Responses => "input",
    }
}

fn answers(facts: &Facts) -> u64 {
    let prompts = facts.prompts.max(1);
    facts.choices.max(1).saturating_mul(prompts)
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
        answers(self.facts)
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

#[cfg(test)]
mod tests;

//! From a request to the targets that it may be tried at, and back: what an attempt that came to nothing
//! means for the next one.
//!
//! The order is `core/routing.rs`'s, the breakers are `core/breaker.rs`'s; here are the configuration, the
//! memory and the ledger that they need.

use aex_admin_proto::HoldId;
use aex_admin_proto::egress::KeyPolicy;
use aex_admin_proto::ticket::KeyMode;
use aex_admin_proto::worker::{Facts, MAX_ATTEMPTS, ReserveParams};

use super::Writer;
use super::grants;
use super::memory::OpenHold;
use crate::config::{Config, Model};
use crate::core::hold::{Attempt, Terms};
use crate::core::reserve::{ModelFacts, Now};
use crate::core::routing::{self, Candidate, Routing};
use crate::ledger::LedgerError;

impl Writer {
    /// The targets of the model that is asked for, the best first, without those that were tried.
    pub(super) fn targets(&self, params: &ReserveParams, now: Now) -> Vec<ModelFacts<'_>> {
        let Some(model) = self.config.models.get(&params.model) else {
            return Vec::new();
        };
        let tried = params.again.as_ref().map_or(0, |again| again.tried.len());
        if tried >= MAX_ATTEMPTS {
            return Vec::new();
        }
        let facts = |target| grants::model(&self.config, &self.operator_keys, model, target);
        if model.fallbacks.is_empty() && params.again.is_none() {
            return facts(model).into_iter().collect();
        }
        let targets: Vec<(&Model, ModelFacts<'_>)> = (model.targets())
            .filter_map(|target| Some((target, facts(target)?)))
            .collect();
        // A key of the agent's own is for one provider: no other is shown it.
        let own_key_for = (params.facts.own_key).then(|| takes_own_keys(&self.config, model));
        let memory = self.shared.memory();
        let candidates: Vec<Candidate> = (targets.iter())
            .map(|(target, facts)| Candidate {
                tried: was_tried(params, target)
                    || own_key_for
                        .flatten()
                        .is_some_and(|whose| whose != target.provider),
                weight: target.weight,
                ceiling_pico: if model.routing == Routing::Cheapest {
                    ceiling_pico(params, facts, self.config.default_output_tokens)
                } else {
                    0
                },
                open_until_boot_ms: memory.breakers.open_until_boot_ms(
                    &target.provider,
                    &target.upstream_model,
                    now.boot_ms,
                ),
            })
            .collect();
        drop(memory);
        let order = routing::order(model.routing, &candidates, draw(params.id));
        (order.into_iter())
            .filter_map(|index| Some(targets.get(index)?.1.clone()))
            .collect()
    }

    /// Which attempt of its request a hold is, and what becomes of its key; nothing for a first one.
    pub(super) fn attempt(
        &self,
        agent: i64,
        params: &ReserveParams,
    ) -> Result<Option<Attempt>, LedgerError> {
        let Some((again, first)) =
            (params.again.as_ref()).and_then(|again| Some((again, again.tried.first()?)))
        else {
            return Ok(None);
        };
        let key_of = match &params.idempotency {
            Some(asked) => self.ledger.used_key(agent, &asked.key)?,
            None => None,
        };
        Ok(Some(Attempt {
            number: again.tried.len() as u64 + 1,
            first: first.id,
            key_of: key_of
                .filter(|row| is_attempt_of(params, &row.hold))
                .map(|row| row.event),
        }))
    }
}

/// The provider that an agent's own key is for: that of the first target that takes one.
fn takes_own_keys<'a>(config: &Config, model: &'a Model) -> Option<&'a str> {
    let takes = |target: &&Model| {
        let provider = config.providers.get(&target.provider);
        provider.is_some_and(|provider| provider.keys != KeyPolicy::Operator)
    };
    model
        .targets()
        .find(takes)
        .map(|target| target.provider.as_str())
}

/// An earlier attempt of the same request.
pub(super) fn is_attempt_of(params: &ReserveParams, hold: &HoldId) -> bool {
    (params.again.iter())
        .flat_map(|again| &again.tried)
        .any(|tried| tried.id == *hold)
}

fn was_tried(params: &ReserveParams, target: &Model) -> bool {
    (params.again.iter())
        .flat_map(|again| &again.tried)
        .any(|tried| {
            tried.provider == target.provider && tried.upstream_model == target.upstream_model
        })
}

/// The most that a request can cost at a target, as far as its price tells.
fn ceiling_pico(params: &ReserveParams, target: &ModelFacts<'_>, default_cap: u64) -> i64 {
    let facts: &Facts = &routing::facts_for(&params.facts, Some(target));
    let cap = match (params.route.generates(), facts.output_cap) {
        (false, _) => 0,
        (true, Some(cap)) => cap,
        (true, None) => target
            .max_output_tokens
            .map_or(default_cap, |most| most.min(default_cap)),
    };
    let answers = facts.choices.max(1).saturating_mul(facts.prompts.max(1));
    let input_tokens = target.rendering.prompt_tokens(facts);
    (target.price.as_ref())
        .and_then(|price| price.ceiling_pico(input_tokens, cap.saturating_mul(answers)))
        .unwrap_or(i64::MAX)
}

/// A random number of a request: a worker draws its id from the system's randomness.
fn draw(id: HoldId) -> u64 {
    (id.as_bytes().iter().take(8)).fold(0, |draw, &byte| (draw << 8) | u64::from(byte))
}

/// Until when another target may be tried in this one's place; zero when it is the last.
pub(super) fn retry_until_boot_ms(config: &Config, hold: &OpenHold) -> u64 {
    let terms: &Terms = &hold.terms;
    let Some(model) = config.models.get(&terms.model) else {
        return 0;
    };
    let own_key = terms.key == KeyMode::Own;
    let may_follow = |target: &&Model| !own_key || target.provider == terms.provider;
    let targets = model.targets().filter(may_follow).count() as u64;
    if terms.attempt_number() >= targets {
        return 0;
    }
    let longest_ms = (model.targets())
        .filter_map(|target| config.providers.get(&target.provider))
        .map(|provider| provider.request_timeout_ms)
        .max();
    hold.course
        .opened_boot_ms
        .saturating_add(longest_ms.unwrap_or(0))
}

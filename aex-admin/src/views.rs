//! What operators and auditors see, made from rows and the writer's memory.

use aex_admin_proto::operator::{AgentView, BreakerView, ModelView};

use crate::config::{Config, Model};
use crate::core::routing::Routing;
use crate::ledger::AgentRow;
use crate::writer::Shared;

/// One agent, with what goes on in it now.
#[must_use]
pub(crate) fn agent(row: &AgentRow, shared: &Shared, now_boot_ms: u64) -> AgentView {
    let (in_flight, requests_last_minute, tokens_last_minute) =
        shared.activity(row.id, now_boot_ms);
    AgentView {
        name: row.name.clone(),
        state: row.grant.state,
        budget_micro: row.balance.budget_micro,
        spent_micro: row.balance.spent_micro,
        reserved_micro: row.balance.reserved_micro(),
        remaining_micro: row.balance.free_micro(),
        rpm: row.grant.rpm,
        settings: row.grant.settings.clone(),
        created_at_ms: row.created_at_ms,
        in_flight,
        requests_last_minute,
        tokens_last_minute,
    }
}

/// Every model of the configuration, with its price.
#[must_use]
pub(crate) fn models(config: &Config) -> Vec<ModelView> {
    let view = |model: &Model| {
        let fallbacks = model
            .fallbacks
            .iter()
            .map(|target| target_view(config, target));
        let several = !model.fallbacks.is_empty();
        ModelView {
            routing: several.then(|| model.routing.as_str().to_owned()),
            fallbacks: fallbacks.collect(),
            ..target_view(config, model)
        }
    };
    config.models.values().map(view).collect()
}

/// One target of a model, by itself.
fn target_view(config: &Config, model: &Model) -> ModelView {
    let price = model.pricing.price();
    let provider = config.providers.get(&model.provider);
    let weighted = model.routing == Routing::Weighted;
    ModelView {
        name: model.name.clone(),
        provider: model.provider.clone(),
        upstream_model: model.upstream_model.clone(),
        price_source: model.pricing.source_name().to_owned(),
        input_pico: price.as_ref().map(|price| price.input_pico),
        cached_input_pico: price.as_ref().map(|price| price.cached_input_pico),
        output_pico: price.as_ref().map(|price| price.output_pico),
        max_output_tokens: model.max_output_tokens,
        context_window: model.context_window,
        keys: provider.map(|provider| provider.keys).unwrap_or_default(),
        loopback: provider.is_some_and(|provider| provider.loopback),
        routing: None,
        fallbacks: Vec::new(),
        weight: weighted.then_some(model.weight),
    }
}

/// Targets that failed of late, in the order of their names.
#[must_use]
pub(crate) fn breakers(shared: &Shared, now_boot_ms: u64) -> Vec<BreakerView> {
    let memory = shared.memory();
    let mut views: Vec<BreakerView> = (memory.breakers.iter())
        .map(|(provider, upstream_model, breaker)| BreakerView {
            provider: provider.to_owned(),
            upstream_model: upstream_model.to_owned(),
            state: breaker.state(now_boot_ms).to_owned(),
            failures: breaker.failures(),
            opens_in_ms: (breaker.open_until_boot_ms(now_boot_ms))
                .map(|until_boot_ms| until_boot_ms.saturating_sub(now_boot_ms)),
        })
        .collect();
    drop(memory);
    let key = |view: &BreakerView| (view.provider.clone(), view.upstream_model.clone());
    views.sort_by_key(key);
    views
}

//! What operators and auditors see, made from rows and the writer's memory.

use aex_admin_proto::operator::{AgentView, ModelView};

use crate::config::Config;
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
    config
        .models
        .values()
        .map(|model| {
            let price = model.pricing.price();
            let provider = config.providers.get(&model.provider);
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
            }
        })
        .collect()
}

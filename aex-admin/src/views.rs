//! What operators and auditors see, made from rows and the writer's memory.

use std::collections::HashMap;

use aex_admin_proto::limit::{Limit, Quantity, Span};
use aex_admin_proto::operator::{
    AgentView, BreakerView, LimitView, ModelView, ProviderView, ScopeView,
};
use aex_admin_proto::scope::{ScopeId, ScopeKind};
use jiff::tz::TimeZone;

use crate::config::{Config, Model, Provider};
use crate::core::book::Counter;
use crate::core::money::{ceil_micro, floor_micro};
use crate::core::period;
use crate::core::reserve::Now;
use crate::core::routing::Routing;
use crate::core::scope::Scope;
use crate::writer::Shared;

/// Of each limit that is by session: a scope may have thousands.
const MAX_SESSIONS_SHOWN: usize = 64;

/// Where requests may go.
#[must_use]
pub fn providers(config: &Config) -> Vec<ProviderView> {
    let view = |provider: &Provider| ProviderView {
        name: provider.name.clone(),
        base_url: provider.base_url.clone(),
        keys: provider.keys,
        loopback: provider.loopback,
    };
    config.providers.values().map(view).collect()
}

/// One agent, with what goes on in it now. `group`: the name of the one above it.
#[must_use]
pub(crate) fn agent(
    row: &Scope,
    group: Option<String>,
    zone: &TimeZone,
    shared: &Shared,
    now: Now,
) -> AgentView {
    let (in_flight, requests_last_minute, tokens_last_minute) =
        shared.activity(row.id, now.boot_ms);
    AgentView {
        name: row.name.clone(),
        state: row.grant.state,
        budget_micro: row.balance.budget_micro.unwrap_or(0),
        spent_micro: row.balance.spent_micro,
        reserved_micro: row.balance.reserved_micro(),
        remaining_micro: row.balance.free_micro().unwrap_or(i64::MAX),
        rpm: row.grant.rpm.unwrap_or(0),
        settings: row.grant.settings.clone(),
        created_at_ms: row.created_at_ms,
        in_flight,
        requests_last_minute,
        tokens_last_minute,
        group,
        limits: limits(row, zone, shared, now),
    }
}

/// Any scope, with what goes on in it now.
#[must_use]
pub(crate) fn scope(row: &Scope, zone: &TimeZone, shared: &Shared, now: Now) -> ScopeView {
    let (in_flight, requests_last_minute, tokens_last_minute) =
        shared.activity(row.id, now.boot_ms);
    ScopeView {
        id: row.id,
        kind: row.kind,
        name: row.name.clone(),
        parent: row.parent,
        state: row.grant.state,
        budget_micro: row.balance.budget_micro,
        spent_micro: row.balance.spent_micro,
        reserved_micro: row.balance.reserved_micro(),
        remaining_micro: row.balance.free_micro(),
        rpm: row.grant.rpm,
        settings: row.grant.settings.clone(),
        created_at_ms: row.created_at_ms,
        expires_at_ms: row.expires_at_ms,
        in_flight,
        requests_last_minute,
        tokens_last_minute,
        limits: limits(row, zone, shared, now),
    }
}

/// Where each limit over a period, a session or all time stands.
fn limits(row: &Scope, zone: &TimeZone, shared: &Shared, now: Now) -> Vec<LimitView> {
    let set = row.grant.settings.limits.iter().flatten();
    let set: Vec<&Limit> = set.filter(|limit| limit.key.is_counter()).collect();
    if set.is_empty() {
        return Vec::new();
    }
    let counters = shared.counters_of(row.id);
    let mut views = Vec::new();
    for limit in set {
        let period = period::around(limit.key.span, zone, now.wall_ms);
        let of_limit = counters.iter().filter(|(sum, _)| sum.key == limit.key);
        // A period that is over counts for nothing.
        let begun = period.map_or(0, |(begin, _)| begin);
        let current = of_limit.filter(|(_, counter)| counter.from_ms >= begun);
        let mut found: Vec<LimitView> = current
            .map(|(sum, counter)| limit_view(limit, period, Some(&sum.session), *counter))
            .take(MAX_SESSIONS_SHOWN)
            .collect();
        if found.is_empty() {
            found.push(limit_view(limit, period, None, Counter::default()));
        }
        views.extend(found);
    }
    views
}

fn limit_view(
    limit: &Limit,
    period: Option<(i64, i64)>,
    session: Option<&String>,
    counter: Counter,
) -> LimitView {
    let by_session = limit.key.span == Span::Session;
    let (used, held) = if limit.key.what == Quantity::Money {
        (
            floor_micro(counter.used.into()),
            ceil_micro(counter.held.into()),
        )
    } else {
        (counter.used, counter.held)
    };
    let most = i64::try_from(limit.most).unwrap_or(i64::MAX);
    LimitView {
        limit: limit.clone(),
        session: session.filter(|_| by_session).cloned(),
        used,
        held,
        left: most.saturating_sub(used).saturating_sub(held),
        resets_at_ms: period.map(|(_, end)| end),
    }
}

/// Every scope that has not ended, each after its parent, and what is below it after it.
#[must_use]
pub(crate) fn tree(rows: &[Scope], config: &Config, shared: &Shared, now: Now) -> Vec<ScopeView> {
    let mut views = Vec::with_capacity(rows.len());
    let zone = config.time_zone.clone();
    let mut children: HashMap<Option<ScopeId>, Vec<&Scope>> = HashMap::new();
    for row in rows {
        children.entry(row.parent).or_default().push(row);
    }
    for list in children.values_mut() {
        list.sort_by(|a, b| {
            (a.kind != ScopeKind::Group, &a.name).cmp(&(b.kind != ScopeKind::Group, &b.name))
        });
    }
    let roots = children.get(&None).cloned().unwrap_or_default();
    let mut stack: Vec<(&Scope, TimeZone)> =
        roots.into_iter().map(|row| (row, zone.clone())).collect();
    while let Some((row, above)) = stack.pop() {
        let own = row
            .grant
            .settings
            .time_zone
            .as_deref()
            .and_then(period::zone);
        let zone = own.unwrap_or(above);
        views.push(scope(row, &zone, shared, now));
        let below = children.remove(&Some(row.id)).unwrap_or_default();
        stack.extend(below.into_iter().rev().map(|row| (row, zone.clone())));
    }
    views
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

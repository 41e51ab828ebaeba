//! From rows and configuration to the facts of a decision, and from terms to a grant.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use aex_admin_proto::HoldId;
use aex_admin_proto::peer::{BoundTo, GroupMark, Peer};
use aex_admin_proto::scope::ScopeKind;
use aex_admin_proto::ticket::{Claims, TicketKey};
use aex_admin_proto::worker::{Grant, Route};
use subtle::ConstantTimeEq;

use super::memory::OpenHold;
use super::routes;
use crate::config::{Config, Model};
use crate::core::bound::Rendering;
use crate::core::hold::Terms;
use crate::core::reserve::{Caller, Defaults, ModelFacts};
use crate::core::scope::Scope;
use crate::core::share;
use crate::ledger::TokenRow;

/// How long a ticket can be redeemed.
pub(crate) const TICKET_MS: u64 = 30_000;

/// Largest answer that is let through.
const MAX_RESPONSE_BYTES: u64 = 256 * 1024 * 1024;

pub(crate) fn caller(path: Vec<Arc<Scope>>, token: TokenRow, peer: &Peer) -> Caller {
    let mut broken = (path.iter()).filter_map(|scope| scope.grant.settings.broken_by(peer));
    let is_served = peer.within.is_none_or(|group| {
        let mut groups = path.iter().filter(|scope| scope.kind == ScopeKind::Group);
        groups.any(|scope| GroupMark::of(&scope.name) == group)
    });
    Caller {
        wrong_peer: broken.next().or((!is_served).then_some(BoundTo::Worker)),
        path,
        token_revoked: token.revoked,
        token_expires_at_ms: token.expires_at_ms,
        read_only: token.read_only,
    }
}

/// `model` is one of the targets of the model that is `named`.
pub(crate) fn model<'a>(
    config: &'a Config,
    operator_keys: &HashSet<String>,
    named: &'a Model,
    model: &'a Model,
) -> Option<ModelFacts<'a>> {
    let provider = config.providers.get(&model.provider)?;
    Some(ModelFacts {
        name: &named.name,
        provider: &provider.name,
        upstream_model: &model.upstream_model,
        price: model.pricing.price(),
        price_source: model.pricing.recorded_source(),
        max_output_tokens: model.max_output_tokens,
        rendering: Rendering {
            tokenizer: model.tokenizer.as_deref(),
            context_window: model.context_window,
            template_tokens: model.template_tokens,
            message_tokens: model.message_tokens,
            tool_factor: model.tool_factor,
            image_tokens: model.image_tokens,
        },
        embeds_only: model.embeds_only,
        hidden_output: model.hidden_output,
        counts_choices: provider.facts.counts_choices,
        extra_params: &provider.extra_params,
        keys: provider.keys,
        loopback: provider.loopback,
        operator_key: operator_keys.contains(&provider.name),
        max_requests_per_minute: named.limits.max_requests_per_minute,
        max_tokens_per_minute: named.limits.max_tokens_per_minute,
    })
}

pub(crate) fn defaults(config: &Config) -> Defaults {
    Defaults {
        default_output_tokens: config.default_output_tokens,
        min_output_tokens: config.min_output_tokens,
        on_disconnect: config.on_disconnect,
        limits: config.limits,
        time_zone: config.time_zone.clone(),
    }
}

/// The ticket of an open hold: the one that was given, or after a restart its equal.
fn ticket(config: &Config, key: &TicketKey, id: HoldId, hold: &OpenHold) -> String {
    if let Some(ticket) = &hold.ticket {
        return ticket.clone();
    }
    key.seal(&Claims {
        id,
        provider: hold.terms.provider.clone(),
        method: "POST".to_owned(),
        path: hold.terms.route.path().to_owned(),
        key: hold.terms.key,
        max_body_bytes: config.max_body_bytes.saturating_add(4096),
        max_response_bytes: MAX_RESPONSE_BYTES,
        deadline_boot_ms: hold.course.deadline_boot_ms,
        expires_boot_ms: hold.course.expires_boot_ms,
    })
}

/// Whether `presented` is the ticket of hold `id`, which may have ended. One that this process gave
/// is compared with what it gave, in constant time; that saves opening it.
pub(crate) fn is_ticket_of(
    presented: &str,
    key: &TicketKey,
    id: HoldId,
    hold: Option<&OpenHold>,
) -> bool {
    match hold.and_then(|hold| hold.ticket.as_ref()) {
        Some(given) => given.as_bytes().ct_eq(presented.as_bytes()).into(),
        None => (key.open_expired(presented)).is_ok_and(|claims| claims.id == id),
    }
}

/// The grant of an open hold: the same each time it is asked for, but for the money that is free.
pub(crate) fn grant(
    config: &Config,
    key: &TicketKey,
    id: HoldId,
    hold: &OpenHold,
    remaining_micro: Option<i64>,
) -> Grant {
    let terms = &hold.terms;
    let provider = config.providers.get(&terms.provider);
    let facts = provider.map(|provider| &provider.facts);
    let retry_until_boot_ms = routes::retry_until_boot_ms(config, hold);
    let knows_store = facts.is_some_and(|facts| facts.knows_store);
    Grant {
        ticket: ticket(config, key, id, hold),
        tenant: share::tenant(hold.agent, &terms.charged),
        provider: terms.provider.clone(),
        path: terms.route.path().to_owned(),
        upstream_model: terms.upstream_model.clone(),
        output_cap: terms.output_cap,
        output_cap_param: output_cap_param(config, terms).to_owned(),
        output_tokens: terms.output_tokens(),
        cap_is_ours: terms.cap_is_ours,
        stream_usage: facts.is_none_or(|facts| facts.stream_usage),
        service_tier: facts
            .filter(|_| has_tiers(terms.route))
            .and_then(|facts| facts.service_tier.clone()),
        // The Responses API stores where nothing is said, whoever serves it.
        force_store_off: terms.route == Route::Responses
            || (terms.route == Route::ChatCompletions && knows_store),
        knows_store,
        hidden_output: terms.hidden_output,
        remaining_micro,
        warnings: terms.warned.clone(),
        on_disconnect: terms.on_disconnect,
        drain_timeout_ms: config.drain_timeout_ms,
        deadline_boot_ms: hold.course.deadline_boot_ms,
        max_response_bytes: MAX_RESPONSE_BYTES,
        retry_until_boot_ms,
        first_byte_ms: provider
            .filter(|_| retry_until_boot_ms != 0)
            .and_then(|provider| provider.first_byte_timeout_ms)
            .unwrap_or(0),
        tools: terms.tools.clone(),
    }
}

/// The provider's own name for the output cap, on this route.
fn output_cap_param<'a>(config: &'a Config, terms: &Terms) -> &'a str {
    match terms.route {
        Route::ChatCompletions => config
            .models
            .get(&terms.model)
            .and_then(|model| model.target(&terms.provider, &terms.upstream_model))
            .map_or("max_tokens", |target| target.output_cap_param.as_str()),
        Route::Completions | Route::Embeddings => "max_tokens",
        Route::Responses => "max_output_tokens",
    }
}

/// Routes on which OpenAI's API takes `service_tier`.
fn has_tiers(route: Route) -> bool {
    matches!(route, Route::ChatCompletions | Route::Responses)
}

/// Tells one request from another that reuses its id. Not a secret, not a defence: ids are random.
pub(crate) fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

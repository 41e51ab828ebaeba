//! Checks of an agent's lists and ranges when they are set: one that can match nothing is a mistake.

use aex_admin_proto::operator::Settings;
use aex_admin_proto::pattern;
use aex_admin_proto::rpc::{RpcError, code};
use aex_admin_proto::tools;

use crate::config::Config;

/// Most choices that a request may ask for at all.
const MAX_CHOICES: u64 = 128;
/// No provider takes more.
const MAX_TEMPERATURE_MILLI: u64 = 100_000;

fn invalid(message: impl Into<String>) -> RpcError {
    RpcError::new(code::INVALID_PARAMS, message)
}

/// Each pattern by itself. A model's plain name may be set before the model is.
pub(super) fn check_patterns(settings: &Settings, config: &Config) -> Result<(), RpcError> {
    let capabilities = &settings.capabilities;
    let listed = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    for pattern in listed(&settings.allowed_models) {
        let known = |pattern: &str| {
            config
                .models
                .keys()
                .any(|name| pattern::matches(pattern, name))
        };
        if pattern::has_star(&pattern) && !known(&pattern) {
            return Err(invalid(format!(
                "allowed_models: {pattern} matches no model; see aex models"
            )));
        }
    }
    for pattern in listed(&capabilities.allowed_providers) {
        if !(config.providers.keys()).any(|name| pattern::matches(&pattern, name)) {
            return Err(invalid(format!(
                "allowed_providers: {pattern} matches no provider of models.yaml"
            )));
        }
    }
    for (what, list) in [
        ("allowed_tools", &settings.allowed_tools),
        ("denied_tools", &capabilities.denied_tools),
    ] {
        if let Some(pattern) = listed(list).iter().find(|p| !tools::is_plain_pattern(p)) {
            return Err(invalid(format!(
                "{what}: {pattern} can match no tool; names are 1 to 128 of A-Z a-z 0-9 _ . : - \
                 and * for any run of them"
            )));
        }
    }
    if capabilities
        .allowed_routes
        .as_ref()
        .is_some_and(Vec::is_empty)
    {
        return Err(invalid("allowed_routes is one route or more"));
    }
    if capabilities
        .max_choices
        .is_some_and(|most| !(1..=MAX_CHOICES).contains(&most))
    {
        return Err(invalid(format!("max_choices is 1 to {MAX_CHOICES}")));
    }
    check_together(settings)
}

/// What only shows when all of an agent's settings are put together.
pub(super) fn check_together(settings: &Settings) -> Result<(), RpcError> {
    let capabilities = &settings.capabilities;
    let (min, max) = (
        capabilities.min_temperature_milli,
        capabilities.max_temperature_milli,
    );
    if min.max(max) > Some(MAX_TEMPERATURE_MILLI) || max.is_some_and(|max| min > Some(max)) {
        return Err(invalid(
            "temperature is a range MIN..MAX within 0..100, such as 0..1.5",
        ));
    }
    let denied = capabilities.denied_tools.as_deref().unwrap_or_default();
    let allowed = settings.allowed_tools.as_deref().unwrap_or_default();
    let is_denied = |name: &&String| denied.iter().any(|p| pattern::matches_any_case(p, name));
    match allowed.iter().find(is_denied) {
        Some(name) => Err(invalid(format!(
            "allowed_tools: {name} can never be used, since denied_tools has it"
        ))),
        None => Ok(()),
    }
}

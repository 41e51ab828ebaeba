//! What may be set, and how a change of settings is taken: the same for agents, groups, runs and the
//! kernel.

use aex_admin_proto::limit::{Limit, LimitKey, Subject};
use aex_admin_proto::operator::{AgentState, Settings};
use aex_admin_proto::rpc::{RpcError, code};
use aex_admin_proto::scope::ScopeKind;

use super::operator::{Trouble, invalid};
use super::patterns::check_patterns;
use crate::config::Config;
use crate::core::money::MAX_BUDGET_MICRO;
use crate::core::period;
use crate::core::scope::Scope;

const MAX_NAME_BYTES: usize = 64;
const MAX_LIST: usize = 256;
/// Limits of one scope.
const MAX_LIMITS: usize = 64;
/// Sessions of one scope: each is a row that is kept.
const MAX_SESSIONS: u64 = 100_000;

pub(super) fn check_name(name: &str) -> Result<(), Trouble> {
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if starts_well && name.len() <= MAX_NAME_BYTES && name.chars().all(known) {
        return Ok(());
    }
    Err(invalid(
        "a name is 1 to 64 of A-Z a-z 0-9 . _ - and begins with a letter or digit",
    ))
}

/// That a name is not free, and what to do about it.
pub(super) fn taken(scope: &Scope) -> RpcError {
    let (kind, name) = (scope.kind.name(), &scope.name);
    let text = match (scope.kind, scope.grant.state) {
        (ScopeKind::Kernel, _) => {
            format!("{name} is the kernel's own scope: change it with aex group set {name}")
        }
        (_, AgentState::Closed) => format!(
            "the name {name} is taken by a deleted {kind}, whose history stays; choose another"
        ),
        _ => format!(
            "the {kind} {name} is there already: change it with aex {kind} set {name}, or choose another name"
        ),
    };
    RpcError::new(code::CONFLICT, text)
}

pub(super) fn check_budget(budget_micro: i64) -> Result<(), Trouble> {
    if (0..=MAX_BUDGET_MICRO).contains(&budget_micro) {
        return Ok(());
    }
    Err(invalid("a budget is 0 to 9000000 USD"))
}

pub(super) fn check_rpm(rpm: u64) -> Result<(), Trouble> {
    if (1..=1_000_000_000).contains(&rpm) {
        return Ok(());
    }
    Err(invalid(
        "requests per minute are 1 to 1000000000; to stop an agent, pause it",
    ))
}

pub(super) fn check_settings(settings: &Settings, config: &Config) -> Result<(), Trouble> {
    let limits = [
        ("max_tokens_per_minute", settings.max_tokens_per_minute),
        ("max_input_tokens", settings.max_input_tokens),
        ("max_output_tokens", settings.max_output_tokens),
        ("max_concurrency", settings.max_concurrency),
    ];
    for (name, limit) in limits {
        if limit.is_some_and(|limit| limit == 0 || limit > 1_000_000_000_000) {
            return Err(invalid(format!(
                "{name} is 1 to 1000000000000; leave it out for no limit"
            )));
        }
    }
    for (what, names) in [
        ("allowed_models", &settings.allowed_models),
        ("allowed_tools", &settings.allowed_tools),
        ("labels", &settings.labels),
        (
            "allowed_providers",
            &settings.capabilities.allowed_providers,
        ),
        ("denied_tools", &settings.capabilities.denied_tools),
    ] {
        let Some(names) = names else { continue };
        let fits = |name: &String| {
            !name.is_empty()
                && name.len() <= 256
                && !name
                    .chars()
                    .any(|c| c == ',' || c.is_control() || c.is_whitespace())
        };
        if names.is_empty() || names.len() > MAX_LIST || !names.iter().all(fits) {
            return Err(invalid(format!(
                "{what} is 1 to {MAX_LIST} names without spaces or commas"
            )));
        }
    }
    // The kernel's own mark for "no user".
    if settings.uid == Some(u32::MAX) {
        return Err(invalid("uid is the number of a user, 0 to 4294967294"));
    }
    check_patterns(settings, config)?;
    check_limits(settings.limits.as_deref().unwrap_or_default(), config)?;
    if let Some(percent) = settings.max_held_percent
        && !(1..=100).contains(&percent)
    {
        return Err(invalid("max_held_percent is 1 to 100"));
    }
    if let Some(sessions) = settings.max_sessions
        && !(1..=MAX_SESSIONS).contains(&sessions)
    {
        return Err(invalid(format!("max_sessions is 1 to {MAX_SESSIONS}")));
    }
    if let Some(name) = &settings.time_zone
        && period::zone(name).is_none()
    {
        return Err(invalid(format!(
            "there is no time zone {name}; use a name such as Europe/Berlin or UTC"
        )));
    }
    Ok(())
}

/// As [`check_settings`], for what is not to come into force.
pub(crate) fn check_proposed(settings: &Settings, config: &Config) -> Result<(), RpcError> {
    check_settings(settings, config).map_err(|trouble| match trouble {
        Trouble::Rpc(error) => error,
        Trouble::Ledger(error) => RpcError::new(code::INTERNAL, error.to_string()),
    })
}

/// One limit of each kind, and none that can match nothing.
fn check_limits(limits: &[Limit], config: &Config) -> Result<(), Trouble> {
    if limits.len() > MAX_LIMITS {
        return Err(invalid(format!("a scope has at most {MAX_LIMITS} limits")));
    }
    for (at, limit) in limits.iter().enumerate() {
        if limits[..at].iter().any(|other| other.key == limit.key) {
            return Err(invalid(format!("limit {} is given twice", limit.key)));
        }
        let (known, what) = match &limit.key.subject {
            Subject::All => continue,
            Subject::Model(name) => (config.models.contains_key(name), "model"),
            Subject::Provider(name) => (config.providers.contains_key(name), "provider"),
        };
        if !known {
            return Err(invalid(format!(
                "limit {}: models.yaml has no such {what}, so it could match nothing",
                limit.key
            )));
        }
    }
    Ok(())
}

pub(super) fn merge(into: &mut Settings, from: &Settings) {
    fn take<T: Clone>(into: &mut Option<T>, from: &Option<T>) {
        if from.is_some() {
            into.clone_from(from);
        }
    }
    take(&mut into.allowed_models, &from.allowed_models);
    take(&mut into.passthrough, &from.passthrough);
    take(&mut into.max_tokens_per_minute, &from.max_tokens_per_minute);
    take(&mut into.max_input_tokens, &from.max_input_tokens);
    take(&mut into.max_output_tokens, &from.max_output_tokens);
    take(&mut into.max_concurrency, &from.max_concurrency);
    take(&mut into.streaming, &from.streaming);
    take(&mut into.tools, &from.tools);
    take(&mut into.allowed_tools, &from.allowed_tools);
    take(&mut into.vision, &from.vision);
    into.capabilities.merge(&from.capabilities);
    take(&mut into.max_held_percent, &from.max_held_percent);
    take(&mut into.max_sessions, &from.max_sessions);
    take(&mut into.time_zone, &from.time_zone);
    take(&mut into.labels, &from.labels);
    take(&mut into.uid, &from.uid);
    take(&mut into.client_cert, &from.client_cert);
    for limit in from.limits.iter().flatten() {
        let limits = into.limits.get_or_insert_default();
        match limits.iter_mut().find(|known| known.key == limit.key) {
            Some(known) => known.clone_from(limit),
            None => limits.push(limit.clone()),
        }
    }
}

/// Takes limits away.
pub(super) fn drop_limits(settings: &mut Settings, keys: &[LimitKey]) -> Result<(), Trouble> {
    let limits = settings.limits.get_or_insert_default();
    for key in keys {
        let before = limits.len();
        limits.retain(|limit| limit.key != *key);
        if limits.len() == before {
            return Err(invalid(format!("there is no limit {key} to take away")));
        }
    }
    if limits.is_empty() {
        settings.limits = None;
    }
    Ok(())
}

pub(super) fn clear(settings: &mut Settings, name: &str) -> Result<(), Trouble> {
    match name {
        "allowed_models" => settings.allowed_models = None,
        "passthrough" => settings.passthrough = None,
        "max_tokens_per_minute" => settings.max_tokens_per_minute = None,
        "max_input_tokens" => settings.max_input_tokens = None,
        "max_output_tokens" => settings.max_output_tokens = None,
        "max_concurrency" => settings.max_concurrency = None,
        "streaming" => settings.streaming = None,
        "tools" => settings.tools = None,
        "allowed_tools" => settings.allowed_tools = None,
        "vision" => settings.vision = None,
        "limits" => settings.limits = None,
        "max_held_percent" => settings.max_held_percent = None,
        "max_sessions" => settings.max_sessions = None,
        "time_zone" => settings.time_zone = None,
        "labels" => settings.labels = None,
        "uid" => settings.uid = None,
        "client_cert" => settings.client_cert = None,
        other if settings.capabilities.clear(other) => {}
        _ => return Err(invalid(format!("there is no setting {name}"))),
    }
    Ok(())
}

//! What `aex daemon start` says of provider keys: which provider has none, and what to do about it.
//!
//! Asked of `aex-admin` in one go; what to say is decided purely. A kernel that does not answer
//! costs the advice, never the start.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use aex_admin_proto::client::Client;
use aex_admin_proto::egress::KeyPolicy;
use aex_admin_proto::operator::{ModelList, ModelView, Status, method};
use aex_admin_proto::places::Places;
use serde_json::json;

use crate::supervisor;

/// For each of the two calls; the kernel was ready a moment ago.
const CALL_LIMIT: Duration = Duration::from_secs(2);

/// Where the running daemon's keys come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeysOf {
    /// The environment of this very command.
    ThisCommand,
    /// That of an earlier one: what this one's environment has was not taken.
    AnEarlierStart,
}

/// One sentence or two for each provider that lacks a key.
pub(super) async fn about_keys(keys_of: KeysOf, places: &Places) -> Vec<String> {
    let Some((status, list)) = ask(places).await else {
        return Vec::new();
    };
    let here = match keys_of {
        KeysOf::ThisCommand => Vec::new(),
        KeysOf::AnEarlierStart => supervisor::key_names(),
    };
    let missing = Missing {
        status: &status,
        list: &list,
        here: &here,
    };
    missing.advice(&places.keys)
}

/// Variables of the keys that the running kernel has, and that a start with this environment would
/// not find again.
pub(super) async fn keys_that_would_be_lost(places: &Places) -> Vec<String> {
    let Some((status, _)) = ask(places).await else {
        return Vec::new();
    };
    let here = supervisor::key_names();
    (status.operator_keys.iter())
        .filter(|provider| !places.keys.join(provider).exists())
        .map(|provider| key_variable(provider))
        .filter(|variable| !here.contains(variable))
        .collect()
}

async fn ask(places: &Places) -> Option<(Status, ModelList)> {
    let client = Client::connect(&places.operator_socket()).await.ok()?;
    let nothing = json!({});
    let status = client.call(method::STATUS, &nothing, CALL_LIMIT).await;
    let list = client.call(method::MODEL_LIST, &nothing, CALL_LIMIT).await;
    Some((status.ok()?, list.ok()?))
}

struct Missing<'a> {
    status: &'a Status,
    list: &'a ModelList,
    /// Key variables of an environment that the daemon did not take.
    here: &'a [String],
}

impl Missing<'_> {
    fn advice(&self, keys: &Path) -> Vec<String> {
        let providers: BTreeMap<&str, &ModelView> = self
            .list
            .models
            .iter()
            .flat_map(|model| std::iter::once(model).chain(&model.fallbacks))
            .map(|model| (model.provider.as_str(), model))
            .collect();
        providers
            .into_iter()
            .filter(|(provider, _)| !self.status.operator_keys.iter().any(|has| has == provider))
            .filter(|(_, model)| model.keys != KeyPolicy::Passthrough)
            .filter_map(|(provider, model)| {
                let variable = key_variable(provider);
                if self.here.contains(&variable) {
                    Some(not_taken(&variable))
                } else if model.loopback {
                    None
                } else {
                    Some(no_key(provider, &variable, model.keys, keys))
                }
            })
            .collect()
    }
}

fn not_taken(variable: &str) -> String {
    format!(
        "{variable} of this environment was not taken: the running daemon keeps the keys that it \
         was started with, over a restart too. To hand it over: `aex daemon stop && aex daemon \
         start`."
    )
}

fn no_key(provider: &str, variable: &str, policy: KeyPolicy, keys: &Path) -> String {
    let until_then = if policy == KeyPolicy::Operator {
        "its models are refused"
    } else {
        "agents need a key of their own"
    };
    format!(
        "no key for provider {provider}: set {variable}, then `aex daemon stop && aex daemon start`; \
         or write the key to {} (chmod 600), then `aex daemon restart`. Until then {until_then}.",
        keys.join(provider).display()
    )
}

/// As the kernel spells the variable of a provider's key.
pub(crate) fn key_variable(provider: &str) -> String {
    let plain = |c: char| match c {
        c if c.is_ascii_alphanumeric() => c.to_ascii_uppercase(),
        _ => '_',
    };
    provider
        .chars()
        .map(plain)
        .chain("_API_KEY".chars())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(provider: &str, keys: KeyPolicy, loopback: bool) -> ModelView {
        serde_json::from_value(json!({
            "name": "m", "provider": provider, "upstream_model": "m", "price_source": "catalogue",
            "input_pico": null, "cached_input_pico": null, "output_pico": null,
            "max_output_tokens": null, "context_window": null, "keys": keys, "loopback": loopback,
        }))
        .unwrap()
    }

    fn advice(here: &[&str]) -> Vec<String> {
        let status: Status = serde_json::from_value(json!({
            "version": "0", "boundary": "advisory", "ready": true, "why": null, "pid": 1,
            "uptime_ms": 1, "egress_pid": 2, "operator_keys": ["has"], "agents": 0, "workers": [],
            "open_holds": 0, "waiting": 0, "events": 0, "ledger": "x", "config_generation": 1,
        }))
        .unwrap();
        let list = ModelList {
            models: vec![
                model("own.keys", KeyPolicy::Passthrough, false),
                model("groq", KeyPolicy::Either, false),
                model("groq", KeyPolicy::Either, false),
                model("has", KeyPolicy::Either, false),
                model("mine", KeyPolicy::Operator, false),
                model("local-1", KeyPolicy::Either, true),
            ],
        };
        let here: Vec<String> = here.iter().map(|&name| name.to_owned()).collect();
        let missing = Missing {
            status: &status,
            list: &list,
            here: &here,
        };
        missing.advice(Path::new("/h/keys"))
    }

    #[test]
    fn a_provider_that_needs_a_key_and_has_none_is_named_once() {
        let said = advice(&[]);
        assert_eq!(said.len(), 2, "{said:?}");
        for part in ["groq", "GROQ_API_KEY", "/h/keys/groq", "key of their own"] {
            assert!(said[0].contains(part), "{part}: {}", said[0]);
        }
        assert!(said[1].contains("MINE_API_KEY") && said[1].contains("refused"));
    }

    #[test]
    fn a_key_that_came_too_late_is_named() {
        let said = advice(&[
            "GROQ_API_KEY",
            "HAS_API_KEY",
            "OWN_KEYS_API_KEY",
            "LOCAL_1_API_KEY",
            "TAVILY_API_KEY",
        ]);
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[0].starts_with("GROQ_API_KEY of this environment was not taken"));
        assert!(said[1].starts_with("LOCAL_1_API_KEY of this environment"));
        assert!(said[2].starts_with("no key for provider mine"));
    }
}

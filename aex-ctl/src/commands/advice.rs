//! What `aex daemon start` says of provider keys: which provider has none, and what to do about it.
//!
//! Asked of `aex-admin` in one go; what to say is decided purely. A kernel that does not answer
//! costs the advice, never the start.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use aex_admin_proto::client::Client;
use aex_admin_proto::operator::{ModelList, Status, method};
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
    let config = std::fs::read_to_string(&places.config_file).unwrap_or_default();
    let here = match keys_of {
        KeysOf::ThisCommand => Vec::new(),
        KeysOf::AnEarlierStart => supervisor::key_names(),
    };
    let missing = Missing {
        status: &status,
        list: &list,
        config: &config,
        here: &here,
    };
    missing.advice(&places.keys)
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
    config: &'a str,
    /// Key variables of an environment that the daemon did not take.
    here: &'a [String],
}

impl Missing<'_> {
    fn advice(&self, keys: &Path) -> Vec<String> {
        let policies = key_policies(self.config);
        // Whether any of its models costs money: a free one is, as a rule, served on this machine.
        let mut providers: BTreeMap<&str, bool> = BTreeMap::new();
        for model in &self.list.models {
            *providers.entry(&model.provider).or_default() |= model.price_source != "free";
        }
        providers
            .into_iter()
            .filter(|(provider, _)| !self.status.operator_keys.iter().any(|has| has == provider))
            .filter_map(|(provider, costs)| {
                let policy = policies.get(provider).copied().unwrap_or("either");
                let variable = key_variable(provider);
                if policy == "passthrough" {
                    None
                } else if self.here.contains(&variable) {
                    Some(not_taken(&variable))
                } else if costs {
                    Some(no_key(provider, &variable, policy, keys))
                } else {
                    None
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

fn no_key(provider: &str, variable: &str, policy: &str, keys: &Path) -> String {
    let until_then = if policy == "operator" {
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
fn key_variable(provider: &str) -> String {
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

/// `keys:` of the providers in a models.yaml that `aex-admin` has accepted. The kernel does not tell
/// it; here it only keeps a needless warning away, so one that is written in an unusual way may cost
/// that warning.
fn key_policies(config: &str) -> HashMap<&str, &str> {
    let mut policies = HashMap::new();
    let mut inside = false;
    let mut provider_indent = None;
    let mut provider = "";
    for line in config.lines() {
        let line = line.split(" #").next().unwrap_or(line).trim_end();
        let text = line.trim_start();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let indent = line.len() - text.len();
        if indent == 0 {
            inside = text == "providers:";
            continue;
        }
        let Some((name, value)) = text.split_once(':').filter(|_| inside) else {
            continue;
        };
        if indent <= *provider_indent.get_or_insert(indent) {
            provider = unquoted(name);
        } else if unquoted(name) == "keys" {
            policies.insert(provider, unquoted(value));
        }
    }
    policies
}

fn unquoted(text: &str) -> &str {
    text.trim().trim_matches(['"', '\''])
}

#[cfg(test)]
mod tests {
    use aex_admin_proto::operator::ModelView;

    use super::*;

    const CONFIG: &str = "\
# providers:
providers:
  groq:
    base_url: https://a/v1
  own.keys:                # theirs
    keys: \"passthrough\"  # strict
    base_url: https://b/v1
  mine: # ours

    # keys: passthrough
    keys: operator
models:
  x:
    keys: passthrough
";

    fn model(provider: &str, price_source: &str) -> ModelView {
        serde_json::from_value(json!({
            "name": "m", "provider": provider, "upstream_model": "m", "price_source": price_source,
            "input_pico": null, "cached_input_pico": null, "output_pico": null,
            "max_output_tokens": null, "context_window": null,
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
                model("own.keys", "catalogue"),
                model("groq", "catalogue"),
                model("groq", "free"),
                model("has", "models.yaml"),
                model("mine", "none"),
                model("local-1", "free"),
            ],
        };
        let here: Vec<String> = here.iter().map(|&name| name.to_owned()).collect();
        let missing = Missing {
            status: &status,
            list: &list,
            config: CONFIG,
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

    #[test]
    fn key_policies_are_found() {
        let found = key_policies(CONFIG);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found["own.keys"], "passthrough");
        assert_eq!(found["mine"], "operator");
        assert!(key_policies(include_str!("../../../config/models.yaml")).is_empty());
    }
}

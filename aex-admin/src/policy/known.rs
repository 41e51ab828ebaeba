//! What the names in policies may refer to.

use std::collections::BTreeSet;
use std::str::FromStr;

use cedar_policy::{EntityUid, Policy};

use super::KERNEL_GROUP;
use super::source::Source;
use crate::config::{Config, Model};

/// What there is. Models and providers are the configuration's; agents and groups are the ledger's,
/// and may be made later, so a policy may name others too.
#[derive(Debug, Clone, Default)]
pub struct Known {
    pub models: BTreeSet<String>,
    pub providers: BTreeSet<String>,
    /// Those that a target of any model is at.
    pub serving: BTreeSet<String>,
    /// Absent: nobody looked.
    pub agents: Option<BTreeSet<String>>,
    /// Absent: nobody looked. The kernel's own need not be in it.
    pub groups: Option<BTreeSet<String>>,
}

impl Known {
    /// Models and providers of models.yaml.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            models: config.models.keys().cloned().collect(),
            providers: config.providers.keys().cloned().collect(),
            serving: (config.models.values())
                .flat_map(Model::targets)
                .map(|target| target.provider.clone())
                .collect(),
            agents: None,
            groups: None,
        }
    }
}

/// A name that refers to nothing.
pub(super) struct Stray {
    pub(super) offset: usize,
    pub(super) message: String,
    /// It can match nothing, now or later.
    pub(super) fatal: bool,
}

/// The names of one policy that refer to nothing. `span`: where it stands in its file.
pub(super) fn strays(
    policy: &Policy,
    source: &Source<'_>,
    span: std::ops::Range<usize>,
    known: &Known,
) -> Vec<Stray> {
    let mut strays = Vec::new();
    for literal in policy.entity_literals() {
        let kind = literal.type_name().to_string();
        let id: &str = literal.id().unescaped();
        let Some((message, fatal)) = missing(&kind, id, known) else {
            continue;
        };
        let is_it = |written: &str| {
            EntityUid::from_str(&format!("{kind}::{written}")).is_ok_and(|uid| uid == literal)
        };
        let offset = source.literal(span.clone(), &kind, is_it);
        strays.push(Stray {
            offset: offset.unwrap_or(span.start),
            message,
            fatal,
        });
    }
    strays
}

/// What is wrong with a name, and whether that is final.
fn missing(kind: &str, id: &str, known: &Known) -> Option<(String, bool)> {
    let later =
        |there: &Option<BTreeSet<String>>| there.as_ref().is_some_and(|there| !there.contains(id));
    match kind {
        "Model" if !known.models.contains(id) => Some((
            format!(
                "models.yaml has no model {id:?}, so this can match nothing: take a name that `aex models` lists"
            ),
            true,
        )),
        "Provider" if !known.providers.contains(id) => Some((
            format!(
                "models.yaml has no provider {id:?}, so this can match nothing: take one that it names"
            ),
            true,
        )),
        "Provider" if !known.serving.contains(id) => Some((
            format!(
                "no model of models.yaml is at provider {id:?}, so this can match nothing: give it one, \
                 or take the policy out"
            ),
            true,
        )),
        "Agent" if later(&known.agents) => Some((format!("there is no agent {id:?} yet"), false)),
        "Group" if id != KERNEL_GROUP && later(&known.groups) => {
            Some((format!("there is no group {id:?} yet"), false))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Catalogue, parse};

    #[test]
    fn a_provider_of_a_further_target_serves() {
        let text = "
providers:
  a: { base_url: 'http://127.0.0.1:1/v1' }
  b: { base_url: 'http://127.0.0.1:2/v1' }
  c: { base_url: 'http://127.0.0.1:3/v1' }
models:
  m: { targets: [{ provider: a, price: free }, { provider: b, price: free }] }
";
        let known = Known::of(&parse(text, Catalogue::builtin()).unwrap().0);
        let serving: Vec<&str> = known.serving.iter().map(String::as_str).collect();
        assert_eq!(serving, ["a", "b"]);
        assert!(known.providers.contains("c"));
    }
}

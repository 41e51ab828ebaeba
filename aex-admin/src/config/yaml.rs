//! YAML in, with bounds and positions: duplicate and unknown keys refused, alias bombs cut short,
//! errors that carry a place but no piece of the source.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::{MessageFormatter, Options, Spanned, UserMessageFormatter};

use super::{ConfigError, MAX_CONFIG_BYTES};

/// A scalar as it stands in the file, number or not: numbers are read by this module's own rules, so
/// that no price passes through a float.
pub(super) type Scalar = Spanned<String>;

/// Deepest nesting that either file needs is 5; some room for flow style.
const MAX_DEPTH: usize = 12;
const MAX_NODES: usize = 100_000;
const MAX_ALIASES: usize = 1_000;
/// Events that aliases may repeat, in all.
const MAX_REPLAYED_EVENTS: usize = 50_000;

/// Reads one document.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> Result<T, ConfigError> {
    if text.len() > MAX_CONFIG_BYTES {
        return Err(ConfigError::anywhere(format!(
            "larger than {MAX_CONFIG_BYTES} bytes"
        )));
    }
    serde_saphyr::from_str_with_options(text, options()).map_err(|error| explain(&error))
}

fn options() -> Options {
    serde_saphyr::options! {
        with_snippet: false,
        emit_comments: false,
        strict_booleans: true,
        reject_unsupported_tags: true,
        reject_tagged_field_names: true,
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 2 * MAX_NODES,
            max_aliases: MAX_ALIASES,
            max_anchors: MAX_ALIASES,
            max_merge_keys: MAX_ALIASES,
            max_recorded_anchor_events: MAX_REPLAYED_EVENTS,
            max_recorded_anchor_bytes: MAX_CONFIG_BYTES,
            max_total_scalar_bytes: 4 * MAX_CONFIG_BYTES,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_REPLAYED_EVENTS,
            max_replay_stack_depth: MAX_DEPTH,
        },
    }
}

fn explain(error: &serde_saphyr::Error) -> ConfigError {
    let message = UserMessageFormatter.format_message(error);
    let message = match message.as_ref() {
        "expected mapping start" => "expected lines of KEY: VALUE here".to_owned(),
        "expected string scalar" => "expected a single value here".to_owned(),
        "expected sequence start" => "expected a list here, such as [a, b]".to_owned(),
        text => text
            .replace("unknown field", "unknown key")
            .replace("missing field", "missing key")
            .replace("mapping key", "key"),
    };
    match error.location() {
        Some(location) => ConfigError::at(location, message),
        None => ConfigError::anywhere(message),
    }
}

/// A mapping whose keys are names of the operator's choosing, in file order, with their places.
#[derive(Debug)]
pub(super) struct Entries<V>(pub(super) Vec<(Scalar, V)>);

impl<V> Default for Entries<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Entries<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor<V>(PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for EntriesVisitor<V> {
            type Value = Entries<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("lines of NAME: VALUE")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(EntriesVisitor(PhantomData))
    }
}

//! LiteLLM's `model_prices_and_context_window.json`, entry by entry. Unknown fields are ignored;
//! amounts are read from the text of the JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

use aex_admin_proto::prices::LeftOut;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::amount;
use crate::config::{Catalogue, CatalogueModel, Model};
use crate::core::price::{Price, Tier};

/// What LiteLLM calls a provider, what the catalogue calls it, and what goes before its models' names.
const PROVIDERS: [(&str, &str, &str); 10] = [
    ("openai", "openai", "openai/"),
    (
        "text-completion-openai",
        "openai",
        "text-completion-openai/",
    ),
    ("groq", "groq", "groq/"),
    ("anthropic", "anthropic", "anthropic/"),
    ("gemini", "gemini", "gemini/"),
    ("mistral", "mistral", "mistral/"),
    ("deepseek", "deepseek", "deepseek/"),
    ("together_ai", "together", "together_ai/"),
    ("openrouter", "openrouter", "openrouter/"),
    ("xai", "xai", "xai/"),
];

const MODES: [&str; 4] = ["chat", "completion", "responses", "embedding"];

/// Models that search or research of their own accord, and bill that beside the tokens.
const SEARCHES: [&str; 4] = ["search-preview", "search-api", "deep-research", "sonar"];

/// Prices by something else than tokens.
const OTHER_UNITS: [&str; 6] = [
    "input_cost_per_second",
    "output_cost_per_second",
    "input_cost_per_character",
    "output_cost_per_character",
    "input_cost_per_text_message",
    "output_cost_per_image",
];

const INPUT: &str = "input_cost_per_token";
const CACHED: &str = "cache_read_input_token_cost";
const CACHE_WRITE: &str = "cache_creation_input_token_cost";
const OUTPUT: &str = "output_cost_per_token";

/// What a table came to.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// One a model, by provider and name.
    pub(super) models: Vec<CatalogueModel>,
    pub(super) left_out: LeftOut,
    /// `KEY: why`.
    pub(super) unreadable: Vec<String>,
}

impl Table {
    pub(super) fn leave_unreadable(&mut self, key: &str, why: &str) {
        self.left_out.unreadable += 1;
        self.unreadable.push(format!("{key}: {why}"));
    }
}

/// Reads a table. What it does not say of a model, `known` does. `date` is the entries'.
///
/// # Errors
/// It is no JSON object, or names a key twice.
pub(super) fn read(json: &[u8], known: &Catalogue, date: &str) -> Result<Table, String> {
    let Pairs(entries) =
        serde_json::from_slice::<Pairs<&RawValue>>(json).map_err(|error| error.to_string())?;
    let mut table = Table::default();
    let mut models: BTreeMap<(String, String), (String, CatalogueModel)> = BTreeMap::new();
    let mut disputed = BTreeSet::new();
    for (key, raw) in entries {
        let model = match judge(&key, raw.get(), known, date) {
            Ok(model) => model,
            Err(Left::OtherProvider) => {
                table.left_out.other_provider += 1;
                continue;
            }
            Err(Left::OtherMode) => {
                table.left_out.other_mode += 1;
                continue;
            }
            Err(Left::NoPrice) => {
                table.left_out.no_price += 1;
                continue;
            }
            Err(Left::MoreThanTokens) => {
                table.left_out.more_than_tokens += 1;
                continue;
            }
            Err(Left::Unreadable(why)) => {
                table.leave_unreadable(&key, &why);
                continue;
            }
        };
        let id = (model.provider.clone(), model.upstream_model.clone());
        match models.get(&id) {
            None => {
                models.insert(id, (key, model));
            }
            Some((_, other)) if same_terms(other, &model) => table.left_out.repeated += 1,
            Some(_) => {
                table.leave_unreadable(&key, "another entry has other terms for this model");
                disputed.insert(id);
            }
        }
    }
    for id in disputed {
        if let Some((key, _)) = models.remove(&id) {
            table.leave_unreadable(&key, "another entry has other terms for this model");
        }
    }
    table.models = models.into_values().map(|(_, model)| model).collect();
    Ok(table)
}

/// What a model of a provider may add of which nothing is known: the most that any of it does, where
/// that is above what is assumed anyhow.
fn longest_template(known: &Catalogue, provider: &str) -> Option<u64> {
    known
        .models()
        .iter()
        .filter(|model| model.provider == provider)
        .filter_map(|model| model.template_tokens)
        .max()
        .filter(|&tokens| tokens > Model::TEMPLATE_TOKENS)
}

fn same_terms(a: &CatalogueModel, b: &CatalogueModel) -> bool {
    let source = a.source.clone();
    *a == CatalogueModel {
        source,
        ..b.clone()
    }
}

/// Why an entry is left out.
enum Left {
    OtherProvider,
    OtherMode,
    NoPrice,
    MoreThanTokens,
    Unreadable(String),
}

impl From<String> for Left {
    fn from(why: String) -> Self {
        Self::Unreadable(why)
    }
}

fn judge(key: &str, json: &str, known: &Catalogue, date: &str) -> Result<CatalogueModel, Left> {
    let entry = Entry::read(json)?;
    let named = entry.text("litellm_provider")?;
    let &(_, provider, prefix) = PROVIDERS
        .iter()
        .find(|(name, ..)| named.as_deref() == Some(*name))
        .ok_or(Left::OtherProvider)?;
    let mode = entry.text("mode")?;
    let mode = mode
        .as_deref()
        .filter(|mode| MODES.contains(mode))
        .ok_or(Left::OtherMode)?;
    let name = key.strip_prefix(prefix).unwrap_or(key);
    let embeds_only = mode == "embedding";
    let price = entry.price(embeds_only)?;
    let bills_otherwise = OTHER_UNITS.iter().try_fold(false, |any, key| {
        entry.pico(key).map(|pico| any || pico > Some(0))
    })?;
    if bills_otherwise || SEARCHES.iter().any(|word| name.contains(word)) {
        return Err(Left::MoreThanTokens);
    }
    let old = known
        .providers()
        .find(|known| known.name == provider)
        .and_then(|provider| known.by_upstream(provider, name));
    let input_window = entry.count("max_input_tokens")?;
    let max_output_tokens = entry.count("max_output_tokens")?.filter(|_| !embeds_only);
    let reasons = entry.flag("supports_reasoning")?;
    // Some input limits are without the output, some with it: both together bound either.
    let window = input_window.map(|input| input.saturating_add(max_output_tokens.unwrap_or(0)));
    Ok(CatalogueModel {
        provider: provider.to_owned(),
        upstream_model: name.to_owned(),
        snapshots: Vec::new(),
        aliases: Vec::new(),
        price,
        embeds_only,
        max_output_tokens: max_output_tokens.or_else(|| {
            old.and_then(|old| old.max_output_tokens)
                .filter(|_| !embeds_only)
        }),
        context_window: match (old.and_then(|old| old.context_window), input_window) {
            (Some(whole), Some(input)) if input <= whole => Some(whole),
            (old, _) => window.or(old),
        },
        // A model is taken at its word that it reasons; that it does not is believed where nothing
        // else is known.
        hidden_output: !embeds_only
            && (reasons == Some(true)
                || old.map_or(reasons != Some(false), |old| old.hidden_output)),
        tokenizer: old.and_then(|old| old.tokenizer.clone()),
        image_tokens: old.and_then(|old| old.image_tokens),
        template_tokens: old.map_or_else(
            || longest_template(known, provider),
            |old| old.template_tokens,
        ),
        message_tokens: old.and_then(|old| old.message_tokens),
        tool_factor: old.and_then(|old| old.tool_factor),
        output_cap_param: old.and_then(|old| old.output_cap_param),
        source: format!("LiteLLM's table, {key}"),
        date: date.to_owned(),
        version: String::new(),
    })
}

/// One entry, its fields still as text.
struct Entry<'a>(BTreeMap<String, &'a RawValue>);

impl<'a> Entry<'a> {
    fn read(json: &'a str) -> Result<Self, String> {
        let Pairs(fields) = serde_json::from_str::<Pairs<&RawValue>>(json)
            .map_err(|_| "is no object, or names a field twice".to_owned())?;
        Ok(Self(fields.into_iter().collect()))
    }

    /// The text of a field that is there and not null.
    fn raw(&self, key: &str) -> Option<&'a str> {
        self.0
            .get(key)
            .map(|raw| raw.get())
            .filter(|&text| text != "null")
    }

    fn parsed<T: Deserialize<'a>>(&self, key: &str, form: &str) -> Result<Option<T>, String> {
        self.raw(key)
            .map(|text| serde_json::from_str(text).map_err(|_| format!("{key} is no {form}")))
            .transpose()
    }

    fn text(&self, key: &str) -> Result<Option<String>, String> {
        self.parsed(key, "text")
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, String> {
        self.parsed(key, "true or false")
    }

    /// 0 says nothing.
    fn count(&self, key: &str) -> Result<Option<u64>, String> {
        let count = self
            .raw(key)
            .map(|text| amount::whole(text).map_err(|why| format!("{key} {why}")))
            .transpose()?;
        Ok(count.filter(|&count| count > 0))
    }

    fn pico(&self, key: &str) -> Result<Option<u64>, String> {
        self.raw(key)
            .map(|text| amount::pico(text).map_err(|why| format!("{key} {why}")))
            .transpose()
    }

    fn price(&self, embeds_only: bool) -> Result<Price, Left> {
        let input = self.pico(INPUT)?;
        let output = self.pico(OUTPUT)?.filter(|_| !embeds_only);
        let (input_pico, output_pico) = match (input, output) {
            (Some(input), Some(output)) => (input, output),
            (Some(input), None) if embeds_only => (input, 0),
            (None, None) => return Err(Left::NoPrice),
            _ => {
                return Err(Left::Unreadable(
                    "has a price of one direction alone".to_owned(),
                ));
            }
        };
        // A zero stands for what is not known as often as for what is free.
        if input_pico == 0 && output_pico == 0 {
            return Err(Left::NoPrice);
        }
        if input_pico == 0 || (output_pico == 0 && !embeds_only) {
            return Err(Left::Unreadable(
                "has a price of 0 in one direction".to_owned(),
            ));
        }
        let reasoning = self.pico("output_cost_per_reasoning_token")?.unwrap_or(0);
        let output_pico = if embeds_only {
            0
        } else {
            output_pico.max(reasoning)
        };
        let base = self.rates("", input_pico, output_pico)?;
        let mut tiers = Vec::new();
        for thousands in self.thresholds()? {
            let suffix = format!("_above_{thousands}k_tokens");
            let plain = |key: &str| -> Result<Option<u64>, String> {
                let pico = self.pico(&format!("{key}{suffix}"))?;
                // A longer prompt is not free.
                Ok(pico.filter(|&pico| pico > 0))
            };
            let input = plain(INPUT)?.unwrap_or(base.input_pico);
            let output = match plain(OUTPUT)? {
                Some(output) if !embeds_only => output,
                _ => base.output_pico,
            };
            tiers.push(Tier {
                above_prompt_tokens: thousands.saturating_mul(1_000),
                ..self.rates(&suffix, input, output)?
            });
        }
        let fees = [
            self.pico("input_cost_per_request")?,
            self.pico("input_cost_per_query")?,
        ];
        Ok(Price {
            input_pico: base.input_pico,
            cached_input_pico: base.cached_input_pico,
            cache_write_pico: base.cache_write_pico,
            output_pico: base.output_pico,
            tiers,
            request_pico: fees.into_iter().flatten().max().unwrap_or(0),
        })
    }

    /// The rates of the fields with this suffix. A cached token whose price is 0 or not told costs
    /// what plain input does, and writing one never costs less.
    fn rates(&self, suffix: &str, input_pico: u64, output_pico: u64) -> Result<Tier, String> {
        let cached = self.pico(&format!("{CACHED}{suffix}"))?;
        let cache_write = self.pico(&format!("{CACHE_WRITE}{suffix}"))?;
        Ok(Tier {
            above_prompt_tokens: 0,
            input_pico,
            cached_input_pico: cached.filter(|&pico| pico > 0).unwrap_or(input_pico),
            cache_write_pico: cache_write.unwrap_or(0).max(input_pico),
            output_pico,
        })
    }

    /// `N` of each `…_above_Nk_tokens`, ascending.
    fn thresholds(&self) -> Result<BTreeSet<u64>, String> {
        let mut found = BTreeSet::new();
        for key in self.0.keys() {
            let suffix = [INPUT, CACHED, CACHE_WRITE, OUTPUT]
                .iter()
                .find_map(|stem| key.strip_prefix(stem)?.strip_prefix("_above_"));
            let Some(number) = suffix.and_then(|suffix| suffix.strip_suffix("k_tokens")) else {
                continue;
            };
            // `1hr_above_200k_tokens` and the like are of something else.
            if number.bytes().all(|b| b.is_ascii_digit()) {
                let number = number
                    .parse()
                    .map_err(|_| format!("{key} has no threshold"))?;
                found.insert(number);
            }
        }
        Ok(found)
    }
}

/// An object's fields, in order, each key once.
struct Pairs<V>(Vec<(String, V)>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Pairs<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor<V>(PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for PairsVisitor<V> {
            type Value = Pairs<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<V>, A::Error> {
                let mut pairs = Vec::new();
                let mut seen = BTreeSet::new();
                while let Some((key, value)) = map.next_entry::<String, V>()? {
                    if !seen.insert(key.clone()) {
                        return Err(serde::de::Error::custom("a key is there twice"));
                    }
                    pairs.push((key, value));
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(PairsVisitor(PhantomData))
    }
}

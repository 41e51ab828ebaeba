//! The `models` of models.yaml: to which provider each one leads, under which name there, and at
//! which price.
//!
//! The price is the file's; else the catalogue's for that provider and upstream name; else nothing,
//! where the provider is on a loopback address; else the model is listed and refused.

use std::collections::BTreeMap;

use super::build::{fault, limit, number};
use super::catalogue::{CatalogueModel, CatalogueProvider};
use super::document::{Document, RawModel, RawModelLimits};
use super::price::PriceField;
use super::providers::Known;
use super::types::{Model, ModelLimits, PriceSource, Pricing};
use super::yaml::Scalar;
use super::{Catalogue, ConfigError, targets, values};
use crate::core::routing::Routing;

const MAX_MODELS: usize = 10_000;

/// Bounds of what a model may be said to add to a prompt, in tokens; the last is a factor.
pub(super) const MAX_IMAGE_TOKENS: u64 = 10_000_000;
pub(super) const MAX_TEMPLATE_TOKENS: u64 = 100_000;
pub(super) const MAX_TOOL_FACTOR: u64 = 100;

/// In `fault`s a price that is neither form.
const PRICE_FORM: &str =
    "price: write free, or { input_per_mtok: 0.15, output_per_mtok: 0.60 } in USD";

pub(super) fn read(
    document: &Document,
    catalogue: &Catalogue,
    providers: &BTreeMap<String, Known<'_>>,
    warnings: &mut Vec<String>,
) -> Result<BTreeMap<String, Model>, ConfigError> {
    let mut models = BTreeMap::new();
    for (name, raw) in document.models.iter().flat_map(|entries| &entries.0) {
        values::model_name(&name.value).map_err(|why| fault(name.referenced, why))?;
        if models.len() == MAX_MODELS {
            let message = format!("more than {MAX_MODELS} models");
            return Err(fault(name.referenced, message));
        }
        let empty = RawModel::default();
        let raw = raw.as_ref().unwrap_or(&empty);
        let model = match &raw.targets {
            Some(written) => targets::read(name, raw, written, catalogue, providers)?,
            None => {
                targets::none_said(raw)?;
                read_one(name, raw, catalogue, providers)?
            }
        };
        for target in model.targets() {
            warn(target, providers, warnings);
        }
        models.insert(name.value.clone(), model);
    }
    if models.is_empty() {
        warnings.push("no models: agents have nothing to call".to_owned());
    }
    Ok(models)
}

fn find_provider<'a, 'b>(
    name: &Scalar,
    raw: &RawModel,
    providers: &'b BTreeMap<String, Known<'a>>,
) -> Result<&'b Known<'a>, ConfigError> {
    let Some(provider) = &raw.provider else {
        let message = format!("model {}: provider is missing", name.value);
        return Err(fault(name.referenced, message));
    };
    providers.get(&provider.value).ok_or_else(|| {
        let known: Vec<&str> = providers.keys().map(String::as_str).collect();
        let message = format!(
            "model {}: no such provider; this file has: {}",
            name.value,
            if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            }
        );
        fault(provider.referenced, message)
    })
}

pub(super) fn read_one(
    name: &Scalar,
    raw: &RawModel,
    catalogue: &Catalogue,
    providers: &BTreeMap<String, Known<'_>>,
) -> Result<Model, ConfigError> {
    let known = find_provider(name, raw, providers)?;
    if let Some(written) = &raw.upstream_model {
        values::model_name(&written.value)
            .map_err(|why| fault(written.referenced, format!("upstream_model: {why}")))?;
    }
    let (upstream_model, entry) =
        resolve(name, raw.upstream_model.as_ref(), catalogue, known.entry);
    let priced = read_pricing(raw, entry, known.provider.loopback)?;
    Ok(Model {
        name: name.value.clone(),
        provider: known.provider.name.clone(),
        upstream_model: upstream_model.to_owned(),
        max_output_tokens: read_max_output(raw, entry, priced.embeds_only)?,
        context_window: number("context_window", &raw.context_window, values::MAX_COUNT)?
            .or(entry.and_then(|entry| entry.context_window)),
        hidden_output: raw
            .hidden_output
            .or(entry.map(|entry| entry.hidden_output))
            .unwrap_or(true),
        tokenizer: read_tokenizer(raw)?.or_else(|| entry.and_then(|entry| entry.tokenizer.clone())),
        embeds_only: priced.embeds_only,
        image_tokens: number("image_tokens", &raw.image_tokens, MAX_IMAGE_TOKENS)?
            .or(entry.and_then(|entry| entry.image_tokens)),
        template_tokens: number("template_tokens", &raw.template_tokens, MAX_TEMPLATE_TOKENS)?
            .or(entry.and_then(|entry| entry.template_tokens))
            .unwrap_or(Model::TEMPLATE_TOKENS),
        message_tokens: number("message_tokens", &raw.message_tokens, MAX_TEMPLATE_TOKENS)?
            .or(entry.and_then(|entry| entry.message_tokens))
            .unwrap_or(Model::MESSAGE_TOKENS),
        tool_factor: number("tool_factor", &raw.tool_factor, MAX_TOOL_FACTOR)?
            .or(entry.and_then(|entry| entry.tool_factor))
            .unwrap_or(Model::TOOL_FACTOR),
        pricing: priced.pricing,
        limits: read_limits(raw.limits.as_ref())?,
        output_cap_param: entry
            .and_then(|entry| entry.output_cap_param)
            .unwrap_or(known.provider.facts.output_cap_param),
        weight: 1,
        routing: Routing::Ordered,
        fallbacks: Vec::new(),
    })
}

fn read_max_output(
    raw: &RawModel,
    entry: Option<&CatalogueModel>,
    embeds_only: bool,
) -> Result<Option<u64>, ConfigError> {
    let written = number(
        "max_output_tokens",
        &raw.max_output_tokens,
        values::MAX_COUNT,
    )?;
    match &raw.max_output_tokens {
        Some(scalar) if embeds_only => Err(fault(
            scalar.referenced,
            "max_output_tokens: the price has no output_per_mtok, so this model has no output",
        )),
        _ => Ok(written.or(entry.and_then(|entry| entry.max_output_tokens))),
    }
}

/// The upstream name, and what the catalogue knows of it. A name that the operator wrote is sent as
/// written, and found only as such: an alias must not price another model.
fn resolve<'a>(
    name: &'a Scalar,
    written: Option<&'a Scalar>,
    catalogue: &'a Catalogue,
    provider: Option<&CatalogueProvider>,
) -> (&'a str, Option<&'a CatalogueModel>) {
    let upstream = written.unwrap_or(name).value.as_str();
    let Some(provider) = provider else {
        return (upstream, None);
    };
    if let Some(entry) = catalogue.by_upstream(provider, upstream) {
        return (upstream, Some(entry));
    }
    match catalogue.by_alias(provider, upstream) {
        Some(entry) if written.is_none() => (&entry.upstream_model, Some(entry)),
        _ => (upstream, None),
    }
}

struct Priced {
    pricing: Pricing,
    embeds_only: bool,
}

fn read_pricing(
    raw: &RawModel,
    entry: Option<&CatalogueModel>,
    loopback: bool,
) -> Result<Priced, ConfigError> {
    let known_to_embed = entry.is_some_and(|entry| entry.embeds_only);
    let (price, source, embeds_only) = match (&raw.price, entry) {
        (Some(written), _) => match &written.value {
            PriceField::Free => return Ok(Priced::without(Pricing::Free, known_to_embed)),
            PriceField::Terms(terms) => {
                let terms = terms.read()?;
                (terms.price, PriceSource::ModelsYaml, terms.embeds_only)
            }
            PriceField::Other => return Err(fault(written.referenced, PRICE_FORM)),
        },
        (None, Some(entry)) => {
            let version = entry.version.clone();
            let source = PriceSource::Catalogue { version };
            (entry.price.clone(), source, known_to_embed)
        }
        (None, None) if loopback => return Ok(Priced::without(Pricing::Free, false)),
        (None, None) => return Ok(Priced::without(Pricing::Unpriced, false)),
    };
    let pricing = if price.is_free() {
        Pricing::Free
    } else {
        Pricing::Priced { price, source }
    };
    Ok(Priced {
        pricing,
        embeds_only,
    })
}

impl Priced {
    /// No figures: what is known of the model says whether it makes embeddings alone.
    fn without(pricing: Pricing, embeds_only: bool) -> Self {
        Self {
            pricing,
            embeds_only,
        }
    }
}

fn read_tokenizer(raw: &RawModel) -> Result<Option<String>, ConfigError> {
    let Some(written) = &raw.tokenizer else {
        return Ok(None);
    };
    values::tokenizer_name(&written.value)
        .map_err(|why| fault(written.referenced, format!("tokenizer: {why}")))?;
    Ok(Some(written.value.clone()))
}

pub(super) fn read_limits(raw: Option<&RawModelLimits>) -> Result<ModelLimits, ConfigError> {
    let Some(raw) = raw else {
        return Ok(ModelLimits::default());
    };
    Ok(ModelLimits {
        max_tokens_per_minute: limit("max_tokens_per_minute", &raw.max_tokens_per_minute)?,
        max_requests_per_minute: limit("max_requests_per_minute", &raw.max_requests_per_minute)?,
    })
}

fn warn(model: &Model, providers: &BTreeMap<String, Known<'_>>, warnings: &mut Vec<String>) {
    let (name, provider) = (&model.name, &model.provider);
    let loopback = (providers.get(provider)).is_some_and(|known| known.provider.loopback);
    match model.pricing {
        Pricing::Unpriced => warnings.push(format!(
            "model {name}: no price is known for {} of {provider}, so its requests are refused; add \
             price: {{ input_per_mtok: …, output_per_mtok: … }} or price: free",
            model.upstream_model
        )),
        Pricing::Free if !loopback => warnings.push(format!(
            "model {name}: is free, though {provider} is not on this machine: its requests count \
             against no budget"
        )),
        Pricing::Free | Pricing::Priced { .. } => {}
    }
}

//! The `models` of models.yaml: to which provider each one leads, under which name there, and at
//! which price.
//!
//! The price is the file's; else the catalogue's for that provider and upstream name; else nothing,
//! where the provider is on a loopback address; else the model is listed and refused.

use std::collections::BTreeMap;

use super::build::{fault, limit, number};
use super::catalogue::{CatalogueModel, CatalogueProvider};
use super::document::{Document, PriceField, RawModel, RawModelLimits};
use super::providers::Known;
use super::types::{Model, ModelLimits, PriceSource, Pricing};
use super::yaml::Scalar;
use super::{Catalogue, ConfigError, values};

const MAX_MODELS: usize = 10_000;

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
        let known = find_provider(name, raw, providers)?;
        let model = read_one(name, raw, catalogue, known)?;
        warn(&model, known, warnings);
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
    if let Some(targets) = &raw.targets {
        let message = "targets: not supported yet; use provider";
        return Err(fault(targets.referenced, message));
    }
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

fn read_one(
    name: &Scalar,
    raw: &RawModel,
    catalogue: &Catalogue,
    known: &Known<'_>,
) -> Result<Model, ConfigError> {
    if let Some(written) = &raw.upstream_model {
        values::model_name(&written.value)
            .map_err(|why| fault(written.referenced, format!("upstream_model: {why}")))?;
    }
    let (upstream_model, entry) =
        resolve(name, raw.upstream_model.as_ref(), catalogue, known.entry);
    let tokens = |key, raw, otherwise| {
        number(key, raw, values::MAX_COUNT).map(|written| written.or(otherwise))
    };
    Ok(Model {
        name: name.value.clone(),
        provider: known.provider.name.clone(),
        upstream_model: upstream_model.to_owned(),
        pricing: read_pricing(raw, entry, known.provider.loopback)?,
        max_output_tokens: tokens(
            "max_output_tokens",
            &raw.max_output_tokens,
            entry.map(|entry| entry.max_output_tokens),
        )?,
        context_window: tokens(
            "context_window",
            &raw.context_window,
            entry.map(|entry| entry.context_window),
        )?,
        hidden_output: raw
            .hidden_output
            .or(entry.map(|entry| entry.hidden_output))
            .unwrap_or(true),
        tokenizer: read_tokenizer(raw)?.or_else(|| entry.and_then(|entry| entry.tokenizer.clone())),
        limits: read_limits(raw.limits.as_ref())?,
        output_cap_param: entry
            .and_then(|entry| entry.output_cap_param)
            .unwrap_or(known.provider.facts.output_cap_param),
    })
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

fn read_pricing(
    raw: &RawModel,
    entry: Option<&CatalogueModel>,
    loopback: bool,
) -> Result<Pricing, ConfigError> {
    let (price, source) = match (&raw.price, entry) {
        (Some(written), _) => match &written.value {
            PriceField::Free => return Ok(Pricing::Free),
            PriceField::Terms(terms) => (terms.read()?, PriceSource::ModelsYaml),
            PriceField::Other => return Err(fault(written.referenced, PRICE_FORM)),
        },
        (None, Some(entry)) => (entry.price, PriceSource::Catalogue),
        (None, None) if loopback => return Ok(Pricing::Free),
        (None, None) => return Ok(Pricing::Unpriced),
    };
    if price.is_free() {
        return Ok(Pricing::Free);
    }
    Ok(Pricing::Priced { price, source })
}

fn read_tokenizer(raw: &RawModel) -> Result<Option<String>, ConfigError> {
    let Some(written) = &raw.tokenizer else {
        return Ok(None);
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if (1..=64).contains(&written.value.len()) && written.value.bytes().all(plain) {
        return Ok(Some(written.value.clone()));
    }
    Err(fault(
        written.referenced,
        "tokenizer: must be a name such as o200k_base",
    ))
}

fn read_limits(raw: Option<&RawModelLimits>) -> Result<ModelLimits, ConfigError> {
    let Some(raw) = raw else {
        return Ok(ModelLimits::default());
    };
    Ok(ModelLimits {
        max_tokens_per_minute: limit("max_tokens_per_minute", &raw.max_tokens_per_minute)?,
        max_requests_per_minute: limit("max_requests_per_minute", &raw.max_requests_per_minute)?,
    })
}

fn warn(model: &Model, known: &Known<'_>, warnings: &mut Vec<String>) {
    let (name, provider) = (&model.name, &model.provider);
    match model.pricing {
        Pricing::Unpriced => warnings.push(format!(
            "model {name}: no price is known for {} of {provider}, so its requests are refused; add \
             price: {{ input_per_mtok: …, output_per_mtok: … }} or price: free",
            model.upstream_model
        )),
        Pricing::Free if !known.provider.loopback => warnings.push(format!(
            "model {name}: is free, though {provider} is not on this machine: its requests count \
             against no budget"
        )),
        Pricing::Free | Pricing::Priced { .. } => {}
    }
}

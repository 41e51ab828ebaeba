//! The `providers` of models.yaml: addresses, whose keys, time limits, and what the catalogue knows
//! of each one's API.

use std::collections::BTreeMap;
use std::path::Path;

use aex_admin_proto::egress::KeyPolicy;

use super::build::{HOUR_MS, MINUTE_MS, duration, fault};
use super::catalogue::CatalogueProvider;
use super::document::{Document, RawProvider};
use super::types::{Provider, ProviderFacts};
use super::yaml::Scalar;
use super::{Catalogue, ConfigError, base_url, values};

const MAX_PROVIDERS: usize = 256;
const MAX_EXTRA_PARAMS: usize = 64;

/// A provider, and the catalogue's entry for it.
pub(super) struct Known<'a> {
    pub(super) provider: Provider,
    pub(super) entry: Option<&'a CatalogueProvider>,
}

pub(super) fn read<'a>(
    document: &Document,
    catalogue: &'a Catalogue,
    warnings: &mut Vec<String>,
) -> Result<BTreeMap<String, Known<'a>>, ConfigError> {
    let of_all = read_keys(document.keys.as_ref())?;
    let mut providers = BTreeMap::new();
    let mut variables: BTreeMap<String, &str> = BTreeMap::new();
    for (name, raw) in document.providers.iter().flat_map(|entries| &entries.0) {
        values::provider_name(&name.value).map_err(|why| fault(name.referenced, why))?;
        if providers.len() == MAX_PROVIDERS {
            let message = format!("more than {MAX_PROVIDERS} providers");
            return Err(fault(name.referenced, message));
        }
        let variable = values::key_variable(&name.value);
        if let Some(other) = variables.get(&variable) {
            let message = format!(
                "providers {other} and {} would both take their key from {variable}: rename one",
                name.value
            );
            return Err(fault(name.referenced, message));
        }
        variables.insert(variable, &name.value);
        let known = read_one(name, raw.as_ref(), of_all, catalogue, warnings)?;
        providers.insert(name.value.clone(), known);
    }
    Ok(providers)
}

fn read_one<'a>(
    name: &Scalar,
    raw: Option<&RawProvider>,
    keys_of_all: Option<KeyPolicy>,
    catalogue: &'a Catalogue,
    warnings: &mut Vec<String>,
) -> Result<Known<'a>, ConfigError> {
    let Some((raw, written)) = raw.and_then(|raw| Some((raw, raw.base_url.as_ref()?))) else {
        let message = format!("provider {}: base_url is missing", name.value);
        return Err(fault(name.referenced, message));
    };
    let url = base_url::parse(&written.value).map_err(|why| fault(written.referenced, why))?;
    if raw.ca_file.is_some() && !url.https {
        warnings.push(format!(
            "provider {}: ca_file has no effect on an http:// address",
            name.value
        ));
    }
    let entry = catalogue.provider(&name.value, &url.host);
    let mut facts = entry.map_or_else(ProviderFacts::default, |entry| entry.facts.clone());
    facts.stream_usage = raw.stream_usage.unwrap_or(facts.stream_usage);
    // Whatever its name, a local server is not the provider itself.
    facts.counts_choices &= !url.loopback;
    facts.counts_choices = raw.counts_choices.unwrap_or(facts.counts_choices);
    let connect_ms = 1..=10 * MINUTE_MS;
    let request_ms = 1..=24 * HOUR_MS;
    let provider = Provider {
        name: name.value.clone(),
        base_url: url.text,
        loopback: url.loopback,
        keys: own_keys(raw, keys_of_all)?,
        ca_file: read_ca_file(raw.ca_file.as_ref())?,
        connect_timeout_ms: duration("connect_timeout", &raw.connect_timeout, &connect_ms)?
            .unwrap_or(5_000),
        request_timeout_ms: duration("request_timeout", &raw.request_timeout, &request_ms)?
            .unwrap_or(600_000),
        first_byte_timeout_ms: duration(
            "first_byte_timeout",
            &raw.first_byte_timeout,
            &request_ms,
        )?,
        extra_params: read_extra_params(raw)?,
        facts,
    };
    Ok(Known { provider, entry })
}

/// Whose keys a provider takes: what it says itself, else what the file says for all. Where all are strict,
/// none is an exception.
fn own_keys(raw: &RawProvider, of_all: Option<KeyPolicy>) -> Result<KeyPolicy, ConfigError> {
    let own = read_keys(raw.keys.as_ref())?;
    match (&raw.keys, own, of_all) {
        (Some(written), Some(own), Some(KeyPolicy::Passthrough))
            if own != KeyPolicy::Passthrough =>
        {
            Err(fault(
                written.referenced,
                "keys: the file's own `keys: passthrough` holds for every provider; take that line out to \
                 make exceptions",
            ))
        }
        _ => Ok(own.or(of_all).unwrap_or_default()),
    }
}

fn read_keys(raw: Option<&Scalar>) -> Result<Option<KeyPolicy>, ConfigError> {
    let Some(scalar) = raw else {
        return Ok(None);
    };
    match scalar.value.as_str() {
        "operator" => Ok(Some(KeyPolicy::Operator)),
        "passthrough" => Ok(Some(KeyPolicy::Passthrough)),
        "either" => Ok(Some(KeyPolicy::Either)),
        _ => Err(fault(
            scalar.referenced,
            "keys: must be operator, passthrough or either (the keys themselves are not kept in this file)",
        )),
    }
}

fn read_ca_file(raw: Option<&Scalar>) -> Result<Option<String>, ConfigError> {
    match raw {
        Some(scalar) if !Path::new(&scalar.value).is_absolute() => Err(fault(
            scalar.referenced,
            "ca_file: must be an absolute path",
        )),
        _ => Ok(raw.map(|scalar| scalar.value.clone())),
    }
}

fn read_extra_params(raw: &RawProvider) -> Result<Vec<String>, ConfigError> {
    let mut params: Vec<String> = Vec::new();
    for scalar in raw.extra_params.iter().flatten() {
        values::param_name(&scalar.value)
            .map_err(|why| fault(scalar.referenced, format!("extra_params: {why}")))?;
        if params.len() == MAX_EXTRA_PARAMS {
            let message = format!("extra_params: more than {MAX_EXTRA_PARAMS}");
            return Err(fault(scalar.referenced, message));
        }
        if !params.contains(&scalar.value) {
            params.push(scalar.value.clone());
        }
    }
    Ok(params)
}

//! The `targets` of a model: several ways to serve it, each with its own price and facts, and the
//! order in which they are tried.

use std::collections::BTreeMap;

use serde_saphyr::{Location, Spanned};

use super::build::fault;
use super::document::{RawModel, RawTarget};
use super::models::{read_limits, read_one};
use super::providers::Known;
use super::types::Model;
use super::yaml::Scalar;
use super::{Catalogue, ConfigError, values};
use crate::core::routing::{MAX_TARGETS, MAX_WEIGHT, Routing};

pub(super) fn read(
    name: &Scalar,
    raw: &RawModel,
    written: &Spanned<Vec<Spanned<RawTarget>>>,
    catalogue: &Catalogue,
    providers: &BTreeMap<String, Known<'_>>,
) -> Result<Model, ConfigError> {
    nothing_beside(raw)?;
    let routing = read_routing(raw.routing.as_ref())?;
    let limits = read_limits(raw.limits.as_ref())?;
    let mut targets: Vec<Model> = Vec::with_capacity(written.value.len());
    for target in &written.value {
        if targets.len() == MAX_TARGETS {
            let message = format!("targets: more than {MAX_TARGETS}");
            return Err(fault(target.referenced, message));
        }
        if let Some(location) = target.value.named_twice {
            let message = "model: is the same as upstream_model; write one of them";
            return Err(fault(location, message));
        }
        let mut model = read_one(name, &target.value.model, catalogue, providers)
            .map_err(|error| or_at(error, name.referenced, target.referenced))?;
        let is_twin = |other: &Model| {
            other.provider == model.provider && other.upstream_model == model.upstream_model
        };
        if targets.iter().any(is_twin) {
            let message = "targets: the same provider and model as an earlier one";
            return Err(fault(target.referenced, message));
        }
        model.weight = read_weight(target.value.weight.as_ref(), routing)?;
        model.limits = limits;
        model.routing = routing;
        targets.push(model);
    }
    let mut targets = targets.into_iter();
    let Some(mut first) = targets.next() else {
        let message = "targets: none; write at least one, such as [{ provider: a }]";
        return Err(fault(written.referenced, message));
    };
    first.fallbacks = targets.collect();
    Ok(first)
}

/// A plain model has no order to follow.
pub(super) fn none_said(raw: &RawModel) -> Result<(), ConfigError> {
    match &raw.routing {
        Some(written) => Err(fault(written.referenced, "routing: only where targets are")),
        None => Ok(()),
    }
}

/// What is missing in a target is told at the target, not at the model's name.
fn or_at(mut error: ConfigError, name: Location, target: Location) -> ConfigError {
    let at_name = ConfigError::at(name, "");
    if (error.line, error.column) == (at_name.line, at_name.column) {
        let at_target = ConfigError::at(target, "");
        (error.line, error.column) = (at_target.line, at_target.column);
    }
    error
}

/// Facts of one target would be taken for those of all.
fn nothing_beside(raw: &RawModel) -> Result<(), ConfigError> {
    let scalars = [
        ("provider", &raw.provider),
        ("upstream_model", &raw.upstream_model),
        ("max_output_tokens", &raw.max_output_tokens),
        ("context_window", &raw.context_window),
        ("tokenizer", &raw.tokenizer),
        ("image_tokens", &raw.image_tokens),
        ("template_tokens", &raw.template_tokens),
        ("message_tokens", &raw.message_tokens),
        ("tool_factor", &raw.tool_factor),
    ];
    let price = raw.price.as_ref().map(|price| ("price", price.referenced));
    let scalar = scalars
        .into_iter()
        .find_map(|(key, written)| Some((key, written.as_ref()?.referenced)));
    if let Some((key, location)) = scalar.or(price) {
        let message = format!("{key}: this model has targets, so write it in each of them");
        return Err(fault(location, message));
    }
    match (raw.hidden_output, &raw.targets) {
        (Some(_), Some(targets)) => Err(fault(
            targets.referenced,
            "hidden_output: this model has targets, so write it in each of them",
        )),
        _ => Ok(()),
    }
}

fn read_routing(raw: Option<&Scalar>) -> Result<Routing, ConfigError> {
    let Some(written) = raw else {
        return Ok(Routing::Ordered);
    };
    Routing::parse(&written.value).ok_or_else(|| {
        let message = "routing: must be ordered, weighted or cheapest";
        fault(written.referenced, message)
    })
}

fn read_weight(raw: Option<&Scalar>, routing: Routing) -> Result<u64, ConfigError> {
    let Some(written) = raw else { return Ok(1) };
    if routing != Routing::Weighted {
        let message = "weight: only where the model has routing: weighted";
        return Err(fault(written.referenced, message));
    }
    values::count_up_to(&written.value, MAX_WEIGHT)
        .map_err(|why| fault(written.referenced, format!("weight: {why}")))
}

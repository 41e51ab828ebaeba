//! What a request may ask for by its parameters: the agent's capabilities, and what costs, raises output
//! or leads elsewhere.

use aex_admin_proto::Refusal;
use aex_admin_proto::operator::Settings;
use aex_admin_proto::worker::Facts;

use super::{Asked, ModelFacts, prompt_param};
use crate::core::price::Price;

/// Parameters that raise output past its cap on one server or another: refused everywhere, free
/// models included. Those that a route itself knows (`n`, its own cap) are read there, and are not
/// among what a worker asks about. As [`plain`] writes names.
pub(super) const RAISES_OUTPUT: [&str; 26] = [
    "n",
    "ncmpl",
    "maxtokens",
    "maxcompletiontokens",
    "maxtokenstosample",
    "maxnewtokens",
    "automaxnewtokens",
    "maxoutputtokens",
    "maxlength",
    "numreturnsequences",
    "candidatecount",
    "generationconfig",
    "parameters",
    "usebeamsearch",
    "numbeams",
    "npredict",
    "numpredict",
    "mintokens",
    "minlength",
    "minnewtokens",
    "mincompletiontokens",
    "ignoreeos",
    "baneostoken",
    "bestof",
    "options",
    "extrabody",
];

/// Parameters that let a server answer with another model than the one that was judged.
pub(super) const CHOOSES_MODEL: [&str; 4] = ["models", "route", "fallbacks", "engine"];

/// Parameters that are tools by another name.
const TOOL_PARAMS: [&str; 2] = ["web_search_options", "plugins"];

/// How a worker names a hosted tool among the costly parameters.
const HOSTED_TOOL: &str = "tools[].type ";

/// Tools that the provider runs itself, by type.
pub(crate) fn hosted_tools(facts: &Facts) -> impl Iterator<Item = &str> {
    facts.costly_params.iter().filter_map(|param| {
        let tool = TOOL_PARAMS
            .contains(&param.as_str())
            .then_some(param.as_str());
        tool.or_else(|| param.strip_prefix(HOSTED_TOOL))
    })
}

pub(super) fn check_capabilities(facts: &Facts, settings: &Settings) -> Result<(), Refusal> {
    let denied = |capability: &str| {
        Err(Refusal::CapabilityNotAllowed {
            capability: capability.to_owned(),
        })
    };
    if facts.stream && settings.streaming == Some(false) {
        return denied("streaming");
    }
    let hosted = hosted_tools(facts).next();
    if settings.tools == Some(false) && (!facts.tools.is_empty() || hosted.is_some()) {
        return denied("tools");
    }
    if let Some(allowed) = &settings.allowed_tools {
        let offered = facts.tools.iter().map(String::as_str).chain(hosted);
        let mut outside = offered.filter(|tool| !allowed.iter().any(|name| name == tool));
        if let Some(tool) = outside.next() {
            return denied(&format!("tool {tool}"));
        }
    }
    if settings.vision == Some(false) && (facts.images > 0 || facts.media) {
        return denied("vision");
    }
    Ok(())
}

/// A parameter's name without case and marks: one server's `num_predict` is another's `numPredict`.
fn plain(param: &str) -> String {
    let letters = param.chars().filter(char::is_ascii_alphanumeric);
    letters.map(|letter| letter.to_ascii_lowercase()).collect()
}

pub(super) fn check_params(
    asked: Asked<'_>,
    model: &ModelFacts<'_>,
    price: &Price,
) -> Result<(), Refusal> {
    let facts = asked.facts;
    let refuse = |param: &str, message: String| {
        Err(Refusal::InvalidRequest {
            message,
            param: Some(param.to_owned()),
        })
    };
    if model.embeds_only && asked.route.generates() {
        return refuse(
            "model",
            format!(
                "model {} makes embeddings; send it to /v1/embeddings",
                model.name
            ),
        );
    }
    for param in facts.unknown_params.iter().chain(&facts.costly_params) {
        let name = plain(param);
        if RAISES_OUTPUT.contains(&name.as_str()) || name.contains("predict") {
            return refuse(
                param,
                format!("parameter {param} can raise output past its cap and is not taken"),
            );
        }
        if CHOOSES_MODEL.contains(&name.as_str()) {
            return refuse(
                param,
                format!("parameter {param} can choose another model and is not taken; use model"),
            );
        }
    }
    if price.is_free() && model.loopback {
        return Ok(());
    }
    if let Some(param) = facts.costly_params.first() {
        return refuse(
            param,
            format!(
                "parameter {param} has a cost that this kernel does not price yet; leave it out"
            ),
        );
    }
    if price.is_free() {
        return Ok(());
    }
    for param in &facts.unknown_params {
        if !model.extra_params.contains(param) {
            return refuse(
                param,
                format!(
                    "unknown parameter {param}; the operator can let it through with \
                     extra_params of provider {} in models.yaml",
                    model.provider
                ),
            );
        }
    }
    if facts.media {
        return refuse(
            prompt_param(asked.route),
            "audio, files and other media have no price here; send text".to_owned(),
        );
    }
    if facts.images > 0 && model.rendering.image_tokens.is_none() {
        return refuse(
            prompt_param(asked.route),
            "images have no price for this model; send text, or the operator gives it \
             image_tokens in models.yaml"
                .to_owned(),
        );
    }
    Ok(())
}

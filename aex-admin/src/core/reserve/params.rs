//! What a request may ask for by its parameters: what costs, raises output or leads elsewhere.

use aex_admin_proto::Refusal;
use aex_admin_proto::worker::Route;

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
pub(super) const CHOOSES_MODEL: [&str; 13] = [
    "models",
    "modelid",
    "modelname",
    "route",
    "fallbacks",
    "engine",
    "lora",
    "loraid",
    "loraname",
    "lorapath",
    "loraadapter",
    "adapter",
    "adapterid",
];

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
        // A prompt that a provider keeps names its own model and tools.
        let stored_prompt = asked.route == Route::Responses && name == "prompt";
        if stored_prompt || CHOOSES_MODEL.contains(&name.as_str()) {
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

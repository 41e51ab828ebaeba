//! What the catalogue knows, for `aex prices`: list it, show one model, and import LiteLLM's table as
//! the operator's own prices.yaml. All of it works with the kernel stopped; what is in force changes
//! with a reload alone.
//!
//! Absent on purpose: the network (the operator brings the file), the ledger, and any guess. An entry
//! that cannot be read is left out and counted.

mod amount;
mod import;
mod litellm;
mod text;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use aex_admin_proto::prices::{PriceList, PriceView, RatesView, TierView};

use crate::config::{Catalogue, CatalogueModel, LoadError, Model, load_catalogue, prices_file};

pub use import::import;

/// Why there is no answer. Exit codes are those of `aex`.
#[derive(Debug, thiserror::Error)]
pub enum PricesError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("{}: is not LiteLLM's table of models: {why}", path.display())]
    NotATable { path: PathBuf, why: String },
    #[error("{}: cannot be {doing}: {source}", path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("no price is known of {0}; `aex prices list` names the models")]
    NoSuchModel(String),
    #[error("no provider {0} in the catalogue; it has: {1}")]
    NoSuchProvider(String, String),
    #[error("{0} is a model of several providers; say which: {1}")]
    Ambiguous(String, String),
}

impl PricesError {
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        use std::io::ErrorKind::{NotFound, PermissionDenied};
        match self {
            Self::NoSuchModel(_) | Self::NoSuchProvider(..) => 4,
            Self::Ambiguous(..) => 2,
            Self::File { source, .. } | Self::Load(LoadError::Read { source, .. }) => {
                match source.kind() {
                    NotFound => 4,
                    PermissionDenied => 5,
                    _ => 1,
                }
            }
            Self::Load(_) | Self::NotATable { .. } => 1,
        }
    }
}

/// Every model of the catalogue in force beside this models.yaml, or those of one provider.
///
/// # Errors
/// The prices there are bad, or there is no such provider.
pub fn list(config_file: &Path, provider: Option<&str>) -> Result<PriceList, PricesError> {
    let catalogue = load_catalogue(config_file)?;
    if let Some(asked) = provider {
        let names: Vec<&str> = catalogue.providers().map(|p| p.name.as_str()).collect();
        if !names.contains(&asked) {
            let known = names.join(", ");
            return Err(PricesError::NoSuchProvider(asked.to_owned(), known));
        }
    }
    let mut models: Vec<PriceView> = catalogue
        .models()
        .iter()
        .filter(|model| provider.is_none_or(|asked| model.provider == asked))
        .map(view)
        .collect();
    models.sort_by(|a, b| (&a.provider, &a.model).cmp(&(&b.provider, &b.model)));
    let shipped = Catalogue::builtin();
    let own = std::matches!(catalogue, std::borrow::Cow::Owned(_));
    Ok(PriceList {
        shipped_version: shipped.version().to_owned(),
        own_version: own.then(|| catalogue.version().to_owned()),
        own_file: own.then(|| prices_file(config_file).display().to_string()),
        models,
    })
}

/// One model: `PROVIDER/NAME`, or a name or alias that one provider alone has.
///
/// # Errors
/// The prices there are bad, or no model or several go by that name.
pub fn show(config_file: &Path, name: &str) -> Result<PriceView, PricesError> {
    let catalogue = load_catalogue(config_file)?;
    if let Some((provider, rest)) = name.split_once('/')
        && let Some(model) = find(&catalogue, provider, rest)
    {
        return Ok(view(model));
    }
    let found: Vec<&CatalogueModel> = catalogue
        .providers()
        .filter_map(|provider| find(&catalogue, &provider.name, name))
        .collect();
    match found[..] {
        [] => Err(PricesError::NoSuchModel(name.to_owned())),
        [model] => Ok(view(model)),
        _ => {
            let choices: Vec<String> = found
                .iter()
                .map(|model| format!("{}/{}", model.provider, model.upstream_model))
                .collect();
            Err(PricesError::Ambiguous(name.to_owned(), choices.join(", ")))
        }
    }
}

fn find<'a>(catalogue: &'a Catalogue, provider: &str, name: &str) -> Option<&'a CatalogueModel> {
    let provider = catalogue.providers().find(|known| known.name == provider)?;
    catalogue
        .by_upstream(provider, name)
        .or_else(|| catalogue.by_alias(provider, name))
}

fn view(model: &CatalogueModel) -> PriceView {
    let price = &model.price;
    let output = |pico| (!model.embeds_only).then_some(pico);
    PriceView {
        provider: model.provider.clone(),
        model: model.upstream_model.clone(),
        snapshots: model.snapshots.clone(),
        aliases: model.aliases.clone(),
        rates: RatesView {
            input_pico: price.input_pico,
            cached_input_pico: price.cached_input_pico,
            cache_write_pico: price.cache_write_pico,
            output_pico: output(price.output_pico),
        },
        tiers: price
            .tiers
            .iter()
            .map(|tier| TierView {
                above_prompt_tokens: tier.above_prompt_tokens,
                rates: RatesView {
                    input_pico: tier.input_pico,
                    cached_input_pico: tier.cached_input_pico,
                    cache_write_pico: tier.cache_write_pico,
                    output_pico: output(tier.output_pico),
                },
            })
            .collect(),
        request_pico: price.request_pico,
        embeds_only: model.embeds_only,
        max_output_tokens: model.max_output_tokens,
        context_window: model.context_window,
        hidden_output: model.hidden_output,
        tokenizer: model.tokenizer.clone(),
        image_tokens: model.image_tokens,
        template_tokens: model.template_tokens.unwrap_or(Model::TEMPLATE_TOKENS),
        message_tokens: model.message_tokens.unwrap_or(Model::MESSAGE_TOKENS),
        tool_factor: model.tool_factor.unwrap_or(Model::TOOL_FACTOR),
        source: model.source.clone(),
        date: model.date.clone(),
        version: model.version.clone(),
        free: price.is_free(),
    }
}

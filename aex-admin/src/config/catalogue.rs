//! The price catalogue: what is known of public providers and models, so that models.yaml may leave
//! it out. Facts carry their source and date; config/prices.yaml documents the format at its head.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use super::document::RawPrice;
use super::types::{OutputCapParam, ProviderFacts};
use super::yaml::{self, Entries, Scalar};
use super::{ConfigError, values};
use crate::core::price::Price;

/// The catalogue that this build ships.
static BUILTIN: LazyLock<Catalogue> = LazyLock::new(|| {
    Catalogue::parse(include_str!("../../../config/prices.yaml"))
        .expect("the shipped catalogue is well formed: a test parses it")
});

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalogue {
    version: String,
    providers: BTreeMap<String, CatalogueProvider>,
    models: Vec<CatalogueModel>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogueProvider {
    pub name: String,
    /// Hosts that serve it. A provider of models.yaml is this one by its host, else by its name.
    pub hosts: Vec<String>,
    pub facts: ProviderFacts,
    /// Indices into the models, by each name that the provider itself takes.
    upstream: BTreeMap<String, usize>,
    /// Indices into the models, by names for models.yaml alone.
    aliases: BTreeMap<String, usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogueModel {
    pub provider: String,
    /// The provider's own name for it.
    pub upstream_model: String,
    /// Further names of the provider's with the same terms: dated snapshots.
    pub snapshots: Vec<String>,
    /// Names that models.yaml may use for it.
    pub aliases: Vec<String>,
    pub price: Price,
    pub max_output_tokens: u64,
    pub context_window: u64,
    pub hidden_output: bool,
    pub tokenizer: Option<String>,
    /// Where it differs from the provider's.
    pub output_cap_param: Option<OutputCapParam>,
    pub source: String,
    pub date: String,
}

impl Catalogue {
    /// The shipped catalogue, parsed once.
    ///
    /// # Panics
    /// Never: it is part of the build, and tested.
    #[must_use]
    pub fn builtin() -> &'static Self {
        &BUILTIN
    }

    /// Reads a catalogue.
    ///
    /// # Errors
    /// The first fault, with its place.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let raw: RawCatalogue = yaml::read(text)?;
        let mut catalogue = Self {
            version: raw.version,
            providers: BTreeMap::new(),
            models: Vec::with_capacity(raw.models.len()),
        };
        for (name, provider) in raw.providers.0 {
            catalogue.add_provider(&name, provider)?;
        }
        for model in raw.models {
            catalogue.add_model(model)?;
        }
        Ok(catalogue)
    }

    /// Names this set of facts in the ledger.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    #[must_use]
    pub fn models(&self) -> &[CatalogueModel] {
        &self.models
    }

    /// Whose terms hold for a provider of models.yaml: those of who serves its host, else those of
    /// the same name (a gateway or simulator in its place).
    #[must_use]
    pub fn provider(&self, name: &str, host: &str) -> Option<&CatalogueProvider> {
        self.providers
            .values()
            .find(|provider| provider.hosts.iter().any(|known| known == host))
            .or_else(|| self.providers.get(name))
    }

    /// A model by the name that the provider itself takes.
    #[must_use]
    pub fn by_upstream(
        &self,
        provider: &CatalogueProvider,
        upstream_model: &str,
    ) -> Option<&CatalogueModel> {
        self.models.get(*provider.upstream.get(upstream_model)?)
    }

    /// A model by one of its aliases.
    #[must_use]
    pub fn by_alias(&self, provider: &CatalogueProvider, alias: &str) -> Option<&CatalogueModel> {
        self.models.get(*provider.aliases.get(alias)?)
    }

    fn add_provider(
        &mut self,
        name: &Scalar,
        raw: RawCatalogueProvider,
    ) -> Result<(), ConfigError> {
        values::provider_name(&name.value).map_err(|why| ConfigError::at(name.referenced, why))?;
        let defaults = ProviderFacts::default();
        let provider = CatalogueProvider {
            name: name.value.clone(),
            hosts: raw.hosts,
            facts: ProviderFacts {
                output_cap_param: raw
                    .output_cap_param
                    .map_or(defaults.output_cap_param, Into::into),
                service_tier: raw.service_tier,
                knows_store: raw.store.unwrap_or(defaults.knows_store),
                stream_usage: raw.stream_usage.unwrap_or(defaults.stream_usage),
                counts_choices: true,
            },
            upstream: BTreeMap::new(),
            aliases: BTreeMap::new(),
        };
        self.providers.insert(name.value.clone(), provider);
        Ok(())
    }

    fn add_model(&mut self, raw: RawCatalogueModel) -> Result<(), ConfigError> {
        let index = self.models.len();
        let Some(provider) = self.providers.get_mut(&raw.provider.value) else {
            return Err(ConfigError::at(
                raw.provider.referenced,
                "no such provider in this catalogue",
            ));
        };
        for name in std::iter::once(&raw.model).chain(&raw.snapshots) {
            claim(&mut provider.upstream, name, index)?;
        }
        for name in &raw.aliases {
            claim(&mut provider.aliases, name, index)?;
        }
        let tokens = |key: &str, scalar: &Scalar| {
            values::count(&scalar.value)
                .map_err(|why| ConfigError::at(scalar.referenced, format!("{key} {why}")))
        };
        let model = CatalogueModel {
            price: raw.price.read()?,
            max_output_tokens: tokens("max_output_tokens", &raw.max_output_tokens)?,
            context_window: tokens("context_window", &raw.context_window)?,
            hidden_output: raw.hidden_output,
            tokenizer: raw.tokenizer,
            output_cap_param: raw.output_cap_param.map(Into::into),
            source: raw.source,
            date: raw.date,
            provider: raw.provider.value,
            upstream_model: raw.model.value,
            snapshots: raw.snapshots.into_iter().map(|name| name.value).collect(),
            aliases: raw.aliases.into_iter().map(|name| name.value).collect(),
        };
        self.models.push(model);
        Ok(())
    }
}

/// Each name leads to one model.
fn claim(
    names: &mut BTreeMap<String, usize>,
    name: &Scalar,
    index: usize,
) -> Result<(), ConfigError> {
    values::model_name(&name.value).map_err(|why| ConfigError::at(name.referenced, why))?;
    match names.insert(name.value.clone(), index) {
        None => Ok(()),
        Some(_) => Err(ConfigError::at(
            name.referenced,
            format!("{} is in the catalogue twice", name.value),
        )),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCatalogue {
    version: String,
    providers: Entries<RawCatalogueProvider>,
    models: Vec<RawCatalogueModel>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCatalogueProvider {
    #[serde(default)]
    hosts: Vec<String>,
    output_cap_param: Option<RawCapParam>,
    service_tier: Option<String>,
    store: Option<bool>,
    stream_usage: Option<bool>,
    #[serde(rename = "source")]
    _source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCatalogueModel {
    provider: Scalar,
    model: Scalar,
    #[serde(default)]
    snapshots: Vec<Scalar>,
    #[serde(default)]
    aliases: Vec<Scalar>,
    price: RawPrice,
    max_output_tokens: Scalar,
    context_window: Scalar,
    hidden_output: bool,
    tokenizer: Option<String>,
    output_cap_param: Option<RawCapParam>,
    source: String,
    date: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawCapParam {
    MaxTokens,
    MaxCompletionTokens,
}

impl From<RawCapParam> for OutputCapParam {
    fn from(raw: RawCapParam) -> Self {
        match raw {
            RawCapParam::MaxTokens => Self::MaxTokens,
            RawCapParam::MaxCompletionTokens => Self::MaxCompletionTokens,
        }
    }
}

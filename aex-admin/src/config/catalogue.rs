//! The price catalogue: what is known of public providers and models, so that models.yaml may leave
//! it out. Facts carry their source and date; config/prices.yaml documents the format at its head. An
//! operator's own prices.yaml has the same format, and is laid over the shipped one.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use super::build::number;
use super::models::{MAX_IMAGE_TOKENS, MAX_TEMPLATE_TOKENS, MAX_TOOL_FACTOR};
use super::overlay;
use super::price::RawPrice;
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
    pub(super) version: String,
    pub(super) providers: BTreeMap<String, CatalogueProvider>,
    pub(super) models: Vec<CatalogueModel>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogueProvider {
    pub name: String,
    /// Hosts that serve it. A provider of models.yaml is this one by its host, else by its name.
    pub hosts: Vec<String>,
    pub facts: ProviderFacts,
    /// Indices into the models, by each name that the provider itself takes.
    pub(super) upstream: BTreeMap<String, usize>,
    /// Indices into the models, by names for models.yaml alone.
    pub(super) aliases: BTreeMap<String, usize>,
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
    /// It makes embeddings alone: no output is priced.
    pub embeds_only: bool,
    /// Absent: not known.
    pub max_output_tokens: Option<u64>,
    pub context_window: Option<u64>,
    pub hidden_output: bool,
    pub tokenizer: Option<String>,
    /// What it adds to a prompt, as in [`super::Model`]. Absent: not known.
    pub image_tokens: Option<u64>,
    pub template_tokens: Option<u64>,
    pub message_tokens: Option<u64>,
    pub tool_factor: Option<u64>,
    /// Where it differs from the provider's.
    pub output_cap_param: Option<OutputCapParam>,
    pub source: String,
    pub date: String,
    /// Of the set of facts that it is from; the ledger records it.
    pub version: String,
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

    /// Reads a catalogue that stands alone.
    ///
    /// # Errors
    /// The first fault, with its place.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Self::read(text, None)
    }

    /// Reads a catalogue that is laid over this one: what it has of a provider or a model takes the
    /// place of what is here, the rest stays.
    ///
    /// # Errors
    /// The first fault, with its place.
    pub fn overlaid(&self, text: &str) -> Result<Self, ConfigError> {
        let own = Self::read(text, Some(self))?;
        Ok(overlay::merge(self, own))
    }

    /// `base`: whose providers the models may name as well.
    fn read(text: &str, base: Option<&Self>) -> Result<Self, ConfigError> {
        let raw: RawCatalogue = yaml::read(text)?;
        values::version(&raw.version.value)
            .map_err(|why| ConfigError::at(raw.version.referenced, format!("version {why}")))?;
        let mut catalogue = Self {
            version: raw.version.value,
            providers: BTreeMap::new(),
            models: Vec::with_capacity(raw.models.len()),
        };
        for (name, provider) in raw.providers.0 {
            catalogue.add_provider(&name, provider, base)?;
        }
        for model in raw.models {
            catalogue.add_model(model, base)?;
        }
        Ok(catalogue)
    }

    /// Names this set of facts in the ledger; of one that is laid over another, its own.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    #[must_use]
    pub fn models(&self) -> &[CatalogueModel] {
        &self.models
    }

    pub fn providers(&self) -> impl Iterator<Item = &CatalogueProvider> {
        self.providers.values()
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
        base: Option<&Self>,
    ) -> Result<(), ConfigError> {
        values::provider_name(&name.value).map_err(|why| ConfigError::at(name.referenced, why))?;
        let known = self
            .providers()
            .chain(base.into_iter().flat_map(Self::providers));
        for other in known.filter(|other| other.name != name.value) {
            if let Some(host) = raw
                .hosts
                .iter()
                .find(|host| other.hosts.contains(&host.value))
            {
                let message = format!("this host is provider {}'s", other.name);
                return Err(ConfigError::at(host.referenced, message));
            }
        }
        let defaults = ProviderFacts::default();
        let provider = CatalogueProvider {
            name: name.value.clone(),
            hosts: raw.hosts.into_iter().map(|host| host.value).collect(),
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

    fn add_model(
        &mut self,
        raw: RawCatalogueModel,
        base: Option<&Self>,
    ) -> Result<(), ConfigError> {
        let index = self.models.len();
        let name = &raw.provider.value;
        if !self.providers.contains_key(name)
            && let Some(known) = base.and_then(|base| base.providers.get(name))
        {
            self.providers.insert(name.clone(), known.without_models());
        }
        let Some(provider) = self.providers.get_mut(name) else {
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
        let model = raw.read(&self.version)?;
        self.models.push(model);
        Ok(())
    }
}

impl CatalogueProvider {
    /// Its facts alone.
    pub(super) fn without_models(&self) -> Self {
        Self {
            upstream: BTreeMap::new(),
            aliases: BTreeMap::new(),
            ..self.clone()
        }
    }
}

impl RawCatalogueModel {
    fn read(self, version: &str) -> Result<CatalogueModel, ConfigError> {
        let terms = self.price.read()?;
        if let Some(scalar) = self
            .max_output_tokens
            .as_ref()
            .filter(|_| terms.embeds_only)
        {
            return Err(ConfigError::at(
                scalar.referenced,
                "max_output_tokens: the price has no output_per_mtok, so this model has no output",
            ));
        }
        if let Some(scalar) = &self.tokenizer {
            values::tokenizer_name(&scalar.value)
                .map_err(|why| ConfigError::at(scalar.referenced, format!("tokenizer: {why}")))?;
        }
        let tokens = |key, scalar| number(key, scalar, values::MAX_COUNT);
        let template = |key, scalar| number(key, scalar, MAX_TEMPLATE_TOKENS);
        Ok(CatalogueModel {
            price: terms.price,
            embeds_only: terms.embeds_only,
            max_output_tokens: tokens("max_output_tokens", &self.max_output_tokens)?,
            context_window: tokens("context_window", &self.context_window)?,
            hidden_output: self.hidden_output,
            tokenizer: self.tokenizer.map(|scalar| scalar.value),
            image_tokens: number("image_tokens", &self.image_tokens, MAX_IMAGE_TOKENS)?,
            template_tokens: template("template_tokens", &self.template_tokens)?,
            message_tokens: template("message_tokens", &self.message_tokens)?,
            tool_factor: number("tool_factor", &self.tool_factor, MAX_TOOL_FACTOR)?,
            output_cap_param: self.output_cap_param.map(Into::into),
            source: self.source,
            date: self.date,
            version: version.to_owned(),
            provider: self.provider.value,
            upstream_model: self.model.value,
            snapshots: texts(self.snapshots),
            aliases: texts(self.aliases),
        })
    }
}

fn texts(scalars: Vec<Scalar>) -> Vec<String> {
    scalars.into_iter().map(|scalar| scalar.value).collect()
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
    version: Scalar,
    #[serde(default)]
    providers: Entries<RawCatalogueProvider>,
    #[serde(default)]
    models: Vec<RawCatalogueModel>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCatalogueProvider {
    #[serde(default)]
    hosts: Vec<Scalar>,
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
    max_output_tokens: Option<Scalar>,
    context_window: Option<Scalar>,
    hidden_output: bool,
    tokenizer: Option<Scalar>,
    image_tokens: Option<Scalar>,
    template_tokens: Option<Scalar>,
    message_tokens: Option<Scalar>,
    tool_factor: Option<Scalar>,
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

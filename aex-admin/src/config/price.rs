//! A price as it is written in models.yaml and in the catalogue: USD per million tokens, tiers for
//! longer prompts, a fee a request.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;

use super::yaml::Scalar;
use super::{ConfigError, decimal, values};
use crate::core::price::{MAX_TOKENS, Price, Tier};

const MAX_TIERS: usize = 8;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPrice {
    input_per_mtok: Scalar,
    cached_input_per_mtok: Option<Scalar>,
    cache_write_per_mtok: Option<Scalar>,
    output_per_mtok: Option<Scalar>,
    per_request: Option<Scalar>,
    tiers: Option<Vec<Spanned<RawTier>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTier {
    above_prompt_tokens: Scalar,
    input_per_mtok: Scalar,
    cached_input_per_mtok: Option<Scalar>,
    cache_write_per_mtok: Option<Scalar>,
    output_per_mtok: Option<Scalar>,
}

/// What a written price says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PriceTerms {
    pub(super) price: Price,
    /// It has no price of output: the model makes embeddings, and none may be asked of it.
    pub(super) embeds_only: bool,
}

impl RawPrice {
    /// What is left out of the input prices is as dear as plain input.
    pub(super) fn read(&self) -> Result<PriceTerms, ConfigError> {
        let input = Input::read(
            &self.input_per_mtok,
            self.cached_input_per_mtok.as_ref(),
            self.cache_write_per_mtok.as_ref(),
        )?;
        let output_pico = self
            .output_per_mtok
            .as_ref()
            .map(|scalar| pico("output_per_mtok", scalar))
            .transpose()?;
        let request_pico = self.per_request.as_ref().map_or(Ok(0), |scalar| {
            decimal::pico_a_request(&scalar.value)
                .map_err(|why| ConfigError::at(scalar.referenced, format!("per_request: {why}")))
        })?;
        Ok(PriceTerms {
            price: Price {
                input_pico: input.plain,
                cached_input_pico: input.cached,
                cache_write_pico: input.cache_write,
                output_pico: output_pico.unwrap_or(0),
                tiers: self.read_tiers(output_pico.is_some())?,
                request_pico,
            },
            embeds_only: output_pico.is_none(),
        })
    }

    /// `with_output`: whether the price has one, which each tier then has as well.
    fn read_tiers(&self, with_output: bool) -> Result<Vec<Tier>, ConfigError> {
        let mut tiers: Vec<Tier> = Vec::new();
        for raw in self.tiers.iter().flatten() {
            if tiers.len() == MAX_TIERS {
                let message = format!("tiers: more than {MAX_TIERS}");
                return Err(ConfigError::at(raw.referenced, message));
            }
            let tier = raw.value.read()?;
            if raw.value.output_per_mtok.is_some() != with_output {
                let message = if with_output {
                    "tiers: output_per_mtok is missing here"
                } else {
                    "tiers: output_per_mtok is here alone; the price itself has none"
                };
                return Err(ConfigError::at(raw.referenced, message));
            }
            let last = tiers.last().map_or(0, |tier| tier.above_prompt_tokens);
            if tier.above_prompt_tokens <= last {
                return Err(ConfigError::at(
                    raw.value.above_prompt_tokens.referenced,
                    format!("above_prompt_tokens: must be above {last}, that of the tier before"),
                ));
            }
            tiers.push(tier);
        }
        Ok(tiers)
    }
}

impl RawTier {
    fn read(&self) -> Result<Tier, ConfigError> {
        let written = &self.above_prompt_tokens;
        let above_prompt_tokens =
            values::count_up_to(&written.value, MAX_TOKENS).map_err(|why| {
                ConfigError::at(written.referenced, format!("above_prompt_tokens: {why}"))
            })?;
        let input = Input::read(
            &self.input_per_mtok,
            self.cached_input_per_mtok.as_ref(),
            self.cache_write_per_mtok.as_ref(),
        )?;
        let output = self.output_per_mtok.as_ref();
        Ok(Tier {
            above_prompt_tokens,
            input_pico: input.plain,
            cached_input_pico: input.cached,
            cache_write_pico: input.cache_write,
            output_pico: output.map_or(Ok(0), |scalar| pico("output_per_mtok", scalar))?,
        })
    }
}

/// Picodollars a token of the three kinds of input.
struct Input {
    plain: u64,
    cached: u64,
    cache_write: u64,
}

impl Input {
    fn read(
        plain: &Scalar,
        cached: Option<&Scalar>,
        cache_write: Option<&Scalar>,
    ) -> Result<Self, ConfigError> {
        let plain = pico("input_per_mtok", plain)?;
        let or_plain =
            |key, scalar: Option<&Scalar>| scalar.map_or(Ok(plain), |scalar| pico(key, scalar));
        Ok(Self {
            plain,
            cached: or_plain("cached_input_per_mtok", cached)?,
            cache_write: or_plain("cache_write_per_mtok", cache_write)?,
        })
    }
}

fn pico(key: &str, scalar: &Scalar) -> Result<u64, ConfigError> {
    decimal::pico_a_token(&scalar.value)
        .map_err(|why| ConfigError::at(scalar.referenced, format!("{key}: {why}")))
}

/// A model's `price`: a word, or a mapping.
#[derive(Debug)]
pub(super) enum PriceField {
    Free,
    Terms(Box<RawPrice>),
    /// Neither; told with its own place by whoever reads it.
    Other,
}

impl<'de> Deserialize<'de> for PriceField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PriceVisitor)
    }
}

struct PriceVisitor;

/// Takes every kind of value, so that a wrong one is told by place and never repeated in an error.
impl<'de> Visitor<'de> for PriceVisitor {
    type Value = PriceField;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("free, or { input_per_mtok: …, output_per_mtok: … }")
    }

    fn visit_str<E>(self, text: &str) -> Result<PriceField, E> {
        Ok(match text {
            "free" => PriceField::Free,
            _ => PriceField::Other,
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PriceField, A::Error> {
        let terms = RawPrice::deserialize(MapAccessDeserializer::new(map))?;
        Ok(PriceField::Terms(Box::new(terms)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<PriceField, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(PriceField::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<PriceField, E> {
        Ok(PriceField::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<PriceField, E> {
        Ok(PriceField::Other)
    }

    fn visit_i128<E>(self, _: i128) -> Result<PriceField, E> {
        Ok(PriceField::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<PriceField, E> {
        Ok(PriceField::Other)
    }

    fn visit_u128<E>(self, _: u128) -> Result<PriceField, E> {
        Ok(PriceField::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<PriceField, E> {
        Ok(PriceField::Other)
    }
}

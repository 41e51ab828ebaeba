//! models.yaml as it is written: every key that it may have, values still unread, each with its
//! place. [`super::build`] gives them their meaning.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;

use super::ConfigError;
use super::decimal;
use super::yaml::{Entries, Scalar};
use crate::core::price::Price;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Document {
    pub(super) providers: Option<Entries<Option<RawProvider>>>,
    pub(super) models: Option<Entries<Option<RawModel>>>,
    pub(super) limits: Option<RawLimits>,
    pub(super) hold_wait: Option<Scalar>,
    pub(super) drain_timeout: Option<Scalar>,
    pub(super) on_disconnect: Option<Scalar>,
    pub(super) default_output_tokens: Option<Scalar>,
    pub(super) min_output_tokens: Option<Scalar>,
    pub(super) max_body_bytes: Option<Scalar>,
    pub(super) lock_wait: Option<Scalar>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawProvider {
    pub(super) base_url: Option<Scalar>,
    pub(super) keys: Option<Scalar>,
    pub(super) ca_file: Option<Scalar>,
    pub(super) connect_timeout: Option<Scalar>,
    pub(super) request_timeout: Option<Scalar>,
    pub(super) extra_params: Option<Vec<Scalar>>,
    pub(super) stream_usage: Option<bool>,
    pub(super) counts_choices: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawModel {
    pub(super) provider: Option<Scalar>,
    pub(super) targets: Option<Spanned<IgnoredAny>>,
    pub(super) upstream_model: Option<Scalar>,
    pub(super) price: Option<Spanned<PriceField>>,
    pub(super) max_output_tokens: Option<Scalar>,
    pub(super) context_window: Option<Scalar>,
    pub(super) hidden_output: Option<bool>,
    pub(super) tokenizer: Option<Scalar>,
    pub(super) limits: Option<RawModelLimits>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawModelLimits {
    pub(super) max_tokens_per_minute: Option<Scalar>,
    pub(super) max_requests_per_minute: Option<Scalar>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLimits {
    pub(super) max_tokens_per_minute: Option<Scalar>,
    pub(super) max_input_tokens: Option<Scalar>,
    pub(super) max_output_tokens: Option<Scalar>,
    pub(super) max_concurrency: Option<Scalar>,
}

/// USD per million tokens, as in both files.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPrice {
    input_per_mtok: Scalar,
    cached_input_per_mtok: Option<Scalar>,
    cache_write_per_mtok: Option<Scalar>,
    output_per_mtok: Scalar,
}

impl RawPrice {
    /// What is left out of the input prices is as dear as plain input.
    pub(super) fn read(&self) -> Result<Price, ConfigError> {
        let pico = |key: &str, scalar: &Scalar| {
            decimal::pico_a_token(&scalar.value)
                .map_err(|why| ConfigError::at(scalar.referenced, format!("{key}: {why}")))
        };
        let input_pico = pico("input_per_mtok", &self.input_per_mtok)?;
        let or_input = |key: &str, scalar: &Option<Scalar>| {
            scalar
                .as_ref()
                .map_or(Ok(input_pico), |scalar| pico(key, scalar))
        };
        Ok(Price {
            input_pico,
            cached_input_pico: or_input("cached_input_per_mtok", &self.cached_input_per_mtok)?,
            cache_write_pico: or_input("cache_write_per_mtok", &self.cache_write_per_mtok)?,
            output_pico: pico("output_per_mtok", &self.output_per_mtok)?,
        })
    }
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

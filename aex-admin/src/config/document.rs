//! models.yaml as it is written: every key that it may have, values still unread, each with its
//! place. [`super::build`] gives them their meaning.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::Spanned;

use super::price::PriceField;
use super::yaml::{Entries, Scalar};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Document {
    pub(super) providers: Option<Entries<Option<RawProvider>>>,
    pub(super) models: Option<Entries<Option<RawModel>>>,
    pub(super) limits: Option<RawLimits>,
    pub(super) time_zone: Option<Scalar>,
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
    pub(super) image_tokens: Option<Scalar>,
    pub(super) template_tokens: Option<Scalar>,
    pub(super) message_tokens: Option<Scalar>,
    pub(super) tool_factor: Option<Scalar>,
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

//! models.yaml as it is written: every key that it may have, values still unread, each with its
//! place. [`super::build`] gives them their meaning.

use serde::Deserialize;
use serde_saphyr::{Location, Spanned};

use super::price::PriceField;
use super::yaml::{Entries, Scalar};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Document {
    pub(super) providers: Option<Entries<Option<RawProvider>>>,
    pub(super) models: Option<Entries<Option<RawModel>>>,
    pub(super) keys: Option<Scalar>,
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
    pub(super) first_byte_timeout: Option<Scalar>,
    pub(super) extra_params: Option<Vec<Scalar>>,
    pub(super) stream_usage: Option<bool>,
    pub(super) counts_choices: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawModel {
    pub(super) provider: Option<Scalar>,
    pub(super) targets: Option<Spanned<Vec<Spanned<RawTarget>>>>,
    pub(super) routing: Option<Scalar>,
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

/// One of several ways to serve a model: what is written of a plain model, but for what all its ways
/// share.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "WrittenTarget")]
pub(super) struct RawTarget {
    pub(super) model: RawModel,
    /// Where its upstream name was written for the second time, by the other of its two keys.
    pub(super) named_twice: Option<Location>,
    pub(super) weight: Option<Scalar>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenTarget {
    provider: Option<Scalar>,
    model: Option<Scalar>,
    upstream_model: Option<Scalar>,
    weight: Option<Scalar>,
    price: Option<Spanned<PriceField>>,
    max_output_tokens: Option<Scalar>,
    context_window: Option<Scalar>,
    hidden_output: Option<bool>,
    tokenizer: Option<Scalar>,
    image_tokens: Option<Scalar>,
    template_tokens: Option<Scalar>,
    message_tokens: Option<Scalar>,
    tool_factor: Option<Scalar>,
}

impl From<WrittenTarget> for RawTarget {
    fn from(written: WrittenTarget) -> Self {
        let (model, upstream_model) = (written.model, written.upstream_model);
        let second = model.as_ref().filter(|_| upstream_model.is_some());
        Self {
            named_twice: second.map(|name| name.referenced),
            weight: written.weight,
            model: RawModel {
                provider: written.provider,
                upstream_model: upstream_model.or(model),
                price: written.price,
                max_output_tokens: written.max_output_tokens,
                context_window: written.context_window,
                hidden_output: written.hidden_output,
                tokenizer: written.tokenizer,
                image_tokens: written.image_tokens,
                template_tokens: written.template_tokens,
                message_tokens: written.message_tokens,
                tool_factor: written.tool_factor,
                ..RawModel::default()
            },
        }
    }
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

//! Gives the written document its meaning: checks every value and fills in the defaults.

use aex_admin_proto::worker::OnDisconnect;
use serde_saphyr::Location;

use super::document::{Document, RawLimits};
use super::types::DefaultLimits;
use super::yaml::{self, Scalar};
use super::{Catalogue, Config, ConfigError, models, providers, values};
use crate::core::period;
use jiff::tz::TimeZone;

const MAX_BODY_BYTES: u64 = 64 * 1024 * 1024;
const MAX_OUTPUT_TOKENS: u64 = 10_000_000;

pub(super) const MINUTE_MS: u64 = 60_000;
pub(super) const HOUR_MS: u64 = 60 * MINUTE_MS;

/// Reads and checks the text of a models.yaml. Gives warnings too: things that are allowed but
/// probably not meant.
///
/// # Errors
/// The first fault, with its place.
pub fn parse(text: &str, catalogue: &Catalogue) -> Result<(Config, Vec<String>), ConfigError> {
    let document: Document = yaml::read(text)?;
    let mut warnings = Vec::new();
    let providers = providers::read(&document, catalogue, &mut warnings)?;
    let models = models::read(&document, catalogue, &providers, &mut warnings)?;
    let (default_output_tokens, min_output_tokens) = read_output_tokens(&document)?;
    let wait = 0..=10 * MINUTE_MS;
    let config = Config {
        providers: providers
            .into_iter()
            .map(|(name, known)| (name, known.provider))
            .collect(),
        models,
        limits: read_limits(document.limits.as_ref())?,
        time_zone: read_time_zone(document.time_zone.as_ref())?,
        hold_wait_ms: duration("hold_wait", &document.hold_wait, &wait)?.unwrap_or(2_000),
        drain_timeout_ms: duration("drain_timeout", &document.drain_timeout, &(0..=HOUR_MS))?
            .unwrap_or(30_000),
        on_disconnect: read_on_disconnect(document.on_disconnect.as_ref())?,
        default_output_tokens,
        min_output_tokens,
        max_body_bytes: number("max_body_bytes", &document.max_body_bytes, MAX_BODY_BYTES)?
            .unwrap_or(10 * 1024 * 1024),
        lock_wait_ms: duration("lock_wait", &document.lock_wait, &wait)?.unwrap_or(5_000),
        files: None,
    };
    Ok((config, warnings))
}

fn read_limits(raw: Option<&RawLimits>) -> Result<DefaultLimits, ConfigError> {
    let Some(raw) = raw else {
        return Ok(DefaultLimits::default());
    };
    Ok(DefaultLimits {
        max_tokens_per_minute: limit("max_tokens_per_minute", &raw.max_tokens_per_minute)?,
        max_input_tokens: limit("max_input_tokens", &raw.max_input_tokens)?,
        max_output_tokens: limit("max_output_tokens", &raw.max_output_tokens)?,
        max_concurrency: limit("max_concurrency", &raw.max_concurrency)?,
    })
}

/// The default, then the minimum.
fn read_output_tokens(document: &Document) -> Result<(u64, u64), ConfigError> {
    let default = number(
        "default_output_tokens",
        &document.default_output_tokens,
        MAX_OUTPUT_TOKENS,
    )?
    .unwrap_or(4096);
    // Left out, it steps back before a small default.
    let min = number(
        "min_output_tokens",
        &document.min_output_tokens,
        MAX_OUTPUT_TOKENS,
    )?
    .unwrap_or(default.min(16));
    match &document.min_output_tokens {
        Some(written) if min > default => Err(fault(
            written.referenced,
            format!("min_output_tokens is above default_output_tokens ({default})"),
        )),
        _ => Ok((default, min)),
    }
}

fn read_time_zone(raw: Option<&Scalar>) -> Result<TimeZone, ConfigError> {
    let Some(scalar) = raw else {
        return Ok(TimeZone::UTC);
    };
    match period::zone(&scalar.value) {
        Some(zone) => Ok(zone),
        None => Err(fault(
            scalar.referenced,
            "time_zone: there is no such time zone; use a name such as Europe/Berlin or UTC",
        )),
    }
}

fn read_on_disconnect(raw: Option<&Scalar>) -> Result<OnDisconnect, ConfigError> {
    match raw.map(|scalar| (scalar.value.as_str(), scalar)) {
        None | Some(("drain", _)) => Ok(OnDisconnect::Drain),
        Some(("abort", _)) => Ok(OnDisconnect::Abort),
        Some((_, scalar)) => Err(fault(
            scalar.referenced,
            "on_disconnect: must be drain or abort",
        )),
    }
}

pub(super) fn fault(location: Location, message: impl Into<String>) -> ConfigError {
    ConfigError::at(location, message)
}

/// Milliseconds within `bounds_ms`, where written.
pub(super) fn duration(
    key: &str,
    raw: &Option<Scalar>,
    bounds_ms: &std::ops::RangeInclusive<u64>,
) -> Result<Option<u64>, ConfigError> {
    let Some(scalar) = raw else { return Ok(None) };
    let wrong = |why: &str| fault(scalar.referenced, format!("{key}: {why}"));
    let ms = values::duration_ms(&scalar.value).map_err(wrong)?;
    if ms < *bounds_ms.start() {
        return Err(wrong("cannot be 0"));
    }
    if ms > *bounds_ms.end() {
        let most_s = bounds_ms.end() / 1000;
        return Err(wrong(&format!("is {most_s}s at most")));
    }
    Ok(Some(ms))
}

/// From 1 to `most`, where written.
pub(super) fn number(
    key: &str,
    raw: &Option<Scalar>,
    most: u64,
) -> Result<Option<u64>, ConfigError> {
    let Some(scalar) = raw else { return Ok(None) };
    values::count_up_to(&scalar.value, most)
        .map(Some)
        .map_err(|why| fault(scalar.referenced, format!("{key}: {why}")))
}

/// As [`number`], where nothing written means no limit.
pub(super) fn limit(key: &str, raw: &Option<Scalar>) -> Result<Option<u64>, ConfigError> {
    number(key, raw, values::MAX_COUNT).map_err(|mut error| {
        error.message.push_str("; leave the line out for no limit");
        error
    })
}

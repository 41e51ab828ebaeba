//! Amounts of a JSON table, USD as its text has them, into picodollars. Exact, or rounded up; no float
//! on the way.

use crate::core::price::MAX_REQUEST_PICO;

/// Decimal places of a picodollar.
const PICO_PLACES: i64 = 12;
/// No amount needs more text than this.
const MAX_BYTES: usize = 64;

const FORM: &str = "is not a number";

/// Reads a JSON number such as `1.5e-07`, USD, as picodollars.
pub(super) fn pico(json: &str) -> Result<u64, &'static str> {
    let (rounded_up, _) = shifted(json, PICO_PLACES)?;
    rounded_up
        .filter(|&pico| pico <= MAX_REQUEST_PICO)
        .ok_or("is too large")
}

/// Reads a JSON number that is whole, such as `131072` or `2e6`.
pub(super) fn whole(json: &str) -> Result<u64, &'static str> {
    match shifted(json, 0)? {
        (Some(number), true) => Ok(number),
        (None, _) => Err("is too large"),
        (_, false) => Err("is not a whole number"),
    }
}

/// A JSON number times a power of ten, rounded up, and whether that is exact; no number when 64 bits
/// cannot hold it.
fn shifted(json: &str, power: i64) -> Result<(Option<u64>, bool), &'static str> {
    let json = json.trim();
    if json.starts_with('-') {
        return Err("is negative");
    }
    if json.len() > MAX_BYTES {
        return Err("has too many digits");
    }
    let (mantissa, exponent) = match json.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i16>().map_err(|_| FORM)?),
        None => (json, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if whole.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(FORM);
    }
    let places = i64::try_from(fraction.len()).map_err(|_| FORM)?;
    Ok(scale(&digits, power - places + i64::from(exponent)))
}

/// `digits` times a power of ten.
fn scale(digits: &str, power: i64) -> (Option<u64>, bool) {
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return (Some(0), true);
    }
    let Ok(cut) = usize::try_from(-power) else {
        let factor = u32::try_from(power)
            .ok()
            .and_then(|power| 10u64.checked_pow(power));
        let number: Option<u64> = digits.parse().ok();
        return (
            number
                .zip(factor)
                .and_then(|(n, factor)| n.checked_mul(factor)),
            true,
        );
    };
    let (whole, rest) = digits.split_at(digits.len().saturating_sub(cut));
    // Leading zeros are gone: with fewer digits than are cut, the rest is more than nothing.
    let exact = rest.bytes().all(|b| b == b'0');
    let whole: Option<u64> = if whole.is_empty() {
        Some(0)
    } else {
        whole.parse().ok()
    };
    let rounded_up = whole.and_then(|whole| whole.checked_add(u64::from(!exact)));
    (rounded_up, exact)
}

//! Amounts of a JSON table, USD as its text has them, into picodollars. Exact, or rounded up; no float
//! on the way.

use crate::core::price::MAX_REQUEST_PICO;

/// Decimal places of a picodollar.
const PICO_PLACES: i64 = 12;
/// No amount needs more text than this.
const MAX_BYTES: usize = 64;

/// Reads a JSON number such as `1.5e-07`, USD, as picodollars.
pub(super) fn pico(json: &str) -> Result<u64, &'static str> {
    const FORM: &str = "is not a number";
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
    let places = i64::try_from(fraction.len()).map_err(|_| FORM)? - i64::from(exponent);
    shifted(&digits, PICO_PLACES - places)
        .filter(|&pico| pico <= MAX_REQUEST_PICO)
        .ok_or("is too large")
}

/// `digits` times a power of ten, rounded up to a whole; nothing when 64 bits cannot hold it.
fn shifted(digits: &str, power: i64) -> Option<u64> {
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Some(0);
    }
    if power >= 0 {
        let factor = 10u64.checked_pow(u32::try_from(power).ok()?)?;
        return digits.parse::<u64>().ok()?.checked_mul(factor);
    }
    let cut = usize::try_from(power.unsigned_abs()).ok()?;
    let (whole, rest) = digits.split_at(digits.len().saturating_sub(cut));
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    // Leading zeros are gone: with fewer digits than are cut, the rest is more than nothing.
    let up = u64::from(rest.bytes().any(|b| b != b'0'));
    whole.checked_add(up)
}

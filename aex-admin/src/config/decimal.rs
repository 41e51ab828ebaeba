//! Prices as people write them, USD per million tokens or USD a request, into picodollars. Exact, or
//! rounded up; no float on the way.

use rust_decimal::Decimal;

use crate::core::price::{MAX_PRICE_PICO, MAX_REQUEST_PICO};

/// 1 USD per million tokens, in picodollars a token.
const PICO_PER_USD_PER_MTOK: i128 = 1_000_000;
/// 1 USD, in picodollars.
const PICO_PER_USD: i128 = 1_000_000_000_000;

const TOO_MANY_DIGITS: &str = "a price has at most 28 digits; this one cannot be kept exactly";

/// Reads a plain decimal such as `0.075`, USD per million tokens.
pub(super) fn pico_a_token(text: &str) -> Result<u64, &'static str> {
    const FORM: &str =
        "not a price: write USD per million tokens as a plain decimal, such as 0.075";
    pico(text, PICO_PER_USD_PER_MTOK, FORM)?
        .filter(|&pico| pico <= MAX_PRICE_PICO)
        .ok_or("a price is at most 1000000 USD per million tokens")
}

/// Reads a plain decimal such as `0.005`, USD a request.
pub(super) fn pico_a_request(text: &str) -> Result<u64, &'static str> {
    const FORM: &str = "not a fee: write USD a request as a plain decimal, such as 0.005";
    pico(text, PICO_PER_USD, FORM)?
        .filter(|&pico| pico <= MAX_REQUEST_PICO)
        .ok_or("a fee is at most 1000 USD a request")
}

/// `unit_pico` times the decimal, rounded up; nothing when 64 bits cannot hold it.
fn pico(text: &str, unit_pico: i128, form: &'static str) -> Result<Option<u64>, &'static str> {
    if let Some(rest) = text.strip_prefix('-')
        && is_plain(rest)
    {
        return Err("a price cannot be negative");
    }
    if !is_plain(text) {
        return Err(form);
    }
    let usd = Decimal::from_str_exact(text)
        .map_err(|_| TOO_MANY_DIGITS)?
        .normalize();
    // A decimal is `mantissa / 10^scale`, with a mantissa below 2^96 and a scale of at most 28: the
    // division is the one place where anything is rounded.
    let divisor = 10i128.pow(usd.scale());
    let product = usd
        .mantissa()
        .checked_mul(unit_pico)
        .ok_or(TOO_MANY_DIGITS)?;
    let rounded_up = product / divisor + i128::from(product % divisor != 0);
    Ok(u64::try_from(rounded_up).ok())
}

/// Digits, with at most one point between them.
fn is_plain(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    match text.split_once('.') {
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => digits(text),
    }
}

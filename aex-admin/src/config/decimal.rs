//! Prices as people write them, USD per million tokens, into picodollars a token. Exact, or rounded
//! up; no float on the way.

use rust_decimal::Decimal;

use crate::core::price::MAX_PRICE_PICO;

/// 1 USD per million tokens, in picodollars a token.
const PICO_PER_USD_PER_MTOK: i128 = 1_000_000;

/// Reads a plain decimal such as `0.075`.
pub(super) fn pico_a_token(text: &str) -> Result<u64, &'static str> {
    const FORM: &str =
        "not a price: write USD per million tokens as a plain decimal, such as 0.075";
    if let Some(rest) = text.strip_prefix('-')
        && is_plain(rest)
    {
        return Err("a price cannot be negative");
    }
    if !is_plain(text) {
        return Err(FORM);
    }
    let usd = Decimal::from_str_exact(text)
        .map_err(|_| "a price has at most 28 digits; this one cannot be kept exactly")?;
    // A decimal is `mantissa / 10^scale`, with a mantissa below 2^96 and a scale of at most 28: the
    // product fits 128 bits, so the division is the one place where anything is rounded.
    let divisor = 10i128.pow(usd.scale());
    let product = usd.mantissa() * PICO_PER_USD_PER_MTOK;
    let rounded_up = (product + divisor - 1) / divisor;
    u64::try_from(rounded_up)
        .ok()
        .filter(|&pico| pico <= MAX_PRICE_PICO)
        .ok_or("a price is at most 1000000 USD per million tokens")
}

/// Digits, with at most one point between them.
fn is_plain(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    match text.split_once('.') {
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => digits(text),
    }
}

//! The small values of the file: names, durations, counts. Each says what it takes, and never repeats
//! what was written.

/// Limits and token counts are below this; a larger one is surely a slip.
pub(super) const MAX_COUNT: u64 = 1_000_000_000_000;

const MAX_PROVIDER_NAME_BYTES: usize = 64;
const MAX_MODEL_NAME_BYTES: usize = 256;
const MAX_PARAM_NAME_BYTES: usize = 64;
const MAX_VERSION_BYTES: usize = 64;

/// Parameters that choose the model or raise the output. No operator can let them through unread:
/// each would undo the cap on which a hold rests.
const GOVERNED_PARAMS: &[&str] = &[
    "best_of",
    "extra_body",
    "ignore_eos",
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens",
    "messages",
    "min_tokens",
    "model",
    "models",
    "n",
    "n_predict",
    "num_predict",
    "options",
    "prompt",
    "service_tier",
    "store",
    "stream",
    "stream_options",
];

/// Whole milliseconds of `500ms`, `5s`, `2m`, `24h`.
pub(super) fn duration_ms(text: &str) -> Result<u64, &'static str> {
    const FORM: &str =
        "not a duration: write a whole number and a unit, such as 500ms, 5s, 2m or 24h";
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .filter(|&at| at > 0)
        .ok_or(FORM)?;
    let (number, unit) = text.split_at(split);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(FORM),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit_ms))
        .ok_or("too long a duration")
}

/// A whole number from 1 up.
pub(super) fn count(text: &str) -> Result<u64, &'static str> {
    const FORM: &str = "must be a whole number from 1 up";
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(FORM);
    }
    if text.starts_with('-') {
        return Err("cannot be negative");
    }
    match text.parse::<u64>() {
        Ok(0) => Err("cannot be 0"),
        Ok(number) if number <= MAX_COUNT => Ok(number),
        _ => Err("is too large"),
    }
}

/// As [`count`], up to `most`.
pub(super) fn count_up_to(text: &str, most: u64) -> Result<u64, String> {
    match count(text)? {
        number if number <= most => Ok(number),
        _ => Err(format!("is {most} at most")),
    }
}

pub(super) fn tokenizer_name(name: &str) -> Result<(), &'static str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if (1..=64).contains(&name.len()) && name.bytes().all(plain) {
        return Ok(());
    }
    Err("must be a name such as o200k_base")
}

/// Of a set of prices; each hold records it.
pub(super) fn version(text: &str) -> Result<(), &'static str> {
    let fits = (1..=MAX_VERSION_BYTES).contains(&text.len());
    if fits && text.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    Err("must be 1 to 64 printable ASCII characters without spaces")
}

pub(super) fn provider_name(name: &str) -> Result<(), &'static str> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    let starts = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if starts && name.len() <= MAX_PROVIDER_NAME_BYTES && name.bytes().all(plain) {
        return Ok(());
    }
    Err(
        "a provider's name is 1 to 64 of a-z, 0-9, \".\", \"_\" and \"-\", and begins with a letter or digit",
    )
}

pub(super) fn model_name(name: &str) -> Result<(), &'static str> {
    let fits = (1..=MAX_MODEL_NAME_BYTES).contains(&name.len());
    if fits && name.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    Err("a model's name is 1 to 256 printable ASCII characters without spaces")
}

pub(super) fn param_name(name: &str) -> Result<(), &'static str> {
    if GOVERNED_PARAMS.contains(&name) {
        return Err("this parameter is governed by AEX and cannot be let through");
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    let fits = (1..=MAX_PARAM_NAME_BYTES).contains(&name.len());
    if fits && name.bytes().all(plain) {
        return Ok(());
    }
    Err("a parameter's name is 1 to 64 letters, digits, \"_\" and \"-\"")
}

/// The variable that carries an operator's key: name upper-cased, other characters `_`.
pub(super) fn key_variable(provider: &str) -> String {
    let mut variable: String = provider
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect();
    variable.push_str("_API_KEY");
    variable
}

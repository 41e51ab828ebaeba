//! Durations as people type them: on the command line, and in what agents send. Pure.

/// Longest duration that is taken: ten years.
const MAX_SECONDS: u64 = 10 * 366 * 24 * 3600;

/// `90s`, `30m`, `24h`, `7d`, in seconds.
///
/// # Errors
/// It is another text, nothing, or longer than ten years; says which.
pub fn seconds(text: &str) -> Result<u64, String> {
    let bad = || format!("expected a duration such as 90s, 30m, 24h or 7d, not `{text}`");
    let at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(|| {
        format!("`{text}` has no unit: write {text}s, {text}m, {text}h or {text}d")
    })?;
    let (number, unit) = text.split_at(at);
    let each = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err(bad()),
    };
    if number.is_empty() {
        return Err(bad());
    }
    let number: u64 = number.parse().map_err(|_| "at most 10 years".to_owned())?;
    match number.checked_mul(each) {
        Some(0) => Err("must be longer than nothing".into()),
        Some(seconds) if seconds <= MAX_SECONDS => Ok(seconds),
        _ => Err("at most 10 years".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        for (text, expected) in [("90s", 90), ("30m", 1800), ("24h", 86_400), ("7d", 604_800)] {
            assert_eq!(seconds(text), Ok(expected));
        }
        assert!(seconds("10").unwrap_err().contains("10m"));
        for text in [
            "",
            "m",
            "-1s",
            "0s",
            "1.5h",
            "5w",
            "1 h",
            "99999999999999999999s",
            "4000d",
        ] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}

//! Values that a capability is about, read so that nothing is lost in the reading. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;

use aex_admin_proto::worker::Temperature;
use serde_json::value::RawValue;

/// An exponent beyond this is as good as infinite, either way.
const MAX_EXPONENT: i64 = 40;
/// So many digits fit an `i64` with room to spare; a number with more is rounded outward.
const MAX_DIGITS: usize = 15;
const BEYOND: Temperature = Temperature {
    at_least_milli: i64::MIN,
    at_most_milli: i64::MAX,
};

/// A temperature in thousandths, from its text. Nothing for null; what is no number is beyond every
/// range.
pub(super) fn temperature(raw: &str) -> Option<Temperature> {
    (raw != "null").then(|| milli(raw).unwrap_or(BEYOND))
}

fn milli(raw: &str) -> Option<Temperature> {
    let (negative, text) = match raw.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, raw),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if !whole
        .bytes()
        .chain(fraction.bytes())
        .all(|b| b.is_ascii_digit())
    {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Some(Temperature {
            at_least_milli: 0,
            at_most_milli: 0,
        });
    }
    // The number is `digits` times ten to this power, in thousandths.
    let power = exponent
        .clamp(-MAX_EXPONENT, MAX_EXPONENT)
        .checked_sub(i64::try_from(fraction.len()).ok()?)?
        .checked_add(3)?;
    let (least, most) = rounded(digits, power);
    Some(if negative {
        Temperature {
            at_least_milli: -most,
            at_most_milli: -least,
        }
    } else {
        Temperature {
            at_least_milli: least,
            at_most_milli: most,
        }
    })
}

/// Digits times ten to a power, rounded down and up.
fn rounded(digits: &str, power: i64) -> (i64, i64) {
    const LARGEST: i64 = i64::MAX;
    let whole_digits = i64::try_from(digits.len())
        .unwrap_or(LARGEST)
        .saturating_add(power);
    let Ok(whole_digits) = usize::try_from(whole_digits) else {
        return (0, 1);
    };
    if whole_digits > MAX_DIGITS {
        return (LARGEST - 1, LARGEST);
    }
    let (whole, rest) = digits.split_at(whole_digits.min(digits.len()));
    let whole = format!("{whole:0<whole_digits$}");
    let least: i64 = if whole.is_empty() {
        0
    } else {
        whole.parse().unwrap_or(LARGEST - 1)
    };
    let exact = rest.bytes().all(|b| b == b'0');
    (least, least + i64::from(!exact))
}

/// Whether several calls a message are asked for. What is no boolean may be read as yes.
pub(super) fn parallel(raw: &str) -> Option<bool> {
    match raw {
        "null" => None,
        "false" => Some(false),
        _ => Some(true),
    }
}

type Members<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

/// Whether `response_format` prescribes a form: anything but plain text.
pub(super) fn prescribes_form(raw: &str) -> bool {
    if raw == "null" {
        return false;
    }
    let Ok(members) = serde_json::from_str::<Members<'_>>(raw) else {
        return true;
    };
    let is_text = members
        .get("type")
        .is_some_and(|kind| kind.get() == r#""text""#);
    !(is_text && members.len() == 1)
}

/// The same of `text`, the Responses API's parameter, which has the form inside.
pub(super) fn text_prescribes_form(raw: &str) -> bool {
    if raw == "null" {
        return false;
    }
    let Ok(members) = serde_json::from_str::<Members<'_>>(raw) else {
        return true;
    };
    members
        .iter()
        .any(|(name, form)| name.eq_ignore_ascii_case("format") && prescribes_form(form.get()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_temperature_is_its_text_in_thousandths() {
        for (raw, least, most) in [
            ("0", 0, 0),
            ("-0.0", 0, 0),
            ("1", 1000, 1000),
            ("0.7", 700, 700),
            ("1.5", 1500, 1500),
            ("1.5000", 1500, 1500),
            ("1.5000000000000000000000001", 1500, 1501),
            ("1.4999999999999999999999999", 1499, 1500),
            ("15e-1", 1500, 1500),
            ("0.0015E+3", 1500, 1500),
            ("0.0001", 0, 1),
            ("1e-400", 0, 1),
            ("-0.5", -500, -500),
            ("-0.0001", -1, 0),
            ("2e0", 2000, 2000),
        ] {
            let expected = Temperature {
                at_least_milli: least,
                at_most_milli: most,
            };
            assert_eq!(temperature(raw), Some(expected), "{raw}");
        }
        assert_eq!(temperature("null"), None);
        for beyond in [
            "1e400",
            "1e38",
            "99999999999999999999",
            "1e99999999999999999999",
        ] {
            let told = temperature(beyond).unwrap();
            assert!(told.at_most_milli == i64::MAX, "{beyond} {told:?}");
        }
        for no_number in [r#""1""#, "true", "[]", "{}"] {
            assert_eq!(temperature(no_number), Some(BEYOND), "{no_number}");
        }
    }

    #[test]
    fn a_form_is_prescribed_by_anything_but_text() {
        for (raw, expected) in [
            ("null", false),
            (r#"{"type":"text"}"#, false),
            (r#"{"type":"json_object"}"#, true),
            (r#"{"type":"json_schema","json_schema":{}}"#, true),
            (r#"{"type":"text","json_schema":{}}"#, true),
            (r#"{"Type":"text"}"#, true),
            ("{}", true),
            ("5", true),
        ] {
            assert_eq!(prescribes_form(raw), expected, "{raw}");
            let inside = format!(r#"{{"verbosity":"low","format":{raw}}}"#);
            assert_eq!(text_prescribes_form(&inside), expected, "{inside}");
        }
        assert!(!text_prescribes_form(r#"{"verbosity":"low"}"#));
        assert!(text_prescribes_form(r#"{"Format":{"type":"json_object"}}"#));
    }

    proptest! {
        #[test]
        fn a_temperature_lies_within_its_bounds(whole in 0_u32..100, fraction in "[0-9]{1,12}", exponent in -6_i32..6) {
            let raw = format!("{whole}.{fraction}e{exponent}");
            let told = temperature(&raw).unwrap();
            let value = raw.parse::<f64>().unwrap() * 1000.0;
            prop_assert!(told.at_least_milli as f64 <= value * 1.000_001 + 0.001);
            prop_assert!(told.at_most_milli as f64 >= value * 0.999_999 - 0.001);
            prop_assert!(told.at_most_milli - told.at_least_milli <= 1);
        }
    }
}

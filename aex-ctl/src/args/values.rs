//! Values as people type them: exact money, durations, lists. Pure.

use aex_admin_proto::CertDigest;
use aex_admin_proto::capabilities::route_name;
pub(crate) use aex_admin_proto::duration::seconds;
use aex_admin_proto::worker::Route;
use nix::unistd::User;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// Largest amount that is taken: in picodollars it still fits 64 bits.
const MAX_USD: i64 = 9_000_000;
const MAX_DECIMALS: usize = 6;
/// Longest list and longest name in one.
const MAX_NAMES: usize = 1024;
const MAX_NAME_BYTES: usize = 256;

/// USD as an exact decimal, in micro-dollars: `2.01` is 2010000.
pub(crate) fn usd(text: &str) -> Result<i64, String> {
    decimal(text, MAX_DECIMALS, "a micro-dollar")
}

/// As [`usd`], in picodollars: `0.000000000001` is 1.
pub(crate) fn usd_pico(text: &str) -> Result<i64, String> {
    decimal(text, 2 * MAX_DECIMALS, "a picodollar")
}

/// As [`usd_pico`], with a sign.
pub(crate) fn signed_usd_pico(text: &str) -> Result<i64, String> {
    signed(text, usd_pico)
}

/// USD in units of which 10 to the power of `decimals` make one.
fn decimal(text: &str, decimals: usize, unit: &str) -> Result<i64, String> {
    let bad = || format!("expected USD as a decimal such as 5.00, not `{text}`");
    let (whole, fraction) = match text.split_once('.') {
        Some((_, "")) => return Err(bad()),
        Some(parts) => parts,
        None => (text, ""),
    };
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return Err(bad());
    }
    if fraction.len() > decimals {
        return Err(format!(
            "at most {decimals} decimals: {unit} is the smallest amount"
        ));
    }
    let too_much = || format!("at most {MAX_USD} USD");
    let whole: i64 = whole.parse().map_err(|_| too_much())?;
    let fraction: i64 = format!("{fraction:0<decimals$}")
        .parse()
        .map_err(|_| bad())?;
    let of_one_usd = i64::pow(10, u32::try_from(decimals).unwrap_or(u32::MAX));
    whole
        .checked_mul(of_one_usd)
        .and_then(|amount| amount.checked_add(fraction))
        .filter(|amount| *amount <= MAX_USD * of_one_usd)
        .ok_or_else(too_much)
}

/// As [`usd`], with a sign: what is added to a budget, or taken from it.
pub(crate) fn signed_usd(text: &str) -> Result<i64, String> {
    signed(text, usd)
}

fn signed(text: &str, amount: impl Fn(&str) -> Result<i64, String>) -> Result<i64, String> {
    match text.strip_prefix('-') {
        Some(text) => amount(text).map(|amount| -amount),
        None => amount(text.strip_prefix('+').unwrap_or(text)),
    }
}

/// Bounds of temperature, in thousandths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Temperatures {
    pub(crate) min_milli: Option<u64>,
    pub(crate) max_milli: Option<u64>,
}

/// `0..1.5`, `0.2..`, `..1`: exact decimals.
pub(crate) fn temperatures(text: &str) -> Result<Temperatures, String> {
    let bad = || format!("expected a range such as 0..1.5, 0.2.. or ..1, not `{text}`");
    let (min, max) = text.split_once("..").ok_or_else(bad)?;
    let bound = |text: &str| match text {
        "" => Ok(None),
        text => milli(text).map(Some).ok_or_else(bad),
    };
    let range = Temperatures {
        min_milli: bound(min)?,
        max_milli: bound(max)?,
    };
    match (range.min_milli, range.max_milli) {
        (None, None) => Err(bad()),
        (Some(min), Some(max)) if min > max => Err("MIN is above MAX".into()),
        _ => Ok(range),
    }
}

/// A decimal of at most three places and at most 100.
fn milli(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str, most| {
        (1..=most).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
    };
    if !digits(whole, 3) || !digits(fraction, 3) {
        return None;
    }
    let milli: u64 = format!("{whole}{fraction:0<3}").parse().ok()?;
    (milli <= 100_000).then_some(milli)
}

/// Names divided by commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names(pub(crate) Vec<String>);

pub(crate) fn names(text: &str) -> Result<Names, String> {
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    if names.iter().any(String::is_empty) {
        return Err("expected names divided by commas, such as a,b".into());
    }
    if names.len() > MAX_NAMES || names.iter().any(|name| name.len() > MAX_NAME_BYTES) {
        return Err(format!(
            "at most {MAX_NAMES} names of {MAX_NAME_BYTES} bytes each"
        ));
    }
    Ok(Names(names))
}

/// A user of this host, by number or name, as a number.
pub(crate) fn uid(text: &str) -> Result<u32, String> {
    if let Ok(uid) = text.parse::<u32>() {
        return match uid {
            u32::MAX => Err("that number stands for no user".into()),
            uid => Ok(uid),
        };
    }
    match User::from_name(text) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err(format!("there is no user {text}: give a name or a number")),
        Err(errno) => Err(format!("users cannot be looked up: {errno}")),
    }
}

/// A certificate's SHA-256 in hexadecimal digits, with or without colons, or a PEM file that holds it.
pub(crate) fn client_cert(text: &str) -> Result<CertDigest, String> {
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    if let Ok(digest) = digits.to_ascii_lowercase().parse() {
        return Ok(digest);
    }
    let pem = std::fs::read(text).map_err(|error| {
        format!("neither a SHA-256 (64 hexadecimal digits) nor a file that can be read: {error}")
    })?;
    let certificate = CertificateDer::from_pem_slice(&pem)
        .map_err(|_| format!("{text} holds no certificate (PEM)"))?;
    Ok(CertDigest::of(&certificate))
}

/// A route by its path, with or without `/v1`, or by the name that `--allowed-routes` takes.
pub(crate) fn route(text: &str) -> Result<Route, String> {
    let name = text.replace('-', "_");
    let is_meant = |route: &Route| route.path() == text || route_name(*route) == name;
    let named = Route::at(text).or_else(|| Route::ALL.into_iter().find(is_meant));
    named.ok_or_else(|| {
        let paths = Route::ALL.map(|route| format!("/v1{}", route.path()));
        format!("there is no such route: {}", paths.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn money_is_exact_or_refused() {
        for (text, micro) in [
            ("0", 0),
            ("0.01", 10_000),
            ("2.01", 2_010_000),
            ("10.00", 10_000_000),
            ("0.000001", 1),
            ("007.5", 7_500_000),
            ("9000000", 9_000_000_000_000),
        ] {
            assert_eq!(usd(text), Ok(micro), "{text}");
        }
        for text in [
            "",
            ".",
            ".5",
            "5.",
            "-1",
            "+1",
            "1e3",
            "NaN",
            "inf",
            "1,5",
            "1_000",
            "$5",
            " 5",
            "5 ",
            "0.0000001",
            "2.0100000",
            "1.2.3",
            "0x10",
            "٣",
            "9000000.000001",
            "9999999999999999999",
        ] {
            assert!(usd(text).is_err(), "{text}");
        }
        assert_eq!(signed_usd("-0.5"), Ok(-500_000));
        assert_eq!(signed_usd("+0.5"), Ok(500_000));
        assert!(signed_usd("--1").is_err());
        assert!(signed_usd("-").is_err());
    }

    #[test]
    fn lists_have_no_empty_name() {
        assert_eq!(names("a, b"), Ok(Names(vec!["a".into(), "b".into()])));
        for text in ["", ",", "a,", "a,,b"] {
            assert!(names(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_route_is_named_by_its_path_or_its_name() {
        for (text, meant) in [
            ("/v1/chat/completions", Some(Route::ChatCompletions)),
            ("/chat/completions", Some(Route::ChatCompletions)),
            ("chat-completions", Some(Route::ChatCompletions)),
            ("chat_completions", Some(Route::ChatCompletions)),
            ("/v1/completions", Some(Route::Completions)),
            ("completions", Some(Route::Completions)),
            ("/embeddings", Some(Route::Embeddings)),
            ("responses", Some(Route::Responses)),
            ("", None),
            ("/v1", None),
            ("/v1/models", None),
            ("/v1/v1/responses", None),
            ("chat", None),
        ] {
            assert_eq!(route(text).ok(), meant, "{text}");
        }
    }

    #[test]
    fn users_are_numbers_in_the_end() {
        assert_eq!(uid("1000"), Ok(1000));
        assert_eq!(uid("root"), Ok(0));
        for text in ["", "-1", "4294967295", "4294967296", "no such user", "1e3"] {
            assert!(uid(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_certificate_is_known_by_its_fingerprint_or_its_file() {
        let digest = CertDigest::of(b"certificate");
        let digits = digest.to_string();
        let pairs: Vec<&str> = (0..64).step_by(2).map(|at| &digits[at..at + 2]).collect();
        for text in [digits.clone(), digits.to_uppercase(), pairs.join(":")] {
            assert_eq!(client_cert(&text), Ok(digest), "{text}");
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("c.pem");
        let text = "-----BEGIN CERTIFICATE-----\nY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n";
        std::fs::write(&file, text).unwrap();
        assert_eq!(client_cert(file.to_str().unwrap()), Ok(digest));
        std::fs::write(&file, "none").unwrap();
        assert!(client_cert(file.to_str().unwrap()).is_err());
        assert!(client_cert("abc").is_err() && client_cert("").is_err());
    }

    proptest! {
        #[test]
        fn any_amount_survives_being_written_and_read(micro in 0..=MAX_USD * 1_000_000) {
            let text = format!("{}.{:06}", micro / 1_000_000, micro % 1_000_000);
            prop_assert_eq!(usd_pico(&text), Ok(micro * 1_000_000));
            prop_assert_eq!(usd(&text), Ok(micro));
            let trimmed = text.trim_end_matches('0');
            if !trimmed.ends_with('.') {
                prop_assert_eq!(usd(trimmed), Ok(micro));
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,24}") {
            let _ = (usd(&text), signed_usd(&text), seconds(&text), names(&text), uid(&text));
        }
    }
}

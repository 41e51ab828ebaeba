//! Decimals into picodollars, and the shipped catalogue.

use proptest::prelude::*;

use super::super::decimal::pico_a_token;
use super::*;
use crate::core::price::MAX_PRICE_PICO;

#[test]
fn prices_are_exact_or_rounded_up() {
    for (text, pico) in [
        ("0", 0),
        ("0.0", 0),
        ("0.000000", 0),
        ("1", 1_000_000),
        ("01", 1_000_000),
        ("0.075", 75_000),
        ("0.0375", 37_500),
        ("0.30", 300_000),
        ("0.000001", 1),
        ("0.0000010", 1),
        ("0.00000001", 1),
        ("0.0000000000000000000000000001", 1),
        ("0.0000010000000000000000000001", 2),
        ("2.0000011", 2_000_002),
        ("1000000", MAX_PRICE_PICO),
        ("1000000.0000000000000000000", MAX_PRICE_PICO),
    ] {
        assert_eq!(pico_a_token(text), Ok(pico), "{text}");
    }
}

#[test]
fn what_is_no_price() {
    for (text, says) in [
        ("", "plain decimal"),
        (".5", "plain decimal"),
        ("5.", "plain decimal"),
        ("1e-3", "plain decimal"),
        ("1,5", "plain decimal"),
        ("1_000", "plain decimal"),
        ("+1", "plain decimal"),
        (" 1", "plain decimal"),
        ("0x1", "plain decimal"),
        (".inf", "plain decimal"),
        ("NaN", "plain decimal"),
        ("$1", "plain decimal"),
        ("--1", "plain decimal"),
        ("\u{661}", "plain decimal"),
        ("-1", "negative"),
        ("-0", "negative"),
        ("-0.5", "negative"),
        ("1000000.0000000001", "at most 1000000 USD"),
        ("1000001", "at most 1000000 USD"),
        ("79228162514264337593543950335", "at most 1000000 USD"),
        ("99999999999999999999999999999999", "28 digits"),
        ("0.00000000000000000000000000001", "28 digits"),
    ] {
        let why = pico_a_token(text).unwrap_err();
        assert!(why.contains(says), "{text}: {why}");
    }
}

/// Rounds up by the digits alone, for any length: an own way to the same answer.
fn by_digits(whole: &str, fraction: &str) -> u128 {
    let mut digits = format!("{whole}{fraction:0<6}");
    let rest = digits.split_off(whole.len() + 6);
    let up = u128::from(rest.bytes().any(|digit| digit != b'0'));
    digits.parse::<u128>().unwrap() + up
}

proptest! {
    #[test]
    fn no_price_falls_short_of_the_decimal(whole in "[0-9]{1,7}", fraction in "[0-9]{1,21}") {
        let expected = by_digits(&whole, &fraction);
        let read = pico_a_token(&format!("{whole}.{fraction}"));
        if expected > u128::from(MAX_PRICE_PICO) {
            prop_assert!(read.is_err());
        } else {
            prop_assert_eq!(read.map(u128::from), Ok(expected));
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,40}") {
        let _ = pico_a_token(&text);
    }
}

#[test]
fn prices_in_the_file_say_where_they_are_wrong() {
    let file = |price: &str| {
        with_provider(&format!(
            "models:\n  m:\n    provider: far\n    price: {price}\n"
        ))
    };
    let place = |error: &ConfigError| (error.line, error.column);
    for (price, column, says) in [
        ("cheap", 12, "price: write free, or"),
        ("0.5", 12, "price: write free, or"),
        ("true", 12, "price: write free, or"),
        ("[free]", 12, "price: write free, or"),
        ("1e999", 12, ""),
        ("{ output_per_mtok: 1 }", 14, "missing key `input_per_mtok`"),
        ("{ input_per_mtok: 1 }", 14, "missing key `output_per_mtok`"),
        (
            "{ input_per_mtok: 1e-3, output_per_mtok: 1 }",
            30,
            "input_per_mtok: not a price",
        ),
        (
            "{ input_per_mtok: 1, output_per_mtok: -1 }",
            50,
            "output_per_mtok: a price cannot be negative",
        ),
        (
            "{ input_per_mtok: 1, output_per_mtok: [1] }",
            50,
            "single value",
        ),
        (
            "{ input_per_mtok: 1, output_per_mtok: 1000001 }",
            50,
            "at most 1000000 USD",
        ),
        (
            "{ input_per_mtok: 1, input_per_mtok: 1 }",
            33,
            "duplicate key",
        ),
    ] {
        let error = bad(&file(price));
        assert_eq!(place(&error), (Some(7), Some(column)), "{price}: {error}");
        assert!(error.message.contains(says), "{price}: {error}");
    }

    // As a float this would be 0.1 + 0.2.
    let (config, _) = good(&file(
        "{ input_per_mtok: 0.30000000000000004, output_per_mtok: 0.3 }",
    ));
    let price = config.models["m"].pricing.price().unwrap();
    assert_eq!((price.input_pico, price.output_pico), (300_001, 300_000));
    assert_eq!(price.cached_input_pico, price.input_pico);
    assert_eq!(price.cache_write_pico, price.input_pico);
}

#[test]
fn the_shipped_catalogue_is_sound() {
    let catalogue = Catalogue::builtin();
    assert!(!catalogue.version().is_empty());
    assert!(catalogue.models().len() >= 20);
    for model in catalogue.models() {
        let name = &model.upstream_model;
        let price = model.price;
        assert!(
            price.input_pico > 0 && price.output_pico >= price.input_pico,
            "{name}"
        );
        assert!(price.cached_input_pico <= price.input_pico, "{name}");
        assert!(model.max_output_tokens <= model.context_window, "{name}");
        assert!(!model.source.is_empty() && model.date.len() == 10, "{name}");

        let provider = catalogue.provider(&model.provider, "").unwrap();
        assert_eq!(catalogue.by_upstream(provider, name), Some(model));
        for snapshot in &model.snapshots {
            assert_eq!(catalogue.by_upstream(provider, snapshot), Some(model));
        }
        for alias in &model.aliases {
            assert_eq!(catalogue.by_alias(provider, alias), Some(model));
        }
    }
}

#[test]
fn a_catalogue_with_a_fault_is_refused() {
    let head = "version: v\nproviders: { p: { source: s } }\nmodels:\n";
    let model = |name: &str, rest: &str| {
        format!(
            "  - {{ provider: p, model: {name}, price: {{ input_per_mtok: 1, output_per_mtok: 1 }}, \
             max_output_tokens: 1, context_window: 1, hidden_output: true, source: s, date: d{rest} }}\n"
        )
    };
    let text = format!("{head}{}", model("a", ", snapshots: [a-1], aliases: [x]"));
    assert_eq!(Catalogue::parse(&text).unwrap().models().len(), 1);
    for (second, says) in [
        (model("a-1", ""), "a-1 is in the catalogue twice"),
        (model("b", ", aliases: [x]"), "x is in the catalogue twice"),
        (model("b", ", colour: red"), "unknown key `colour`"),
        (model("b", ", output_cap_param: max"), "max"),
        (
            model("b", "").replace("provider: p", "provider: q"),
            "no such provider in this catalogue",
        ),
        (
            model("b", "").replace("context_window: 1", "context_window: 0"),
            "cannot be 0",
        ),
        (
            model("b", "").replace("source: s, ", ""),
            "missing key `source`",
        ),
    ] {
        let error = Catalogue::parse(&format!("{text}{second}")).unwrap_err();
        assert_eq!(error.line, Some(5), "{error}");
        assert!(error.message.contains(says), "{error}");
    }
}

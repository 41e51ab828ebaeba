//! Decimals into picodollars, and the shipped catalogue.

use proptest::prelude::*;

use super::super::decimal::{pico_a_request, pico_a_token};
use super::*;
use crate::core::price::{MAX_PRICE_PICO, MAX_REQUEST_PICO, Price, Tier};

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
        ("{ output_per_mtok: 1 }", 14, "missing key `input_per_mtok`"),
        (
            "{ input_per_mtok: 1, per_request: 1e-3 }",
            46,
            "per_request: not a fee",
        ),
        (
            "{ input_per_mtok: 1, per_request: 1000.01 }",
            46,
            "at most 1000 USD a request",
        ),
        ("{ input_per_mtok: 1, tiers: 1 }", 40, "expected a list"),
        (
            "{ input_per_mtok: 1, tiers: [{ input_per_mtok: 1 }] }",
            43,
            "missing key `above_prompt_tokens`",
        ),
        (
            "{ input_per_mtok: 1, tiers: [{ above_prompt_tokens: 0, input_per_mtok: 1 }] }",
            64,
            "above_prompt_tokens: cannot be 0",
        ),
        (
            "{ input_per_mtok: 1, tiers: [{ above_prompt_tokens: 100000001, input_per_mtok: 1 }] }",
            64,
            "above_prompt_tokens: is 100000000 at most",
        ),
        (
            "{ input_per_mtok: 1, output_per_mtok: 1, tiers: [{ above_prompt_tokens: 9, input_per_mtok: 1 }] }",
            61,
            "output_per_mtok is missing here",
        ),
        (
            "{ input_per_mtok: 1, tiers: [{ above_prompt_tokens: 9, input_per_mtok: 1, output_per_mtok: 1 }] }",
            41,
            "the price itself has none",
        ),
        (
            "{ input_per_mtok: 1, tiers: [{ above_prompt_tokens: 9, input_per_mtok: 1, limit: 1 }] }",
            86,
            "unknown key `limit`",
        ),
        (
            "{ input_per_mtok: 1, tiers: [{ above_prompt_tokens: 9, input_per_mtok: 1 }, \
             { above_prompt_tokens: 9, input_per_mtok: 1 }] }",
            111,
            "must be above 9",
        ),
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
fn fees_are_exact_or_rounded_up() {
    for (text, pico) in [
        ("0", 0),
        ("0.005", 5_000_000_000),
        ("0.0000000000001", 1),
        ("0.0050000000000000000000000000", 5_000_000_000),
        ("1000", MAX_REQUEST_PICO),
    ] {
        assert_eq!(pico_a_request(text), Ok(pico), "{text}");
    }
    for (text, says) in [
        ("-1", "negative"),
        (".5", "plain decimal"),
        ("1000.000000000001", "at most 1000 USD"),
        ("7.9228162514264337593543950335", "28 digits"),
    ] {
        let why = pico_a_request(text).unwrap_err();
        assert!(why.contains(says), "{text}: {why}");
    }
}

#[test]
fn tiers_and_a_fee_are_read_whole() {
    let (config, _) = good(&with_provider(
        "models:
  m:
    provider: far
    price:
      input_per_mtok: 3
      cached_input_per_mtok: 0.3
      output_per_mtok: 15
      per_request: 0.005
      tiers:
        - { above_prompt_tokens: 200000, input_per_mtok: 6, cache_write_per_mtok: 7.5, output_per_mtok: 22.5 }
        - { above_prompt_tokens: 500000, input_per_mtok: 9, output_per_mtok: 30 }
",
    ));
    let model = &config.models["m"];
    assert!(!model.embeds_only);
    let tier = |above_prompt_tokens, input_pico, cache_write_pico, output_pico| Tier {
        above_prompt_tokens,
        input_pico,
        cached_input_pico: input_pico,
        cache_write_pico,
        output_pico,
    };
    assert_eq!(
        model.pricing.price().unwrap(),
        Price {
            input_pico: 3_000_000,
            cached_input_pico: 300_000,
            cache_write_pico: 3_000_000,
            output_pico: 15_000_000,
            tiers: vec![
                tier(200_000, 6_000_000, 7_500_000, 22_500_000),
                tier(500_000, 9_000_000, 9_000_000, 30_000_000),
            ],
            request_pico: 5_000_000_000,
        }
    );
}

#[test]
fn a_price_without_output_is_of_an_embedding_model() {
    let model = |rest: &str| {
        with_provider(&format!(
            "models:\n  m:\n    provider: far\n    price: {{ input_per_mtok: 0.02 }}\n{rest}"
        ))
    };
    let (config, warnings) = good(&model(""));
    assert_eq!(warnings, Vec::<String>::new());
    let known = &config.models["m"];
    assert!(known.embeds_only);
    assert_eq!(known.pricing.price().unwrap().output_pico, 0);
    let error = bad(&model("    max_output_tokens: 5\n"));
    assert_eq!((error.line, error.column), (Some(8), Some(24)), "{error}");
    assert!(error.message.contains("has no output"), "{error}");

    let openai = "providers: { openai: { base_url: https://api.openai.com/v1 } }\nmodels:\n";
    let (config, _) = good(&format!(
        "{openai}  text-embedding-3-small: {{ provider: openai }}
  free: {{ provider: openai, upstream_model: text-embedding-3-large, price: free }}
  gpt-4o: {{ provider: openai }}
"
    ));
    let embeds = ["text-embedding-3-small", "free", "gpt-4o"].map(|name| {
        let model = &config.models[name];
        (model.embeds_only, model.max_output_tokens)
    });
    assert_eq!(embeds, [(true, None), (true, None), (false, Some(16_384))]);
}

#[test]
fn the_shipped_catalogue_is_sound() {
    let catalogue = Catalogue::builtin();
    assert!(!catalogue.version().is_empty());
    assert!(catalogue.models().len() >= 60);
    for model in catalogue.models() {
        let name = &model.upstream_model;
        let price = &model.price;
        assert_eq!(model.version, catalogue.version());
        assert!(price.input_pico > 0, "{name}");
        assert!(price.cached_input_pico <= price.input_pico, "{name}");
        assert!(price.cache_write_pico >= price.input_pico, "{name}");
        assert_eq!(price.request_pico, 0, "{name}");
        for tier in &price.tiers {
            assert!(tier.input_pico > price.input_pico, "{name}");
            assert!(tier.output_pico > price.output_pico, "{name}");
            assert!(tier.cached_input_pico <= tier.input_pico, "{name}");
            assert!(tier.cache_write_pico >= tier.input_pico, "{name}");
        }
        let window = model.context_window.unwrap();
        if model.embeds_only {
            assert!(!model.hidden_output && price.output_pico == 0, "{name}");
            assert_eq!(model.max_output_tokens, None, "{name}");
        } else {
            assert!(price.output_pico >= price.input_pico, "{name}");
            assert!(model.max_output_tokens.unwrap() <= window, "{name}");
        }
        let last = price
            .tiers
            .last()
            .map_or(0, |tier| tier.above_prompt_tokens);
        assert!(last < window, "{name}");
        assert!(!model.source.is_empty() && model.date.len() == 10, "{name}");
        if let Some(tokenizer) = &model.tokenizer {
            assert!(["o200k_base", "cl100k_base"].contains(&tokenizer.as_str()));
        }
        if name.contains("gpt-oss") {
            assert_eq!(model.template_tokens, Some(160), "{name}");
            assert!(model.hidden_output, "{name}");
        }

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
fn every_provider_of_the_shipped_catalogue_has_hosts_and_models() {
    let catalogue = Catalogue::builtin();
    let names: Vec<&str> = catalogue.providers().map(|p| p.name.as_str()).collect();
    let known = "anthropic deepseek gemini groq mistral openai openrouter together xai";
    assert_eq!(names.join(" "), known);
    for provider in catalogue.providers() {
        assert!(!provider.hosts.is_empty(), "{}", provider.name);
        let models = catalogue.models().iter();
        let own = models
            .filter(|model| model.provider == provider.name)
            .count();
        assert!(own >= 4, "{}", provider.name);
    }
    let facts = |name: &str| &catalogue.provider(name, "").unwrap().facts;
    assert!(!facts("mistral").stream_usage);
    assert!(facts("openai").knows_store && !facts("gemini").knows_store);
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
            model("b", ", tool_factor: 101"),
            "tool_factor: is 100 at most",
        ),
        (model("b", ", tokenizer: a b"), "must be a name such as"),
        (
            model("b", "").replace(", output_per_mtok: 1", ""),
            "this model has no output",
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

#[test]
fn a_catalogue_names_itself_shortly_and_shares_no_host() {
    for (text, line, says) in [
        ("version: ''\n", 1, "version must be 1 to 64"),
        ("version: a b\n", 1, "version must be 1 to 64"),
        ("models: []\n", 1, "missing key `version`"),
        (
            "version: v\nproviders:\n  a: { hosts: [h], source: s }\n  b: { hosts: [g, h], source: s }\n",
            4,
            "this host is provider a's",
        ),
    ] {
        let error = Catalogue::parse(text).unwrap_err();
        assert_eq!(error.line, Some(line), "{error}");
        assert!(error.message.contains(says), "{error}");
    }
}

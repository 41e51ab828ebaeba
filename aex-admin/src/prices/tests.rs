use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use aex_admin_proto::prices::{ImportReport, LeftOut};
use proptest::prelude::*;

use super::amount::{pico, whole};
use super::*;

#[test]
fn amounts_are_read_from_their_text() {
    for (text, expected) in [
        ("0", 0),
        ("0.0", 0),
        ("0e5", 0),
        ("1.5e-07", 150_000),
        ("1.5E-7", 150_000),
        ("0.00000015", 150_000),
        ("7.5e-08", 75_000),
        ("3e-06", 3_000_000),
        // As floats both are a little off.
        ("1.1e-06", 1_100_000),
        ("0.0000011", 1_100_000),
        ("0.005", 5_000_000_000),
        ("1e-12", 1),
        ("1e-13", 1),
        ("1.0000001e-06", 1_000_001),
        ("1000", 1_000_000_000_000_000),
        ("1e+3", 1_000_000_000_000_000),
        ("1e-300", 1),
    ] {
        assert_eq!(pico(text), Ok(expected), "{text}");
    }
    for (text, says) in [
        ("-1e-6", "negative"),
        ("1001", "too large"),
        ("1e9", "too large"),
        ("1e30000", "too large"),
        ("1e99999", "not a number"),
        ("99999999999999999999", "too large"),
        ("\"1\"", "not a number"),
        ("true", "not a number"),
        ("[1]", "not a number"),
        (".5", "not a number"),
        (&"1".repeat(65), "too many digits"),
    ] {
        let why = pico(text).unwrap_err();
        assert!(why.contains(says), "{text}: {why}");
    }
}

#[test]
fn whole_numbers_may_be_written_as_floats() {
    for (text, expected) in [
        ("0", 0),
        ("131072", 131_072),
        ("2e6", 2_000_000),
        ("2.0e+06", 2_000_000),
        ("8192.0", 8_192),
        ("1200e-2", 12),
        ("18446744073709551615", u64::MAX),
    ] {
        assert_eq!(whole(text), Ok(expected), "{text}");
    }
    for (text, says) in [
        ("0.5", "whole"),
        ("1e-1", "whole"),
        ("-1", "negative"),
        ("18446744073709551616", "too large"),
        ("1e99", "too large"),
        ("\"8\"", "not a number"),
    ] {
        let why = whole(text).unwrap_err();
        assert!(why.contains(says), "{text}: {why}");
    }
}

proptest! {
    /// However a number is written, it comes to the same, and never to less.
    #[test]
    fn the_form_of_a_number_does_not_matter(number in 0u64..1_000_000_000, places in 0usize..20) {
        let exact = format!("{number}e-{places}");
        let digits = format!("{number:0>width$}", width = places + 1);
        let (whole, fraction) = digits.split_at(digits.len() - places);
        let plain = if places == 0 { whole.to_owned() } else { format!("{whole}.{fraction}") };
        prop_assert_eq!(pico(&exact), pico(&plain));
        if let Ok(pico) = pico(&exact) {
            let (number, pico) = (u128::from(number), u128::from(pico));
            let scale = 10u128.pow(u32::try_from(places).unwrap());
            prop_assert!(pico * scale >= number * 1_000_000_000_000);
            prop_assert!(pico == 0 || (pico - 1) * scale < number * 1_000_000_000_000);
        }
    }

    #[test]
    fn no_amount_panics(text in "\\PC{0,30}") {
        let _ = pico(&text);
    }
}

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn config(&self) -> PathBuf {
        self.0.path().join("models.yaml")
    }

    fn prices(&self) -> PathBuf {
        self.0.path().join("prices.yaml")
    }

    fn import(&self, table: &str) -> Result<ImportReport, PricesError> {
        let from = self.0.path().join("table.json");
        fs::write(&from, table).unwrap();
        import(&self.config(), &from, 1_795_651_200_000)
    }

    #[track_caller]
    fn show(&self, name: &str) -> PriceView {
        show(&self.config(), name).unwrap()
    }
}

const TABLE: &str = r#"{
  "sample_spec": { "litellm_provider": "one of many", "mode": "chat", "input_cost_per_token": 0.0 },
  "gpt-4o": {
    "litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 3e-06,
    "output_cost_per_token": 1.1e-05, "cache_read_input_token_cost": 1.5e-06,
    "max_input_tokens": 128000, "max_output_tokens": 20000, "supports_vision": true, "new": [{}]
  },
  "gpt-9": {
    "litellm_provider": "openai", "mode": "responses", "input_cost_per_token": 1e-06,
    "output_cost_per_token": 2e-06, "cache_read_input_token_cost": 1e-07,
    "cache_creation_input_token_cost": 1.25e-06, "supports_reasoning": true,
    "input_cost_per_token_above_200k_tokens": 2e-06, "output_cost_per_token_above_200k_tokens": 3e-06,
    "cache_read_input_token_cost_above_200k_tokens": 2e-07,
    "cache_creation_input_token_cost_above_1hr_above_200k_tokens": 9e-06,
    "input_cost_per_token_above_200k_tokens_priority": 9e-06,
    "output_cost_per_token_above_500k_tokens": 4e-06,
    "input_cost_per_request": 0.005, "max_input_tokens": 9e5, "max_output_tokens": 100000
  },
  "together_ai/a/b": {
    "litellm_provider": "together_ai", "mode": "chat", "input_cost_per_token": 0.0000003,
    "output_cost_per_token": 6e-07, "cache_read_input_token_cost": 0.0,
    "cache_creation_input_token_cost": 0.0, "supports_reasoning": false
  },
  "mistral/embed-9": {
    "litellm_provider": "mistral", "mode": "embedding", "input_cost_per_token": 1e-07,
    "max_input_tokens": 8192, "max_output_tokens": null
  },
  "gemini/twin": {
    "litellm_provider": "gemini", "mode": "chat", "input_cost_per_token": 1e-06,
    "output_cost_per_token": 2e-06, "output_cost_per_reasoning_token": 5e-06
  },
  "twin": {
    "litellm_provider": "gemini", "mode": "chat", "input_cost_per_token": 1e-06,
    "output_cost_per_token": 2e-06, "output_cost_per_reasoning_token": 5e-06
  },
  "gemini/odd": {
    "litellm_provider": "gemini", "mode": "chat", "input_cost_per_token": 1e-06,
    "output_cost_per_token": 2e-06
  },
  "odd": {
    "litellm_provider": "gemini", "mode": "chat", "input_cost_per_token": 1e-06,
    "output_cost_per_token": 3e-06
  },
  "azure/x": { "litellm_provider": "azure", "mode": "chat", "input_cost_per_token": 1e-06 },
  "none": "x",
  "dall-e": { "litellm_provider": "openai", "mode": "image_generation" },
  "container": { "litellm_provider": "openai", "mode": "chat" },
  "free": { "litellm_provider": "xai", "mode": "chat", "input_cost_per_token": 0.0, "output_cost_per_token": 0 },
  "gpt-9-search-preview": { "litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06 },
  "heard": { "litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06, "input_cost_per_second": 1e-04 },
  "half": { "litellm_provider": "groq", "mode": "chat", "input_cost_per_token": 1e-06 },
  "quoted": { "litellm_provider": "groq", "mode": "chat", "input_cost_per_token": "1e-06", "output_cost_per_token": 1e-06 },
  "negative": { "litellm_provider": "groq", "mode": "chat", "input_cost_per_token": -1e-06, "output_cost_per_token": 1e-06 },
  "dear": { "litellm_provider": "groq", "mode": "chat", "input_cost_per_token": 2, "output_cost_per_token": 1e-06 },
  "twice": { "litellm_provider": "groq", "litellm_provider": "groq", "mode": "chat" },
  "a: b\n  - x": { "litellm_provider": "groq", "mode": "chat", "input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06 }
}"#;

#[test]
fn a_table_is_imported_and_what_is_left_out_is_counted() {
    let home = Home::new();
    let report = home.import(TABLE).unwrap();
    let expected = LeftOut {
        other_provider: 2,
        other_mode: 1,
        no_price: 2,
        more_than_tokens: 2,
        repeated: 1,
        unreadable: 9,
    };
    assert_eq!(report.left_out, expected, "{:?}", report.unreadable);
    assert_eq!(report.taken, 5);
    assert_eq!(report.unreadable.len(), 9);
    for (key, why) in [
        ("none", "no object"),
        ("half", "one direction"),
        ("quoted", "not a number"),
        ("negative", "negative"),
        ("groq/dear", "at most 1000000 USD"),
        ("twice", "twice"),
        ("groq/a: b", "printable"),
        ("odd", "other terms"),
        ("gemini/odd", "other terms"),
    ] {
        let mut told = report.unreadable.iter();
        assert!(
            told.any(|line| line.starts_with(key) && line.contains(why)),
            "{key}: {:?}",
            report.unreadable
        );
    }
    assert!(report.version.starts_with("import-") && report.version.len() == 19);
    assert_eq!(report.kept, None);
    let mode = fs::metadata(home.prices()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // The same table is the same version, and takes nobody's own prices away.
    assert_eq!(home.import(TABLE).unwrap(), report);
    assert!(!home.0.path().join("prices.yaml.new").exists());
}

#[test]
fn what_is_imported_says_what_the_table_and_the_catalogue_know() {
    let home = Home::new();
    let version = home.import(TABLE).unwrap().version;

    let known = home.show("openai/gpt-4o");
    assert_eq!(known.rates.input_pico, 3_000_000);
    assert_eq!(known.rates.cached_input_pico, 1_500_000);
    assert_eq!(known.rates.cache_write_pico, 3_000_000);
    assert_eq!(known.rates.output_pico, Some(11_000_000));
    assert_eq!(known.max_output_tokens, Some(20_000));
    assert_eq!(known.context_window, Some(128_000));
    assert_eq!(known.tokenizer.as_deref(), Some("o200k_base"));
    assert_eq!((known.template_tokens, known.message_tokens), (8, 4));
    assert_eq!(known.image_tokens, Some(1445));
    assert!(!known.hidden_output);
    assert_eq!(
        (known.version, known.date.as_str()),
        (version.clone(), "2026-11-26")
    );
    assert_eq!(home.show("openai/gpt-4o-2024-11-20").version, version);

    let new = home.show("gpt-9");
    assert!(new.hidden_output);
    assert_eq!(new.request_pico, 5_000_000_000);
    assert_eq!(new.context_window, Some(1_000_000));
    assert_eq!(new.rates.cache_write_pico, 1_250_000);
    let tier = |above_prompt_tokens, input, cached, output| TierView {
        above_prompt_tokens,
        rates: RatesView {
            input_pico: input,
            cached_input_pico: cached,
            cache_write_pico: input,
            output_pico: Some(output),
        },
    };
    assert_eq!(
        new.tiers,
        [
            tier(200_000, 2_000_000, 200_000, 3_000_000),
            tier(500_000, 1_000_000, 1_000_000, 4_000_000),
        ]
    );

    let zeros = home.show("together/a/b");
    assert_eq!(zeros.rates.cached_input_pico, 300_000);
    assert_eq!(zeros.rates.cache_write_pico, 300_000);
    assert_eq!(
        (zeros.hidden_output, zeros.max_output_tokens),
        (false, None)
    );

    // Nothing is known of the model itself, but some of its provider add as much.
    assert_eq!((zeros.template_tokens, new.template_tokens), (160, 48));

    let embeds = home.show("embed-9");
    assert!(embeds.embeds_only && embeds.rates.output_pico.is_none());
    assert_eq!(home.show("gemini/twin").rates.output_pico, Some(5_000_000));
    // The rest is the shipped catalogue's.
    let shipped = home.show("gpt-4o-mini");
    assert_eq!(shipped.version, Catalogue::builtin().version());
}

#[test]
fn prices_that_somebody_wrote_are_kept_aside() {
    let home = Home::new();
    for written in ["version: mine\n", "not even: a catalogue\n"] {
        fs::write(home.prices(), written).unwrap();
        let kept = home.import(TABLE).unwrap().kept.unwrap();
        assert_eq!(fs::read_to_string(kept).unwrap(), written);
        assert_eq!(home.show("gpt-9").rates.input_pico, 1_000_000);
    }
}

#[test]
fn what_is_no_table_changes_nothing() {
    let home = Home::new();
    for table in [
        "",
        "{}",
        "[]",
        "{\"a\": 1",
        "{\"a\": 1, \"a\": 1}",
        "\u{0}",
        "nul",
    ] {
        let error = home.import(table).unwrap_err();
        assert!(matches!(error, PricesError::NotATable { .. }), "{error}");
        assert_eq!(error.exit_code(), 1);
        assert!(!home.prices().exists());
    }
    let nowhere = home.0.path().join("nowhere.json");
    let error = import(&home.config(), &nowhere, 0).unwrap_err();
    assert_eq!(error.exit_code(), 4, "{error}");
    let error = import(&home.config(), home.0.path(), 0).unwrap_err();
    assert_eq!(error.exit_code(), 1, "{error}");
}

#[test]
fn a_model_is_found_by_its_names() {
    let home = Home::new();
    for (asked, provider, model) in [
        ("openai/gpt-4o", "openai", "gpt-4o"),
        ("gpt-4o", "openai", "gpt-4o"),
        ("gpt-4o-2024-08-06", "openai", "gpt-4o"),
        ("gpt-oss-20b", "groq", "openai/gpt-oss-20b"),
        ("groq/gpt-oss-20b", "groq", "openai/gpt-oss-20b"),
        ("groq/openai/gpt-oss-20b", "groq", "openai/gpt-oss-20b"),
        ("openai/gpt-oss-20b", "groq", "openai/gpt-oss-20b"),
    ] {
        let found = home.show(asked);
        assert_eq!(
            (found.provider.as_str(), found.model.as_str()),
            (provider, model)
        );
    }
    for (asked, exit) in [
        ("gpt-oss-120b", 2),
        ("gpt-99", 4),
        ("groq/gpt-4o", 4),
        ("", 4),
    ] {
        let error = show(&home.config(), asked).unwrap_err();
        assert_eq!(error.exit_code(), exit, "{error}");
    }
}

#[test]
fn the_list_says_where_its_prices_are_from() {
    let home = Home::new();
    let all = list(&home.config(), None).unwrap();
    assert_eq!(all.models.len(), Catalogue::builtin().models().len());
    assert_eq!((all.own_version, all.own_file), (None, None));
    let groq = list(&home.config(), Some("groq")).unwrap();
    assert!(!groq.models.is_empty());
    assert!(groq.models.iter().all(|model| model.provider == "groq"));
    assert_eq!(list(&home.config(), Some("x")).unwrap_err().exit_code(), 4);

    let version = home.import(TABLE).unwrap().version;
    assert_eq!(
        list(&home.config(), None).unwrap().own_version,
        Some(version)
    );
    fs::write(home.prices(), "version: v\ncolour: red\n").unwrap();
    let error = list(&home.config(), None).unwrap_err();
    assert_eq!(error.exit_code(), 1);
    assert!(
        error.to_string().contains("prices.yaml:2:1: unknown key"),
        "{error}"
    );
}

#[test]
fn the_whole_shipped_catalogue_can_be_written_and_read_again() {
    let shipped = Catalogue::builtin();
    let mut text = text::head(shipped.version(), "x");
    for model in shipped.models() {
        text.push_str(&text::entry(model));
    }
    let again = shipped.overlaid(&text).unwrap();
    for model in shipped.models() {
        let provider = again.provider(&model.provider, "").unwrap();
        assert_eq!(
            again.by_upstream(provider, &model.upstream_model),
            Some(model)
        );
    }
}

#[test]
fn days_have_names() {
    for (at_ms, day) in [
        (0, "1970-01-01"),
        (-1, "1969-12-31"),
        (951_782_400_000, "2000-02-29"),
        (1_795_651_199_999, "2026-11-25"),
        (1_795_651_200_000, "2026-11-26"),
        (4_107_542_399_999, "2100-02-28"),
        (4_107_542_400_000, "2100-03-01"),
    ] {
        assert_eq!(import::day(at_ms), day);
    }
}

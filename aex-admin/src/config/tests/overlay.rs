//! An operator's own prices over the shipped ones.

use super::*;

const OWN: &str = "\
version: mine-1
models:
  - provider: openai
    model: gpt-4o
    price: { input_per_mtok: 9, output_per_mtok: 19 }
    hidden_output: false
    source: invoice
    date: 2026-11-01
  - provider: groq
    model: openai/gpt-oss-20b
    price: { input_per_mtok: 1, output_per_mtok: 2 }
    hidden_output: true
    source: invoice
    date: 2026-11-01
  - provider: openai
    model: gpt-4.1-2025-04-14
    price: { input_per_mtok: 7, output_per_mtok: 8 }
    hidden_output: false
    source: invoice
    date: 2026-11-01
";

fn overlaid(text: &str) -> Catalogue {
    Catalogue::builtin().overlaid(text).unwrap()
}

/// `input price, version` of a model of a provider, by any of its names.
fn terms(catalogue: &Catalogue, provider: &str, name: &str) -> Option<(u64, String)> {
    let provider = catalogue.provider(provider, "")?;
    let model = catalogue
        .by_upstream(provider, name)
        .or_else(|| catalogue.by_alias(provider, name))?;
    Some((model.price.input_pico, model.version.clone()))
}

#[test]
fn an_entry_takes_the_place_of_the_same_model_and_the_others_stay() {
    let catalogue = overlaid(OWN);
    let shipped = Catalogue::builtin().version();
    for (provider, name, input_pico, version) in [
        ("openai", "gpt-4o", 9_000_000, "mine-1"),
        // What led to the old terms leads to the new ones.
        ("openai", "gpt-4o-2024-11-20", 9_000_000, "mine-1"),
        ("groq", "gpt-oss-20b", 1_000_000, "mine-1"),
        ("openai", "gpt-4o-mini", 150_000, shipped),
        // A snapshot of a shipped entry may have terms of its own.
        ("openai", "gpt-4.1-2025-04-14", 7_000_000, "mine-1"),
        ("openai", "gpt-4.1", 2_000_000, shipped),
    ] {
        let found = terms(&catalogue, provider, name);
        assert_eq!(found, Some((input_pico, version.to_owned())), "{name}");
    }
    assert_eq!(
        catalogue.models().len(),
        Catalogue::builtin().models().len() + 1
    );
    assert_eq!(catalogue.version(), "mine-1");
    // What the new entry does not say is not known any more.
    let openai = catalogue.provider("openai", "").unwrap();
    let known = catalogue.by_upstream(openai, "gpt-4o").unwrap();
    assert_eq!((known.max_output_tokens, &known.tokenizer), (None, &None));
    assert!(openai.facts.knows_store, "the provider's facts stay");
}

#[test]
fn a_snapshot_that_is_claimed_replaces_the_model_of_that_name() {
    let text = OWN.replace(
        "model: gpt-4o\n",
        "model: house-model\n    snapshots: [gpt-4o]\n",
    );
    let catalogue = overlaid(&text);
    let house = terms(&catalogue, "openai", "house-model");
    assert_eq!(house, Some((9_000_000, "mine-1".to_owned())));
    for name in ["gpt-4o", "gpt-4o-2024-08-06"] {
        assert_eq!(terms(&catalogue, "openai", name), house, "{name}");
    }
}

#[test]
fn a_provider_of_its_own_is_added_and_a_known_one_changed() {
    let catalogue = overlaid(
        "version: v
providers:
  house: { hosts: [llm.example], source: s }
  mistral: { hosts: [api.mistral.ai], source: s }
models:
  - { provider: house, model: m, price: { input_per_mtok: 1, output_per_mtok: 1 }, hidden_output: true, source: s, date: d }
",
    );
    let house = catalogue.provider("x", "llm.example").unwrap();
    assert!(catalogue.by_upstream(house, "m").is_some());
    let mistral = catalogue.provider("mistral", "").unwrap();
    assert!(mistral.facts.stream_usage);
    assert!(
        catalogue
            .by_upstream(mistral, "mistral-large-2512")
            .is_some()
    );
}

#[test]
fn an_overlay_with_a_fault_is_refused() {
    for (from, to, line, says) in [
        ("provider: groq", "provider: nobody", 9, "no such provider"),
        (
            "model: gpt-4.1-2025-04-14",
            "model: gpt-4o",
            16,
            "in the catalogue twice",
        ),
        ("input_per_mtok: 9", "input_per_mtok: x", 5, "not a price"),
        (
            "version: mine-1\n",
            "version: mine-1\nproviders: { p: { hosts: [api.openai.com], source: s } }\n",
            2,
            "provider openai's",
        ),
    ] {
        let text = OWN.replace(from, to);
        let error = Catalogue::builtin().overlaid(&text).unwrap_err();
        assert_eq!(error.line, Some(line), "{error}");
        assert!(
            error.column.is_some() && error.message.contains(says),
            "{error}"
        );
    }
}

#[test]
fn an_empty_overlay_changes_nothing_but_its_name() {
    let catalogue = overlaid("version: v\n");
    assert_eq!(catalogue.models(), Catalogue::builtin().models());
    assert_eq!(
        catalogue.providers().count(),
        Catalogue::builtin().providers().count()
    );
}

#[test]
fn a_price_records_the_catalogue_that_it_is_from() {
    let file = "providers: { openai: { base_url: https://api.openai.com/v1 } }
models:
  gpt-4o: { provider: openai }
  gpt-4o-mini: { provider: openai }
  own: { provider: openai, price: { input_per_mtok: 1, output_per_mtok: 1 } }
  free: { provider: openai, price: free }
  none: { provider: openai }
";
    let (config, _) = parse(file, &overlaid(OWN)).unwrap();
    let shipped = Catalogue::builtin().version();
    for (name, recorded, shown) in [
        ("gpt-4o", "mine-1", "catalogue"),
        ("gpt-4o-mini", shipped, "catalogue"),
        ("own", "models.yaml", "models.yaml"),
        ("free", "free", "free"),
        ("none", "none", "none"),
    ] {
        let pricing = &config.models[name].pricing;
        assert_eq!(pricing.recorded_source(), recorded, "{name}");
        assert_eq!(pricing.source_name(), shown, "{name}");
    }
}

#[test]
fn prices_beside_the_configuration_are_loaded_with_it() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("models.yaml");
    let prices = prices_file(&file);
    assert_eq!(prices, home.path().join("prices.yaml"));
    std::fs::write(
        &file,
        "providers: { openai: { base_url: https://api.openai.com/v1 } }\nmodels: { gpt-4o: { provider: openai } }\n",
    )
    .unwrap();
    let recorded = || {
        load(&file).map(|(config, _)| config.models["gpt-4o"].pricing.recorded_source().to_owned())
    };
    assert_eq!(recorded().unwrap(), Catalogue::builtin().version());
    std::fs::write(&prices, OWN).unwrap();
    assert_eq!(recorded().unwrap(), "mine-1");

    std::fs::write(
        &prices,
        OWN.replace("version: mine-1", "version: mine-1\ncolour: red"),
    )
    .unwrap();
    let place = format!("{}:2:1: unknown key `colour`", prices.display());
    let error = recorded().unwrap_err().to_string();
    assert!(error.starts_with(&place), "{error}");
    std::fs::write(&prices, "#".repeat(MAX_CONFIG_BYTES + 1)).unwrap();
    assert!(matches!(recorded(), Err(LoadError::TooLarge { path, .. }) if path == prices));
    std::fs::remove_file(&prices).unwrap();
    std::fs::create_dir(&prices).unwrap();
    assert!(matches!(recorded(), Err(LoadError::NotAFile { .. })));
}

//! Models with several targets: what they come to, and what is refused.

use super::*;
use crate::core::routing::Routing;

const TWO: &str = "\
providers:
  openai: { base_url: 'https://api.openai.com/v1' }
  here: { base_url: 'http://127.0.0.1:8080/v1', request_timeout: 5s }
models:
  clever:
    routing: weighted
    limits: { max_requests_per_minute: 9 }
    targets:
      - { provider: openai, model: gpt-4o-mini, weight: 3 }
      - { provider: here, upstream_model: local/m, price: { input_per_mtok: 1, output_per_mtok: 2 }, max_output_tokens: 77 }
      - provider: here
";

/// One model `m` with these targets, after a provider `far`.
fn model(rest: &str) -> String {
    with_provider(&format!("models:\n  m:\n{rest}"))
}

#[track_caller]
fn check(rest: &str, place: (u64, u64), says: &str) {
    let error = bad(&model(rest));
    assert_eq!(
        (error.line, error.column),
        (Some(place.0), Some(place.1)),
        "{error}"
    );
    assert!(
        error.message.contains(says),
        "{error}\ndoes not say: {says}"
    );
}

#[test]
fn each_target_has_its_own_price_and_facts() {
    let (config, warnings) = good(TWO);
    assert_eq!(warnings, Vec::<String>::new());
    let model = &config.models["clever"];
    assert_eq!(model.routing, Routing::Weighted);
    let targets: Vec<_> = model.targets().collect();
    let named: Vec<_> = (targets.iter())
        .map(|target| (target.provider.as_str(), target.upstream_model.as_str()))
        .collect();
    // Without a name of its own a target has the model's.
    let expected = [
        ("openai", "gpt-4o-mini"),
        ("here", "local/m"),
        ("here", "clever"),
    ];
    assert_eq!(named, expected);
    let weights: Vec<u64> = targets.iter().map(|target| target.weight).collect();
    assert_eq!(weights, [3, 1, 1]);
    for target in &targets {
        assert_eq!(target.name, "clever");
        assert_eq!(target.limits.max_requests_per_minute, Some(9));
    }
    assert_eq!(targets[0].pricing.source_name(), "catalogue");
    assert_eq!(
        targets[0].output_cap_param.as_str(),
        "max_completion_tokens"
    );
    assert_eq!(targets[1].pricing.source_name(), "models.yaml");
    assert_eq!(targets[1].max_output_tokens, Some(77));
    assert_eq!(targets[2].pricing, Pricing::Free);
}

#[test]
fn a_plain_model_is_one_target() {
    let (config, _) = good(&with_provider(
        "models:\n  m: { provider: far, price: free }\n",
    ));
    let model = &config.models["m"];
    assert_eq!(model.targets().count(), 1);
    assert_eq!(model.routing, Routing::Ordered);
}

#[test]
fn a_target_without_a_price_is_warned_of() {
    let (_, warnings) = good(&model(
        "    targets:\n      - { provider: far, price: free }\n      - { provider: far, model: n }\n",
    ));
    assert!(
        warnings
            .iter()
            .any(|warning| warning.contains("no price is known for n of far"))
    );
}

#[test]
fn what_is_wrong_with_targets_is_told_with_its_place() {
    check("    targets: []\n", (6, 14), "targets: none");
    check("    targets: far\n", (6, 14), "expected a list here");
    check(
        "    targets: [far]\n",
        (6, 15),
        "expected lines of KEY: VALUE here",
    );
    check(
        "    targets: [{}]\n",
        (6, 15),
        "model m: provider is missing",
    );
    check(
        "    targets: [{ provider: near }]\n",
        (6, 27),
        "model m: no such provider; this file has: far",
    );
    check(
        "    targets: [{ provider: far, wieght: 1 }]\n",
        (6, 32),
        "unknown key `wieght`",
    );
    check(
        "    targets: [{ provider: far, limits: {} }]\n",
        (6, 32),
        "unknown key `limits`",
    );
    check(
        "    targets: [{ provider: far, model: a, upstream_model: b }]\n",
        (6, 39),
        "model: is the same as upstream_model",
    );
    check(
        "    targets: [{ provider: far }, { provider: far, model: m }]\n",
        (6, 34),
        "the same provider and model as an earlier one",
    );
    let nine: Vec<String> = (0..9)
        .map(|n| format!("{{ provider: far, model: m{n} }}"))
        .collect();
    check(
        &format!("    targets: [{}]\n", nine.join(", ")),
        (6, 255),
        "targets: more than 8",
    );
}

#[test]
fn weights_and_routings_that_are_none() {
    let weighted = |weight: &str| {
        format!("    routing: weighted\n    targets: [{{ provider: far, weight: {weight} }}]\n")
    };
    check(&weighted("0"), (7, 40), "weight: cannot be 0");
    check(&weighted("-1"), (7, 40), "weight: cannot be negative");
    check(&weighted("1.5"), (7, 40), "weight: must be a whole number");
    check(&weighted("1000001"), (7, 40), "weight: is");
    check(
        "    targets: [{ provider: far, weight: 2 }]\n",
        (6, 40),
        "weight: only where the model has routing: weighted",
    );
    check(
        "    routing: random\n    targets: [{ provider: far }]\n",
        (6, 14),
        "routing: must be ordered, weighted or cheapest",
    );
    check(
        "    provider: far\n    routing: ordered\n",
        (7, 14),
        "routing: only where targets are",
    );
}

#[test]
fn facts_of_one_target_do_not_stand_beside_them() {
    let beside = |key: &str, value: &str| {
        format!("    targets: [{{ provider: far }}]\n    {key}: {value}\n")
    };
    for (key, value) in [
        ("provider", "far"),
        ("upstream_model", "m"),
        ("price", "free"),
        ("max_output_tokens", "9"),
        ("context_window", "9"),
        ("tokenizer", "o200k_base"),
        ("tool_factor", "2"),
    ] {
        let column = key.len() as u64 + 7;
        let says = format!("{key}: this model has targets, so write it in each of them");
        check(&beside(key, value), (7, column), &says);
    }
    check(
        &beside("hidden_output", "false"),
        (6, 14),
        "hidden_output: this model has targets",
    );
}

use proptest::prelude::*;

use super::*;

/// 10 in, 5 cached, 12 written, 100 out; twice that above 200, and dear output alone above 1,000.
fn tiered() -> Price {
    let times = |factor: u64, output_pico: u64, above_prompt_tokens: u64| Tier {
        above_prompt_tokens,
        input_pico: 10 * factor,
        cached_input_pico: 5 * factor,
        cache_write_pico: 12 * factor,
        output_pico,
    };
    Price {
        input_pico: 10,
        cached_input_pico: 5,
        cache_write_pico: 12,
        output_pico: 100,
        tiers: vec![times(2, 150, 200), times(1, 900, 1_000)],
        request_pico: 0,
    }
}

fn usage(prompt: u64, cached: u64, cache_write: u64, output: u64) -> Usage {
    Usage {
        prompt,
        cached,
        cache_write,
        output,
        ..Usage::default()
    }
}

#[test]
fn a_request_costs_the_tier_that_its_prompt_reached() {
    for (prompt, cached, written, output, cost) in [
        (0, 0, 0, 1, 100),
        (200, 0, 0, 1, 2_100),
        // One token more, and all of it costs more, the output too.
        (201, 0, 0, 1, 201 * 20 + 150),
        (201, 100, 1, 1, 100 * 20 + 100 * 10 + 24 + 150),
        (1_000, 0, 0, 0, 20_000),
        (1_001, 0, 0, 1, 10_010 + 900),
    ] {
        let usage = usage(prompt, cached, written, output);
        assert_eq!(tiered().cost_pico(&usage), Some(cost), "{usage:?}");
    }
}

#[test]
fn a_ceiling_is_of_the_dearest_tier_in_reach() {
    for (input, output, ceiling) in [
        (200, 10, 200 * 12 + 10 * 100),
        (201, 10, 201 * 24 + 10 * 150),
        // A later tier may be the cheaper one: the dearer one before it is in reach as well.
        (1_001, 10, 1_001 * 24 + 10 * 900),
    ] {
        assert_eq!(tiered().ceiling_pico(input, output), Some(ceiling));
    }
    assert_eq!(tiered().dearest_output_pico(200), 100);
    assert_eq!(tiered().dearest_output_pico(201), 150);
    assert_eq!(tiered().dearest_output_pico(u64::MAX), 900);
}

#[test]
fn a_fee_is_paid_once_by_each_request() {
    let price = Price {
        request_pico: 5_000_000_000,
        ..tiered()
    };
    assert_eq!(price.ceiling_pico(0, 0), Some(5_000_000_000));
    assert_eq!(price.cost_pico(&usage(0, 0, 0, 0)), Some(5_000_000_000));
    assert_eq!(price.cost_pico(&usage(1, 0, 0, 1)), Some(5_000_000_110));
}

#[test]
fn free_is_what_costs_nothing_at_any_length() {
    assert!(Price::FREE.is_free());
    let fee = Price {
        request_pico: 1,
        ..Price::FREE
    };
    assert!(!fee.is_free());
    let mut tier = tiered().tiers.remove(0);
    let long = |tier: &Tier| Price {
        tiers: vec![tier.clone()],
        ..Price::FREE
    };
    assert!(!long(&tier).is_free());
    tier.input_pico = 0;
    tier.cached_input_pico = 0;
    tier.output_pico = 0;
    assert!(!long(&tier).is_free());
    tier.cache_write_pico = 0;
    assert!(long(&tier).is_free());
}

#[test]
fn a_plain_price_is_written_as_ever() {
    let plain = Price {
        tiers: Vec::new(),
        ..tiered()
    };
    let text = r#"{"input_pico":10,"cached_input_pico":5,"cache_write_pico":12,"output_pico":100}"#;
    assert_eq!(serde_json::to_string(&plain).unwrap(), text);
    assert_eq!(serde_json::from_str::<Price>(text).unwrap(), plain);

    let full = Price {
        request_pico: 7,
        ..tiered()
    };
    let text = serde_json::to_string(&full).unwrap();
    assert_eq!(serde_json::from_str::<Price>(&text).unwrap(), full);
    assert!(serde_json::from_str::<Price>(&text.replace("tiers", "tears")).is_err());
}

#[test]
fn what_the_ledger_cannot_hold_has_no_cost() {
    let price = Price {
        output_pico: MAX_PRICE_PICO,
        request_pico: MAX_REQUEST_PICO,
        ..Price::FREE
    };
    assert_eq!(price.ceiling_pico(0, u64::MAX), None);
    assert_eq!(price.cost_pico(&usage(0, 0, 0, MAX_TOKENS)), None);
    assert_eq!(price.cost_pico(&usage(1, 1, 1, 0)), None);
    assert_eq!(price.cost_pico(&usage(0, 0, 0, MAX_TOKENS + 1)), None);
}

fn any_price() -> impl Strategy<Value = Price> {
    let rate = || prop_oneof![Just(0u64), 0u64..1_000, 0..=MAX_PRICE_PICO];
    let tier = (1u64..2_000, rate(), rate(), rate(), rate());
    let tiers = prop::collection::vec(tier, 0..4);
    (rate(), rate(), rate(), rate(), tiers, rate()).prop_map(
        |(input_pico, cached_input_pico, cache_write_pico, output_pico, tiers, request_pico)| {
            let mut tiers: Vec<Tier> = tiers
                .into_iter()
                .map(|(above_prompt_tokens, input, cached, write, output)| Tier {
                    above_prompt_tokens,
                    input_pico: input,
                    cached_input_pico: cached,
                    cache_write_pico: write,
                    output_pico: output,
                })
                .collect();
            tiers.sort_by_key(|tier| tier.above_prompt_tokens);
            tiers.dedup_by_key(|tier| tier.above_prompt_tokens);
            Price {
                input_pico,
                cached_input_pico,
                cache_write_pico,
                output_pico,
                tiers,
                request_pico,
            }
        },
    )
}

/// The same, written out: the last tier whose threshold was passed, line by line.
fn long_way(price: &Price, usage: &Usage) -> u128 {
    let mut rates = (
        price.input_pico,
        price.cached_input_pico,
        price.cache_write_pico,
        price.output_pico,
    );
    for tier in &price.tiers {
        if usage.prompt > tier.above_prompt_tokens {
            rates = (
                tier.input_pico,
                tier.cached_input_pico,
                tier.cache_write_pico,
                tier.output_pico,
            );
        }
    }
    let plain = usage.prompt - usage.cached - usage.cache_write;
    let line = |tokens: u64, pico: u64| u128::from(tokens) * u128::from(pico);
    u128::from(price.request_pico)
        + line(plain, rates.0)
        + line(usage.cached, rates.1)
        + line(usage.cache_write, rates.2)
        + line(usage.output, rates.3)
}

proptest! {
    /// No usage within the bounds costs more than their ceiling.
    #[test]
    fn a_ceiling_bounds_every_usage_within_it(
        price in any_price(),
        input in 0u64..3_000, prompt in 0u64..3_000, parts in (0u64..3_000, 0u64..3_000),
        output in 0u64..1_000, less in 0u64..1_000,
    ) {
        let prompt = prompt.min(input);
        let cached = parts.0.min(prompt);
        let cache_write = parts.1.min(prompt - cached);
        let usage = usage(prompt, cached, cache_write, output.saturating_sub(less));
        let cost = price.cost_pico(&usage).unwrap();
        prop_assert_eq!(u128::try_from(cost).unwrap(), long_way(&price, &usage));
        prop_assert!(cost <= price.ceiling_pico(input, output).unwrap());
        // A wider bound is never the cheaper one.
        prop_assert!(price.ceiling_pico(input, output) <= price.ceiling_pico(input + less, output));
        if price.is_free() {
            prop_assert_eq!(cost, 0);
        }
    }

    /// What is left after the input pays for as much output as it is said to.
    #[test]
    fn output_costs_no_more_than_its_dearest_rate(
        price in any_price(), input in 0u64..3_000, output in 0u64..1_000,
    ) {
        let a_token = i64::try_from(price.dearest_output_pico(input)).unwrap();
        let none = price.ceiling_pico(input, 0).unwrap();
        let all = price.ceiling_pico(input, output).unwrap();
        prop_assert_eq!(all - none, a_token * i64::try_from(output).unwrap());
    }
}

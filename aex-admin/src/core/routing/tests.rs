use aex_admin_proto::worker::Measured;
use proptest::prelude::*;

use aex_admin_proto::scope::KERNEL;

use super::*;
use crate::core::reserve::Queue;

const READY: Candidate = Candidate {
    tried: false,
    weight: 1,
    ceiling_pico: 0,
    open_until_boot_ms: None,
};

fn open(until_boot_ms: u64) -> Candidate {
    Candidate {
        open_until_boot_ms: Some(until_boot_ms),
        ..READY
    }
}

fn costs(ceiling_pico: i64) -> Candidate {
    Candidate {
        ceiling_pico,
        ..READY
    }
}

fn weighs(weight: u64) -> Candidate {
    Candidate { weight, ..READY }
}

const TRIED: Candidate = Candidate {
    tried: true,
    ..READY
};

#[track_caller]
fn check(routing: Routing, candidates: &[Candidate], expected: &[usize]) {
    assert_eq!(order(routing, candidates, 7), expected, "{candidates:?}");
}

#[test]
fn what_is_written_first_is_tried_first() {
    check(Routing::Ordered, &[], &[]);
    check(Routing::Ordered, &[READY, READY, READY], &[0, 1, 2]);
    check(Routing::Ordered, &[TRIED, READY, READY], &[1, 2]);
    check(Routing::Ordered, &[TRIED, TRIED], &[]);
}

#[test]
fn an_open_breaker_is_passed_over_while_there_is_another() {
    check(Routing::Ordered, &[open(9), READY], &[1, 0]);
    check(Routing::Ordered, &[open(9), TRIED], &[0]);
    check(Routing::Ordered, &[open(9), open(3), open(5)], &[1, 2, 0]);
    check(Routing::Ordered, &[open(9), READY, open(3)], &[1, 2, 0]);
}

#[test]
fn the_cheapest_is_the_one_whose_ceiling_is_lowest() {
    let unpriced = costs(i64::MAX);
    check(
        Routing::Cheapest,
        &[costs(5), costs(3), costs(4)],
        &[1, 2, 0],
    );
    check(
        Routing::Cheapest,
        &[unpriced, costs(3), costs(3)],
        &[1, 2, 0],
    );
    let broken = Candidate {
        ceiling_pico: 1,
        ..open(4)
    };
    check(Routing::Cheapest, &[costs(5), broken], &[0, 1]);
}

#[test]
fn weights_are_shares() {
    const DRAWS: u64 = 40_000;
    let candidates = [weighs(1), weighs(2), weighs(5)];
    let mut first = [0_u64; 3];
    let mut second_after_third = [0_u64; 3];
    for draw in 0..DRAWS {
        let order = order(Routing::Weighted, &candidates, draw);
        first[order[0]] += 1;
        if order[0] == 2 {
            second_after_third[order[1]] += 1;
        }
    }
    for (weight, count) in [1, 2, 5].into_iter().zip(first) {
        assert!(
            count.abs_diff(DRAWS * weight / 8) < DRAWS / 100,
            "{first:?}"
        );
    }
    let (of_first, of_second) = (second_after_third[0], second_after_third[1]);
    assert!(
        of_second.abs_diff(2 * of_first) < DRAWS / 50,
        "{second_after_third:?}"
    );
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let one = (
        any::<bool>(),
        any::<u64>(),
        any::<i64>(),
        any::<Option<u64>>(),
    );
    let one = one.prop_map(
        |(tried, weight, ceiling_pico, open_until_boot_ms)| Candidate {
            tried,
            weight,
            ceiling_pico,
            open_until_boot_ms,
        },
    );
    prop::collection::vec(one, 0..=MAX_TARGETS)
}

proptest! {
    /// Whatever the figures: each target that was not tried, once; those that may be used before all others.
    #[test]
    fn an_order_has_every_untried_target_once(
        candidates in candidates(),
        draw: u64,
        which in 0..3_usize,
    ) {
        let routing = [Routing::Ordered, Routing::Weighted, Routing::Cheapest][which];
        let order = order(routing, &candidates, draw);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        let untried: Vec<usize> = (0..candidates.len()).filter(|&i| !candidates[i].tried).collect();
        prop_assert_eq!(sorted, untried);
        let opens: Vec<_> = order.iter().map(|&i| candidates[i].open_until_boot_ms).collect();
        prop_assert!(opens.is_sorted());
    }
}

fn target<'a>(upstream_model: &'a str, tokenizer: Option<&'a str>) -> ModelFacts<'a> {
    ModelFacts {
        name: "m",
        provider: "p",
        upstream_model,
        price: None,
        price_source: "none",
        max_output_tokens: None,
        rendering: crate::core::bound::Rendering {
            tokenizer,
            ..Default::default()
        },
        embeds_only: false,
        hidden_output: false,
        counts_choices: true,
        extra_params: &[],
        keys: aex_admin_proto::egress::KeyPolicy::Either,
        loopback: false,
        operator_key: true,
        max_requests_per_minute: None,
        max_tokens_per_minute: None,
    }
}

#[test]
fn a_count_by_another_tokenizer_is_none() {
    let counted = Facts {
        measured: Some(Measured { text: 1, tools: 1 }),
        measured_by: Some("o200k_base".into()),
        ..Facts::default()
    };
    for (tokenizer, holds) in [
        (Some("o200k_base"), true),
        (Some("cl100k_base"), false),
        (None, false),
    ] {
        let facts = facts_for(&counted, Some(&target("u", tokenizer)));
        assert_eq!(facts.measured.is_some(), holds, "{tokenizer:?}");
    }
}

/// Targets `0`, `1`, … come to `stops`; what is told is the one at `told`.
#[track_caller]
fn check_told(stops: &[Stop], told: usize) {
    let names: Vec<String> = (0..stops.len()).map(|index| index.to_string()).collect();
    let targets: Vec<_> = names.iter().map(|name| target(name, None)).collect();
    let answer = first_granted(&targets, |target| {
        let index: usize = target.map_or(0, |target| target.upstream_model.parse().unwrap_or(0));
        Err(Instead::Stop(stops[index].clone()))
    });
    match answer {
        Err(Instead::Stop(stop)) => assert_eq!(stop, stops[told]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_told_when_none_is_granted() {
    let no_key = Stop::Refuse(Refusal::ProviderKeyRequired);
    let unpriced = Stop::Refuse(Refusal::ModelNotPriced { model: "m".into() });
    let full = Stop::Refuse(Refusal::ConcurrencyLimit { limit: 1 });
    let poor = Stop::TooLong(Refusal::AgentPaused);
    let held = Stop::Wait(
        Refusal::Cancelled,
        Queue {
            scope: KERNEL,
            own: KERNEL,
        },
    );
    check_told(&[full.clone(), poor.clone()], 0);
    check_told(&[no_key.clone(), full.clone(), poor.clone()], 1);
    check_told(&[no_key.clone(), unpriced.clone()], 0);
    check_told(&[unpriced, full, held.clone(), no_key], 2);
    check_told(&[poor, held], 1);
    let none = |model: Option<&ModelFacts<'_>>| {
        assert!(model.is_none());
        Err(Instead::Stop(Stop::Refuse(Refusal::AgentPaused)))
    };
    assert!(first_granted(&[], none).is_err());
}

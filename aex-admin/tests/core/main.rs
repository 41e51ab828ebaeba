//! Money of a million random calls against arbitrary precision, and what must hold of every step.
//! The seed is printed; `AEX_TEST_SEED` repeats a run.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use aex_admin::core::charge::{self, Verdict};
use aex_admin::core::hold::Terms;
use aex_admin::core::money::Balance;
use aex_admin::core::price::{PICO_PER_MICRO, Price};
use aex_admin::core::scope::Charged;
use aex_admin_proto::egress::{Ending, Exchange};
use aex_admin_proto::ticket::KeyMode;
use aex_admin_proto::worker::{Facts, Observed, OnDisconnect, Route, Usage, UsageSeen};
use num_bigint::BigInt;

fn free_pico(balance: &Balance) -> i128 {
    balance.unspent_pico().unwrap() - i128::from(balance.held_pico)
}

const CALLS: u64 = 1_000_000;

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same everywhere.
struct Random(u64);

impl Random {
    fn seeded() -> Self {
        let given = std::env::var("AEX_TEST_SEED").ok();
        let seed = given.map_or_else(aex_admin_proto::clock::boot_ms, |seed| {
            seed.parse().unwrap()
        });
        #[expect(
            clippy::print_stdout,
            reason = "the seed of a run that fails must be known"
        )]
        {
            println!("AEX_TEST_SEED={seed}");
        }
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Small ones often, large ones sometimes.
    fn sized(&mut self, largest: u64) -> u64 {
        let bits = self.below(u64::from(64 - largest.leading_zeros()) + 1);
        self.below((1 << bits).min(largest) + 1)
    }

    fn price(&mut self) -> Price {
        let mut pico = || {
            let price = self.sized(100_000_000);
            if self.below(8) == 0 { 0 } else { price }
        };
        Price {
            input_pico: pico(),
            cached_input_pico: pico(),
            cache_write_pico: pico(),
            output_pico: pico(),
            ..Price::FREE
        }
    }

    fn terms(&mut self) -> Terms {
        let price = self.price();
        let (input_tokens, output_cap) = (self.sized(200_000), self.sized(20_000));
        let choices = 1 + self.below(3);
        Terms {
            route: Route::ChatCompletions,
            model: "m".into(),
            provider: "p".into(),
            upstream_model: "m".into(),
            key: KeyMode::Operator,
            hold_pico: price
                .ceiling_pico(input_tokens, output_cap * choices)
                .unwrap(),
            price,
            price_source: "models.yaml".into(),
            input_tokens,
            output_cap,
            choices,
            prompts: 1,
            cap_is_ours: false,
            hidden_output: self.below(2) == 0,
            counts_choices: true,
            on_disconnect: OnDisconnect::Drain,
            idempotency: None,
            charged: Charged::default(),
            warned: Vec::new(),
            shadowed: Vec::new(),
            attempt: None,
            tools: Vec::new(),
            asked: Facts::default(),
            names_left_out: 0,
        }
    }

    /// A usage that keeps to the terms.
    fn usage(&mut self, terms: &Terms) -> Usage {
        let prompt = self.below(terms.input_tokens + 1);
        let cached = self.below(prompt + 1);
        let cache_write = self.below(prompt - cached + 1);
        Usage {
            prompt,
            cached,
            cache_write,
            output: self.below(terms.output_tokens() + 1),
            ..Usage::default()
        }
    }
}

/// What a usage costs, the long way.
fn cost(price: &Price, usage: &Usage) -> BigInt {
    let plain = BigInt::from(usage.prompt) - usage.cached - usage.cache_write;
    plain * price.input_pico
        + BigInt::from(usage.cached) * price.cached_input_pico
        + BigInt::from(usage.cache_write) * price.cache_write_pico
        + BigInt::from(usage.output) * price.output_pico
}

fn pico(micro: i64, carry: i64) -> BigInt {
    BigInt::from(micro) * PICO_PER_MICRO + carry
}

fn observed(usage: Usage) -> Observed {
    Observed {
        status: Some(200),
        complete: true,
        usage: UsageSeen::Reported(usage),
        ..Observed::default()
    }
}

#[test]
fn a_million_calls_cost_what_arbitrary_precision_says() {
    let mut random = Random::seeded();
    let mut balance = Balance::default();
    let (mut spent, mut spent_micro) = (BigInt::ZERO, BigInt::ZERO);
    let mut open: Vec<Terms> = Vec::new();
    let mut held = BigInt::ZERO;
    for call in 0..CALLS {
        let terms = random.terms();
        // As tight as it can be: a budget that grows by what is needed, and never by more.
        let needed =
            pico(balance.spent_micro, balance.carry_pico) + balance.held_pico + terms.hold_pico;
        let budget: BigInt = (needed + (PICO_PER_MICRO - 1)) / PICO_PER_MICRO;
        let budget_micro = i64::try_from(&budget).unwrap();
        balance.budget_micro = Some(budget_micro).max(balance.budget_micro);
        assert!(
            free_pico(&balance) >= i128::from(terms.hold_pico),
            "call {call}"
        );
        held += terms.hold_pico;
        balance = balance.with_hold(terms.hold_pico).unwrap();
        open.push(terms);
        if open.len() < 8 && call + 1 < CALLS {
            continue;
        }
        let at = usize::try_from(random.below(open.len() as u64)).unwrap();
        let terms = open.swap_remove(at);
        let usage = random.usage(&terms);
        let Verdict::Commit(charge) = charge::judge(&terms, &observed(usage), None) else {
            panic!("call {call}: a usage is charged");
        };
        let exact = cost(&terms.price, &usage);
        assert_eq!(
            BigInt::from(charge.cost_pico),
            exact,
            "call {call}: {terms:?} {usage:?}"
        );
        assert!(
            charge.cost_pico <= terms.hold_pico,
            "call {call}: {terms:?} {usage:?}"
        );
        let (after, cost_micro) = balance
            .with_commit(terms.hold_pico, charge.cost_pico)
            .unwrap();
        held -= terms.hold_pico;
        spent += exact;
        spent_micro += cost_micro;
        assert!(
            (0..PICO_PER_MICRO).contains(&after.carry_pico),
            "call {call}"
        );
        assert_eq!(
            pico(after.spent_micro, after.carry_pico),
            spent,
            "call {call}"
        );
        assert_eq!(BigInt::from(after.spent_micro), spent_micro, "call {call}");
        assert_eq!(BigInt::from(after.held_pico), held, "call {call}");
        assert!(
            after.unspent_pico() >= Some(i128::from(after.held_pico)),
            "call {call}: {after:?}"
        );
        balance = after;
    }
}

/// Whatever the worker and the egress say, nothing is charged below 0, nothing above both the hold and
/// the provider's own figure, and the same words get the same verdict.
#[test]
fn no_word_makes_a_charge_that_is_not_owed() {
    let mut random = Random::seeded();
    for case in 0..CALLS / 4 {
        let terms = random.terms();
        let usage = random.usage(&terms);
        let status = [None, Some(200), Some(400), Some(429), Some(500), Some(502)];
        let seen = Observed {
            status: status[usize::try_from(random.below(6)).unwrap()],
            complete: random.below(2) == 0,
            usage: match random.below(3) {
                0 => UsageSeen::Missing,
                1 => UsageSeen::Unreadable,
                _ => UsageSeen::Reported(usage),
            },
            own_output_tokens: random.sized(50_000),
            ..Observed::default()
        };
        let receipt = match random.below(4) {
            0 => None,
            1 => Some(Ending::Unknown),
            2 => Some(Ending::Voided),
            _ => Some(Ending::Ended(Exchange {
                sent: random.below(2) == 0,
                status: status[usize::try_from(random.below(6)).unwrap()],
                complete: random.below(2) == 0,
                ..Exchange::default()
            })),
        };
        let verdict = charge::judge(&terms, &seen, receipt.as_ref());
        assert_eq!(
            verdict,
            charge::judge(&terms, &seen, receipt.as_ref()),
            "case {case}"
        );
        if let Verdict::Commit(charge) = &verdict {
            let within = (0..=terms.hold_pico).contains(&charge.cost_pico);
            assert!(
                within,
                "case {case}: {charge:?} {terms:?} {seen:?} {receipt:?}"
            );
        }
        if let Verdict::Release { .. } = verdict {
            assert!(
                receipt.is_some(),
                "case {case}: given back on a worker's word"
            );
        }
    }
}

#[test]
fn a_budget_of_one_micro_dollar_pays_for_one_call_of_nine_tenths_not_two() {
    let start = Balance {
        budget_micro: Some(1),
        ..Balance::default()
    };
    let hold = 900_000;
    assert!(free_pico(&start) >= i128::from(hold));
    let held = start.with_hold(hold).unwrap();
    assert!(free_pico(&held) < i128::from(hold), "nor two at once");
    let (after, cost_micro) = held.with_commit(hold, hold).unwrap();
    assert_eq!(
        (cost_micro, after.spent_micro, after.carry_pico),
        (0, 0, 900_000)
    );
    assert!(
        free_pico(&after) < i128::from(hold),
        "nor one after the other"
    );
}

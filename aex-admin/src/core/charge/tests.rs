use aex_admin_proto::ticket::KeyMode;
use aex_admin_proto::worker::{Facts, Route, UsageChunks};
use proptest::prelude::*;

use super::*;
use crate::core::price::Price;
use crate::core::scope::Charged;

fn terms() -> Terms {
    let price = Price {
        input_pico: 10,
        cached_input_pico: 5,
        cache_write_pico: 12,
        output_pico: 100,
        ..Price::FREE
    };
    Terms {
        route: Route::ChatCompletions,
        model: "m".into(),
        provider: "p".into(),
        upstream_model: "u".into(),
        key: KeyMode::Operator,
        price,
        price_source: "test".into(),
        hold_pico: 50 * 12 + 20 * 100,
        input_tokens: 50,
        output_cap: 20,
        choices: 1,
        prompts: 1,
        cap_is_ours: false,
        hidden_output: false,
        counts_choices: false,
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

const HOLD: i64 = 2_600;

fn seen(status: u16) -> Observed {
    Observed {
        status: Some(status),
        complete: true,
        ..Observed::default()
    }
}

fn usage(prompt: u64, cached: u64, output: u64) -> UsageSeen {
    UsageSeen::Reported(Usage {
        prompt,
        cached,
        output,
        ..Usage::default()
    })
}

fn ended(status: Option<u16>, sent: bool, complete: bool) -> Ending {
    Ending::Ended(Exchange {
        sent,
        status,
        complete,
        ..Exchange::default()
    })
}

/// `released`, `waits`, or the basis and the cost.
fn check(terms: &Terms, seen: &Observed, receipt: Option<&Ending>, expected: &str) {
    let got = match judge(terms, seen, receipt) {
        Verdict::Release { sent } => format!("released sent={sent}"),
        Verdict::AwaitReceipt => "waits".to_owned(),
        Verdict::Commit(charge) => format!("{:?} {}", charge.basis, charge.cost_pico),
    };
    assert_eq!(got, expected, "{seen:?} with {receipt:?}");
}

#[test]
fn a_usage_costs_what_the_provider_counts() {
    let exact = |usage| Observed { usage, ..seen(200) };
    check(&terms(), &exact(usage(30, 0, 7)), None, "Exact 1000");
    check(&terms(), &exact(usage(30, 10, 7)), None, "Exact 950");
    check(&terms(), &exact(usage(0, 0, 0)), None, "Exact 0");
    // Above the hold: the truth is booked all the same.
    check(&terms(), &exact(usage(30, 0, 700)), None, "Exact 70300");
    // Parts above their whole, absurd numbers, unreadable.
    check(&terms(), &exact(usage(3, 10, 7)), None, "Ceiling 2600");
    check(
        &terms(),
        &exact(usage(3, 0, u64::MAX)),
        None,
        "Ceiling 2600",
    );
    check(
        &terms(),
        &exact(UsageSeen::Unreadable),
        None,
        "Ceiling 2600",
    );
}

#[test]
fn a_missing_usage_is_estimated_only_where_nothing_is_hidden() {
    let missing = Observed {
        own_output_tokens: 9,
        ..seen(200)
    };
    check(&terms(), &missing, None, "Estimated 1500");
    let more = Observed {
        own_output_tokens: 9_000,
        ..seen(200)
    };
    check(&terms(), &more, None, "Estimated 2600");
    let hidden = Terms {
        hidden_output: true,
        ..terms()
    };
    check(&hidden, &missing, None, "Ceiling 2600");
}

#[test]
fn what_nobody_knows_costs_the_ceiling() {
    for status in [302, 502, 504, 520] {
        check(&terms(), &seen(status), None, "Ceiling 2600");
    }
    let cut = Observed {
        complete: false,
        usage: usage(1, 0, 1),
        ..seen(200)
    };
    check(&terms(), &cut, None, "Ceiling 2600");
    for failure in [
        Failure::Reset,
        Failure::Timeout,
        Failure::Severed,
        Failure::WorkerGone,
    ] {
        let failed = Observed {
            failure: Some(failure),
            ..Observed::default()
        };
        check(&terms(), &failed, None, "Ceiling 2600");
    }
}

#[test]
fn an_abort_on_hang_up_pays_for_what_was_seen() {
    let gone = Observed {
        complete: false,
        failure: Some(Failure::WorkerGone),
        own_output_tokens: 4,
        ..seen(200)
    };
    check(&terms(), &gone, None, "Ceiling 2600");
    let abort = Terms {
        on_disconnect: OnDisconnect::Abort,
        output_cap: 100,
        hold_pico: 50 * 12 + 100 * 100,
        ..terms()
    };
    // And for what the provider may have generated until it noticed.
    check(&abort, &gone, None, "Estimated 4200");
    let uncounted = Observed {
        own_output_tokens: u64::MAX,
        ..gone.clone()
    };
    check(&abort, &uncounted, None, "Estimated 10600");
    let reported = Observed {
        usage: usage(30, 0, 50),
        ..gone.clone()
    };
    check(&abort, &reported, None, "Estimated 8800");
    let two = Terms {
        choices: 2,
        hold_pico: 50 * 12 + 200 * 100,
        ..abort.clone()
    };
    check(&two, &gone, None, "Estimated 7400");
    let hidden = Terms {
        hidden_output: true,
        ..abort
    };
    check(&hidden, &gone, None, "Ceiling 10600");
}

#[test]
fn money_comes_back_on_the_receipts_word_alone() {
    for status in [400, 401, 404, 429, 500, 503, 529] {
        check(&terms(), &seen(status), None, "waits");
        let honest = ended(Some(status), true, true);
        check(&terms(), &seen(status), Some(&honest), "released sent=true");
        let lie = ended(Some(200), true, true);
        check(&terms(), &seen(status), Some(&lie), "Ceiling 2600");
    }
    let unsent = Observed {
        failure: Some(Failure::Connect),
        ..Observed::default()
    };
    check(&terms(), &unsent, None, "waits");
    check(
        &terms(),
        &unsent,
        Some(&ended(None, false, false)),
        "released sent=false",
    );
    check(
        &terms(),
        &unsent,
        Some(&ended(None, true, false)),
        "Ceiling 2600",
    );
    check(
        &terms(),
        &unsent,
        Some(&Ending::Voided),
        "released sent=false",
    );
    check(&terms(), &unsent, Some(&Ending::Unknown), "Ceiling 2600");
    check(
        &terms(),
        &Observed::default(),
        Some(&Ending::Voided),
        "released sent=false",
    );
}

#[test]
fn what_the_egress_took_along_its_journal_knows() {
    let gone = |status| Observed {
        status,
        failure: Some(Failure::EgressGone),
        ..Observed::default()
    };
    check(&terms(), &gone(None), None, "waits");
    check(
        &terms(),
        &gone(None),
        Some(&Ending::Voided),
        "released sent=false",
    );
    check(
        &terms(),
        &gone(None),
        Some(&Ending::Unknown),
        "Ceiling 2600",
    );
    let sent = ended(None, true, false);
    check(&terms(), &gone(None), Some(&sent), "Ceiling 2600");
    // An answer had begun.
    check(&terms(), &gone(Some(200)), None, "Ceiling 2600");
}

#[test]
fn a_small_bill_that_the_receipt_contradicts_costs_the_ceiling() {
    let small = Observed {
        usage: usage(1, 0, 1),
        ..seen(200)
    };
    check(
        &terms(),
        &small,
        Some(&ended(Some(200), true, true)),
        "Exact 110",
    );
    check(
        &terms(),
        &small,
        Some(&ended(Some(502), true, true)),
        "Ceiling 2600",
    );
    check(
        &terms(),
        &small,
        Some(&ended(Some(200), true, false)),
        "Ceiling 2600",
    );
}

proptest! {
    /// Any usage within the terms costs no more than the hold.
    #[test]
    fn the_hold_bounds_every_usage_within_it(
        plain in 0u64..=16, cached in 0u64..=16, write in 0u64..=16, output in 0u64..=20,
        input_pico in 0u64..1_000, cached_input_pico in 0u64..1_000,
        cache_write_pico in 0u64..1_000, output_pico in 0u64..1_000,
    ) {
        let price = Price {
            input_pico, cached_input_pico, cache_write_pico, output_pico, ..Price::FREE
        };
        let hold = price.ceiling_pico(50, 20).unwrap();
        let prompt = plain + cached + write;
        let usage = Usage { prompt, cached, cache_write: write, output, reasoning: 0 };
        prop_assert!(price.cost_pico(&usage).unwrap() <= hold);
    }
}

#[test]
fn the_test_terms_hold_what_their_price_says() {
    assert_eq!(terms().price.ceiling_pico(50, 20), Some(HOLD));
}

#[test]
fn a_usage_that_may_be_of_one_choice_says_nothing_of_the_others() {
    let seen = Observed {
        usage: usage(30, 0, 7),
        own_output_tokens: 25,
        ..seen(200)
    };
    let two = Terms {
        choices: 2,
        hold_pico: 50 * 12 + 40 * 100,
        ..terms()
    };
    check(&two, &seen, None, "Estimated 2800");
    let hidden = Terms {
        hidden_output: true,
        ..two.clone()
    };
    check(&hidden, &seen, None, "Estimated 4300");
    // The own count is never above what was asked for.
    let uncounted = Observed {
        own_output_tokens: u64::MAX,
        ..seen.clone()
    };
    check(&two, &uncounted, None, "Estimated 4300");
    let counts = Terms {
        counts_choices: true,
        ..two.clone()
    };
    check(&counts, &seen, None, "Exact 1000");
    // More than one choice can be: it is of all.
    let all = Observed {
        usage: usage(30, 0, 21),
        ..seen.clone()
    };
    check(&two, &all, None, "Exact 2400");
}

#[test]
fn a_usage_a_choice_is_added() {
    let chunks = |count, output| Observed {
        usage: usage(30, 0, 1),
        usage_chunks: Some(UsageChunks { count, output }),
        own_output_tokens: 30,
        ..seen(200)
    };
    let three = Terms {
        choices: 3,
        ..terms()
    };
    check(&three, &chunks(3, 41), None, "Exact 4400");
    // Another number of them is no usage a choice.
    check(&three, &chunks(2, 41), None, "Estimated 3300");
    let counts = Terms {
        counts_choices: true,
        ..three
    };
    check(&counts, &chunks(3, 41), None, "Exact 400");
}

#[test]
fn a_stream_that_outran_its_hold_costs_the_hold_and_what_was_shown_above_it() {
    let outran = |own_output_tokens| {
        let seen = Observed {
            complete: false,
            outran: true,
            own_output_tokens,
            ..seen(200)
        };
        match judge(&terms(), &seen, None) {
            Verdict::Commit(charge) => (charge.cost_pico, charge.basis, charge.tokens),
            other => panic!("{other:?}"),
        }
    };
    // 20 tokens at 100 were granted; 32 more may be on their way.
    assert_eq!(outran(40), (HOLD + 5_200, Basis::Ceiling, 50 + 72));
    assert_eq!(outran(u64::MAX).0, HOLD, "nobody knows");
    // Whole, and without a usage: no less. With one, that is the truth.
    let whole = Observed {
        outran: true,
        own_output_tokens: 40,
        ..seen(200)
    };
    let charged = |seen: &Observed| match judge(&terms(), seen, None) {
        Verdict::Commit(charge) => charge.cost_pico,
        other => panic!("{other:?}"),
    };
    assert_eq!(charged(&whole), HOLD + 5_200);
    let told = Observed {
        usage: UsageSeen::Reported(Usage {
            prompt: 5,
            output: 60,
            ..Usage::default()
        }),
        ..whole
    };
    assert_eq!(charged(&told), 5 * 10 + 60 * 100);
}

#[test]
fn a_usage_of_one_prompt_is_not_taken_for_all_of_them() {
    let reported = UsageSeen::Reported(Usage {
        prompt: 4,
        output: 5,
        ..Usage::default()
    });
    let seen = Observed {
        usage: reported,
        own_output_tokens: 12,
        ..seen(200)
    };
    let many = Terms {
        route: Route::Completions,
        choices: 2,
        prompts: 2,
        hold_pico: 50 * 12 + 40 * 100,
        ..terms()
    };
    let charged = |terms: &Terms| match judge(terms, &seen, None) {
        Verdict::Commit(charge) => (charge.cost_pico, charge.basis),
        other => panic!("{other:?}"),
    };
    assert_eq!(charged(&many), (50 * 10 + 12 * 100, Basis::Estimated));
    let counting = Terms {
        counts_choices: true,
        ..many.clone()
    };
    assert_eq!(charged(&counting), (4 * 10 + 5 * 100, Basis::Exact));
    // Nobody counts one input of an embeddings request alone.
    let embeddings = Terms {
        route: Route::Embeddings,
        ..many
    };
    assert_eq!(charged(&embeddings), (4 * 10 + 5 * 100, Basis::Exact));
}

//! The request reader, the usage parser and the framing of streams, on inputs that were once good: a
//! kept corpus of what clients send and providers answer, mutated.
//!
//! The seed is printed; `AEX_TEST_SEED` repeats a run, `AEX_TEST_MUTANTS` makes it longer.

#![allow(
    clippy::unwrap_used,
    reason = "a test stops where something is not as it must be"
)]

#[path = "mutants/answers.rs"]
mod answers;
#[path = "mutants/corpus.rs"]
mod corpus;
#[path = "mutants/mutate.rs"]
mod mutate;
#[path = "mutants/requests.rs"]
mod requests;
#[path = "mutants/strict.rs"]
mod strict;

use aex_admin_proto::clock;
use aex_admin_proto::scope::ScopeId;
use aex_admin_proto::worker::{Grant, OnDisconnect, Route};

use mutate::Chance;

/// Of each test.
const MUTANTS: usize = 12_000;
/// One reading of some kilobytes takes far less, on however slow a machine.
const PATIENCE_MS: u64 = 3_000;

#[expect(clippy::print_stdout, reason = "a failed run can be repeated")]
fn chance() -> Chance {
    let given = std::env::var("AEX_TEST_SEED").ok();
    let seed = given.map_or_else(
        || u64::try_from(clock::wall_ms()).unwrap(),
        |seed| seed.parse().expect("AEX_TEST_SEED is a number"),
    );
    println!("AEX_TEST_SEED={seed}");
    Chance(seed)
}

fn mutants() -> usize {
    let given = std::env::var("AEX_TEST_MUTANTS").ok();
    given.map_or(MUTANTS, |count| count.parse().expect("a number"))
}

/// Runs it, and sees that it does not take long.
fn in_time<T>(input: &[u8], work: impl FnOnce() -> T) -> T {
    let start_ms = clock::boot_ms();
    let result = work();
    let taken_ms = clock::boot_ms() - start_ms;
    assert!(taken_ms < PATIENCE_MS, "{taken_ms} ms: {}", shown(input));
    result
}

fn shown(input: &[u8]) -> String {
    input.escape_ascii().to_string()
}

fn grant(route: Route) -> Grant {
    let cap = match route {
        Route::Responses => "max_output_tokens",
        Route::ChatCompletions => "max_completion_tokens",
        _ => "max_tokens",
    };
    // As the kernel grants them: routes that know no tier and no store are given none.
    let tiered = matches!(route, Route::ChatCompletions | Route::Responses);
    Grant {
        ticket: "ticket".into(),
        tenant: ScopeId::Agent(1),
        provider: "p".into(),
        path: route.path().into(),
        upstream_model: "vendor/model".into(),
        output_cap: 777,
        output_cap_param: cap.into(),
        output_tokens: 777,
        cap_is_ours: true,
        stream_usage: true,
        service_tier: tiered.then(|| "default".into()),
        force_store_off: tiered,
        knows_store: tiered,
        hidden_output: true,
        remaining_micro: Some(0),
        warnings: Vec::new(),
        on_disconnect: OnDisconnect::Drain,
        drain_timeout_ms: 0,
        deadline_boot_ms: 0,
        max_response_bytes: 1 << 30,
        retry_until_boot_ms: 0,
        first_byte_ms: 0,
        tools: Vec::new(),
    }
}

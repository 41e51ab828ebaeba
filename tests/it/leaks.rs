//! Every known way past a cap, a budget or a boundary, by name: each is closed before anything reaches
//! the provider, or what reaches it costs no more than what is held.
//!
//! A case is a line of a table. It is judged by what the provider received and billed.

mod bench;
mod case;
mod doors;
mod headers;
mod knobs;
mod numbers;
mod readings;
mod wire;

use bench::Bench;
use case::Case;

/// All of a table's failures, not only the first.
#[track_caller]
fn play(bench: &Bench, tables: &[&[Case]]) {
    let cases = tables.iter().flat_map(|table| table.iter());
    let failures: Vec<String> = cases.flat_map(|case| bench.failures_of(case)).collect();
    assert!(
        failures.is_empty(),
        "{} leak:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn every_leak_is_closed() {
    let bench = Bench::start();
    play(
        &bench,
        &[
            numbers::CASES,
            readings::CASES,
            knobs::CASES,
            doors::CASES,
            headers::CASES,
            wire::CASES,
        ],
    );
    bench.end();
}

//! Random requests against the greediest provider: what is billed is never more than what is charged,
//! what is charged never more than what was held, and what is held and spent never more than the
//! budget. And the hold of plain English is not much more than its bill.
//!
//! The seed is printed; `AEX_TEST_SEED` repeats a run, `AEX_TEST_ROUNDS` makes it longer.

mod english;
mod faults;
mod requests;
mod rounds;
mod texts;

use aex_admin_proto::clock;

use crate::disk::Chance;
use rounds::Table;

const ROUNDS: usize = 60;

#[expect(clippy::print_stderr, reason = "a failed run can be repeated")]
fn chance() -> Chance {
    let given = std::env::var("AEX_TEST_SEED").ok();
    let seed = given.map_or_else(
        || u64::try_from(clock::wall_ms()).unwrap(),
        |seed| seed.parse().expect("AEX_TEST_SEED is a number"),
    );
    eprintln!("AEX_TEST_SEED={seed}");
    Chance(seed)
}

fn rounds() -> usize {
    let given = std::env::var("AEX_TEST_ROUNDS").ok();
    given.map_or(ROUNDS, |rounds| rounds.parse().expect("a number"))
}

#[test]
fn no_request_costs_more_than_its_hold() {
    let mut chance = chance();
    for on_disconnect in ["drain", "abort"] {
        let table = Table::lay(on_disconnect);
        for round in 0..rounds() {
            table.play(&mut chance, round);
        }
        table.clear();
    }
}

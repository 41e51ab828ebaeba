//! The simulation: a seeded list of operations drives the real core and an in-memory ledger against a
//! naive model that predicts every answer, with everything going wrong that can.
//!
//! `AEX_SIM_SEED=n` plays one seed and tells each step; `AEX_SIM_SEEDS=a..b` plays those. A failure
//! prints seed and step; with `AEX_SIM_SHORTEN=1` also a short list of operations that fails the same
//! way, for [`cases`].

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::print_stdout, reason = "a replay tells its steps")]

mod asks;
mod cases;
mod egress;
mod kernel;
mod model;
mod ops;
mod provider;
mod rng;
mod setup;
mod world;

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ops::Step;
use world::World;

const SEEDS: Range<u64> = 0..340;
/// What the seeds come to together: a simulation that reaches less proves less.
const REACHED: [&str; 36] = [
    "Granted",
    "Measure",
    "InvalidToken",
    "TokenExpired",
    "AgentPaused",
    "IdempotencyConflict",
    "Replay",
    "ModelNotAllowed",
    "ModelNotFound",
    "ModelNotPriced",
    "CapabilityNotAllowed",
    "PassthroughNotEnabled",
    "ProviderKeyRequired",
    "InvalidRequest",
    "InsufficientBudget",
    "ConcurrencyLimit",
    "RequestRate",
    "TokenRate",
    "BudgetHeld",
    "HoldIdReused",
    "Cancelled",
    "Exact",
    "Estimated",
    "Ceiling",
    "Released",
    "Changed",
    "Dropped",
    "waited",
    "died",
    "undone",
    "sent",
    "lied",
    "overran",
    "unknown",
    "corrected",
    "Reclaimed",
];
/// More are not looked for.
const MOST_FAILURES: usize = 8;

/// How often what came about.
type Seen = BTreeMap<String, u64>;

fn play(seed: u64, steps: &[Step], is_told: bool) -> Result<Seen, String> {
    catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seed, is_told);
        world.play(seed, steps).map(|()| world.seen)
    }))
    .unwrap_or_else(|_| Err("a panic, told above".to_owned()))
}

/// Leaves out what the failure does not need. `AEX_SIM_SHORTEN` asks for it.
fn shorten(seed: u64, mut steps: Vec<Step>, what: &str) -> Vec<Step> {
    let is_same = |steps: &[Step]| {
        let other = play(seed, steps, false).err();
        other.is_some_and(|other| kind(&other) == kind(what))
    };
    let mut size = steps.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + size).min(steps.len()));
            if is_same(&fewer) {
                steps = fewer;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    simplify(&mut steps, is_same);
    steps
}

/// Makes the numbers of each operation as small as the failure allows.
fn simplify(steps: &mut [Step], is_same: impl Fn(&[Step]) -> bool) {
    for at in 0..steps.len() {
        for number in 0..steps[at].0.numbers().len() {
            let old = *steps[at].0.numbers()[number];
            for small in (0..40).filter(|&small| small < old) {
                *steps[at].0.numbers()[number] = small;
                if is_same(steps) {
                    break;
                }
                *steps[at].0.numbers()[number] = old;
            }
        }
    }
}

/// A failure without its numbers: the last words of its first line.
fn kind(what: &str) -> String {
    let line = what.lines().next().unwrap_or_default();
    let words = line.rsplit(": ").next().unwrap_or_default();
    words.chars().filter(|c| c.is_alphabetic()).collect()
}

/// What is wrong with a seed, told as well.
fn run(seed: u64, is_told: bool, seen: &mut Seen) -> Option<String> {
    let steps = ops::list(seed);
    let what = match play(seed, &steps, is_told) {
        Ok(of_seed) => {
            for (what, count) in of_seed {
                *seen.entry(what).or_default() += count;
            }
            return None;
        }
        Err(what) => what,
    };
    println!("seed {seed} fails; AEX_SIM_SEED={seed} replays it\n{what}\n");
    if std::env::var_os("AEX_SIM_SHORTEN").is_some() {
        let short = shorten(seed, steps, &what);
        println!("shortened to {} operations: {short:?}", short.len());
        let _ = play(seed, &short, true);
    }
    Some(format!("seed {seed}, {what}"))
}

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("AEX_SIM_SEEDS") else {
        return SEEDS;
    };
    let (first, end) = text.split_once("..").unwrap();
    first.parse().unwrap()..end.parse().unwrap()
}

#[test]
fn the_core_answers_as_the_naive_model_says() {
    let mut seen = Seen::new();
    let one = std::env::var("AEX_SIM_SEED");
    let failed: Vec<String> = match &one {
        Ok(seed) => Vec::from_iter(run(seed.parse().unwrap(), true, &mut seen)),
        Err(_) => (seeds().filter_map(|seed| run(seed, false, &mut seen)))
            .take(MOST_FAILURES)
            .collect(),
    };
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    println!("{seen:#?}");
    for what in REACHED.into_iter().filter(|_| one.is_err()) {
        assert!(seen.contains_key(what), "no run came to {what}");
    }
}

#[test]
fn what_was_found_stays_mended() {
    for case in cases::all() {
        let seen = play(case.seed, &case.steps, false);
        let seen = seen.unwrap_or_else(|what| panic!("{}: {what}", case.found));
        for what in case.reaches {
            assert!(
                seen.contains_key(*what),
                "{}: no {what}: {seen:?}",
                case.found
            );
        }
    }
}

//! What the ledger's benchmark found, as a table for people and as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::disk::Syncs;
use super::pairs::Tally;
use crate::bench::report::{Goal, per, quantile, real};

/// To reach: durable pairs a second, at [`BUSY_IN_FLIGHT`].
const GOAL_PAIRS_PER_S: f64 = 15_000.0;
const BUSY_IN_FLIGHT: usize = 256;
/// To reach at most, one at a time: the hold's p50 in syncs of the disk's own, and what is added.
const GOAL_HOLD_SYNCS: f64 = 1.5;
const GOAL_HOLD_US: f64 = 150.0;

/// The disk alone, beside the load that it is compared with.
#[derive(Debug, Clone, Serialize)]
pub struct DiskCell {
    pub syncs_per_s: f64,
    pub p50_us: u32,
}

impl DiskCell {
    #[must_use]
    pub fn of(mut syncs: Syncs) -> Self {
        syncs.latencies_us.sort_unstable();
        let count = syncs.latencies_us.len() as u64;
        Self {
            syncs_per_s: per(count, syncs.elapsed_us) * 1e6,
            p50_us: quantile(&syncs.latencies_us, 50),
        }
    }
}

/// One number of pairs in flight.
#[derive(Debug, Clone, Serialize)]
pub struct PairCell {
    pub in_flight: usize,
    pub pairs: u64,
    pub errors: u64,
    pub pairs_per_s: f64,
    pub hold_p50_us: u32,
    pub hold_p99_us: u32,
    pub settle_p50_us: u32,
    pub settle_p99_us: u32,
    /// Answers that one sync served.
    pub operations_per_commit: f64,
    /// Of `aex-admin`.
    pub cpu_us_per_pair: f64,
    pub disk: DiskCell,
}

impl PairCell {
    #[must_use]
    pub fn of(in_flight: usize, mut tally: Tally, syncs: Syncs) -> Self {
        tally.holds_us.sort_unstable();
        tally.settles_us.sort_unstable();
        Self {
            in_flight,
            pairs: tally.pairs,
            errors: tally.errors,
            pairs_per_s: per(tally.pairs, tally.elapsed_us) * 1e6,
            hold_p50_us: quantile(&tally.holds_us, 50),
            hold_p99_us: quantile(&tally.holds_us, 99),
            settle_p50_us: quantile(&tally.settles_us, 50),
            settle_p99_us: quantile(&tally.settles_us, 99),
            operations_per_commit: per(tally.operations, tally.commits),
            cpu_us_per_pair: per(tally.cpu_ms, tally.pairs) * 1e3,
            disk: DiskCell::of(syncs),
        }
    }
}

/// After the load.
#[derive(Debug, Clone, Serialize)]
pub struct Aftermath {
    pub rss_kb: u64,
    /// Killed in the minute of its load, which it then reads again: to the first answered status.
    pub restart_us: u64,
}

#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub pairs: Vec<PairCell>,
    pub aftermath: Option<Aftermath>,
    pub goals: Vec<Goal>,
}

impl Report {
    fn cell(&self, in_flight: usize) -> Option<&PairCell> {
        self.pairs.iter().find(|cell| cell.in_flight == in_flight)
    }

    /// Fills in which goals were reached.
    pub fn judge(&mut self) {
        let mut goals = Vec::new();
        if let Some(cell) = self.cell(BUSY_IN_FLIGHT) {
            goals.push(Goal {
                what: format!("durable pairs/s, {BUSY_IN_FLIGHT} in flight"),
                wanted: format!(">= {GOAL_PAIRS_PER_S:.0}"),
                found: format!("{:.0}", cell.pairs_per_s),
                reached: cell.pairs_per_s >= GOAL_PAIRS_PER_S,
            });
        }
        if let Some(cell) = self.cell(1) {
            let most_us = GOAL_HOLD_SYNCS * f64::from(cell.disk.p50_us) + GOAL_HOLD_US;
            goals.push(Goal {
                what: format!(
                    "hold p50, 1 in flight ({GOAL_HOLD_SYNCS} x fdatasync + {GOAL_HOLD_US} us)"
                ),
                wanted: format!("<= {most_us:.0} us"),
                found: format!("{} us", cell.hold_p50_us),
                reached: f64::from(cell.hold_p50_us) <= most_us,
            });
        }
        self.goals = goals;
    }

    /// The tables.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_pairs(&mut out);
        let _ = self.write_goals(&mut out);
        out
    }

    fn write_pairs(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "{:>9} {:>8} {:>19} {:>19} {:>10} {:>12} {:>19} {:>6}",
            "in flight",
            "pairs/s",
            "hold p50/p99 us",
            "settle p50/p99 us",
            "ops/commit",
            "CPU us/pair",
            "disk syncs/s, p50",
            "errors"
        )?;
        for cell in &self.pairs {
            let both = |p50_us, p99_us| format!("{p50_us}/{p99_us}");
            writeln!(
                out,
                "{:>9} {:>8.0} {:>19} {:>19} {:>10.1} {:>12.1} {:>19} {:>6}",
                cell.in_flight,
                cell.pairs_per_s,
                both(cell.hold_p50_us, cell.hold_p99_us),
                both(cell.settle_p50_us, cell.settle_p99_us),
                cell.operations_per_commit,
                cell.cpu_us_per_pair,
                format!("{:.0}, {} us", cell.disk.syncs_per_s, cell.disk.p50_us),
                cell.errors
            )?;
        }
        if let Some(after) = &self.aftermath {
            writeln!(
                out,
                "\nafter it: RSS {:.1} MB; killed, and answering again after {:.0} ms",
                real(after.rss_kb) / 1024.0,
                real(after.restart_us) / 1000.0
            )?;
        }
        Ok(())
    }

    fn write_goals(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\nGoals")?;
        for goal in &self.goals {
            let verdict = if goal.reached { "reached" } else { "MISSED" };
            writeln!(
                out,
                "{verdict:<8} {:<58} wanted {:<12} found {}",
                goal.what, goal.wanted, goal.found
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(in_flight: usize, pairs: u64, hold_us: u32, sync_us: u32) -> PairCell {
        let tally = Tally {
            pairs,
            holds_us: vec![hold_us; 3],
            settles_us: vec![1, 2, 3],
            elapsed_us: 1_000_000,
            cpu_ms: 1,
            ..Tally::default()
        };
        let syncs = Syncs {
            latencies_us: vec![sync_us; 4],
            elapsed_us: 1_000_000,
        };
        PairCell::of(in_flight, tally, syncs)
    }

    #[test]
    fn goals_are_judged_by_rate_and_by_the_disk() {
        for (pairs, hold_us, reached) in [(15_000, 300, true), (14_999, 301, false)] {
            let mut report = Report {
                pairs: vec![cell(1, 10, hold_us, 100), cell(256, pairs, 9999, 100)],
                ..Report::default()
            };
            report.judge();
            let found: Vec<bool> = report.goals.iter().map(|goal| goal.reached).collect();
            assert_eq!(found, [reached; 2], "{:?}", report.goals);
        }
    }

    #[test]
    fn a_cell_has_the_disk_beside_it() {
        let cell = cell(1, 1000, 7, 100);
        assert_eq!((cell.settle_p50_us, cell.settle_p99_us), (2, 3));
        assert!((cell.cpu_us_per_pair - 1.0).abs() < 1e-9);
        assert!((cell.disk.syncs_per_s - 4.0).abs() < 1e-9);
    }
}

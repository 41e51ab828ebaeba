//! What the ledger's benchmark found, as a table for people and as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::disk::Syncs;
use super::pairs::Tally;
use super::size::{Audited, BUSY_PAIRS_PER_S, View};
use crate::bench::report::{Goal, megabytes, per, quantile, real};

/// To reach: durable pairs a second, at [`BUSY_IN_FLIGHT`].
const GOAL_PAIRS_PER_S: f64 = 15_000.0;
const BUSY_IN_FLIGHT: usize = 256;
/// To reach at most, one at a time: the hold's p50 in syncs of the disk's own, and what is added.
const GOAL_HOLD_SYNCS: f64 = 1.5;
const GOAL_HOLD_US: f64 = 150.0;
/// To reach at most, whatever the length of the history.
const GOAL_VIEW_US: u32 = 50_000;
const GOAL_START_US: u32 = 1_000_000;
/// To reach: audited events a second.
const GOAL_AUDIT_PER_S: f64 = 300_000.0;
/// To reach at most: what the audit's memory grows by in its last three quarters.
const GOAL_AUDIT_GROWTH_KB: u64 = 1024;

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

#[derive(Debug, Clone, Serialize)]
pub struct ViewCell {
    pub what: &'static str,
    pub p50_us: u32,
    pub p99_us: u32,
}

impl ViewCell {
    #[must_use]
    pub fn of(mut view: View) -> Self {
        view.times_us.sort_unstable();
        Self {
            what: view.what,
            p50_us: quantile(&view.times_us, 50),
            p99_us: quantile(&view.times_us, 99),
        }
    }
}

/// The best of some audits.
#[derive(Debug, Clone, Serialize)]
pub struct AuditCell {
    pub events_per_s: f64,
    pub peak_rss_kb: u64,
    pub early_rss_kb: u64,
}

impl AuditCell {
    #[must_use]
    pub fn best_of(audits: &[Audited]) -> Option<Self> {
        let best = audits.iter().min_by_key(|audit| audit.time_us)?;
        let events = u64::try_from(best.events).unwrap_or(0);
        Some(Self {
            events_per_s: per(events, best.time_us) * 1e6,
            peak_rss_kb: best.peak_rss_kb,
            early_rss_kb: best.early_rss_kb,
        })
    }
}

/// What a long history costs.
#[derive(Debug, Clone, Serialize)]
pub struct SizeCell {
    pub events: u64,
    pub ledger_bytes: u64,
    pub fill_us: u64,
    /// To the first answered status: the median, and the longest.
    pub start_p50_us: u32,
    pub start_max_us: u32,
    /// A start within a minute of [`BUSY_PAIRS_PER_S`], which it reads again, and its RSS.
    pub busy_start_us: u32,
    pub busy_rss_kb: u64,
    pub rss_kb: u64,
    pub views: Vec<ViewCell>,
    pub audit: Option<AuditCell>,
    /// Holds and settles on top of it.
    pub pairs: Vec<PairCell>,
}

#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub pairs: Vec<PairCell>,
    pub aftermath: Option<Aftermath>,
    pub size: Option<SizeCell>,
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
        if let Some(size) = &self.size {
            size.judge(&mut goals);
        }
        self.goals = goals;
    }

    /// The tables.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_pairs(&mut out);
        if let Some(size) = &self.size {
            let _ = size.write(&mut out);
        }
        let _ = self.write_goals(&mut out);
        out
    }

    fn write_pairs(&self, out: &mut String) -> std::fmt::Result {
        write_cells(&self.pairs, out)?;
        if let Some(after) = &self.aftermath {
            writeln!(
                out,
                "\nafter it: RSS {}; killed, and answering again after {}",
                megabytes(after.rss_kb),
                milliseconds(after.restart_us)
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

impl SizeCell {
    fn judge(&self, goals: &mut Vec<Goal>) {
        goals.push(at_most(
            "start to the first answer, p50",
            self.start_p50_us,
            GOAL_START_US,
        ));
        let what = format!("start within a minute of {BUSY_PAIRS_PER_S} requests/s");
        goals.push(at_most(&what, self.busy_start_us, GOAL_START_US));
        for view in &self.views {
            let what = format!("{}, p99", view.what);
            goals.push(at_most(&what, view.p99_us, GOAL_VIEW_US));
        }
        let Some(audit) = &self.audit else { return };
        goals.push(Goal {
            what: "audited events/s".to_owned(),
            wanted: format!(">= {GOAL_AUDIT_PER_S:.0}"),
            found: format!("{:.0}", audit.events_per_s),
            reached: audit.events_per_s >= GOAL_AUDIT_PER_S,
        });
        let growth_kb = audit.peak_rss_kb.saturating_sub(audit.early_rss_kb);
        goals.push(Goal {
            what: "growth of the audit's RSS after its first quarter".to_owned(),
            wanted: format!("<= {}", megabytes(GOAL_AUDIT_GROWTH_KB)),
            found: megabytes(growth_kb),
            reached: growth_kb <= GOAL_AUDIT_GROWTH_KB,
        });
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "\n{} events in {}, written in {}",
            self.events,
            megabytes(self.ledger_bytes / 1024),
            milliseconds(self.fill_us)
        )?;
        let line = |out: &mut String, what: &str, p50_us: u32, most: &str, most_us: u32| {
            let (p50, most_ms) = (milliseconds(p50_us.into()), milliseconds(most_us.into()));
            writeln!(out, "{what:<24} p50 {p50:>9}   {most} {most_ms:>9}")
        };
        line(out, "start", self.start_p50_us, "max", self.start_max_us)?;
        for view in &self.views {
            line(out, view.what, view.p50_us, "p99", view.p99_us)?;
        }
        writeln!(out, "RSS of aex-admin         {}", megabytes(self.rss_kb))?;
        writeln!(
            out,
            "start after a busy minute    {:>9}   RSS {}",
            milliseconds(self.busy_start_us.into()),
            megabytes(self.busy_rss_kb)
        )?;
        if let Some(audit) = &self.audit {
            writeln!(
                out,
                "audit                    {:.0} events/s, peak RSS {} ({} after a quarter)",
                audit.events_per_s,
                megabytes(audit.peak_rss_kb),
                megabytes(audit.early_rss_kb)
            )?;
        }
        writeln!(out)?;
        write_cells(&self.pairs, out)
    }
}

fn at_most(what: &str, found_us: u32, most_us: u32) -> Goal {
    Goal {
        what: what.to_owned(),
        wanted: format!("<= {}", milliseconds(most_us.into())),
        found: milliseconds(found_us.into()),
        reached: found_us <= most_us,
    }
}

fn milliseconds(time_us: u64) -> String {
    format!("{:.1} ms", real(time_us) / 1000.0)
}

fn write_cells(cells: &[PairCell], out: &mut String) -> std::fmt::Result {
    if cells.is_empty() {
        return Ok(());
    }
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
    for cell in cells {
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
    Ok(())
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
    fn the_best_audit_counts_and_its_memory_must_not_grow() {
        let audited = |time_us, peak_rss_kb| Audited {
            events: 300_000,
            time_us,
            peak_rss_kb,
            early_rss_kb: 8000,
        };
        for (peak_rss_kb, time_us, reached) in [(9024, 1_000_000, true), (9025, 1_000_001, false)] {
            let size = SizeCell {
                events: 300_000,
                ledger_bytes: 1,
                fill_us: 1,
                start_p50_us: GOAL_START_US + u32::from(!reached),
                start_max_us: 1,
                busy_start_us: GOAL_START_US + u32::from(!reached),
                busy_rss_kb: 1,
                rss_kb: 1,
                views: Vec::new(),
                audit: AuditCell::best_of(&[audited(2_000_000, 1), audited(time_us, peak_rss_kb)]),
                pairs: Vec::new(),
            };
            let mut goals = Vec::new();
            size.judge(&mut goals);
            let found: Vec<bool> = goals.iter().map(|goal| goal.reached).collect();
            assert_eq!(found, [reached; 4], "{goals:?}");
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

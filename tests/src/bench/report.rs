//! What the benchmark found, as a table for people and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::load::{Mode, Tally};

/// To reach: of nginx's requests a second, at [`GOAL_CONNECTIONS`].
const GOAL_OF_NGINX: f64 = 0.35;
const GOAL_CONNECTIONS: usize = 64;
/// To reach at most: the first streamed event's time over the direct one's.
const GOAL_FIRST_EVENT: f64 = 1.05;
const GOAL_RSS_KB: u64 = 25 * 1024;
/// To reach: of a flat agent's requests a second, four scopes deep.
const GOAL_OF_FLAT: f64 = 0.80;

/// One target under one load.
#[derive(Debug, Clone, Serialize)]
pub struct Cell {
    pub target: &'static str,
    pub mode: Mode,
    pub connections: usize,
    pub requests: u64,
    pub errors: u64,
    pub requests_per_s: f64,
    pub p50_us: u32,
    pub p99_us: u32,
    /// Of the target's own processes.
    pub cpu_ms_per_request: f64,
    /// The same, by the process's name; those of one name are added.
    pub cpu_ms_by_process: BTreeMap<String, f64>,
}

impl Cell {
    #[must_use]
    pub fn of(
        target: &'static str,
        mode: Mode,
        connections: usize,
        mut tally: Tally,
        cpu_ms: &BTreeMap<String, u64>,
    ) -> Self {
        tally.latencies_us.sort_unstable();
        let requests = tally.requests;
        let by_process = cpu_ms
            .iter()
            .map(|(name, &ms)| (name.clone(), per(ms, requests)));
        Self {
            target,
            mode,
            connections,
            requests,
            errors: tally.errors,
            requests_per_s: per(requests, tally.elapsed_us) * 1e6,
            p50_us: quantile(&tally.latencies_us, 50),
            p99_us: quantile(&tally.latencies_us, 99),
            cpu_ms_per_request: per(cpu_ms.values().sum(), requests),
            cpu_ms_by_process: by_process.collect(),
        }
    }
}

pub(super) fn real(count: u64) -> f64 {
    // Counts of a benchmark are far below 2^52.
    #[expect(clippy::cast_precision_loss, reason = "exact below 2^52")]
    let real = count as f64;
    real
}

pub(super) fn per(count: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { real(count) / real(of) }
}

/// Of a sorted list; 0 for an empty one.
#[must_use]
pub fn quantile(sorted: &[u32], percent: usize) -> u32 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[derive(Debug, Clone, Serialize)]
pub struct Memory {
    pub target: &'static str,
    pub process: String,
    pub pid: u32,
    pub rss_kb: u64,
}

/// Median time to the first streamed event, at the provider's delay.
#[derive(Debug, Clone, Serialize)]
pub struct FirstEvent {
    pub delay_ms: u64,
    pub direct_us: u32,
    pub aex_us: u32,
    pub ratio: f64,
}

impl FirstEvent {
    #[must_use]
    pub fn of(delay_ms: u64, mut direct: Vec<u32>, mut aex: Vec<u32>) -> Self {
        direct.sort_unstable();
        aex.sort_unstable();
        let (direct_us, aex_us) = (quantile(&direct, 50), quantile(&aex, 50));
        Self {
            delay_ms,
            direct_us,
            aex_us,
            ratio: per(aex_us.into(), direct_us.into()),
        }
    }
}

/// One figure that was to be reached.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Goal {
    pub what: String,
    pub wanted: String,
    pub found: String,
    pub reached: bool,
}

#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub cells: Vec<Cell>,
    pub first_event: Option<FirstEvent>,
    pub memory: Vec<Memory>,
    pub goals: Vec<Goal>,
}

impl Report {
    fn rate(&self, target: &str, mode: Mode, connections: usize) -> Option<f64> {
        let cell = self.cells.iter().find(|cell| {
            cell.target == target && cell.mode == mode && cell.connections == connections
        })?;
        (cell.requests_per_s > 0.0).then_some(cell.requests_per_s)
    }

    fn ratio(&self, of: &str, mode: Mode, connections: usize) -> Option<f64> {
        Some(self.rate("aex", mode, connections)? / self.rate(of, mode, connections)?)
    }

    /// What the tree leaves of a flat agent's rate.
    fn of_flat(&self, mode: Mode) -> Option<f64> {
        let tree = self.rate("tree", mode, GOAL_CONNECTIONS)?;
        Some(tree / self.rate("aex", mode, GOAL_CONNECTIONS)?)
    }

    /// Fills in which goals were reached.
    pub fn judge(&mut self) {
        let mut goals = Vec::new();
        for mode in [Mode::Plain, Mode::Streamed] {
            if let Some(ratio) = self.ratio("nginx", mode, GOAL_CONNECTIONS) {
                goals.push(Goal {
                    what: format!(
                        "of nginx's requests/s, {}, {GOAL_CONNECTIONS} connections",
                        mode.name()
                    ),
                    wanted: format!(">= {GOAL_OF_NGINX:.2}"),
                    found: format!("{ratio:.3}"),
                    reached: ratio >= GOAL_OF_NGINX,
                });
            }
        }
        for mode in [Mode::Plain, Mode::Streamed] {
            if let Some(ratio) = self.of_flat(mode) {
                goals.push(Goal {
                    what: format!(
                        "four scopes deep, of a flat agent's requests/s, {}, {GOAL_CONNECTIONS} connections",
                        mode.name()
                    ),
                    wanted: format!(">= {GOAL_OF_FLAT:.2}"),
                    found: format!("{ratio:.3}"),
                    reached: ratio >= GOAL_OF_FLAT,
                });
            }
        }
        if let Some(first) = self.first_event.as_ref().filter(|first| first.ratio > 0.0) {
            goals.push(Goal {
                what: format!("first event over direct, {} ms delay", first.delay_ms),
                wanted: format!("<= {GOAL_FIRST_EVENT:.2}"),
                found: format!("{:.3}", first.ratio),
                reached: first.ratio <= GOAL_FIRST_EVENT,
            });
        }
        let largest = self
            .memory
            .iter()
            .filter(|m| m.target == "aex")
            .max_by_key(|m| m.rss_kb);
        if let Some(largest) = largest {
            goals.push(Goal {
                what: format!("RSS of a process (largest: {})", largest.process),
                wanted: format!("<= {} MB", GOAL_RSS_KB / 1024),
                found: megabytes(largest.rss_kb),
                reached: largest.rss_kb <= GOAL_RSS_KB,
            });
        }
        self.goals = goals;
    }

    /// The tables.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_cells(&mut out);
        let _ = self.write_ratios(&mut out);
        let _ = self.write_cpu(&mut out);
        let _ = self.write_rest(&mut out);
        out
    }

    fn write_cells(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "{:<9} {:>5} {:<7} {:>10} {:>9} {:>9} {:>12} {:>7}",
            "mode", "conns", "target", "req/s", "p50 us", "p99 us", "CPU s/1000", "errors"
        )?;
        for cell in &self.cells {
            writeln!(
                out,
                "{:<9} {:>5} {:<7} {:>10.0} {:>9} {:>9} {:>12.4} {:>7}",
                cell.mode.name(),
                cell.connections,
                cell.target,
                cell.requests_per_s,
                cell.p50_us,
                cell.p99_us,
                cell.cpu_ms_per_request,
                cell.errors
            )?;
        }
        Ok(())
    }

    fn write_ratios(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\nmode      conns  aex/nginx  aex/direct")?;
        let show = |ratio: Option<f64>| ratio.map_or("-".into(), |r| format!("{r:.3}"));
        for cell in self.cells.iter().filter(|cell| cell.target == "aex") {
            let (mode, connections) = (cell.mode, cell.connections);
            writeln!(
                out,
                "{:<9} {:>5}  {:>9}  {:>10}",
                mode.name(),
                connections,
                show(self.ratio("nginx", mode, connections)),
                show(self.ratio("direct", mode, connections)),
            )?;
        }
        Ok(())
    }

    fn write_cpu(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\nCPU s/1000 of AEX by process")?;
        for cell in self.cells.iter().filter(|cell| cell.target == "aex") {
            write!(out, "{:<9} {:>5} ", cell.mode.name(), cell.connections)?;
            for (process, cpu) in &cell.cpu_ms_by_process {
                write!(out, "  {process} {cpu:.4}")?;
            }
            writeln!(out)?;
        }
        Ok(())
    }

    fn write_rest(&self, out: &mut String) -> std::fmt::Result {
        if let Some(first) = &self.first_event {
            writeln!(
                out,
                "\nfirst streamed event at {} ms provider delay: direct {} us, aex {} us, ratio {:.3}",
                first.delay_ms, first.direct_us, first.aex_us, first.ratio
            )?;
        }
        writeln!(out, "\nRSS after the load")?;
        for memory in &self.memory {
            writeln!(
                out,
                "{:<7} {:<12} {:>9}",
                memory.target,
                memory.process,
                megabytes(memory.rss_kb)
            )?;
        }
        writeln!(out, "\nGoals")?;
        for goal in &self.goals {
            let verdict = if goal.reached { "reached" } else { "MISSED" };
            writeln!(
                out,
                "{verdict:<8} {:<52} wanted {:<9} found {}",
                goal.what, goal.wanted, goal.found
            )?;
        }
        Ok(())
    }
}

pub(super) fn megabytes(kb: u64) -> String {
    format!("{:.1} MB", real(kb) / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(target: &'static str, requests: u64) -> Cell {
        let tally = Tally {
            requests,
            latencies_us: vec![30, 10, 20],
            elapsed_us: 1_000_000,
            ..Tally::default()
        };
        Cell::of(
            target,
            Mode::Plain,
            64,
            tally,
            &[("a".to_owned(), 20), ("b".to_owned(), 30)].into(),
        )
    }

    #[test]
    fn goals_are_judged_by_the_ratios() {
        for (aex, reached) in [(3500, true), (3400, false)] {
            let mut report = Report {
                cells: vec![cell("nginx", 10_000), cell("aex", aex)],
                ..Report::default()
            };
            report.judge();
            assert_eq!(report.goals.len(), 1);
            assert_eq!(report.goals[0].reached, reached, "{:?}", report.goals);
        }
    }

    #[test]
    fn quantiles_are_of_the_list() {
        assert_eq!(quantile(&[], 99), 0);
        let list: Vec<u32> = (1..=100).collect();
        assert_eq!((quantile(&list, 50), quantile(&list, 99)), (50, 99));
        let found = cell("aex", 100);
        assert_eq!((found.p50_us, found.p99_us), (20, 30));
        assert!((found.cpu_ms_per_request - 0.5).abs() < 1e-9);
        assert!((found.cpu_ms_by_process["b"] - 0.3).abs() < 1e-9);
    }
}

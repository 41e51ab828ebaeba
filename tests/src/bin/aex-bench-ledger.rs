//! `aex-bench-ledger`: durable holds and settles a second, beside what the disk can do, and what a
//! long history costs.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use aex_tests::bench::ledger::admin::{Admin, Home};
use aex_tests::bench::ledger::disk::{Disk, Syncs};
use aex_tests::bench::ledger::pairs::{Load, Tally};
use aex_tests::bench::ledger::report::{
    Aftermath, AuditCell, PairCell, Report, SizeCell, ViewCell,
};
use aex_tests::bench::ledger::{runtime, size};
use aex_tests::bench::report::quantile;
use clap::Parser;
use serde_json::json;

const WARM_UP_US: u64 = 300_000;
/// The disk gets this part of the time of the load beside it.
const DISK_PART: u64 = 2;

/// Measures aex-admin alone: durable hold + settle pairs/s beside fdatasync, and a long history's cost.
#[derive(Parser)]
#[command(
    version,
    after_help = "Example:\n  make bench-ledger BENCH_ARGS='--measure size --events 1000000'"
)]
struct Args {
    /// Time for each number in flight, over all rounds.
    #[arg(long, default_value_t = 6.0)]
    seconds: f64,
    /// Numbers in flight and disk take turns this many times.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Pairs at once.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 256])]
    in_flight: Vec<usize>,
    /// Connections of workers.
    #[arg(long, default_value_t = 2)]
    workers: u32,
    /// Agents that the pairs are of.
    #[arg(long, default_value_t = 8)]
    agents: u32,
    /// What is measured.
    #[arg(long, value_delimiter = ',', default_values = ["pairs", "size"],
          value_parser = ["pairs", "size"])]
    measure: Vec<String>,
    /// Events of the long history: ten millions take 4 GB of disk.
    #[arg(long, default_value_t = 10_000_000)]
    events: u64,
    /// Where the temporary home is made: its disk is the one that is measured.
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// Print one JSON document and nothing else.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match measure(&args) {
        Ok(report) => {
            print(&args, &report);
            // A goal that is missed is no failure: machines differ.
            ExitCode::SUCCESS
        }
        Err(problem) => {
            say(&format!("aex-bench-ledger: {problem}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the program's own messages")]
fn say(text: &str) {
    eprintln!("{text}");
}

#[expect(clippy::print_stdout, reason = "the report is what the program is for")]
fn print(args: &Args, report: &Report) {
    if args.json {
        println!("{}", json!(report));
    } else {
        println!("{}", report.text());
    }
}

fn measure(args: &Args) -> io::Result<Report> {
    let wanted = |name: &str| args.measure.iter().any(|part| part == name);
    let mut report = Report::default();
    let runtime = runtime()?;
    if wanted("pairs") {
        runtime.block_on(pairs(args, &mut report))?;
    }
    if wanted("size") {
        report.size = Some(runtime.block_on(long_history(args))?);
    }
    report.judge();
    Ok(report)
}

async fn pairs(args: &Args, report: &mut Report) -> io::Result<()> {
    let home = Home::below(&args.dir)?;
    let admin = Admin::start(&home).await?;
    let mut load = Load::begin(&admin, &home.places, args.workers, args.agents).await?;
    report.pairs = in_turns(args, &home, &admin, &mut load).await?;
    let rss_kb = admin.rss_kb();
    drop(load);
    admin.kill();
    let again = Admin::start(&home).await?;
    report.aftermath = Some(Aftermath {
        rss_kb,
        restart_us: again.start_us,
    });
    drop(again);
    // What was measured is worth nothing when the ledger does not hold.
    size::audit(&home).map(drop)
}

/// Disk and loads in turns, so that none has the quiet minute for itself.
async fn in_turns(
    args: &Args,
    home: &Home,
    admin: &Admin,
    load: &mut Load,
) -> io::Result<Vec<PairCell>> {
    let rounds = args.rounds.max(1);
    let round = std::time::Duration::from_secs_f64(args.seconds.clamp(0.03, 600.0)) / rounds;
    let round_us = u64::try_from(round.as_micros()).unwrap_or(u64::MAX);
    let mut disk = Disk::beside(&home.places.ledger)?;
    let mut sums: Vec<(Tally, Syncs)> = args.in_flight.iter().map(|_| Default::default()).collect();
    for number in 0..rounds {
        for (&in_flight, (tally, syncs)) in args.in_flight.iter().zip(&mut sums) {
            if number == 0 {
                say(&format!("{in_flight} in flight …"));
                load.run(admin, in_flight, WARM_UP_US.min(round_us)).await?;
            }
            disk.run(round_us / DISK_PART, syncs)?;
            tally.add(load.run(admin, in_flight, round_us).await?);
        }
    }
    let cells = args
        .in_flight
        .iter()
        .zip(sums)
        .map(|(&in_flight, (tally, syncs))| PairCell::of(in_flight, tally, syncs));
    Ok(cells.collect())
}

/// A start, the views and the audit with a long history, then holds and settles on top of it.
async fn long_history(args: &Args) -> io::Result<SizeCell> {
    let home = Home::below(&args.dir)?;
    say(&format!("writing {} events …", args.events));
    let fill_us = size::fill(&home, args.events)?;
    let ledger_bytes = size::ledger_bytes(&home)?;
    say("starts, views, audits …");
    let (mut starts_us, admin) = size::starts(&home).await?;
    starts_us.sort_unstable();
    let views = size::views(&home, &admin).await?;
    let rss_kb = admin.rss_kb();
    let audits = (0..args.rounds.max(1)).map(|_| size::audit(&home));
    let audits: Vec<_> = audits.collect::<io::Result<_>>()?;
    let mut load = Load::begin(&admin, &home.places, args.workers, args.agents).await?;
    let pairs = in_turns(args, &home, &admin, &mut load).await?;
    drop((load, admin, home));
    let (busy_start_us, busy_rss_kb) = busy_minute(args).await?;
    Ok(SizeCell {
        events: args.events,
        ledger_bytes,
        fill_us,
        start_p50_us: quantile(&starts_us, 50),
        start_max_us: quantile(&starts_us, 100),
        busy_start_us,
        busy_rss_kb,
        rss_kb,
        views: views.into_iter().map(ViewCell::of).collect(),
        audit: AuditCell::best_of(&audits),
        pairs,
    })
}

/// The time of a start that has a whole minute to read again, and the memory after it.
async fn busy_minute(args: &Args) -> io::Result<(u32, u64)> {
    let home = Home::below(&args.dir)?;
    say("a start within a busy minute …");
    size::fill_busy_minute(&home)?;
    let admin = Admin::start(&home).await?;
    let start_us = u32::try_from(admin.start_us).unwrap_or(u32::MAX);
    Ok((start_us, admin.rss_kb()))
}

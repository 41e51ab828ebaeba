//! `aex-bench`: what AEX costs, measured side by side with nothing and with nginx in between.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use aex_tests::bench::load::{self, Mode, Tally};
use aex_tests::bench::report::{Cell, FirstEvent, Memory, Report};
use aex_tests::bench::target::{Aex, Nginx, SimProcess};
use aex_tests::harness::process;
use clap::Parser;
use serde_json::json;

/// Provider delay at which the first streamed event is timed.
const DELAY_MS: u64 = 100;
const FIRST_EVENTS_A_ROUND: usize = 10;
const WARM_UP_US: u64 = 200_000;

/// Measures requests/s, latency, CPU and memory: direct to the simulator, through nginx, through AEX.
#[derive(Parser)]
#[command(
    version,
    after_help = "Example:\n  cargo build --release --workspace && target/release/aex-bench --seconds 3"
)]
struct Args {
    /// Time for each target under each load, over all rounds.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// The targets take turns this many times.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Connections at once.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
    connections: Vec<usize>,
    /// What is measured.
    #[arg(long, value_delimiter = ',', default_values = ["direct", "nginx", "aex", "tree"],
          value_parser = ["direct", "nginx", "aex", "tree"])]
    targets: Vec<String>,
    /// AEX workers.
    #[arg(long, default_value_t = 2)]
    workers: u32,
    /// Print one JSON document and nothing else.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let report = match measure(&args) {
        Ok(report) => report,
        Err(problem) => {
            say(&format!("aex-bench: {problem}"));
            return ExitCode::FAILURE;
        }
    };
    print(&args, &report);
    let failed = report.cells.iter().any(|cell| cell.errors > 0);
    if failed {
        say("aex-bench: some answers were not 200; the figures above are not to be trusted");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
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

/// A server under load.
struct Target {
    name: &'static str,
    addr: SocketAddr,
    pids: Vec<u32>,
    token: String,
}

impl Target {
    /// CPU time so far, by the process's name.
    fn cpu_ms(&self) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for &pid in &self.pids {
            if let (Some(name), Some(ms)) = (process::name(pid), process::cpu_ms(pid)) {
                *sums.entry(name).or_default() += ms;
            }
        }
        sums
    }

    fn memory(&self) -> Vec<Memory> {
        let one = |&pid: &u32| {
            Some(Memory {
                target: self.name,
                process: process::name(pid)?,
                pid,
                rss_kb: process::status_kb(pid, "VmRSS:")?,
            })
        };
        self.pids.iter().filter_map(one).collect()
    }
}

fn measure(args: &Args) -> io::Result<Report> {
    let wanted = |name: &str| args.targets.iter().any(|target| target == name);
    let sim = SimProcess::start(2)?;
    let nginx = if wanted("nginx") {
        Nginx::start(sim.addr)?
    } else {
        None
    };
    if wanted("nginx") && nginx.is_none() {
        say("nginx is not installed: its lines are left out");
    }
    let aex = (wanted("aex") || wanted("tree")).then(|| Aex::start(sim.addr, args.workers));

    let mut targets = Vec::new();
    targets.extend(wanted("direct").then(|| Target {
        name: "direct",
        addr: sim.addr,
        pids: vec![sim.pid()],
        token: "none".into(),
    }));
    targets.extend(nginx.as_ref().map(|nginx| Target {
        name: "nginx",
        addr: nginx.addr,
        pids: nginx.pids(),
        token: "none".into(),
    }));
    if let Some(aex) = &aex {
        let tokens = [("aex", &aex.token), ("tree", &aex.tree_token)];
        let named = tokens.into_iter().filter(|(name, _)| wanted(name));
        targets.extend(named.map(|(name, token)| Target {
            name,
            addr: aex.kernel.addr,
            pids: aex.pids(),
            token: token.clone(),
        }));
    }

    let mut report = Report {
        cells: loads(args, &targets)?,
        ..Report::default()
    };
    report.memory = targets.iter().flat_map(Target::memory).collect();
    report.first_event = Some(first_events(args, &sim, &targets)?);
    report.judge();
    if let Some(aex) = &aex {
        aex.kernel.settled();
        aex.kernel.audit();
    }
    Ok(report)
}

fn loads(args: &Args, targets: &[Target]) -> io::Result<Vec<Cell>> {
    let mut cells = Vec::new();
    for mode in [Mode::Plain, Mode::Streamed] {
        for &connections in &args.connections {
            say(&format!("{}, {connections} connections …", mode.name()));
            cells.extend(side_by_side(args, targets, mode, connections)?);
        }
    }
    Ok(cells)
}

/// The targets in turns, so that none has the quiet minute for itself.
fn side_by_side(
    args: &Args,
    targets: &[Target],
    mode: Mode,
    connections: usize,
) -> io::Result<Vec<Cell>> {
    let rounds = args.rounds.max(1);
    let round = std::time::Duration::from_secs_f64(args.seconds.clamp(0.03, 600.0)) / rounds;
    let round_us = u64::try_from(round.as_micros()).unwrap_or(u64::MAX);
    let mut sums: Vec<(Tally, BTreeMap<String, u64>)> =
        targets.iter().map(|_| Default::default()).collect();
    for number in 0..rounds {
        for (target, (tally, cpu_ms)) in targets.iter().zip(&mut sums) {
            let request = load::chat_request(mode, &target.token);
            if number == 0 {
                load::run(target.addr, &request, connections, WARM_UP_US.min(round_us))?;
            }
            let before_ms = target.cpu_ms();
            tally.add(load::run(target.addr, &request, connections, round_us)?);
            for (name, after_ms) in target.cpu_ms() {
                let taken_ms = after_ms - before_ms.get(&name).copied().unwrap_or(0);
                *cpu_ms.entry(name).or_default() += taken_ms;
            }
        }
    }
    let cells = targets
        .iter()
        .zip(sums)
        .map(|(target, (tally, cpu_ms))| Cell::of(target.name, mode, connections, tally, &cpu_ms));
    Ok(cells.collect())
}

fn first_events(args: &Args, sim: &SimProcess, targets: &[Target]) -> io::Result<FirstEvent> {
    sim.behave(&json!({"delay_ms": DELAY_MS}))?;
    let (mut direct, mut aex) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds.max(1) {
        for target in targets {
            let times = match target.name {
                "direct" => &mut direct,
                "aex" => &mut aex,
                _ => continue,
            };
            let request = load::chat_request(Mode::Streamed, &target.token);
            times.extend(load::first_events(
                target.addr,
                &request,
                FIRST_EVENTS_A_ROUND,
            )?);
        }
    }
    sim.behave(&json!({}))?;
    Ok(FirstEvent::of(DELAY_MS, direct, aex))
}

//! What a long history costs: a start, the views that people look at, the audit.
//!
//! The history is written by `fill-ledger`, an example of `aex-admin`: nobody else writes SQL.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::Duration;

use aex_admin_proto::operator::{AuditReport, method};
use serde_json::{Value, json};

use super::admin::{Admin, Home};
use super::micros;
use crate::bench::load::now_us;
use crate::harness::{process, program};

/// Requests a second in the minute before a start.
pub const BUSY_PAIRS_PER_S: u64 = 5000;
/// The rest of the minute is for writing it.
const BUSY_S: u64 = 55;
const STARTS: usize = 5;
const CALLS: usize = 200;
/// Commands are processes, and take longer.
const COMMANDS: usize = 20;
/// Between two looks at the audit's memory.
const LOOK: Duration = Duration::from_millis(5);

/// A view, asked for again and again.
#[derive(Debug)]
pub struct View {
    pub what: &'static str,
    pub times_us: Vec<u32>,
}

#[derive(Debug)]
pub struct Audited {
    pub events: i64,
    pub time_us: u64,
    /// The most that its process ever had.
    pub peak_rss_kb: u64,
    /// The same after a quarter of its looks: what it grew by since then, history made it grow.
    pub early_rss_kb: u64,
}

/// Writes a ledger of `events` into the home. How long that took.
///
/// # Errors
/// It cannot be written: most likely there is no room.
pub fn fill(home: &Home, events: u64) -> io::Result<u64> {
    write(home, events, &[])
}

/// Writes a ledger whose last minute was as busy as [`BUSY_PAIRS_PER_S`] makes it.
///
/// # Errors
/// It cannot be written.
pub fn fill_busy_minute(home: &Home) -> io::Result<()> {
    let events = 2 * BUSY_PAIRS_PER_S * BUSY_S;
    let span_s = BUSY_S.to_string();
    write(home, events, &["--age-s", "0", "--span-s", &span_s]).map(drop)
}

fn write(home: &Home, events: u64, options: &[&str]) -> io::Result<u64> {
    let before_us = now_us();
    let status = Command::new(program("examples/fill-ledger"))
        .arg("--db")
        .arg(&home.places.ledger)
        .args(["--events", &events.to_string()])
        .args(options)
        .status()?;
    if !status.success() {
        return Err(io::Error::other("the ledger could not be written"));
    }
    Ok(now_us() - before_us)
}

/// # Errors
/// There is no ledger.
pub fn ledger_bytes(home: &Home) -> io::Result<u64> {
    Ok(fs::metadata(&home.places.ledger)?.len())
}

/// Times from the spawn of `aex-admin` to its first answer, and one that runs.
///
/// # Errors
/// It does not start.
pub async fn starts(home: &Home) -> io::Result<(Vec<u32>, Admin)> {
    let mut admin = Admin::start(home).await?;
    let mut times_us = vec![micros(admin.start_us)];
    while times_us.len() < STARTS {
        drop(admin);
        admin = Admin::start(home).await?;
        times_us.push(micros(admin.start_us));
    }
    Ok((times_us, admin))
}

/// Status and metrics: by the socket, and by the `aex` command.
///
/// # Errors
/// One is not answered.
pub async fn views(home: &Home, admin: &Admin) -> io::Result<Vec<View>> {
    Ok(vec![
        calls("kernel.status, by RPC", method::STATUS, admin).await?,
        calls("kernel.metrics, by RPC", method::METRICS, admin).await?,
        commands("aex status", "status", &home.places.home)?,
        commands("aex metrics", "metrics", &home.places.home)?,
    ])
}

async fn calls(what: &'static str, method: &str, admin: &Admin) -> io::Result<View> {
    let mut times_us = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let before_us = now_us();
        let _: Value = admin.ask(method, &json!({})).await?;
        times_us.push(micros(now_us() - before_us));
    }
    Ok(View { what, times_us })
}

fn commands(what: &'static str, command: &str, home: &Path) -> io::Result<View> {
    let mut times_us = Vec::with_capacity(COMMANDS);
    for _ in 0..COMMANDS {
        let before_us = now_us();
        let output = Command::new(program("aex"))
            .args([command, "--json"])
            .env("AEX_HOME", home)
            .env_remove("AEX_SOCKET")
            .output()?;
        times_us.push(micros(now_us() - before_us));
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(io::Error::other(format!("{what}: {said}")));
        }
    }
    Ok(View { what, times_us })
}

/// `aex-admin audit` on the home's ledger, which must hold.
///
/// # Errors
/// It does not hold, or cannot be read.
pub fn audit(home: &Home) -> io::Result<Audited> {
    let said = home.places.home.join("audit.json");
    let before_us = now_us();
    let mut child = Command::new(program("aex-admin"))
        .args(["audit", "--json", "--db"])
        .arg(&home.places.ledger)
        .stdout(File::create(&said)?)
        .spawn()?;
    let peaks_kb = peaks(&mut child)?;
    let time_us = now_us() - before_us;
    let said = fs::read_to_string(&said)?;
    let report: AuditReport = serde_json::from_str(&said)?;
    if !report.ok {
        return Err(io::Error::other(format!("the audit fails: {said}")));
    }
    Ok(Audited {
        events: report.events,
        time_us,
        peak_rss_kb: peaks_kb.last().copied().unwrap_or(0),
        early_rss_kb: peaks_kb.get(peaks_kb.len() / 4).copied().unwrap_or(0),
    })
}

/// The largest memory so far, look by look, until the process ends.
fn peaks(child: &mut Child) -> io::Result<Vec<u64>> {
    let mut peaks_kb = Vec::new();
    while child.try_wait()?.is_none() {
        peaks_kb.extend(process::status_kb(child.id(), "VmHWM:"));
        sleep(LOOK);
    }
    Ok(peaks_kb)
}

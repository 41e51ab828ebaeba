//! `aex-sim`: the provider simulator as a program.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use aex_tests::sim::{Sim, SimConfig};
use aex_tests::tls;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// An OpenAI-compatible provider that generates nothing of worth, and keeps an exact bill.
#[derive(Parser)]
#[command(
    version,
    after_help = "Example:\n  aex-sim --listen 127.0.0.1:8080\n  curl http://127.0.0.1:8080/_sim/bill"
)]
struct Args {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Write the line that is printed when ready to this file too.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Threads that serve.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Serve TLS with this certificate chain (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            report(&problem);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the program's own messages")]
fn report(problem: &str) {
    eprintln!("aex-sim: {problem}");
}

#[expect(
    clippy::print_stdout,
    reason = "the one line that says where it listens"
)]
fn announce(line: &serde_json::Value) {
    println!("{line}");
}

fn run(args: &Args) -> Result<(), String> {
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(cert), Some(key)) => {
            Some(tls::server_config_from_files(cert, key).map_err(|problem| problem.to_string())?)
        }
        _ => None,
    };
    let sim = Sim::start(SimConfig {
        listen: args.listen,
        threads: args.threads,
        tls,
    })
    .map_err(|problem| format!("cannot listen on {}: {problem}", args.listen))?;
    let line = serde_json::json!({"listen": sim.addr.to_string(), "pid": std::process::id()});
    if let Some(path) = &args.state {
        std::fs::write(path, format!("{line}\n"))
            .map_err(|problem| format!("cannot write {}: {problem}", path.display()))?;
    }
    wait_for_the_end(|| announce(&line)).map_err(|problem| problem.to_string())
}

/// Calls `ready` when a signal would already be heeded.
fn wait_for_the_end(ready: impl FnOnce()) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        ready();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}

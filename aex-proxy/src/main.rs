//! The `aex-proxy` program: hardens itself, takes the listener over, serves until told to stop.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use aex_admin_proto::places::Places;
use aex_proxy::listener;
use aex_proxy::server::{self, Options};
use clap::Parser;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The worker of AEX that agents talk to: reads their requests, asks aex-admin, forwards to aex-egress.
///
/// Normally started by the supervisor (`aex daemon start`) or by systemd, which hand it the listening
/// socket. It opens no network connection of its own.
#[derive(Debug, Parser)]
#[command(
    name = "aex-proxy",
    version,
    after_help = "Example (what the supervisor runs, the listener being descriptor 3):\n  \
        AEX_HOME=~/.aex aex-proxy --worker 1 --listen-fd 3\n\n\
        Logs go to stderr; AEX_LOG sets how much (error, warn, info, debug)."
)]
struct Args {
    /// Number of this worker, from 1
    #[arg(long, value_name = "N", default_value_t = 1)]
    worker: u32,
    /// Descriptor of the listening TCP socket [default: systemd's LISTEN_FDS, descriptor 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(3..))]
    listen_fd: Option<u16>,
    /// Workers' socket of aex-admin [default: run/worker.sock below $AEX_HOME or ~/.aex]
    #[arg(long, value_name = "PATH")]
    admin_socket: Option<PathBuf>,
    /// HTTP socket of aex-egress [default: run/egress.sock below $AEX_HOME or ~/.aex]
    #[arg(long, value_name = "PATH")]
    egress_socket: Option<PathBuf>,
    /// Directory for answers to requests with an Idempotency-Key, encrypted; all workers share it
    /// [default: run/spool below $AEX_HOME or ~/.aex; without a home none are kept]
    #[arg(long, value_name = "PATH")]
    spool: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("cannot harden the process: {0}")]
    Harden(#[from] nix::Error),
    #[error(transparent)]
    Listener(#[from] listener::ListenerError),
    #[error(
        "no home: set AEX_HOME or HOME, or name the sockets with --admin-socket and --egress-socket"
    )]
    NoHome,
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

const MAX_BLOCKING_THREADS: usize = 32;

fn main() -> ExitCode {
    let hardened = harden();
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        // A full disk must not end the program: the log's own errors are dropped, not printed.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(
            EnvFilter::try_from_env("AEX_LOG").unwrap_or_else(|_| EnvFilter::new("info")),
        )
        .init();
    match hardened.and_then(|()| run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Requests are in this process's memory: nobody else's to read, in life or in a core file.
fn harden() -> Result<(), StartError> {
    prctl::set_dumpable(false)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    Ok(())
}

fn run(args: Args) -> Result<(), StartError> {
    let listener = listener::inherited(args.listen_fd)?;
    let options = options(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // For large bodies, counts and kept answers: work for a core, or waits for a disk.
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        // Whoever is about to send something runs first: then it is there without a wake-up.
        .on_thread_park(std::thread::yield_now)
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tracing::info!(worker = options.worker, "serving");
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping");
        };
        server::run(listener, options, stop).await
    })?;
    Ok(())
}

fn options(args: Args) -> Result<Options, StartError> {
    let places = Places::from_environment();
    let or_at_home = |named: Option<PathBuf>, place: fn(&Places) -> PathBuf| {
        named.or_else(|| places.as_ref().map(place))
    };
    let admin_socket = or_at_home(args.admin_socket, Places::worker_socket);
    let egress_socket = or_at_home(args.egress_socket, Places::egress_socket);
    Ok(Options {
        spool: or_at_home(args.spool, Places::spool),
        ..Options::new(
            args.worker,
            admin_socket.ok_or(StartError::NoHome)?,
            egress_socket.ok_or(StartError::NoHome)?,
        )
    })
}

//! The `aex-proxy` program: hardens itself, takes the listener over, serves until told to stop. Or, as
//! `aex-proxy facts`, reads one request from standard input and tells what a worker sees in it.

use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::ExitCode;

use aex_admin_proto::explain::{BodyRead, MAX_BODY_BYTES};
use aex_admin_proto::places::Places;
use aex_admin_proto::service;
use aex_admin_proto::worker::{Route, TOKENIZERS};
use aex_proxy::facts::{self, Beside};
use aex_proxy::front::{FrontArgs, FrontError};
use aex_proxy::listener;
use aex_proxy::server::{self, Options, ServeError};
use aex_proxy::tls::TlsFiles;
use aex_proxy::tokenizer::Tokenizer;
use aex_sandbox::{Network, Sandbox, SandboxError};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use zeroizing_alloc::ZeroAlloc;

/// What is freed is wiped: prompts and keys pass through many buffers.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<mimalloc::MiMalloc> = ZeroAlloc(mimalloc::MiMalloc);

/// The worker of AEX that agents talk to: reads their requests, asks aex-admin, forwards to aex-egress.
///
/// Normally started by the supervisor (`aex daemon start`) or by systemd, which hand it the listening
/// socket. It opens no network connection of its own.
#[derive(Debug, Parser)]
#[command(
    name = "aex-proxy",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Example (what the supervisor runs, the listener being descriptor 3):\n  \
        AEX_HOME=~/.aex aex-proxy --worker 1 --listen-fd 3\n\n\
        Logs go to stderr; AEX_LOG sets how much (error, warn, info, debug)."
)]
struct Args {
    /// As a service of the whole host: sockets in /run/aex, the listener from systemd
    #[arg(long)]
    system: bool,
    /// Number of this worker, from 1
    #[arg(long, value_name = "N", default_value_t = 1)]
    worker: u32,
    /// Descriptor of the listening socket, TCP or Unix [default: systemd's LISTEN_FDS, from descriptor 3 on]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(3..))]
    listen_fd: Option<u16>,
    /// How many listening sockets there are, from --listen-fd on
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    listen_fds: u16,
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
    #[command(flatten)]
    front: FrontArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read one request body from standard input and print what a worker sees in it, for
    /// `aex policy explain`
    ///
    /// Prints one JSON document and sends nothing anywhere: {"model", "facts"}, or, with exit 1,
    /// {"invalid"} where an agent would be answered with status 400. Facts are sizes, names and numbers,
    /// never the text of the prompt.
    #[command(
        after_help = "Exit 2: the body could not be read, or is longer than any that a worker takes.\n\n\
                      Example:\n  aex-proxy facts --route /v1/chat/completions < request.json"
    )]
    Facts(FactsArgs),
}

#[derive(Debug, clap::Args)]
struct FactsArgs {
    /// Where the request would be sent to
    #[arg(long, value_name = "PATH", value_parser = facts::route_at)]
    route: Route,
    /// It brings its own provider key
    #[arg(long)]
    own_key: bool,
    /// Its header x-aex-session
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Count the prompt with this tokenizer as well: o200k_base or cl100k_base
    #[arg(long, value_name = "NAME", value_parser = tokenizer)]
    tokenizer: Option<Tokenizer>,
}

fn tokenizer(name: &str) -> Result<Tokenizer, String> {
    Tokenizer::named(name).ok_or_else(|| format!("there are {}", TOKENIZERS.join(" and ")))
}

#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Listener(#[from] listener::ListenerError),
    #[error(transparent)]
    Front(#[from] FrontError),
    #[error(
        "no home: set AEX_HOME or HOME, or name the sockets with --admin-socket and --egress-socket"
    )]
    NoHome,
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// `EX_CONFIG` of sysexits.h, as the others' for what a start anew would not mend.
const NOT_MENDED_BY_A_START: u8 = 78;
const MAX_BLOCKING_THREADS: usize = 32;

fn main() -> ExitCode {
    let hardened = aex_sandbox::harden();
    let mut args = Args::parse();
    if let Some(Command::Facts(asked)) = args.command.take() {
        // It reads what an agent wrote, and nothing else.
        let shut_in = hardened.and_then(|()| Sandbox::new(Network::None).enter());
        let told = shut_in.map_err(|error| error.to_string());
        return told.and_then(|_| tell_facts(asked)).unwrap_or_else(|why| {
            complain(&why);
            ExitCode::from(2)
        });
    }
    if args.front.check_tls {
        // Somebody asks and reads the answer: it is no line of a log.
        let opened = (hardened.map_err(StartError::from))
            .and_then(|()| args.front.open(&[]).map_err(StartError::from));
        return opened.map_or_else(
            |error| {
                complain(&error.to_string());
                ExitCode::FAILURE
            },
            |_| ExitCode::SUCCESS,
        );
    }
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        // A full disk must not end the program: the log's own errors are dropped, not printed.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(
            EnvFilter::try_from_env("AEX_LOG").unwrap_or_else(|_| EnvFilter::new("info")),
        )
        .init();
    match hardened.map_err(StartError::from).and_then(|()| run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            match error {
                StartError::Serve(ServeError::NoListener) => ExitCode::from(NOT_MENDED_BY_A_START),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn complain(why: &str) {
    // With stderr closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "aex-proxy: {why}");
}

fn tell_facts(asked: FactsArgs) -> Result<ExitCode, String> {
    let beside = Beside {
        route: asked.route,
        own_key: asked.own_key,
        session: asked.session,
        tokenizer: asked.tokenizer,
    };
    let mut body = Vec::new();
    // One byte more, by which one that is too long is known.
    let mut input = std::io::stdin().take(MAX_BODY_BYTES + 1);
    (input.read_to_end(&mut body)).map_err(|error| format!("standard input: {error}"))?;
    let read = facts::of(&beside, &body).map_err(|error| error.to_string())?;
    let mut document = serde_json::to_vec(&read).map_err(|error| error.to_string())?;
    document.push(b'\n');
    (std::io::stdout().write_all(&document))
        .map_err(|error| format!("standard output: {error}"))?;
    Ok(match read {
        BodyRead::Request { .. } => ExitCode::SUCCESS,
        BodyRead::NotARequest { .. } => ExitCode::FAILURE,
    })
}

fn run(args: Args) -> Result<(), StartError> {
    let listeners = listener::inherited(args.listen_fd, args.listen_fds)?;
    let tls = args.front.open(&listeners)?;
    let system = args.system;
    let certificates = args.front.files()?;
    let options = Options {
        tls,
        ..options(args)?
    };
    let mut sandbox = sandbox(&options);
    if let Some(descriptors) = listener::descriptors(&listeners) {
        sandbox = sandbox.accepts_on(descriptors);
    }
    let home = Places::choose(system).map(|places| places.home);
    for file in certificates.iter().flat_map(TlsFiles::all) {
        let beside_home = (file.parent()).is_some_and(|directory| {
            (home.as_ref()).is_some_and(|home| home.starts_with(directory))
        });
        // What lies beside them is for this process too; the ledger must not.
        sandbox = if beside_home {
            sandbox.reads(file)
        } else {
            sandbox.reads_around(file)
        };
    }
    if system {
        sandbox.for_system().enter()?;
    } else {
        sandbox.enter()?;
    }
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
        // A reload must not end the program; what it asks for is the server's to do.
        let _hangup = signal(SignalKind::hangup())?;
        tracing::info!(worker = options.worker, "serving");
        service::ready();
        tokio::spawn(service::beat(async || true));
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping");
            service::stopping();
        };
        server::run(listeners, options, stop).await
    })?;
    Ok(())
}

/// Its spool is all that it reads and writes, its listener all of the network.
fn sandbox(options: &Options) -> Sandbox {
    let sockets = Sandbox::new(Network::Unix);
    let Some(spool) = &options.spool else {
        return sockets;
    };
    // A rule is for a directory that is there. Whether it can be used, the spool itself sees.
    let _ = (std::fs::DirBuilder::new().recursive(true).mode(0o700)).create(spool);
    sockets.writes(spool)
}

fn options(args: Args) -> Result<Options, StartError> {
    let places = Places::choose(args.system);
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(std::iter::once("aex-proxy").chain(line.split_whitespace()))
    }

    #[test]
    fn serving_needs_no_subcommand() {
        Args::command().debug_assert();
        for line in ["", "--worker 1", "--worker 2 --listen-fd 3 --spool /tmp/s"] {
            let args = parse(line).unwrap();
            assert!(args.command.is_none(), "{line}");
        }
        assert_eq!(parse("--worker 2 --listen-fd 3").unwrap().worker, 2);
    }

    #[test]
    fn facts_are_asked_for_alone() {
        let line = "facts --route /v1/responses --own-key --session s --tokenizer cl100k_base";
        let Some(Command::Facts(asked)) = parse(line).unwrap().command else {
            panic!("{line}");
        };
        assert_eq!(asked.route, Route::Responses);
        assert!(asked.own_key);
        assert_eq!(asked.session.as_deref(), Some("s"));
        assert_eq!(asked.tokenizer, Tokenizer::named("cl100k_base"));
        for line in [
            "facts",
            "facts --route /v1/models",
            "facts --route /v1/responses --tokenizer p50k_base",
            "--worker 1 facts --route /v1/responses",
            "facts --route /v1/responses --worker 1",
            "other",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}

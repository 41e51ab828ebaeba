//! `aex-egress`: arguments, hardening, and the order in which things start and stop.

use std::future::Future;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use aex_admin_proto::client::Client;
use aex_admin_proto::places::Places;
use aex_admin_proto::service;
use aex_egress::forward::Egress;
use aex_egress::keys::{KeyRing, read_handed};
use aex_egress::register::Register;
use aex_egress::{EgressError, doors, journal, orders, receipts, serve, vault};
use aex_sandbox::{Network, Sandbox};
use clap::Parser;
use nix::sys::stat::{Mode, umask};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tracing_subscriber::EnvFilter;
use zeroizing_alloc::ZeroAlloc;

/// What is freed is wiped: prompts and keys pass through many buffers.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<mimalloc::MiMalloc> = ZeroAlloc(mimalloc::MiMalloc);

/// `EX_CONFIG` of sysexits.h.
const BAD_CONFIGURATION: u8 = 78;
/// How long a stop waits for `aex-admin` to take the last receipts. They are in the journal anyway.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Keeps the operator's provider keys, and carries requests with a valid ticket to providers.
///
/// Normally started by the supervisor (`aex daemon start`) or systemd, not by hand. Keys are looked
/// for in --keys-fd, the environment (`<PROVIDER>_API_KEY`), `$CREDENTIALS_DIRECTORY`, and
/// KEYS-DIR/<provider> (mode 0600), in this order.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Example:\n  AEX_HOME=~/.aex GROQ_API_KEY=… aex-egress\n  aex-egress --keys-fd 3 3< <(printf 'GROQ_API_KEY=%s\\n' \"$KEY\")\n\nLogs go to stderr; AEX_LOG filters them (default: info)."
)]
struct Args {
    /// Socket on which workers are served [default: $AEX_HOME/run/egress.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// aex-admin's socket for the egress [default: $AEX_HOME/run/egress-admin.sock]
    #[arg(long, value_name = "PATH")]
    admin_socket: Option<PathBuf>,
    /// Directory of key files, one a provider [default: $AEX_HOME/keys]
    #[arg(long, value_name = "PATH")]
    keys_dir: Option<PathBuf>,
    /// Journal of redeemed tickets [default: $AEX_HOME/run/egress.journal]
    #[arg(long, value_name = "PATH")]
    journal: Option<PathBuf>,
    /// Open descriptor with lines NAME=VALUE, read to its end and closed
    #[arg(long, value_name = "N")]
    keys_fd: Option<i32>,
    /// Print the ids of requests that the journal tells as sent, one a line, and end
    #[arg(long)]
    list_sent: bool,
    /// As a service of the whole host: the sockets from systemd, the keys as its credentials
    #[arg(long, conflicts_with_all = ["socket", "keys_dir", "keys_fd"])]
    system: bool,
    /// With --system: the user whose processes may connect
    #[arg(
        long,
        value_name = "USER",
        default_value = "aex-proxy",
        requires = "system"
    )]
    worker_user: String,
    /// Threads that carry requests
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: u8,
}

fn main() -> ExitCode {
    let hardened = aex_sandbox::harden();
    // Every file is private.
    umask(Mode::from_bits_truncate(0o077));
    let args = Args::parse();
    let filter = EnvFilter::try_from_env("AEX_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A full disk must not end the program: the log's own errors are dropped, not printed.
        .log_internal_errors(false)
        .with_ansi(false)
        .init();
    if let Err(error) = hardened {
        tracing::error!("{error}");
        return ExitCode::FAILURE;
    }
    let done = if args.list_sent {
        list_sent(&args)
    } else {
        start(&args)
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            match error {
                // Started again it would only say the same: the unit's RestartPreventExitStatus.
                EgressError::KeyForbidden { .. } => ExitCode::from(BAD_CONFIGURATION),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn list_sent(args: &Args) -> Result<(), EgressError> {
    let places = Places::choose(args.system).map(|places| places.egress_journal());
    let path = (args.journal.clone().or(places)).ok_or(EgressError::NoHome)?;
    Sandbox::new(Network::None).reads_around(&path).enter()?;
    for id in journal::sent(&path)? {
        // Whoever reads it may stop.
        if writeln!(std::io::stdout(), "{id}").is_err() {
            break;
        }
    }
    Ok(())
}

struct Paths {
    admin_socket: PathBuf,
    /// As a service of the host there is none.
    keys_dir: Option<PathBuf>,
    journal: PathBuf,
    /// Where `ca_file`s may lie, beside the system's own directories.
    config: Option<PathBuf>,
}

impl Paths {
    fn of(args: &Args) -> Result<Self, EgressError> {
        let places = Places::choose(args.system);
        let path = |given: &Option<PathBuf>, usual: fn(&Places) -> PathBuf| {
            given
                .clone()
                .or_else(|| places.as_ref().map(usual))
                .ok_or(EgressError::NoHome)
        };
        Ok(Self {
            admin_socket: path(&args.admin_socket, Places::egress_role_socket)?,
            keys_dir: (!args.system)
                .then(|| path(&args.keys_dir, |places| places.keys.clone()))
                .transpose()?,
            journal: path(&args.journal, Places::egress_journal)?,
            config: places.map(|places| places.config_file),
        })
    }

    /// Rules are for directories that are there, so those that it makes are made before.
    fn sandbox(&self, args: &Args, credentials: Option<&PathBuf>) -> Result<Sandbox, EgressError> {
        doors::private_parent(&self.journal)?;
        let mut sandbox = Sandbox::new(Network::Client)
            .writes_around(&self.journal)
            .reads("/proc/sys/kernel/random/boot_id")
            .reads_resolver_and_roots();
        if args.system {
            sandbox = sandbox.for_system();
        } else {
            let socket = socket(args)?;
            doors::private_parent(&socket)?;
            sandbox = sandbox.writes_around(&socket);
        }
        for path in self.keys_dir.iter().chain(credentials) {
            sandbox = sandbox.reads(path);
        }
        Ok((self.config.iter()).fold(sandbox, |sandbox, file| sandbox.reads_around(file)))
    }
}

fn start(args: &Args) -> Result<(), EgressError> {
    let paths = Paths::of(args)?;
    let handed = match args.keys_fd {
        Some(fd) => read_handed(fd)?,
        None => Default::default(),
    };
    // A name or value that is not text is no key.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    (paths.sandbox(args, credentials.as_ref())?)
        .with_memory(vault::lock_memory())
        .enter()?;
    let keys = KeyRing::new(
        handed,
        environment,
        credentials,
        paths.keys_dir.clone(),
        nix::unistd::getuid().as_raw(),
    );
    let mut builder = match args.threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder
        .worker_threads(usize::from(args.threads))
        .enable_all()
        // Whoever is about to send something runs first: then it is there without a wake-up.
        .on_thread_park(std::thread::yield_now)
        .build()
        .map_err(EgressError::Runtime)?;
    let served = runtime.block_on(run(args, &paths, keys));
    // A name look-up that hangs must not hold up the stop.
    runtime.shutdown_background();
    served
}

async fn run(args: &Args, paths: &Paths, keys: KeyRing) -> Result<(), EgressError> {
    let stop = stop_signal().map_err(EgressError::Runtime)?;
    // First the journal: its lock keeps a second process from taking the socket of this one.
    let register = Arc::new(Register::open(&paths.journal)?);
    let doors = doors(args)?;
    let writing = Arc::clone(&register);
    tokio::spawn(async move { writing.write_endings().await });
    let egress = Arc::new(Egress::new(Arc::clone(&register)));
    let client = Client::new(&paths.admin_socket);
    tracing::info!("serving");
    service::ready();
    tokio::select! {
        () = serve::serve(doors, Arc::clone(&egress), stop) => {}
        refused = orders::run(&client, Arc::clone(&egress), keys, args.system) => refused?,
        () = receipts::run(&client, &register) => {}
        () = service::beat(async || true) => {}
    }
    if timeout(FLUSH_LIMIT, receipts::flush(&client, &register))
        .await
        .is_err()
    {
        tracing::warn!("aex-admin has not taken every receipt; they are kept in the journal");
    }
    tracing::info!("stopped");
    Ok(())
}

/// Where workers call: at systemd's sockets, or at one that is made.
fn doors(args: &Args) -> Result<Vec<doors::Door>, EgressError> {
    if args.system {
        return doors::inherited(&args.worker_user);
    }
    let path = socket(args)?;
    doors::private_parent(&path)?;
    Ok(vec![doors::bind(&path)?])
}

/// Of user mode.
fn socket(args: &Args) -> Result<PathBuf, EgressError> {
    let usual = || Places::from_environment().map(|places| places.egress_socket());
    (args.socket.clone())
        .or_else(usual)
        .ok_or(EgressError::NoHome)
}

fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        service::stopping();
    })
}

//! `aex-admin serve`: opens the ledger, starts the writer, opens the sockets, and waits to be told
//! to stop.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use aex_admin_proto::operator::Passthrough;
use aex_admin_proto::places::Places;
use aex_admin_proto::scope::KERNEL_NODE;
use aex_admin_proto::ticket::TicketKey;
use aex_admin_proto::{clock, service};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Config, LoadError};
use crate::core::scope::Scope;
use crate::doors::{self, Callers, DoorError};
use crate::ledger::{Ledger, LedgerError};
use crate::policy;
use crate::rpc::{self, Door, InForce, Kernel, Role};
use crate::writer::{Command, Shared, Writer, system_clock};

const TICKET_KEY_ID: u32 = 1;
/// A writer that does not come round for so long hangs, and the watchdog hears no heartbeat.
const WRITER_SILENT_MS: u64 = 10_000;

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("{0}")]
    Config(#[from] LoadError),
    #[error("{0}")]
    Ledger(#[from] LedgerError),
    #[error("{0}")]
    Doors(#[from] DoorError),
    #[error("{what}: {source}")]
    System {
        what: String,
        source: std::io::Error,
    },
}

impl ServeError {
    /// Started again it would only say the same: a file of the settings must be mended first.
    #[must_use]
    pub fn is_of_the_settings(&self) -> bool {
        match self {
            Self::Config(LoadError::Read { source, .. }) => matches!(
                source.kind(),
                ErrorKind::NotFound | ErrorKind::PermissionDenied
            ),
            Self::Config(_) => true,
            Self::Ledger(_) | Self::Doors(_) | Self::System { .. } => false,
        }
    }
}

fn at(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> ServeError {
    let what = what.into();
    |source| ServeError::System { what, source }
}

/// A configuration under the kernel's own scope: where that lets no request use a key of the operator's, no
/// provider has one.
pub(crate) fn under(kernel: Option<&Scope>, config: Config) -> Config {
    let passthrough = kernel.and_then(|kernel| kernel.grant.settings.passthrough);
    if passthrough == Some(Passthrough::Require) {
        config.strict_byok()
    } else {
        config
    }
}

/// Serves until SIGTERM or SIGINT. With `system` as a service of the whole host, else in user mode.
///
/// # Errors
/// What kept it from starting.
pub fn serve(places: &Places, system: Option<&Callers>) -> Result<(), ServeError> {
    let (config, policies, warnings) = policy::load_all(&places.config_file)?;
    for warning in warnings {
        tracing::warn!("{}: {warning}", places.config_file.display());
    }
    let ledger = Ledger::open(&places.ledger)?;
    let config = under(ledger.node(KERNEL_NODE)?.as_ref(), config);
    let key = TicketKey::new(TICKET_KEY_ID, ledger.ticket_key()?);
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_err(at("cannot read the boot id"))?;
    let config = Arc::new(config);
    let policies = Arc::new(policies);
    let shared = Arc::new(Shared::default());
    let writer = Writer::new(
        ledger,
        boot_id.trim(),
        key.clone(),
        Arc::clone(&config),
        Arc::clone(&shared),
        system_clock(),
    )?
    .with_policies(Arc::clone(&policies));
    let (queue, commands) = channel();
    let thread = std::thread::Builder::new()
        .name("writer".to_owned())
        .spawn(move || writer.run(&commands))
        .map_err(at("cannot start the writer"))?;
    let kernel = Kernel::new(
        shared,
        queue.clone(),
        places.config_file.clone(),
        places.ledger.clone(),
        key,
        InForce {
            generation: 1,
            config,
            policies,
        },
    );
    let kernel = Arc::new(if system.is_some() {
        kernel.of_the_host()
    } else {
        kernel
    });
    let served = open_and_wait(places, system, &kernel);
    stop_writer(&queue, thread);
    served
}

fn open_and_wait(
    places: &Places,
    system: Option<&Callers>,
    kernel: &Arc<Kernel>,
) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Whoever is about to send something runs first: then it is there without a wake-up.
        .on_thread_park(std::thread::yield_now)
        .build()
        .map_err(at("cannot start the runtime"))?;
    runtime.block_on(async {
        let doors = match system {
            Some(callers) => doors::inherited(callers)?,
            None => doors::make(places)?,
        };
        for (listener, door) in doors.open {
            if door.role == Role::Auditor {
                serve_apart(listener, door, Arc::clone(kernel))
                    .map_err(at("cannot serve auditors"))?;
                continue;
            }
            tokio::spawn(rpc::accept(listener, door, Arc::clone(kernel)));
        }
        let mut term = signal(SignalKind::terminate()).map_err(at("signals"))?;
        let mut int = signal(SignalKind::interrupt()).map_err(at("signals"))?;
        tracing::info!(ledger = %places.ledger.display(), "serving");
        service::ready();
        let writer_lives =
            async || kernel.shared.writer_silent_ms(clock::boot_ms()) < WRITER_SILENT_MS;
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            () = service::beat(writer_lives) => {}
        }
        tracing::info!("stopping");
        service::stopping();
        for path in &doors.made {
            // Another instance may have replaced it; then it is not ours to mind.
            let _ = std::fs::remove_file(path);
        }
        Ok(())
    })
}

/// On a thread of its own: however much is asked there, no other call waits behind it.
fn serve_apart(listener: UnixListener, door: Door, kernel: Arc<Kernel>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let listener = {
        let listener = listener.into_std()?;
        let _of_this_runtime = runtime.enter();
        UnixListener::from_std(listener)?
    };
    std::thread::Builder::new()
        .name("auditors".to_owned())
        .spawn(move || runtime.block_on(rpc::accept(listener, door, kernel)))
        .map(drop)
}

fn stop_writer(queue: &Sender<Command>, thread: std::thread::JoinHandle<()>) {
    let _ = queue.send(Command::Stop);
    if thread.join().is_err() {
        tracing::error!("the writer panicked");
    }
}

//! `aex-admin serve`: opens the ledger, starts the writer, opens the sockets, and waits to be told
//! to stop.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use aex_admin_proto::places::Places;
use aex_admin_proto::ticket::TicketKey;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::LoadError;
use crate::ledger::{Ledger, LedgerError};
use crate::policy;
use crate::rpc::{self, InForce, Kernel, Role};
use crate::writer::{Command, Shared, Writer, system_clock};

const TICKET_KEY_ID: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("{0}")]
    Config(#[from] LoadError),
    #[error("{0}")]
    Ledger(#[from] LedgerError),
    #[error("{what}: {source}")]
    System {
        what: String,
        source: std::io::Error,
    },
}

fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> ServeError {
    let what = what.into();
    |source| ServeError::System { what, source }
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// What kept it from starting.
pub fn serve(places: &Places) -> Result<(), ServeError> {
    let (config, policies, warnings) = policy::load_all(&places.config_file)?;
    for warning in warnings {
        tracing::warn!("{}: {warning}", places.config_file.display());
    }
    let ledger = Ledger::open(&places.ledger)?;
    let key = TicketKey::new(TICKET_KEY_ID, ledger.ticket_key()?);
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_err(system("cannot read the boot id"))?;
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
        .map_err(system("cannot start the writer"))?;
    let kernel = Arc::new(Kernel::new(
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
    ));
    let served = open_and_wait(places, &kernel);
    stop_writer(&queue, thread);
    served
}

fn open_and_wait(places: &Places, kernel: &Arc<Kernel>) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Whoever is about to send something runs first: then it is there without a wake-up.
        .on_thread_park(std::thread::yield_now)
        .build()
        .map_err(system("cannot start the runtime"))?;
    runtime.block_on(async {
        std::fs::create_dir_all(&places.run)
            .map_err(system(format!("cannot make {}", places.run.display())))?;
        let sockets = [
            (places.operator_socket(), Role::Operator),
            (places.auditor_socket(), Role::Auditor),
            (places.worker_socket(), Role::Worker),
            (places.egress_role_socket(), Role::Egress),
        ];
        for (path, role) in &sockets {
            let listener =
                rpc::bind(path).map_err(system(format!("cannot listen on {}", path.display())))?;
            tokio::spawn(rpc::accept(listener, *role, Arc::clone(kernel)));
        }
        let mut term = signal(SignalKind::terminate()).map_err(system("signals"))?;
        let mut int = signal(SignalKind::interrupt()).map_err(system("signals"))?;
        tracing::info!(ledger = %places.ledger.display(), "serving");
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tracing::info!("stopping");
        for (path, _) in &sockets {
            // Another instance may have replaced it; then it is not ours to mind.
            let _ = std::fs::remove_file(path);
        }
        Ok(())
    })
}

fn stop_writer(queue: &Sender<Command>, thread: std::thread::JoinHandle<()>) {
    let _ = queue.send(Command::Stop);
    if thread.join().is_err() {
        tracing::error!("the writer panicked");
    }
}

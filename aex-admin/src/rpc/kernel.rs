//! What all connections share: the way to the writer, the configuration in force, and who is there.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aex_admin_proto::clock;
use aex_admin_proto::egress::OrdersParams;
use aex_admin_proto::operator::{ScopeView, Status, WorkerView};
use aex_admin_proto::ticket::TicketKey;
use aex_admin_proto::worker::{MAX_LISTENERS, SettingsParams};
use tokio::sync::watch;

use super::Role;
use super::backups::Unnamed;
use super::desk::Desk;
use crate::config::Config;
use crate::policy::Policies;
use crate::writer::{Command, SessionId, Shared};

/// A configuration and its number. The number rises with each that is offered to the egress.
#[derive(Debug, Clone)]
pub struct InForce {
    pub generation: u64,
    pub config: Arc<Config>,
    pub policies: Arc<Policies>,
}

/// Workers of one door that are shown.
const MAX_SHOWN: usize = 32;

/// The egress, as its calls tell it.
#[derive(Debug, Clone, Default)]
pub(super) struct EgressState {
    pub session: Option<SessionId>,
    pub said: OrdersParams,
    /// The generation offered last on this connection.
    pub offered: Option<u64>,
}

pub struct Kernel {
    pub shared: Arc<Shared>,
    pub(super) operators: Desk,
    auditors: Desk,
    pub(super) config_file: PathBuf,
    pub(super) ledger: PathBuf,
    pub(super) ticket_key: TicketKey,
    /// What the egress is offered; the writer follows once the egress has taken it up.
    pub(super) offered: watch::Sender<InForce>,
    pub(super) in_force: watch::Sender<InForce>,
    pub(super) egress: watch::Sender<EgressState>,
    pub(super) reloading: tokio::sync::Mutex<()>,
    pub(super) at_rehearsal: AtomicBool,
    pub(super) backup: Mutex<Option<Unnamed>>,
    workers: Mutex<BTreeMap<SessionId, WorkerView>>,
    queue: Sender<Command>,
    sessions: AtomicU64,
    started_boot_ms: u64,
    /// The other programs are other users.
    is_of_the_host: bool,
}

impl Kernel {
    #[must_use]
    pub fn new(
        shared: Arc<Shared>,
        queue: Sender<Command>,
        config_file: PathBuf,
        ledger: PathBuf,
        ticket_key: TicketKey,
        first: InForce,
    ) -> Self {
        Self {
            shared,
            operators: Desk::at(&ledger),
            auditors: Desk::at(&ledger),
            config_file,
            ledger,
            ticket_key,
            offered: watch::Sender::new(first.clone()),
            in_force: watch::Sender::new(first),
            egress: watch::Sender::default(),
            reloading: tokio::sync::Mutex::default(),
            at_rehearsal: AtomicBool::new(false),
            backup: Mutex::default(),
            workers: Mutex::default(),
            queue,
            sessions: AtomicU64::new(1),
            started_boot_ms: clock::boot_ms(),
            is_of_the_host: false,
        }
    }

    /// Of a whole host: each program is another user, so that the kernel of the machine keeps them apart.
    #[must_use]
    pub fn of_the_host(self) -> Self {
        Self {
            is_of_the_host: true,
            ..self
        }
    }

    /// Where a call of this role is worked on.
    pub(super) fn desk(&self, role: Role) -> &Desk {
        match role {
            Role::Auditor => &self.auditors,
            _ => &self.operators,
        }
    }

    pub(super) fn next_session(&self) -> SessionId {
        self.sessions.fetch_add(1, Ordering::Relaxed)
    }

    /// To the writer. Should it be gone, the command is dropped, its reply with it, and the process
    /// is on its way out.
    pub(super) fn send(&self, command: Command) {
        if self.queue.send(command).is_err() {
            tracing::error!("the writer has stopped");
        }
    }

    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.in_force.borrow().config)
    }

    fn workers(&self) -> MutexGuard<'_, BTreeMap<SessionId, WorkerView>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn worker_is(
        &self,
        session: SessionId,
        group: Option<String>,
        mut said: SettingsParams,
    ) {
        said.listeners.truncate(MAX_LISTENERS);
        let mut workers = self.workers();
        let of_its_door = workers.iter().filter(|(_, worker)| worker.group == group);
        // More serve as well; only they are not shown, so that what is shown has a bound.
        if of_its_door.count() >= MAX_SHOWN && !workers.contains_key(&session) {
            return;
        }
        workers.insert(
            session,
            WorkerView {
                worker: said.worker,
                pid: said.pid,
                in_flight: 0,
                sandbox: said.sandbox,
                group,
                listeners: said.listeners,
            },
        );
    }

    pub(super) fn session_gone(&self, role: Role, session: SessionId) {
        match role {
            Role::Worker => {
                self.workers().remove(&session);
                self.send(Command::SessionGone { session });
            }
            Role::Egress => {
                self.egress.send_if_modified(|egress| {
                    let ours = egress.session == Some(session);
                    if ours {
                        *egress = EgressState::default();
                    }
                    ours
                });
            }
            Role::Operator | Role::Auditor => {}
        }
    }

    /// Nothing, or what is missing before a request can be answered.
    pub(super) fn not_ready(&self) -> Option<String> {
        if let Some(trouble) = self.shared.trouble() {
            return Some(trouble);
        }
        let egress = self.egress.borrow();
        if egress.session.is_none() {
            return Some("aex-egress is not connected".to_owned());
        }
        if let Some(problem) = &egress.said.problem {
            return Some(format!(
                "aex-egress cannot take up the configuration: {problem}"
            ));
        }
        let wanted = self.offered.borrow().generation;
        if egress.said.acting_on != Some(wanted) {
            return Some("aex-egress has not taken up the configuration yet".to_owned());
        }
        None
    }

    pub(super) fn set_operator_keys(&self, providers: &[String]) {
        let providers: HashSet<String> = providers.iter().cloned().collect();
        self.send(Command::OperatorKeys { providers });
    }

    /// The state as `aex status` shows it; `agents` are counted by the caller.
    pub(super) fn status(&self, agents: u64, scopes: Vec<ScopeView>) -> Status {
        let why = self.not_ready();
        let egress = self.egress.borrow().clone();
        let mut workers: Vec<(SessionId, WorkerView)> = self
            .workers()
            .iter()
            .map(|(session, worker)| (*session, worker.clone()))
            .collect();
        for (session, worker) in &mut workers {
            worker.in_flight = self.shared.in_flight(*session);
        }
        let mut workers: Vec<WorkerView> = workers.into_iter().map(|(_, worker)| worker).collect();
        workers.sort_by_key(|worker| worker.worker);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            boundary: if self.is_of_the_host {
                "enforced"
            } else {
                "advisory"
            }
            .to_owned(),
            ready: why.is_none(),
            why,
            pid: std::process::id(),
            uptime_ms: clock::boot_ms().saturating_sub(self.started_boot_ms),
            egress_pid: egress.session.map(|_| egress.said.pid),
            egress_sandbox: egress.session.map(|_| egress.said.sandbox),
            operator_keys: egress.said.operator_keys,
            workers,
            agents,
            open_holds: self.shared.open_holds(),
            waiting: self.shared.waiting(),
            events: *self.shared.events().borrow(),
            ledger: self.ledger.display().to_string(),
            sandbox: aex_sandbox::in_force(),
            config_generation: self.in_force.borrow().generation,
            scopes,
        }
    }

    pub(super) fn uptime_ms(&self) -> u64 {
        clock::boot_ms().saturating_sub(self.started_boot_ms)
    }
}

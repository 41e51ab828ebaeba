//! The one thread that writes the ledger.
//!
//! It drains its queue, runs all that waits in one transaction (settles and receipts before
//! reserves), each operation in a savepoint of its own, syncs once, and only then answers. A commit
//! that fails because the disk is full undoes the batch, memory included: memory is rebuilt from the
//! ledger. A commit that fails otherwise ends the process, which recovers at its next start.
//!
//! Absent on purpose: sockets, and rules (they are in [`crate::core`]).

mod answers;
mod checkpoints;
mod configure;
mod corrections;
mod explain;
mod grants;
mod idempotency;
mod locked;
mod memory;
mod operator;
mod outside;
mod patterns;
mod policies;
mod questions;
mod refusals;
mod requests;
mod resolve;
mod routes;
mod runs;
mod scopes;
mod settings;
mod settles;
mod shared;
mod staged;
mod sweep;
mod tokens;
mod waiting;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use aex_admin_proto::clock::{boot_ms, wall_ms};
use aex_admin_proto::egress::ReceiptsParams;
use aex_admin_proto::rpc::{RpcError, code};
use aex_admin_proto::scope::ScopeId;
use aex_admin_proto::ticket::TicketKey;
use aex_admin_proto::worker::{
    MeReply, ModelsParams, ModelsReply, QuoteReply, ReserveParams, ReserveReply, RunEndParams,
    RunParams, RunReply, SettleParams, SettleReply, TokensReply, WhoseReply,
};
use aex_admin_proto::{HoldId, Refusal, TokenDigest};

use crate::config::Config;
use crate::core::refusals::Refusals;
use crate::core::reserve::Now;
use crate::core::window::Window;
use crate::ledger::{Ledger, LedgerError};
use crate::policy::Policies;

use answers::Answers;
pub use answers::{Outlet, Reply};
pub use configure::Configuration;
use locked::Locked;
pub use operator::OperatorCommand;
pub(crate) use settings::check_proposed;
pub use shared::{Counters, PendingOrders, Shared};
use staged::Staged;
pub use tokens::OwnTokens;
use waiting::Waiting;

/// One connection of a worker.
pub type SessionId = u64;

/// Most operations in one transaction.
const MAX_BATCH: usize = 512;

/// How often the writer looks around when nothing comes in.
const SWEEP_MS: u64 = 50;

/// What can be asked of the writer.
pub enum Command {
    Reserve {
        params: Box<ReserveParams>,
        session: SessionId,
        reply: Reply<ReserveReply>,
    },
    Settle {
        params: Box<SettleParams>,
        reply: Reply<SettleReply>,
    },
    Receipts {
        said: ReceiptsParams,
        reply: Reply<()>,
    },
    Models {
        params: ModelsParams,
        reply: Reply<ModelsReply>,
    },
    Whose {
        params: ModelsParams,
        reply: Reply<WhoseReply>,
    },
    Me {
        params: ModelsParams,
        reply: Reply<MeReply>,
    },
    Quote {
        params: Box<ReserveParams>,
        reply: Reply<QuoteReply>,
    },
    Run {
        params: Box<RunParams>,
        reply: Reply<RunReply>,
    },
    RunEnd {
        params: Box<RunEndParams>,
        reply: Reply<RunReply>,
    },
    OwnTokens {
        asked: OwnTokens,
        reply: Reply<TokensReply>,
    },
    Operator {
        command: OperatorCommand,
        /// Who asks, where it is another user than the one that this process runs as.
        by_uid: Option<u32>,
        reply: Reply<serde_json::Value>,
    },
    /// The wait for held money is over; a hold that was granted stays.
    Cancel {
        id: HoldId,
    },
    /// Holds whose request is alive, as their tickets prove. Answers those that have ended.
    Reclaim {
        tickets: Vec<String>,
        session: SessionId,
        reply: Reply<Vec<HoldId>>,
    },
    SessionGone {
        session: SessionId,
    },
    OperatorKeys {
        providers: HashSet<String>,
    },
    Stop,
}

/// Where the writer gets its times from.
pub type Clock = Box<dyn Fn() -> Now + Send>;

/// The machine's own clocks.
#[must_use]
pub fn system_clock() -> Clock {
    Box::new(|| Now {
        boot_ms: boot_ms(),
        wall_ms: wall_ms(),
    })
}

/// Who left: looked at after the batch.
enum Departure {
    Waiter(HoldId),
    Session(SessionId),
}

pub struct Writer {
    ledger: Ledger,
    key: TicketKey,
    config: Arc<Config>,
    policies: Arc<Policies>,
    /// What was in force before this batch, where that brought another configuration.
    replaced: Option<(Arc<Config>, Arc<Policies>)>,
    operator_keys: HashSet<String>,
    shared: Arc<Shared>,
    waiting: Waiting,
    staged: Staged,
    /// Scopes whose money or rights changed in this batch: their waiters are looked at again.
    stirred: HashSet<ScopeId>,
    swept_boot_ms: u64,
    checkpointed_boot_ms: u64,
    keep_again_boot_ms: u64,
    /// When old `Idempotency-Key`s are looked for next.
    prune_keys_boot_ms: u64,
    /// Runs that each agent made in the last minute.
    runs_made: HashMap<i64, Window>,
    /// Changes that each agent made to its own tokens in the last minute.
    tokens_changed: HashMap<i64, Window>,
    locked: Locked,
    /// Of the last minute, to be recorded.
    refusals: Refusals,
    /// What this batch severed: ordered with its commit.
    to_cut: Vec<HoldId>,
    clock: Clock,
}

impl Writer {
    /// Takes up the ledger as it is: open holds, windows, changes made from outside.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn new(
        ledger: Ledger,
        boot_id: &str,
        key: TicketKey,
        config: Arc<Config>,
        shared: Arc<Shared>,
        clock: Clock,
    ) -> Result<Self, LedgerError> {
        ledger.set_boot(boot_id, clock())?;
        let mut writer = Self {
            ledger,
            key,
            config,
            policies: Arc::default(),
            replaced: None,
            operator_keys: HashSet::new(),
            shared,
            waiting: Waiting::default(),
            staged: Staged::default(),
            stirred: HashSet::new(),
            swept_boot_ms: 0,
            checkpointed_boot_ms: 0,
            keep_again_boot_ms: 0,
            prune_keys_boot_ms: 0,
            runs_made: HashMap::new(),
            tokens_changed: HashMap::new(),
            locked: Locked::default(),
            refusals: Refusals::default(),
            to_cut: Vec::new(),
            clock,
        };
        writer.checkpointed_boot_ms = writer.now().boot_ms;
        writer.rebuild()?;
        writer.ledger.begin()?;
        writer.note_outside_changes(writer.now())?;
        writer.take_up_chain(writer.now())?;
        writer.note_start(writer.now())?;
        writer.ledger.commit()?;
        writer.ledger.started()?;
        writer.keep_checkpoint();
        writer.shared.publish_event(writer.ledger.last_event());
        Ok(writer)
    }

    fn now(&self) -> Now {
        (self.clock)()
    }

    fn rebuild(&mut self) -> Result<(), LedgerError> {
        self.shared.memory().rebuild(&self.ledger, self.now())?;
        self.shared.publish_open_holds();
        Ok(())
    }

    /// Works until told to stop, or until nobody can ask any more.
    pub fn run(mut self, queue: &Receiver<Command>) {
        loop {
            self.shared.writer_lives(self.now().boot_ms);
            let mut batch = Vec::new();
            match queue.recv_timeout(self.pause()) {
                Ok(command) => batch.push(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            gather(queue, &mut batch);
            let stop = batch.iter().any(|command| matches!(command, Command::Stop));
            if let Err(error) = self.step(batch) {
                tracing::error!(%error, "the ledger failed; ending, to recover at the next start");
                std::process::abort();
            }
            if stop {
                self.last_checkpoint();
                return;
            }
        }
    }

    /// Until the next look around, or the next waiter's deadline.
    fn pause(&self) -> Duration {
        if self.locked.len() > 0 {
            return Duration::from_millis(1);
        }
        let now_boot_ms = self.now().boot_ms;
        let sweep = (self.swept_boot_ms + SWEEP_MS).saturating_sub(now_boot_ms);
        let waiter = self.waiting.next_deadline_boot_ms().unwrap_or(u64::MAX);
        Duration::from_millis(sweep.min(waiter.saturating_sub(now_boot_ms)).max(1))
    }

    /// Carries out one batch, and answers it: what [`Writer::run`] does over and over.
    ///
    /// # Errors
    /// Nobody knows what the ledger has of the batch, and nothing of it is answered. This writer must
    /// not be used again; the next one recovers.
    pub fn step(&mut self, commands: Vec<Command>) -> Result<(), LedgerError> {
        let (commands, departures) = self.take_memory_only(commands);
        self.write(commands)?;
        // After the requests that came before them in the same batch.
        for departure in departures {
            match departure {
                Departure::Waiter(id) => self.cancel(&id),
                Departure::Session(session) => self.session_gone(session),
            }
        }
        Ok(())
    }

    fn write(&mut self, mut commands: Vec<Command>) -> Result<(), LedgerError> {
        let now_boot_ms = self.now().boot_ms;
        let sweep = now_boot_ms >= self.swept_boot_ms + SWEEP_MS;
        if sweep {
            self.swept_boot_ms = now_boot_ms;
        }
        commands = self.locked.with(commands);
        if commands.is_empty() && !(sweep && self.has_upkeep()) {
            return Ok(());
        }
        let mut answers = Answers::default();
        self.staged.forget();
        match self.ledger.begin() {
            Ok(()) => self.locked.opened(),
            Err(error) => {
                self.not_begun(commands, now_boot_ms, &error);
                self.expire_waiters(&mut answers, self.now());
                self.refusals.committed();
                answers.send();
                return Ok(());
            }
        }
        commands.sort_by_key(order);
        let done = self.transact(commands, sweep, &mut answers);
        match done.and_then(|()| self.ledger.commit()) {
            Ok(()) => {
                self.committed(answers);
                Ok(())
            }
            Err(error @ (LedgerError::Busy | LedgerError::Full)) => self.undone(answers, &error),
            Err(error) => Err(error),
        }
    }

    /// Another process has the lock: what came lately waits on, the rest is refused.
    fn not_begun(&mut self, commands: Vec<Command>, now_boot_ms: u64, error: &LedgerError) {
        let late = match error {
            LedgerError::Busy => {
                let wait_ms = self.config.lock_wait_ms;
                self.locked.keep(commands, now_boot_ms, wait_ms)
            }
            _ => Some(commands),
        };
        if let Some(late) = late {
            tracing::warn!(%error, "no transaction");
            self.shared.set_trouble(Some(error.to_string()));
            refuse_all(late, error);
        }
    }

    fn transact(
        &mut self,
        commands: Vec<Command>,
        sweep: bool,
        answers: &mut Answers,
    ) -> Result<(), LedgerError> {
        if self.ledger.touched_from_outside()? {
            self.note_outside_changes(self.now())?;
        }
        let mut peers = count_peers(&commands);
        let mut reserves = Vec::new();
        for command in commands {
            match command {
                Command::Reserve {
                    params,
                    session,
                    reply,
                } => {
                    reserves.push((params, session, reply));
                }
                other => self.operate(other, answers)?,
            }
        }
        if sweep {
            self.sweep(answers)?;
        }
        self.wake_waiters(answers)?;
        for (params, session, reply) in reserves {
            let others = peers.get_mut(&params.token).map_or(0, |count| {
                *count -= 1;
                *count
            });
            self.reserve(params, session, reply, others, answers)?;
        }
        self.staged.write(&self.ledger)?;
        for (key, counter) in self.shared.memory().book.take_changed() {
            self.ledger.set_counter(&key, &counter)?;
        }
        if self.shared.trouble().is_some() {
            // A batch that writes nothing would end well on a full disk too.
            self.ledger.touch(self.now().boot_ms)?;
        }
        self.checkpoint_if_due()
    }

    fn operate(&mut self, command: Command, answers: &mut Answers) -> Result<(), LedgerError> {
        match command {
            Command::Settle { params, reply } => self.settle(*params, reply, answers)?,
            Command::Receipts { said, reply } => self.receipts(said, reply, answers)?,
            Command::Models { params, reply } => {
                let models = self.models(&params);
                answer_looked(models, reply, answers)?;
            }
            Command::Whose { params, reply } => {
                let whose = self.whose(&params);
                answer_looked(whose, reply, answers)?;
            }
            Command::Me { params, reply } => {
                let me = self.me(&params);
                answer_looked(me, reply, answers)?;
            }
            Command::Quote { params, reply } => {
                let quote = self.quote(&params);
                answer_looked(quote, reply, answers)?;
            }
            Command::Run { params, reply } => {
                self.staged.write(&self.ledger)?;
                let made = self.create_run_for(&params);
                answer_asked(made, RunReply::Refused, reply, answers)?;
            }
            Command::RunEnd { params, reply } => {
                self.staged.write(&self.ledger)?;
                let ended = self.end_run_for(&params);
                answer_asked(ended, RunReply::Refused, reply, answers)?;
            }
            Command::OwnTokens { asked, reply } => {
                self.staged.write(&self.ledger)?;
                let done = self.own_tokens(asked);
                answer_asked(done, TokensReply::Refused, reply, answers)?;
            }
            Command::Operator {
                command,
                by_uid,
                reply,
            } => {
                self.ledger.record_as(by_uid);
                let done = self.operator(command, reply, answers);
                self.ledger.record_as(None);
                done?;
            }
            // Taken before the transaction, or by the caller.
            Command::Reserve { .. }
            | Command::Cancel { .. }
            | Command::Reclaim { .. }
            | Command::SessionGone { .. }
            | Command::OperatorKeys { .. }
            | Command::Stop => {}
        }
        Ok(())
    }

    /// Carries out what needs no ledger, and answers the rest.
    fn take_memory_only(&mut self, commands: Vec<Command>) -> (Vec<Command>, Vec<Departure>) {
        let mut rest = Vec::with_capacity(commands.len());
        let mut departures = Vec::new();
        for command in commands {
            match command {
                Command::Cancel { id } => departures.push(Departure::Waiter(id)),
                Command::Reclaim {
                    tickets,
                    session,
                    reply,
                } => {
                    let ended = self.reclaim(&tickets, session);
                    reply.send(Ok(ended));
                }
                Command::SessionGone { session } => departures.push(Departure::Session(session)),
                Command::OperatorKeys { providers } => self.operator_keys = providers,
                Command::Stop => {}
                other => rest.push(other),
            }
        }
        (rest, departures)
    }

    fn committed(&mut self, answers: Answers) {
        for id in self.to_cut.drain(..) {
            self.shared.order_cut(id);
        }
        self.refusals.committed();
        self.replaced = None;
        self.shared.set_trouble(None);
        self.shared.count(|counters| {
            counters.commits += 1;
            counters.operations += answers.len() as u64;
        });
        self.shared.publish_event(self.ledger.last_event());
        self.shared.publish_open_holds();
        answers.send();
        self.keep_checkpoint();
    }

    fn undone(&mut self, answers: Answers, error: &LedgerError) -> Result<(), LedgerError> {
        tracing::error!(%error, "the batch is undone");
        self.shared.set_trouble(Some(error.to_string()));
        self.ledger.roll_back();
        self.staged.forget();
        self.to_cut.clear();
        self.refusals.undone();
        self.configure_back();
        answers.fail(&unavailable(error));
        self.rebuild()
    }
}

/// Adds all that waits. Whoever is about to ask runs first: one sync then serves more of them. Alone
/// on the machine, yielding costs a microsecond.
fn gather(queue: &Receiver<Command>, batch: &mut Vec<Command>) {
    let mut seen = 0;
    while batch.len() > seen && batch.len() < MAX_BATCH {
        seen = batch.len();
        std::thread::yield_now();
        while batch.len() < MAX_BATCH
            && let Ok(command) = queue.try_recv()
        {
            batch.push(command);
        }
    }
}

/// Trouble of one operation is its own answer: a row that cannot be read stops whoever is below it alone.
fn answer_looked<T: Send + 'static>(
    found: Result<T, LedgerError>,
    reply: Reply<T>,
    answers: &mut Answers,
) -> Result<(), LedgerError> {
    let answer = match found {
        Ok(found) => Ok(found),
        Err(error) => Err(requests::of_one_operation(error)?),
    };
    answers.push(reply, answer);
    Ok(())
}

/// What an agent did wrong is its refusal; trouble of one operation is its own answer.
fn answer_asked<T: Send + 'static>(
    done: Result<T, operator::Trouble>,
    refused: impl FnOnce(Refusal) -> T,
    reply: Reply<T>,
    answers: &mut Answers,
) -> Result<(), LedgerError> {
    let answer = match done {
        Ok(done) => Ok(done),
        Err(trouble) => match runs::as_refusal(trouble) {
            Ok(refusal) => Ok(refused(refusal)),
            Err(error) => Err(requests::of_one_operation(error)?),
        },
    };
    answers.push(reply, answer);
    Ok(())
}

/// Settles and receipts first (they free money), reserves last.
fn order(command: &Command) -> u8 {
    match command {
        Command::Settle { .. } => 0,
        Command::Receipts { .. } => 1,
        Command::Reserve { .. } => 3,
        _ => 2,
    }
}

fn count_peers(commands: &[Command]) -> HashMap<TokenDigest, u64> {
    let mut peers = HashMap::new();
    for command in commands {
        if let Command::Reserve { params, .. } = command {
            *peers.entry(params.token).or_insert(0) += 1;
        }
    }
    peers
}

fn refuse_all(commands: Vec<Command>, error: &LedgerError) {
    let error = unavailable(error);
    for command in commands {
        match command {
            Command::Reserve { reply, .. } => reply.send(Err(error.clone())),
            Command::Settle { reply, .. } => reply.send(Err(error.clone())),
            Command::Receipts { reply, .. } => reply.send(Err(error.clone())),
            Command::Models { reply, .. } => reply.send(Err(error.clone())),
            Command::Operator { reply, .. } => reply.send(Err(error.clone())),
            Command::Whose { reply, .. } => reply.send(Err(error.clone())),
            Command::Me { reply, .. } => reply.send(Err(error.clone())),
            Command::Quote { reply, .. } => reply.send(Err(error.clone())),
            Command::Run { reply, .. } | Command::RunEnd { reply, .. } => {
                reply.send(Err(error.clone()));
            }
            Command::OwnTokens { reply, .. } => reply.send(Err(error.clone())),
            _ => {}
        }
    }
}

/// What the other side may know of a ledger's trouble.
fn unavailable(error: &LedgerError) -> RpcError {
    match error {
        LedgerError::Busy | LedgerError::Full => {
            RpcError::new(code::UNAVAILABLE, error.to_string())
        }
        _ => RpcError::new(
            code::INTERNAL,
            "the ledger failed; see the log of aex-admin",
        ),
    }
}

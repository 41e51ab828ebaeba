//! The real core: a `Writer` over a real SQLite file, one step at a time, with clocks that the
//! simulation sets and faults that it arms.
//!
//! Faults are triggers in the file that look at the event's time: a wall clock that ends in their
//! digit arms them, and no commit from outside is needed for it, which the core would notice.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use aex_admin::audit;
use aex_admin::config::Config;
use aex_admin::core::reserve::Now;
use aex_admin::ledger::{Ledger, LedgerError};
use aex_admin::writer::{Command, PendingOrders, Reply, Shared, Writer};
use aex_admin_proto::rpc::RpcError;
use aex_admin_proto::ticket::TicketKey;
use rusqlite::Connection;

use crate::asks::{Answer, Ask, Tag};

/// What goes wrong with the next batch. The wall clock's last digit arms it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// COMMIT fails: nobody knows, and the process ends.
    Commit,
    /// The disk is full at the first event of the batch.
    FullAtEvent,
    /// The disk is full at the first hold of the batch.
    FullAtHold,
    /// The disk is full when the agents' rows are written, after all else of the batch.
    FullAtRows,
}

impl Fault {
    pub(crate) fn digit(self) -> i64 {
        match self {
            Self::Commit => 3,
            Self::FullAtEvent => 7,
            Self::FullAtHold => 8,
            Self::FullAtRows => 9,
        }
    }
}

/// `AUTOINCREMENT` after the largest number is SQLite's other "database or disk is full".
const FAULTS: &str = "
CREATE TABLE sim_parent (id INTEGER PRIMARY KEY);
CREATE TABLE sim_orphan (id INTEGER REFERENCES sim_parent (id) DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE sim_full (id INTEGER PRIMARY KEY AUTOINCREMENT, x);
INSERT INTO sim_full VALUES (9223372036854775807, 0);
CREATE TRIGGER sim_commit AFTER INSERT ON events WHEN NEW.at_ms % 10 = 3
BEGIN INSERT INTO sim_orphan VALUES (1); END;
CREATE TRIGGER sim_event AFTER INSERT ON events
WHEN NEW.at_ms % 10 = 7 OR (NEW.at_ms % 10 = 8 AND NEW.action = 'hold.open')
BEGIN INSERT INTO sim_full (x) VALUES (0); END;
CREATE TRIGGER sim_rows AFTER UPDATE OF held_pico ON agents
WHEN (SELECT at_ms FROM events ORDER BY id DESC LIMIT 1) % 10 = 9
BEGIN INSERT INTO sim_full (x) VALUES (0); END;
";

pub(crate) const TICKET_KEY: (u32, [u8; 32]) = (1, [9; 32]);

type Inbox = Arc<Mutex<Vec<(Tag, Answer)>>>;

#[derive(Default)]
struct Clocks {
    boot_ms: AtomicU64,
    wall_ms: AtomicI64,
}

pub(crate) struct Kernel {
    home: tempfile::TempDir,
    config: Arc<Config>,
    clocks: Arc<Clocks>,
    writer: Option<Writer>,
    shared: Arc<Shared>,
    inbox: Inbox,
    /// Somebody's own SQL.
    outside: Connection,
    boot: u64,
}

/// One agent's money, as its row has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MoneyRow {
    pub(crate) name: String,
    pub(crate) budget_micro: i64,
    pub(crate) spent_micro: i64,
    pub(crate) carry_pico: i64,
    pub(crate) held_pico: i64,
    pub(crate) reserved_micro: i64,
}

/// In memory where the machine has such a place.
fn home() -> tempfile::TempDir {
    let in_memory = Path::new("/dev/shm");
    let made = in_memory.is_dir().then(|| tempfile::tempdir_in(in_memory));
    match made {
        Some(Ok(home)) => home,
        _ => tempfile::tempdir().unwrap(),
    }
}

fn connect(path: &Path) -> Connection {
    Connection::open(path).unwrap()
}

impl Kernel {
    pub(crate) fn new(config: Arc<Config>) -> Self {
        let home = home();
        let path = home.path().join("aex.db");
        drop(Ledger::open(&path).unwrap());
        let outside = connect(&path);
        outside.execute_batch(FAULTS).unwrap();
        Self {
            home,
            config,
            clocks: Arc::default(),
            writer: None,
            shared: Arc::default(),
            inbox: Inbox::default(),
            outside,
            boot: 0,
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.home.path().join("aex.db")
    }

    pub(crate) fn set_clocks(&self, now: Now) {
        self.clocks.boot_ms.store(now.boot_ms, Ordering::Relaxed);
        self.clocks.wall_ms.store(now.wall_ms, Ordering::Relaxed);
    }

    pub(crate) fn start(&mut self) {
        let ledger = Ledger::open(&self.path()).unwrap();
        self.shared = Arc::default();
        let clocks = Arc::clone(&self.clocks);
        let clock = Box::new(move || Now {
            boot_ms: clocks.boot_ms.load(Ordering::Relaxed),
            wall_ms: clocks.wall_ms.load(Ordering::Relaxed),
        });
        let writer = Writer::new(
            ledger,
            &format!("boot {}", self.boot),
            TicketKey::new(TICKET_KEY.0, TICKET_KEY.1),
            Arc::clone(&self.config),
            Arc::clone(&self.shared),
            clock,
        );
        self.writer = Some(writer.unwrap());
    }

    /// The process is killed: what it had not committed is gone, and so is every answer.
    pub(crate) fn kill(&mut self) {
        self.writer = None;
        self.inbox.lock().unwrap().clear();
    }

    /// The machine goes down: another boot id, and nobody has the file open.
    pub(crate) fn machine_gone(&mut self) {
        self.kill();
        self.boot += 1;
        self.outside = connect(Path::new(":memory:"));
        self.outside = connect(&self.path());
    }

    /// Carries out one batch. The answers that came, in their order.
    pub(crate) fn step(
        &mut self,
        batch: Vec<(Tag, Ask)>,
        locked: bool,
    ) -> (Result<(), LedgerError>, Vec<(Tag, Answer)>) {
        let commands = batch
            .into_iter()
            .filter_map(|(tag, ask)| self.command(tag, ask))
            .collect();
        if locked {
            self.outside.execute_batch("BEGIN IMMEDIATE").unwrap();
        }
        let done = self.writer.as_mut().unwrap().step(commands);
        if locked {
            self.outside.execute_batch("ROLLBACK").unwrap();
        }
        let answers = std::mem::take(&mut *self.inbox.lock().unwrap());
        (done, answers)
    }

    fn command(&self, tag: Tag, ask: Ask) -> Option<Command> {
        Some(match ask {
            Ask::Reserve { params, session } => Command::Reserve {
                params: Box::new(params),
                session,
                reply: self.reply(tag, Answer::Reserve),
            },
            Ask::Settle(params) => Command::Settle {
                params: Box::new(params),
                reply: self.reply(tag, Answer::Settle),
            },
            Ask::Receipts(said) => Command::Receipts {
                said,
                reply: self.reply(tag, |()| Answer::Receipts),
            },
            Ask::Change(change) => Command::Operator {
                by_uid: Some(4242),
                command: change.command(),
                reply: self.reply(tag, Answer::Changed),
            },
            Ask::Cancel(id) => Command::Cancel { id },
            Ask::Reclaim { tickets, session } => Command::Reclaim {
                tickets,
                session,
                reply: self.reply(tag, Answer::Reclaimed),
            },
            Ask::SessionGone(session) => Command::SessionGone { session },
            Ask::OperatorKeys(names) => Command::OperatorKeys {
                providers: names.into_iter().collect(),
            },
        })
    }

    fn reply<T: Send + 'static>(
        &self,
        tag: Tag,
        as_answer: impl FnOnce(T) -> Answer + Send + 'static,
    ) -> Reply<T> {
        let mut slot = Slot {
            inbox: Arc::clone(&self.inbox),
            tag: Some(tag),
        };
        Reply::new(move |answer: Result<T, RpcError>| {
            slot.put(match answer {
                Ok(value) => as_answer(value),
                // What a reply says by itself when nobody answers.
                Err(error) if error.message.starts_with("nothing was done") => Answer::Dropped,
                Err(error) => Answer::Error(error.code),
            });
        })
    }

    pub(crate) fn take_orders(&self) -> PendingOrders {
        let mut orders = self.shared.take_orders();
        // The core gathers them in the order of a hash map.
        orders.void.sort_unstable();
        orders.cut.sort_unstable();
        orders
    }

    pub(crate) fn outside(&self, sql: &str) {
        self.outside.execute_batch(sql).unwrap();
    }

    pub(crate) fn money(&self) -> Vec<MoneyRow> {
        self.rows(
            "SELECT name, budget_micro, spent_micro, carry_pico, held_pico, reserved_micro \
             FROM agents ORDER BY id",
            |row| {
                Ok(MoneyRow {
                    name: row.get(0)?,
                    budget_micro: row.get(1)?,
                    spent_micro: row.get(2)?,
                    carry_pico: row.get(3)?,
                    held_pico: row.get(4)?,
                    reserved_micro: row.get(5)?,
                })
            },
        )
    }

    /// By the name of the agent: what its commits and its open holds add up to.
    pub(crate) fn sums(&self) -> Vec<(String, i64, i64, i64)> {
        self.rows(
            "SELECT a.name, \
             COALESCE(SUM(e.cost_micro) FILTER (WHERE e.action = 'usage.commit'), 0), \
             COALESCE(SUM(e.cost_pico) FILTER (WHERE e.action = 'usage.commit'), 0), \
             (SELECT COALESCE(SUM(o.held_pico), 0) FROM holds h JOIN events o ON o.id = h.event \
              WHERE h.agent_id = a.id) \
             FROM agents a LEFT JOIN events e ON e.agent = a.name GROUP BY a.id ORDER BY a.id",
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        )
    }

    /// By reservation id: how often it was opened, how often it ended, what it cost in all.
    pub(crate) fn by_hold(&self) -> Vec<(String, i64, i64, i64)> {
        self.rows(
            "SELECT hold, SUM(action = 'hold.open'), SUM(held_pico < 0 OR (action <> 'hold.open' \
             AND detail NOT LIKE '{\"correction\":true%')), SUM(cost_pico) \
             FROM events WHERE hold IS NOT NULL AND action <> 'settle.conflict' GROUP BY hold",
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        )
    }

    fn rows<T>(&self, sql: &str, read: fn(&rusqlite::Row<'_>) -> rusqlite::Result<T>) -> Vec<T> {
        let mut statement = self.outside.prepare_cached(sql).unwrap();
        let rows = statement.query_map([], read).unwrap();
        rows.map(Result::unwrap).collect()
    }

    pub(crate) fn count(&self, sql: &str) -> i64 {
        self.outside.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// What the audit finds wrong.
    pub(crate) fn audit(&self) -> Vec<String> {
        let report = audit::of_file(&self.path(), &[]).unwrap();
        let told = report.violations.iter().map(|found| format!("{found:?}"));
        told.collect()
    }
}

/// Where one answer goes; left without one, it says so.
struct Slot {
    inbox: Inbox,
    tag: Option<Tag>,
}

impl Slot {
    fn put(&mut self, answer: Answer) {
        if let Some(tag) = self.tag.take() {
            self.inbox.lock().unwrap().push((tag, answer));
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.put(Answer::Dropped);
    }
}

//! The ledger: one SQLite file, and every SQL statement of AEX.
//!
//! Owns: the schema, the rows, the event chain's storage, the key that signs it ([`seal`]), the
//! exclusive lock. One connection writes ([`Ledger`]), others read beside it ([`reader`]). Absent on
//! purpose: decisions and clocks.

mod agents;
pub mod backup;
mod chain;
mod checkpoints;
pub mod counters;
mod events;
mod holds;
pub mod idempotency;
mod nodes;
pub mod reader;
pub mod restore;
mod schema;
pub mod seal;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aex_admin_proto::operator::Checkpoint;
use nix::fcntl::{Flock, FlockArg};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

pub use agents::{NewAgent, NewToken, ROTATED, TokenRow};
pub use chain::{EventHash, GENESIS, link};
use checkpoints::Checkpoints;
pub(crate) use checkpoints::{CHECKPOINT_ACTION, KEY_ACTION, is_sealed_by};
pub use events::{Ended, Event};
pub use holds::{HoldRow, NewHold};
pub use idempotency::KeyRow;
pub use nodes::NewNode;
use seal::Sealer;

/// How long SQLite waits for another process's lock before it says so: whoever asks can look around
/// between, and wait on.
const LOCK_SLICE: Duration = Duration::from_millis(100);
/// How long a start waits for it.
const START_WAIT: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("the ledger is locked by another process")]
    Busy,
    #[error("no space left for the ledger")]
    Full,
    #[error("the ledger {0} is in use by another aex-admin")]
    InUse(PathBuf),
    #[error(
        "the ledger's schema is version {found}, newer than this program's {known}; \
         install the newer AEX"
    )]
    Newer { found: i64, known: i64 },
    #[error(
        "the ledger {ledger} does not have event {event} as its last checkpoint in {checkpoint} tells \
         it: it is an older ledger or another one, and to serve it could spend money twice. Put the \
         right ledger back, or restore a backup with `aex ledger restore FILE`; to begin anew, move \
         {checkpoint} away too"
    )]
    NotAsCheckpointed {
        ledger: PathBuf,
        checkpoint: PathBuf,
        event: i64,
    },
    #[error("{0} is not a ledger's signing key (64 hexadecimal digits); put the right one back")]
    Key(PathBuf),
    #[error("{0} is not a checkpoint of a ledger; put the right one back, or move it away")]
    KeptCheckpoint(PathBuf),
    #[error("{0}")]
    Refused(String),
    #[error("the ledger has a value it should not have: {0}")]
    Value(String),
    #[error("cannot open {path}: {source}")]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("ledger: {0}")]
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for LedgerError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::DiskFull) => Self::Full,
            _ => Self::Sqlite(error),
        }
    }
}

pub type Result<T> = std::result::Result<T, LedgerError>;

/// The one writing connection.
pub struct Ledger {
    conn: Connection,
    path: PathBuf,
    /// Hash and id of the last event, inside the transaction that is open.
    head: Head,
    /// As of the last commit.
    committed: Head,
    /// Whose change is being recorded, if it is another user's than this process's.
    by_uid: Option<u32>,
    /// SQLite's counter of other connections' commits, as last seen, and as seen in the open batch:
    /// what a batch noted is noted again when it was undone.
    data_version: i64,
    batch_version: i64,
    sealer: Sealer,
    /// There was no key: whatever is in the ledger, it did not sign it.
    key_is_new: bool,
    /// The last event that bears the seal.
    sealed: i64,
    checkpoints: Checkpoints,
    lock: Lock,
}

/// The right to write a ledger: one process has it.
pub struct Lock {
    _file: Flock<File>,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    id: i64,
    hash: EventHash,
}

impl Ledger {
    /// Opens or makes the ledger at `path`, takes its exclusive lock, and brings the schema up.
    ///
    /// # Errors
    /// See [`LedgerError`]; nothing is changed when the schema is newer than this program.
    pub fn open(path: &Path) -> Result<Self> {
        let lock = Lock::take(path)?;
        let kept = seal::kept_checkpoint(path)?;
        Self::open_as(path, path, lock, kept)
    }

    /// Opens a copy that is to take the place of the ledger at `key_of`, whose lock is held: it is signed
    /// with that one's key, and was compared with its last checkpoint already.
    ///
    /// # Errors
    /// As of [`Ledger::open`].
    pub fn open_copy(path: &Path, key_of: &Path, lock: Lock) -> Result<Self> {
        Self::open_as(path, key_of, lock, None)
    }

    fn open_as(path: &Path, key_of: &Path, lock: Lock, kept: Option<Checkpoint>) -> Result<Self> {
        if let Some(kept) = kept.as_ref().filter(|_| !path.exists()) {
            return Err(not_as(kept, path));
        }
        let (sealer, key_is_new) = match Sealer::load(key_of)? {
            Some(sealer) => (sealer, false),
            None => (Sealer::create(key_of)?, true),
        };
        let conn = Connection::open(path)?;
        // A start can wait for somebody's lock; serving looks around meanwhile.
        conn.busy_timeout(START_WAIT)?;
        conn.pragma_update(None, "journal_mode", "WAL")?;
        conn.pragma_update(None, "synchronous", "FULL")?;
        conn.pragma_update(None, "foreign_keys", true)?;
        conn.pragma_update(None, "cache_size", -4096)?;
        in_memory(&conn)?;
        conn.pragma_update(None, "wal_autocheckpoint", 2000)?;
        conn.set_prepared_statement_cache_capacity(64);
        // Without it each bind of another value may plan the statement anew: a fifth of the CPU.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        schema::bring_up(&conn)?;
        settle_log(&conn)?;
        if let Some(kept) = kept
            && events::hash_of(&conn, kept.event)? != seal::hash_of(&kept)
        {
            return Err(not_as(&kept, path));
        }
        let head = events::head(&conn)?;
        let checkpoints = Checkpoints::found(&conn, head.id)?;
        let data_version = data_version(&conn)?;
        Ok(Self {
            conn,
            path: path.to_owned(),
            head,
            committed: head,
            by_uid: None,
            data_version,
            batch_version: data_version,
            sealer,
            key_is_new,
            sealed: head.id,
            checkpoints,
            lock,
        })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Closes a copy that is to take a ledger's place; the right to write that one stays.
    ///
    /// # Errors
    /// What the log has cannot be put into the file.
    pub fn close(self) -> Result<Lock> {
        self.settle_log()?;
        self.conn.close().map_err(|(_, error)| error)?;
        Ok(self.lock)
    }

    /// The start is over: from now on nobody waits long for another process's lock.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn started(&self) -> Result<()> {
        Ok(self.conn.busy_timeout(LOCK_SLICE)?)
    }

    /// A secret of 32 bytes that is kept beside the ledger: made when it is first asked for.
    ///
    /// # Errors
    /// Its file cannot be read or written.
    pub fn ticket_key(&self) -> Result<[u8; 32]> {
        seal::ticket_key(&self.path)
    }

    /// Begins the transaction of a batch.
    ///
    /// # Errors
    /// [`LedgerError::Busy`] when another process kept the lock for all of a tenth of a second.
    pub fn begin(&mut self) -> Result<()> {
        self.head = self.committed;
        self.batch_version = self.data_version;
        self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        Ok(())
    }

    /// Makes the batch durable.
    ///
    /// # Errors
    /// The batch is undone on [`LedgerError::Busy`] and [`LedgerError::Full`]; after any other error
    /// nobody knows, and the process must end and recover.
    pub fn commit(&mut self) -> Result<()> {
        if self.head.id != self.sealed {
            self.seal_head()?;
        }
        self.conn.prepare_cached("COMMIT")?.execute([])?;
        self.committed = self.head;
        self.data_version = self.batch_version;
        self.sealed = self.head.id;
        self.checkpoints.committed();
        Ok(())
    }

    /// Puts what the log has into the file, so that the file alone is the ledger.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn settle_log(&self) -> Result<()> {
        settle_log(&self.conn)
    }

    /// Undoes the batch.
    pub fn roll_back(&mut self) {
        self.head = self.committed;
        self.checkpoints.undone();
        // SQLite has undone it by itself after some errors; then this one says so.
        let _ = self.conn.execute("ROLLBACK", []);
    }

    /// Runs one operation of the batch: all of its writes, or none.
    ///
    /// # Errors
    /// The operation's own; its writes are undone then.
    pub fn within<T>(&mut self, operation: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let head = self.head;
        self.conn
            .prepare_cached("SAVEPOINT operation")?
            .execute([])?;
        let done = operation(self);
        if done.is_err() {
            self.head = head;
            self.conn
                .prepare_cached("ROLLBACK TO operation")?
                .execute([])?;
        }
        self.conn.prepare_cached("RELEASE operation")?.execute([])?;
        done
    }

    /// Whether another connection has committed since the last batch that stands: somebody's own UPDATE.
    /// Asked at the beginning of a batch. Should they have added to the chain or cut it, it goes on
    /// under a free id from the link that this process knows, so that the next audit finds it.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn touched_from_outside(&mut self) -> Result<bool> {
        let version = data_version(&self.conn)?;
        let touched = version != self.data_version;
        if touched {
            let found = events::head(&self.conn)?;
            self.committed.id = self.committed.id.max(found.id);
            self.head = self.committed;
        }
        self.batch_version = version;
        Ok(touched)
    }

    /// Id of the last committed event; 0 for none.
    #[must_use]
    pub fn last_event(&self) -> i64 {
        self.committed.id
    }

    /// A fact kept with the ledger.
    ///
    /// # Errors
    /// SQLite's own.
    fn meta(&self, key: &str) -> Result<Option<Vec<u8>>> {
        schema::meta(&self.conn, key)
    }

    /// # Errors
    /// SQLite's own.
    fn set_meta(&self, key: &str, value: &[u8]) -> Result<()> {
        schema::set_meta(&self.conn, key, value)
    }
}

/// Puts what the log has into the file, and syncs it. What an earlier process could not sync is found in
/// the page cache all the same: nothing may be answered for before it is on the disk.
fn settle_log(conn: &Connection) -> Result<()> {
    let is_busy: bool = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if is_busy {
        // What a reader's snapshot keeps in the log is in there, synced with the next commit.
        tracing::warn!("somebody reads the ledger: its log is not put into the file yet");
    }
    Ok(())
}

fn not_as(kept: &Checkpoint, path: &Path) -> LedgerError {
    LedgerError::NotAsCheckpointed {
        ledger: path.to_owned(),
        checkpoint: seal::checkpoint_path(path),
        event: kept.event,
    }
}

fn data_version(conn: &Connection) -> Result<i64> {
    Ok(conn
        .prepare_cached("PRAGMA data_version")?
        .query_row([], |row| row.get(0))?)
}

impl Lock {
    /// # Errors
    /// Another process has it.
    pub fn take(path: &Path) -> Result<Self> {
        take_lock(path).map(|file| Self { _file: file })
    }
}

fn take_lock(path: &Path) -> Result<Flock<File>> {
    let file_error = |source| LedgerError::File {
        path: path.to_owned(),
        source,
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(file_error)?;
    }
    let lock_path = seal::beside(path, ".lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .map_err(|source| LedgerError::File {
            path: lock_path.clone(),
            source,
        })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| LedgerError::InUse(path.to_owned()))
}

/// What SQLite would write aside for a while: no directory for that is within the sandbox.
fn in_memory(conn: &Connection) -> Result<()> {
    Ok(conn.pragma_update(None, "temp_store", "MEMORY")?)
}

/// A connection that can only read, for views and the audit.
///
/// # Errors
/// There is no ledger, or it cannot be read.
pub fn open_read_only(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(Duration::from_secs(5))?;
    in_memory(&conn)?;
    schema::check_version(&conn)?;
    Ok(conn)
}

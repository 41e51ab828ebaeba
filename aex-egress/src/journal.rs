//! The file behind the book. A record of what is about to happen is appended before it happens; one
//! of what is over may wait for the next write, for its loss only makes an exchange look unfinished.
//!
//! It lies in the runtime directory and is headed by the boot id. It survives SIGKILL, because what
//! was written is in the page cache; it need not survive the machine, because after another boot
//! nothing of it is believed. So there is no fsync here. What it means is [`crate::book`]'s.
//!
//! Its head also says since when it has been kept without a gap: from an earlier process on, if that
//! one's file is whole and of this boot, else from this one's start. `aex-admin` is told: a hold that
//! was granted later and that the journal does not know was never sent.
//!
//! It is rewritten as a whole (a new file, then a rename) at each start and whenever it has grown to
//! twice what the book still needs, so its size follows the traffic of half a minute, not history.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aex_admin_proto::HoldId;

use crate::EgressError;
use crate::book::TICKET_LIFE_MS;
use crate::record::{Header, Record};

/// A journal below this size is left as it is.
const REWRITE_ABOVE_BYTES: u64 = 1024 * 1024;
/// A larger file is no journal of ours.
const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// What an earlier process left.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub records: Vec<Record>,
    /// Since when nothing is missing in `records`; absent: the journal is new, of another boot, or
    /// damaged.
    pub begun_boot_ms: Option<u64>,
}

#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    header: Header,
    file: File,
    bytes: u64,
    rewrite_at_bytes: u64,
    /// Records for the next write.
    unwritten: Vec<u8>,
    /// Held for as long as this process may write; dropped with it.
    _lock: File,
}

impl Journal {
    /// Takes the journal over from an earlier process. Call [`Journal::rewrite`] before the first
    /// append: a torn last line must not be added to.
    ///
    /// # Errors
    /// The file cannot be made or read, or another process has it.
    pub fn open(
        path: &Path,
        boot_id: &str,
        now_boot_ms: u64,
    ) -> Result<(Self, Found), EgressError> {
        let lock_path = with_suffix(path, ".lock");
        let lock = private(&lock_path, OpenOptions::new().write(true).create(true))
            .map_err(|error| EgressError::file("cannot open", &lock_path, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(EgressError::AlreadyRunning(path.to_owned()));
            }
            Err(std::fs::TryLockError::Error(error)) => {
                return Err(EgressError::file("cannot lock", lock_path, error));
            }
        }
        let file = private(
            path,
            OpenOptions::new().read(true).append(true).create(true),
        )
        .map_err(|error| EgressError::file("cannot open journal", path, error))?;
        let found = read(&file, boot_id)
            .map_err(|error| EgressError::file("cannot read journal", path, error))?;
        let journal = Self {
            path: path.to_owned(),
            header: Header {
                boot_id: boot_id.to_owned(),
                begun_boot_ms: found.begun_boot_ms.unwrap_or(now_boot_ms),
            },
            file,
            bytes: 0,
            rewrite_at_bytes: 0,
            unwritten: Vec::with_capacity(1024),
            _lock: lock,
        };
        Ok((journal, found))
    }

    /// Since when it has been kept without a gap, boot clock.
    #[must_use]
    pub fn begun_boot_ms(&self) -> u64 {
        self.header.begun_boot_ms
    }

    /// Whether a ticket is one that this journal would know if it had been used: granted no earlier than
    /// it began, in this boot.
    #[must_use]
    pub fn vouches_for(&self, expires_boot_ms: u64, now_boot_ms: u64) -> bool {
        let of_this_boot = expires_boot_ms <= now_boot_ms.saturating_add(TICKET_LIFE_MS);
        of_this_boot && expires_boot_ms >= self.begun_boot_ms().saturating_add(TICKET_LIFE_MS)
    }

    /// Adds a record that need not be in the file yet; [`Journal::flush`] must follow soon.
    pub fn push(&mut self, record: &Record) {
        record.write(&mut self.unwritten);
    }

    /// Appends one record, after those that were pushed, in one write.
    ///
    /// # Errors
    /// As of [`Journal::flush`].
    pub fn append(&mut self, record: &Record) -> io::Result<()> {
        self.push(record);
        self.flush()
    }

    /// Writes what was pushed, if anything was.
    ///
    /// # Errors
    /// The write failed; the file is as it was before, and what was to be written is forgotten.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        let written = self.file.write_all(&self.unwritten);
        match written {
            Ok(()) => self.bytes += self.unwritten.len() as u64,
            // A torn line in the middle would read as damage.
            Err(_) => drop(self.file.set_len(self.bytes)),
        }
        self.unwritten.clear();
        written
    }

    /// It has grown enough that [`Journal::rewrite`] is worth its time.
    #[must_use]
    pub fn wants_rewrite(&self) -> bool {
        self.bytes > self.rewrite_at_bytes
    }

    /// Puts a new file with these records in the old one's place. Call it with nothing unwritten.
    ///
    /// # Errors
    /// The new file could not be written; the old one is still in use.
    pub fn rewrite(&mut self, records: impl Iterator<Item = Record>) -> Result<(), EgressError> {
        // Also after a failure: not again at every record.
        self.rewrite_at_bytes = (self.bytes * 2).max(REWRITE_ABOVE_BYTES);
        let path = with_suffix(&self.path, ".new");
        let (file, bytes) = write_new(&path, &self.header, records)
            .map_err(|error| EgressError::file("cannot write journal", &path, error))?;
        std::fs::rename(&path, &self.path)
            .map_err(|error| EgressError::file("cannot replace journal", &self.path, error))?;
        self.file = file;
        self.bytes = bytes;
        self.rewrite_at_bytes = (bytes * 2).max(REWRITE_ABOVE_BYTES);
        Ok(())
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // As after a kill: what is missing only makes an exchange look unfinished.
        let _ = self.flush();
    }
}

/// The kernel's name for this boot.
///
/// # Errors
/// /proc/sys is not there.
pub fn boot_id() -> Result<String, EgressError> {
    let text =
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(EgressError::BootId)?;
    Ok(text.trim().to_owned())
}

fn private(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    options.mode(0o600).open(path)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn write_new(
    path: &Path,
    header: &Header,
    records: impl Iterator<Item = Record>,
) -> io::Result<(File, u64)> {
    const FLUSH_BYTES: usize = 64 * 1024;
    let mut file = private(
        path,
        OpenOptions::new().write(true).create(true).truncate(true),
    )?;
    let mut buffer = Vec::with_capacity(FLUSH_BYTES / 8);
    let mut bytes = 0;
    header.write(&mut buffer);
    for record in records {
        record.write(&mut buffer);
        if buffer.len() >= FLUSH_BYTES {
            file.write_all(&buffer)?;
            bytes += buffer.len() as u64;
            buffer.clear();
        }
    }
    file.write_all(&buffer)?;
    bytes += buffer.len() as u64;
    drop(file);
    let file = private(path, OpenOptions::new().append(true))?;
    Ok((file, bytes))
}

fn read(file: &File, boot_id: &str) -> io::Result<Found> {
    let mut text = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        tracing::error!("the journal is too large to be ours: starting a new one");
        return Ok(Found::default());
    }
    Ok(interpret(&text, boot_id))
}

/// A torn last line tells of something that had not happened yet: it is left out, and no damage.
fn interpret(text: &[u8], boot_id: &str) -> Found {
    let mut lines = whole_lines(text).map(std::str::from_utf8);
    let header = lines.next().and_then(|line| Header::read(line.ok()?));
    let Some(header) = header.filter(|header| header.boot_id == boot_id) else {
        if !text.is_empty() {
            tracing::warn!("the journal is of another boot or damaged: starting a new one");
        }
        return Found::default();
    };
    let mut found = Found {
        records: Vec::new(),
        begun_boot_ms: Some(header.begun_boot_ms),
    };
    for line in lines {
        match line.ok().and_then(Record::read) {
            Some(record) => found.records.push(record),
            None => found.begun_boot_ms = None,
        }
    }
    if found.begun_boot_ms.is_none() {
        tracing::warn!("the journal is damaged: what it does not tell counts as unknown");
    }
    found
}

fn whole_lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let end = text.iter().rposition(|&b| b == b'\n').unwrap_or(0);
    text[..end].split(|&b| b == b'\n')
}

/// Ids of exchanges that may have been sent, as the journal at `path` tells them, of whichever boot.
/// For a restore, which has no other witness.
///
/// # Errors
/// It is there and cannot be read.
pub fn sent(path: &Path) -> Result<Vec<HoldId>, EgressError> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut text));
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(|error| EgressError::file("cannot read journal", path, error))?,
    };
    let mut ids: Vec<HoldId> = whole_lines(&text)
        .skip(1)
        .filter_map(|line| Record::read(std::str::from_utf8(line).ok()?))
        .filter_map(|record| match record {
            Record::Redeemed { id, .. } | Record::Used { id, .. } => Some(id),
            Record::Ended { id, exchange, .. } => exchange.sent.then_some(id),
            Record::Dead { .. } => None,
        })
        .collect();
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

#[cfg(test)]
mod tests;

//! The directory of kept answers: one file a hold, named by its id, private, whole or not there.
//!
//! All workers use the same one, and each tidies it for all: what a dead worker left is counted and
//! removed like the rest. Whose an answer is stands before it in its file, so that a worker that has just
//! started learns it too. Every call here may wait for the disk.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, DirEntry, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, TryLockError};
use std::time::{Duration, UNIX_EPOCH};

use aex_admin_proto::scope::ScopeId;
use aex_admin_proto::{HoldId, clock};
use nix::fcntl::OFlag;

use super::MAX_ANSWER_BYTES;
use super::surplus::{self, Weight};

/// How long an answer is kept.
pub(super) const KEEP_MS: i64 = 24 * 60 * 60 * 1000;
/// A tidy directory has at most this, counted in whole blocks.
const TIDY_BYTES: u64 = 56 * 1024 * 1024;
/// A worker that has written so much tidies up. So all of it stays below 64 MiB with up to four workers, and
/// grows by this much with each that is more.
const LOOK_BYTES: u64 = 2 * 1024 * 1024;
const BLOCK_BYTES: u64 = 4096;
/// Larger than any file of ours: an answer, its headers, and what encryption adds.
const MAX_FILE_BYTES: u64 = MAX_ANSWER_BYTES as u64 + 256 * 1024;
/// One that is still being written after this long never will be whole.
const TORN_MS: i64 = 60_000;
const UNFINISHED: &str = "new";
/// `kind (1) · number (8)`, before the answer itself.
const OWNER_BYTES: usize = 9;
const AGENT: u8 = 1;
const NODE: u8 = 2;

pub(super) struct Shelf {
    directory: PathBuf,
    /// By this worker since it last tidied.
    written_bytes: AtomicU64,
    /// Held by who tidies. Whose the files are that were there at the last look.
    owners: Mutex<HashMap<HoldId, ScopeId>>,
    tidy_bytes: u64,
}

/// A file of ours, as a look found it.
struct Found {
    id: HoldId,
    path: PathBuf,
    at_ms: i64,
    bytes: u64,
}

impl Shelf {
    /// # Errors
    /// It cannot be made, or others could read it and that cannot be changed.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        make_private(directory)?;
        Ok(Self {
            directory: directory.to_owned(),
            written_bytes: AtomicU64::new(0),
            owners: Mutex::default(),
            tidy_bytes: TIDY_BYTES,
        })
    }

    /// As [`Shelf::open`], with another bound.
    #[cfg(test)]
    pub(super) fn bounded(directory: &Path, tidy_bytes: u64) -> Self {
        let shelf = Self::open(directory).unwrap();
        Self {
            tidy_bytes,
            ..shelf
        }
    }

    pub(super) fn path(&self, id: HoldId) -> PathBuf {
        self.directory.join(id.to_string())
    }

    /// # Errors
    /// The disk's own; nothing is left of the file then.
    pub(super) fn put(&self, id: HoldId, tenant: ScopeId, bytes: &[u8]) -> io::Result<()> {
        let owner = owner(tenant);
        let put = match self.write(id, &owner, bytes) {
            // Somebody removed it all.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_private(&self.directory)?;
                self.write(id, &owner, bytes)
            }
            put => put,
        };
        let written = in_blocks((OWNER_BYTES + bytes.len()) as u64);
        if self.written_bytes.fetch_add(written, Ordering::Relaxed) + written >= LOOK_BYTES {
            self.tidy();
        }
        put
    }

    /// Not synced: what a machine that went down leaves torn does not open.
    fn write(&self, id: HoldId, owner: &[u8], bytes: &[u8]) -> io::Result<()> {
        let path = self.path(id);
        let unfinished = path.with_extension(UNFINISHED);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)?;
        let written = file
            .write_all(owner)
            .and_then(|()| file.write_all(bytes))
            .and_then(|()| fs::rename(&unfinished, &path));
        if written.is_err() {
            // Whatever stays is removed as torn.
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    /// # Errors
    /// There is none, or it cannot be read.
    pub(super) fn get(&self, id: HoldId) -> io::Result<Vec<u8>> {
        let mut file = open(&self.path(id))?;
        file.read_exact(&mut [0; OWNER_BYTES])?;
        let mut bytes = Vec::new();
        file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Removes what is old or torn, and of what is too much the [`surplus`]. One of this worker's threads
    /// does it at a time; what others removed meanwhile is no trouble.
    pub(super) fn tidy(&self) {
        let mut owners = match self.owners.try_lock() {
            Ok(owners) => owners,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        self.written_bytes.store(0, Ordering::Relaxed);
        let now_ms = clock::wall_ms();
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return;
        };
        let found: Vec<Found> = (entries.flatten())
            .filter_map(|entry| look_at(&entry, now_ms))
            .collect();
        let weights: Vec<Weight> = (found.iter())
            .map(|file| Weight {
                tenant: (owners.get(&file.id).copied()).or_else(|| owner_of(&file.path)),
                at_ms: file.at_ms,
                bytes: file.bytes,
            })
            .collect();
        // As many as there are files, which have a bound.
        *owners = (found.iter().zip(&weights))
            .filter_map(|(file, weight)| Some((file.id, weight.tenant?)))
            .collect();
        for gone in surplus::of(&weights, self.tidy_bytes) {
            remove(&found[gone].path);
            owners.remove(&found[gone].id);
        }
    }
}

/// A file that stays for now; nothing for one that is not ours, or was removed.
fn look_at(entry: &DirEntry, now_ms: i64) -> Option<Found> {
    let path = entry.path();
    let id: HoldId = path.file_stem()?.to_str()?.parse().ok()?;
    let unfinished = match path.extension() {
        None => false,
        Some(extension) if extension == UNFINISHED => true,
        Some(_) => return None,
    };
    let meta = entry.metadata().ok().filter(fs::Metadata::is_file)?;
    let at_ms = (meta.mtime().saturating_mul(1000)).saturating_add(meta.mtime_nsec() / 1_000_000);
    let most_ms = if unfinished { TORN_MS } else { KEEP_MS };
    if now_ms.saturating_sub(at_ms) >= most_ms {
        remove(&path);
        return None;
    }
    if at_ms > now_ms {
        // The clock was set back: it is as old as nothing from here on.
        set_age(&path, now_ms);
    }
    let bytes = in_blocks(meta.len());
    Some(Found {
        id,
        path,
        at_ms,
        bytes,
    })
}

fn owner(tenant: ScopeId) -> [u8; OWNER_BYTES] {
    let (kind, number) = match tenant {
        ScopeId::Agent(number) => (AGENT, number),
        ScopeId::Node(number) => (NODE, number),
    };
    let mut owner = [kind; OWNER_BYTES];
    owner[1..].copy_from_slice(&number.to_be_bytes());
    owner
}

/// Whose a file is; nothing where it does not say.
fn owner_of(path: &Path) -> Option<ScopeId> {
    let mut owner = [0; OWNER_BYTES];
    open(path).ok()?.read_exact(&mut owner).ok()?;
    let number = i64::from_be_bytes(owner[1..].try_into().ok()?);
    match owner[0] {
        AGENT => Some(ScopeId::Agent(number)),
        NODE => Some(ScopeId::Node(number)),
        _ => None,
    }
}

/// No link is followed, and nothing is waited for.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(path)
}

fn set_age(path: &Path, at_ms: i64) {
    let since = Duration::from_millis(u64::try_from(at_ms).unwrap_or(0));
    // One that cannot be changed is still bounded by all that is kept.
    let _ = File::options()
        .write(true)
        .open(path)
        .and_then(|file| file.set_modified(UNIX_EPOCH + since));
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "a kept answer cannot be removed");
        }
        _ => {}
    }
}

fn in_blocks(bytes: u64) -> u64 {
    bytes.max(1).div_ceil(BLOCK_BYTES) * BLOCK_BYTES
}

fn make_private(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let meta = fs::symlink_metadata(directory)?;
    if !meta.is_dir() {
        return Err(io::Error::from(io::ErrorKind::NotADirectory));
    }
    if meta.mode() & 0o077 != 0 {
        fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

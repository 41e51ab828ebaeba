//! Writes down what reaches the files below a directory, in order: writes with their offset and data,
//! truncations, renames, unlinks, the begin and the completion of each sync; and what is about to be
//! sent over Unix sockets that this process listens at.
//!
//! A write is made and recorded under one lock, so that the record's order is the files'. A sync is
//! not made under it: it covers what was written before its begin, and holds no other thread up.
//!
//! A record: kind (1 byte), thread (4), length of the name (4), offset (8), length of the data (4),
//! name, data; numbers in the machine's order.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use libc::c_int;

use crate::real;
use crate::steer::{self, Paths};
use crate::target::{Kind, Target};

static ORDER: Mutex<()> = Mutex::new(());

#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum What {
    Write = b'W',
    Truncate = b'T',
    SyncBegun = b'B',
    Synced = b'S',
    Rename = b'R',
    Unlink = b'U',
    Answer = b'A',
}

pub(crate) fn order() -> MutexGuard<'static, ()> {
    // Nothing panics while it holds the lock.
    ORDER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether this file or socket is recorded.
pub(crate) fn wants(paths: &Paths, target: &Target) -> bool {
    let Some(root) = root(paths) else {
        return false;
    };
    match target.kind {
        Kind::Other => false,
        Kind::Socket => target.name.starts_with(b"accepted:"),
        Kind::File => {
            let below = target.name.strip_prefix(root.as_slice());
            below.is_some_and(|path| {
                path.starts_with(b"/") && !path.starts_with(b"/logs/") && !path.ends_with(b"-shm")
            })
        }
    }
}

/// Read once: a record begins with the process.
fn root(paths: &Paths) -> Option<&'static Vec<u8>> {
    static ROOT: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    ROOT.get_or_init(|| steer::read(&paths.record)).as_ref()
}

pub(crate) fn note(paths: &Paths, what: What, target: &Target, offset: u64, data: &[u8]) {
    static LOG: OnceLock<c_int> = OnceLock::new();
    let log = *LOG.get_or_init(|| {
        steer::open(
            &paths.record_log,
            libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND,
        )
    });
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut record = vec![what as u8];
    // SAFETY: it only asks for a number.
    let thread = unsafe { libc::gettid() };
    record.extend(thread.to_ne_bytes());
    record.extend(length(&target.name).to_ne_bytes());
    record.extend(offset.to_ne_bytes());
    record.extend(length(data).to_ne_bytes());
    record.extend(&target.name);
    record.extend(data);
    // SAFETY: the buffer is as long as is said. One call, so that records do not mix.
    unsafe { real::write(log, record.as_ptr().cast(), record.len()) };
}

/// Where a plain write will go: the file's position, or its end.
pub(crate) fn position(fd: c_int) -> u64 {
    // SAFETY: these only ask.
    let at = unsafe {
        let appends = libc::fcntl(fd, libc::F_GETFL) & libc::O_APPEND != 0;
        if appends {
            let mut stat = std::mem::zeroed::<libc::stat>();
            libc::fstat(fd, &raw mut stat);
            stat.st_size
        } else {
            libc::lseek(fd, 0, libc::SEEK_CUR)
        }
    };
    u64::try_from(at).unwrap_or(0)
}

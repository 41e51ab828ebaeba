//! The steering directory and its small files.
//!
//! Only calls that this library does not stand in for are made here, or the real ones: a write of its
//! own must not come back to it.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStringExt;
use std::sync::OnceLock;

use libc::c_int;

use crate::real;

const DIRECTORY: &str = "AEX_INTERPOSE";
/// A steering file is a few lines.
const MAX_FILE_BYTES: usize = 4096;

/// Paths of the steering files; nothing when the library is not steered.
pub(crate) struct Paths {
    pub(crate) gate: CString,
    pub(crate) reached: CString,
    pub(crate) fault: CString,
    pub(crate) fault_done: CString,
    pub(crate) record: CString,
    pub(crate) record_log: CString,
}

pub(crate) fn paths() -> Option<&'static Paths> {
    static PATHS: OnceLock<Option<Paths>> = OnceLock::new();
    PATHS
        .get_or_init(|| {
            let directory = std::env::var_os(DIRECTORY)?.into_vec();
            let path =
                |name: &[u8]| CString::new([&directory, b"/".as_slice(), name].concat()).ok();
            Some(Paths {
                gate: path(b"gate")?,
                reached: path(b"reached")?,
                fault: path(b"fault")?,
                fault_done: path(b"fault.done")?,
                record: path(b"record")?,
                record_log: path(b"record.log")?,
            })
        })
        .as_ref()
}

pub(crate) fn exists(path: &CStr) -> bool {
    // SAFETY: a string that ends in a zero byte.
    unsafe { libc::access(path.as_ptr(), libc::F_OK) == 0 }
}

/// Opens with the real function; below zero when that fails.
pub(crate) fn open(path: &CStr, flags: c_int) -> c_int {
    // SAFETY: a string that ends in a zero byte; the mode is there for O_CREAT.
    unsafe { real::open64(path.as_ptr(), flags | libc::O_CLOEXEC, 0o600) }
}

pub(crate) fn close(fd: c_int) {
    // SAFETY: the caller opened it and does not use it again.
    unsafe { libc::close(fd) };
}

/// A steering file's bytes, if it is there.
pub(crate) fn read(path: &CStr) -> Option<Vec<u8>> {
    let fd = open(path, libc::O_RDONLY);
    if fd < 0 {
        return None;
    }
    let mut bytes = vec![0; MAX_FILE_BYTES];
    // SAFETY: the buffer is as long as is said.
    let count = unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len()) };
    close(fd);
    bytes.truncate(usize::try_from(count).ok()?);
    Some(bytes)
}

/// Makes an empty file; whether it was not there before.
pub(crate) fn create_new(path: &CStr) -> bool {
    let fd = open(path, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL);
    if fd < 0 {
        return false;
    }
    close(fd);
    true
}

/// Renames with the real function; whether this call did it.
pub(crate) fn move_away(from: &CStr, to: &CStr) -> bool {
    // SAFETY: two strings that end in a zero byte.
    unsafe { real::rename(from.as_ptr(), to.as_ptr()) == 0 }
}

/// Keeps `errno` as it is for as long as this lives: whoever called looks at it afterwards.
pub(crate) struct KeepErrno(c_int);

impl KeepErrno {
    pub(crate) fn new() -> Self {
        // SAFETY: errno's address is valid in every thread.
        Self(unsafe { *libc::__errno_location() })
    }
}

impl Drop for KeepErrno {
    fn drop(&mut self) {
        set_errno(self.0);
    }
}

pub(crate) fn set_errno(errno: c_int) {
    // SAFETY: errno's address is valid in every thread.
    unsafe { *libc::__errno_location() = errno };
}

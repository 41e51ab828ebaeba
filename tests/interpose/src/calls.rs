//! The functions that programs call in libc's place.

use std::ffi::CStr;

use libc::{
    c_char, c_int, c_void, iovec, mode_t, msghdr, off_t, size_t, sockaddr, socklen_t, ssize_t,
};

use crate::record::{self, What};
use crate::rule::Call;
use crate::steer::{KeepErrno, Paths, set_errno};
use crate::target::{Kind, Target};
use crate::{fault, gate, real, steer};

/// The parts of a vectored write, put together.
///
/// # Safety
/// As of `writev`.
unsafe fn gathered(parts: *const iovec, count: usize) -> Vec<u8> {
    let mut all = Vec::new();
    for at in 0..count {
        // SAFETY: there are `count` of them, each with its own length.
        unsafe {
            let part = &*parts.add(at);
            all.extend(bytes_at(part.iov_base, part.iov_len));
        }
    }
    all
}

/// # Safety
/// There are `count` bytes, or none at all.
unsafe fn bytes_at<'a>(bytes: *const c_void, count: size_t) -> &'a [u8] {
    if bytes.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(bytes.cast(), count) }
}

/// A write of `bytes`, made by `make`. `at`: the offset, where the call names one.
fn written(fd: c_int, bytes: &[u8], at: Option<u64>, make: impl FnOnce() -> ssize_t) -> ssize_t {
    let Some(paths) = steer::paths() else {
        return make();
    };
    let target = Target::of(fd);
    let waits = gate::before(paths, Call::Write, &target, bytes);
    if let Some(errno) = fault::of(paths, Call::Write, &target) {
        set_errno(errno);
        return -1;
    }
    let done = if record::wants(paths, &target) {
        recorded_write(paths, fd, &target, bytes, at, make)
    } else {
        make()
    };
    if waits {
        let _errno = KeepErrno::new();
        gate::hold(paths);
    }
    done
}

fn recorded_write(
    paths: &Paths,
    fd: c_int,
    target: &Target,
    bytes: &[u8],
    at: Option<u64>,
    make: impl FnOnce() -> ssize_t,
) -> ssize_t {
    if target.kind == Kind::Socket {
        // Noted first: whoever reads it may act at once.
        record::note(paths, What::Answer, target, 0, bytes);
        return make();
    }
    let _order = record::order();
    let at = at.unwrap_or_else(|| record::position(fd));
    let done = make();
    let _errno = KeepErrno::new();
    if let Ok(count) = usize::try_from(done) {
        record::note(paths, What::Write, target, at, &bytes[..count]);
    }
    done
}

fn synced(fd: c_int, make: impl FnOnce() -> c_int) -> c_int {
    let Some(paths) = steer::paths() else {
        return make();
    };
    let target = Target::of(fd);
    let waits = gate::before(paths, Call::Sync, &target, &[]);
    if let Some(errno) = fault::of(paths, Call::Sync, &target) {
        set_errno(errno);
        return -1;
    }
    let recorded = record::wants(paths, &target);
    if recorded {
        let _order = record::order();
        record::note(paths, What::SyncBegun, &target, 0, &[]);
    }
    let done = make();
    let _errno = KeepErrno::new();
    if recorded && done == 0 {
        record::note(paths, What::Synced, &target, 0, &[]);
    }
    if waits {
        gate::hold(paths);
    }
    done
}

fn truncated(fd: c_int, bytes: off_t, make: impl FnOnce() -> c_int) -> c_int {
    let Some(paths) = steer::paths() else {
        return make();
    };
    let target = Target::of(fd);
    if let Some(errno) = fault::of(paths, Call::Truncate, &target) {
        set_errno(errno);
        return -1;
    }
    if !record::wants(paths, &target) {
        return make();
    }
    let _order = record::order();
    let done = make();
    let _errno = KeepErrno::new();
    if done == 0 {
        let size = u64::try_from(bytes).unwrap_or(0);
        record::note(paths, What::Truncate, &target, size, &[]);
    }
    done
}

/// # Safety
/// As of `write`.
#[unsafe(no_mangle)]
unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, count: size_t) -> ssize_t {
    // SAFETY: the caller's promise, here and in the call.
    let given = unsafe { bytes_at(bytes, count) };
    // SAFETY: as above.
    written(fd, given, None, || unsafe { real::write(fd, bytes, count) })
}

/// # Safety
/// As of `writev`.
#[unsafe(no_mangle)]
unsafe extern "C" fn writev(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the caller's promise, here and in the call.
    let given = unsafe { gathered(parts, usize::try_from(count).unwrap_or(0)) };
    // SAFETY: as above.
    written(fd, &given, None, || unsafe {
        real::writev(fd, parts, count)
    })
}

/// # Safety
/// As of `pwrite64`.
#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(
    fd: c_int,
    bytes: *const c_void,
    count: size_t,
    at: off_t,
) -> ssize_t {
    // SAFETY: the caller's promise, here and in the call.
    let given = unsafe { bytes_at(bytes, count) };
    // SAFETY: as above.
    written(fd, given, u64::try_from(at).ok(), || unsafe {
        real::pwrite64(fd, bytes, count, at)
    })
}

/// # Safety
/// As of `pwrite`, which has the same offsets on 64-bit machines.
#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite(fd: c_int, bytes: *const c_void, count: size_t, at: off_t) -> ssize_t {
    // SAFETY: the caller's promise.
    unsafe { pwrite64(fd, bytes, count, at) }
}

/// # Safety
/// As of `send`.
#[unsafe(no_mangle)]
unsafe extern "C" fn send(fd: c_int, bytes: *const c_void, count: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the caller's promise, here and in the call.
    let given = unsafe { bytes_at(bytes, count) };
    // SAFETY: as above.
    written(fd, given, None, || unsafe {
        real::send(fd, bytes, count, flags)
    })
}

/// # Safety
/// As of `sendto`.
#[unsafe(no_mangle)]
unsafe extern "C" fn sendto(
    fd: c_int,
    bytes: *const c_void,
    count: size_t,
    flags: c_int,
    to: *const sockaddr,
    to_bytes: socklen_t,
) -> ssize_t {
    // SAFETY: the caller's promise, here and in the call.
    let given = unsafe { bytes_at(bytes, count) };
    // SAFETY: as above.
    written(fd, given, None, || unsafe {
        real::sendto(fd, bytes, count, flags, to, to_bytes)
    })
}

/// # Safety
/// As of `sendmsg`.
#[unsafe(no_mangle)]
unsafe extern "C" fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller's promise, here and in the call.
    let given = unsafe { gathered((*message).msg_iov, (*message).msg_iovlen) };
    // SAFETY: as above.
    written(fd, &given, None, || unsafe {
        real::sendmsg(fd, message, flags)
    })
}

/// # Safety
/// As of `fsync`.
#[unsafe(no_mangle)]
unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    // SAFETY: a descriptor can be any number.
    synced(fd, || unsafe { real::fsync(fd) })
}

/// # Safety
/// As of `fdatasync`.
#[unsafe(no_mangle)]
unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    // SAFETY: a descriptor can be any number.
    synced(fd, || unsafe { real::fdatasync(fd) })
}

/// # Safety
/// As of `ftruncate64`.
#[unsafe(no_mangle)]
unsafe extern "C" fn ftruncate64(fd: c_int, bytes: off_t) -> c_int {
    // SAFETY: a descriptor can be any number.
    truncated(fd, bytes, || unsafe { real::ftruncate64(fd, bytes) })
}

/// # Safety
/// As of `ftruncate`, which has the same lengths on 64-bit machines.
#[unsafe(no_mangle)]
unsafe extern "C" fn ftruncate(fd: c_int, bytes: off_t) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { ftruncate64(fd, bytes) }
}

/// # Safety
/// As of `open64`. Its last argument is variadic there; what is not given is not looked at.
#[unsafe(no_mangle)]
unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the caller's promise.
    let make = || unsafe { real::open64(path, flags, mode) };
    let (Some(paths), true) = (steer::paths(), flags & libc::O_ACCMODE != libc::O_RDONLY) else {
        return make();
    };
    // SAFETY: the caller's promise.
    let target = Target::file(unsafe { CStr::from_ptr(path) }.to_bytes());
    if let Some(errno) = fault::of(paths, Call::Open, &target) {
        set_errno(errno);
        return -1;
    }
    if flags & libc::O_TRUNC == 0 || !record::wants(paths, &target) {
        return make();
    }
    let _order = record::order();
    let fd = make();
    let _errno = KeepErrno::new();
    if fd >= 0 {
        record::note(paths, What::Truncate, &target, 0, &[]);
    }
    fd
}

/// # Safety
/// As of `open`; programs of 64 bits mean the same by it.
#[unsafe(no_mangle)]
unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { open64(path, flags, mode) }
}

/// # Safety
/// As of `unlink`.
#[unsafe(no_mangle)]
unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    named(path, What::Unlink, &[], || unsafe { real::unlink(path) })
}

/// # Safety
/// As of `rename`.
#[unsafe(no_mangle)]
unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: the caller's promise, here and in the call.
    let new = unsafe { CStr::from_ptr(to) }.to_bytes();
    // SAFETY: as above.
    named(from, What::Rename, new, || unsafe {
        real::rename(from, to)
    })
}

/// A call that changes names. `path` is a string that ends in a zero byte.
fn named(path: *const c_char, what: What, data: &[u8], make: impl FnOnce() -> c_int) -> c_int {
    let Some(paths) = steer::paths() else {
        return make();
    };
    // SAFETY: both callers were promised so.
    let target = Target::file(unsafe { CStr::from_ptr(path) }.to_bytes());
    if !record::wants(paths, &target) {
        return make();
    }
    let _order = record::order();
    let done = make();
    let _errno = KeepErrno::new();
    if done == 0 {
        record::note(paths, what, &target, 0, data);
    }
    done
}

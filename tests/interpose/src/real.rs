//! The functions of libc that this library stands in for, found behind it.

use std::ffi::CStr;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use libc::{
    c_char, c_int, c_void, iovec, mode_t, msghdr, off_t, size_t, sockaddr, socklen_t, ssize_t,
};

/// The next definition of a symbol after this library's own.
fn next(name: &'static CStr, found: &AtomicPtr<c_void>) -> *mut c_void {
    let known = found.load(Relaxed);
    if !known.is_null() {
        return known;
    }
    // SAFETY: the name ends in a zero byte, and RTLD_NEXT needs no handle.
    let symbol = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    if symbol.is_null() {
        // Without the real function there is nothing that could be done instead.
        std::process::abort();
    }
    found.store(symbol, Relaxed);
    symbol
}

macro_rules! real {
    ($($name:ident: fn($($argument:ident: $kind:ty),*) -> $result:ty;)*) => {$(
        /// # Safety
        /// As of the function of libc.
        pub(crate) unsafe fn $name($($argument: $kind),*) -> $result {
            static FOUND: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
            const NAME: &CStr = match CStr::from_bytes_with_nul(
                concat!(stringify!($name), "\0").as_bytes(),
            ) {
                Ok(name) => name,
                Err(_) => panic!("a name ends in one zero byte"),
            };
            let symbol = next(NAME, &FOUND);
            // SAFETY: the symbol is libc's function of this name, whose signature this is; of what
            // it is given the caller has made sure.
            unsafe {
                let function: unsafe extern "C" fn($($kind),*) -> $result =
                    std::mem::transmute(symbol);
                function($($argument),*)
            }
        }
    )*};
}

real! {
    write: fn(fd: c_int, bytes: *const c_void, count: size_t) -> ssize_t;
    writev: fn(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t;
    pwrite64: fn(fd: c_int, bytes: *const c_void, count: size_t, at: off_t) -> ssize_t;
    send: fn(fd: c_int, bytes: *const c_void, count: size_t, flags: c_int) -> ssize_t;
    sendto: fn(
        fd: c_int,
        bytes: *const c_void,
        count: size_t,
        flags: c_int,
        to: *const sockaddr,
        to_bytes: socklen_t
    ) -> ssize_t;
    sendmsg: fn(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t;
    fsync: fn(fd: c_int) -> c_int;
    fdatasync: fn(fd: c_int) -> c_int;
    ftruncate64: fn(fd: c_int, bytes: off_t) -> c_int;
    open64: fn(path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
    unlink: fn(path: *const c_char) -> c_int;
    rename: fn(from: *const c_char, to: *const c_char) -> c_int;
}

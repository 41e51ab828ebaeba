//! Where an operator's key lies for as long as it is held: pages of its own, locked into RAM, left out of
//! dumps, wiped when it goes. The header that carries it and what looks for it in answers are views of
//! the same bytes; there is no other copy that lasts.
//!
//! Absent on purpose: what passes by. The copies that a connection's buffers hold are wiped by the
//! allocator when they are freed, see `main.rs`.

use std::fmt;
use std::sync::Arc;

use aex_admin_proto::sandbox::Memory;
use bytes::Bytes;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use secrecy::ExposeSecret;
use secstr::SecVec;

const SCHEME: &[u8] = b"Bearer ";
/// Room for the longest key that a header takes, and to spare. What is longer is cut, and then refused
/// for its length like any other that is too long.
const ROOM: usize = 8192;

/// Whole pages, since locking, unlocking and leaving out of dumps are done by the page.
#[repr(C, align(4096))]
#[derive(Clone, Copy)]
struct Pages([u8; ROOM]);

/// A key. Printed nowhere.
pub struct LockedKey {
    /// One element, on the heap.
    pages: SecVec<Pages>,
    end: usize,
}

impl LockedKey {
    #[must_use]
    pub fn new(key: &str) -> Arc<Self> {
        let mut pages = SecVec::new(vec![Pages([0; ROOM])]);
        let room = &mut pages.unsecure_mut()[0].0;
        // Where a longer one is cut does not matter: it is refused.
        let length = key.len().min(ROOM - SCHEME.len());
        let end = SCHEME.len() + length;
        room[..SCHEME.len()].copy_from_slice(SCHEME);
        room[SCHEME.len()..end].copy_from_slice(&key.as_bytes()[..length]);
        Arc::new(Self { pages, end })
    }

    /// `Bearer` and the key: a view, not a copy.
    #[must_use]
    pub fn bearer(self: &Arc<Self>) -> Bytes {
        Bytes::from_owner(View(Arc::clone(self)))
    }

    fn whole(&self) -> &[u8] {
        &self.pages.unsecure()[0].0[..self.end]
    }
}

impl ExposeSecret<str> for LockedKey {
    fn expose_secret(&self) -> &str {
        // It came as text.
        std::str::from_utf8(&self.whole()[SCHEME.len()..]).unwrap_or_default()
    }
}

impl fmt::Debug for LockedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LockedKey(redacted)")
    }
}

struct View(Arc<LockedKey>);

impl AsRef<[u8]> for View {
    fn as_ref(&self) -> &[u8] {
        self.0.whole()
    }
}

/// Locks all of this process's memory, now and later, where that has no limit at which it would fail:
/// as a service of the host. Otherwise keys alone are locked, which is tried here once.
#[must_use]
pub fn lock_memory() -> Memory {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_MEMLOCK) {
        // Best effort: the pages with keys need little.
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, hard.max(soft), hard);
        // Pages are locked when they are used, not when they are only set aside.
        let on_fault = MlockAllFlags::from_bits_retain(nix::libc::MCL_ONFAULT);
        let all = MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault;
        if hard == RLIM_INFINITY && mlockall(all).is_ok() {
            return Memory::All;
        }
    }
    let _probe = LockedKey::new("x");
    if locked_bytes().is_some_and(|kib| kib > 0) {
        Memory::Keys
    } else {
        Memory::Unlocked
    }
}

/// KiB of this process that are locked, as the kernel counts.
fn locked_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmLck:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_and_its_header_are_the_same_bytes() {
        let key = LockedKey::new("fake-key");
        assert_eq!(key.expose_secret(), "fake-key");
        let header = key.bearer();
        assert_eq!(&header[..], b"Bearer fake-key");
        assert_eq!(header.as_ptr(), key.whole().as_ptr());
        assert_eq!(key.whole().as_ptr().align_offset(4096), 0, "whole pages");
        drop(key);
        assert_eq!(&header[..], b"Bearer fake-key");
        let long = LockedKey::new(&"k".repeat(2 * ROOM));
        assert_eq!(long.whole().len(), ROOM);
        assert!(!format!("{long:?}").contains("kk"));
    }

    #[test]
    fn its_pages_are_locked() {
        let before = locked_bytes().unwrap();
        let key = LockedKey::new("fake-key");
        // No more than this may be had under a low limit; then there is nothing to see.
        let (soft, _) = getrlimit(Resource::RLIMIT_MEMLOCK).unwrap();
        if soft > 1024 * 1024 {
            assert!(locked_bytes().unwrap() >= before.max(8), "{before}");
        }
        drop(key);
    }
}

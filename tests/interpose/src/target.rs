//! What a descriptor leads to, as rules name it.

use std::mem::MaybeUninit;

use libc::{c_int, sa_family_t, sockaddr_storage, socklen_t};

const MAX_PATH_BYTES: usize = 4096;

#[derive(PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Socket,
    Other,
}

/// A file is named by its path; a socket by its peer's: `tcp`, or the path of a Unix socket, with
/// `accepted:` before it where this process is the one that listens there.
pub(crate) struct Target {
    pub(crate) kind: Kind,
    pub(crate) name: Vec<u8>,
}

impl Target {
    pub(crate) fn of(fd: c_int) -> Self {
        let kind = kind(fd);
        let name = match kind {
            Kind::File => path(fd),
            Kind::Socket => peer(fd),
            Kind::Other => None,
        };
        Self {
            kind,
            name: name.unwrap_or_default(),
        }
    }

    pub(crate) fn file(path: &[u8]) -> Self {
        Self {
            kind: Kind::File,
            name: path.to_vec(),
        }
    }
}

fn kind(fd: c_int) -> Kind {
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the structure is ours, and large enough.
    let done = unsafe { libc::fstat(fd, stat.as_mut_ptr()) };
    // SAFETY: zeroed, and filled in where the call succeeded.
    let mode = unsafe { stat.assume_init() }.st_mode & libc::S_IFMT;
    match mode {
        libc::S_IFREG if done == 0 => Kind::File,
        libc::S_IFSOCK if done == 0 => Kind::Socket,
        _ => Kind::Other,
    }
}

fn path(fd: c_int) -> Option<Vec<u8>> {
    let link = std::ffi::CString::new(format!("/proc/self/fd/{fd}")).ok()?;
    let mut bytes = vec![0; MAX_PATH_BYTES];
    // SAFETY: the buffer is as long as is said.
    let count = unsafe { libc::readlink(link.as_ptr(), bytes.as_mut_ptr().cast(), bytes.len()) };
    bytes.truncate(usize::try_from(count).ok()?);
    Some(bytes)
}

type NameOf = unsafe extern "C" fn(c_int, *mut libc::sockaddr, *mut socklen_t) -> c_int;

fn peer(fd: c_int) -> Option<Vec<u8>> {
    match address(fd, libc::getpeername)? {
        Address::Tcp => Some(b"tcp".to_vec()),
        Address::Unix(path) if !path.is_empty() => Some(path),
        Address::Unix(_) => match address(fd, libc::getsockname)? {
            Address::Unix(own) => Some([b"accepted:".as_slice(), &own].concat()),
            Address::Tcp => None,
        },
    }
}

enum Address {
    Tcp,
    Unix(Vec<u8>),
}

fn address(fd: c_int, name_of: NameOf) -> Option<Address> {
    let mut storage = MaybeUninit::<sockaddr_storage>::zeroed();
    let mut bytes = socklen_t::try_from(size_of::<sockaddr_storage>()).ok()?;
    // SAFETY: the structure is ours, and as long as is said.
    if unsafe { name_of(fd, storage.as_mut_ptr().cast(), &raw mut bytes) } != 0 {
        return None;
    }
    // SAFETY: zeroed before it was filled in.
    let storage = unsafe { storage.assume_init() };
    if is(storage.ss_family, libc::AF_INET) || is(storage.ss_family, libc::AF_INET6) {
        return Some(Address::Tcp);
    }
    if !is(storage.ss_family, libc::AF_UNIX) {
        return None;
    }
    // SAFETY: the family says that it is one, and it is smaller than the storage.
    let unix = unsafe { &*(&raw const storage).cast::<libc::sockaddr_un>() };
    let path = unix.sun_path.iter().take_while(|&&c| c != 0);
    Some(Address::Unix(path.map(|&c| c.to_ne_bytes()[0]).collect()))
}

fn is(family: sa_family_t, expected: c_int) -> bool {
    c_int::from(family) == expected
}

//! The sockets that workers call: in user mode one, which is made here; as a service of the host systemd's,
//! by name, and the workers of one group have one of their own.
//!
//! | name | who calls | places |
//! | --- | --- | --- |
//! | `egress` | workers of any agents | [`PLACES`] |
//! | `egress-GROUP` | the worker of GROUP alone | [`GROUP_PLACES`], fewer where there are many groups |
//!
//! A worker that was taken over can fill its own socket, its queue too, and no other. All workers are one
//! uid, so which of these a worker sees is its unit's to say. Absent on purpose: accepting.

use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aex_admin_proto::service;
use tokio::net::UnixListener;

use crate::EgressError;

/// `FileDescriptorName=` of the socket for workers of any agents.
const COMMON: &str = "egress";
const GROUP: &str = "egress-";
/// Connections at the common socket at once.
pub const PLACES: usize = 4096;
/// At a group's: as many as the egress carries with one provider.
pub const GROUP_PLACES: usize = 1024;
/// At all groups' together. Each may need a second descriptor, towards its provider, and `LimitNOFILE=` of
/// the unit is 65,536.
const GROUPS_PLACES: usize = 16 * GROUP_PLACES;

/// One socket; one that was made here is removed when dropped.
#[derive(Debug)]
pub struct Door {
    pub(crate) listener: UnixListener,
    made: Option<PathBuf>,
    /// Whose processes may connect.
    pub(crate) uid: u32,
    /// Connections at once.
    pub(crate) places: usize,
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(path) = &self.made {
            // A restart removes it too.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Takes over the sockets that systemd made, for the workers' user. Needs a tokio runtime.
///
/// # Errors
/// The common one is missing, one is not known, or there is no such user.
pub fn inherited(worker_user: &str) -> Result<Vec<Door>, EgressError> {
    let uid = service::uid_of(worker_user).map_err(EgressError::Inherited)?;
    let handed = service::unix_listeners().map_err(EgressError::Inherited)?;
    let names: Vec<&str> = handed.iter().map(|(name, _)| name.as_str()).collect();
    let places = places(&names).map_err(EgressError::Inherited)?;
    (handed.into_iter().zip(places))
        .map(|((_, listener), places)| {
            let listener = listener
                .set_nonblocking(true)
                .and_then(|()| UnixListener::from_std(listener))
                .map_err(EgressError::Inherited)?;
            Ok(Door {
                listener,
                made: None,
                uid,
                places,
            })
        })
        .collect()
}

/// How many connections the socket of each name may have.
fn places(names: &[&str]) -> io::Result<Vec<usize>> {
    let is_group = |name: &str| {
        name.strip_prefix(GROUP)
            .is_some_and(|group| !group.is_empty())
    };
    if let Some(unknown) = (names.iter()).find(|name| **name != COMMON && !is_group(name)) {
        return Err(io::Error::other(format!(
            "one is named {unknown:?}, and nobody knows what for: FileDescriptorName= must be egress or egress-GROUP"
        )));
    }
    if !names.contains(&COMMON) {
        return Err(io::Error::other(format!(
            "none is named {COMMON}: start it with `systemctl start aex.target`, not by hand"
        )));
    }
    let groups = names.iter().filter(|name| is_group(name)).count();
    let of_group = (GROUPS_PLACES / groups.max(1)).clamp(1, GROUP_PLACES);
    let of = |name: &&str| if is_group(name) { of_group } else { PLACES };
    Ok(names.iter().map(of).collect())
}

/// Makes the directory of a file, for this user alone, if it is missing.
///
/// # Errors
/// It cannot be made.
pub fn private_parent(path: &Path) -> Result<(), EgressError> {
    let Some(dir) = path.parent() else {
        return Ok(());
    };
    std::fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(dir)
        .map_err(|error| EgressError::file("cannot make directory", dir, error))
}

/// Makes the one socket of user mode, in a directory that is there.
///
/// # Errors
/// Another process serves there, or it cannot be made.
pub fn bind(path: &Path) -> Result<Door, EgressError> {
    let failed = |what| move |error| EgressError::file(what, path, error);
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(EgressError::AlreadyRunning(path.to_owned()));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("cannot remove the old socket")(error));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed("cannot make socket"))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(failed("cannot protect socket"))?;
    Ok(Door {
        listener,
        made: Some(path.to_owned()),
        uid: nix::unistd::getuid().as_raw(),
        places: PLACES,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_places_of_its_own_and_the_common_socket_keeps_its() {
        assert_eq!(places(&["egress"]).unwrap(), [PLACES]);
        assert_eq!(
            places(&["egress-red-team", "egress", "egress-blue"]).unwrap(),
            [GROUP_PLACES, PLACES, GROUP_PLACES]
        );
        for groups in [16, 17, 1000, 100_000] {
            let mut names = vec!["egress-g"; groups];
            names.push("egress");
            let shared = places(&names).unwrap();
            assert_eq!(shared.last(), Some(&PLACES));
            assert!(shared[..groups].iter().all(|&of| of == shared[0] && of > 0));
            let together: usize = shared[..groups].iter().sum();
            assert!(
                together <= GROUPS_PLACES.max(groups),
                "{groups}: {together}"
            );
        }
    }

    #[test]
    fn without_the_common_socket_or_with_one_that_is_not_known_nothing_starts() {
        for names in [
            &[][..],
            &["egress-red"],
            &["egress", "egress-"],
            &["egress", ""],
        ] {
            assert!(places(names).is_err(), "{names:?}");
        }
        for unknown in ["worker", "Egress", "egress2", "egress.socket"] {
            let error = places(&["egress", unknown]).unwrap_err().to_string();
            assert!(
                error.contains(unknown) && error.contains("FileDescriptorName="),
                "{error}"
            );
        }
    }
}

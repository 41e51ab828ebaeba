//! The sockets that `aex-admin` serves: in user mode it makes them itself, for its own uid; as a service
//! of the host it has them from systemd, by name, and the roles are different users.
//!
//! | name | role | who may connect |
//! | --- | --- | --- |
//! | `operator` | operator | whom the socket's file lets in |
//! | `auditor` | auditor | whom the socket's file lets in |
//! | `worker` | worker | the workers' user |
//! | `worker-GROUP` | worker, for agents below GROUP | the workers' user |
//! | `egress` | egress | the egress's user |

use std::io;
use std::path::PathBuf;

use aex_admin_proto::places::Places;
use aex_admin_proto::service;
use nix::unistd::geteuid;
use tokio::net::UnixListener;

use crate::rpc::{self, Door, Role};

const GROUP_WORKER: &str = "worker-";

/// The users of the other programs, where each program has its own.
#[derive(Debug, Clone)]
pub struct Callers {
    pub worker_user: String,
    pub egress_user: String,
}

#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    #[error("cannot make {path}: {source}")]
    Make { path: PathBuf, source: io::Error },
    #[error("cannot take over the sockets of systemd: {0}")]
    Inherited(io::Error),
    #[error(
        "systemd handed over no socket named {0}: start it with `systemctl start aex.target`, not by hand"
    )]
    Missing(&'static str),
    #[error("systemd handed over a socket named {0:?}, and nobody knows what for")]
    Unknown(String),
    #[error("{0}")]
    User(io::Error),
}

/// Doors that are open, and the files to remove when they close.
#[derive(Debug)]
pub struct Doors {
    pub open: Vec<(UnixListener, Door)>,
    pub made: Vec<PathBuf>,
}

/// Makes the sockets of user mode, for this uid alone. Needs a tokio runtime.
///
/// # Errors
/// One cannot be made.
pub fn make(places: &Places) -> Result<Doors, DoorError> {
    let failed = |path: &PathBuf| {
        let path = path.clone();
        move |source| DoorError::Make { path, source }
    };
    std::fs::create_dir_all(&places.run).map_err(failed(&places.run))?;
    let wanted = [
        (places.operator_socket(), Role::Operator),
        (places.auditor_socket(), Role::Auditor),
        (places.worker_socket(), Role::Worker),
        (places.egress_role_socket(), Role::Egress),
    ];
    let mut doors = Doors {
        open: Vec::new(),
        made: Vec::new(),
    };
    for (path, role) in wanted {
        let listener = rpc::bind(&path).map_err(failed(&path))?;
        let door = Door {
            role,
            only_uid: Some(geteuid().as_raw()),
            group: None,
        };
        doors.open.push((listener, door));
        doors.made.push(path);
    }
    Ok(doors)
}

/// Takes the sockets of the host's service over. Needs a tokio runtime.
///
/// # Errors
/// One is missing, or is not known.
pub fn inherited(callers: &Callers) -> Result<Doors, DoorError> {
    let worker_uid = service::uid_of(&callers.worker_user).map_err(DoorError::User)?;
    let egress_uid = service::uid_of(&callers.egress_user).map_err(DoorError::User)?;
    let handed = service::unix_listeners().map_err(DoorError::Inherited)?;
    for needed in ["operator", "worker", "egress"] {
        if !handed.iter().any(|(name, _)| name == needed) {
            return Err(DoorError::Missing(needed));
        }
    }
    let mut open = Vec::with_capacity(handed.len());
    for (name, listener) in handed {
        let door = door_of(&name, worker_uid, egress_uid).ok_or(DoorError::Unknown(name))?;
        let listener = listener
            .set_nonblocking(true)
            .and_then(|()| UnixListener::from_std(listener))
            .map_err(DoorError::Inherited)?;
        open.push((listener, door));
    }
    // The files are systemd's.
    Ok(Doors {
        open,
        made: Vec::new(),
    })
}

fn door_of(name: &str, worker_uid: u32, egress_uid: u32) -> Option<Door> {
    let (role, only_uid, group) = match name {
        "operator" => (Role::Operator, None, None),
        "auditor" => (Role::Auditor, None, None),
        "worker" => (Role::Worker, Some(worker_uid), None),
        "egress" => (Role::Egress, Some(egress_uid), None),
        other => {
            let group = other.strip_prefix(GROUP_WORKER).filter(|g| !g.is_empty())?;
            (Role::Worker, Some(worker_uid), Some(group.to_owned()))
        }
    };
    Some(Door {
        role,
        only_uid,
        group,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_known_by_its_name() {
        let door = |name| door_of(name, 11, 12);
        let of = |role, only_uid, group: Option<&str>| {
            Some(Door {
                role,
                only_uid,
                group: group.map(str::to_owned),
            })
        };
        assert_eq!(door("operator"), of(Role::Operator, None, None));
        assert_eq!(door("auditor"), of(Role::Auditor, None, None));
        assert_eq!(door("worker"), of(Role::Worker, Some(11), None));
        assert_eq!(door("egress"), of(Role::Egress, Some(12), None));
        assert_eq!(
            door("worker-red-team"),
            of(Role::Worker, Some(11), Some("red-team"))
        );
        for unknown in ["", "worker-", "Worker", "operators", "egress2"] {
            assert_eq!(door(unknown), None, "{unknown}");
        }
    }
}

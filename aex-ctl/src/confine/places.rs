//! What is to be hidden from a confined command: AEX's own places, and the sockets by which programs are
//! run outside on one's behalf.

use std::path::{Path, PathBuf};

use aex_admin_proto::places::Places;

use crate::fault::Fault;
use crate::link::Kernel;

/// Variables that lead to those sockets.
pub(super) const WAYS_OUT: [&str; 5] = [
    "TMUX",
    "STY",
    "DBUS_SESSION_BUS_ADDRESS",
    "DBUS_STARTER_ADDRESS",
    "XDG_RUNTIME_DIR",
];

/// Of the system mode, beside its [`Places`].
const SYSTEM: [&str; 5] = [
    "/var/lib/private/aex",
    "/run/aex-egress",
    "/run/aex-proxy",
    "/run/credentials",
    "/etc/credstore.encrypted",
];

/// Agents' own sockets, which stay.
pub(super) const AGENTS: &str = "/run/aex/agents";

/// Everything of AEX, whichever kernel this command line speaks to. Real paths, so that no link leads
/// past them; what is not there, or may not be looked at, is left out.
pub(super) fn of_aex(kernel: &Kernel) -> Result<Vec<PathBuf>, Fault> {
    let system = Places::system();
    let mut all: Vec<PathBuf> = SYSTEM.map(PathBuf::from).into();
    for places in [
        Some(&kernel.places),
        Some(&system),
        Places::from_environment().as_ref(),
    ]
    .into_iter()
    .flatten()
    {
        let config = places.config_file.parent().unwrap_or(Path::new("/etc/aex"));
        let ledger = places.ledger.parent().unwrap_or(&places.home);
        all.extend([&places.home, &places.run, &places.logs].map(Clone::clone));
        all.extend([config.to_owned(), ledger.to_owned()]);
    }
    all.push(kernel.socket.clone());
    let mut real = Vec::new();
    for path in all {
        match path.canonicalize() {
            Ok(path) => real.push(path),
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(Fault::file("find", &path, &error)),
        }
    }
    Ok(super::outermost(real))
}

/// Where other programs of this user or of the system take orders.
pub(super) fn with_ways_out(uid: u32) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = [
        format!("/run/user/{uid}"),
        format!("/tmp/tmux-{uid}"),
        "/run/dbus".into(),
        "/run/systemd/private".into(),
        "/run/screen".into(),
    ]
    .map(PathBuf::from)
    .into();
    let named = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    all.extend(named.filter(|path| path.is_absolute() && path != Path::new("/")));
    let real = all.into_iter().filter_map(|path| path.canonicalize().ok());
    super::outermost(real.collect())
}

/// Not there, or not for this user: then not for the command either.
fn is_absent(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::NotFound
            | std::io::ErrorKind::NotADirectory
            | std::io::ErrorKind::PermissionDenied
    )
}

//! What is to be hidden from a confined command: AEX's own places, and the sockets by which programs are
//! run outside on one's behalf.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aex_admin_proto::places::Places;

use nix::unistd::geteuid;

use super::sockets;
use crate::fault::Fault;
use crate::link::Kernel;

/// Variables that lead to those sockets.
pub(super) const WAYS_OUT: [&str; 7] = [
    "TMUX",
    "TMUX_TMPDIR",
    "STY",
    "SCREENDIR",
    "DBUS_SESSION_BUS_ADDRESS",
    "DBUS_STARTER_ADDRESS",
    "XDG_RUNTIME_DIR",
];

/// Of the system mode, beside its [`Places`].
const SYSTEM: [&str; 4] = [
    "/var/lib/private/aex",
    "/run/aex-egress",
    "/run/credentials",
    "/etc/credstore.encrypted",
];

/// Of directories in a place of AEX's, and of each one's entries: `config/policies` has the most.
const MAX_DEPTH: usize = 2;
const MAX_ENTRIES: usize = 10_000;

/// Agents' own sockets, which stay.
pub(super) const AGENTS: &str = "/run/aex/agents";

/// Everything of AEX: of the kernel that this command line speaks to, of the host's, and of every other that
/// this user has. Real paths, so that no link leads past them, and what links in them lead to; what is not
/// there, or may not be looked at, is left out.
pub(super) fn of_aex(kernel: &Kernel, ledger: &Path) -> Result<Vec<PathBuf>, Fault> {
    let mut all: Vec<PathBuf> = SYSTEM.map(PathBuf::from).into();
    let mut kernels = vec![kernel.places.clone(), Places::system()];
    kernels.extend(Places::from_environment());
    kernels.extend(named("HOME").map(|home| Places::user(&home.join(".aex"))));
    // A socket that was named says nothing of the files behind it.
    kernels.extend(ledger.parent().map(Places::user));
    let listening = sockets::listening()
        .map_err(|error| Fault::file("read", Path::new(sockets::TABLE), &error))?;
    kernels.extend(listening.iter().filter_map(|socket| kernel_at(socket)));
    for places in kernels {
        let config = places.config_file.parent().unwrap_or(Path::new("/etc/aex"));
        let ledger = places.ledger.parent().unwrap_or(&places.home);
        all.extend([&places.home, &places.run, &places.logs].map(Clone::clone));
        all.extend([config.to_owned(), ledger.to_owned()]);
    }
    all.push(kernel.socket.clone());
    all.extend(
        kernel
            .daemon()
            .and_then(|daemon| Some(daemon.front.tls?.key)),
    );
    let mut real = Vec::new();
    for path in all {
        match path.canonicalize() {
            Ok(path) => real.push(path),
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(Fault::file("find", &path, &error)),
        }
    }
    for place in super::outermost(real.clone()) {
        links_in(&place, MAX_DEPTH, &mut real);
    }
    Ok(super::outermost(real))
}

/// The kernel whose operators' socket this is, if it is one.
fn kernel_at(socket: &Path) -> Option<Places> {
    let home = socket.parent()?.parent()?;
    let places = Places::user(home);
    (places.operator_socket() == socket && places.ledger.is_file()).then_some(places)
}

/// Where links in a place of AEX's lead to: settings are often kept elsewhere.
fn links_in(place: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    for entry in entries.take(MAX_ENTRIES) {
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_symlink() {
            found.extend(entry.path().canonicalize());
        } else if kind.is_dir() && depth > 0 {
            links_in(&entry.path(), depth - 1, found);
        }
    }
}

/// Certificates that the daemon goes by, and that the command may need to know it.
pub(super) fn of_tls(kernel: &Kernel) -> Vec<PathBuf> {
    let tls = kernel.daemon().and_then(|daemon| daemon.front.tls);
    let all = tls
        .into_iter()
        .flat_map(|tls| [Some(tls.cert), tls.client_ca]);
    all.flatten()
        .filter_map(|path| path.canonicalize().ok())
        .collect()
}

/// AEX's own, beside this one: the supervisor starts them again, outside.
pub(super) fn programs() -> Vec<PathBuf> {
    let here = std::env::current_exe().and_then(|own| own.canonicalize());
    let directory = here.ok().and_then(|own| own.parent().map(Path::to_owned));
    let all = directory.into_iter().flat_map(|directory| {
        ["aex", "aex-ctl", "aex-admin", "aex-egress", "aex-proxy"].map(|name| directory.join(name))
    });
    all.filter_map(|path| path.canonicalize().ok()).collect()
}

/// Where other programs of this user or of the system take orders.
pub(super) fn with_ways_out(uid: u32) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = [
        format!("/run/user/{uid}"),
        "/run/dbus".into(),
        "/run/systemd/private".into(),
        "/run/screen".into(),
    ]
    .map(PathBuf::from)
    .into();
    all.extend(named("XDG_RUNTIME_DIR"));
    all.extend(terminals(uid).into_iter().map(|(path, _)| path));
    all.extend(tmux_of_this_terminal());
    let real = (all.into_iter())
        .filter(|path| !is_somebody_elses_link(path))
        .filter_map(|path| path.canonicalize().ok());
    super::outermost(real.collect())
}

/// In a directory that all may write another user could choose what is hidden. The programs themselves follow
/// none.
fn is_somebody_elses_link(path: &Path) -> bool {
    let own = geteuid().as_raw();
    fs::symlink_metadata(path).is_ok_and(|stat| stat.is_symlink() && stat.uid() != own)
}

/// Makes the places at which this user's programs would take orders later: what is there can be hidden.
/// What cannot be made is not for this user to make.
pub(super) fn make_ways_out(uid: u32) {
    for (path, mode) in terminals(uid) {
        let _ = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path.parent().unwrap_or(&path));
        if fs::DirBuilder::new().mode(mode).create(&path).is_ok() && mode & 0o1000 != 0 {
            // The mask of this process took from it what others need.
            let _ = fs::set_permissions(&path, fs::Permissions::from_mode(mode));
        }
    }
}

/// Programs that type into terminals, or edit: where their sockets are by default, and the mode that they
/// give such a directory.
fn terminals(uid: u32) -> Vec<(PathBuf, u32)> {
    let mut all = vec![
        (format!("/tmp/tmux-{uid}").into(), 0o700),
        (format!("/tmp/emacs{uid}").into(), 0o700),
        (format!("/tmp/zellij-{uid}").into(), 0o700),
        ("/tmp/screens".into(), 0o1777),
        ("/tmp/uscreens".into(), 0o1777),
    ];
    let tmux = named("TMUX_TMPDIR").map(|path| path.join(format!("tmux-{uid}")));
    let screens = [
        named("SCREENDIR"),
        named("HOME")
            .filter(|path| path.is_dir())
            .map(|path| path.join(".screen")),
    ];
    let own = tmux.into_iter().chain(screens.into_iter().flatten());
    all.extend(own.map(|path| (path, 0o700)));
    all
}

/// A server of a place of its own: the directory where that is the server's alone, otherwise the socket.
fn tmux_of_this_terminal() -> Option<PathBuf> {
    let told = std::env::var("TMUX").ok()?;
    let socket = Path::new(told.rsplitn(3, ',').nth(2)?);
    let directory = socket.parent()?.canonicalize().ok()?;
    let stat = fs::metadata(&directory).ok()?;
    let holds_others = [std::env::current_dir().ok(), named("HOME")]
        .into_iter()
        .flatten()
        .filter_map(|path| path.canonicalize().ok())
        .any(|path| path.starts_with(&directory));
    // As the namespace in which this is asked counts its users.
    let is_callers = stat.uid() == geteuid().as_raw();
    let is_its_own = is_callers && stat.mode() & 0o077 == 0 && !holds_others;
    Some(if is_its_own {
        directory
    } else {
        directory.join(socket.file_name()?)
    })
}

fn named(variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    path.filter(|path| path.is_absolute() && path != Path::new("/"))
}

/// Whether a command finds nothing at `path`, when `hidden` is hidden from it.
pub(super) fn is_hidden(path: &Path, hidden: &[PathBuf]) -> bool {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    hidden.iter().any(|one| path.starts_with(one)) && !path.starts_with(AGENTS)
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

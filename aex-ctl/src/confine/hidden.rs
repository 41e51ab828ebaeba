//! Hides paths under empty file systems that belong to the first namespace, and holds the ways to
//! them fast.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::mount::MsFlags;
use nix::unistd::{AccessFlags, access};

use super::{
    command_fault, failed, kernel_files, mounts, no_namespaces, outermost, places, sockets,
    terminals,
};
use crate::args::ConfinedArgs;
use crate::fault::Fault;

/// Devices of `/dev` that a command cannot do without, and that give nothing away.
const DEVICES: [&str; 7] = ["null", "zero", "full", "random", "urandom", "tty", "shm"];

/// Hides what is told wherever it is to be seen, and the ways out; and holds what is to be used.
pub(super) fn hide(args: &ConfinedArgs, uid: u32) -> Result<(), Fault> {
    let table = mounts::table().map_err(|error| failed("read the mounts", error))?;
    let used: Vec<PathBuf> = (args.hold.iter().chain(&args.allow_socket))
        .filter_map(|path| path.canonicalize().ok())
        .collect();
    let mut sockets =
        sockets::listening().map_err(|error| failed("look who listens at sockets", error))?;
    sockets.retain(|path| !used.contains(path));
    // What is mounted in a hidden place has a place of its own elsewhere.
    let every = mounts::all(&table);
    let within = (every.iter().map(|mount| &mount.at))
        .filter(|at| args.hide.iter().any(|path| at.starts_with(path)));
    let mut all: Vec<PathBuf> = (args.hide.iter().chain(&sockets).chain(within))
        .flat_map(|path| mounts::aliases(&table, path))
        .collect();
    all.extend(places::with_ways_out(uid));
    if all.iter().any(|path| path == Path::new("/")) {
        return Err(command_fault("the whole of / would be hidden".into()));
    }
    let ways: Vec<PathBuf> = all.iter().chain(&args.hold).cloned().collect();
    hold_ways_to(&ways, &every)?;
    let agents = open_place(Path::new(places::AGENTS));
    for path in outermost(all) {
        match cover(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // No way to it for this user: nor for the command.
            Err(error) if is_out_of_reach(&path, &error) => {}
            Err(error) => {
                return Err(no_namespaces(&format!("hide {}", path.display()), error));
            }
            Ok(()) => {}
        }
    }
    if let Ok(agents) = agents {
        show_again(&agents, Path::new(places::AGENTS))
            .map_err(|error| no_namespaces("show /run/aex/agents", error))?;
    }
    for path in &args.hold {
        hold(path).map_err(|error| no_namespaces(&format!("hold {}", path.display()), error))?;
    }
    let terminal = terminals::own();
    if uid == 0 {
        // Root opens disks, and on them all that is hidden.
        few_devices().map_err(|error| no_namespaces("make another /dev", error))?;
    }
    terminals::separate(terminal.as_ref(), uid)
        .map_err(|error| no_namespaces("make other terminals", error))
}

/// One that something is mounted on is neither written nor replaced.
fn hold(path: &Path) -> io::Result<()> {
    bind(path, path)?;
    kernel_files::remount(path, kernel_files::flags_at(path)?)
}

/// A directory that is moved takes with it what hides things below it, and another could be put in its
/// place, to be taken for the old one later. One that something is mounted on cannot be moved.
fn hold_ways_to(paths: &[PathBuf], table: &[mounts::Mount]) -> Result<(), Fault> {
    let mut held: Vec<&Path> = paths
        .iter()
        .flat_map(|path| path.ancestors().skip(1))
        .filter(|path| path.parent().is_some_and(may_change))
        .filter(|path| table.iter().all(|mount| mount.at != **path))
        .collect();
    // From above: what is mounted above another would hide it.
    held.sort();
    held.dedup();
    for path in held {
        match bind(path, path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if is_out_of_reach(path, &error) => {}
            done => {
                done.map_err(|error| no_namespaces(&format!("hold {}", path.display()), error))?;
            }
        }
    }
    Ok(())
}

/// Whether the caller may rename what is in this directory, at once or after a chmod of its own.
fn may_change(directory: &Path) -> bool {
    access(directory, AccessFlags::W_OK).is_ok()
}

pub(super) fn is_out_of_reach(path: &Path, error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
        && fs::symlink_metadata(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

pub(super) fn open_place(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    options.read(true).custom_flags(flags.bits()).open(path)
}

/// An empty directory of the same mode over a directory, nothing over anything else.
pub(super) fn cover(path: &Path) -> io::Result<()> {
    // What is looked at is what is covered: a link that is put there meanwhile is not followed.
    let mut options = File::options();
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let place = options.read(true).custom_flags(flags.bits()).open(path)?;
    let stat = place.metadata()?;
    let path = &by_descriptor(&place);
    if stat.is_symlink() {
        return Ok(());
    }
    if stat.is_dir() {
        // Programs refuse to keep their sockets where others may look.
        let mode = stat.permissions().mode() & 0o1777;
        let options = format!("mode={mode:o},size=64k,nr_inodes=16");
        return tmpfs(path, &options, MsFlags::MS_NOEXEC);
    }
    bind(Path::new("/dev/null"), path)
}

fn tmpfs(path: &Path, options: &str, more: MsFlags) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | more;
    Ok(nix::mount::mount(
        Some("tmpfs"),
        path,
        Some("tmpfs"),
        flags,
        Some(options),
    )?)
}

fn by_descriptor(place: &File) -> PathBuf {
    format!("/proc/self/fd/{}", place.as_raw_fd()).into()
}

pub(super) fn bind(from: &Path, to: &Path) -> io::Result<()> {
    Ok(nix::mount::mount(
        Some(from),
        to,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )?)
}

/// A place that was opened before it was hidden.
fn show_again(place: &File, at: &Path) -> io::Result<()> {
    fs::create_dir_all(at)?;
    bind(&by_descriptor(place), at)
}

/// A `/dev` without disks and memory.
fn few_devices() -> io::Result<()> {
    let dev = Path::new("/dev");
    let kept: Vec<(&str, File)> = DEVICES
        .into_iter()
        .filter_map(|name| Some((name, open_place(&dev.join(name)).ok()?)))
        .collect();
    tmpfs(dev, "mode=0755,size=64k,nr_inodes=64", MsFlags::empty())?;
    for (name, place) in &kept {
        let at = dev.join(name);
        if place.metadata()?.is_dir() {
            fs::DirBuilder::new().mode(0o755).create(&at)?;
        } else {
            File::create(&at)?;
        }
        show_again_at(place, &at)?;
    }
    fs::DirBuilder::new().mode(0o755).create(dev.join("pts"))?;
    for (link, to) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        std::os::unix::fs::symlink(to, dev.join(link))?;
    }
    Ok(())
}

pub(super) fn show_again_at(place: &File, at: &Path) -> io::Result<()> {
    bind(&by_descriptor(place), at)
}

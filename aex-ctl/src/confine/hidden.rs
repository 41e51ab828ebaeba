//! Hides paths under empty file systems that belong to the first namespace.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::mount::MsFlags;

use super::{command_fault, failed, mounts, no_namespaces, outermost, places};
use crate::fault::Fault;

/// Devices of `/dev` that a command cannot do without, and that give nothing away.
const DEVICES: [&str; 8] = [
    "null", "zero", "full", "random", "urandom", "tty", "pts", "shm",
];

/// Hides `paths` wherever they are to be seen, and the ways out.
pub(super) fn hide(paths: &[PathBuf], uid: u32) -> Result<(), Fault> {
    let table =
        fs::read("/proc/self/mountinfo").map_err(|error| failed("read the mounts", error))?;
    let table = String::from_utf8_lossy(&table);
    let all = paths.iter().flat_map(|path| mounts::aliases(&table, path));
    let mut all: Vec<PathBuf> = all.collect();
    all.extend(places::with_ways_out(uid));
    if all.iter().any(|path| path == Path::new("/")) {
        return Err(command_fault("the whole of / would be hidden".into()));
    }
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
    if uid == 0 {
        // Root opens disks, and on them all that is hidden.
        few_devices().map_err(|error| no_namespaces("make another /dev", error))?;
    }
    Ok(())
}

fn is_out_of_reach(path: &Path, error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
        && fs::symlink_metadata(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

fn open_place(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    options.read(true).custom_flags(flags.bits()).open(path)
}

/// An empty directory over a directory, nothing over anything else.
fn cover(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.is_dir() {
        return tmpfs(path, "mode=0755,size=64k,nr_inodes=16", MsFlags::MS_NOEXEC);
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

fn bind(from: &Path, to: &Path) -> io::Result<()> {
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
    bind(
        Path::new(&format!("/proc/self/fd/{}", place.as_raw_fd())),
        at,
    )
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

fn show_again_at(place: &File, at: &Path) -> io::Result<()> {
    bind(
        Path::new(&format!("/proc/self/fd/{}", place.as_raw_fd())),
        at,
    )
}

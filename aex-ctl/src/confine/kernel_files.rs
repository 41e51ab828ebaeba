//! The kernel's own files, by which it is set up: a command may read them. To write them root needs no
//! capability, so they are read-only for everybody. What shows other processes or other terminals is hidden
//! wherever it is mounted beside its usual place. The kernel also runs programs as root, by what is found in
//! `/etc` and `/usr` (modprobe, request-key, a handler of cores): for a command of root's they are read-only.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nix::mount::MsFlags;
use nix::sys::stat::{major, minor};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::mounts::Mount;
use super::{failed, hidden, mounts, no_namespaces};
use crate::fault::Fault;

/// File systems that stand for something in the kernel.
const OF_KERNEL: [&str; 13] = [
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "efivarfs",
    "fusectl",
    "pstore",
    "securityfs",
    "selinuxfs",
    "sysfs",
    "tracefs",
];

/// `/sys` with all that is below it, and such file systems anywhere else.
pub(super) fn read_only() -> Result<(), Fault> {
    let table = mounts::table().map_err(|error| failed("read the mounts", error))?;
    for mount in mounts::all(&table) {
        let done = if is_elsewhere(&mount) {
            if_seen(&mount, || hidden::cover(&mount.at))
        } else if OF_KERNEL.contains(&mount.kind.as_str()) || mount.at.starts_with("/sys") {
            if_seen(&mount, || remount(&mount.at, flags_of(&mount)))
        } else {
            Ok(())
        };
        done.map_err(|error| no_namespaces(&format!("shut {}", mount.at.display()), error))?;
    }
    Ok(())
}

/// Where the programs are that the kernel runs as root, outside of every namespace, and all that these read.
const PROGRAMS: [&str; 10] = [
    "/bin", "/boot", "/efi", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/sbin", "/usr",
];

/// Those, wherever they are to be seen, and what is mounted below them; and `/` itself, whose links lead to
/// them. What else lies in it stays as it was.
pub(super) fn programs_read_only() -> Result<(), Fault> {
    let shut = |path: &Path| {
        let path = path.to_owned();
        move |error| no_namespaces(&format!("shut {}", path.display()), error)
    };
    let root = Path::new("/");
    for entry in fs::read_dir(root).map_err(shut(root))?.flatten() {
        let path = entry.path();
        let is_its_own = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let is_kernels = ["/proc", "/sys", "/dev"]
            .map(Path::new)
            .contains(&path.as_path());
        if is_its_own && !is_kernels {
            hidden::bind(&path, &path).map_err(shut(&path))?;
        }
    }
    let table = mounts::table().map_err(|error| failed("read the mounts", error))?;
    for path in PROGRAMS.map(Path::new).iter().filter(|path| path.is_dir()) {
        for alias in mounts::aliases(&table, path) {
            if alias.starts_with(path) || !alias.is_dir() {
                continue;
            }
            hidden::bind(&alias, &alias).map_err(shut(&alias))?;
            remount(&alias, flags_at(&alias).map_err(shut(&alias))?).map_err(shut(&alias))?;
        }
    }
    for mount in mounts::all(&table) {
        let is_programs = PROGRAMS.iter().any(|path| mount.at.starts_with(path));
        if is_programs || mounts::is_seen_at(&table, root, &mount) {
            if_seen(&mount, || remount(&mount.at, flags_of(&mount))).map_err(shut(&mount.at))?;
        }
    }
    Ok(())
}

/// Of `/proc`, all but the processes' own directories. It is fresh: without mounts below it.
pub(super) fn proc_read_only() -> Result<(), Fault> {
    let shut = |error| no_namespaces("make /proc read-only", error);
    for entry in fs::read_dir("/proc").map_err(shut)? {
        let entry = entry.map_err(shut)?;
        let name = entry.file_name();
        let is_process = name.to_string_lossy().bytes().all(|c| c.is_ascii_digit());
        if is_process {
            continue;
        }
        let stat = entry.metadata().map_err(shut)?;
        let is_written = stat.is_file() && stat.permissions().mode() & 0o222 != 0;
        if stat.is_dir() || is_written {
            let path = entry.path();
            hidden::bind(&path, &path).map_err(shut)?;
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            remount(&path, flags).map_err(shut)?;
        }
    }
    Ok(())
}

/// In a control group namespace below, control groups could be mounted once more, and written: whoever may
/// write `cgroup.kill` of a group ends what is in it, AEX as well.
pub(super) fn no_control_groups_below() -> Result<(), Fault> {
    match fs::write("/proc/sys/user/max_cgroup_namespaces", "0") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(no_namespaces("forbid control group namespaces", error))
        }
        _ => Ok(()),
    }
}

/// Of the usual places other mounts take care: a fresh `/proc`, and terminals and devices.
fn is_elsewhere(mount: &Mount) -> bool {
    match mount.kind.as_str() {
        "proc" => !mount.at.starts_with("/proc"),
        "devpts" => !mount.at.starts_with("/dev"),
        "devtmpfs" => !mount.at.starts_with("/dev"),
        _ => false,
    }
}

/// What another mount covers, or this user cannot get to, is not there for the command either.
fn if_seen(mount: &Mount, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let stat = match fs::metadata(&mount.at) {
        Ok(stat) => stat,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if hidden::is_out_of_reach(&mount.at, &error) => return Ok(()),
        Err(error) => return Err(error),
    };
    let device = format!("{}:{}", major(stat.dev()), minor(stat.dev()));
    if device == mount.device {
        act()
    } else {
        Ok(())
    }
}

/// What a mount has and may not lose.
fn flags_of(mount: &Mount) -> MsFlags {
    let kept = [
        ("nosuid", MsFlags::MS_NOSUID),
        ("nodev", MsFlags::MS_NODEV),
        ("noexec", MsFlags::MS_NOEXEC),
    ];
    let kept = kept.into_iter().filter(|(name, _)| mount.has(name));
    kept.fold(MsFlags::empty(), |flags, (_, flag)| flags | flag)
}

/// The same, of the mount that a path lies on.
pub(super) fn flags_at(path: &Path) -> io::Result<MsFlags> {
    let has = statvfs(path)?.flags();
    let kept = [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
    ];
    let kept = kept.into_iter().filter(|(flag, _)| has.contains(*flag));
    Ok(kept.fold(MsFlags::empty(), |flags, (_, flag)| flags | flag))
}

pub(super) fn remount(path: &Path, flags: MsFlags) -> io::Result<()> {
    let flags = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    nix::mount::mount(None::<&str>, path, None::<&str>, flags, None::<&str>)?;
    Ok(())
}

//! The kernel's own files, by which it is set up: a command may read them. To write them root needs no
//! capability, so they are read-only for everybody. What shows other processes or other terminals is hidden
//! wherever it is mounted beside its usual place.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nix::mount::MsFlags;
use nix::sys::stat::{major, minor};

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

fn remount(path: &Path, flags: MsFlags) -> io::Result<()> {
    let flags = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    nix::mount::mount(None::<&str>, path, None::<&str>, flags, None::<&str>)?;
    Ok(())
}

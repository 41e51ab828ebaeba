//! Terminals of the command's own: it finds none of the host's but the one that it was started at.

use std::fs::{self, File};
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::mount::MsFlags;
use nix::sys::stat::fstat;

use super::hidden;

/// The terminal at which this was started, if it can be found by its name.
pub(super) fn own() -> Option<File> {
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    let terminals = [
        (input.is_terminal(), input.as_fd()),
        (output.is_terminal(), output.as_fd()),
        (error.is_terminal(), error.as_fd()),
    ];
    let mut all = terminals.into_iter().filter(|(is, _)| *is);
    all.find_map(|(_, stream)| by_name(stream))
}

/// By its name once more: the descriptor itself belongs to the mounts outside.
fn by_name(stream: BorrowedFd<'_>) -> Option<File> {
    let name = nix::unistd::ttyname(stream).ok()?;
    let place = hidden::open_place(&name).ok()?;
    let same = place.metadata().ok()?.rdev() == fstat(stream).ok()?.st_rdev;
    same.then_some(place)
}

/// After this `/dev/pts` is empty. `own` is found as the console.
pub(super) fn separate(own: Option<&File>, uid: u32) -> io::Result<()> {
    let dev = Path::new("/dev");
    let pts = dev.join("pts");
    if !pts.is_dir() {
        return Ok(());
    }
    nix::mount::mount(
        Some("devpts"),
        &pts,
        Some("devpts"),
        MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
        Some("newinstance,ptmxmode=0666,mode=0600"),
    )?;
    let ptmx = dev.join("ptmx");
    if fs::symlink_metadata(&ptmx).is_ok_and(|stat| !stat.is_symlink()) {
        hidden::bind(&pts.join("ptmx"), &ptmx)?;
    }
    let console = dev.join("console");
    if uid != 0 {
        shut_others(own)?;
    } else if own.is_some() {
        // The /dev here is a fresh one.
        File::create(&console)?;
    }
    match own {
        Some(own) if console.exists() => hidden::show_again_at(own, &console),
        _ => Ok(()),
    }
}

/// Who is logged in at a console owns that too.
fn shut_others(own: Option<&File>) -> io::Result<()> {
    let own = own.and_then(|own| own.metadata().ok());
    for entry in fs::read_dir("/dev")? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_screen = name.strip_prefix("tty").is_some_and(is_number) || name.starts_with("vcs");
        // By the ids of this namespace: the caller is root in it.
        let Ok(stat) = entry.metadata() else { continue };
        let is_own = own.as_ref().is_some_and(|own| own.rdev() == stat.rdev());
        if is_screen && !is_own && stat.uid() == 0 {
            hidden::bind(Path::new("/dev/null"), &entry.path())?;
        }
    }
    Ok(())
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit())
}

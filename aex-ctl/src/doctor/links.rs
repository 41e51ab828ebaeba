//! Where a path really leads, and through which directories: who can write one of those decides what is
//! found at the end, whatever the modes there.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// As the kernel's own limit.
const MAX_LINKS: usize = 40;
const STICKY: u32 = 0o1000;
const WRITE_BY_OTHERS: u32 = 0o002;

/// The way to the end of a path.
pub(super) struct Way {
    pub(super) end: PathBuf,
    /// Every directory in which a step of it lies, once.
    pub(super) through: Vec<PathBuf>,
}

/// Goes step by step: each link's own directory counts, not only that of the end.
pub(super) fn way_to(path: &Path) -> io::Result<Way> {
    let mut left: VecDeque<OsString> = steps(path).collect();
    let mut at = PathBuf::from("/");
    let (mut through, mut links) = (Vec::new(), 0);
    while let Some(step) = left.pop_front() {
        if step == ".." {
            at.pop();
            continue;
        }
        if !through.contains(&at) {
            through.push(at.clone());
        }
        let next = at.join(&step);
        if !fs::symlink_metadata(&next)?.is_symlink() {
            at = next;
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(io::Error::other("too many links"));
        }
        let target = fs::read_link(&next)?;
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        for step in steps(&target).collect::<Vec<_>>().into_iter().rev() {
            left.push_front(step);
        }
    }
    Ok(Way { end: at, through })
}

fn steps(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|step| match step {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

/// The first directory on the way in which somebody else can put another thing in a step's place: one that
/// all may write, unless it is sticky, or one that is neither root's nor of the owner `trusted_uid`.
pub(super) fn open_on_the_way(way: &Way, trusted_uid: u32) -> Option<&PathBuf> {
    way.through.iter().find(|directory| {
        fs::symlink_metadata(directory).map_or(true, |about| {
            let mode = about.mode();
            let all_may = mode & WRITE_BY_OTHERS != 0 && mode & STICKY == 0;
            all_may || ![0, trusted_uid].contains(&about.uid())
        })
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn each_directory_of_a_chain_of_links_is_on_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for name in ["a", "b", "c"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        fs::write(root.join("c/end"), "x").unwrap();
        symlink("../b/second", root.join("a/first")).unwrap();
        symlink(root.join("c/end"), root.join("b/second")).unwrap();
        let way = way_to(&root.join("a/first")).unwrap();
        assert_eq!(way.end, root.join("c/end"));
        for name in ["a", "b", "c"] {
            assert!(way.through.contains(&root.join(name)), "{name}");
        }
        let uid = nix::unistd::geteuid().as_raw();
        assert_eq!(open_on_the_way(&way, uid), None);
        // Whoever can write where a link in the middle lies has it lead elsewhere.
        let open = |mode| {
            fs::set_permissions(root.join("b"), fs::Permissions::from_mode(mode)).unwrap();
        };
        open(0o777);
        assert_eq!(open_on_the_way(&way, uid), Some(&root.join("b")));
        open(0o1777);
        assert_eq!(open_on_the_way(&way, uid), None);
    }

    #[test]
    fn a_circle_and_a_link_to_nothing_have_no_end() {
        let dir = tempfile::tempdir().unwrap();
        symlink("circle", dir.path().join("circle")).unwrap();
        symlink("nothing", dir.path().join("dangling")).unwrap();
        assert!(way_to(&dir.path().join("circle")).is_err());
        assert!(way_to(&dir.path().join("dangling")).is_err());
    }
}

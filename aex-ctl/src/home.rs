//! The home of user mode on disk: its private directories and its first `models.yaml`.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use aex_admin_proto::places::Places;

use crate::fault::Fault;

/// What `aex init` installs.
const MODELS_YAML: &str = include_str!("../../config/models.yaml");

/// Makes what is missing and closes what others could read; says what it did, a line each.
pub(crate) fn make_directories(places: &Places) -> Result<Vec<String>, Fault> {
    let config = places.config_file.parent().unwrap_or(&places.home);
    if has_strangers(&places.home) {
        return Err(Fault::failed(format!(
            "{} has files in it and is no home of AEX: it would be closed to other users. Set \
             AEX_HOME to a directory that is empty or not there.",
            places.home.display()
        )));
    }
    let mut done = Vec::new();
    for directory in [
        &places.home,
        config,
        &places.keys,
        &places.run,
        &places.logs,
    ] {
        if let Some(change) = private_directory(directory)? {
            done.push(change);
        }
    }
    Ok(done)
}

/// Files of somebody else's, and none of AEX's own beside them. One that is not there or cannot be
/// looked into has none: the next step says it better.
fn has_strangers(home: &Path) -> bool {
    let mut names = fs::read_dir(home)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .peekable();
    let is_own = |name: &str| {
        matches!(name, "config" | "keys" | "run" | "logs") || name.starts_with("aex.db")
    };
    names.peek().is_some() && !names.any(|name| is_own(&name))
}

fn private_directory(path: &Path) -> Result<Option<String>, Fault> {
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            DirBuilder::new()
                .mode(0o700)
                .recursive(true)
                .create(path)
                .map_err(|error| Fault::file("make", path, &error))?;
            return Ok(Some(format!("made {}", path.display())));
        }
        Err(error) => return Err(Fault::file("look at", path, &error)),
    };
    if !meta.is_dir() {
        return Err(Fault::failed(format!(
            "{} is there and is no directory: move it away, or set AEX_HOME to another place",
            path.display()
        )));
    }
    if meta.uid() != nix::unistd::geteuid().as_raw() {
        return Err(Fault::failed(format!(
            "{} belongs to another user: set AEX_HOME to a directory of your own",
            path.display()
        )));
    }
    if meta.mode() & 0o077 == 0 {
        return Ok(None);
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        .map_err(|error| Fault::file("close", path, &error))?;
    Ok(Some(format!("closed {} to other users", path.display())))
}

/// Writes the commented `models.yaml`, unless there is one.
pub(crate) fn first_config(places: &Places) -> Result<Option<String>, Fault> {
    let path = &places.config_file;
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        Ok(mut file) => {
            file.write_all(MODELS_YAML.as_bytes())
                .map_err(|error| Fault::file("write", path, &error))?;
            Ok(Some(format!("made {}", path.display())))
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(Fault::file("make", path, &error)),
    }
}

/// Opens a log for appending, 0600.
pub(crate) fn open_log(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

/// Replaces a file as a whole, 0600: a reader sees the old text or the new.
pub(crate) fn replace(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(text)?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_is_private_and_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::user(&dir.path().join("new/home"));
        assert_eq!(make_directories(&places).unwrap().len(), 5);
        assert!(first_config(&places).unwrap().is_some());
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&places.home), 0o700);
        assert_eq!(mode(&places.keys), 0o700);
        assert_eq!(mode(&places.config_file), 0o600);

        fs::write(&places.config_file, "mine").unwrap();
        assert!(make_directories(&places).unwrap().is_empty());
        assert!(first_config(&places).unwrap().is_none());
        assert_eq!(fs::read_to_string(&places.config_file).unwrap(), "mine");
    }

    #[test]
    fn a_home_may_begin_with_its_keys() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::user(dir.path());
        fs::write(dir.path().join("other"), "").unwrap();
        assert!(make_directories(&places).is_err());
        fs::create_dir(&places.keys).unwrap();
        assert!(make_directories(&places).is_ok());
    }

    #[test]
    fn an_open_home_is_closed_and_a_file_in_its_place_refused() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::user(dir.path());
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let done = make_directories(&places).unwrap();
        assert!(done[0].starts_with("closed "), "{done:?}");
        assert_eq!(fs::metadata(dir.path()).unwrap().mode() & 0o777, 0o700);

        fs::remove_dir(&places.keys).unwrap();
        fs::write(&places.keys, "").unwrap();
        assert!(make_directories(&places).is_err());
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        replace(&path, b"long text").unwrap();
        replace(&path, b"short").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"short");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }
}

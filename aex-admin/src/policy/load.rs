//! Reads the directory of policies. The one place of this module that opens a file.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::error::Warning;
use super::judge::Policies;
use super::known::Known;
use super::parse::PolicyFile;
use super::{MAX_BYTES, MAX_FILES, rule};
use crate::config::{self, Config, LoadError};

/// Where the policies of a models.yaml are: `policies/` beside it.
#[must_use]
pub fn directory(config_file: &Path) -> PathBuf {
    config_file.with_file_name("policies")
}

/// Reads and checks every `*.cedar` of a directory, in the order of their names. A directory that is
/// not there has none.
///
/// # Errors
/// See [`LoadError`]; it names the file, and the place in it where there is one.
pub fn load(directory: &Path, known: &Known) -> Result<(Policies, Vec<Warning>), LoadError> {
    Ok(Policies::parse(&read(directory)?, known)?)
}

/// The files' texts, in the order of their names.
fn read(directory: &Path) -> Result<Vec<PolicyFile>, LoadError> {
    let mut files = Vec::new();
    let mut left = MAX_BYTES;
    for path in paths(directory)? {
        let name = name_of(&path);
        if !rule::is_name(&name) {
            return Err(LoadError::Policies {
                path,
                problem: "rename it: letters, digits, . _ - alone, and at most 96 of them"
                    .to_owned(),
            });
        }
        let text = read_text(&path, left)?;
        left -= text.len();
        files.push(PolicyFile {
            path: path.display().to_string(),
            name,
            text,
        });
    }
    Ok(files)
}

/// What comes into force together: models.yaml, the prices beside it, and the policies beside it. Gives
/// the warnings of all.
///
/// # Errors
/// The first that is at fault; nothing of it comes into force then.
pub fn load_all(config_file: &Path) -> Result<(Config, Policies, Vec<String>), LoadError> {
    let (mut config, mut warnings) = config::load(config_file)?;
    let files = read(&directory(config_file))?;
    let (policies, remarks) = Policies::parse(&files, &Known::of(&config))?;
    let texts = (files.iter()).map(|file| (file.name.as_str(), file.text.as_str()));
    config.files = config.files.map(|digests| digests.with_policies(texts));
    warnings.extend(remarks.iter().map(ToString::to_string));
    Ok((config, policies, warnings))
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// The files, sorted. Hidden ones are left out, as a shell's `*.cedar` leaves them out.
fn paths(directory: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let failed = |source| LoadError::Read {
        path: directory.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let name = name_of(&path);
        if !name.ends_with(".cedar") || name.starts_with('.') {
            continue;
        }
        if paths.len() == MAX_FILES {
            return Err(LoadError::Policies {
                path: directory.to_owned(),
                problem: format!("there are more than {MAX_FILES} files: join some"),
            });
        }
        paths.push(path);
    }
    paths.sort();
    Ok(paths)
}

fn read_text(path: &Path, left_bytes: usize) -> Result<String, LoadError> {
    config::read_text(path, left_bytes).map_err(|error| match error {
        LoadError::TooLarge { path, .. } => LoadError::Policies {
            path,
            problem: format!(
                "with it the policies are larger than {MAX_BYTES} bytes in all: take some out"
            ),
        },
        other => other,
    })
}

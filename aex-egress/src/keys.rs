//! Operators' keys: where they may lie, in which order they are looked for, and who may read them.
//!
//! A key is kept in one type ([`crate::vault`]) that prints nothing and is wiped when dropped. Keys come from a
//! descriptor that the supervisor hands over, the environment, systemd credentials, or a private
//! file; what came by descriptor or environment is kept even if no provider wants it yet, because a
//! new configuration may.
//!
//! Absent on purpose: sending them. [`crate::attach::bearer`] makes the one header that carries one.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aex_admin_proto::egress::{KeyPolicy, ProviderConfig};
use nix::fcntl::OFlag;
use zeroize::Zeroizing;

use crate::EgressError;
use crate::vault::LockedKey;

/// Longest key file, and longest hand-over by descriptor.
const MAX_FILE_BYTES: u64 = 16 * 1024;
const MAX_HANDED_BYTES: u64 = 1024 * 1024;
const SUFFIX: &str = "_API_KEY";
/// `LoadCredential=keys:/etc/aex/keys` and `LoadCredentialEncrypted=sealed:…` make one credential of each
/// file of a directory. Both cannot have one name.
const OF_DIRECTORIES: [&str; 2] = ["keys_", "sealed_"];

/// A key and the place where it was found, for people.
pub struct FoundKey {
    pub place: String,
    pub key: Arc<LockedKey>,
}

/// Every place where a key may lie.
pub struct KeyRing {
    handed: HashMap<String, Arc<LockedKey>>,
    environment: HashMap<String, Arc<LockedKey>>,
    credentials: Option<PathBuf>,
    /// None as a service of the host: its keys come as credentials.
    dir: Option<PathBuf>,
    /// Who must own a key file.
    uid: u32,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

/// The variable that carries a provider's key: upper-cased, other characters than A-Z0-9 are `_`.
#[must_use]
pub fn variable_of(provider: &str) -> String {
    let mut name: String = provider
        .chars()
        .map(|c| match c.to_ascii_uppercase() {
            c @ ('A'..='Z' | '0'..='9') => c,
            _ => '_',
        })
        .collect();
    name.push_str(SUFFIX);
    name
}

impl KeyRing {
    /// `environment` is looked through once, for `*_API_KEY`.
    pub fn new(
        handed: HashMap<String, Arc<LockedKey>>,
        environment: impl Iterator<Item = (String, String)>,
        credentials: Option<PathBuf>,
        dir: Option<PathBuf>,
        uid: u32,
    ) -> Self {
        let environment = environment
            .filter(|(name, value)| name.ends_with(SUFFIX) && !value.is_empty())
            .map(|(name, value)| (name, LockedKey::new(&Zeroizing::new(value))))
            .collect();
        Self {
            handed,
            environment,
            credentials,
            dir,
            uid,
        }
    }

    /// The keys of all these providers, by name.
    ///
    /// # Errors
    /// A key is where it must not be, may be read by others, or cannot be read.
    pub fn load(
        &self,
        providers: &[ProviderConfig],
    ) -> Result<HashMap<String, FoundKey>, EgressError> {
        let mut keys = HashMap::new();
        for provider in providers {
            if provider.keys == KeyPolicy::Passthrough {
                let places = self.places_of(&provider.name);
                if !places.is_empty() {
                    return Err(EgressError::KeyForbidden {
                        provider: provider.name.clone(),
                        place: places.join(", and in "),
                    });
                }
            } else if let Some(found) = self.find(&provider.name)? {
                keys.insert(provider.name.clone(), found);
            }
        }
        Ok(keys)
    }

    /// Everywhere that a provider's key would be read from, and where there is one, whatever it holds.
    fn places_of(&self, provider: &str) -> Vec<String> {
        let variable = variable_of(provider);
        let mut places = Vec::new();
        if self.handed.contains_key(&variable) {
            places.push(handed_place(&variable));
        }
        if self.environment.contains_key(&variable) {
            places.push(environment_place(&variable));
        }
        // One that cannot be looked at may be there: that is no reason to go on.
        let is_there = |path: &PathBuf| {
            path.symlink_metadata()
                .map_or_else(|error| error.kind() != io::ErrorKind::NotFound, |_| true)
        };
        let files = self.files_of(provider).into_iter().map(|(path, _)| path);
        places.extend(
            files
                .filter(is_there)
                .map(|path| path.display().to_string()),
        );
        places
    }

    /// The files that a provider's key may lie in, in order, each with who must own it.
    fn files_of(&self, provider: &str) -> Vec<(PathBuf, Option<u32>)> {
        // A provider's name is a file's name only if it cannot leave the directory.
        if provider.starts_with('.') || provider.contains('/') {
            return Vec::new();
        }
        let mut files = Vec::new();
        if let Some(dir) = &self.credentials {
            files.push((dir.join(provider), None));
            files.push((dir.join(variable_of(provider)), None));
            for prefix in OF_DIRECTORIES {
                files.push((dir.join(format!("{prefix}{provider}")), None));
            }
        }
        if let Some(dir) = &self.dir {
            files.push((dir.join(provider), Some(self.uid)));
        }
        files
    }

    fn find(&self, provider: &str) -> Result<Option<FoundKey>, EgressError> {
        let variable = variable_of(provider);
        if let Some(key) = self.handed.get(&variable) {
            return Ok(found(handed_place(&variable), key.clone()));
        }
        if let Some(key) = self.environment.get(&variable) {
            return Ok(found(environment_place(&variable), key.clone()));
        }
        for (path, owner) in self.files_of(provider) {
            if let Some(key) = read_key(&path, owner)? {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }
}

fn handed_place(variable: &str) -> String {
    format!("{variable}, handed over by the supervisor")
}

fn environment_place(variable: &str) -> String {
    format!("the environment variable {variable}")
}

#[expect(clippy::unnecessary_wraps, reason = "reads as what it is at its calls")]
fn found(place: String, key: Arc<LockedKey>) -> Option<FoundKey> {
    Some(FoundKey { place, key })
}

/// `owner`: the file must be this user's and nobody else's to read. systemd guards its own.
fn read_key(path: &Path, owner: Option<u32>) -> Result<Option<FoundKey>, EgressError> {
    let unreadable = |error| EgressError::file("cannot read key file", path, error);
    // Not blocked by a FIFO, not led elsewhere by a symbolic link.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(_) if path.is_symlink() => return Err(EgressError::KeyLink(path.to_owned())),
        Err(error) => return Err(unreadable(error)),
    };
    let about = file.metadata().map_err(unreadable)?;
    if !about.is_file() {
        return Err(unreadable(io::Error::other("not a regular file")));
    }
    let mode = about.mode() & 0o7777;
    if owner.is_some_and(|uid| about.uid() != uid || mode & 0o077 != 0) {
        return Err(EgressError::KeyExposed {
            path: path.to_owned(),
            mode,
        });
    }
    let text = read_bounded(file, MAX_FILE_BYTES).map_err(unreadable)?;
    let text = str::from_utf8(&text).map_err(|_| unreadable(io::Error::other("it is not text")))?;
    let key = LockedKey::new(without_newline(text));
    Ok(found(path.display().to_string(), key))
}

fn without_newline(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

fn read_bounded(source: impl Read, limit: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    // Room for all of it at once: growing would leave copies behind unwiped.
    let room = usize::try_from(limit)
        .unwrap_or(usize::MAX)
        .saturating_add(1);
    let mut text = Zeroizing::new(Vec::with_capacity(room));
    source.take(limit + 1).read_to_end(&mut text)?;
    if text.len() as u64 > limit {
        return Err(io::Error::other(format!("longer than {limit} bytes")));
    }
    Ok(text)
}

/// Reads `NAME=VALUE` lines from a descriptor that was handed to this process, and closes it.
///
/// # Errors
/// The descriptor cannot be read, or a line is something else. No text says what a line held.
pub fn read_handed(fd: i32) -> Result<HashMap<String, Arc<LockedKey>>, EgressError> {
    let unreadable = |source| EgressError::KeysFd { fd, source };
    if fd < 3 {
        return Err(unreadable(io::Error::other("0, 1 and 2 are not for keys")));
    }
    // A raw number becomes a file without unsafe code by opening it anew.
    let file = std::fs::File::open(format!("/proc/self/fd/{fd}")).map_err(unreadable)?;
    nix::unistd::close(fd).map_err(|errno| unreadable(errno.into()))?;
    let text = read_bounded(file, MAX_HANDED_BYTES).map_err(unreadable)?;
    parse_handed(&text)
}

fn parse_handed(text: &[u8]) -> Result<HashMap<String, Arc<LockedKey>>, EgressError> {
    let mut keys = HashMap::new();
    for (index, line) in text.split(|&b| b == b'\n').enumerate() {
        if line.is_empty() {
            continue;
        }
        let parsed = str::from_utf8(line)
            .ok()
            .and_then(|line| line.split_once('='))
            .filter(|(name, _)| !name.is_empty());
        let Some((name, value)) = parsed else {
            return Err(EgressError::KeysLine { line: index + 1 });
        };
        if !value.is_empty() {
            keys.insert(name.to_owned(), LockedKey::new(value));
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests;

//! Reads models.yaml from disk. The one place of this module that opens a file.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::{Catalogue, Config, LoadError, MAX_CONFIG_BYTES, parse};

/// Reads and checks a models.yaml, with the shipped catalogue. Gives its warnings too.
///
/// # Errors
/// See [`LoadError`].
pub fn load(path: &Path) -> Result<(Config, Vec<String>), LoadError> {
    let text = read_text(path)?;
    parse(&text, Catalogue::builtin()).map_err(|error| LoadError::Invalid {
        path: path.to_owned(),
        error,
    })
}

fn read_text(path: &Path) -> Result<String, LoadError> {
    let failed = |source| LoadError::Read {
        path: path.to_owned(),
        source,
    };
    // Asked before the open, which would wait for ever on a FIFO.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(LoadError::NotAFile {
            path: path.to_owned(),
        });
    }
    let mut bytes = Vec::new();
    File::open(path)
        .map_err(failed)?
        .take(MAX_CONFIG_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() > MAX_CONFIG_BYTES {
        return Err(LoadError::TooLarge {
            path: path.to_owned(),
            limit_bytes: MAX_CONFIG_BYTES,
        });
    }
    String::from_utf8(bytes).map_err(|_| LoadError::NotUtf8 {
        path: path.to_owned(),
    })
}

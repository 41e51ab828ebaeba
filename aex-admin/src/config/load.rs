//! Reads models.yaml and the operator's own prices from disk. The one place of this module that opens
//! a file.

use std::borrow::Cow;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::{Catalogue, Config, FileDigests, LoadError, MAX_CONFIG_BYTES, parse};

/// Reads and checks a models.yaml, with the catalogue that is in force beside it. Gives its warnings
/// too.
///
/// # Errors
/// See [`LoadError`]; it names the file that is at fault, be it models.yaml or the prices beside it.
pub fn load(path: &Path) -> Result<(Config, Vec<String>), LoadError> {
    let text = read_text(path, MAX_CONFIG_BYTES)?;
    let prices = prices_text(path)?;
    let catalogue = catalogue_of(path, prices.as_deref())?;
    let (mut config, warnings) = parse(&text, &catalogue).map_err(|error| LoadError::Invalid {
        path: path.to_owned(),
        error,
    })?;
    config.files = Some(FileDigests::of(&text, prices.as_deref()));
    Ok((config, warnings))
}

/// The shipped catalogue, with the operator's own prices laid over it where there are any.
///
/// # Errors
/// The prices' file is there and cannot be taken up.
pub fn load_catalogue(config_file: &Path) -> Result<Cow<'static, Catalogue>, LoadError> {
    let prices = prices_text(config_file)?;
    catalogue_of(config_file, prices.as_deref())
}

/// None: there is no such file.
fn prices_text(config_file: &Path) -> Result<Option<String>, LoadError> {
    match read_text(&prices_file(config_file), MAX_CONFIG_BYTES) {
        Ok(text) => Ok(Some(text)),
        Err(LoadError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn catalogue_of(
    config_file: &Path,
    prices: Option<&str>,
) -> Result<Cow<'static, Catalogue>, LoadError> {
    let Some(text) = prices else {
        return Ok(Cow::Borrowed(Catalogue::builtin()));
    };
    Catalogue::builtin()
        .overlaid(text)
        .map(Cow::Owned)
        .map_err(|error| LoadError::Invalid {
            path: prices_file(config_file),
            error,
        })
}

/// Where an operator's own prices are: `prices.yaml` beside models.yaml.
#[must_use]
pub fn prices_file(config_file: &Path) -> PathBuf {
    config_file.with_file_name("prices.yaml")
}

/// A whole file of at most `limit_bytes`, as text.
///
/// # Errors
/// It cannot be read, is no file, too large, or no UTF-8.
pub(crate) fn read_text(path: &Path, limit_bytes: usize) -> Result<String, LoadError> {
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
        .take(limit_bytes as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() > limit_bytes {
        return Err(LoadError::TooLarge {
            path: path.to_owned(),
            limit_bytes,
        });
    }
    String::from_utf8(bytes).map_err(|_| LoadError::NotUtf8 {
        path: path.to_owned(),
    })
}

//! What can be wrong with a configuration, and where.

use std::fmt;
use std::path::PathBuf;

use serde_saphyr::Location;

/// A fault in the text, with its place in it where there is one. Both numbers count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    pub line: Option<u64>,
    pub column: Option<u64>,
    pub message: String,
}

impl ConfigError {
    pub(super) fn at(location: Location, message: impl Into<String>) -> Self {
        let known = location != Location::UNKNOWN;
        Self {
            line: known.then(|| location.line()),
            column: known.then(|| location.column()),
            message: message.into(),
        }
    }

    pub(super) fn anywhere(message: impl Into<String>) -> Self {
        Self {
            line: None,
            column: None,
            message: message.into(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "line {line}, column {column}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// Why a file could not be taken up. Prints as compilers do, `FILE:LINE:COLUMN: message`.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}: is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    #[error("{}: is larger than {limit_bytes} bytes", path.display())]
    TooLarge { path: PathBuf, limit_bytes: usize },
    #[error("{}: is not UTF-8 text", path.display())]
    NotUtf8 { path: PathBuf },
    #[error("{}{}: {}", path.display(), place(error), error.message)]
    Invalid { path: PathBuf, error: ConfigError },
    /// About a file or the directory of policies as a whole.
    #[error("{}: {problem}", path.display())]
    Policies { path: PathBuf, problem: String },
}

fn place(error: &ConfigError) -> String {
    match (error.line, error.column) {
        (Some(line), Some(column)) => format!(":{line}:{column}"),
        _ => String::new(),
    }
}

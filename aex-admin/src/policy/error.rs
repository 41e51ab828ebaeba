//! What can be wrong with a policy, and where. Prints as compilers do, `FILE:LINE:COLUMN: message`.

use std::fmt;

use crate::config::{ConfigError, LoadError};

/// Both numbers count from 1; the column counts characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub file: String,
    pub line: u64,
    pub column: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Why policies cannot come into force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct PolicyError {
    pub place: Place,
    pub message: String,
}

/// What comes into force, but is probably not meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    pub place: Place,
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

impl From<PolicyError> for LoadError {
    fn from(error: PolicyError) -> Self {
        Self::Invalid {
            path: error.place.file.into(),
            error: ConfigError {
                line: Some(error.place.line),
                column: Some(error.place.column),
                message: error.message,
            },
        }
    }
}

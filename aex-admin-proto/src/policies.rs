//! What `aex-admin policy-check` answers, for `aex policy check`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyCheck {
    /// The policies can come into force.
    pub ok: bool,
    pub directory: PathBuf,
    /// In the order of their files; empty where there is a problem.
    pub policies: Vec<PolicyView>,
    /// Things that are allowed but probably not meant, as `FILE:LINE:COLUMN: …`.
    pub warnings: Vec<String>,
    /// The first thing that is wrong, as `FILE:LINE:COLUMN: …`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Where it is, if it has a place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<PolicyPlace>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyView {
    pub name: String,
    /// `enforce`, `warn` or `shadow`.
    pub mode: String,
}

/// Line and column count from 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyPlace {
    pub file: PathBuf,
    pub line: u64,
    pub column: u64,
}

//! What the supervisor of user mode says of itself.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `run/daemon.json`: what the user-mode supervisor says of itself, for `aex status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonState {
    pub pid: u32,
    /// Where agents connect to: `127.0.0.1:9000`, or `unix:/run/x/agents.sock` where there is no TCP.
    pub listen: String,
    pub workers: u32,
    /// All places where agents connect to, in that form.
    #[serde(default)]
    pub listeners: Vec<String>,
    #[serde(flatten)]
    pub front: Front,
}

/// On what terms agents' TCP connections are taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Front {
    /// Absent: plain HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsPlaces>,
    /// Beyond loopback as well, asked for by name.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub plain_http: bool,
}

/// Files of TLS, PEM, by absolute paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsPlaces {
    pub cert: PathBuf,
    pub key: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
}

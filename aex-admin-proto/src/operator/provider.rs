//! Providers as operators see them: where they are, and whose keys they are used with. Never a key.

use serde::{Deserialize, Serialize};

use crate::egress::KeyPolicy;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderView {
    pub name: String,
    /// Scheme, host, optional port and path, without a trailing slash.
    pub base_url: String,
    pub keys: KeyPolicy,
    /// Its host is 127/8, ::1 or localhost.
    pub loopback: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderList {
    pub providers: Vec<ProviderView>,
}

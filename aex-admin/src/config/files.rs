//! Which files a configuration was read from: their digests, which the ledger records. Pure; never their
//! text.

use serde::Serialize;
use sha2::{Digest, Sha256};

/// SHA-256 of each file, as `sha256sum` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileDigests {
    #[serde(rename = "models.yaml")]
    pub models: String,
    #[serde(rename = "prices.yaml", skip_serializing_if = "Option::is_none")]
    pub prices: Option<String>,
    /// One for all policies, so that it is as short with many: of what `sha256sum *.cedar` prints, in the
    /// order of the bytes of their names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policies: Option<String>,
}

impl FileDigests {
    pub(super) fn of(models: &str, prices: Option<&str>) -> Self {
        Self {
            models: digest(models),
            prices: prices.map(digest),
            policies: None,
        }
    }

    /// With the policies, each a name and a text, in the order of their names.
    #[must_use]
    pub(crate) fn with_policies<'a>(
        mut self,
        files: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let lines: String = files
            .map(|(name, text)| format!("{}  {name}\n", digest(text)))
            .collect();
        self.policies = (!lines.is_empty()).then(|| digest(&lines));
        self
    }
}

fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

//! What a provider's certificate must be signed by: the system's roots, or the one file that the
//! operator named for it. The system's roots are read when the first connection needs them.

use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject};
use tokio::sync::OnceCell;

use crate::EgressError;

/// The trust of one provider.
#[derive(Clone)]
pub enum Trust {
    /// A loopback provider without TLS.
    Plain,
    System(Arc<SystemTrust>),
    Own(Arc<ClientConfig>),
}

/// Shared by all providers without a `ca_file`.
#[derive(Default)]
pub struct SystemTrust {
    config: OnceCell<Arc<ClientConfig>>,
}

impl SystemTrust {
    /// # Errors
    /// The system has no usable roots.
    pub async fn config(&self) -> Result<&Arc<ClientConfig>, EgressError> {
        self.config
            .get_or_try_init(
                async || match tokio::task::spawn_blocking(system_roots).await {
                    Ok(roots) => client_config(roots?),
                    Err(_) => Err(EgressError::NoRoots),
                },
            )
            .await
    }
}

fn system_roots() -> Result<RootCertStore, EgressError> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a system root certificate cannot be read");
    }
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err(EgressError::NoRoots);
    }
    Ok(roots)
}

/// Trusts the certificates of one PEM file, and no other.
///
/// # Errors
/// The file has no certificate that can be a root.
pub fn own_trust(provider: &str, path: &str) -> Result<Trust, EgressError> {
    let bad = |why: String| EgressError::CaFile {
        provider: provider.to_owned(),
        path: path.to_owned(),
        why,
    };
    let certificates =
        CertificateDer::pem_file_iter(Path::new(path)).map_err(|error| bad(unopened(&error)))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let certificate = certificate.map_err(|error| bad(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| bad(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(bad("it holds no certificate (PEM)".into()));
    }
    Ok(Trust::Own(client_config(roots)?))
}

fn unopened(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(io) if io.kind() == std::io::ErrorKind::PermissionDenied => format!(
            "{io}: aex-egress reads such files beside models.yaml, below /etc and below /usr alone: \
             put it there, readable for its user"
        ),
        other => other.to_string(),
    }
}

fn client_config(roots: RootCertStore) -> Result<Arc<ClientConfig>, EgressError> {
    let crypto = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

//! Certificates for tests: a private CA and one leaf for the loopback names.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("cannot read {0}: {1}")]
    Read(String, rustls_pki_types::pem::Error),
    #[error("the certificate and key cannot be used: {0}")]
    Use(#[from] rustls::Error),
}

/// PEM texts. The leaf is good for `localhost` and `127.0.0.1`.
#[derive(Clone)]
pub struct Pki {
    pub ca_pem: String,
    pub cert_pem: String,
    pub key_pem: String,
    issuer: Arc<Issuer<'static, KeyPair>>,
}

/// What a client shows, as PEM texts.
pub struct Client {
    pub cert_pem: String,
    pub key_pem: String,
}

impl Pki {
    /// # Errors
    /// No randomness, or a name that is none; neither is expected.
    pub fn make() -> Result<Self, TlsError> {
        let ca_key = KeyPair::generate()?;
        let mut ca = CertificateParams::new(Vec::<String>::new())?;
        ca.distinguished_name
            .push(DnType::CommonName, "AEX test CA");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_pem = ca.self_signed(&ca_key)?.pem();
        let leaf_key = KeyPair::generate()?;
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let leaf = CertificateParams::new(names)?;
        let issuer = Issuer::new(ca, ca_key);
        let cert_pem = leaf.signed_by(&leaf_key, &issuer)?.pem();
        Ok(Self {
            ca_pem,
            cert_pem,
            key_pem: leaf_key.serialize_pem(),
            issuer: Arc::new(issuer),
        })
    }

    /// A client's certificate of the same CA.
    ///
    /// # Errors
    /// As [`Pki::make`].
    pub fn client(&self, name: &str) -> Result<Client, TlsError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        let cert = params.signed_by(&key, &*self.issuer)?;
        Ok(Client {
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
        })
    }

    /// # Errors
    /// The texts are not a certificate and its key.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let read = |error| TlsError::Read("PEM text".into(), error);
        let cert = CertificateDer::from_pem_slice(self.cert_pem.as_bytes()).map_err(read)?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).map_err(read)?;
        server_config(vec![cert], key)
    }
}

/// # Errors
/// The files cannot be read, or do not fit each other.
pub fn server_config_from_files(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let read = |path: &Path| {
        let name = path.display().to_string();
        move |error| TlsError::Read(name, error)
    };
    let certs = CertificateDer::pem_file_iter(cert)
        .map_err(read(cert))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(read(cert))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(read(key))?;
    server_config(certs, key)
}

fn server_config(
    certs: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certs, key)?;
    Ok(Arc::new(config))
}

//! The certificate that TCP listeners show, and what one that a client shows must be signed by: read from
//! files, and again when they change. A pair that cannot be used is refused, and the old one stays.
//!
//! Absent on purpose: sessions that go on. A client begins anew with every connection, so what is in force
//! holds for each of them, on whichever worker it ends up.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use aex_admin_proto::CertDigest;
use nix::fcntl::OFlag;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio::signal::unix::Signal;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use zeroize::Zeroizing;

/// How often the files are looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(3);
/// Longest file that is read: a chain, or many CAs.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// What the mode of a private key's file may not have: its owner reads and writes it, its group may read it.
const NOT_PRIVATE: u32 = 0o137;

/// In this order a client that can do both gets HTTP/2.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// None: no client is asked for a certificate.
    pub client_ca: Option<PathBuf>,
}

impl TlsFiles {
    pub fn all(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.cert, &self.key].into_iter().chain(&self.client_ca)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{}: {why}", path.display())]
    File { path: PathBuf, why: String },
    #[error("{}, {}: {why}", cert.display(), key.display())]
    Pair {
        cert: PathBuf,
        key: PathBuf,
        why: rustls::Error,
    },
    #[error(
        "{}, {}: the certificate and the key do not belong together; the file's first certificate must be \
         the key's own", cert.display(), key.display()
    )]
    Mismatch { cert: PathBuf, key: PathBuf },
}

/// A handle; clones are the same.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

impl fmt::Debug for Tls {
    /// The names of the files alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({:?})", self.0.files)
    }
}

struct Inner {
    files: TlsFiles,
    config: RwLock<Arc<ServerConfig>>,
    /// Of the files as they were last read, well or not.
    seen: Mutex<Stamp>,
}

/// By what a file that changed is known.
type Stamp = Vec<Option<[i64; 6]>>;

impl Tls {
    /// # Errors
    /// A file cannot be read, is not what it must be, or the key is not private.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        // Before they are read: what changes meanwhile is seen at the next look.
        let seen = stamp(&files);
        let config = RwLock::new(read(&files)?);
        let seen = Mutex::new(seen);
        Ok(Self(Arc::new(Inner {
            files,
            config,
            seen,
        })))
    }

    fn in_force(&self) -> Arc<ServerConfig> {
        let config = self.0.config.read();
        Arc::clone(&config.unwrap_or_else(PoisonError::into_inner))
    }

    /// # Errors
    /// The client does not speak TLS, or shows a certificate that does not verify.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsAcceptor::from(self.in_force()).accept(stream).await
    }

    /// Takes the files up again, for ever: when they change, and when `hangup` comes.
    pub async fn follow(self, mut hangup: Signal) {
        loop {
            let told = tokio::select! {
                told = hangup.recv() => told.is_some(),
                () = sleep(LOOK_AGAIN) => false,
            };
            let tls = self.clone();
            // A disk may be slow.
            let _ = spawn_blocking(move || tls.reload(told)).await;
        }
    }

    fn reload(&self, told: bool) {
        let now = stamp(&self.0.files);
        {
            let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == now && !told {
                return;
            }
            *seen = now;
        }
        match read(&self.0.files) {
            Ok(config) => {
                let in_force = self.0.config.write();
                *in_force.unwrap_or_else(PoisonError::into_inner) = config;
                tracing::info!("the TLS certificate was read again");
            }
            Err(error) => {
                tracing::error!("the TLS certificate was not taken up, the old one stays: {error}");
            }
        }
    }
}

/// The certificate that the other side has shown, and that verified.
#[must_use]
pub fn client_cert(stream: &TlsStream<TcpStream>) -> Option<CertDigest> {
    let own = stream.get_ref().1.peer_certificates()?.first()?;
    Some(CertDigest::of(own))
}

/// Whether both sides have agreed on HTTP/2.
#[must_use]
pub fn speaks_h2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(PROTOCOLS[0])
}

fn stamp(files: &TlsFiles) -> Stamp {
    let paths = [
        Some(&files.cert),
        Some(&files.key),
        files.client_ca.as_ref(),
    ];
    let of = |path: &PathBuf| {
        let meta = std::fs::metadata(path).ok()?;
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Some([
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec(),
            number(meta.size()),
            number(meta.ino()),
        ])
    };
    paths.into_iter().flatten().map(of).collect()
}

fn read(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let pair = |why| {
        let (cert, key) = (files.cert.clone(), files.key.clone());
        match why {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::Mismatch { cert, key }
            }
            why => TlsError::Pair { cert, key, why },
        }
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(pair)?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(client_roots(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            let verifier = verifier.allow_unauthenticated().build();
            let verifier = verifier.map_err(|error| at(path, error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = certificates(&files.cert)?;
    let key = private_key(&files.key)?;
    let mut config = builder.with_single_cert(chain, key).map_err(pair)?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn at(path: &Path, why: impl Into<String>) -> TlsError {
    TlsError::File {
        path: path.to_owned(),
        why: why.into(),
    }
}

/// A regular file of a bounded length. Looked at once it is open, so that it is the one which is read.
fn open(path: &Path) -> Result<(File, std::fs::Metadata), TlsError> {
    let of = |error: io::Error| at(path, error.to_string());
    let file = OpenOptions::new()
        .read(true)
        // A pipe would keep the program waiting.
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(of)?;
    let meta = file.metadata().map_err(of)?;
    if !meta.is_file() {
        return Err(at(path, "it is not a regular file"));
    }
    if meta.len() > MAX_FILE_BYTES {
        return Err(at(
            path,
            format!("it is longer than {MAX_FILE_BYTES} bytes"),
        ));
    }
    Ok((file, meta))
}

fn text(path: &Path, file: File) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    // As large as it may become: a buffer that grows leaves copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(64 * 1024));
    let read = file.take(MAX_FILE_BYTES).read_to_end(&mut text);
    read.map_err(|error| at(path, error.to_string()))?;
    Ok(text)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let (file, _) = open(path)?;
    let text = text(path, file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| at(path, error.to_string()))?;
    if found.is_empty() {
        return Err(at(path, "it holds no certificate (PEM)"));
    }
    Ok(found)
}

fn client_roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        let added = roots.add(certificate);
        added.map_err(|error| at(path, error.to_string()))?;
    }
    Ok(roots)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let (file, meta) = open(path)?;
    let mode = meta.mode() & 0o7777;
    if mode & NOT_PRIVATE != 0 {
        return Err(at(
            path,
            format!(
                "a private key must not be open to others (mode {mode:04o}): chmod 0600, or 0640 for its group"
            ),
        ));
    }
    let text = text(path, file)?;
    // The parser's words would not help, and might repeat what is in the file.
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| at(path, "it holds no private key (PEM)"))
}

#[cfg(test)]
mod tests;

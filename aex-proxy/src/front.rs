//! On what terms agents are listened to: TLS, or plain HTTP, and where that is allowed. As options of the
//! program, which a unit may give by its environment.
//!
//! A Unix socket is always plain: it does not leave the host, and tells who is at its other end.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::FalseyValueParser;

use crate::listener::{self, Listener};
use crate::tls::{Tls, TlsError, TlsFiles};

#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "TLS (TCP listeners; Unix sockets stay plain)")]
pub struct FrontArgs {
    /// Certificate chain, PEM; read again when it changes, and on SIGHUP
    #[arg(long, value_name = "FILE", env = "AEX_TLS_CERT")]
    tls_cert: Option<PathBuf>,
    /// Its private key, PEM, mode 0600 or 0640
    #[arg(long, value_name = "FILE", env = "AEX_TLS_KEY")]
    tls_key: Option<PathBuf>,
    /// CAs of clients' certificates, PEM: one that a client shows must be signed by them; none is needed
    #[arg(long, value_name = "FILE", env = "AEX_TLS_CLIENT_CA")]
    tls_client_ca: Option<PathBuf>,
    /// Speak plain HTTP beyond loopback as well: tokens can be read by whoever is on the way
    #[arg(long, env = "AEX_PLAIN_HTTP", value_parser = FalseyValueParser::new())]
    plain_http: bool,
    /// Only check the files of TLS, and end
    #[arg(long)]
    pub check_tls: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    #[error("--tls-cert and --tls-key go together: give both (or AEX_TLS_CERT and AEX_TLS_KEY)")]
    Half,
    #[error("--tls-client-ca needs --tls-cert and --tls-key")]
    CaAlone,
    #[error(
        "--plain-http and --tls-cert exclude each other: with a certificate TCP speaks TLS alone"
    )]
    Both,
    #[error(
        "plain HTTP on {0} is refused: beyond loopback tokens would travel in clear text. Give a \
         certificate (--tls-cert, --tls-key), or --plain-http to have it all the same"
    )]
    PlainBeyond(SocketAddr),
    #[error("a listener has no address: {0}")]
    NoAddress(io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl FrontArgs {
    /// The files of TLS; none: plain HTTP.
    ///
    /// # Errors
    /// The options do not go together.
    pub fn files(&self) -> Result<Option<TlsFiles>, FrontError> {
        // An empty variable of a unit's environment is as good as none.
        let given =
            |path: &Option<PathBuf>| path.clone().filter(|path| !path.as_os_str().is_empty());
        let client_ca = given(&self.tls_client_ca);
        match (given(&self.tls_cert), given(&self.tls_key)) {
            (Some(_), Some(_)) if self.plain_http => Err(FrontError::Both),
            (Some(cert), Some(key)) => Ok(Some(TlsFiles {
                cert,
                key,
                client_ca,
            })),
            (None, None) if client_ca.is_some() => Err(FrontError::CaAlone),
            (None, None) => Ok(None),
            _ => Err(FrontError::Half),
        }
    }

    /// What these listeners speak; none: plain HTTP.
    ///
    /// # Errors
    /// Plain HTTP beyond loopback that nobody asked for, or files that cannot be used.
    pub fn open(&self, listeners: &[Listener]) -> Result<Option<Tls>, FrontError> {
        let Some(files) = self.files()? else {
            if !self.plain_http {
                check_plain(listeners)?;
            }
            return Ok(None);
        };
        Ok(Some(Tls::load(files)?))
    }
}

/// Whoever was handed a listener asks the socket itself where it listens.
fn check_plain(listeners: &[Listener]) -> Result<(), FrontError> {
    for listener in listeners {
        let Listener::Tcp(listener) = listener else {
            continue;
        };
        let address = listener.local_addr().map_err(FrontError::NoAddress)?;
        if !listener::is_local(&address) {
            return Err(FrontError::PlainBeyond(address));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(cert: &str, key: &str, ca: &str, plain_http: bool) -> FrontArgs {
        let path = |text: &str| (text != "-").then(|| PathBuf::from(text));
        FrontArgs {
            tls_cert: path(cert),
            tls_key: path(key),
            tls_client_ca: path(ca),
            plain_http,
            check_tls: false,
        }
    }

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        for (args, good) in [
            (args("-", "-", "-", false), true),
            (args("-", "-", "-", true), true),
            (args("", "", "", false), true),
            (args("c", "k", "-", false), true),
            (args("c", "k", "a", false), true),
            (args("c", "k", "-", true), false),
            (args("c", "-", "-", false), false),
            (args("c", "", "-", false), false),
            (args("-", "k", "-", false), false),
            (args("-", "-", "a", false), false),
        ] {
            assert_eq!(args.files().is_ok(), good, "{args:?}");
        }
    }

    #[test]
    fn plain_http_beyond_loopback_is_asked_for_by_name_or_refused() {
        let bind = |address| vec![TcpListener::bind(address).unwrap().into()];
        use std::net::TcpListener;
        let plain = |named| args("-", "-", "-", named);
        assert!(plain(false).open(&bind("127.0.0.1:0")).is_ok());
        assert!(plain(true).open(&bind("0.0.0.0:0")).is_ok());
        assert!(matches!(
            plain(false).open(&bind("0.0.0.0:0")),
            Err(FrontError::PlainBeyond(_))
        ));
    }
}

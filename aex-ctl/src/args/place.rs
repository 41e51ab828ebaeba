//! Where and how the daemon listens, as options of `aex daemon start` and `restart`.

use std::path::PathBuf;

use aex_admin_proto::operator::{DaemonState, Front, TlsPlaces};
use clap::Args;

use aex_admin_proto::listen::Listen;

use crate::listen::DEFAULT_LISTEN;

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct PlaceArgs {
    /// Workers that share the listeners [default: one a CPU, at most 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) workers: Option<u32>,
    /// Where agents connect to: an address (port 0 takes a free one), or unix:/path/NAME.sock in a directory
    /// that exists, open to every user that can reach it: the token is what counts (may be given again)
    /// [default: 127.0.0.1:9000]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Vec<Listen>,
    /// TCP listeners speak TLS with this certificate chain, PEM; taken up again when it changes
    #[arg(long, value_name = "FILE", value_parser = absolute, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key, PEM, mode 0600 or 0640
    #[arg(long, value_name = "FILE", value_parser = absolute, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// A certificate that a client shows must be signed by these CAs, PEM; it need not show one
    #[arg(long, value_name = "FILE", value_parser = absolute, requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// Plain HTTP on addresses beyond loopback too: tokens can be read by whoever is on the way
    #[arg(long, conflicts_with = "tls_cert")]
    plain_http: bool,
}

/// Programs are started in another directory.
fn absolute(text: &str) -> Result<PathBuf, String> {
    std::path::absolute(text).map_err(|error| error.to_string())
}

impl PlaceArgs {
    /// On what terms TCP is taken, where they say.
    pub(crate) fn front(&self) -> Option<Front> {
        let tls = self.tls_cert.clone().zip(self.tls_key.clone());
        let tls = tls.map(|(cert, key)| TlsPlaces {
            cert,
            key,
            client_ca: self.tls_client_ca.clone(),
        });
        (tls.is_some() || self.plain_http).then_some(Front {
            tls,
            plain_http: self.plain_http,
        })
    }

    /// What they do not say is as `running` has it, and else the default.
    pub(crate) fn plan(&self, running: Option<&DaemonState>, default_workers: u32) -> Plan {
        let known = running.into_iter().flat_map(|running| &running.listeners);
        let known: Vec<Listen> = known.filter_map(|text| text.parse().ok()).collect();
        let listen = match (&self.listen[..], &known[..]) {
            ([], []) => vec![Listen::Tcp(DEFAULT_LISTEN)],
            ([], known) => known.to_vec(),
            (asked, _) => asked.to_vec(),
        };
        let front = self.front();
        Plan {
            workers: (self.workers)
                .or_else(|| running.map(|running| running.workers))
                .unwrap_or(default_workers),
            listen,
            front: front
                .or_else(|| running.map(|running| running.front.clone()))
                .unwrap_or_default(),
        }
    }
}

/// What a daemon is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) workers: u32,
    pub(crate) listen: Vec<Listen>,
    pub(crate) front: Front,
}

impl Plan {
    /// The options by which another start would have the same plan.
    pub(crate) fn options(&self) -> Vec<std::ffi::OsString> {
        let mut options = vec!["--workers".into(), self.workers.to_string().into()];
        for listen in &self.listen {
            options.extend(["--listen".into(), listen.to_string().into()]);
        }
        options.extend(front_options(&self.front));
        options
    }

    /// Where plain HTTP would leave this host although nobody asked for that.
    pub(crate) fn plain_beyond(&self) -> Option<&Listen> {
        let may = self.front.tls.is_some() || self.front.plain_http;
        self.listen.iter().find(|listen| !may && !listen.is_local())
    }
}

/// The same options, for workers.
pub(crate) fn front_options(front: &Front) -> Vec<std::ffi::OsString> {
    let mut options = Vec::new();
    if let Some(tls) = &front.tls {
        options.extend(["--tls-cert".into(), tls.cert.clone().into()]);
        options.extend(["--tls-key".into(), tls.key.clone().into()]);
        if let Some(client_ca) = &tls.client_ca {
            options.extend(["--tls-client-ca".into(), client_ca.clone().into()]);
        }
    }
    if front.plain_http {
        options.push("--plain-http".into());
    }
    options
}

//! The way to `aex-admin`: which socket, and calls whose errors are ready to be shown.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aex_admin_proto::client::Client;
use aex_admin_proto::operator::{DaemonState, Status, method};
use aex_admin_proto::places::Places;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::fault::Fault;
use crate::listen::{self, Ways};

/// Longest wait for the answer of an ordinary call.
const CALL: Duration = Duration::from_secs(30);

/// `sun_path` of a Unix socket's address (unix(7)).
const MAX_SOCKET_BYTES: usize = 108;

/// Which kernel this command line speaks of.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    pub(crate) socket: PathBuf,
    pub(crate) places: Places,
}

impl Kernel {
    /// `--socket`, else `AEX_SOCKET`, else the system's when it is there and `AEX_HOME` is unset, else the
    /// home's.
    pub(crate) fn choose(socket: Option<&Path>) -> Result<Self, Fault> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let named = socket
            .map(Path::to_owned)
            .or_else(|| set("AEX_SOCKET").map(PathBuf::from));
        let system = Places::system();
        let places = if named.is_none() && set("AEX_HOME").is_none() && is_the_hosts(&system) {
            system
        } else {
            match user_places() {
                Ok(places) => places,
                // A named socket needs no home.
                Err(_) if named.is_some() => system,
                Err(fault) => return Err(fault),
            }
        };
        Ok(Self {
            socket: named.unwrap_or_else(|| places.operator_socket()),
            places,
        })
    }

    /// What the supervisor beside this socket says of itself.
    pub(crate) fn daemon(&self) -> Option<DaemonState> {
        let text = std::fs::read(self.socket.with_file_name("daemon.json")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Where requests of this agent are taken: a supervisor says it, the workers of a host do.
    pub(crate) async fn ways(&self, link: &Link, agent: &str) -> Ways {
        if let Some(daemon) = self.daemon() {
            return Ways::of_daemon(&daemon);
        }
        let status: Result<Status, Fault> =
            link.call_within(method::STATUS, &json!({}), CALL).await;
        // What is not known is left to the usual address; what was asked for is done already.
        status.map_or_else(
            |_| Ways::default(),
            |status| Ways::of_workers(&status, agent, listen::is_the_hosts),
        )
    }

    pub(crate) async fn open(&self) -> Result<Link, Fault> {
        let socket = &self.socket;
        let error = match Client::connect(socket).await {
            Ok(client) => return Ok(Link::new(client, socket)),
            Err(error) => error,
        };
        if error.kind() != ErrorKind::PermissionDenied {
            return Err(Fault::Unreachable {
                socket: socket.clone(),
                start: self.start(),
                why: error.to_string(),
            });
        }
        // An auditor may read, through a socket of its own.
        let auditor = self.places.auditor_socket();
        if *socket == self.places.operator_socket()
            && let Ok(client) = Client::connect(&auditor).await
        {
            return Ok(Link::new(client, &auditor));
        }
        Err(Fault::Refused(format!(
            "not permitted to connect to {}: operators of the host's kernel are in the group aex-admin, \
             auditors in aex-audit. For a kernel of your own set AEX_HOME.",
            socket.display()
        )))
    }

    /// How it is started.
    fn start(&self) -> &'static str {
        if self.places == Places::system() {
            "systemctl start aex.target"
        } else {
            "aex daemon start"
        }
    }
}

/// The host's kernel is meant where its socket is there; and where it is stopped, by who has no other.
fn is_the_hosts(system: &Places) -> bool {
    let has_home = || Places::from_environment().is_some_and(|own| own.home.exists());
    system.operator_socket().exists() || (system.run.is_dir() && !has_home())
}

/// Said by `aex daemon` where it finds nothing running: somebody may mean the host's.
pub(crate) fn hint_of_the_hosts() -> Option<&'static str> {
    Places::system().operator_socket().exists().then_some(
        "aex: this host's own kernel is a service: `aex status` shows it, `systemctl stop aex.target 'aex-*'` \
         stops it",
    )
}

/// The home of user mode, absolute: children of the supervisor have another working directory.
pub(crate) fn user_places() -> Result<Places, Fault> {
    let places = Places::from_environment().ok_or_else(|| {
        Fault::Usage("neither AEX_HOME nor HOME is set: set AEX_HOME to a directory".into())
    })?;
    let home = std::path::absolute(&places.home)
        .map_err(|error| Fault::file("find", &places.home, &error))?;
    if home.to_str().is_none() {
        return Err(Fault::Usage(format!(
            "{} is not UTF-8: set AEX_HOME to a path that is",
            home.display()
        )));
    }
    let places = Places::user(&home);
    // The longest of them, and the byte that ends a path.
    let socket_bytes = places.egress_role_socket().as_os_str().len() + 1;
    let too_long_by = socket_bytes.saturating_sub(MAX_SOCKET_BYTES);
    if too_long_by > 0 {
        return Err(Fault::Usage(format!(
            "{} is {too_long_by} bytes too long for the Unix sockets in it: set AEX_HOME to a \
             shorter path",
            home.display()
        )));
    }
    Ok(places)
}

/// A connection that is up.
pub(crate) struct Link {
    client: Client,
    socket: PathBuf,
}

impl Link {
    fn new(client: Client, socket: &Path) -> Self {
        Self {
            client,
            socket: socket.to_owned(),
        }
    }

    pub(crate) async fn call<P, R>(&self, method: &str, params: &P) -> Result<R, Fault>
    where
        P: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        self.call_within(method, params, CALL).await
    }

    pub(crate) async fn call_within<P, R>(
        &self,
        method: &str,
        params: &P,
        limit: Duration,
    ) -> Result<R, Fault>
    where
        P: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        self.client
            .call(method, params, limit)
            .await
            .map_err(|error| Fault::of_call(error, &self.socket))
    }

    /// For reads that follow: asked again when the kernel was away for a moment.
    pub(crate) async fn read_again<P, R>(
        &self,
        method: &str,
        params: &P,
        limit: Duration,
    ) -> Result<R, Fault>
    where
        P: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        self.client
            .call_until(method, params, limit)
            .await
            .map_err(|error| Fault::of_call(error, &self.socket))
    }
}

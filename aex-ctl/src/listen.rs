//! Where agents connect to: the places of a supervisor's daemon, or those that the workers of a host tell.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use aex_admin_proto::listen::{Listen, Listening};
use aex_admin_proto::operator::{DaemonState, ScopeView, Settings, Status};
use aex_admin_proto::scope::{ScopeId, ScopeKind};

use crate::ports;

/// Address of the HTTP side where nobody says otherwise.
pub(crate) const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9000);

/// The places where somebody's requests are taken, in the order in which they are told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ways(Vec<Listening>);

impl Ways {
    pub(crate) fn of_daemon(daemon: &DaemonState) -> Self {
        let tls = daemon.front.tls.is_some();
        let places = std::iter::once(&daemon.listen).chain(&daemon.listeners);
        let mut ways = Self::default();
        for at in places.filter_map(|text| text.parse().ok()) {
            let tls = tls && matches!(at, Listen::Tcp(_));
            ways.add(&Listening { at, tls });
        }
        ways
    }

    /// Of a host: the workers of a group above this agent, where there are any, else those that serve
    /// everybody. A worker may have been taken over: what those of other groups say is not asked, and none is
    /// believed of a place that is not `held` by the host itself.
    pub(crate) fn of_workers(status: &Status, agent: &str, held: impl Fn(&Listen) -> bool) -> Self {
        let above = groups_above(&status.scopes, agent);
        let of = |serves: &dyn Fn(Option<&str>) -> bool| {
            let mut ways = Self::default();
            let workers = status.workers.iter();
            workers
                .filter(|worker| serves(worker.group.as_deref()))
                .flat_map(|worker| &worker.listeners)
                .for_each(|place| ways.add(place));
            // Workers tell the same places: each is looked at once.
            ways.0.retain(|place| held(&place.at));
            ways
        };
        let own = of(&|group| group.is_some_and(|group| above.contains(&group)));
        if own.is_empty() {
            return of(&|group| group.is_none());
        }
        own
    }

    /// Those of workers that serve everybody.
    pub(crate) fn of_everybody(status: &Status) -> Self {
        Self::of_workers(status, "", is_the_hosts)
    }

    fn add(&mut self, place: &Listening) {
        if !self.0.contains(place) {
            self.0.push(place.clone());
        }
    }

    /// Nothing is known of any.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn all(&self) -> &[Listening] {
        &self.0
    }

    /// What an agent's client takes as `OPENAI_BASE_URL`: the first TCP address, where there is one.
    pub(crate) fn base_url(&self) -> Option<String> {
        let tcp = |place: &&Listening| matches!(place.at, Listen::Tcp(_));
        let first = self.0.iter().find(tcp).or_else(|| self.0.first());
        first.map(Listening::base_url)
    }

    /// That of its first Unix socket, if it has one.
    pub(crate) fn unix_base_url(&self) -> Option<String> {
        let unix = |place: &&Listening| matches!(place.at, Listen::Unix(_));
        self.0.iter().find(unix).map(Listening::base_url)
    }
}

/// What may be wrong with how somebody's requests are taken.
impl Ways {
    /// As [`Ways::base_url`], for a token with these settings: one that is bound to a user is taken over a
    /// Unix socket alone. Where nothing is known, the usual address.
    pub(crate) fn base_url_for(&self, settings: &Settings) -> String {
        let unix = settings.uid.and_then(|_| self.unix_base_url());
        unix.or_else(|| self.base_url())
            .unwrap_or_else(default_base_url)
    }

    /// A token that no place takes, one sentence for each reason.
    pub(crate) fn unserved(&self, name: &str, settings: &Settings) -> Vec<String> {
        let mut doubts = Vec::new();
        if self.is_empty() {
            return doubts;
        }
        if let Some(uid) = settings.uid
            && self.unix_base_url().is_none()
        {
            doubts.push(format!(
                "aex: {name} is bound to uid {uid}, which only a Unix socket tells, and agents are served on \
                 none: its requests are refused. Add one (`--listen unix:/path/NAME.sock`; on a host a \
                 worker of its group, docs/OPERATIONS.md)"
            ));
        }
        if settings.client_cert.is_some() && !self.0.iter().any(|place| place.tls) {
            doubts.push(format!(
                "aex: {name} is bound to a client's certificate, and agents are served on no TLS address: its \
                 requests are refused. Add one (--tls-cert, --tls-key, --tls-client-ca)"
            ));
        }
        doubts
    }

    /// Those, and that its base URL is one which not every client takes.
    pub(crate) fn doubts(&self, name: &str, settings: &Settings) -> Vec<String> {
        let mut doubts = self.unserved(name, settings);
        if self.is_empty() {
            doubts
                .push("aex: no worker says where it listens: the base URL is the usual one".into());
        }
        if let Some(socket) = socket_of(&self.base_url_for(settings)) {
            doubts.push(format!(
                "aex: the base URL is a Unix socket's, which not every client takes; others want `{}` and a \
                 transport of their own (docs/API.md)",
                socket.display()
            ));
        }
        doubts
    }
}

/// Whether systemd made what listens there, so that nobody else gets what is sent.
pub(crate) fn is_the_hosts(at: &Listen) -> bool {
    match at {
        Listen::Tcp(address) => ports::is_roots(&ports::listeners(), address.port()),
        Listen::Unix(path) => {
            let stat = std::fs::symlink_metadata(path);
            stat.is_ok_and(|stat| stat.file_type().is_socket() && stat.uid() == 0)
        }
    }
}

/// Names of the groups that an agent is in, as far up as they go.
fn groups_above<'a>(scopes: &'a [ScopeView], agent: &str) -> Vec<&'a str> {
    let of_id = |id: ScopeId| scopes.iter().find(|scope| scope.id == id);
    let own = |scope: &&ScopeView| scope.kind == ScopeKind::Agent && scope.name == agent;
    let mut names = Vec::new();
    let mut next = scopes.iter().find(own).and_then(|scope| scope.parent);
    // No path is longer than there are scopes, whatever they say of each other.
    while let Some(scope) = next.and_then(of_id).filter(|_| names.len() < scopes.len()) {
        if scope.kind == ScopeKind::Group {
            names.push(scope.name.as_str());
        }
        next = scope.parent;
    }
    names
}

/// The socket of a base URL that leads to one.
pub(crate) fn socket_of(base_url: &str) -> Option<PathBuf> {
    let path = base_url.strip_prefix("http+unix://")?.strip_suffix("/v1")?;
    let mut parts = path.split('%');
    let mut plain = parts.next()?.as_bytes().to_vec();
    for part in parts {
        plain.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        plain.extend(part.get(2..)?.bytes());
    }
    String::from_utf8(plain).ok().map(PathBuf::from)
}

pub(crate) fn default_base_url() -> String {
    let at = Listen::Tcp(DEFAULT_LISTEN);
    Listening { at, tls: false }.base_url()
}

#[cfg(test)]
mod tests;

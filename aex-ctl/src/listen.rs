//! A place where agents connect to, as it is written: `127.0.0.1:9000`, `unix:/run/x/agents.sock`. And what a
//! client takes as its base URL there. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use aex_admin_proto::operator::DaemonState;

/// Address of the HTTP side where nobody says otherwise.
pub(crate) const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9000);

const UNIX: &str = "unix:";
/// `sun_path` of a Unix socket's address (unix(7)), without the byte that ends it.
const MAX_PATH_BYTES: usize = 107;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listen {
    Tcp(SocketAddr),
    /// Absolute.
    Unix(PathBuf),
}

impl Listen {
    /// Whoever connects there is on this host. An unspecified address is every one of it.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(path) = text.strip_prefix(UNIX) else {
            return text.parse().map(Self::Tcp).map_err(|_| {
                format!("expected 127.0.0.1:9000 or unix:/path/NAME.sock, not `{text}`")
            });
        };
        let named = path.rsplit('/').next().unwrap_or_default();
        let is_socket = named
            .strip_suffix(".sock")
            .is_some_and(|name| !name.is_empty());
        if !path.starts_with('/') || !is_socket || path.chars().any(char::is_control) {
            return Err(format!(
                "expected an absolute path that ends in .sock, as in unix:/run/aex/agents.sock, not \
                 `{path}`"
            ));
        }
        if path.len() > MAX_PATH_BYTES {
            return Err(format!(
                "a Unix socket's path has at most {MAX_PATH_BYTES} bytes"
            ));
        }
        Ok(Self::Unix(path.into()))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// What an agent's client takes as `OPENAI_BASE_URL`. For a Unix socket the form that HTTP clients have
/// which speak over one, with its path as the host.
pub(crate) fn base_url(daemon: &DaemonState) -> String {
    match daemon.listen.parse() {
        Ok(Listen::Tcp(address)) => {
            let scheme = match daemon.front.tls {
                Some(_) => "https",
                None => "http",
            };
            format!("{scheme}://{}/v1", reachable(address))
        }
        Ok(Listen::Unix(path)) => unix_url(&path),
        Err(_) => format!("http://{}/v1", daemon.listen),
    }
}

/// That of its first Unix socket, if it has one.
pub(crate) fn unix_base_url(daemon: &DaemonState) -> Option<String> {
    let places = daemon.listeners.iter().filter_map(|text| text.parse().ok());
    let mut paths = places.filter_map(|place| match place {
        Listen::Unix(path) => Some(path),
        Listen::Tcp(_) => None,
    });
    paths.next().map(|path| unix_url(&path))
}

fn unix_url(path: &Path) -> String {
    format!("http+unix://{}/v1", escaped(&path.to_string_lossy()))
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
    format!("http://{DEFAULT_LISTEN}/v1")
}

/// Nobody connects to an unspecified address: on this host its loopback is as good.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// A path as the host of a URL.
fn escaped(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let each = path.bytes().map(|b| match plain(b) {
        true => char::from(b).to_string(),
        false => format!("%{b:02X}"),
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_socket_of_a_base_url_is_found_again() {
        let path = Path::new("/tmp/a b%41/ä.sock");
        assert_eq!(socket_of(&unix_url(path)).as_deref(), Some(path));
        assert_eq!(socket_of(&default_base_url()), None);
    }

    use aex_admin_proto::operator::{Front, TlsPlaces};

    use super::*;

    #[test]
    fn a_place_reads_as_it_is_written() {
        for text in [
            "127.0.0.1:9000",
            "0.0.0.0:0",
            "[::1]:9000",
            "unix:/run/aex/agents.sock",
            "unix:/a b/x.sock",
        ] {
            let listen: Listen = text.parse().unwrap();
            assert_eq!(listen.to_string(), text);
        }
        for text in [
            "",
            "localhost:9000",
            "9000",
            "unix:",
            "unix:agents.sock",
            "unix:/run/agents",
            "unix:/run/.sock",
            "unix:/run/x.sock/",
            "unix:/run/\n.sock",
            "unix://",
        ] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
        let long = format!("unix:/{}.sock", "x".repeat(MAX_PATH_BYTES));
        assert!(long.parse::<Listen>().is_err());
    }

    #[test]
    fn what_leaves_the_host_is_known() {
        for (text, local) in [
            ("127.0.0.1:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("unix:/x.sock", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("192.0.2.1:1", false),
        ] {
            assert_eq!(text.parse::<Listen>().unwrap().is_local(), local, "{text}");
        }
    }

    #[test]
    fn a_base_url_says_what_is_spoken_there() {
        let url = |listen: &str, is_tls: bool| {
            let places = TlsPlaces {
                cert: "/c".into(),
                key: "/k".into(),
                client_ca: None,
            };
            base_url(&DaemonState {
                pid: 1,
                listen: listen.into(),
                workers: 1,
                listeners: vec![listen.into()],
                front: Front {
                    tls: is_tls.then_some(places),
                    plain_http: false,
                },
            })
        };
        assert_eq!(url("127.0.0.1:9000", false), "http://127.0.0.1:9000/v1");
        assert_eq!(url("127.0.0.1:9000", true), "https://127.0.0.1:9000/v1");
        assert_eq!(url("0.0.0.0:9443", true), "https://127.0.0.1:9443/v1");
        assert_eq!(url("[::]:9443", true), "https://[::1]:9443/v1");
        assert_eq!(
            url("unix:/run/a x/b.sock", true),
            "http+unix://%2Frun%2Fa%20x%2Fb.sock/v1"
        );
    }
}

//! A place where agents connect to, as it is written: `127.0.0.1:9000`, `unix:/run/x/agents.sock`. And what a
//! client takes as its base URL there. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const UNIX: &str = "unix:";
/// `sun_path` of a Unix socket's address (unix(7)), without the byte that ends it.
const MAX_PATH_BYTES: usize = 107;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Listen {
    Tcp(SocketAddr),
    /// Absolute.
    Unix(PathBuf),
}

impl From<Listen> for String {
    fn from(listen: Listen) -> Self {
        listen.to_string()
    }
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// A place, and on what terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listening {
    pub at: Listen,
    /// TLS is spoken there, not plain HTTP.
    pub tls: bool,
}

impl Listening {
    /// What an agent's client takes as `OPENAI_BASE_URL`. For a Unix socket the form that HTTP clients have
    /// which speak over one, with its path as the host.
    #[must_use]
    pub fn base_url(&self) -> String {
        match &self.at {
            Listen::Tcp(address) => {
                let scheme = if self.tls { "https" } else { "http" };
                format!("{scheme}://{}/v1", reachable(*address))
            }
            Listen::Unix(path) => {
                format!("http+unix://{}/v1", escaped(&path.to_string_lossy()))
            }
        }
    }
}

impl Listen {
    /// Whoever connects there is on this host. An unspecified address is every one of it.
    #[must_use]
    pub fn is_local(&self) -> bool {
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
            return text.parse().map(Self::Tcp).map_err(|_| no_address(text));
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

/// Why a text is no address, by what was probably meant.
fn no_address(text: &str) -> String {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if digits(port) => (Some(host), port),
        None if digits(text) => (None, text),
        _ => {
            return format!("expected 127.0.0.1:9000 or unix:/path/NAME.sock, not `{text}`");
        }
    };
    if port.parse::<u16>().is_err() {
        return format!("a port is 0 to 65535, not {port}");
    }
    match host {
        None | Some("") => format!("an address is needed before the port, as in 127.0.0.1:{port}"),
        Some(host) => format!(
            "`{host}` is no numeric address, and names are not looked up: write 127.0.0.1:{port} for this \
             host alone, or the address itself, an IPv6 one in brackets ([::1]:{port})"
        ),
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

/// Nobody connects to an unspecified address: on this host its loopback is as good.
#[must_use]
pub fn reachable(address: SocketAddr) -> SocketAddr {
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
    fn what_is_no_address_is_told_what_was_meant() {
        for (text, told) in [
            ("localhost:9000", "write 127.0.0.1:9000"),
            ("localhost:9000", "names are not looked up"),
            ("::1:9000", "[::1]:9000"),
            ("9000", "as in 127.0.0.1:9000"),
            (":9000", "as in 127.0.0.1:9000"),
            ("99999", "0 to 65535, not 99999"),
            ("127.0.0.1:99999", "0 to 65535, not 99999"),
            ("127.0.0.1", "expected 127.0.0.1:9000"),
            ("/run/x.sock", "unix:/path/NAME.sock"),
        ] {
            let why = text.parse::<Listen>().unwrap_err();
            assert!(why.contains(told), "{text}: {why}");
        }
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
        let url = |at: &str, tls| {
            let at = at.parse().unwrap();
            Listening { at, tls }.base_url()
        };
        assert_eq!(url("127.0.0.1:9000", false), "http://127.0.0.1:9000/v1");
        assert_eq!(url("127.0.0.1:9000", true), "https://127.0.0.1:9000/v1");
        assert_eq!(url("0.0.0.0:9443", true), "https://127.0.0.1:9443/v1");
        assert_eq!(url("[::]:9443", true), "https://[::1]:9443/v1");
        assert_eq!(
            url("unix:/run/a x/b.sock", false),
            "http+unix://%2Frun%2Fa%20x%2Fb.sock/v1"
        );
    }
}

//! Whether providers can be reached from here: a connection is made and closed, nothing is sent.

use std::net::SocketAddr;
use std::time::Duration;

use aex_admin_proto::operator::ProviderView;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::{Finding, State};

const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;

/// A provider, and the address at which something answered.
pub(super) struct Reached {
    pub(super) provider: String,
    pub(super) at: Result<SocketAddr, String>,
}

/// All at once: one that does not answer takes its whole time.
pub(super) async fn look(providers: &[ProviderView]) -> Vec<Reached> {
    let looks: Vec<_> = (providers.iter().cloned())
        .map(|provider| {
            tokio::spawn(async move {
                let at = match host_and_port(&provider.base_url) {
                    Some(place) => reach(&place).await,
                    None => Err("its base_url has no host".to_owned()),
                };
                Reached {
                    provider: provider.name,
                    at,
                }
            })
        })
        .collect();
    let mut reached = Vec::with_capacity(looks.len());
    for look in looks {
        reached.extend(look.await.ok());
    }
    reached
}

async fn reach(place: &str) -> Result<SocketAddr, String> {
    let addresses = match timeout(CONNECT_LIMIT, lookup_host(place)).await {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => return Err(format!("{place} cannot be resolved: {error}")),
        Err(_) => return Err(format!("{place} cannot be resolved in time")),
    };
    let mut last = format!("{place} has no address");
    for address in addresses.take(MAX_ADDRESSES) {
        last = match timeout(CONNECT_LIMIT, TcpStream::connect(address)).await {
            Ok(Ok(_)) => return Ok(address),
            Ok(Err(error)) => format!("{place} ({address}): {error}"),
            Err(_) => format!("{place} ({address}): no answer in time"),
        };
    }
    Err(last)
}

/// `HOST:PORT` of a base_url, brackets kept.
fn host_and_port(base_url: &str) -> Option<String> {
    let (scheme, rest) = base_url.split_once("://")?;
    let authority = rest.split('/').next().filter(|text| !text.is_empty())?;
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    Some(match (has_port, scheme) {
        (true, _) => authority.to_owned(),
        (false, "http") => format!("{authority}:80"),
        (false, _) => format!("{authority}:443"),
    })
}

impl Reached {
    pub(super) fn finding(&self) -> Finding {
        let name = &self.provider;
        match &self.at {
            Ok(address) => Finding::ok("providers", format!("{name} answers at {address}")),
            Err(why) => Finding::new(
                "providers",
                State::Warning,
                format!("{name} cannot be reached from here: {why}"),
            )
            .fix("requests to it would be answered with status 502: look at the network, or at base_url"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_the_schemes_where_none_is_written() {
        for (url, place) in [
            ("https://api.example.com/v1", "api.example.com:443"),
            ("http://localhost:11434/v1", "localhost:11434"),
            ("http://127.0.0.1", "127.0.0.1:80"),
            ("https://[::1]/x", "[::1]:443"),
            ("https://[::1]:8443", "[::1]:8443"),
        ] {
            assert_eq!(host_and_port(url).as_deref(), Some(place), "{url}");
        }
        assert_eq!(host_and_port("nowhere"), None);
    }
}

//! A provider as the egress acts on it: where it is, what is trusted, which key goes along.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aex_admin_proto::egress::{EgressConfig, ProviderConfig};
use aex_admin_proto::ticket::TicketKey;
use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri};
use rustls_pki_types::ServerName;
use secrecy::ExposeSecret;

use crate::EgressError;
use crate::attach;
use crate::keys::{FoundKey, KeyRing};
use crate::mask::MaskedKey;
use crate::pool::Pool;
use crate::tls::{SystemTrust, Trust, own_trust};

/// The configuration in force.
pub struct Active {
    pub generation: u64,
    pub ticket_key: TicketKey,
    pub providers: HashMap<String, Arc<Provider>>,
}

pub struct Provider {
    pub config: ProviderConfig,
    pub place: Place,
    pub trust: Trust,
    /// `Bearer` with the operator's key. Marked sensitive.
    pub authorization: Option<HeaderValue>,
    /// The same key, as it is looked for in answers under it.
    pub masked: Option<Arc<MaskedKey>>,
    pub pool: Pool,
}

/// What a `base_url` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub is_tls: bool,
    /// Without brackets.
    pub host: String,
    pub port: u16,
    pub authority: Authority,
    pub host_header: HeaderValue,
    /// Without a trailing slash.
    pub prefix: String,
}

impl Active {
    /// Makes everything that a configuration asks for, or nothing. Connections of providers that did
    /// not change are kept.
    ///
    /// # Errors
    /// What makes it unfit, for the operator.
    pub fn build(
        config: EgressConfig,
        keys: &KeyRing,
        system: &Arc<SystemTrust>,
        before: Option<&Self>,
    ) -> Result<Self, EgressError> {
        let mut secret = [0; 32];
        hex::decode_to_slice(&config.ticket_key.secret, &mut secret)
            .map_err(|_| EgressError::TicketKey)?;
        let mut found = keys.load(&config.providers)?;
        let mut providers = HashMap::with_capacity(config.providers.len());
        for provider in config.providers {
            let authorization = authorization(&provider.name, found.remove(&provider.name))?;
            let same = before
                .and_then(|before| before.providers.get(&provider.name))
                .filter(|old| {
                    let header = authorization.as_ref().map(|(header, _)| header);
                    old.serves_as(&provider, header)
                });
            let built = match same {
                Some(old) => Arc::clone(old),
                None => Arc::new(Provider::build(provider, authorization, system)?),
            };
            providers.insert(built.config.name.clone(), built);
        }
        Ok(Self {
            generation: config.generation,
            ticket_key: TicketKey::new(config.ticket_key.id, secret),
            providers,
        })
    }

    /// Names of the providers for which an operator's key is loaded, sorted.
    #[must_use]
    pub fn operator_keys(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .providers
            .values()
            .filter(|provider| provider.authorization.is_some())
            .map(|provider| provider.config.name.clone())
            .collect();
        names.sort_unstable();
        names
    }
}

/// The header, and the key in it.
fn authorization(
    provider: &str,
    found: Option<FoundKey>,
) -> Result<Option<(HeaderValue, Bytes)>, EgressError> {
    let Some(found) = found else { return Ok(None) };
    let whole = found.key.bearer();
    let header = attach::bearer(found.key.expose_secret().as_bytes()).and_then(|checked| {
        // The same text, in the key's own pages.
        let mut header = HeaderValue::from_maybe_shared(whole.clone()).ok()?;
        header.set_sensitive(true);
        (header == checked).then_some(header)
    });
    match header {
        Some(header) => {
            let key = attach::key_of(&header).map_or(0, <[u8]>::len);
            let key = whole.slice(whole.len() - key..);
            Ok(Some((header, key)))
        }
        None => Err(EgressError::KeyUnusable {
            provider: provider.to_owned(),
            place: found.place,
        }),
    }
}

impl Provider {
    fn build(
        config: ProviderConfig,
        key: Option<(HeaderValue, Bytes)>,
        system: &Arc<SystemTrust>,
    ) -> Result<Self, EgressError> {
        let place = Place::parse(&config.base_url).map_err(|why| EgressError::BaseUrl {
            provider: config.name.clone(),
            base_url: config.base_url.clone(),
            why,
        })?;
        let trust = match (&config.ca_file, place.is_tls) {
            (_, false) => Trust::Plain,
            (Some(path), true) => own_trust(&config.name, path)?,
            (None, true) => Trust::System(Arc::clone(system)),
        };
        let (authorization, key) = key.unzip();
        let masked = key.and_then(MaskedKey::of).map(Arc::new);
        Ok(Self {
            config,
            place,
            trust,
            authorization,
            masked,
            pool: Pool::default(),
        })
    }

    /// A `ca_file` may have changed under its name, so such a provider is always built anew.
    fn serves_as(&self, config: &ProviderConfig, authorization: Option<&HeaderValue>) -> bool {
        self.config == *config
            && config.ca_file.is_none()
            && self.authorization.as_ref() == authorization
    }

    #[must_use]
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.config.connect_timeout_ms)
    }
}

impl Place {
    /// # Errors
    /// Why it is no base URL, in words.
    pub fn parse(base_url: &str) -> Result<Self, &'static str> {
        let uri: Uri = base_url.parse().map_err(|_| "it is not a URL")?;
        let is_tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err("it must begin with http:// or https://"),
        };
        let authority = uri.authority().ok_or("it has no host")?.clone();
        if authority.as_str().contains('@') {
            return Err("it must not carry credentials: keys are configured apart");
        }
        if uri.query().is_some() {
            return Err("it must not have a query");
        }
        let host = authority.host();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host)
            .to_owned();
        if !is_tls && !is_loopback(&host) {
            return Err(
                "plain http is for this machine alone (127.0.0.0/8, ::1, localhost): use https://",
            );
        }
        if is_tls && ServerName::try_from(host.as_str()).is_err() {
            return Err("its host cannot be in a certificate");
        }
        let port = match (authority.port_u16(), is_tls) {
            (Some(port), _) => port,
            (None, true) => 443,
            (None, false) => 80,
        };
        let host_header = HeaderValue::from_str(authority.as_str())
            .map_err(|_| "its host cannot be sent as a header")?;
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self {
            is_tls,
            host,
            port,
            authority,
            host_header,
            prefix,
        })
    }

    /// The request's target: origin form for HTTP/1.1, absolute for HTTP/2.
    #[must_use]
    pub fn target(&self, path: &str, absolute: bool) -> Option<Uri> {
        let whole = if self.prefix.is_empty() {
            path.parse::<PathAndQuery>()
        } else {
            let mut whole = String::with_capacity(self.prefix.len() + path.len());
            whole.push_str(&self.prefix);
            whole.push_str(path);
            PathAndQuery::from_maybe_shared(bytes::Bytes::from(whole))
        };
        let mut parts = http::uri::Parts::default();
        parts.path_and_query = Some(whole.ok()?);
        if absolute {
            parts.scheme = Some(Scheme::HTTPS);
            parts.authority = Some(self.authority.clone());
        }
        Uri::from_parts(parts).ok()
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests;

//! A provider's address: which ones are taken, and which are loopback.
//!
//! Strict on purpose. Whether a host is loopback decides if plain http is allowed and if a model is
//! free, so only the three plain spellings count; a host that a resolver might read as an address in
//! some other way (`127.1`, `0x7f.0.0.1`) is refused.

use std::net::{Ipv4Addr, Ipv6Addr};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BaseUrl {
    /// Lower-case scheme and host, no trailing slash.
    pub(super) text: String,
    /// Without port or brackets.
    pub(super) host: String,
    pub(super) loopback: bool,
    pub(super) https: bool,
}

const MAX_URL_BYTES: usize = 2048;
const FORM: &str = "base_url must look like https://HOST[:PORT][/PATH]";

pub(super) fn parse(text: &str) -> Result<BaseUrl, &'static str> {
    if text.len() > MAX_URL_BYTES {
        return Err("base_url is longer than 2048 bytes");
    }
    let (scheme, rest) = text.split_once("://").ok_or(FORM)?;
    let https = match scheme.to_ascii_lowercase().as_str() {
        "https" => true,
        "http" => false,
        _ => return Err("base_url must begin with https:// (or http:// on a loopback host)"),
    };
    if rest.contains('@') {
        return Err(
            "base_url must carry no credentials: give the key as keys/<provider> or <PROVIDER>_API_KEY",
        );
    }
    if rest.contains(['?', '#']) {
        return Err("base_url must have no query and no fragment");
    }
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let (host, port) = split_port(authority)?;
    let host = host.to_ascii_lowercase();
    let loopback = check_host(&host)?;
    if !https && !loopback {
        return Err(
            "plain http is for loopback hosts alone (127.0.0.0/8, [::1], localhost), for a key would travel in clear: use https",
        );
    }
    let path = check_path(path)?;
    let scheme = if https { "https" } else { "http" };
    Ok(BaseUrl {
        text: format!("{scheme}://{host}{port}{path}"),
        host: host.trim_matches(['[', ']']).to_owned(),
        loopback,
        https,
    })
}

/// The port keeps its colon, or is empty.
fn split_port(authority: &str) -> Result<(&str, &str), &'static str> {
    let host_end = if authority.starts_with('[') {
        authority.find(']').map(|bracket| bracket + 1)
    } else {
        authority.find(':')
    };
    let host_end = host_end.unwrap_or(authority.len());
    let (host, port) = authority.split_at(host_end);
    if port.is_empty() {
        return Ok((host, port));
    }
    let digits = port.strip_prefix(':').ok_or(FORM)?;
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    match digits.parse::<u16>() {
        Ok(1..) if plain => Ok((host, port)),
        _ => Err("the port of base_url must be a number from 1 to 65535"),
    }
}

/// Tells whether it is loopback.
fn check_host(host: &str) -> Result<bool, &'static str> {
    if let Some(inner) = host.strip_prefix('[') {
        let address: Ipv6Addr = inner
            .strip_suffix(']')
            .and_then(|inner| inner.parse().ok())
            .ok_or("the host of base_url is not an IPv6 address")?;
        return Ok(address == Ipv6Addr::LOCALHOST);
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Ok(address.is_loopback());
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if host.len() > 253 || !host.split('.').all(label) {
        return Err("the host of base_url is not a host name");
    }
    let last = host.rsplit('.').next().unwrap_or(host);
    if last.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("the host of base_url is not a host name: write an IPv4 address as a.b.c.d");
    }
    Ok(host == "localhost")
}

fn check_path(path: &str) -> Result<&str, &'static str> {
    let path = path.trim_end_matches('/');
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:".contains(&b);
    if !path.bytes().all(plain) {
        return Err("the path of base_url has a character that does not belong there");
    }
    let odd = |segment: &str| matches!(segment, "" | "." | "..");
    if path.split('/').skip(1).any(odd) {
        return Err("the path of base_url must have no empty, \".\" or \"..\" segments");
    }
    Ok(path)
}

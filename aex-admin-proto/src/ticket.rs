//! Tickets: what lets one request, and only that one, through the egress.
//!
//! A ticket is `v2.<key id>.<claims>.<mac>`: the claims are the fields of [`Claims`] in their order
//! with `;` between them, the mac is HMAC-SHA256 (RFC 2104) over everything before its dot, in
//! base64url. A ticket is made, carried and read several times a request, so it is short. Times are
//! the boot clock's, which the processes of one host share. Pure: the time is passed in.

use std::fmt::Write as _;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::HoldId;

/// Longest ticket that is looked at.
pub const MAX_TICKET_BYTES: usize = 4096;

/// Whose provider key the request travels under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyMode {
    /// The operator's key for the provider.
    Operator,
    /// The agent's own, from `x-aex-provider-key`.
    Own,
    /// None at all: a local server that asks for none.
    None,
}

impl KeyMode {
    fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Own => "own",
            Self::None => "none",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Operator, Self::Own, Self::None]
            .into_iter()
            .find(|mode| mode.as_str() == text)
    }
}

/// What the ticket allows, word for word. A text with a `;` in it makes a ticket that never opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    pub id: HoldId,
    pub provider: String,
    pub method: String,
    /// Path below the provider's `base_url`, with a leading slash.
    pub path: String,
    pub key: KeyMode,
    pub max_body_bytes: u64,
    pub max_response_bytes: u64,
    /// The exchange is cut here, boot clock.
    pub deadline_boot_ms: u64,
    /// Not redeemed after this, boot clock. Limits redemption only, never a stream.
    pub expires_boot_ms: u64,
}

impl Claims {
    fn write(&self, out: &mut String) {
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "{};{};{};{};{};{};{};{};{}",
            self.id,
            self.provider,
            self.method,
            self.path,
            self.key.as_str(),
            self.max_body_bytes,
            self.max_response_bytes,
            self.deadline_boot_ms,
            self.expires_boot_ms,
        );
    }

    fn read(text: &str) -> Option<Self> {
        fn next<'a, T: FromStr>(fields: &mut impl Iterator<Item = &'a str>) -> Option<T> {
            fields.next()?.parse().ok()
        }
        let fields = &mut text.split(';');
        let claims = Self {
            id: next(fields)?,
            provider: next(fields)?,
            method: next(fields)?,
            path: next(fields)?,
            key: KeyMode::parse(fields.next()?)?,
            max_body_bytes: next(fields)?,
            max_response_bytes: next(fields)?,
            deadline_boot_ms: next(fields)?,
            expires_boot_ms: next(fields)?,
        };
        fields.next().is_none().then_some(claims)
    }
}

/// The shared secret of `aex-admin` (seals) and `aex-egress` (opens), with its id.
#[derive(Clone)]
pub struct TicketKey {
    id: u32,
    secret: Zeroizing<[u8; 32]>,
    /// Keyed with the secret, and fed nothing yet.
    keyed: Hmac<Sha256>,
}

impl std::fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TicketKey({}, redacted)", self.id)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    #[error("ticket is malformed")]
    Malformed,
    #[error("ticket is of an unknown key")]
    UnknownKey,
    #[error("ticket is forged")]
    Forged,
    #[error("ticket has expired")]
    Expired,
}

impl TicketKey {
    /// # Panics
    /// Never: HMAC takes a key of any length.
    #[must_use]
    pub fn new(id: u32, secret: [u8; 32]) -> Self {
        #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
        let keyed = Hmac::new_from_slice(&secret).expect("HMAC takes any key length");
        Self {
            id,
            secret: Zeroizing::new(secret),
            keyed,
        }
    }

    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// For the hand-over from admin to egress alone.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.secret
    }

    fn mac(&self, signed: &str) -> Hmac<Sha256> {
        self.keyed.clone().chain_update(signed)
    }

    /// Writes and signs a ticket.
    #[must_use]
    pub fn seal(&self, claims: &Claims) -> String {
        let mut ticket = String::with_capacity(256);
        let _ = write!(ticket, "v2.{}.", self.id);
        claims.write(&mut ticket);
        let mac = self.mac(&ticket).finalize().into_bytes();
        ticket.push('.');
        URL_SAFE_NO_PAD.encode_string(mac, &mut ticket);
        ticket
    }

    /// Checks the signature and expiry, and gives the claims.
    ///
    /// # Errors
    /// See [`TicketError`]. That a ticket is used once is the egress's to check.
    pub fn open(&self, ticket: &str, now_boot_ms: u64) -> Result<Claims, TicketError> {
        let claims = self.open_expired(ticket)?;
        if now_boot_ms > claims.expires_boot_ms {
            return Err(TicketError::Expired);
        }
        Ok(claims)
    }

    /// As [`TicketKey::open`], but an expired ticket still proves whose hold it was (settle).
    ///
    /// # Errors
    /// See [`TicketError`].
    pub fn open_expired(&self, ticket: &str) -> Result<Claims, TicketError> {
        if ticket.len() > MAX_TICKET_BYTES {
            return Err(TicketError::Malformed);
        }
        let (signed, mac) = ticket.rsplit_once('.').ok_or(TicketError::Malformed)?;
        let mut parts = signed.splitn(3, '.');
        let (Some("v2"), Some(key), Some(claims)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(TicketError::Malformed);
        };
        if key.parse() != Ok(self.id) {
            return Err(TicketError::UnknownKey);
        }
        let mac = URL_SAFE_NO_PAD
            .decode(mac)
            .map_err(|_| TicketError::Malformed)?;
        // `verify_slice` compares in constant time.
        self.mac(signed)
            .verify_slice(&mac)
            .map_err(|_| TicketError::Forged)?;
        Claims::read(claims).ok_or(TicketError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims {
            id: HoldId::from([7; 16]),
            provider: "groq".into(),
            method: "POST".into(),
            path: "/chat/completions".into(),
            key: KeyMode::Operator,
            max_body_bytes: 10,
            max_response_bytes: 20,
            deadline_boot_ms: 600_000,
            expires_boot_ms: 30_000,
        }
    }

    #[test]
    fn a_sealed_ticket_opens_until_it_expires() {
        let key = TicketKey::new(1, [3; 32]);
        let ticket = key.seal(&claims());
        assert_eq!(key.open(&ticket, 30_000), Ok(claims()));
        assert_eq!(key.open(&ticket, 30_001), Err(TicketError::Expired));
        assert_eq!(key.open_expired(&ticket), Ok(claims()));
    }

    #[test]
    fn a_ticket_changed_anywhere_is_refused() {
        let key = TicketKey::new(1, [3; 32]);
        let ticket = key.seal(&claims());
        for at in 0..ticket.len() {
            let mut bytes = ticket.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(key.open(&changed, 0).is_err(), "byte {at} may be changed");
        }
    }

    #[test]
    fn a_text_that_could_be_read_as_more_fields_never_opens() {
        let key = TicketKey::new(1, [3; 32]);
        for path in ["/a;operator", "/a;", ";"] {
            let claims = Claims {
                path: path.into(),
                ..claims()
            };
            assert_eq!(
                key.open(&key.seal(&claims), 0),
                Err(TicketError::Malformed),
                "{path:?}"
            );
        }
        for name in ["a.b", "", "x-y_z"] {
            let claims = Claims {
                provider: name.into(),
                ..claims()
            };
            assert_eq!(key.open(&key.seal(&claims), 0), Ok(claims));
        }
    }

    #[test]
    fn another_key_does_not_open_it() {
        let ticket = TicketKey::new(1, [3; 32]).seal(&claims());
        assert_eq!(
            TicketKey::new(1, [4; 32]).open(&ticket, 0),
            Err(TicketError::Forged)
        );
        assert_eq!(
            TicketKey::new(2, [3; 32]).open(&ticket, 0),
            Err(TicketError::UnknownKey)
        );
        for bad in ["", ".", "v2", "v2.1.a", "v1.1.a.b", "v2.1.\u{e9}.b"] {
            assert!(TicketKey::new(1, [3; 32]).open(bad, 0).is_err(), "{bad:?}");
        }
    }
}

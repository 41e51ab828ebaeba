//! Tickets: what lets one request, and only that one, through the egress.
//!
//! A ticket is `v1.<key id>.<claims>.<mac>`: the claims are base64url JSON, the mac is HMAC-SHA256
//! (RFC 2104) over everything before its dot. Times are the boot clock's, which the processes of one
//! host share. Pure: the time is passed in.

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

/// What the ticket allows, word for word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// The shared secret of `aex-admin` (seals) and `aex-egress` (opens), with its id.
#[derive(Clone)]
pub struct TicketKey {
    id: u32,
    secret: Zeroizing<[u8; 32]>,
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
    #[must_use]
    pub fn new(id: u32, secret: [u8; 32]) -> Self {
        Self {
            id,
            secret: Zeroizing::new(secret),
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

    fn mac(&self, signed: &[u8]) -> Hmac<Sha256> {
        #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&*self.secret).expect("HMAC takes any key length");
        mac.update(signed);
        mac
    }

    /// Writes and signs a ticket.
    ///
    /// # Panics
    /// Never: the claims are plain strings and numbers, which always serialise.
    #[must_use]
    pub fn seal(&self, claims: &Claims) -> String {
        #[expect(clippy::expect_used, reason = "strings and numbers always serialise")]
        let json = serde_json::to_vec(claims).expect("claims serialise");
        let mut ticket = format!("v1.{}.", self.id);
        URL_SAFE_NO_PAD.encode_string(json, &mut ticket);
        let mac = self.mac(ticket.as_bytes()).finalize().into_bytes();
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
        let (Some("v1"), Some(key), Some(claims)) = (parts.next(), parts.next(), parts.next())
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
        self.mac(signed.as_bytes())
            .verify_slice(&mac)
            .map_err(|_| TicketError::Forged)?;
        let json = URL_SAFE_NO_PAD
            .decode(claims)
            .map_err(|_| TicketError::Malformed)?;
        serde_json::from_slice(&json).map_err(|_| TicketError::Malformed)
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
        for bad in ["", ".", "v1", "v1.1.a", "v2.1.a.b", "v1.1.\u{e9}.b"] {
            assert!(TicketKey::new(1, [3; 32]).open(bad, 0).is_err(), "{bad:?}");
        }
    }
}

//! Identifiers that cross process boundaries: reservation ids, and digests of what stays in the worker
//! (tokens, idempotency keys, requests).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// Why a text is not an identifier.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected {0} hexadecimal digits")]
pub struct NotAnId(usize);

macro_rules! hex_id {
    ($name:ident, $bytes:literal) => {
        impl $name {
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl From<[u8; $bytes]> for $name {
            fn from(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                let mut bytes = [0; $bytes];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| NotAnId($bytes * 2))?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut text = [0; $bytes * 2];
                hex::encode_to_slice(self.0, &mut text).map_err(serde::ser::Error::custom)?;
                serializer
                    .serialize_str(std::str::from_utf8(&text).map_err(serde::ser::Error::custom)?)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// A reservation's id: 128 random bits, made by the worker before it asks, so that a lost reply can
/// be asked for again and is answered the same. 32 hexadecimal digits on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HoldId([u8; 16]);

hex_id!(HoldId, 16);

impl HoldId {
    /// A fresh id from the kernel's random source.
    ///
    /// # Errors
    /// The operating system gave no randomness.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for HoldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for HoldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HoldId({self})")
    }
}

/// SHA-256 of an agent's token. Tokens carry 256 random bits, so the digest needs no salt; the token
/// itself never leaves the worker that received it. 64 hexadecimal digits on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenDigest([u8; 32]);

hex_id!(TokenDigest, 32);

impl TokenDigest {
    #[must_use]
    pub fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }
}

impl fmt::Debug for TokenDigest {
    /// A digest is no secret, but it links log lines to a token: it is not printed whole.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenDigest({}…)", hex::encode(&self.0[..4]))
    }
}

/// SHA-256 of a certificate as it is sent (DER): its fingerprint. 64 hexadecimal digits on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CertDigest([u8; 32]);

hex_id!(CertDigest, 32);

impl CertDigest {
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }
}

impl fmt::Display for CertDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for CertDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertDigest({self})")
    }
}

/// What an `Idempotency-Key` is known by outside its worker, within one agent. A key that can be guessed
/// (`order-17`) can be found out from it; a random one cannot. 64 hexadecimal digits on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyDigest([u8; 32]);

hex_id!(KeyDigest, 32);

impl KeyDigest {
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        let mut digest = Sha256::new_with_prefix(b"aex idempotency key 1\0");
        digest.update(key);
        Self(digest.finalize().into())
    }

    /// Its beginning, which events bear.
    #[must_use]
    pub fn mark(&self) -> KeyMark {
        let mut mark = [0; 8];
        mark.copy_from_slice(&self.0[..8]);
        KeyMark(mark)
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyDigest({}…)", hex::encode(&self.0[..4]))
    }
}

/// The first 8 bytes of a [`KeyDigest`]: two holds of an agent that bear the same one were asked for under
/// one key. 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyMark([u8; 8]);

hex_id!(KeyMark, 8);

impl fmt::Display for KeyMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyMark({self})")
    }
}

/// Tells one request from another under the same key: SHA-256 over its route and its body as it came.
/// 64 hexadecimal digits on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestDigest([u8; 32]);

hex_id!(RequestDigest, 32);

impl RequestDigest {
    #[must_use]
    pub fn of(route: &str, body: &[u8]) -> Self {
        let mut digest = Sha256::new_with_prefix(b"aex request 1\0");
        digest.update((route.len() as u64).to_be_bytes());
        digest.update(route.as_bytes());
        digest.update(body);
        Self(digest.finalize().into())
    }
}

impl fmt::Debug for RequestDigest {
    /// A body that can be guessed can be found out from its digest: it is not printed whole.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestDigest({}…)", hex::encode(&self.0[..4]))
    }
}

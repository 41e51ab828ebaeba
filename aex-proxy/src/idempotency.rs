//! A request's `Idempotency-Key`: what of it goes to `aex-admin`, and what opens the answer that was kept.
//! Pure.
//!
//! Neither the key nor the token stays: of both together one secret is made at once, and of the key alone a
//! digest. So `aex-admin` finds an agent's key under each of its tokens, and an answer is opened only by
//! who has the token and the key of the request that it was given to.

use aex_admin_proto::worker::{Idempotency, Route};
use aex_admin_proto::{KeyDigest, RequestDigest};
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use sha2::Sha256;

use crate::answer::Fault;
use crate::headers;
use crate::spool::SpoolKey;

/// What a request brought.
#[derive(Debug)]
pub struct Key {
    digest: KeyDigest,
    pub spool: SpoolKey,
}

/// The request's key; nothing when it has none, and then nothing of it is kept.
///
/// # Errors
/// The header is there more than once, or is not one visible word of at most 255 characters.
pub fn of(headers: &HeaderMap, token: &[u8]) -> Result<Option<Key>, Fault> {
    Ok(headers::idempotency_key(headers)?.map(|key| Key::new(token, key.as_bytes())))
}

impl Key {
    fn new(token: &[u8], key: &[u8]) -> Self {
        Self {
            digest: KeyDigest::of(key),
            spool: spool_key(token, key),
        }
    }

    /// What `aex-admin` is told. `body` is as it came.
    #[must_use]
    pub fn claim(&self, route: Route, body: &[u8]) -> Idempotency {
        let route = serde_json::to_string(&route).expect("a name always serialises");
        Idempotency {
            key: self.digest,
            request: RequestDigest::of(&route, body),
        }
    }
}

/// A token is 256 random bits: it keys one HMAC, which needs no more to be a key itself.
fn spool_key(token: &[u8], key: &[u8]) -> SpoolKey {
    let mut hmac = Hmac::<Sha256>::new_from_slice(token).expect("HMAC takes a key of any length");
    hmac.update(b"aex spool 1\0");
    hmac.update(key);
    SpoolKey::from(<[u8; 32]>::from(hmac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_for_each_token_and_opens_for_one() {
        let key = Key::new(b"token", b"key");
        let route = Route::ChatCompletions;
        let claim = key.claim(route, b"{}");
        assert_eq!(claim, Key::new(b"rotated", b"key").claim(route, b"{}"));
        assert_ne!(
            claim.key,
            Key::new(b"token", b"key2").claim(route, b"{}").key
        );
        for other in [
            key.claim(route, b"{ }"),
            key.claim(Route::Completions, b"{}"),
        ] {
            assert_eq!(claim.key, other.key);
            assert_ne!(claim.request, other.request);
        }
        assert_eq!(spool_key(b"t", b"k").bytes(), spool_key(b"t", b"k").bytes());
        for (token, key) in [(b"u", b"k"), (b"t", b"l")] {
            assert_ne!(spool_key(token, key).bytes(), spool_key(b"t", b"k").bytes());
        }
    }

    #[test]
    fn nothing_of_it_is_printed() {
        let printed = format!("{:?}", Key::new(b"secret-token", b"secret-key"));
        let secret = hex(spool_key(b"secret-token", b"secret-key").bytes());
        assert!(!printed.contains("secret-"), "{printed}");
        assert!(!printed.contains(&secret[..8]), "{printed}");
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

//! The form of an agent's token: `aex_`, 43 characters of base64url (256 random bits), and 6 of a checksum,
//! so that secret scanners know one and a typing error is told from a token that was revoked.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// What every token begins with.
pub const PREFIX: &str = "aex_";

const SECRET_CHARS: usize = 43;
const CHECKSUM_CHARS: usize = 6;

/// The checksum of all that stands before it.
#[must_use]
pub fn checksum(text: &str) -> String {
    let mut digest = Sha256::new_with_prefix(b"aex token checksum 1\0");
    digest.update(text);
    let digest = digest.finalize();
    URL_SAFE_NO_PAD.encode(&digest[..4])
}

/// It has a token's form and length, and its checksum is wrong: mistyped, or cut and put together. Tokens
/// of earlier versions have no checksum, and are not looked at.
#[must_use]
pub fn is_mistyped(token: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(token) else {
        return true;
    };
    let body = PREFIX.len() + SECRET_CHARS;
    if !text.starts_with(PREFIX) || text.len() != body + CHECKSUM_CHARS {
        return false;
    }
    match text.split_at_checked(body) {
        Some((body, sum)) => checksum(body) != sum,
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_one_wrong_character_is_seen() {
        let body = format!("{PREFIX}{}", "A".repeat(SECRET_CHARS));
        let token = format!("{body}{}", checksum(&body));
        assert_eq!(token.len(), 53);
        assert!(!is_mistyped(token.as_bytes()));
        for at in PREFIX.len()..token.len() {
            let mut wrong = token.clone().into_bytes();
            wrong[at] = if wrong[at] == b'B' { b'C' } else { b'B' };
            assert!(is_mistyped(&wrong), "{at}");
        }
        // What an earlier version gave out.
        assert!(!is_mistyped(body.as_bytes()));
        assert!(!is_mistyped(b"something else"));
    }
}

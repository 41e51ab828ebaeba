//! Agents' tokens: made here, shown once, and kept only as digests.

use aex_admin_proto::TokenDigest;
use aex_admin_proto::token::{PREFIX, checksum};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

/// A fresh token of 256 random bits, and its digest.
///
/// # Errors
/// The operating system gave no randomness.
pub(crate) fn make() -> Result<(Zeroizing<String>, TokenDigest), getrandom::Error> {
    let mut secret = Zeroizing::new([0u8; 32]);
    getrandom::fill(&mut *secret)?;
    let mut token = Zeroizing::new(String::with_capacity(64));
    token.push_str(PREFIX);
    URL_SAFE_NO_PAD.encode_string(*secret, &mut token);
    let sum = checksum(&token);
    token.push_str(&sum);
    let digest = TokenDigest::of(token.as_bytes());
    Ok((token, digest))
}

//! A kept answer as a file has it: encrypted and authenticated with ChaCha20-Poly1305 under a key that only
//! the request's own token and `Idempotency-Key` make. Pure but for the nonce.
//!
//! `magic (8) · nonce (12) · ciphertext · tag (16)`; the magic and the hold's id are authenticated with it,
//! so that no file passes for another's.

use std::io;

use aex_admin_proto::HoldId;
use bytes::Bytes;
use chacha20poly1305::aead::{Aead, AeadInOut, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce};
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use zeroize::Zeroizing;

const MAGIC: &[u8; 8] = b"aexspl1\0";
const NONCE_BYTES: usize = 12;

/// An answer as the client got it, without what AEX says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What opens the answer of one request. Wiped when dropped, and never printed.
#[derive(Clone)]
pub struct SpoolKey(Zeroizing<[u8; 32]>);

impl From<[u8; 32]> for SpoolKey {
    fn from(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl std::fmt::Debug for SpoolKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SpoolKey(…)")
    }
}

impl SpoolKey {
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn cipher(&self) -> ChaCha20Poly1305 {
        ChaCha20Poly1305::new((&*self.0).into())
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// No randomness, or a header that is longer than any can be.
    pub(super) fn seal(&self, id: HoldId, kept: &Kept) -> io::Result<Vec<u8>> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(io::Error::other)?;
        let mut sealed = Vec::with_capacity(kept.body.len() + 4096);
        write(kept, &mut sealed).ok_or_else(|| io::Error::other("a header is too long"))?;
        // The answer is encrypted where it stands; what goes before it is put there last.
        (self.cipher())
            .encrypt_in_place(&Nonce::from(nonce), &bound_to(id), &mut sealed)
            .map_err(|_| io::Error::other("too long to encrypt"))?;
        sealed.splice(..0, MAGIC.iter().chain(&nonce).copied());
        Ok(sealed)
    }

    /// Nothing for what was not sealed under this key for this hold, or is not whole.
    pub(super) fn open(&self, id: HoldId, sealed: &[u8]) -> Option<Kept> {
        let rest = sealed.strip_prefix(MAGIC)?;
        let (nonce, ciphertext) = rest.split_at_checked(NONCE_BYTES)?;
        let nonce = <[u8; NONCE_BYTES]>::try_from(nonce).ok()?;
        let payload = Payload {
            msg: ciphertext,
            aad: &bound_to(id),
        };
        let plain = self.cipher().decrypt(&Nonce::from(nonce), payload).ok()?;
        read(plain.into())
    }
}

fn bound_to(id: HoldId) -> [u8; 24] {
    let mut bound = [0; 24];
    bound[..8].copy_from_slice(MAGIC);
    bound[8..].copy_from_slice(id.as_bytes());
    bound
}

/// `status (2) · count (2) · count × (length (2) · name · length (2) · value) · body`.
fn write(kept: &Kept, out: &mut Vec<u8>) -> Option<()> {
    let number = |number: usize| Some(u16::try_from(number).ok()?.to_be_bytes());
    out.extend(kept.status.as_u16().to_be_bytes());
    out.extend(number(kept.headers.len())?);
    for (name, value) in &kept.headers {
        for text in [name.as_ref(), value.as_bytes()] {
            out.extend(number(text.len())?);
            out.extend(text);
        }
    }
    out.extend(&kept.body);
    Some(())
}

fn read(mut plain: Bytes) -> Option<Kept> {
    let status = StatusCode::from_u16(take_number(&mut plain)?).ok()?;
    let mut headers = HeaderMap::new();
    for _ in 0..take_number(&mut plain)? {
        let name = take_text(&mut plain)?;
        let value = take_text(&mut plain)?;
        headers.append(
            HeaderName::from_bytes(&name).ok()?,
            HeaderValue::from_maybe_shared(value).ok()?,
        );
    }
    Some(Kept {
        status,
        headers,
        body: plain,
    })
}

fn take(plain: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= plain.len()).then(|| plain.split_to(length))
}

fn take_number(plain: &mut Bytes) -> Option<u16> {
    let bytes = take(plain, 2)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

fn take_text(plain: &mut Bytes) -> Option<Bytes> {
    let length = take_number(plain)?;
    take(plain, length.into())
}

//! Masks an operator's key in the body of an answer: a provider may repeat what it was sent. Pure.
//!
//! Each occurrence becomes as many `*`, so that lengths and framing stay as they were. Occurrences
//! are found across any division into chunks: of a chunk only its longest end that could be the
//! start of the key is held back, until the next chunk or the end of the body decides. What ends in
//! a byte that the key does not have (a newline, and in practice `}`) is never delayed.
//!
//! Limits, known and meant: a key shorter than [`MIN_KEY_BYTES`] is not masked, because it would hit
//! ordinary text; a part of a key, or a key in another encoding, is not its occurrence.
//!
//! Absent on purpose: any other reading of bodies, sockets, counting; and `memmem::Finder`, which
//! would own a copy of the key that nothing wipes.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use memchr::arch::all::packedpair::Pair;
use zeroize::Zeroizing;

/// Shortest key that is masked in bodies.
pub const MIN_KEY_BYTES: usize = 8;

/// A key, prepared to be looked for. One per loaded key; wiped when it goes, and without `Debug`.
pub struct MaskedKey {
    /// A view of where it is kept.
    key: Bytes,
    /// Of a start of the key that is one byte longer than the index: the longest shorter start that
    /// it ends with (Knuth, Morris, Pratt).
    borders: Zeroizing<Vec<usize>>,
    /// By byte: whether the key has it.
    has: Zeroizing<[bool; 256]>,
    /// Where in the key its byte is that is rarest in ordinary data.
    rare_at: usize,
    /// Is not in the key, so that masking cannot make one.
    cover: u8,
}

impl MaskedKey {
    /// As [`MaskedKey::of`], of a copy.
    #[must_use]
    pub fn new(key: &[u8]) -> Option<Self> {
        Self::of(Bytes::copy_from_slice(key))
    }

    /// Nothing for a key that is too short to be masked.
    #[must_use]
    pub fn of(key: Bytes) -> Option<Self> {
        if key.len() < MIN_KEY_BYTES {
            return None;
        }
        let mut has = Zeroizing::new([false; 256]);
        for &byte in &key {
            has[usize::from(byte)] = true;
        }
        // No key that fits a header has a space in it.
        let cover = if has[usize::from(b'*')] { b' ' } else { b'*' };
        let mut this = Self {
            borders: Zeroizing::new(vec![0; key.len()]),
            has,
            rare_at: Pair::new(&key).map_or(0, |pair| usize::from(pair.index1())),
            cover,
            key: key.clone(),
        };
        let mut border = 0;
        for (at, &byte) in key.iter().enumerate().skip(1) {
            border = this.advance(border, byte);
            this.borders[at] = border;
        }
        Some(this)
    }

    fn len(&self) -> usize {
        self.key.len()
    }

    /// How much of the key ends at this byte, when this much, and not all, ended at the one before.
    fn advance(&self, mut matched: usize, byte: u8) -> usize {
        while self.key[matched] != byte {
            if matched == 0 {
                return 0;
            }
            matched = self.borders[matched - 1];
        }
        matched + 1
    }

    fn find(&self, data: &[u8]) -> Option<usize> {
        let rare = self.key[self.rare_at];
        let mut from = self.rare_at;
        loop {
            let hit = from + memchr::memchr(rare, data.get(from..)?)?;
            let start = hit - self.rare_at;
            if data.get(start..start + self.len())? == self.key {
                return Some(start);
            }
            from = hit + 1;
        }
    }

    /// Bytes at the end of data without the whole key in it that may be the key's start.
    fn started_at_end(&self, data: &[u8]) -> usize {
        let end = &data[data.len().saturating_sub(self.len() - 1)..];
        let foreign = end.iter().rposition(|&byte| !self.has[usize::from(byte)]);
        end[foreign.map_or(0, |at| at + 1)..]
            .iter()
            .fold(0, |matched, &byte| self.advance(matched, byte))
    }
}

/// One body as it is masked.
pub struct Mask {
    key: Arc<MaskedKey>,
    /// So many first bytes of the key are held back: no more than that is needed to give them out.
    held: usize,
}

impl Mask {
    #[must_use]
    pub fn new(key: Arc<MaskedKey>) -> Self {
        Self { key, held: 0 }
    }

    /// Bytes that came and were not given out yet.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held
    }

    /// What may go on of all that came so far; may be empty.
    #[must_use]
    pub fn push(&mut self, mut chunk: Bytes) -> Bytes {
        if chunk.is_empty() {
            return chunk;
        }
        if self.held == 0 && self.key.find(&chunk).is_none() {
            // Nearly always: nothing is copied.
            self.held = self.key.started_at_end(&chunk);
            chunk.truncate(chunk.len() - self.held);
            return chunk;
        }
        let mut out = BytesMut::with_capacity(self.held + chunk.len());
        if let Some(rest) = self.decide_held(&chunk, &mut out) {
            self.mask_rest(rest, &mut out);
        }
        out.freeze()
    }

    /// The same at the end of a body, whole or broken off: nothing is held back any more.
    #[must_use]
    pub fn finish(&mut self, last: Bytes) -> Bytes {
        let ready = self.push(last);
        let held = &self.key.key[..std::mem::take(&mut self.held)];
        if held.is_empty() {
            return ready;
        }
        let mut all = BytesMut::with_capacity(ready.len() + held.len());
        all.extend_from_slice(&ready);
        all.extend_from_slice(held);
        all.freeze()
    }

    /// Follows what is held into the chunk until it is the key, or nothing held can belong to one.
    /// Gives the rest of the chunk; nothing when the chunk was too short to decide.
    fn decide_held<'a>(&mut self, chunk: &'a [u8], out: &mut BytesMut) -> Option<&'a [u8]> {
        let key = &*self.key;
        let held = std::mem::take(&mut self.held);
        let (mut matched, mut at) = (held, 0);
        while matched > at && matched < key.len() && at < chunk.len() {
            matched = key.advance(matched, chunk[at]);
            at += 1;
        }
        if matched <= at {
            out.extend_from_slice(&key.key[..held]);
            return Some(chunk);
        }
        // It begins in what was held, after so much that turned out to be other text.
        out.extend_from_slice(&key.key[..held + at - matched]);
        if matched < key.len() {
            self.held = matched;
            return None;
        }
        out.resize(out.len() + matched, key.cover);
        Some(&chunk[at..])
    }

    fn mask_rest(&mut self, mut rest: &[u8], out: &mut BytesMut) {
        let key = &*self.key;
        while let Some(at) = key.find(rest) {
            out.extend_from_slice(&rest[..at]);
            out.resize(out.len() + key.len(), key.cover);
            rest = &rest[at + key.len()..];
        }
        self.held = key.started_at_end(rest);
        out.extend_from_slice(&rest[..rest.len() - self.held]);
    }
}

#[cfg(test)]
mod tests;

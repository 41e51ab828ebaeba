//! A shortcut for streams: most chunks differ from the one before in nothing but their text.
//!
//! A chunk that was read in full, and told of nothing but text, is kept as what stood before and after
//! its `content`. The next one that has the same around a plain text has the same meaning, so that
//! only the text's length is new. Anything else is read in full.

use memchr::memmem;

/// Longest chunk that is kept.
const MAX_KEPT_BYTES: usize = 4096;
/// Chunks tried in one stream; those of some providers never repeat.
const MAX_TRIES: u32 = 8;
const CONTENT: &[u8] = b"\"content\":\"";

/// What stands around the text of a chunk.
#[derive(Debug, Default)]
pub(super) struct Template {
    /// Empty while there is none.
    before: Vec<u8>,
    after: Vec<u8>,
    /// Output that is not the text's.
    other_bytes: u64,
    tries: u32,
}

impl Template {
    /// The output bytes of a chunk that is like the one kept.
    pub(super) fn output_bytes(&self, json: &[u8]) -> Option<u64> {
        let kept = !self.before.is_empty();
        let rest = json.strip_prefix(&*self.before).filter(|_| kept)?;
        let text = rest.strip_suffix(&*self.after)?;
        is_plain(text).then(|| self.other_bytes + text.len() as u64)
    }

    /// Keeps a chunk that told of `output_bytes` of text and nothing else. `read` reads a chunk in
    /// full, and gives the same of it.
    pub(super) fn keep(
        &mut self,
        json: &[u8],
        output_bytes: u64,
        read: impl FnOnce(&[u8]) -> Option<u64>,
    ) {
        if self.tries == MAX_TRIES || json.len() > MAX_KEPT_BYTES {
            return;
        }
        // In valid JSON these bytes are a key and the beginning of its value, never within a string:
        // there the quotes would have backslashes.
        let Some(start) = memmem::find(json, CONTENT).map(|at| at + CONTENT.len()) else {
            return;
        };
        let rest = &json[start..];
        let length = rest.iter().position(|&b| b == b'"').unwrap_or(0);
        if length == 0 || !is_plain(&rest[..length]) {
            return;
        }
        self.tries += 1;
        // Whether that text is one that counts, is seen by what is left without it.
        let without = [&json[..start], &rest[length..]].concat();
        let Some(other_bytes) = read(&without) else {
            return;
        };
        if other_bytes + length as u64 == output_bytes {
            self.before = json[..start].to_vec();
            self.after = rest[length..].to_vec();
            self.other_bytes = other_bytes;
        }
    }
}

/// ASCII that stands for itself in a JSON string.
fn is_plain(text: &[u8]) -> bool {
    text.iter()
        .all(|&b| (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\')
}

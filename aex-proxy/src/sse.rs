//! Server-sent events as pure code: bytes in, whole events out, each byte exactly once.
//!
//! An event ends with a blank line; lines end with `\n`, `\r\n` or `\r`, under any chunking. An
//! event's bytes include its blank line, so that the events put together are the stream.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use memchr::{memchr2, memchr2_iter};

/// The largest event that is held until it is whole.
pub const MAX_EVENT_BYTES: usize = 4 * 1024 * 1024;

/// An event grew over [`MAX_EVENT_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is longer than {MAX_EVENT_BYTES} bytes")]
pub struct EventTooLong;

#[derive(Debug)]
pub struct Splitter {
    /// The beginning of an event whose end has not come.
    partial: BytesMut,
    /// Nothing of the current line was seen yet.
    at_line_start: bool,
    /// The last byte was `\r`: a `\n` now belongs to it.
    after_cr: bool,
}

impl Default for Splitter {
    fn default() -> Self {
        Self {
            partial: BytesMut::new(),
            at_line_start: true,
            after_cr: false,
        }
    }
}

impl Splitter {
    /// Takes in a chunk and gives each event that it completes, in order.
    ///
    /// # Errors
    /// [`EventTooLong`]: the stream cannot be followed any further.
    pub fn push(
        &mut self,
        chunk: &Bytes,
        mut event: impl FnMut(Bytes),
    ) -> Result<(), EventTooLong> {
        let mut start = 0;
        let mut at = 0;
        while at < chunk.len() {
            let rest = &chunk[at..];
            let Some(found) = memchr2(b'\n', b'\r', rest) else {
                self.at_line_start = false;
                self.after_cr = false;
                break;
            };
            if found > 0 {
                self.at_line_start = false;
                self.after_cr = false;
            }
            at += found + 1;
            if !self.line_ended(rest[found]) {
                continue;
            }
            // Takes a `\n` that belongs to this `\r` along, where it is there already.
            if rest[found] == b'\r' && chunk.get(at) == Some(&b'\n') {
                at += 1;
                self.after_cr = false;
            }
            event(self.whole(chunk.slice(start..at))?);
            start = at;
        }
        if start < chunk.len() {
            self.keep(&chunk[start..])?;
        }
        Ok(())
    }

    /// Whether this line end is a blank line's, and so ends the event.
    fn line_ended(&mut self, end: u8) -> bool {
        if end == b'\n' && self.after_cr {
            self.after_cr = false;
            return false;
        }
        self.after_cr = end == b'\r';
        let blank = self.at_line_start;
        self.at_line_start = true;
        blank
    }

    fn whole(&mut self, last: Bytes) -> Result<Bytes, EventTooLong> {
        if self.partial.is_empty() {
            return Ok(last);
        }
        self.keep(&last)?;
        Ok(self.partial.split().freeze())
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), EventTooLong> {
        if self.partial.len() + bytes.len() > MAX_EVENT_BYTES {
            return Err(EventTooLong);
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    /// What is left when the stream ends without a last blank line.
    pub fn rest(&mut self) -> Bytes {
        self.partial.split().freeze()
    }

    /// No event is begun and not ended.
    #[must_use]
    pub fn is_between_events(&self) -> bool {
        self.partial.is_empty()
    }
}

/// The data of an event: its `data` lines, joined by newlines. Nothing when it has none (comments).
#[must_use]
pub fn data(event: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut data: Option<Cow<'_, [u8]>> = None;
    let mut start = 0;
    for end in memchr2_iter(b'\n', b'\r', event).chain([event.len()]) {
        let line = &event[start..end];
        start = end + 1;
        let value = match line.strip_prefix(b"data:") {
            Some(value) => value.strip_prefix(b" ").unwrap_or(value),
            None if line == b"data" => b"",
            None => continue,
        };
        match &mut data {
            None => data = Some(Cow::Borrowed(value)),
            Some(joined) => {
                let joined = joined.to_mut();
                joined.push(b'\n');
                joined.extend_from_slice(value);
            }
        }
    }
    data
}

#[cfg(test)]
mod tests;

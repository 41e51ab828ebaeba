//! Newline-delimited frames with a cap, as pure code: bytes in, whole frames out.
//!
//! A frame is one JSON document on one line. JSON written by `serde_json` has no raw newline in it,
//! so the newline is a frame's end and nothing else. No socket, no clock, no runtime here.

use serde::Serialize;

/// The largest frame either side sends or takes, newline included. A longer one ends the connection.
pub const MAX_FRAME_BYTES: usize = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("frame longer than {MAX_FRAME_BYTES} bytes")]
    TooLong,
    #[error("message cannot be written as JSON: {0}")]
    NotJson(#[from] serde_json::Error),
}

/// Appends `message` to `out` as one frame.
///
/// # Errors
/// The message does not serialise, or is over [`MAX_FRAME_BYTES`]; `out` is then as it was.
pub fn encode<T: Serialize + ?Sized>(message: &T, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = out.len();
    let written = serde_json::to_writer(&mut *out, message);
    if let Err(error) = written {
        out.truncate(start);
        return Err(error.into());
    }
    out.push(b'\n');
    if out.len() - start > MAX_FRAME_BYTES {
        out.truncate(start);
        return Err(FrameError::TooLong);
    }
    Ok(())
}

/// Collects bytes and gives back whole frames, in order, without their newline.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Bytes before this offset were given out.
    taken: usize,
    /// Bytes before this offset hold no newline.
    scanned: usize,
}

impl Decoder {
    /// Room to read into; follow it with [`Decoder::next_frame`] until that answers `None`.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        if self.taken > 0 {
            self.buffer.drain(..self.taken);
            self.scanned -= self.taken;
            self.taken = 0;
        }
        &mut self.buffer
    }

    /// The next whole frame, if there is one.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] as soon as an unfinished line passes the cap.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let unseen = &self.buffer[self.scanned..];
        if let Some(at) = unseen.iter().position(|&b| b == b'\n') {
            let (start, end) = (self.taken, self.scanned + at);
            if end - start >= MAX_FRAME_BYTES {
                return Err(FrameError::TooLong);
            }
            self.taken = end + 1;
            self.scanned = end + 1;
            return Ok(Some(&self.buffer[start..end]));
        }
        self.scanned = self.buffer.len();
        if self.scanned - self.taken >= MAX_FRAME_BYTES {
            return Err(FrameError::TooLong);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(decoder: &mut Decoder) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while let Some(frame) = decoder.next_frame().unwrap() {
            frames.push(frame.to_vec());
        }
        frames
    }

    #[test]
    fn a_line_over_the_cap_is_refused_before_its_end_is_seen() {
        let mut decoder = Decoder::default();
        decoder.buffer().extend(vec![b'x'; MAX_FRAME_BYTES]);
        assert!(matches!(decoder.next_frame(), Err(FrameError::TooLong)));
    }

    #[test]
    fn an_oversized_message_leaves_the_buffer_as_it_was() {
        let mut out = b"kept\n".to_vec();
        assert!(encode(&"y".repeat(MAX_FRAME_BYTES), &mut out).is_err());
        assert_eq!(out, b"kept\n");
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_frames(
            messages in prop::collection::vec(".*", 0..8),
            cut in 1usize..17,
        ) {
            let mut bytes = Vec::new();
            for message in &messages {
                encode(message, &mut bytes).unwrap();
            }
            let mut decoder = Decoder::default();
            let mut frames = Vec::new();
            for chunk in bytes.chunks(cut) {
                decoder.buffer().extend_from_slice(chunk);
                frames.extend(all(&mut decoder));
            }
            let texts: Vec<String> =
                frames.iter().map(|f| serde_json::from_slice(f).unwrap()).collect();
            prop_assert_eq!(texts, messages);
        }
    }
}

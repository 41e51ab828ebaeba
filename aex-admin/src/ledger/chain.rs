//! The hash chain over every field of every event. Pure.
//!
//! `hash = SHA-256(previous hash, id, at_ms, agent, action, cost_micro, cost_pico, held_pico, hold,
//! detail)`. Numbers are 8 bytes, big-endian; a text is its length in 4 bytes, big-endian, and its
//! UTF-8 bytes; an absent text is the length 0xFFFFFFFF. The first event follows 32 zero bytes.

use sha2::{Digest, Sha256};

use super::events::Event;

pub type EventHash = [u8; 32];

/// What the first event follows.
pub const GENESIS: EventHash = [0; 32];

/// The hash of `event`, which is number `id`, after `previous`.
#[must_use]
pub fn link(previous: &EventHash, id: i64, event: &Event<'_>) -> EventHash {
    let mut hasher = Sha256::new();
    hasher.update(previous);
    hasher.update(id.to_be_bytes());
    hasher.update(event.at_ms.to_be_bytes());
    text(&mut hasher, event.agent);
    text(&mut hasher, Some(event.action));
    for number in [event.cost_micro, event.cost_pico, event.held_pico] {
        hasher.update(number.to_be_bytes());
    }
    text(&mut hasher, event.hold);
    text(&mut hasher, Some(event.detail));
    hasher.finalize().into()
}

fn text(hasher: &mut Sha256, text: Option<&str>) {
    match text {
        // No text of the ledger reaches 4 GiB: SQLite's own limit is lower.
        Some(text) => {
            hasher.update(
                u32::try_from(text.len())
                    .unwrap_or(u32::MAX - 1)
                    .to_be_bytes(),
            );
            hasher.update(text);
        }
        None => hasher.update(u32::MAX.to_be_bytes()),
    }
}

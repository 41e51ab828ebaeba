//! A streamed answer as a list of events, made one at a time as it is read.
//!
//! Whatever the route: an opening, then what is shown, token by token and choice by choice, then an
//! ending.

use std::fmt;

use bytes::Bytes;

use super::behaviour::{Behaviour, MAX_TOKENS_PER_CHUNK};
use super::plan::{Plan, Shown};

/// One streamed event, and the output tokens that were generated for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub bytes: Bytes,
    pub tokens: u64,
    /// It shows output; `cut_after_chunks` counts these.
    pub content: bool,
}

/// A piece of an answer that is shown now.
#[derive(Debug)]
pub struct Piece<'a> {
    pub choice: u64,
    /// How many were shown before it, of all choices.
    pub nth: u64,
    pub text: &'a str,
    /// Output tokens billed so far, this piece's among them.
    pub so_far: u64,
}

/// How a route shows a piece.
pub trait Frame: Send + fmt::Debug {
    fn show(&self, piece: &Piece<'_>) -> Bytes;

    /// Equal pieces are shown by equal bytes.
    fn repeats(&self) -> bool;
}

/// Tokens in one event.
pub(super) fn per_chunk(behaviour: &Behaviour) -> u64 {
    let tokens = behaviour.tokens_per_chunk.unwrap_or(1);
    tokens.clamp(1, MAX_TOKENS_PER_CHUNK)
}

/// The events of one stream, in order.
#[derive(Debug)]
pub struct Script {
    opening: std::vec::IntoIter<Bytes>,
    shown: Shown,
    per_chunk: u64,
    /// Per choice, the event that repeats: made once, shared by reference count.
    repeated: Vec<Bytes>,
    /// Tokens of each choice not shown yet; the choices take turns.
    left: Vec<u64>,
    turn: usize,
    nth: u64,
    so_far: u64,
    /// Tokens that are billed before anything is shown.
    unseen: u64,
    frame: Option<Box<dyn Frame>>,
    ending: std::vec::IntoIter<Bytes>,
}

impl Script {
    #[must_use]
    pub fn new(
        plan: &Plan,
        behaviour: &Behaviour,
        opening: Vec<Bytes>,
        frame: Box<dyn Frame>,
        ending: Vec<Bytes>,
    ) -> Self {
        let per_chunk = per_chunk(behaviour);
        let repeats = matches!(plan.shown, Shown::Words(_)) && frame.repeats();
        let text = plan.shown.slice(0, per_chunk);
        let repeated = (0..plan.choices).filter(|_| repeats).map(|choice| {
            frame.show(&Piece {
                choice,
                nth: 0,
                text: &text,
                so_far: 0,
            })
        });
        let repeated = repeated.collect();
        Self {
            opening: opening.into_iter(),
            left: (0..plan.choices).map(|_| plan.shown.tokens()).collect(),
            shown: plan.shown.clone(),
            per_chunk,
            repeated,
            turn: 0,
            nth: 0,
            so_far: 0,
            unseen: plan.unseen(),
            frame: Some(frame),
            ending: ending.into_iter(),
        }
    }

    /// These bytes and nothing else.
    #[must_use]
    pub fn raw(text: &str) -> Self {
        Self {
            opening: vec![Bytes::copy_from_slice(text.as_bytes())].into_iter(),
            shown: Shown::Words(0),
            per_chunk: 1,
            repeated: Vec::new(),
            left: Vec::new(),
            turn: 0,
            nth: 0,
            so_far: 0,
            unseen: 0,
            frame: None,
            ending: Vec::new().into_iter(),
        }
    }

    fn next_piece(&mut self) -> Option<Event> {
        let choices = self.left.len();
        let turns = (0..choices).map(|step| (self.turn + step) % choices);
        let choice = turns.into_iter().find(|&choice| self.left[choice] > 0)?;
        let left = self.left[choice];
        let tokens = left.min(self.per_chunk);
        self.turn = choice + 1;
        let so_far = self.so_far + self.unseen + tokens;
        let bytes = match self.repeated.get(choice) {
            Some(bytes) if tokens == self.per_chunk => bytes.clone(),
            _ => {
                let text = self.shown.slice(self.shown.tokens() - left, tokens);
                self.frame.as_ref()?.show(&Piece {
                    choice: choice as u64,
                    nth: self.nth,
                    text: &text,
                    so_far,
                })
            }
        };
        self.left[choice] -= tokens;
        self.nth += 1;
        Some(Event {
            bytes,
            tokens,
            content: true,
        })
    }
}

impl Iterator for Script {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let silent = |bytes| Event {
            bytes,
            tokens: 0,
            content: false,
        };
        let mut event = match self.opening.next() {
            Some(bytes) => silent(bytes),
            None => match self.next_piece() {
                Some(event) => event,
                None => silent(self.ending.next()?),
            },
        };
        // What is thought out of sight is thought before the first word.
        event.tokens += std::mem::take(&mut self.unseen);
        self.so_far += event.tokens;
        Some(event)
    }
}

//! The stream of chunks that chats and completions share: their heads and tails, and where the usage
//! stands in them.

use std::fmt;

use bytes::Bytes;

use super::super::behaviour::Behaviour;
use super::super::plan::Plan;
use super::super::script::{Frame, Piece, Script};
use super::super::usage::{self, Places};
use super::{CREATED, Exchange};

/// How a route writes one choice of a chunk, but for its index and end.
pub(super) trait Choice: Send + fmt::Debug + 'static {
    /// Before anything is shown; empty where the first text is the first event.
    fn opens(&self, choice: u64) -> Vec<String>;
    fn shows(&self, text: &str) -> String;
    fn ends(&self) -> String;
}

#[derive(Debug)]
struct Chunks<C> {
    choice: C,
    head: String,
    places: Places,
    plan: Plan,
    behaviour: Behaviour,
}

pub(super) fn script(
    exchange: &Exchange<'_>,
    id: &str,
    object: &str,
    choice: impl Choice,
) -> Script {
    let Exchange {
        asked,
        plan,
        behaviour,
        number,
        model,
    } = exchange;
    let chunks = Chunks {
        choice,
        head: format!(
            r#"data: {{"id":"{id}-sim-{number}","object":"{object}","created":{CREATED},"model":{model},"choices":["#
        ),
        places: Places::of(asked, behaviour, plan),
        plan: plan.clone(),
        behaviour: (*behaviour).clone(),
    };
    let (opening, ending) = (chunks.opening(), chunks.ending());
    Script::new(plan, behaviour, opening, Box::new(chunks), ending)
}

impl<C: Choice> Chunks<C> {
    fn chunk(&self, choice: u64, inner: &str, finish: &str, tail: &str) -> Bytes {
        let head = &self.head;
        Bytes::from(format!(
            r#"{head}{{"index":{choice},{inner},"logprobs":null,"finish_reason":{finish}}}{tail}"#
        ))
    }

    /// The end of a chunk when so many tokens are there.
    fn tail(&self, so_far: u64) -> String {
        if self.places.every_chunk {
            return self.tail_with_usage(so_far);
        }
        let null = if self.places.null {
            ",\"usage\":null"
        } else {
            ""
        };
        format!("]{null}}}\n\n")
    }

    fn tail_with_usage(&self, so_far: u64) -> String {
        match usage::told_so_far(&self.plan, &self.behaviour, so_far) {
            Some(usage) => format!("],\"usage\":{usage}}}\n\n"),
            None => "]}\n\n".to_owned(),
        }
    }

    fn opening(&self) -> Vec<Bytes> {
        let mut events = Vec::new();
        if self.behaviour.comments || self.behaviour.shape == super::Shape::Openrouter {
            events.push(Bytes::from_static(b": SIM PROCESSING\n\n"));
        }
        let tail = self.tail(self.plan.unseen());
        for choice in 0..self.plan.choices {
            for inner in self.choice.opens(choice) {
                events.push(self.chunk(choice, &inner, "null", &tail));
            }
        }
        events
    }

    fn ending(&self) -> Vec<Bytes> {
        if self.behaviour.fail {
            let error = r#"data: {"error":{"message":"simulated failure","type":"server_error","code":"server_error","param":null}}"#;
            return vec![Bytes::from(format!("{error}\n\n"))];
        }
        let finish = format!("\"{}\"", self.plan.finish_reason());
        let inner = self.choice.ends();
        let mut events: Vec<Bytes> = (0..self.plan.choices)
            .map(|choice| self.chunk(choice, &inner, &finish, &self.finish_tail(choice)))
            .collect();
        if let Some(usage) = usage::told(&self.plan, &self.behaviour) {
            for _ in 0..self.places.own {
                events.push(Bytes::from(format!(
                    "{}],\"usage\":{usage}}}\n\n",
                    self.head
                )));
            }
        }
        if !self.behaviour.omit_done {
            events.push(Bytes::from_static(b"data: [DONE]\n\n"));
        }
        events
    }

    fn finish_tail(&self, choice: u64) -> String {
        let completion = self.plan.completion();
        if choice + 1 != self.plan.choices {
            return self.tail(completion);
        }
        if self.places.finish {
            return self.tail_with_usage(completion);
        }
        match usage::told(&self.plan, &self.behaviour).filter(|_| self.places.x_groq) {
            Some(usage) => {
                format!("],\"x_groq\":{{\"id\":\"req_sim\",\"usage\":{usage}}}}}\n\n")
            }
            None => self.tail(completion),
        }
    }
}

impl<C: Choice> Frame for Chunks<C> {
    fn show(&self, piece: &Piece<'_>) -> Bytes {
        let inner = self.choice.shows(piece.text);
        self.chunk(piece.choice, &inner, "null", &self.tail(piece.so_far))
    }

    fn repeats(&self) -> bool {
        !self.places.every_chunk
    }
}

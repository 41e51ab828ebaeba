//! How the simulator is told to behave: the whole of a `POST /_sim/behaviour`, as data.
//!
//! Nothing acts here; the other modules read these fields.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What every field left out means: a provider that answers at once, 20 tokens long, with usage.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Behaviour {
    /// Only for this many requests, then the standing behaviour again. Several such are queued.
    pub times: Option<u64>,

    /// Answer with this status instead: an error in OpenAI's form, nothing billed.
    pub status: Option<u16>,
    /// Put the received `Authorization` into that error's message, as careless providers do.
    pub echo_authorization: bool,
    /// Headers added to each answer; a name that is there already is replaced.
    pub headers: BTreeMap<String, String>,
    /// Body put in place of the one that would be sent; the tokens are billed all the same.
    pub raw_body: Option<String>,

    /// Wait before the answer's head.
    pub delay_ms: u64,
    /// Wait before each streamed event after the first.
    pub chunk_delay_ms: u64,
    /// Take the request, bill it, never answer.
    pub hang: bool,
    /// Take the request, bill it and its whole answer, drop the connection before any of it is sent.
    pub drop: bool,
    /// Send the head of a stream, bill all of it, and then nothing more; with `hang` never an end either.
    pub mute: bool,
    /// Drop the connection after this many content chunks; a plain answer is dropped half-way.
    pub cut_after_chunks: Option<u64>,

    /// Tokens of the answer when no cap is lower. Default 20.
    pub natural_tokens: Option<u64>,
    /// Always as long as the cap allows.
    pub fill: bool,
    /// Ignore the caps of the request: the bill may be larger than anything that was asked for.
    pub ignore_cap: bool,
    /// Tokens of a choice that are billed and never shown, inside the cap.
    pub reasoning_tokens: u64,
    /// Of the prompt, this many tokens were cached.
    pub cached_tokens: u64,
    /// Tokens in one streamed chunk. Default 1.
    pub tokens_per_chunk: Option<u64>,

    pub omit_usage: bool,
    /// Put verbatim where the usage goes. The simulator's own bill stays the true one.
    pub usage: Option<serde_json::Value>,
    /// Groq's way: `x_groq.usage` on the last finish chunk as well.
    pub x_groq: bool,
    /// Start a stream with a comment line, as OpenRouter does.
    pub comments: bool,
    /// End a stream without `[DONE]`.
    pub omit_done: bool,

    /// The visible answer, in place of `natural_tokens` many words. Four letters a token.
    pub text: Option<String>,
    /// Answer with a call of this tool, until the request's last message is a tool's result.
    pub tool_call: Option<ToolCall>,
    /// The model fails half-way: `response.failed`, or an error event in place of a stream's finish.
    pub fail: bool,
    /// How the provider's family tells the usage.
    pub shape: Shape,
    /// Bill the prompt by this tokenizer, exactly.
    pub tokenizer: Option<Tokenizer>,
    /// Tokens of each image or file of the prompt. Default 85.
    pub image_tokens: Option<u64>,
    /// Bill whatever the request could be read to allow, and obey every knob in it. See `greed`.
    pub greedy: bool,
}

/// A call that the model makes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolCall {
    pub name: String,
    /// A string is taken as it is.
    #[serde(default)]
    pub arguments: serde_json::Value,
    /// In a stream of the chat route the name comes in two pieces.
    #[serde(default)]
    pub cut_name: bool,
    /// On the chat route, as `function_call`.
    #[serde(default)]
    pub legacy: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tokenizer {
    O200kBase,
}

/// Families of providers, by what their usage looks like. See `usage`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    #[default]
    Openai,
    Groq,
    Mistral,
    Deepseek,
    Gemini,
    Together,
    Openrouter,
    Vllm,
    Ollama,
    LlamaCpp,
    Anthropic,
}

/// Tokens of an answer that nothing limits.
pub const NATURAL_TOKENS: u64 = 20;
/// A stream chunk never carries more tokens than this.
pub const MAX_TOKENS_PER_CHUNK: u64 = 4096;
/// Most timed behaviours waiting for their turn.
const MAX_QUEUED: usize = 1024;

/// The standing behaviour, and the timed ones that come before it.
#[derive(Debug, Default)]
pub(super) struct Plans {
    standing: Arc<Behaviour>,
    timed: VecDeque<(Arc<Behaviour>, u64)>,
}

impl Plans {
    /// A timed behaviour queues up; one without `times` takes the place of everything.
    pub(super) fn set(&mut self, behaviour: Behaviour) {
        match behaviour.times {
            Some(0) => {}
            Some(times) => {
                if self.timed.len() < MAX_QUEUED {
                    self.timed.push_back((Arc::new(behaviour), times));
                }
            }
            None => {
                self.timed.clear();
                self.standing = Arc::new(behaviour);
            }
        }
    }

    /// What holds for the request that came now.
    pub(super) fn next(&mut self) -> Arc<Behaviour> {
        let Some((behaviour, left)) = self.timed.front_mut() else {
            return Arc::clone(&self.standing);
        };
        let behaviour = Arc::clone(behaviour);
        *left -= 1;
        if *left == 0 {
            self.timed.pop_front();
        }
        behaviour
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timed_behaviours_come_first_and_in_order() {
        let mut plans = Plans::default();
        let with = |status, times| Behaviour {
            status,
            times,
            ..Behaviour::default()
        };
        plans.set(with(Some(500), None));
        plans.set(with(Some(429), Some(2)));
        plans.set(with(Some(401), Some(1)));
        let seen: Vec<_> = (0..4).map(|_| plans.next().status).collect();
        assert_eq!(seen, [Some(429), Some(429), Some(401), Some(500)]);
    }

    #[test]
    fn an_unknown_field_is_refused() {
        assert!(serde_json::from_str::<Behaviour>(r#"{"dealy_ms": 1}"#).is_err());
    }
}

//! What a provider does, and how far what it tells can be held against the bill.

use aex_tests::sim::{Behaviour, Shape, Tokenizer};
use serde_json::{Value, json};

use crate::disk::Chance;

/// What must be true of a charge under a behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Honesty {
    /// The bill is within the charge, and the charge within the hold.
    Honest,
    /// It tells less than it bills: nobody can know.
    TellsLess,
    /// It bills more than was asked for: what is above the hold is flagged.
    Overbills,
}

const SHAPES: [Shape; 11] = [
    Shape::Openai,
    Shape::Groq,
    Shape::Mistral,
    Shape::Deepseek,
    Shape::Gemini,
    Shape::Together,
    Shape::Openrouter,
    Shape::Vllm,
    Shape::Ollama,
    Shape::LlamaCpp,
    Shape::Anthropic,
];

/// Never believed.
fn absurd(chance: &mut Chance) -> Value {
    let texts = [
        r#"{"prompt_tokens":-1,"completion_tokens":3}"#,
        r#"{"prompt_tokens":1.5,"completion_tokens":3}"#,
        r#"{"prompt_tokens":1,"completion_tokens":99999999999999}"#,
        r#"{"prompt_tokens":"1","completion_tokens":"3"}"#,
        r#"{"completion_tokens":3}"#,
        r#"{"prompt_tokens":1,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":9}}"#,
        "[1,2]",
        "7",
    ];
    serde_json::from_str(texts[chance.below(texts.len())]).unwrap()
}

/// For a model of this name.
pub(super) fn draw(chance: &mut Chance, model: &str) -> (Behaviour, Honesty) {
    let mut behaviour = Behaviour {
        greedy: model != "exact",
        tokenizer: (model == "exact").then_some(Tokenizer::O200kBase),
        fill: true,
        tokens_per_chunk: [None, Some(7), Some(100)][chance.below(3)],
        shape: SHAPES[chance.below(SHAPES.len())],
        ..Behaviour::default()
    };
    if model == "hidden" && chance.below(2) == 0 {
        behaviour.reasoning_tokens = chance.below(50) as u64;
    }
    let mut honesty = Honesty::Honest;
    match chance.below(14) {
        0 => {
            let statuses = [400, 401, 403, 404, 408, 422, 429, 500, 502, 503, 504, 529];
            behaviour.status = Some(statuses[chance.below(statuses.len())]);
        }
        1 => behaviour.cut_after_chunks = Some(chance.below(6) as u64),
        2 => behaviour.omit_usage = true,
        3 => behaviour.usage = Some(absurd(chance)),
        4 => {
            let zero = json!({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0,
                "input_tokens": 0, "output_tokens": 0});
            behaviour.usage = Some(zero);
            honesty = Honesty::TellsLess;
        }
        5 => behaviour.raw_body = Some(r#"{"odd":"shape"}"#.to_owned()),
        6 => behaviour.omit_done = true,
        7 => behaviour.fail = true,
        8 => behaviour.delay_ms = 30,
        9 => behaviour.chunk_delay_ms = 1,
        10 => {
            behaviour.ignore_cap = true;
            honesty = Honesty::Overbills;
        }
        11 if chance.below(3) == 0 => behaviour.hang = true,
        _ => {}
    }
    (behaviour, honesty)
}

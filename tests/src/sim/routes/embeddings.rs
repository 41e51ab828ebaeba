//! `/v1/embeddings`: as numbers or as base64. The vectors mean nothing; equal places get equal ones.

use std::borrow::Cow;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::super::count::Counter;
use super::super::plan::{Asked, Form, Refusal};
use super::Exchange;
use super::completions::Texts;

const DIMENSIONS: usize = 16;
const MAX_DIMENSIONS: usize = 8192;

#[derive(Debug, Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    input: Texts,
    #[serde(borrow, default)]
    encoding_format: Option<Cow<'a, str>>,
    #[serde(default)]
    dimensions: Option<usize>,
}

pub(super) fn read(body: &[u8], counter: Counter) -> Result<Asked<'_>, Refusal> {
    let request: Request<'_> = serde_json::from_slice(body)?;
    let inputs = request.input.each(counter);
    let dimensions = request.dimensions.unwrap_or(DIMENSIONS);
    if inputs.is_empty() || !(1..=MAX_DIMENSIONS).contains(&dimensions) {
        return Err(Refusal::bad("no input, or no such dimensions"));
    }
    Ok(Asked {
        model: request.model,
        stream: false,
        stream_options: None,
        prompt: inputs.iter().map(|input| input.tokens).sum(),
        prompts: inputs.len() as u64,
        choices: None,
        best_of: None,
        cap: None,
        after_tool: true,
        form: Form::Embeddings {
            inputs: inputs.len(),
            dimensions,
            base64: request.encoding_format.as_deref() == Some("base64"),
        },
    })
}

/// A vector of length one.
fn vector(nth: usize, dimensions: usize) -> impl Iterator<Item = f32> {
    (0..dimensions).map(move |at| if at == nth % dimensions { 1.0 } else { 0.0 })
}

pub(super) fn plain(exchange: &Exchange<'_>) -> String {
    let Form::Embeddings {
        inputs,
        dimensions,
        base64,
    } = exchange.asked.form
    else {
        return String::new();
    };
    let mut out = String::from(r#"{"object":"list","data":["#);
    for index in 0..inputs {
        let comma = if index == 0 { "" } else { "," };
        let numbers = vector(index, dimensions);
        let vector = if base64 {
            let bytes: Vec<u8> = numbers.flat_map(f32::to_le_bytes).collect();
            format!("\"{}\"", STANDARD.encode(bytes))
        } else {
            let numbers: Vec<String> = numbers.map(|number| format!("{number:.1}")).collect();
            format!("[{}]", numbers.join(","))
        };
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            r#"{comma}{{"object":"embedding","index":{index},"embedding":{vector}}}"#
        );
    }
    let _ = write!(out, r#"],"model":{}"#, exchange.model);
    let bent = exchange.behaviour.usage.as_ref().map(ToString::to_string);
    if !exchange.behaviour.omit_usage {
        let prompt = exchange.plan.prompt;
        let usage = bent
            .unwrap_or_else(|| format!(r#"{{"prompt_tokens":{prompt},"total_tokens":{prompt}}}"#));
        let _ = write!(out, r#","usage":{usage}"#);
    }
    out.push('}');
    out
}

//! The provider simulator: OpenAI-compatible, obeys output caps, misbehaves on demand, and keeps its
//! own bill, which no client can talk it out of.
//!
//! `POST {/v1}/chat/completions` · `/completions` · `/embeddings` · `/responses` · `GET {/v1}/models` ·
//! `GET /_sim/bill` · `POST /_sim/reset` · `POST /_sim/behaviour`. Absent on purpose: prices, keys,
//! limits.

mod answer;
pub mod behaviour;
pub mod bill;
mod body;
pub mod count;
pub mod greed;
pub mod plan;
pub mod routes;
pub mod script;
mod server;
pub mod usage;

pub use behaviour::{Behaviour, Shape, Tokenizer, ToolCall};
pub use bill::{Bill, Ended, LoggedRequest, ModelBill};
pub use server::{Sim, SimConfig};

#[cfg(test)]
mod tests;

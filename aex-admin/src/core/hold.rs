//! A hold: money set aside for one request, with the terms under which it will be charged.

use aex_admin_proto::ticket::KeyMode;
use aex_admin_proto::tools::ToolRules;
use aex_admin_proto::worker::{Facts, OnDisconnect, Route};
use aex_admin_proto::{HoldId, KeyMark};
use serde::{Deserialize, Serialize};

use super::price::Price;
use super::scope::Charged;

/// Left out of the ledger: three of them would be a sixth of each hold's event.
fn is_false(value: &bool) -> bool {
    !value
}

fn one() -> u64 {
    1
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands a reference to it"
)]
fn is_one(number: &u64) -> bool {
    *number == 1
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands a reference to it"
)]
fn is_none(number: &u64) -> bool {
    *number == 0
}

/// What a newer version wrote there is not worth a hold that cannot be read.
fn as_known<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Facts, D::Error> {
    let asked = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(asked).unwrap_or_default())
}

fn is_plain(facts: &Facts) -> bool {
    *facts == Facts::default()
}

fn is_chat(route: &Route) -> bool {
    *route == Route::ChatCompletions
}

/// What was granted. Frozen: later changes of price or policy do not touch it.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    #[serde(default, skip_serializing_if = "is_chat")]
    pub route: Route,
    pub model: String,
    pub provider: String,
    pub upstream_model: String,
    pub key: KeyMode,
    pub price: Price,
    /// Version of the price catalogue in force, or `models.yaml`.
    pub price_source: String,
    pub hold_pico: i64,
    /// Upper bound of the prompt's tokens.
    pub input_tokens: u64,
    /// Tokens a choice.
    pub output_cap: u64,
    /// Answers in all: the choices of each prompt.
    pub choices: u64,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub prompts: u64,
    #[serde(default, skip_serializing_if = "is_false")]
    pub cap_is_ours: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub hidden_output: bool,
    /// The provider's usage is of all choices, not of one.
    #[serde(default, skip_serializing_if = "is_false")]
    pub counts_choices: bool,
    pub on_disconnect: OnDisconnect,
    /// Of the `Idempotency-Key` under which it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<KeyMark>,
    /// Beyond its agent and the kernel.
    #[serde(default, skip_serializing_if = "Charged::is_plain")]
    pub charged: Charged,
    /// Limits that are only to be told of, and that this one passed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warned: Vec<String>,
    /// Limits that are only tried, and that this one passed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shadowed: Vec<String>,
    /// It was tried elsewhere before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
    /// Under which its answer is read, by each scope that has any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<ToolRules>,
    /// What it asked for that the other fields do not say ([`super::recall`]): for rehearsals.
    #[serde(
        default,
        skip_serializing_if = "is_plain",
        deserialize_with = "as_known"
    )]
    pub asked: Facts,
    /// Names that had no place there.
    #[serde(default, skip_serializing_if = "is_none")]
    pub names_left_out: u64,
}

/// A hold of a request that another target was asked for first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Which one of the request it is: 2 or more.
    pub number: u64,
    /// The hold of the first one.
    pub first: HoldId,
    /// The `hold.open` event of the attempt that its `Idempotency-Key` stood for until now, and stands for
    /// again when this one is released: that one was charged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_of: Option<i64>,
}

impl Terms {
    /// Which attempt of its request it is, from 1.
    #[must_use]
    pub fn attempt_number(&self) -> u64 {
        self.attempt.map_or(1, |attempt| attempt.number)
    }

    /// Most output tokens in all.
    #[must_use]
    pub fn output_tokens(&self) -> u64 {
        self.output_cap.saturating_mul(self.choices)
    }

    /// Most tokens in all: what counts in a TPM window while the hold is open.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens())
    }
}

//! How many tokens a prompt can be at most, from sizes alone.
//!
//! For byte-level BPE the bytes of the decoded text bound its tokens. On top: the chat template (31
//! tokens for "hi" on a small real model, about 5.5 more a message), tools and schemas that the
//! provider renders again (about 4 times their tokens), and tokenizers whose Unicode normaliser may
//! grow text threefold; only text beyond ASCII can grow.

use aex_admin_proto::worker::Facts;

const TEMPLATE_TOKENS: u64 = 48;
const MESSAGE_TOKENS: u64 = 8;
const TOOL_FACTOR: u64 = 4;
const NORMALISER_FACTOR: u64 = 3;

/// Tokenizers known to take text as it is.
const WITHOUT_NORMALISER: [&str; 2] = ["o200k_base", "cl100k_base"];

/// Upper bound of the prompt's tokens. A known context window bounds it too: the provider refuses
/// what does not fit.
#[must_use]
pub fn prompt_tokens(facts: &Facts, tokenizer: Option<&str>, context_window: Option<u64>) -> u64 {
    let keeps_text = tokenizer.is_some_and(|name| WITHOUT_NORMALISER.contains(&name));
    let growth = if keeps_text { 1 } else { NORMALISER_FACTOR };
    let bound = TEMPLATE_TOKENS
        .saturating_add(MESSAGE_TOKENS.saturating_mul(facts.messages))
        .saturating_add(facts.ascii_bytes)
        .saturating_add(facts.other_bytes.saturating_mul(growth))
        .saturating_add(facts.tool_bytes.saturating_mul(TOOL_FACTOR));
    context_window.map_or(bound, |window| bound.min(window))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_chat_is_bounded_tightly_and_a_strange_one_widely() {
        let hi = Facts {
            ascii_bytes: 6,
            messages: 1,
            ..Facts::default()
        };
        assert_eq!(prompt_tokens(&hi, None, None), 62);
        let odd = Facts {
            other_bytes: 30,
            messages: 1,
            ..Facts::default()
        };
        assert_eq!(prompt_tokens(&odd, Some("o200k_base"), None), 86);
        assert_eq!(prompt_tokens(&odd, Some("other"), None), 146);
        let tools = Facts {
            tool_bytes: 400_000,
            ..Facts::default()
        };
        assert!(prompt_tokens(&tools, None, None) >= 400_000);
        assert_eq!(prompt_tokens(&tools, None, Some(131_072)), 131_072);
        let huge = Facts {
            ascii_bytes: u64::MAX,
            tool_bytes: u64::MAX,
            ..Facts::default()
        };
        assert_eq!(prompt_tokens(&huge, None, None), u64::MAX);
    }
}

//! How many tokens a prompt can be at most: from sizes alone, or from a count by its tokenizer.
//!
//! For byte-level BPE the bytes of the decoded text bound its tokens. On top: the chat template (31
//! tokens for "hi" on a small real model, about 5.5 more a message), tools and schemas that the
//! provider renders again (about 4 times their tokens), images, and tokenizers whose Unicode
//! normaliser may grow text threefold; only text beyond ASCII can grow.

use aex_admin_proto::worker::{Facts, TOKENIZERS};

const NORMALISER_FACTOR: u64 = 3;

/// What an image counts as where nothing is known of it: on free models, for their token limits.
const UNKNOWN_IMAGE_TOKENS: u64 = 1024;

/// How a model turns a request into tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rendering<'a> {
    pub tokenizer: Option<&'a str>,
    /// Of one prompt and its output, in tokens.
    pub context_window: Option<u64>,
    /// What the chat template adds to a request, and to each message, in tokens.
    pub template_tokens: u64,
    pub message_tokens: u64,
    /// How many times their own tokens tools and schemas can come to.
    pub tool_factor: u64,
    /// The most that one image comes to, in tokens.
    pub image_tokens: Option<u64>,
}

impl Default for Rendering<'_> {
    /// What holds of a model of which nothing is known.
    fn default() -> Self {
        Self {
            tokenizer: None,
            context_window: None,
            template_tokens: 48,
            message_tokens: 8,
            tool_factor: 4,
            image_tokens: None,
        }
    }
}

impl<'a> Rendering<'a> {
    /// The tokenizer by which a worker can count: such a one takes text as it is.
    #[must_use]
    pub fn countable(&self) -> Option<&'a str> {
        self.tokenizer.filter(|name| TOKENIZERS.contains(name))
    }

    /// Upper bound of the prompt's tokens, all prompts together. A known context window bounds each
    /// one: the provider refuses what does not fit.
    #[must_use]
    pub fn prompt_tokens(&self, facts: &Facts) -> u64 {
        let growth = if self.countable().is_some() {
            1
        } else {
            NORMALISER_FACTOR
        };
        let by_bytes = || {
            let other = facts.other_bytes.saturating_mul(growth);
            (facts.ascii_bytes.saturating_add(other), facts.tool_bytes)
        };
        let (text, tools) = facts
            .measured
            .map_or_else(by_bytes, |measured| (measured.text, measured.tools));
        let framed = facts.messages.saturating_add(facts.prompts);
        let image = self.image_tokens.unwrap_or(UNKNOWN_IMAGE_TOKENS);
        let bound = self
            .template_tokens
            .saturating_add(self.message_tokens.saturating_mul(framed))
            .saturating_add(text)
            .saturating_add(facts.token_ids)
            .saturating_add(tools.saturating_mul(self.tool_factor))
            .saturating_add(facts.images.saturating_mul(image));
        let window = self
            .context_window
            .map(|window| window.saturating_mul(facts.prompts.max(1)));
        window.map_or(bound, |window| bound.min(window))
    }
}

#[cfg(test)]
mod tests {
    use aex_admin_proto::worker::Measured;

    use super::*;

    fn bound(facts: &Facts, tokenizer: Option<&str>, context_window: Option<u64>) -> u64 {
        let rendering = Rendering {
            tokenizer,
            context_window,
            ..Rendering::default()
        };
        rendering.prompt_tokens(facts)
    }

    #[test]
    fn a_short_chat_is_bounded_tightly_and_a_strange_one_widely() {
        let hi = Facts {
            ascii_bytes: 6,
            messages: 1,
            ..Facts::default()
        };
        assert_eq!(bound(&hi, None, None), 62);
        let odd = Facts {
            other_bytes: 30,
            messages: 1,
            ..Facts::default()
        };
        assert_eq!(bound(&odd, Some("o200k_base"), None), 86);
        assert_eq!(bound(&odd, Some("other"), None), 146);
        let tools = Facts {
            tool_bytes: 400_000,
            ..Facts::default()
        };
        assert!(bound(&tools, None, None) >= 400_000);
        assert_eq!(bound(&tools, None, Some(131_072)), 131_072);
        let huge = Facts {
            ascii_bytes: u64::MAX,
            tool_bytes: u64::MAX,
            images: u64::MAX,
            prompts: u64::MAX,
            ..Facts::default()
        };
        assert_eq!(bound(&huge, None, None), u64::MAX);
    }

    #[test]
    fn a_count_takes_the_place_of_the_bytes() {
        let facts = Facts {
            ascii_bytes: 4_000,
            tool_bytes: 2_000,
            messages: 2,
            measured: Some(Measured {
                text: 900,
                tools: 500,
            }),
            ..Facts::default()
        };
        assert_eq!(
            bound(&facts, Some("o200k_base"), None),
            48 + 16 + 900 + 2_000
        );
    }

    #[test]
    fn many_prompts_have_a_window_each_and_images_a_price_each() {
        let facts = Facts {
            prompts: 3,
            token_ids: 50_000,
            ..Facts::default()
        };
        assert_eq!(bound(&facts, None, Some(8_192)), 3 * 8_192);
        let seen = Rendering {
            image_tokens: Some(765),
            ..Rendering::default()
        };
        let facts = Facts {
            images: 2,
            messages: 1,
            ..Facts::default()
        };
        assert_eq!(seen.prompt_tokens(&facts), 48 + 8 + 2 * 765);
    }
}

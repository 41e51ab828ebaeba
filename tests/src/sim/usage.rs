//! How the families of providers tell the usage of a chat or a completion: its fields, and where in a
//! stream it stands.

use super::behaviour::{Behaviour, Shape};
use super::plan::{Asked, Plan};

/// Where a stream tells its usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// `"usage": null` in each chunk that has none.
    pub null: bool,
    pub every_chunk: bool,
    pub finish: bool,
    /// In `x_groq` of the last finish chunk.
    pub x_groq: bool,
    /// Chunks of its own, with no choice in them.
    pub own: u64,
}

impl Places {
    #[must_use]
    pub fn of(asked: &Asked<'_>, behaviour: &Behaviour, plan: &Plan) -> Self {
        let options = asked.stream_options.unwrap_or_default();
        let wanted = options.include_usage == Some(true);
        let continuous = options.continuous_usage_stats == Some(true);
        let shape = behaviour.shape;
        let own = match shape {
            Shape::Openrouter => 1,
            Shape::Mistral | Shape::Together | Shape::Gemini => 0,
            Shape::LlamaCpp if wanted => plan.choices,
            _ => u64::from(wanted),
        };
        Self {
            null: wanted && matches!(shape, Shape::Openai | Shape::Groq | Shape::Deepseek),
            every_chunk: shape == Shape::Gemini || (shape == Shape::Vllm && wanted && continuous),
            finish: matches!(shape, Shape::Mistral | Shape::Together | Shape::Gemini),
            x_groq: behaviour.x_groq || shape == Shape::Groq,
            own,
        }
    }
}

impl Shape {
    /// What the family does not tell it does not give a discount for either.
    #[must_use]
    pub fn tells_cached(self) -> bool {
        matches!(
            self,
            Self::Openai | Self::Groq | Self::Deepseek | Self::Gemini | Self::Openrouter
        )
    }

    fn usage(self, plan: &Plan, completion: u64) -> String {
        let Plan { prompt, cached, .. } = *plan;
        let reasoning = plan.reasoning().min(completion);
        let counts = |completion: u64, total: u64| {
            format!(
                r#""prompt_tokens":{prompt},"completion_tokens":{completion},"total_tokens":{total}"#
            )
        };
        let plain = counts(completion, prompt + completion);
        let details = format!(
            r#""prompt_tokens_details":{{"cached_tokens":{cached}}},"completion_tokens_details":{{"reasoning_tokens":{reasoning}}}"#
        );
        match self {
            Self::Openai | Self::Groq => format!("{{{plain},{details}}}"),
            Self::Deepseek => {
                let missed = prompt - cached;
                format!(
                    r#"{{{plain},"prompt_cache_hit_tokens":{cached},"prompt_cache_miss_tokens":{missed},{details}}}"#
                )
            }
            Self::Gemini => {
                let told = counts(completion - reasoning, prompt + completion);
                format!(r#"{{{told},"prompt_tokens_details":{{"cached_tokens":{cached}}}}}"#)
            }
            Self::Openrouter => {
                format!(r#"{{{plain},"cost":0.00014,"is_byok":false,{details}}}"#)
            }
            Self::Vllm => {
                format!(
                    r#"{{{plain},"prompt_tokens_details":null,"completion_tokens_details":null}}"#
                )
            }
            Self::LlamaCpp => {
                let one = completion / plan.choices;
                format!("{{{}}}", counts(one, prompt + one))
            }
            Self::Mistral | Self::Together | Self::Ollama | Self::Anthropic => {
                format!("{{{plain}}}")
            }
        }
    }
}

/// The usage as it is told, which a behaviour may bend; nothing when it is left out.
#[must_use]
pub fn told(plan: &Plan, behaviour: &Behaviour) -> Option<String> {
    told_so_far(plan, behaviour, plan.completion())
}

/// The same, when only so many tokens of output are there yet.
#[must_use]
pub fn told_so_far(plan: &Plan, behaviour: &Behaviour, completion: u64) -> Option<String> {
    if behaviour.omit_usage {
        return None;
    }
    Some(match &behaviour.usage {
        Some(bent) => bent.to_string(),
        None => behaviour.shape.usage(plan, completion),
    })
}

//! The shape of a provider's answer, as far as usage needs it. Everything else is skipped unread.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::MAX_BELIEVED_TOKENS;

/// A whole answer or one chunk. A doubled key among these makes the document ambiguous: an error.
#[derive(Deserialize)]
pub(super) struct Document {
    #[serde(default)]
    pub(super) choices: Option<Choices>,
    #[serde(default)]
    pub(super) usage: Option<Reported>,
    #[serde(default)]
    pub(super) x_groq: Option<Object<Groq>>,
}

#[derive(Deserialize)]
pub(super) struct Groq {
    #[serde(default)]
    pub(super) usage: Option<Reported>,
}

/// Token counts under their wire meaning; absent and null are the same.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) prompt: Option<u64>,
    pub(super) completion: Option<u64>,
    pub(super) total: Option<u64>,
    pub(super) cached: Option<u64>,
    /// `DeepSeek`'s name for cached tokens.
    pub(super) cache_hit: Option<u64>,
    pub(super) cache_write: Option<u64>,
    pub(super) reasoning: Option<u64>,
}

pub(super) enum Reported {
    Counts(Counts),
    /// Not an object, a key twice, or a figure that is no count.
    Nonsense,
}

/// A JSON object alone: serde would read a list as a struct's fields in order.
#[derive(Default)]
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&'de serde_json::value::RawValue>::deserialize(deserializer)?.get();
        if !raw.starts_with('{') {
            return Err(D::Error::custom("not an object"));
        }
        serde_json::from_str(raw)
            .map(Self)
            .map_err(D::Error::custom)
    }
}

/// One figure of a usage.
enum Figure {
    Absent,
    Count(u64),
    Nonsense,
}

impl<'de> Deserialize<'de> for Figure {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FigureVisitor)
    }
}

struct FigureVisitor;

impl<'de> Visitor<'de> for FigureVisitor {
    type Value = Figure;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a count")
    }

    fn visit_u64<E: Error>(self, count: u64) -> Result<Figure, E> {
        Ok(if count <= MAX_BELIEVED_TOKENS {
            Figure::Count(count)
        } else {
            Figure::Nonsense
        })
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Figure, E> {
        Ok(Figure::Nonsense)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Figure, E> {
        Ok(Figure::Nonsense)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Figure, E> {
        Ok(Figure::Nonsense)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Figure, E> {
        Ok(Figure::Nonsense)
    }

    fn visit_unit<E: Error>(self) -> Result<Figure, E> {
        Ok(Figure::Absent)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Figure, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Figure::Nonsense)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Figure, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Figure::Nonsense)
    }
}

/// `prompt_tokens_details` and `completion_tokens_details`, `input_…` and `output_…`.
#[derive(Default, Deserialize)]
struct Details {
    #[serde(default)]
    cached_tokens: Option<Figure>,
    #[serde(default)]
    cache_write_tokens: Option<Figure>,
    #[serde(default)]
    reasoning_tokens: Option<Figure>,
}

#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    prompt_tokens: Option<Figure>,
    #[serde(default)]
    completion_tokens: Option<Figure>,
    #[serde(default)]
    total_tokens: Option<Figure>,
    #[serde(default)]
    prompt_cache_hit_tokens: Option<Figure>,
    #[serde(default)]
    prompt_tokens_details: Option<Object<Details>>,
    #[serde(default)]
    completion_tokens_details: Option<Object<Details>>,
    // The Responses API's names for them. Some send both.
    #[serde(default)]
    input_tokens: Option<Figure>,
    #[serde(default)]
    output_tokens: Option<Figure>,
    #[serde(default)]
    input_tokens_details: Option<Object<Details>>,
    #[serde(default)]
    output_tokens_details: Option<Object<Details>>,
}

impl Wire {
    fn counts(self) -> Option<Counts> {
        let prompt = self.prompt_tokens_details.unwrap_or_default().0;
        let completion = self.completion_tokens_details.unwrap_or_default().0;
        let input = self.input_tokens_details.unwrap_or_default().0;
        let output = self.output_tokens_details.unwrap_or_default().0;
        Some(Counts {
            prompt: larger(self.prompt_tokens, self.input_tokens)?,
            completion: larger(self.completion_tokens, self.output_tokens)?,
            total: count(self.total_tokens)?,
            cached: larger(prompt.cached_tokens, input.cached_tokens)?,
            cache_hit: count(self.prompt_cache_hit_tokens)?,
            cache_write: larger(prompt.cache_write_tokens, input.cache_write_tokens)?,
            reasoning: larger(completion.reasoning_tokens, output.reasoning_tokens)?,
        })
    }
}

/// One figure under two names.
fn larger(a: Option<Figure>, b: Option<Figure>) -> Option<Option<u64>> {
    Some(count(a)?.max(count(b)?))
}

/// Nothing for a figure that is no count.
fn count(figure: Option<Figure>) -> Option<Option<u64>> {
    match figure {
        None | Some(Figure::Absent) => Some(None),
        Some(Figure::Count(count)) => Some(Some(count)),
        Some(Figure::Nonsense) => None,
    }
}

impl<'de> Deserialize<'de> for Reported {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Through the raw text, so that a wrong form inside spoils the usage and not the document.
        let raw = <&serde_json::value::RawValue>::deserialize(deserializer)?.get();
        if !raw.starts_with('{') {
            return Ok(Self::Nonsense);
        }
        Ok(serde_json::from_str::<Wire>(raw)
            .ok()
            .and_then(Wire::counts)
            .map_or(Self::Nonsense, Self::Counts))
    }
}

/// What the choices of a document add up to.
#[derive(Debug, Default)]
pub(super) struct Choices {
    pub(super) present: bool,
    pub(super) count: usize,
    pub(super) finished: bool,
    pub(super) output_bytes: u64,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Text,
    #[serde(default)]
    message: Text,
    #[serde(default)]
    text: Text,
    #[serde(default)]
    finish_reason: Option<IgnoredAny>,
}

impl<'de> Deserialize<'de> for Choices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ChoicesVisitor)
    }
}

struct ChoicesVisitor;

impl<'de> Visitor<'de> for ChoicesVisitor {
    type Value = Choices;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of choices")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Choices, A::Error> {
        let mut all = Choices {
            present: true,
            ..Choices::default()
        };
        while let Some(choice) = seq.next_element::<Choice>()? {
            all.count += 1;
            all.finished |= choice.finish_reason.is_some();
            all.output_bytes = [choice.delta, choice.message, choice.text]
                .iter()
                .fold(all.output_bytes, |sum, text| sum.saturating_add(text.0));
        }
        Ok(all)
    }
}

/// Decoded bytes of every string below, except those that are labels and not output.
#[derive(Default)]
pub(super) struct Text(pub(super) u64);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("output")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
        Ok(Text(text.len() as u64))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Text, E> {
        Ok(Text(0))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Text, E> {
        Ok(Text(0))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Text, E> {
        Ok(Text(0))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Text, E> {
        Ok(Text(0))
    }

    fn visit_unit<E: Error>(self) -> Result<Text, E> {
        Ok(Text(0))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Text, A::Error> {
        let mut sum = 0_u64;
        while let Some(Text(bytes)) = seq.next_element()? {
            sum = sum.saturating_add(bytes);
        }
        Ok(Text(sum))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text, A::Error> {
        let mut sum = 0_u64;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if matches!(&*key, "role" | "id" | "type") {
                map.next_value::<IgnoredAny>()?;
            } else {
                let Text(bytes) = map.next_value()?;
                sum = sum.saturating_add(bytes);
            }
        }
        Ok(Text(sum))
    }
}

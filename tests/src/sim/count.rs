//! How many tokens a text has, by three tellers: roughly as a tokenizer would, exactly as one does,
//! and as many as it could have at worst.
//!
//! No socket, clock or randomness: the same request always costs the same.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::behaviour::{Behaviour, Tokenizer};

const TOKENS_PER_IMAGE: u64 = 85;

/// Tokens of a text, roughly as a tokenizer counts: six letters, one digit, one mark or one character
/// beyond ASCII each make a token. Never more than the text has bytes.
#[must_use]
pub fn count_tokens(text: &str) -> u64 {
    let (mut tokens, mut letters) = (0, 0);
    for byte in text.bytes() {
        if byte.is_ascii_alphabetic() {
            tokens += u64::from(letters % 6 == 0);
            letters += 1;
            continue;
        }
        letters = 0;
        let continues_a_character = byte & 0xC0 == 0x80;
        tokens += u64::from(!byte.is_ascii_whitespace() && !continues_a_character);
    }
    tokens
}

/// Words alone: for JSON that a provider renders again in its own way.
fn count_words(text: &str) -> u64 {
    text.split(|c: char| !c.is_ascii_alphanumeric())
        .map(|word| (word.len() as u64).div_ceil(6))
        .sum()
}

/// Words, and each mark between them.
fn count_words_and_marks(text: &str) -> u64 {
    let (mut count, mut in_a_word) = (0, false);
    for c in text.chars() {
        let letter = c.is_alphanumeric();
        let goes_on = letter && in_a_word;
        count += u64::from(!goes_on && !c.is_whitespace());
        in_a_word = letter;
    }
    count
}

fn count_exactly(text: &str) -> u64 {
    bpe_openai::o200k_base().count(text) as u64
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Rough,
    Exact,
    Greedy,
}

/// Counts what a prompt is made of, in the manner that the behaviour asks for.
#[derive(Debug, Clone, Copy)]
pub struct Counter {
    manner: Manner,
    image: u64,
}

impl Counter {
    #[must_use]
    pub fn of(behaviour: &Behaviour) -> Self {
        let manner = match (behaviour.greedy, behaviour.tokenizer) {
            (true, _) => Manner::Greedy,
            (false, Some(Tokenizer::O200kBase)) => Manner::Exact,
            (false, None) => Manner::Rough,
        };
        Self {
            manner,
            image: behaviour.image_tokens.unwrap_or(TOKENS_PER_IMAGE),
        }
    }

    pub(super) fn text(self, text: &str) -> u64 {
        match self.manner {
            Manner::Rough => count_tokens(text),
            Manner::Exact => count_exactly(text),
            Manner::Greedy => text.len() as u64,
        }
    }

    /// What the chat template puts around one message.
    pub(super) fn per_message(self) -> u64 {
        match self.manner {
            Manner::Rough => 4,
            Manner::Exact => 3,
            Manner::Greedy => 6,
        }
    }

    /// What it puts around all of them, the answer's opening included.
    pub(super) fn once(self) -> u64 {
        match self.manner {
            Manner::Rough | Manner::Exact => 3,
            Manner::Greedy => 40,
        }
    }

    /// What stands before a prompt or an input that no chat template is laid around.
    pub(super) fn per_prompt(self) -> u64 {
        match self.manner {
            Manner::Rough => 1,
            Manner::Exact => 0,
            Manner::Greedy => 6,
        }
    }

    /// A text, or a list of texts, images and files. Anything else is nothing.
    pub(super) fn content(self, content: &RawValue) -> u64 {
        let raw = content.get();
        match raw.as_bytes().first() {
            Some(b'"') if !raw.contains('\\') => self.text(&raw[1..raw.len() - 1]),
            Some(b'"') => serde_json::from_str::<String>(raw).map_or(0, |text| self.text(&text)),
            _ => serde_json::from_str::<Vec<Part<'_>>>(raw)
                .map_or(0, |parts| parts.iter().map(|part| self.part(part)).sum()),
        }
    }

    fn part(self, part: &Part<'_>) -> u64 {
        let text = |text: &Option<Cow<'_, str>>| text.as_deref().map_or(0, |text| self.text(text));
        let other = [part.image_url, part.file_id, part.file_url, part.file_data];
        let other = other.iter().flatten().count() as u64 * self.image;
        text(&part.text) + text(&part.refusal) + other
    }

    /// Calls that an earlier answer made, as a chat message carries them.
    pub(super) fn tool_calls(self, calls: &RawValue) -> u64 {
        if self.manner == Manner::Rough {
            return count_words(calls.get());
        }
        let calls: Vec<Call<'_>> = serde_json::from_str(calls.get()).unwrap_or_default();
        calls
            .iter()
            .filter_map(|call| call.function.as_ref())
            .map(|call| self.text(&call.name) + self.text(&call.arguments))
            .sum()
    }

    /// Tool definitions.
    pub(super) fn tools(self, tools: &RawValue) -> u64 {
        match self.manner {
            Manner::Exact => count_exactly(&tools_as_types(tools.get())),
            Manner::Rough | Manner::Greedy => self.schema(tools),
        }
    }

    /// A schema that the answer has to fit.
    pub(super) fn schema(self, schema: &RawValue) -> u64 {
        match self.manner {
            Manner::Rough => count_words(schema.get()),
            Manner::Exact => count_exactly(schema.get()),
            Manner::Greedy => 4 * count_words_and_marks(schema.get()),
        }
    }
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    refusal: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    image_url: Option<&'a RawValue>,
    #[serde(borrow, default)]
    file_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    file_url: Option<&'a RawValue>,
    #[serde(borrow, default)]
    file_data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow, default)]
    function: Option<CalledFunction<'a>>,
}

#[derive(Deserialize)]
struct CalledFunction<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    arguments: Cow<'a, str>,
}

/// Tools as a model reads them: a namespace of function types, comments before what has a description.
fn tools_as_types(tools: &str) -> String {
    let tools: Vec<Value> = serde_json::from_str(tools).unwrap_or_default();
    if tools.is_empty() {
        return String::new();
    }
    let mut out = String::from("# Tools\n\n## functions\n\nnamespace functions {\n\n");
    for tool in &tools {
        let tool = tool.get("function").unwrap_or(tool);
        comment(&mut out, tool);
        let name = tool["name"].as_str().unwrap_or_default();
        let parameters = &tool["parameters"];
        // Writing to a String cannot fail.
        let _ = match parameters["properties"].as_object() {
            Some(properties) if !properties.is_empty() => {
                writeln!(out, "type {name} = (_: {}) => any;\n", type_of(parameters))
            }
            _ => writeln!(out, "type {name} = () => any;\n"),
        };
    }
    out.push_str("} // namespace functions");
    out
}

fn comment(out: &mut String, described: &Value) {
    for line in described["description"]
        .as_str()
        .into_iter()
        .flat_map(str::lines)
    {
        let _ = writeln!(out, "// {line}");
    }
}

fn type_of(schema: &Value) -> String {
    if let Some(values) = schema["enum"].as_array() {
        return join(values, Value::to_string);
    }
    if let Some(kinds) = schema["anyOf"].as_array() {
        return join(kinds, type_of);
    }
    match schema["type"].as_str() {
        Some("object") => fields_of(schema),
        Some("array") => format!("{}[]", type_of(&schema["items"])),
        Some("integer") => "number".to_owned(),
        Some(name) => name.to_owned(),
        None => "any".to_owned(),
    }
}

fn join(of: &[Value], each: impl Fn(&Value) -> String) -> String {
    of.iter().map(each).collect::<Vec<_>>().join(" | ")
}

fn fields_of(schema: &Value) -> String {
    let Some(properties) = schema["properties"].as_object() else {
        return "object".to_owned();
    };
    let mut out = String::from("{\n");
    for (name, property) in properties {
        comment(&mut out, property);
        let required = schema["required"]
            .as_array()
            .is_some_and(|names| names.iter().any(|known| known == name));
        let mark = if required { "" } else { "?" };
        let _ = writeln!(out, "{name}{mark}: {},", type_of(property));
    }
    out.push('}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_never_has_more_tokens_than_bytes() {
        for (text, tokens) in [
            ("", 0),
            ("hello", 1),
            ("hello world", 2),
            ("antidisestablish", 3),
            ("1234", 4),
            ("a, b.", 4),
            ("日本語", 3),
            ("  \n", 0),
        ] {
            assert_eq!(count_tokens(text), tokens, "{text:?}");
            assert!(tokens <= text.len() as u64);
            assert!(count_exactly(text) <= text.len() as u64);
        }
        assert_eq!(count_exactly("hello world"), 2);
    }

    #[test]
    fn words_and_marks_are_told_apart() {
        for (text, count) in [("", 0), ("a b", 2), (r#"{"ab1":[1,2]}"#, 11), ("é-ü", 3)] {
            assert_eq!(count_words_and_marks(text), count, "{text:?}");
        }
    }

    #[test]
    fn tools_are_rendered_as_types() {
        let tools = r#"[{"type": "function", "function": {"name": "weather", "description": "Now.",
            "parameters": {"type": "object", "required": ["city"], "properties": {
                "city": {"type": "string", "description": "Where."},
                "unit": {"enum": ["C", "F"]}, "days": {"type": "array", "items": {"type": "integer"}}
            }}}}, {"type": "function", "name": "now"}]"#;
        let types = tools_as_types(tools);
        for line in [
            "// Now.",
            "type weather = (_: {",
            "// Where.",
            "city: string,",
            "unit?: \"C\" | \"F\",",
            "days?: number[],",
            "type now = () => any;",
        ] {
            assert!(
                types.lines().any(|found| found == line),
                "{line} in {types}"
            );
        }
        assert_eq!(tools_as_types("[]"), "");
    }
}

//! What the greediest provider reads out of a request: every knob that raises a bill, whoever's server
//! it belongs to, at the dearest of its readings.
//!
//! The point is that a request which AEX let through with a price on it cannot be read to cost more:
//! where it can, the simulator's bill shows it.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::count::count_tokens;
use super::plan::GREEDY_TOKENS;

/// Each is a number of output tokens, to one server or another.
const CAPS: [&str; 12] = [
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "max_new_tokens",
    "max_tokens_to_sample",
    "max_length",
    "n_predict",
    "num_predict",
    "min_tokens",
    "min_new_tokens",
    "min_completion_tokens",
    "min_length",
];
/// Each is a number of answers to one prompt.
const CHOICES: [&str; 5] = [
    "n",
    "n_cmpl",
    "num_return_sequences",
    "candidate_count",
    "num_beams",
];
/// Objects whose fields count as the request's own.
const WRAPPERS: [&str; 4] = ["extra_body", "options", "parameters", "generation_config"];
/// Each of them that is there, and not switched off, costs a fee.
const FEES: [&str; 5] = [
    "web_search_options",
    "plugins",
    "audio",
    "search_parameters",
    "web_search",
];
/// Each of them that is there refers to something that the provider keeps, or has it kept.
const KEPT: [&str; 4] = [
    "store",
    "background",
    "previous_response_id",
    "conversation",
];

/// What a request's knobs come to. In the absence of greed they come to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Knobs {
    pub cap: Option<u64>,
    pub choices: Option<u64>,
    pub best_of: Option<u64>,
    pub extra_tokens: u64,
    pub factor: u64,
    pub fees: u64,
    pub kept: u64,
    /// Another model than `model`.
    pub model: Option<String>,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            cap: None,
            choices: None,
            best_of: None,
            extra_tokens: 0,
            factor: 1,
            fees: 0,
            kept: 0,
            model: None,
        }
    }
}

impl Knobs {
    /// Reads them out, and gives the request without them, of two equal keys the last.
    /// `keeps` is what the route does where nothing is said.
    pub(super) fn take(body: &[u8], keeps: bool) -> Result<(Self, Vec<u8>), serde_json::Error> {
        let Pairs(pairs) = serde_json::from_slice(body)?;
        let mut knobs = Self::default();
        let mut rest = Map::new();
        let mut store_said = false;
        for (name, value) in pairs {
            store_said |= name == "store";
            if !knobs.heed(&name, &value) {
                rest.insert(name, value);
            }
        }
        knobs.kept += u64::from(keeps && !store_said);
        Ok((knobs, serde_json::to_vec(&rest)?))
    }

    /// Whether it was a number that the typed reading needs no more.
    fn heed(&mut self, name: &str, value: &Value) -> bool {
        let slot = match name {
            _ if CAPS.contains(&name) => &mut self.cap,
            _ if CHOICES.contains(&name) => &mut self.choices,
            "best_of" => &mut self.best_of,
            _ => {
                self.heed_other(name, value);
                return false;
            }
        };
        *slot = (*slot).max(tokens_of(value));
        true
    }

    fn heed_other(&mut self, name: &str, value: &Value) {
        let on = !matches!(value, Value::Null | Value::Bool(false));
        self.fees += u64::from(on && FEES.contains(&name));
        self.kept += u64::from(on && KEPT.contains(&name));
        match name {
            _ if WRAPPERS.contains(&name) => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    self.heed(name, value);
                }
            }
            // One of the two places where OpenAI takes a stored prompt.
            "prompt" => self.kept += u64::from(value.is_object()),
            "prediction" => {
                self.extra_tokens += value["content"].as_str().map_or(0, count_tokens);
                let parts = value["content"].as_array().into_iter().flatten();
                self.extra_tokens += parts
                    .filter_map(|part| part["text"].as_str())
                    .map(count_tokens)
                    .sum::<u64>();
            }
            "service_tier" if value == "priority" => self.factor = 2,
            "modalities" => self.fees += u64::from(contains(value, "audio")),
            "tools" => {
                let tools = value.as_array().into_iter().flatten();
                let hosted =
                    |tool: &&Value| !matches!(tool["type"].as_str(), Some("function" | "custom"));
                self.fees += tools.filter(hosted).count() as u64;
            }
            "models" | "fallbacks" => {
                let last = value.as_array().and_then(|models| models.last());
                self.model = last.and_then(Value::as_str).map(str::to_owned);
            }
            _ => {}
        }
    }
}

fn contains(list: &Value, name: &str) -> bool {
    list.as_array()
        .is_some_and(|list| list.iter().any(|item| item == name))
}

/// Whatever is no plain number is read as if nothing limited it.
fn tokens_of(value: &Value) -> Option<u64> {
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::Bool(true) => Some(1),
        Value::Number(number) => Some(number.as_u64().unwrap_or(GREEDY_TOKENS)),
        Value::String(text) => Some(text.trim().parse().unwrap_or(GREEDY_TOKENS)),
        Value::Array(_) | Value::Object(_) => Some(GREEDY_TOKENS),
    }
}

/// An object's fields in order, equal names and all.
struct Pairs(Vec<(String, Value)>);

impl<'de> serde::Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knobs(body: &str) -> Knobs {
        Knobs::take(body.as_bytes(), false).unwrap().0
    }

    #[test]
    fn every_cap_counts_and_the_greatest_holds() {
        for (body, cap) in [
            (r"{}", None),
            (r#"{"max_tokens": 3}"#, Some(3)),
            (r#"{"max_tokens": 3, "n_predict": 40}"#, Some(40)),
            (r#"{"max_tokens": 3, "max_completion_tokens": 4}"#, Some(4)),
            (r#"{"max_tokens": 3, "max_tokens": 9}"#, Some(9)),
            (r#"{"max_tokens": 9, "max_\u0074okens": 3}"#, Some(9)),
            (r#"{"max_tokens": -1}"#, Some(GREEDY_TOKENS)),
            (r#"{"max_tokens": 1e999}"#, None),
            (r#"{"max_tokens": "12"}"#, Some(12)),
            (
                r#"{"options": {"num_predict": 70}, "max_tokens": 1}"#,
                Some(70),
            ),
            (
                r#"{"extra_body": {"options": {"num_predict": 71}}}"#,
                Some(71),
            ),
            (r#"{"max_tokens": 3, "n_cmpl": 2}"#, Some(3)),
            (r#"{"min_tokens": 50, "max_tokens": 5}"#, Some(50)),
        ] {
            match Knobs::take(body.as_bytes(), false) {
                Ok((knobs, rest)) => {
                    assert_eq!(knobs.cap, cap, "{body}");
                    assert!(!String::from_utf8(rest).unwrap().contains("max_tokens"));
                }
                Err(_) => assert_eq!(cap, None, "{body}"),
            }
        }
    }

    #[test]
    fn what_costs_on_top_is_found() {
        let found = knobs(
            r#"{"best_of": 4, "n": 1, "n_cmpl": 2, "service_tier": "priority", "web_search_options": {},
            "tools": [{"type": "function"}, {"type": "web_search"}], "store": true,
            "prediction": {"type": "content", "content": "one two three"}, "models": ["a", "b"],
            "background": false, "previous_response_id": "resp_1"}"#,
        );
        let expected = Knobs {
            cap: None,
            choices: Some(2),
            best_of: Some(4),
            extra_tokens: 3,
            factor: 2,
            fees: 2,
            kept: 2,
            model: Some("b".into()),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_route_that_keeps_unasked_is_told_not_to() {
        let kept = |body: &str| Knobs::take(body.as_bytes(), true).unwrap().0.kept;
        assert_eq!(kept("{}"), 1);
        assert_eq!(kept(r#"{"store": false}"#), 0);
        assert_eq!(kept(r#"{"store": true}"#), 1);
    }
}

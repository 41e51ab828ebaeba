//! What a scope may ask for, beyond what [`Settings`] has always had. Absent: no rule of its own.

use serde::{Deserialize, Serialize};

use crate::operator::Settings;
use crate::worker::Route;

/// What happens to a tool that may not be offered, and to a call that may not be made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnForbiddenTool {
    /// The request, or the answer, is refused.
    #[default]
    Refuse,
    /// It is cut out, and the rest goes on.
    Strip,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Capabilities {
    /// Names of providers; `*` is any run of characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_providers: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_routes: Option<Vec<Route>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub structured_output: Option<bool>,
    /// Tools that the provider itself carries out, or knows by type: `web_search`, `mcp`, ….
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hosted_tools: Option<bool>,
    /// Names of tools, whatever their case; `*` is any run of characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denied_tools: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel_tool_calls: Option<bool>,
    /// Answers of one request: the larger of `n` and `best_of`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_choices: Option<u64>,
    /// In thousandths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_temperature_milli: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_temperature_milli: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_forbidden_tool: Option<OnForbiddenTool>,
}

impl Capabilities {
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Takes over what `from` says; what it does not say stays.
    pub fn merge(&mut self, from: &Self) {
        fn take<T: Clone>(into: &mut Option<T>, from: &Option<T>) {
            if from.is_some() {
                into.clone_from(from);
            }
        }
        take(&mut self.allowed_providers, &from.allowed_providers);
        take(&mut self.allowed_routes, &from.allowed_routes);
        take(&mut self.audio, &from.audio);
        take(&mut self.files, &from.files);
        take(&mut self.structured_output, &from.structured_output);
        take(&mut self.hosted_tools, &from.hosted_tools);
        take(&mut self.denied_tools, &from.denied_tools);
        take(&mut self.parallel_tool_calls, &from.parallel_tool_calls);
        take(&mut self.max_choices, &from.max_choices);
        take(&mut self.min_temperature_milli, &from.min_temperature_milli);
        take(&mut self.max_temperature_milli, &from.max_temperature_milli);
        take(&mut self.on_forbidden_tool, &from.on_forbidden_tool);
    }

    /// Puts one setting back to none. False: there is none of that name. `temperature` is both of its
    /// bounds.
    pub fn clear(&mut self, name: &str) -> bool {
        match name {
            "allowed_providers" => self.allowed_providers = None,
            "allowed_routes" => self.allowed_routes = None,
            "audio" => self.audio = None,
            "files" => self.files = None,
            "structured_output" => self.structured_output = None,
            "hosted_tools" => self.hosted_tools = None,
            "denied_tools" => self.denied_tools = None,
            "parallel_tool_calls" => self.parallel_tool_calls = None,
            "max_choices" => self.max_choices = None,
            "temperature" => {
                self.min_temperature_milli = None;
                self.max_temperature_milli = None;
            }
            "on_forbidden_tool" => self.on_forbidden_tool = None,
            _ => return false,
        }
        true
    }
}

/// The name of a route in settings and refusals.
#[must_use]
pub fn route_name(route: Route) -> &'static str {
    match route {
        Route::ChatCompletions => "chat_completions",
        Route::Completions => "completions",
        Route::Embeddings => "embeddings",
        Route::Responses => "responses",
    }
}

/// Thousandths as a person writes them: 1500 is `1.5`.
#[must_use]
pub fn temperature_text(milli: u64) -> String {
    let text = format!("{}.{:03}", milli / 1000, milli % 1000);
    let short = text.trim_end_matches('0').trim_end_matches('.');
    short.to_owned()
}

/// The range that is left: `0..1.5`, `0.2..`, `..1`.
#[must_use]
pub fn temperature_range(capabilities: &Capabilities) -> Option<String> {
    let (min, max) = (
        capabilities.min_temperature_milli,
        capabilities.max_temperature_milli,
    );
    let text = |bound: Option<u64>| bound.map_or_else(String::new, temperature_text);
    (min.is_some() || max.is_some()).then(|| format!("{}..{}", text(min), text(max)))
}

impl Settings {
    /// Whether the list of models, if there is one, has the model.
    #[must_use]
    pub fn has_model(&self, model: &str) -> bool {
        has(self.allowed_models.as_deref(), model)
    }

    /// Whether the list of providers, if there is one, has the provider.
    #[must_use]
    pub fn has_provider(&self, provider: &str) -> bool {
        has(self.capabilities.allowed_providers.as_deref(), provider)
    }
}

fn has(list: Option<&[String]>, name: &str) -> bool {
    list.is_none_or(|list| {
        list.iter()
            .any(|pattern| crate::pattern::matches(pattern, name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temperatures_are_written_short() {
        for (milli, text) in [
            (0, "0"),
            (1500, "1.5"),
            (1000, "1"),
            (5, "0.005"),
            (10_000, "10"),
        ] {
            assert_eq!(temperature_text(milli), text);
        }
    }

    #[test]
    fn what_is_merged_can_be_cleared_by_name() {
        let all = Capabilities {
            allowed_providers: Some(vec!["p".into()]),
            allowed_routes: Some(vec![Route::Responses]),
            audio: Some(true),
            files: Some(false),
            structured_output: Some(true),
            hosted_tools: Some(false),
            denied_tools: Some(vec!["t".into()]),
            parallel_tool_calls: Some(false),
            max_choices: Some(2),
            min_temperature_milli: Some(0),
            max_temperature_milli: Some(1000),
            on_forbidden_tool: Some(OnForbiddenTool::Strip),
        };
        let mut merged = Capabilities::default();
        merged.merge(&all);
        assert_eq!(merged, all);
        merged.merge(&Capabilities::default());
        assert_eq!(merged, all);
        let serde_json::Value::Object(names) = serde_json::to_value(&all).unwrap() else {
            panic!("an object")
        };
        for name in names.keys() {
            let name = if name.contains("temperature") {
                "temperature"
            } else {
                name
            };
            assert!(merged.clear(name), "{name}");
        }
        assert!(merged.is_default() && !merged.clear("vision"));
    }
}

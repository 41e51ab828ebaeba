//! The rules of tools, as one scope has them: which may be offered, and so which may be called.
//!
//! `aex-admin` asks them of what a request offers, a worker of each tool that it forwards. A call in an
//! answer is compared with what was forwarded alone.

use serde::{Deserialize, Serialize};

use crate::capabilities::OnForbiddenTool;
use crate::operator::Settings;
use crate::pattern;

/// How a worker names a hosted tool among a request's parameters.
pub const HOSTED_TOOL: &str = "tools[].type ";
/// Parameters that are hosted tools by another name.
pub const TOOL_PARAMS: [&str; 2] = ["web_search_options", "plugins"];
/// Longest name of a tool.
const MAX_NAME_BYTES: usize = 128;

/// One tool: by name, or by the type under which a provider knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool<'a> {
    Named(&'a str),
    Hosted(&'a str),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ToolRules {
    /// No tool at all.
    #[serde(skip_serializing_if = "is_false")]
    pub none: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub no_hosted: bool,
    /// Only these, by patterns of their exact names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed: Option<Vec<String>>,
    /// None of these, by patterns of their names in any case.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<String>,
    /// One call a message.
    #[serde(skip_serializing_if = "is_false")]
    pub one_call: bool,
    pub on_forbidden: OnForbiddenTool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands a reference to it"
)]
fn is_false(value: &bool) -> bool {
    !value
}

impl ToolRules {
    /// Nothing where the settings have no rule of tools.
    #[must_use]
    pub fn of(settings: &Settings) -> Option<Self> {
        let capabilities = &settings.capabilities;
        let rules = Self {
            none: settings.tools == Some(false),
            no_hosted: capabilities.hosted_tools == Some(false),
            allowed: settings.allowed_tools.clone(),
            denied: capabilities.denied_tools.clone().unwrap_or_default(),
            one_call: capabilities.parallel_tool_calls == Some(false),
            on_forbidden: capabilities.on_forbidden_tool.unwrap_or_default(),
        };
        let idle = Self {
            on_forbidden: rules.on_forbidden,
            ..Self::default()
        };
        (rules != idle).then_some(rules)
    }

    /// Any tool that is offered and has a plain name, and nothing by another door: what holds where a policy
    /// is asked about each tool.
    #[must_use]
    pub fn as_offered() -> Self {
        Self {
            allowed: Some(vec!["*".to_owned()]),
            ..Self::default()
        }
    }

    /// What the tool would need, if it is not allowed.
    #[must_use]
    pub fn forbids(&self, tool: Tool<'_>) -> Option<String> {
        if self.none {
            return Some("tools".to_owned());
        }
        let name = match tool {
            Tool::Hosted(kind) if self.no_hosted => return Some(hosted_text(kind)),
            Tool::Hosted(name) | Tool::Named(name) => name,
        };
        let has_list = self.allowed.is_some() || !self.denied.is_empty();
        let outside = |list: &Vec<String>| !list.iter().any(|p| pattern::matches(p, name));
        let forbidden = has_list && !is_plain(name)
            || self.denied.iter().any(|pattern| denies(pattern, tool))
            || self.allowed.as_ref().is_some_and(outside);
        forbidden.then(|| tool_text(name))
    }
}

/// A denied hosted tool is denied in each version: `web_search` is `web_search_preview` too.
fn denies(denied: &str, tool: Tool<'_>) -> bool {
    match tool {
        Tool::Named(name) => pattern::matches_any_case(denied, name),
        Tool::Hosted(kind) => {
            pattern::matches_any_case(denied, kind)
                || pattern::matches_any_case(&format!("{denied}_*"), kind)
        }
    }
}

/// What a name may be made of, so that no two that look the same are different ones.
#[must_use]
pub fn is_plain(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-');
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(plain)
}

/// Whether a pattern can match a plain name.
#[must_use]
pub fn is_plain_pattern(pattern: &str) -> bool {
    let without = pattern.replace('*', "");
    pattern.len() <= MAX_NAME_BYTES
        && !pattern.is_empty()
        && (without.is_empty() || is_plain(&without))
}

/// How a refusal names a tool: what is not plain is escaped.
#[must_use]
pub fn tool_text(name: &str) -> String {
    let mut end = name.len().min(MAX_NAME_BYTES);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("tool {}", name[..end].escape_default())
}

#[must_use]
pub fn hosted_text(kind: &str) -> String {
    format!("hosted {}", tool_text(kind))
}

/// Whether a parameter that AEX does not know may offer tools under another name.
#[must_use]
pub fn may_offer_tools(param: &str) -> bool {
    let plain = plain_letters(param);
    [
        "tool",
        "function",
        "plugin",
        "mcp",
        "search",
        "connector",
        "skill",
        "datasource",
        "grounding",
    ]
    .iter()
    .any(|part| plain.contains(part))
}

/// Whether a parameter that AEX does not know may prescribe the form of the answer.
#[must_use]
pub fn may_set_form(param: &str) -> bool {
    let plain = plain_letters(param);
    [
        "guided",
        "grammar",
        "schema",
        "structured",
        "format",
        "json",
        "regex",
        "ebnf",
    ]
    .iter()
    .any(|part| plain.contains(part))
}

/// Whether a parameter that AEX does not know may set the temperature.
#[must_use]
pub fn may_set_temperature(param: &str) -> bool {
    let plain = plain_letters(param);
    plain == "temp" || plain.contains("temperature") || plain.contains("dynatemp")
}

/// Whether a parameter that AEX does not know may be one that it does, in another spelling.
#[must_use]
pub fn may_be(param: &str, known: &str) -> bool {
    plain_letters(param).contains(known)
}

fn plain_letters(param: &str) -> String {
    let letters = param.chars().filter(char::is_ascii_alphanumeric);
    letters.map(|letter| letter.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(allowed: &[&str], denied: &[&str]) -> ToolRules {
        let list = |names: &[&str]| {
            names
                .iter()
                .map(|&name| name.to_owned())
                .collect::<Vec<_>>()
        };
        ToolRules {
            allowed: (!allowed.is_empty()).then(|| list(allowed)),
            denied: list(denied),
            ..ToolRules::default()
        }
    }

    #[test]
    fn a_name_is_what_it_is_and_no_other() {
        let lists = rules(&["get_*", "search"], &["get_secret"]);
        for (name, allowed) in [
            ("get_weather", true),
            ("search", true),
            ("Search", false),
            ("GET_weather", false),
            ("get_Secret", false),
            ("get_secret", false),
            ("get_wеather", false), // a Cyrillic letter
            ("get_weather\u{200b}", false),
            ("get_weather\u{0}", false),
            ("get_weather ", false),
            ("", false),
            ("delete", false),
        ] {
            let forbids = lists.forbids(Tool::Named(name));
            assert_eq!(forbids.is_none(), allowed, "{name:?} {forbids:?}");
        }
        let denied = rules(&[], &["delete*"]);
        for (name, allowed) in [
            ("read", true),
            ("delete_file", false),
            ("DELETE_FILE", false),
            ("ｄelete", false),
            ("dеlete", false),
        ] {
            assert_eq!(
                denied.forbids(Tool::Named(name)).is_none(),
                allowed,
                "{name}"
            );
        }
        let long = "a".repeat(129);
        assert!(rules(&["*"], &[]).forbids(Tool::Named(&long)).is_some());
        assert!(
            rules(&["*"], &[])
                .forbids(Tool::Named(&long[1..]))
                .is_none()
        );
    }

    #[test]
    fn hosted_tools_are_tools_of_their_type() {
        let denied = rules(&[], &["web_search"]);
        for kind in [
            "web_search",
            "web_search_preview",
            "WEB_search",
            "web_search_options",
        ] {
            assert!(denied.forbids(Tool::Hosted(kind)).is_some(), "{kind}");
        }
        assert!(denied.forbids(Tool::Named("web_search_mine")).is_none());
        let none = ToolRules {
            no_hosted: true,
            ..ToolRules::default()
        };
        assert_eq!(
            none.forbids(Tool::Hosted("mcp")).as_deref(),
            Some("hosted tool mcp")
        );
        assert_eq!(none.forbids(Tool::Named("mcp")), None);
    }

    #[test]
    fn a_scope_without_a_rule_has_none() {
        let mut settings = Settings::default();
        settings.capabilities.on_forbidden_tool = Some(OnForbiddenTool::Strip);
        settings.tools = Some(true);
        settings.capabilities.hosted_tools = Some(true);
        assert_eq!(ToolRules::of(&settings), None);
        settings.tools = Some(false);
        assert!(ToolRules::of(&settings).is_some_and(|rules| rules.none));
    }

    #[test]
    fn a_refusal_shows_no_raw_control_character() {
        assert_eq!(tool_text("a\u{7}\n"), "tool a\\u{7}\\n");
        assert!(tool_text(&"é".repeat(200)).len() < 600);
    }
}

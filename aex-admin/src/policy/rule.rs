//! One policy, with what its annotations say.

use std::ops::Range;

use cedar_policy::Policy;

use super::source::Source;

/// What a policy that matches does to a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// It is refused.
    #[default]
    Enforce,
    /// It is served, with a warning in the answer's head.
    Warn,
    /// It is served, and only counted.
    Shadow,
}

impl Mode {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Warn => "warn",
            Self::Shadow => "shadow",
        }
    }

    fn of(text: &str) -> Option<Self> {
        [Self::Enforce, Self::Warn, Self::Shadow]
            .into_iter()
            .find(|mode| mode.as_str() == text)
    }
}

#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) name: String,
    pub(super) reason: Option<String>,
    pub(super) mode: Mode,
    pub(super) policy: Policy,
}

/// It goes into a header and into metrics.
const MAX_NAME_BYTES: usize = 96;
/// It goes into an answer.
const MAX_REASON_CHARS: usize = 300;

/// A policy as its file has it. A fault is an offset in the file, and what to do.
pub(super) fn read(
    policy: &Policy,
    source: &Source<'_>,
    span: Range<usize>,
    default_name: String,
) -> Result<Rule, (usize, String)> {
    let mut rule = Rule {
        name: default_name,
        reason: None,
        mode: Mode::default(),
        policy: policy.clone(),
    };
    // By place, so that the first fault is the one that is told.
    let mut annotations: Vec<(usize, &str, &str)> = policy
        .annotations()
        .map(|(key, value)| {
            let at = source.annotation(span.clone(), key).unwrap_or(span.start);
            (at, key, value)
        })
        .collect();
    annotations.sort_unstable();
    for (at, key, value) in annotations {
        match key {
            "id" if is_name(value) => rule.name = value.to_owned(),
            "id" => {
                return Err((
                    at,
                    format!(
                        "@id must be 1 to {MAX_NAME_BYTES} letters, digits or any of . : _ / -"
                    ),
                ));
            }
            "reason" if is_reason(value) => rule.reason = Some(value.trim().to_owned()),
            "reason" => {
                return Err((
                    at,
                    format!(
                        "@reason must be one line of 1 to {MAX_REASON_CHARS} printable characters"
                    ),
                ));
            }
            "mode" => match Mode::of(value) {
                Some(mode) => rule.mode = mode,
                None => {
                    return Err((
                        at,
                        r#"@mode must be "enforce", "warn" or "shadow""#.to_owned(),
                    ));
                }
            },
            other => {
                return Err((
                    at,
                    format!("@{other} has no meaning here: AEX knows @id, @reason and @mode"),
                ));
            }
        }
    }
    Ok(rule)
}

pub(super) fn is_name(text: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || ".:_/-".contains(c);
    (1..=MAX_NAME_BYTES).contains(&text.len()) && text.chars().all(known)
}

fn is_reason(text: &str) -> bool {
    // What turns the direction of writing round makes a text look like another.
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let text = text.trim();
    (1..=MAX_REASON_CHARS).contains(&text.chars().count())
        && !text.chars().any(|c| c.is_control() || turns(c))
}

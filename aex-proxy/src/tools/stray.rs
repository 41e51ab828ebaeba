//! Calls where none belong: in a text's content, beside the place that the route has for them, in an
//! event of a type that AEX does not know. Some client may take them for calls all the same.

use super::json::{Object, list, string};
use super::{Stop, folded};

/// No answer of a provider is nested deeper.
const MAX_DEPTH: usize = 32;

/// Refuses an object that has one anywhere in it. Members by these names are judged elsewhere, or are
/// what the request said.
pub(super) fn none_in(object: &Object<'_>, but: &[&str]) -> Result<(), Stop> {
    if in_object(object, but, 0)? {
        return Err(Stop::Unreadable);
    }
    Ok(())
}

fn in_object(object: &Object<'_>, but: &[&str], depth: usize) -> Result<bool, Stop> {
    let (mut named, mut goes_on) = (false, false);
    for (key, raw) in object.members() {
        let key = folded(key);
        if but.contains(&&*key) || raw == "null" {
            continue;
        }
        match &*letters(&key) {
            "toolcalls" | "toolcall" | "functioncalls" | "functioncall" | "tooluse"
                if holds_something(raw) =>
            {
                return Ok(true);
            }
            "type" if raw.starts_with('"') && is_of_a_call(&string(raw)?) => return Ok(true),
            "function" if raw.starts_with('{') && Object::read(raw)?.get("name").is_some() => {
                return Ok(true);
            }
            "name" => named = raw != r#""""#,
            "arguments" | "input" => goes_on = true,
            _ => {}
        }
        if in_value(raw, depth + 1)? {
            return Ok(true);
        }
    }
    Ok(named && goes_on)
}

fn in_value(raw: &str, depth: usize) -> Result<bool, Stop> {
    if !raw.starts_with(['{', '[']) {
        return Ok(false);
    }
    if depth == MAX_DEPTH {
        return Err(Stop::Unreadable);
    }
    if raw.starts_with('{') {
        return in_object(&Object::read(raw)?, &[], depth);
    }
    for raw in list(raw)? {
        if in_value(raw, depth + 1)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A list or an object that is not empty.
fn holds_something(raw: &str) -> bool {
    let inside = |c: char| !c.is_ascii_whitespace() && !matches!(c, '[' | ']' | '{' | '}');
    raw.starts_with(['{', '[']) && raw.contains(inside)
}

/// `function_call`, `tool_use`, and these in the spellings of other APIs.
fn is_of_a_call(kind: &str) -> bool {
    let kind = letters(&kind.to_lowercase()).into_owned();
    ["call", "calls", "tooluse"]
        .iter()
        .any(|end| kind.ends_with(end))
}

/// A key or a type without what parts its words.
fn letters(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains(['_', '-', ' ']) {
        text.replace(['_', '-', ' '], "").into()
    } else {
        text.into()
    }
}

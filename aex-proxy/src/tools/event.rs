//! One server-sent event as the rules of tools see it: its lines, its data, and the event again with
//! other data.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::Stop;
use crate::sse;

/// What an event bears.
pub(super) enum Data<'a> {
    /// Comments, or an empty line.
    None,
    /// The stream's own end mark.
    Done,
    Json(Cow<'a, str>),
}

const FIELDS: [&str; 4] = ["data", "event", "id", "retry"];

/// Characters at which some clients end a line, and the format does not.
fn parts_lines(c: char) -> bool {
    matches!(
        c,
        '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

/// The event so that every client reads the same lines in it: as it is, where that is so already.
///
/// # Errors
/// It cannot be written so.
pub(super) fn one_reading(event: Bytes) -> Result<Bytes, Stop> {
    let text = std::str::from_utf8(&event).map_err(|_| Stop::Unreadable)?;
    let data_lines = lines(text).filter(|line| is_data(line)).count();
    if data_lines < 2 && !text.contains(parts_lines) {
        return Ok(event);
    }
    let mut kept = String::with_capacity(text.len());
    for line in lines(text).filter(|line| !is_data(line)) {
        if !line.contains(parts_lines) {
            kept.push_str(line);
            kept.push('\n');
        } else if line.starts_with("event") || !is_known(line) {
            return Err(Stop::Unreadable);
        }
    }
    let Some(data) = sse::data(&event) else {
        // A comment keeps the connection alive, whatever it says.
        return Ok(with_lines(&kept, ":"));
    };
    Ok(with_lines(
        &kept,
        &format!("data: {}", one_line(utf8(&data)?)?),
    ))
}

/// Data as one line, without characters that part lines.
fn one_line(data: &str) -> Result<String, Stop> {
    // No line may be a document of its own, so they must be one together. Then a line end is a blank
    // between two values: within a text it would be no JSON.
    let is_one = || serde_json::from_str::<&RawValue>(data).is_ok();
    if data.contains('\n') && !data.trim_ascii().is_empty() && !is_one() {
        return Err(Stop::Unreadable);
    }
    let mut line = String::with_capacity(data.len());
    for c in data.chars() {
        match c {
            '\n' => line.push(' '),
            '\u{85}' | '\u{2028}' | '\u{2029}' => line += &format!("\\u{:04x}", u32::from(c)),
            // JSON has no such character in a text, nor between two.
            _ if parts_lines(c) => return Err(Stop::Unreadable),
            _ => line.push(c),
        }
    }
    Ok(line)
}

/// An event of these lines and a last one.
fn with_lines(lines: &str, last: &str) -> Bytes {
    let mut out = String::with_capacity(lines.len() + last.len() + 2);
    for line in lines.split('\n').filter(|line| !line.is_empty()) {
        out.push_str(line);
        out.push('\n');
    }
    out.push_str(last);
    out.push_str("\n\n");
    out.into()
}

/// Reads an event. One with a line that is none of the format's is read otherwise by some client.
pub(super) fn data(event: &[u8]) -> Result<Data<'_>, Stop> {
    let text = std::str::from_utf8(event).map_err(|_| Stop::Unreadable)?;
    if !lines(text).all(is_known) {
        return Err(Stop::Unreadable);
    }
    Ok(match sse::data(event) {
        None => Data::None,
        Some(data) if data.trim_ascii().is_empty() => Data::None,
        Some(data) if data.trim_ascii() == b"[DONE]" => Data::Done,
        Some(Cow::Borrowed(data)) => Data::Json(Cow::Borrowed(utf8(data)?)),
        Some(Cow::Owned(data)) => Data::Json(Cow::Owned(utf8(&data)?.to_owned())),
    })
}

fn utf8(bytes: &[u8]) -> Result<&str, Stop> {
    std::str::from_utf8(bytes).map_err(|_| Stop::Unreadable)
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split(['\n', '\r'])
}

fn is_data(line: &str) -> bool {
    line == "data" || line.starts_with("data:")
}

fn is_known(line: &str) -> bool {
    let field = line.split_once(':').map_or(line, |(field, _)| field);
    line.is_empty() || field.is_empty() || FIELDS.contains(&field)
}

/// The name of the event, where its lines say one.
pub(super) fn name(event: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(event).ok()?;
    let name = lines(text)
        .filter_map(|line| line.strip_prefix("event:"))
        .last();
    name.map(|name| name.strip_prefix(' ').unwrap_or(name))
}

/// The event with other data: its other lines as they were.
pub(super) fn with_data(event: &[u8], json: &str) -> Bytes {
    let text = std::str::from_utf8(event).unwrap_or_default();
    let mut out = String::with_capacity(json.len() + 32);
    for line in lines(text) {
        if !line.is_empty() && !is_data(line) {
            out.push_str(line);
            out.push('\n');
        }
    }
    out.push_str("data: ");
    // A line end in the data, where its own text had one between two values, is no part of it.
    out.extend(json.chars().filter(|c| !matches!(c, '\n' | '\r')));
    out.push_str("\n\n");
    out.into()
}

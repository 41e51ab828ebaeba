//! One server-sent event as the rules of tools see it: its lines, its data, and the event again with
//! other data.

use std::borrow::Cow;

use bytes::Bytes;

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
        let is_data = line == "data" || line.starts_with("data:");
        if !line.is_empty() && !is_data {
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

//! Calls in answers of the Responses API: items of the output, whole from their first event on, so
//! that nothing is held back.

use std::collections::{BTreeSet, HashMap};

use aex_admin_proto::tools::tool_text;
use bytes::Bytes;

use super::event::{self, Data};
use super::json::{Change, Object, joined};
use super::{Offered, PARALLEL, Stop, hosted_base, stray};

/// Most items of one answer.
const MAX_ITEMS: usize = 4096;
/// Words that an event of a call has in its name, where it does not say of which item it is.
const OF_CALLS: [&str; 4] = ["call", "tool", "mcp", "function"];
/// Events that tell of text. Every other that belongs to an item is of a call.
const OF_TEXT: [&str; 8] = [
    "response.output_text.",
    "response.content_part.",
    "response.refusal.",
    "response.reasoning",
    "response.audio.",
    "response.output_audio",
    "error",
    "keepalive",
];

/// Members of a response that are judged by themselves, or repeat what the request said.
const JUDGED_IN_RESPONSE: [&str; 8] = [
    "output",
    "tools",
    "tool_choice",
    "text",
    "metadata",
    "instructions",
    "input",
    "prompt",
];
/// Members of a call: those that are judged, and what it takes and gives, which is data.
const JUDGED_IN_CALL: [&str; 7] = [
    "type",
    "name",
    "arguments",
    "input",
    "output",
    "results",
    "tools",
];
/// Members of an event that are judged by themselves, and those of a piece of a call.
const JUDGED_IN_EVENT: [&str; 2] = ["response", "item"];
const JUDGED_IN_PIECE: [&str; 6] = ["response", "item", "type", "name", "arguments", "input"];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Text,
    /// By a name that the client carries out.
    Call,
    /// By its item's type.
    Hosted(String),
}

/// What an item is, and what it would need where it is a call that was not offered.
fn judge(offered: &Offered, item: &Object<'_>) -> Result<(Kind, Option<String>), Stop> {
    let kind = item.string("type")?.unwrap_or_default();
    if matches!(&*kind, "message" | "reasoning" | "compaction") {
        stray::none_in(item, &[])?;
        return Ok((Kind::Text, None));
    }
    stray::none_in(item, &JUDGED_IN_CALL)?;
    Ok(match &*kind {
        "function_call" | "custom_tool_call" => {
            let name = item.string("name")?;
            (Kind::Call, offered.forbids_named(name.as_slice()))
        }
        "" => (
            Kind::Hosted(String::new()),
            Some(tool_text("without a type")),
        ),
        other => {
            let name = item.string("name")?;
            let needed = (offered.forbids_hosted(other))
                .or_else(|| forbids_name_of(offered, other, name.as_deref()));
            (Kind::Hosted(other.to_owned()), needed)
        }
    })
}

/// A hosted call's name. What an MCP server's tools are called, and which server it is, is not compared:
/// what was forwarded is known by its type alone, and the provider asks the servers that it was given.
fn forbids_name_of(offered: &Offered, item_type: &str, name: Option<&str>) -> Option<String> {
    if hosted_base(item_type) == "mcp" {
        return None;
    }
    offered.forbids_name_of_hosted(name.as_slice())
}

/// An output list without forbidden calls; nothing where it stays as it is.
fn output(offered: &Offered, response: &Object<'_>) -> Result<(Option<String>, Vec<String>), Stop> {
    let (mut left, mut places, mut calls) = (Vec::new(), Vec::new(), 0);
    stray::none_in(response, &JUDGED_IN_RESPONSE)?;
    for (at, raw) in response
        .list("output")?
        .unwrap_or_default()
        .into_iter()
        .enumerate()
    {
        let (kind, needed) = judge(offered, &Object::read(raw)?)?;
        let too_many = kind == Kind::Call && offered.one_call && calls > 0;
        match needed.or_else(|| too_many.then(|| PARALLEL.to_owned())) {
            Some(capability) => {
                offered.forbidden(capability)?;
                places.push(format!("output[{at}]"));
            }
            None => {
                calls += usize::from(kind == Kind::Call);
                left.push(raw);
            }
        }
    }
    Ok(((!places.is_empty()).then(|| joined(&left)), places))
}

fn with_output(response: &Object<'_>, output: &str) -> String {
    response.rewritten(|key, _| match key {
        "output" => Change::Becomes(output.to_owned()),
        _ => Change::Stays,
    })
}

/// A whole answer: again where something was cut out, and from where.
pub(super) fn plain(offered: &Offered, text: &str) -> Result<(Option<String>, Vec<String>), Stop> {
    let response = Object::read(text)?;
    let (left, places) = output(offered, &response)?;
    Ok((left.map(|left| with_output(&response, &left)), places))
}

#[derive(Debug)]
pub struct Stream {
    offered: Offered,
    /// Items by their place in the output.
    items: HashMap<u64, Kind>,
    cut: BTreeSet<u64>,
    calls: usize,
}

/// Whether an event is of an item of this type: `code_interpreter_call_code` of `code_interpreter_call`.
fn is_piece_of(event: &str, item_type: &str) -> bool {
    let rest = event.strip_prefix(item_type);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

/// What becomes of an event.
enum Fate {
    Stays,
    Goes,
    Becomes(String),
}

impl Stream {
    pub(super) fn new(offered: Offered) -> Self {
        Self {
            offered,
            items: HashMap::new(),
            cut: BTreeSet::new(),
            calls: 0,
        }
    }

    pub(super) fn event(&mut self, event: Bytes, out: &mut Vec<Bytes>) -> Result<(), Stop> {
        let fate = match event::data(&event)? {
            Data::None | Data::Done => Fate::Stays,
            Data::Json(json) => self.judge(&json, event::name(&event))?,
        };
        match fate {
            Fate::Stays => out.push(event),
            Fate::Goes => {}
            Fate::Becomes(json) => out.push(event::with_data(&event, &json)),
        }
        Ok(())
    }

    fn judge(&mut self, json: &str, named: Option<&str>) -> Result<Fate, Stop> {
        let event = Object::read(json)?;
        let kind = event.string("type")?.unwrap_or_default();
        // A client may go by either.
        if named.is_some_and(|named| named != kind) {
            return Err(Stop::Unreadable);
        }
        let place = event.number("output_index")?;
        let item = event.object("item")?;
        let is_of_calls = OF_CALLS.iter().any(|word| kind.contains(word));
        if is_of_calls {
            // It would be a piece of a call and a whole thing at once.
            if item.is_some() || event.get("response").is_some() {
                return Err(Stop::Unreadable);
            }
            stray::none_in(&event, &JUDGED_IN_PIECE)?;
        } else {
            stray::none_in(&event, &JUDGED_IN_EVENT)?;
        }
        if let Some(response) = event.object("response")? {
            // Whatever such an event is, it is two at once.
            if place.is_some() || item.is_some() {
                return Err(Stop::Unreadable);
            }
            let (left, _) = output(&self.offered, &response)?;
            let response = left.map(|left| with_output(&response, &left));
            return Ok(response.map_or(Fate::Stays, |response| {
                Fate::Becomes(event.rewritten(|key, _| match key {
                    "response" => Change::Becomes(response.clone()),
                    _ => Change::Stays,
                }))
            }));
        }
        if let Some(item) = item {
            let place = place.ok_or(Stop::Unreadable)?;
            return self.item(&event, &item, place);
        }
        let is_text = OF_TEXT.iter().any(|prefix| kind.starts_with(prefix))
            || (place.is_none() && !is_of_calls);
        match place {
            Some(place) if self.cut.contains(&place) => Ok(Fate::Goes),
            _ if is_text => Ok(self.shifted(&event, place)),
            _ => self.of_call(&event, &kind, place),
        }
    }

    /// An item begins or is whole.
    fn item(&mut self, event: &Object<'_>, item: &Object<'_>, place: u64) -> Result<Fate, Stop> {
        if self.cut.contains(&place) {
            return Ok(Fate::Goes);
        }
        let (kind, mut needed) = judge(&self.offered, item)?;
        if needed.is_none() && self.items.get(&place) != Some(&kind) {
            let too_many = kind == Kind::Call && self.offered.one_call && self.calls > 0;
            needed = too_many.then(|| PARALLEL.to_owned());
        }
        if let Some(capability) = needed {
            return self.forbidden(capability, place);
        }
        if self.items.len() == MAX_ITEMS {
            return Err(Stop::Unreadable);
        }
        let is_call = kind == Kind::Call;
        if self.items.get(&place) != Some(&kind) {
            self.items.insert(place, kind);
            self.calls += usize::from(is_call);
        }
        Ok(self.shifted(event, Some(place)))
    }

    /// A piece of a call. What was not announced as one is none that was allowed.
    fn of_call(
        &mut self,
        event: &Object<'_>,
        kind: &str,
        place: Option<u64>,
    ) -> Result<Fate, Stop> {
        let name = event.string("name")?;
        let item = place.and_then(|place| self.items.get(&place));
        let middle = kind.strip_prefix("response.").unwrap_or(kind);
        let middle = middle.split('.').next().unwrap_or_default();
        let called = || name.as_deref().unwrap_or(middle);
        let needed = match item {
            // It bears the name of its call once more, if any.
            Some(Kind::Call) => name
                .as_ref()
                .and_then(|name| self.offered.forbids_named(&[name])),
            // A piece of another call than the one that was announced is of none that was.
            Some(Kind::Hosted(item_type)) if is_piece_of(middle, item_type) => {
                forbids_name_of(&self.offered, item_type, name.as_deref())
            }
            Some(Kind::Hosted(_) | Kind::Text) | None => Some(tool_text(called())),
        };
        match (needed, place) {
            (None, place) => Ok(self.shifted(event, place)),
            // An item that was let go stays; what does not belong to it goes.
            (Some(capability), _) => {
                if item == Some(&Kind::Call) {
                    return Err(Stop::Forbidden(capability));
                }
                self.offered.forbidden(capability)?;
                Ok(Fate::Goes)
            }
        }
    }

    fn forbidden(&mut self, capability: String, place: u64) -> Result<Fate, Stop> {
        // What was let go already cannot be cut out.
        if self.items.contains_key(&place) {
            return Err(Stop::Forbidden(capability));
        }
        self.offered.forbidden(capability)?;
        if self.cut.len() == MAX_ITEMS {
            return Err(Stop::Unreadable);
        }
        self.cut.insert(place);
        Ok(Fate::Goes)
    }

    /// The event at the place that its item has now.
    fn shifted(&self, event: &Object<'_>, place: Option<u64>) -> Fate {
        let before = place.map_or(0, |place| self.cut.range(..place).count() as u64);
        match place {
            Some(place) if before > 0 => Fate::Becomes(event.rewritten(|key, _| match key {
                "output_index" => Change::Becomes((place - before).to_string()),
                _ => Change::Stays,
            })),
            _ => Fate::Stays,
        }
    }
}

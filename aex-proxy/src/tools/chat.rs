//! Calls in answers of the chat route: `tool_calls`, and `function_call` of before.
//!
//! In a stream a call comes in fragments, its name perhaps as well. A name is known when arguments
//! follow it, or when its choice or the stream ends; until then everything is held back. A name that
//! goes on after its arguments is another name than the one that was judged, and forbidden. So is a name
//! in pieces: some clients join them, some keep the first or the last, and each would carry out another.

mod stream;

use std::borrow::Cow;

pub(super) use stream::Stream;

use super::json::{Change, Object, joined};
use super::{Offered, PARALLEL, Stop, stray};

/// Under which key a choice has its message.
const HOLDERS: [&str; 2] = ["message", "delta"];

/// What of an answer, a choice, a message and a call is judged by itself. In a choice `logprobs` only
/// repeat text; in a message `executed_tools` tell what the provider has carried out already.
const JUDGED_IN_ANSWER: [&str; 1] = ["choices"];
const JUDGED_IN_CHOICE: [&str; 3] = ["message", "delta", "logprobs"];
const JUDGED_IN_MESSAGE: [&str; 3] = ["tool_calls", "function_call", "executed_tools"];
const JUDGED_IN_CALL: [&str; 6] = ["type", "name", "arguments", "input", "function", "custom"];

/// What a whole answer, or a fragment, says of one call.
struct Said<'a> {
    index: Option<u64>,
    id: Cow<'a, str>,
    names: Vec<Cow<'a, str>>,
    /// There are arguments.
    goes_on: bool,
    /// A kind of call that is neither a function nor custom.
    other_kind: Option<Cow<'a, str>>,
}

/// An element of `tool_calls`.
fn tool_call(raw: &str) -> Result<Said<'_>, Stop> {
    let call = Object::read(raw)?;
    let mut said = Said {
        index: call.number("index")?,
        id: call.string("id")?.unwrap_or_default(),
        names: call.string("name")?.into_iter().collect(),
        goes_on: goes_on(&call, "arguments")? || goes_on(&call, "input")?,
        other_kind: call
            .string("type")?
            .filter(|kind| !matches!(&**kind, "function" | "custom" | "")),
    };
    stray::none_in(&call, &JUDGED_IN_CALL)?;
    for (key, text) in [("function", "arguments"), ("custom", "input")] {
        if let Some(inner) = call.object(key)? {
            said.names.extend(inner.string("name")?);
            said.goes_on |= goes_on(&inner, text)?;
        }
    }
    // A hosted call may have its own object, by its type.
    let own = (said.other_kind.as_deref()).and_then(|kind| call.get(kind));
    if let Some(raw) = own.filter(|raw| raw.starts_with('{')) {
        said.names.extend(Object::read(raw)?.string("name")?);
    }
    said.names.retain(|name| !name.is_empty());
    Ok(said)
}

/// The value of `function_call`.
fn function_call(raw: &str) -> Result<Said<'_>, Stop> {
    let call = Object::read(raw)?;
    let name = call.string("name")?.filter(|name| !name.is_empty());
    Ok(Said {
        index: None,
        id: Cow::Borrowed(""),
        names: name.into_iter().collect(),
        goes_on: goes_on(&call, "arguments")?,
        other_kind: None,
    })
}

/// Some servers give arguments as an object.
fn goes_on(call: &Object<'_>, key: &str) -> Result<bool, Stop> {
    Ok(call.get(key).is_some_and(|raw| raw != r#""""#))
}

impl Said<'_> {
    /// What the call needs that it has not.
    fn forbidden_by(&self, offered: &Offered) -> Option<String> {
        match &self.other_kind {
            // A client may go by its name all the same.
            Some(kind) => offered
                .forbids_hosted(kind)
                .or_else(|| offered.forbids_name_of_hosted(&self.names)),
            None => offered.forbids_named(&self.names),
        }
    }
}

/// The calls of one message that are kept, and whether any went.
struct Judged<'a> {
    tool_calls: Option<Vec<&'a str>>,
    keeps_function_call: bool,
    cut: Vec<String>,
    kept: usize,
}

fn judge<'a>(offered: &Offered, holder: &Object<'a>, place: &str) -> Result<Judged<'a>, Stop> {
    let mut judged = Judged {
        tool_calls: None,
        keeps_function_call: false,
        cut: Vec::new(),
        kept: 0,
    };
    stray::none_in(holder, &JUDGED_IN_MESSAGE)?;
    let allows = |said: &Said<'_>, judged: &mut Judged<'a>, at: String| {
        let too_many = (offered.one_call && judged.kept > 0).then(|| PARALLEL.to_owned());
        match said.forbidden_by(offered).or(too_many) {
            None => {
                judged.kept += 1;
                Ok(true)
            }
            Some(capability) => {
                offered.forbidden(capability)?;
                judged.cut.push(at);
                Ok(false)
            }
        }
    };
    if let Some(calls) = holder.list("tool_calls")? {
        let mut left = Vec::new();
        for (at, raw) in calls.into_iter().enumerate() {
            if allows(
                &tool_call(raw)?,
                &mut judged,
                format!("{place}.tool_calls[{at}]"),
            )? {
                left.push(raw);
            }
        }
        judged.tool_calls = Some(left);
    }
    if let Some(raw) = holder.get("function_call") {
        let at = format!("{place}.function_call");
        judged.keeps_function_call = allows(&function_call(raw)?, &mut judged, at)?;
    }
    Ok(judged)
}

impl Judged<'_> {
    fn rewrite(&self, holder: &Object<'_>) -> String {
        holder.rewritten(|key, _| match key {
            "tool_calls" => match self.tool_calls.as_deref() {
                Some([]) => Change::Goes,
                Some(left) => Change::Becomes(joined(left)),
                None => Change::Stays,
            },
            "function_call" if !self.keeps_function_call => Change::Goes,
            _ => Change::Stays,
        })
    }
}

/// The reason why a choice ended, once it has no call any more.
fn without_calls(reason: &str) -> Option<String> {
    matches!(reason, r#""tool_calls""# | r#""function_call""#).then(|| r#""stop""#.to_owned())
}

/// A whole answer: again where something was cut out, and from where.
pub(super) fn plain(offered: &Offered, text: &str) -> Result<(Option<String>, Vec<String>), Stop> {
    let document = Object::read(text)?;
    stray::none_in(&document, &JUDGED_IN_ANSWER)?;
    let mut places = Vec::new();
    let mut choices = Vec::new();
    for (at, raw) in document
        .list("choices")?
        .unwrap_or_default()
        .into_iter()
        .enumerate()
    {
        let choice = Object::read(raw)?;
        stray::none_in(&choice, &JUDGED_IN_CHOICE)?;
        let (mut kept, before) = (0, places.len());
        let mut holders: [Option<String>; 2] = [None, None];
        for (holder, name) in holders.iter_mut().zip(HOLDERS) {
            let Some(message) = choice.object(name)? else {
                continue;
            };
            let judged = judge(offered, &message, &format!("choices[{at}].{name}"))?;
            kept += judged.kept;
            if !judged.cut.is_empty() {
                *holder = Some(judged.rewrite(&message));
            }
            places.extend(judged.cut);
        }
        choices.push(if places.len() == before {
            Cow::Borrowed(raw)
        } else {
            Cow::Owned(choice.rewritten(|key, raw| match key {
                "message" => Change::of(holders[0].take()),
                "delta" => Change::of(holders[1].take()),
                "finish_reason" if kept == 0 => Change::of(without_calls(raw)),
                _ => Change::Stays,
            }))
        });
    }
    if places.is_empty() {
        return Ok((None, places));
    }
    let rewritten = document.rewritten(|key, _| match key {
        "choices" => Change::Becomes(joined(&choices)),
        _ => Change::Stays,
    });
    Ok((Some(rewritten), places))
}

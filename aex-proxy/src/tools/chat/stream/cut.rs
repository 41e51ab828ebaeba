//! An event of the chat route without the calls that were cut out of it.

use bytes::Bytes;

use super::super::super::Stop;
use super::super::super::event::{self, Data};
use super::super::super::json::{Change, Object, joined};
use super::super::{HOLDERS, without_calls};
use super::{Held, Stream, Verdict};

impl Stream {
    /// An event as the client gets it, or nothing when nothing of it is left.
    pub(super) fn passed(&self, held: Held) -> Result<Option<Bytes>, Stop> {
        let touched = !held.calls.is_empty() || held.ends;
        if !touched || self.choices.values().all(|choice| choice.cut == 0) {
            return Ok(Some(held.event));
        }
        let Data::Json(json) = event::data(&held.event)? else {
            return Ok(Some(held.event));
        };
        let mut calls = held.calls.iter().copied();
        let document = Object::read(&json)?;
        let (mut changed, mut empty) = (false, document.get("usage").is_none());
        let mut choices = Vec::new();
        let list = document.list("choices")?.unwrap_or_default();
        for (at, raw) in list.into_iter().enumerate() {
            let rewritten = self.choice(raw, at as u64, &mut calls)?;
            empty &= rewritten.as_ref().is_some_and(|choice| choice.says_nothing);
            changed |= rewritten.is_some();
            choices.push(rewritten.map_or_else(|| raw.to_owned(), |choice| choice.text));
        }
        if !changed {
            return Ok(Some(held.event));
        }
        if empty {
            return Ok(None);
        }
        let json = document.rewritten(|key, _| match key {
            "choices" => Change::Becomes(joined(&choices)),
            _ => Change::Stays,
        });
        Ok(Some(event::with_data(&held.event, &json)))
    }

    /// A choice without what was cut out of it; nothing where it stays as it is.
    fn choice(
        &self,
        raw: &str,
        at: u64,
        calls: &mut impl Iterator<Item = usize>,
    ) -> Result<Option<Rewritten>, Stop> {
        let choice = Object::read(raw)?;
        let index = choice.number("index")?.unwrap_or(at);
        let mut holders: [Option<String>; 2] = [None, None];
        let mut says_nothing = choice.get("finish_reason").is_none();
        for (rewritten, name) in holders.iter_mut().zip(HOLDERS) {
            if let Some(holder) = choice.object(name)? {
                *rewritten = self.holder(&holder, index, calls)?;
                says_nothing &= rewritten.as_deref() == Some("{}");
            }
        }
        let state = self.choices.get(&index);
        let ended = state.is_some_and(|state| state.kept == 0 && state.cut > 0);
        let reason = (choice.get("finish_reason"))
            .and_then(without_calls)
            .filter(|_| ended);
        if holders.iter().all(Option::is_none) && reason.is_none() {
            return Ok(None);
        }
        let text = choice.rewritten(|key, _| match key {
            "message" => Change::of(holders[0].take()),
            "delta" => Change::of(holders[1].take()),
            "finish_reason" => Change::of(reason.clone()),
            _ => Change::Stays,
        });
        Ok(Some(Rewritten { text, says_nothing }))
    }

    /// A message's fragment without what was cut, and with the indexes that are left.
    fn holder(
        &self,
        holder: &Object<'_>,
        choice: u64,
        calls: &mut impl Iterator<Item = usize>,
    ) -> Result<Option<String>, Stop> {
        let list = holder.list("tool_calls")?;
        let (mut left, mut changed) = (Vec::new(), false);
        for raw in list.iter().flatten() {
            let at = calls.next().ok_or(Stop::Unreadable)?;
            if self.calls[at].verdict == Verdict::Cut {
                changed = true;
                continue;
            }
            let renumbered = self.renumbered(raw, choice)?;
            changed |= renumbered.is_some();
            left.push(renumbered.unwrap_or_else(|| (*raw).to_owned()));
        }
        let mut cuts_alone = false;
        if holder.get("function_call").is_some() {
            let at = calls.next().ok_or(Stop::Unreadable)?;
            cuts_alone = self.calls[at].verdict == Verdict::Cut;
        }
        if !changed && !cuts_alone {
            return Ok(None);
        }
        Ok(Some(holder.rewritten(|key, _| match key {
            "tool_calls" if changed && left.is_empty() => Change::Goes,
            "tool_calls" if changed => Change::Becomes(joined(&left)),
            "function_call" if cuts_alone => Change::Goes,
            _ => Change::Stays,
        })))
    }

    fn renumbered(&self, raw: &str, choice: u64) -> Result<Option<String>, Stop> {
        let call = Object::read(raw)?;
        let (Some(index), Some(state)) = (call.number("index")?, self.choices.get(&choice)) else {
            return Ok(None);
        };
        let before = state.gone.range(..index).count() as u64;
        Ok((before > 0).then(|| {
            call.rewritten(|key, _| match key {
                "index" => Change::Becomes((index - before).to_string()),
                _ => Change::Stays,
            })
        }))
    }
}

/// A choice again.
struct Rewritten {
    text: String,
    /// Its fragment is empty, and it does not end.
    says_nothing: bool,
}

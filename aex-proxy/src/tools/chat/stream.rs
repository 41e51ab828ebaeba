//! A stream of the chat route under the rules of tools: what becomes of each call, and what waits for it.

mod cut;

use std::collections::{BTreeSet, HashMap, VecDeque};

use aex_admin_proto::tools::tool_text;
use bytes::Bytes;

use super::super::event::{self, Data};
use super::super::json::Object;
use super::super::{Offered, PARALLEL, Stop, stray};
use super::{
    HOLDERS, JUDGED_IN_ANSWER, JUDGED_IN_CHOICE, JUDGED_IN_MESSAGE, Said, function_call, tool_call,
};

/// Most that is held back while a name is not known.
const MAX_HELD_BYTES: usize = 1024 * 1024;
/// Most calls and choices of one stream.
const MAX_CALLS: usize = 1024;
/// No name that was offered is longer.
const MAX_NAME_BYTES: usize = 128;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Its name may go on.
    Open,
    Allowed,
    Cut,
}

/// Where a call stands in its choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Slot {
    Index(u64),
    /// `function_call`.
    Alone,
}

#[derive(Debug)]
struct Call {
    choice: u64,
    slot: Slot,
    id: String,
    /// Its pieces, one after another; a whole name that is only said again is there once.
    name: String,
    in_pieces: bool,
    verdict: Verdict,
}

#[derive(Debug, Default)]
struct Choice {
    kept: usize,
    cut: usize,
    /// Indexes at which no call is left.
    gone: BTreeSet<u64>,
}

#[derive(Debug)]
struct Held {
    event: Bytes,
    /// Of which calls it has fragments, in their order.
    calls: Vec<usize>,
    /// A choice ends in it.
    ends: bool,
}

#[derive(Debug)]
pub struct Stream {
    offered: Offered,
    calls: Vec<Call>,
    current: HashMap<(u64, Slot), usize>,
    choices: HashMap<u64, Choice>,
    held: VecDeque<Held>,
    held_bytes: usize,
    /// The call that ends the stream, and what it would need.
    stopped: Option<(usize, String)>,
}

impl Stream {
    pub(in super::super) fn new(offered: Offered) -> Self {
        Self {
            offered,
            calls: Vec::new(),
            current: HashMap::new(),
            choices: HashMap::new(),
            held: VecDeque::new(),
            held_bytes: 0,
            stopped: None,
        }
    }

    pub(in super::super) fn event(
        &mut self,
        event: Bytes,
        out: &mut Vec<Bytes>,
    ) -> Result<(), Stop> {
        let (mut calls, mut ends) = (Vec::new(), false);
        match event::data(&event)? {
            Data::None => {}
            Data::Done => self.decide_open(None),
            Data::Json(json) => ends = self.take_in(&json, &mut calls)?,
        }
        if self.held.is_empty() && calls.is_empty() && !ends {
            out.push(event);
            return Ok(());
        }
        self.held_bytes += event.len();
        self.held.push_back(Held { event, calls, ends });
        self.flush(out)?;
        if self.held_bytes > MAX_HELD_BYTES {
            return Err(Stop::Unreadable);
        }
        Ok(())
    }

    pub(in super::super) fn end(&mut self, out: &mut Vec<Bytes>) -> Result<(), Stop> {
        self.decide_open(None);
        self.flush(out)
    }

    /// Notes what a chunk says of calls. Whether a choice ends in it.
    fn take_in(&mut self, json: &str, calls: &mut Vec<usize>) -> Result<bool, Stop> {
        let document = Object::read(json)?;
        stray::none_in(&document, &JUDGED_IN_ANSWER)?;
        let mut ends = false;
        let choices = document.list("choices")?.unwrap_or_default();
        for (at, raw) in choices.into_iter().enumerate() {
            let choice = Object::read(raw)?;
            stray::none_in(&choice, &JUDGED_IN_CHOICE)?;
            let index = choice.number("index")?.unwrap_or(at as u64);
            for name in HOLDERS {
                let Some(holder) = choice.object(name)? else {
                    continue;
                };
                stray::none_in(&holder, &JUDGED_IN_MESSAGE)?;
                let list = holder.list("tool_calls")?.unwrap_or_default();
                for (position, raw) in list.into_iter().enumerate() {
                    let said = tool_call(raw)?;
                    let slot = Slot::Index(said.index.unwrap_or(position as u64));
                    calls.push(self.fragment(index, slot, &said)?);
                }
                if let Some(raw) = holder.get("function_call") {
                    let said = function_call(raw)?;
                    calls.push(self.fragment(index, Slot::Alone, &said)?);
                }
            }
            // Some say an empty reason until there is one.
            if choice
                .get("finish_reason")
                .is_some_and(|raw| raw != r#""""#)
            {
                ends = true;
                self.decide_open(Some(index));
            }
        }
        Ok(ends)
    }

    /// Takes a fragment into its call.
    fn fragment(&mut self, choice: u64, slot: Slot, said: &Said<'_>) -> Result<usize, Stop> {
        let at = self.call_of(choice, slot, said)?;
        if self.calls[at].verdict == Verdict::Cut {
            return Ok(at);
        }
        let call = &mut self.calls[at];
        if !said.names.is_empty() {
            let ambiguous = said.names.len() > 1;
            for name in &said.names {
                let again = call.name == **name && self.offered.names.contains(&**name);
                let late = call.verdict == Verdict::Allowed;
                if again && !ambiguous && !late {
                    continue;
                }
                call.in_pieces |= !call.name.is_empty();
                call.name.push_str(name);
            }
            let late = call.verdict == Verdict::Allowed;
            if late || ambiguous || call.name.len() > MAX_NAME_BYTES {
                let needed = tool_text(&call.name);
                self.judge(at, Some(needed));
                return Ok(at);
            }
        }
        if let Some(kind) = &said.other_kind {
            // A client may go by the name all the same, this fragment's or an earlier one's.
            let name = self.calls[at].name.as_str();
            let needed = (self.offered.forbids_hosted(kind))
                .or_else(|| self.offered.forbids_name_of_hosted(&[name]))
                .or_else(|| self.in_pieces(at));
            self.judge(at, needed);
        } else if said.goes_on {
            self.decide(at);
        }
        Ok(at)
    }

    /// The call that a fragment belongs to. Some servers give every call the same index; then a new
    /// id with a name begins another.
    fn call_of(&mut self, choice: u64, slot: Slot, said: &Said<'_>) -> Result<usize, Stop> {
        if let Some(&at) = self.current.get(&(choice, slot)) {
            let call = &mut self.calls[at];
            if call.id.is_empty() {
                call.id = said.id.clone().into_owned();
            }
            let is_new = !said.id.is_empty() && call.id != said.id && !said.names.is_empty();
            if !is_new {
                return Ok(at);
            }
            self.decide(at);
        }
        if self.calls.len() == MAX_CALLS {
            return Err(Stop::Unreadable);
        }
        let at = self.calls.len();
        self.calls.push(Call {
            choice,
            slot,
            id: said.id.clone().into_owned(),
            name: String::new(),
            in_pieces: false,
            verdict: Verdict::Open,
        });
        self.current.insert((choice, slot), at);
        Ok(at)
    }

    /// Names do not go on any more: in one choice, or in all.
    fn decide_open(&mut self, choice: Option<u64>) {
        for at in 0..self.calls.len() {
            if choice.is_none_or(|choice| self.calls[at].choice == choice) {
                self.decide(at);
            }
        }
    }

    fn decide(&mut self, at: usize) {
        let call = &self.calls[at];
        if call.verdict != Verdict::Open {
            return;
        }
        let kept = self
            .choices
            .get(&call.choice)
            .map_or(0, |choice| choice.kept);
        let too_many = (self.offered.one_call && kept > 0).then(|| PARALLEL.to_owned());
        let needed = (self.offered.forbids_named(&[&call.name]))
            .or_else(|| self.in_pieces(at))
            .or(too_many);
        self.judge(at, needed);
    }

    /// What a call would need whose name came in pieces, though together they are a name that was
    /// offered.
    fn in_pieces(&self, at: usize) -> Option<String> {
        let call = &self.calls[at];
        let text = || format!("{} with its name in pieces", tool_text(&call.name));
        call.in_pieces.then(text)
    }

    /// A call's verdict, by what it needs that it has not.
    fn judge(&mut self, at: usize, needed: Option<String>) {
        let call = &mut self.calls[at];
        let choice = self.choices.entry(call.choice).or_default();
        match needed {
            None if call.verdict == Verdict::Open => {
                call.verdict = Verdict::Allowed;
                choice.kept += 1;
            }
            None => {}
            Some(_) if call.verdict == Verdict::Cut => {}
            Some(capability) => {
                // What was let go already cannot be taken back, nor cut out: that ends the stream.
                let sent = call.verdict == Verdict::Allowed;
                if self.offered.refuses || sent {
                    self.stopped.get_or_insert((at, capability));
                }
                call.verdict = Verdict::Cut;
                choice.cut += 1;
                self.note_gone(at);
            }
        }
    }

    /// Notes that no call is left at an index, where that is so.
    fn note_gone(&mut self, at: usize) {
        let (choice, slot) = (self.calls[at].choice, self.calls[at].slot);
        let Slot::Index(index) = slot else { return };
        let mut here = self
            .calls
            .iter()
            .filter(|call| (call.choice, call.slot) == (choice, slot));
        let none_left = here.all(|call| call.verdict == Verdict::Cut);
        if let Some(choice) = self.choices.get_mut(&choice).filter(|_| none_left) {
            choice.gone.insert(index);
        }
    }

    /// Passes on what is decided, in order.
    fn flush(&mut self, out: &mut Vec<Bytes>) -> Result<(), Stop> {
        while let Some(held) = self.held.front() {
            let verdicts = || held.calls.iter().map(|&at| self.calls[at].verdict);
            if verdicts().any(|verdict| verdict == Verdict::Open) {
                break;
            }
            let forbidden = verdicts().any(|verdict| verdict == Verdict::Cut);
            if self.stopped.is_some() && forbidden {
                break;
            }
            let Some(held) = self.held.pop_front() else {
                break;
            };
            self.held_bytes -= held.event.len();
            out.extend(self.passed(held)?);
        }
        match &self.stopped {
            Some((_, capability)) => Err(Stop::Forbidden(capability.clone())),
            None => Ok(()),
        }
    }
}

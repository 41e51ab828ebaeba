//! An exchange whose token has rules of tools: what of the answer the client gets.

use aex_admin_proto::Refusal;
use aex_admin_proto::worker::Route;
use bytes::Bytes;

use super::{Collected, Exchange};
use crate::answer::Fault;
use crate::tools::{Offered, Plain, Stop, Stream};

#[derive(Debug)]
pub(super) struct Governed {
    route: Route,
    offered: Offered,
    stream: Stream,
    /// The client was told why its stream ends; the provider is read on for the usage.
    muted: bool,
    /// Calls that were cut out of a plain answer, by place.
    left_out: Vec<String>,
}

/// An answer that must be judged and cannot be.
pub(super) fn unreadable() -> Fault {
    Fault::Upstream(
        "the provider's answer is not in a form in which its tool calls can be judged, as the rules \
         of this token need it"
            .into(),
    )
}

fn fault_of(stop: Stop) -> Fault {
    match stop {
        Stop::Forbidden(capability) => Fault::Refused(Refusal::CapabilityNotAllowed { capability }),
        Stop::Unreadable => unreadable(),
    }
}

impl Governed {
    /// Nothing on a route whose answers have no calls.
    pub(super) fn new(route: Route, offered: Offered) -> Option<Self> {
        let stream = Stream::new(route, offered.clone())?;
        Some(Self {
            route,
            offered,
            stream,
            muted: false,
            left_out: Vec::new(),
        })
    }
}

impl Exchange {
    /// The client has its last event, whatever the provider still sends.
    #[must_use]
    pub fn is_over_for_the_client(&self) -> bool {
        self.governed
            .as_ref()
            .is_some_and(|governed| governed.muted)
    }

    /// Calls that were cut out of a plain answer, by place.
    #[must_use]
    pub fn left_out(&self) -> &[String] {
        self.governed
            .as_ref()
            .map_or(&[], |governed| &governed.left_out)
    }

    /// What the client gets of these events: an error at once where they go too far.
    pub(super) fn govern(&mut self, events: Vec<Bytes>, at_end: bool) -> Option<Bytes> {
        let governed = self.governed.as_mut()?;
        let mut out = Vec::new();
        let events = events.into_iter().filter(|event| !event.is_empty());
        let mut passed = { events }.try_for_each(|event| governed.stream.event(event, &mut out));
        if at_end && passed.is_ok() {
            passed = governed.stream.end(&mut out);
        }
        if let Err(stop) = passed {
            governed.muted = true;
            let fault = fault_of(stop);
            out.push(fault.row().event());
            self.broken = Some(fault);
        }
        match out.len() {
            0 => None,
            1 => out.pop(),
            _ => Some(out.concat().into()),
        }
    }

    /// Judges a plain answer that came whole.
    pub(super) fn govern_body(&mut self) {
        let Some(governed) = &mut self.governed else {
            return;
        };
        match governed.offered.plain(governed.route, self.body.bytes()) {
            Ok(Plain::AsItIs) => {}
            Ok(Plain::Without { body, places }) => {
                self.body = Collected::default();
                self.body.push(body.into());
                governed.left_out = places;
            }
            Err(stop) => self.broken = Some(fault_of(stop)),
        }
    }
}

#[cfg(test)]
mod tests;

//! From a request that may go by every other rule to what policies are asked about it.

use aex_admin_proto::scope::ScopeKind;
use aex_admin_proto::worker::Facts;
use jiff::tz::TimeZone;

use super::{Ask, Judged, KERNEL_GROUP, Policies, PolicyTime};
use crate::core::capabilities::{hosted, without_stripped};
use crate::core::hold::Terms;
use crate::core::money::ceil_micro;
use crate::core::period;
use crate::core::reserve::Caller;

/// A request whose bounds and hold are final.
#[derive(Clone, Copy)]
pub struct ToJudge<'a> {
    pub caller: &'a Caller,
    pub facts: &'a Facts,
    pub terms: &'a Terms,
    /// It brings the agent's own provider key.
    pub own_key: bool,
    /// Where no scope of the path has one.
    pub time_zone: &'a TimeZone,
    pub wall_ms: i64,
}

impl Policies {
    /// As [`Self::judge`]. What is cut out of a request is not asked for.
    pub fn judge_request(&self, request: &ToJudge<'_>) -> Judged {
        if self.is_empty() {
            return Judged::default();
        }
        let terms = request.terms;
        let above = Above::of(request.caller);
        let facts: &Facts = &without_stripped(&terms.tools, request.facts);
        let named = facts.tools.iter().map(String::as_str);
        let tools: Vec<&str> = named.chain(hosted(facts)).collect();
        self.judge(&Ask {
            agent: above.agent,
            groups: &above.groups,
            route: terms.route,
            model: &terms.model,
            provider: &terms.provider,
            input_tokens: terms.input_tokens,
            output_tokens: terms.output_tokens(),
            cost_micro: ceil_micro(i128::from(terms.hold_pico)),
            stream: facts.stream,
            images: facts.images,
            tools: &tools,
            own_key: request.own_key,
            time: PolicyTime::at(&zone(request), request.wall_ms),
            session: facts.session.as_deref(),
            labels: &above.labels,
            run: above.run,
        })
    }
}

/// In which a policy's hours and days are: the one of the token's own scope.
fn zone(request: &ToJudge<'_>) -> TimeZone {
    let scopes = request.caller.path.iter();
    let mut named = scopes.filter_map(|scope| scope.grant.settings.time_zone.as_deref());
    let named = named.next().and_then(period::zone);
    named.unwrap_or_else(|| request.time_zone.clone())
}

/// What policies know of who asks.
struct Above<'a> {
    agent: &'a str,
    /// The nearest first, the kernel last.
    groups: Vec<&'a str>,
    labels: Vec<&'a str>,
    run: bool,
}

impl<'a> Above<'a> {
    fn of(caller: &'a Caller) -> Self {
        let mut above = Self {
            agent: "",
            groups: Vec::new(),
            labels: Vec::new(),
            run: false,
        };
        for scope in &caller.path {
            match scope.kind {
                ScopeKind::Agent => above.agent = &scope.name,
                ScopeKind::Group => above.groups.push(&scope.name),
                ScopeKind::Run => above.run = true,
                ScopeKind::Kernel => above.groups.push(KERNEL_GROUP),
            }
            let labels = scope.grant.settings.labels.iter().flatten();
            above.labels.extend(labels.map(String::as_str));
        }
        above
    }
}

//! Policies on the way of a request: what is asked of them, and what becomes of their answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use aex_admin_proto::Refusal;
use aex_admin_proto::explain::{Look, Verdict};
use aex_admin_proto::operator::PolicyCounts;
use aex_admin_proto::scope::ScopeKind;
use aex_admin_proto::ticket::KeyMode;
use aex_admin_proto::worker::{Facts, ReserveParams};
use jiff::tz::TimeZone;

use super::Writer;
use super::requests::Manner;
use crate::core::capabilities::{hosted, without_stripped};
use crate::core::hold::Terms;
use crate::core::money::ceil_micro;
use crate::core::period;
use crate::core::reserve::{Caller, Now};
use crate::policy::{Ask, Denial, KERNEL_GROUP, MAX_POLICIES, Policies, PolicyTime};

/// Most policies that an answer's head warns of.
const MAX_WARNINGS: usize = 8;
/// Most policies that are counted by name: reloads bring others.
const MAX_COUNTED: usize = 2 * MAX_POLICIES;

impl Writer {
    /// Policies that come into force with the writer's start.
    #[must_use]
    pub fn with_policies(mut self, policies: Arc<Policies>) -> Self {
        self.policies = policies;
        self
    }

    /// Judges a request that may go by every other rule: its bounds and its hold are final. Terms
    /// are told which policies warn of it.
    pub(super) fn judge(
        &self,
        caller: &Caller,
        params: &ReserveParams,
        terms: &mut Terms,
        manner: Manner<'_>,
        now: Now,
    ) -> Result<(), Refusal> {
        if self.policies.is_empty() {
            return Ok(());
        }
        let above = Above::of(caller);
        // What is cut out is not asked for.
        let facts: &Facts = &without_stripped(&terms.tools, &params.facts);
        let tools: Vec<&str> = facts
            .tools
            .iter()
            .map(String::as_str)
            .chain(hosted(facts))
            .collect();
        let judged = self.policies.judge(&Ask {
            agent: above.agent,
            groups: &above.groups,
            route: params.route,
            model: &terms.model,
            provider: &terms.provider,
            input_tokens: terms.input_tokens,
            output_tokens: terms.output_tokens(),
            cost_micro: ceil_micro(i128::from(terms.hold_pico)),
            stream: facts.stream,
            images: facts.images,
            tools: &tools,
            own_key: terms.key == KeyMode::Own,
            time: PolicyTime::at(&self.zone(caller), now.wall_ms),
            session: facts.session.as_deref(),
            labels: &above.labels,
            run: above.run,
        });
        let found = [
            (judged.denied.as_slice(), Outcome::Denied),
            (&judged.warned, Outcome::Warned),
            (&judged.shadowed, Outcome::Shadowed),
        ];
        for (denials, outcome) in found {
            for denial in denials {
                if manner.counts {
                    self.count_policy(denial, outcome);
                }
                if let Some(trail) = manner.trail {
                    trail.note(look(denial, outcome));
                }
            }
        }
        if let (Some(trail), None) = (manner.trail, &judged.denied) {
            trail.note(none_forbids(self.policies.len()));
        }
        match judged.denied {
            Some(Denial { policy, reason, .. }) => Err(Refusal::PolicyForbids { policy, reason }),
            None => {
                let named = |denial: Denial| format!("policy {}", denial.policy);
                let warned = judged.warned.into_iter().take(MAX_WARNINGS);
                terms.warned.extend(warned.map(named));
                let shadowed = judged.shadowed.into_iter().take(MAX_WARNINGS);
                terms.shadowed.extend(shadowed.map(named));
                Ok(())
            }
        }
    }

    /// In which a policy's hours and days are: the one of the token's own scope.
    fn zone(&self, caller: &Caller) -> TimeZone {
        let mut named = caller
            .path
            .iter()
            .filter_map(|scope| scope.grant.settings.time_zone.as_deref());
        let named = named.next().and_then(period::zone);
        named.unwrap_or_else(|| self.config.time_zone.clone())
    }

    fn count_policy(&self, denial: &Denial, outcome: Outcome) {
        let mut errors = 0;
        self.shared.count(|counters| {
            if let Some(counts) = counted(&mut counters.policies, &denial.policy) {
                *outcome.of(counts) += 1;
                counts.errors += u64::from(denial.error);
                errors = counts.errors;
            }
        });
        // The first, the second, the fourth: an agent that asks again and again fills no log.
        if denial.error && errors.is_power_of_two() {
            tracing::error!(
                policy = denial.policy,
                errors,
                "a policy could not be evaluated"
            );
        }
    }
}

/// A policy that matches, for who asks why.
fn look(denial: &Denial, outcome: Outcome) -> Look {
    Look {
        scope: None,
        rule: format!("policy {}", denial.policy),
        verdict: match outcome {
            Outcome::Denied => Verdict::Refuses,
            Outcome::Warned => Verdict::Warns,
            Outcome::Shadowed => Verdict::Shadows,
        },
        figures: None,
        why: denial.reason.clone(),
    }
}

fn none_forbids(policies: usize) -> Look {
    Look {
        scope: None,
        rule: "policies".to_owned(),
        verdict: Verdict::Passes,
        figures: None,
        why: Some(format!("none of {policies} forbids it")),
    }
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

#[derive(Clone, Copy)]
enum Outcome {
    Denied,
    Warned,
    Shadowed,
}

impl Outcome {
    fn of(self, counts: &mut PolicyCounts) -> &mut u64 {
        match self {
            Self::Denied => &mut counts.denied,
            Self::Warned => &mut counts.warned,
            Self::Shadowed => &mut counts.shadowed,
        }
    }
}

fn counted<'a>(
    counts: &'a mut BTreeMap<String, PolicyCounts>,
    policy: &str,
) -> Option<&'a mut PolicyCounts> {
    if counts.len() >= MAX_COUNTED && !counts.contains_key(policy) {
        return None;
    }
    Some(counts.entry(policy.to_owned()).or_default())
}

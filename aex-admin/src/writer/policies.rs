//! Policies on the way of a request: what is asked of them, and what becomes of their answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use aex_admin_proto::Refusal;
use aex_admin_proto::explain::{Look, Verdict};
use aex_admin_proto::operator::PolicyCounts;
use aex_admin_proto::ticket::KeyMode;
use aex_admin_proto::tools::ToolRules;
use aex_admin_proto::worker::{Facts, ReserveParams};

use super::Writer;
use super::requests::Manner;
use crate::core::capabilities::{check_rules, without_stripped};
use crate::core::hold::Terms;
use crate::core::reserve::{Caller, Now};
use crate::policy::{Denial, MAX_POLICIES, Policies, ToJudge};

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
        let judged = self.policies.judge_request(&ToJudge {
            caller,
            facts: &params.facts,
            terms,
            own_key: terms.key == KeyMode::Own,
            time_zone: &self.config.time_zone,
            wall_ms: now.wall_ms,
        });
        // What denies comes last: it is what stops the request.
        let found = [
            (judged.warned.as_slice(), Outcome::Warned),
            (&judged.shadowed, Outcome::Shadowed),
            (judged.denied.as_slice(), Outcome::Denied),
        ];
        for (denials, outcome) in found {
            for denial in denials {
                if manner.counts {
                    self.count_policy(denial, outcome);
                }
                if let Some(trail) = manner.trail {
                    trail.note(denial.look(outcome.verdict()));
                }
            }
        }
        if let (Some(trail), None) = (manner.trail, &judged.denied) {
            trail.note(none_forbids(self.policies.len()));
        }
        match judged.denied {
            Some(denial) => Err(denial.into()),
            None => {
                if judged.governs_tools {
                    govern(&params.facts, terms)?;
                }
                let named = |denial: Denial| format!("policy {}", denial.policy);
                let warned = judged.warned.into_iter().take(MAX_WARNINGS);
                terms.warned.extend(warned.map(named));
                let shadowed = judged.shadowed.into_iter().take(MAX_WARNINGS);
                terms.shadowed.extend(shadowed.map(named));
                Ok(())
            }
        }
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

/// Where policies are asked about tools, none may come in by a door that is not looked at, nor be called
/// that was not offered.
fn govern(facts: &Facts, terms: &mut Terms) -> Result<(), Refusal> {
    let rules = ToolRules::as_offered();
    check_rules(&rules, &without_stripped(&terms.tools, facts))?;
    terms.tools.push(rules);
    Ok(())
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

#[derive(Clone, Copy)]
enum Outcome {
    Denied,
    Warned,
    Shadowed,
}

impl Outcome {
    fn verdict(self) -> Verdict {
        match self {
            Self::Denied => Verdict::Refuses,
            Self::Warned => Verdict::Warns,
            Self::Shadowed => Verdict::Shadows,
        }
    }

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

//! Policies on the way of a request: what is asked of them, and what becomes of their answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use aex_admin_proto::Refusal;
use aex_admin_proto::operator::PolicyCounts;
use aex_admin_proto::ticket::KeyMode;
use aex_admin_proto::worker::ReserveParams;

use super::Writer;
use crate::core::hold::Terms;
use crate::core::money::ceil_micro;
use crate::core::reserve::{Now, hosted_tools};
use crate::ledger::AgentRow;
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

    /// Judges a request that may go by every other rule: its bounds and its hold are final. Answers
    /// which policies warn of it.
    pub(super) fn judge(
        &self,
        agent: &AgentRow,
        params: &ReserveParams,
        terms: &Terms,
        now: Now,
    ) -> Result<Vec<String>, Refusal> {
        if self.policies.is_empty() {
            return Ok(Vec::new());
        }
        let facts = &params.facts;
        let tools: Vec<&str> = facts
            .tools
            .iter()
            .map(String::as_str)
            .chain(hosted_tools(facts))
            .collect();
        let judged = self.policies.judge(&Ask {
            agent: &agent.name,
            groups: &[KERNEL_GROUP],
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
            time: PolicyTime::utc(now.wall_ms),
            session: facts.session.as_deref(),
            labels: &[],
            run: false,
        });
        let counted = [
            (judged.denied.as_slice(), Outcome::Denied),
            (&judged.warned, Outcome::Warned),
            (&judged.shadowed, Outcome::Shadowed),
        ];
        for (denials, outcome) in counted {
            for denial in denials {
                self.count_policy(denial, outcome);
            }
        }
        match judged.denied {
            Some(Denial { policy, reason, .. }) => Err(Refusal::PolicyForbids { policy, reason }),
            None => Ok(judged
                .warned
                .into_iter()
                .take(MAX_WARNINGS)
                .map(|denial| denial.policy)
                .collect()),
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

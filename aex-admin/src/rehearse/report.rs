//! What is told of a rehearsal: sums, and a line for each agent and rule. Bounded.

use std::collections::BTreeMap;

use aex_admin_proto::Refusal;
use aex_admin_proto::explain::{Look, LookScope};
use aex_admin_proto::rehearsal::{OnTrial, RefusedBy, Tally};

use crate::core::money::ceil_micro;

/// Most lines of each list.
pub(super) const MAX_LINES: usize = 1000;

/// A sum while it grows.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sum {
    pub requests: u64,
    pub cost_pico: i128,
}

impl Sum {
    pub(super) fn tally(&self) -> Tally {
        Tally {
            requests: self.requests,
            cost_micro: ceil_micro(self.cost_pico),
        }
    }
}

type RefusedKey = (String, Option<LookScope>, String);
type TrialKey = (String, String, &'static str);

struct Refusals {
    sum: Sum,
    first_at_ms: i64,
    last_at_ms: i64,
    first_hold: String,
    reason: String,
}

#[derive(Default)]
pub(super) struct Report {
    pub requests: Sum,
    pub refused: Sum,
    pub waited: Sum,
    pub refused_then: u64,
    pub tools_unrecorded: u64,
    pub unreadable: u64,
    pub until_ms: i64,
    pub left_out: u64,
    refusals: BTreeMap<RefusedKey, Refusals>,
    on_trial: BTreeMap<TrialKey, Sum>,
}

/// In which sums a request counts, once its cost is known.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    pub waited: bool,
    pub refused: bool,
    pub refusal: Option<RefusedKey>,
    pub trials: Vec<TrialKey>,
}

impl Report {
    /// A request that would have been refused.
    pub(super) fn refuse(
        &mut self,
        agent: &str,
        look: &Look,
        refusal: &Refusal,
        at_ms: i64,
        hold: &str,
    ) -> Counts {
        self.refused.requests += 1;
        let mut counts = Counts {
            refused: true,
            ..Counts::default()
        };
        let key = (agent.to_owned(), look.scope.clone(), look.rule.clone());
        if self.refusals.len() >= MAX_LINES && !self.refusals.contains_key(&key) {
            self.left_out += 1;
            return counts;
        }
        let line = self
            .refusals
            .entry(key.clone())
            .or_insert_with(|| Refusals {
                sum: Sum::default(),
                first_at_ms: at_ms,
                last_at_ms: at_ms,
                first_hold: hold.to_owned(),
                reason: refusal.to_string(),
            });
        line.sum.requests += 1;
        line.last_at_ms = at_ms;
        counts.refusal = Some(key);
        counts
    }

    /// A rule on trial that a request would have passed.
    pub(super) fn on_trial(
        &mut self,
        counts: &mut Counts,
        agent: &str,
        rule: &str,
        mode: &'static str,
    ) {
        let key = (agent.to_owned(), rule.to_owned(), mode);
        if self.on_trial.len() >= MAX_LINES && !self.on_trial.contains_key(&key) {
            self.left_out += 1;
            return;
        }
        self.on_trial.entry(key.clone()).or_default().requests += 1;
        counts.trials.push(key);
    }

    /// What a request cost, or a correction of that.
    pub(super) fn cost(&mut self, counts: &Counts, cost_pico: i64) {
        let cost_pico = i128::from(cost_pico);
        self.requests.cost_pico += cost_pico;
        if counts.refused {
            self.refused.cost_pico += cost_pico;
        }
        if counts.waited {
            self.waited.cost_pico += cost_pico;
        }
        let line = counts.refusal.as_ref();
        if let Some(line) = line.and_then(|key| self.refusals.get_mut(key)) {
            line.sum.cost_pico += cost_pico;
        }
        for key in &counts.trials {
            if let Some(sum) = self.on_trial.get_mut(key) {
                sum.cost_pico += cost_pico;
            }
        }
    }

    /// Lines of refusals, the dearest first, and of rules on trial.
    pub(super) fn lines(&self) -> (Vec<RefusedBy>, Vec<OnTrial>) {
        let refusals = self.refusals.iter();
        let mut refusals: Vec<RefusedBy> = refusals
            .map(|((agent, scope, rule), line)| RefusedBy {
                agent: agent.clone(),
                scope: scope.clone(),
                rule: rule.clone(),
                tally: line.sum.tally(),
                first_at_ms: line.first_at_ms,
                last_at_ms: line.last_at_ms,
                first_hold: line.first_hold.clone(),
                reason: line.reason.clone(),
            })
            .collect();
        refusals.sort_by(|a, b| {
            let sum = |line: &RefusedBy| (line.tally.cost_micro, line.tally.requests);
            let name =
                |line: &RefusedBy| (line.agent.clone(), line.scope.clone(), line.rule.clone());
            sum(b).cmp(&sum(a)).then_with(|| name(a).cmp(&name(b)))
        });
        let on_trial = self.on_trial.iter();
        let mut on_trial: Vec<OnTrial> = on_trial
            .map(|((agent, rule, mode), sum)| OnTrial {
                agent: agent.clone(),
                rule: rule.clone(),
                mode: (*mode).to_owned(),
                tally: sum.tally(),
            })
            .collect();
        on_trial.sort_by(|a, b| {
            let name = |line: &OnTrial| (line.agent.clone(), line.rule.clone(), line.mode.clone());
            (b.tally.requests.cmp(&a.tally.requests)).then_with(|| name(a).cmp(&name(b)))
        });
        (refusals, on_trial)
    }
}

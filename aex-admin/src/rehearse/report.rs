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
    refused_lines: BTreeMap<RefusedKey, usize>,
    refusals: Vec<Refusals>,
    trial_lines: BTreeMap<TrialKey, usize>,
    on_trial: Vec<Sum>,
}

/// In which sums a request counts, once its cost is known.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub waited: bool,
    refused: bool,
    /// Its line of the refusals.
    line: Option<usize>,
}

impl Counts {
    pub(super) fn waited(waited: bool) -> Self {
        Self {
            waited,
            ..Self::default()
        }
    }
}

/// Lines of rules on trial that an open request passed.
#[derive(Debug, Default)]
pub(super) struct Trials(Vec<usize>);

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
        let line = match self.refused_lines.get(&key) {
            Some(&line) => line,
            None if self.refusals.len() >= MAX_LINES => {
                self.left_out += 1;
                return counts;
            }
            None => {
                self.refusals.push(Refusals {
                    sum: Sum::default(),
                    first_at_ms: at_ms,
                    last_at_ms: at_ms,
                    first_hold: hold.to_owned(),
                    reason: refusal.to_string(),
                });
                let line = self.refusals.len() - 1;
                self.refused_lines.insert(key, line);
                line
            }
        };
        let told = &mut self.refusals[line];
        told.sum.requests += 1;
        told.last_at_ms = at_ms;
        counts.line = Some(line);
        counts
    }

    /// A rule on trial that a request would have passed.
    pub(super) fn on_trial(
        &mut self,
        trials: &mut Trials,
        agent: &str,
        rule: &str,
        mode: &'static str,
    ) {
        let key = (agent.to_owned(), rule.to_owned(), mode);
        let line = match self.trial_lines.get(&key) {
            Some(&line) => line,
            None if self.on_trial.len() >= MAX_LINES => {
                self.left_out += 1;
                return;
            }
            None => {
                self.on_trial.push(Sum::default());
                let line = self.on_trial.len() - 1;
                self.trial_lines.insert(key, line);
                line
            }
        };
        self.on_trial[line].requests += 1;
        trials.0.push(line);
    }

    /// What a request cost, or a correction of that.
    pub(super) fn cost(&mut self, counts: Counts, cost_pico: i64) {
        let cost_pico = i128::from(cost_pico);
        self.requests.cost_pico += cost_pico;
        if counts.refused {
            self.refused.cost_pico += cost_pico;
        }
        if counts.waited {
            self.waited.cost_pico += cost_pico;
        }
        if let Some(line) = counts.line {
            self.refusals[line].sum.cost_pico += cost_pico;
        }
    }

    pub(super) fn trials_cost(&mut self, trials: &Trials, cost_pico: i64) {
        for &line in &trials.0 {
            self.on_trial[line].cost_pico += i128::from(cost_pico);
        }
    }

    /// Lines of refusals, the dearest first, and of rules on trial.
    pub(super) fn lines(&self) -> (Vec<RefusedBy>, Vec<OnTrial>) {
        let refusals = self.refused_lines.iter();
        let refusals = refusals.map(|(key, &line)| (key, &self.refusals[line]));
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
        let on_trial = self.trial_lines.iter();
        let on_trial = on_trial.map(|(key, &line)| (key, &self.on_trial[line]));
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

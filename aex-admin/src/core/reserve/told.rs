//! What a decision has to tell beside its answer: limits that were passed and are not enforced, and, for
//! who asks why, every rule that was looked at.

use std::cell::RefCell;

use aex_admin_proto::Refusal;
use aex_admin_proto::explain::{Figures, Look, LookScope, TargetLooks, Verdict};
use aex_admin_proto::limit::Mode;
use aex_admin_proto::operator::Settings;

use super::ModelFacts;
use crate::core::capabilities;
use crate::core::scope::{Bound, Scope};

/// Looks that are kept: some paths have many limits.
const MAX_LOOKS: usize = 1024;

/// Every rule that a decision looked at, in its order, target by target. On the way of a request there is
/// none, and nothing is written.
#[derive(Debug, Default)]
pub struct Trail {
    targets: RefCell<Vec<TargetLooks>>,
}

impl Trail {
    /// What comes is about this target.
    pub fn begin(&self, target: Option<&ModelFacts<'_>>) {
        self.targets.borrow_mut().push(TargetLooks {
            provider: target.map(|target| target.provider.to_owned()),
            upstream_model: target.map(|target| target.upstream_model.to_owned()),
            ..TargetLooks::default()
        });
    }

    /// What stops the decision is always kept.
    pub fn note(&self, look: Look) {
        self.of_last(|target| {
            if target.looks.len() < MAX_LOOKS || look.verdict.stops() {
                target.looks.push(look);
            }
        });
    }

    /// The target is not used.
    pub fn ended(&self, refusal: &Refusal) {
        self.of_last(|target| target.refusal = Some(refusal.clone()));
    }

    fn of_last(&self, change: impl FnOnce(&mut TargetLooks)) {
        let mut targets = self.targets.borrow_mut();
        if targets.is_empty() {
            targets.push(TargetLooks::default());
        }
        if let Some(last) = targets.last_mut() {
            change(last);
        }
    }

    /// The rule that stopped the target whose refusal is told. Where several are refused alike, the first.
    #[must_use]
    pub fn decisive(&self, refusal: &Refusal) -> Look {
        let targets = self.targets.borrow();
        let told = |target: &&TargetLooks| target.refusal.as_ref() == Some(refusal);
        let target = targets.iter().find(told).or_else(|| targets.first());
        let mut looks = target.iter().flat_map(|target| target.looks.iter().rev());
        let stops = looks.find(|look| look.verdict.stops());
        stops.cloned().unwrap_or_else(|| Look {
            rule: "the request itself".to_owned(),
            why: Some(refusal.to_string()),
            ..look(None, Verdict::Refuses)
        })
    }

    #[must_use]
    pub fn into_targets(self) -> Vec<TargetLooks> {
        self.targets.into_inner()
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Told<'a> {
    pub warned: Vec<String>,
    pub shadowed: Vec<String>,
    pub trail: Option<&'a Trail>,
}

impl Told<'_> {
    /// Whether a limit stops the request: it does not fit, and the limit is enforced. Where it is not, that
    /// it was passed is told.
    pub(super) fn stops(
        &mut self,
        scope: &Scope,
        bound: &Bound<'_>,
        fits: bool,
        figures: impl FnOnce() -> Figures,
    ) -> bool {
        self.stops_as(|| bound.key().to_string(), scope, bound, fits, figures)
    }

    /// As [`Self::stops`], for a rule that is made of a limit.
    pub(super) fn stops_as(
        &mut self,
        rule: impl FnOnce() -> String,
        scope: &Scope,
        bound: &Bound<'_>,
        fits: bool,
        figures: impl FnOnce() -> Figures,
    ) -> bool {
        self.note(|| Look {
            rule: rule(),
            figures: Some(figures()),
            ..look(Some(scope), verdict(fits, bound.mode))
        });
        !fits && self.is_enforced(scope, bound)
    }

    fn is_enforced(&mut self, scope: &Scope, bound: &Bound<'_>) -> bool {
        let list = match bound.mode {
            Mode::Enforce => return true,
            Mode::Warn => &mut self.warned,
            Mode::Shadow => &mut self.shadowed,
        };
        let text = format!("limit {} of this {}", bound.key(), scope.kind.name());
        if !list.contains(&text) {
            list.push(text);
        }
        false
    }

    /// What a rule says that has no figures. `scope`: none where the rule is no scope's.
    pub(super) fn said<'s, T>(
        &self,
        scope: impl FnOnce() -> Option<&'s Scope>,
        rule: &str,
        said: Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        self.note(|| Look {
            rule: rule.to_owned(),
            why: said.as_ref().err().map(ToString::to_string),
            ..look(scope(), verdict(said.is_ok(), Mode::Enforce))
        });
        said
    }

    /// What the capabilities of a scope say; nothing where it has none.
    pub(super) fn said_of(
        &self,
        settings: &Settings,
        scope: &Scope,
        said: Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        if self.trail.is_none() || (said.is_ok() && !capabilities::has_any(settings)) {
            return said;
        }
        self.said(|| Some(scope), "capabilities", said)
    }

    pub(super) fn note(&self, look: impl FnOnce() -> Look) {
        if let Some(trail) = self.trail {
            trail.note(look());
        }
    }
}

fn verdict(fits: bool, mode: Mode) -> Verdict {
    match mode {
        _ if fits => Verdict::Passes,
        Mode::Enforce => Verdict::Refuses,
        Mode::Warn => Verdict::Warns,
        Mode::Shadow => Verdict::Shadows,
    }
}

pub(super) fn look(scope: Option<&Scope>, verdict: Verdict) -> Look {
    Look {
        scope: scope.map(|scope| LookScope {
            kind: scope.kind,
            name: scope.name.clone(),
        }),
        rule: String::new(),
        verdict,
        figures: None,
        why: None,
    }
}

/// A number of anything, as figures have it.
pub(super) fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;

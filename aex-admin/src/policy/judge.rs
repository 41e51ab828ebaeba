//! The decision: which policies forbid a request, by their modes.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use aex_admin_proto::Refusal;
use aex_admin_proto::explain::{Look, Verdict};
use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityUid, PolicyId, Request,
    RestrictedExpression,
};
use std::collections::{HashMap, HashSet};

use super::MAX_TOOLS;
use super::ask::Ask;
use super::error::{PolicyError, Warning};
use super::known::Known;
use super::names::{Names, uid};
use super::parse::{self, PolicyFile};
use super::rule::{Mode, Rule};
use super::slice::{Cache, Scope, Set, Slice};

/// Policies that are ready to be asked.
#[derive(Default)]
pub struct Policies {
    /// Absent: there is no policy at all.
    inner: Option<Inner>,
}

struct Inner {
    rules: Vec<Rule>,
    scopes: Vec<Scope>,
    names: Names,
    /// The schema's own: which action is in which group.
    actions: Entities,
    authorizer: Authorizer,
    cache: Mutex<Cache>,
}

/// A policy that matches a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    pub policy: String,
    /// What the agent is told.
    pub reason: Option<String>,
    /// It could not be evaluated.
    pub error: bool,
}

impl Denial {
    /// For who asks why.
    #[must_use]
    pub fn look(&self, verdict: Verdict) -> Look {
        Look {
            scope: None,
            rule: format!("policy {}", self.policy),
            verdict,
            figures: None,
            why: self.reason.clone(),
        }
    }
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        Self::PolicyForbids {
            policy: denial.policy,
            reason: denial.reason,
        }
    }
}

/// What policies say of a request. Nothing denied: it may go.
#[must_use]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judged {
    pub denied: Option<Denial>,
    pub warned: Vec<Denial>,
    pub shadowed: Vec<Denial>,
    /// A policy that is in force may forbid a tool to this agent.
    pub governs_tools: bool,
}

/// Told to an agent whose request hits a policy that cannot be evaluated.
pub(super) const CANNOT_EVALUATE: &str =
    "a policy could not be evaluated for this request; the operator's log names it";

/// Stands for the policy where none is at fault.
const ENGINE: &str = "kernel";

impl fmt::Debug for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policies")
            .field("policies", &self.names())
            .finish()
    }
}

impl Policies {
    /// Reads files. Also gives what is probably not meant.
    ///
    /// # Errors
    /// The first fault of the first file that has one; see [`parse::read`].
    pub fn parse(files: &[PolicyFile], known: &Known) -> Result<(Self, Vec<Warning>), PolicyError> {
        let (rules, warnings) = parse::read(files, known)?;
        if rules.is_empty() {
            return Ok((Self::default(), warnings));
        }
        let schema = parse::schema();
        let inner = Inner {
            scopes: rules
                .iter()
                .map(|rule| Scope::of(&rule.policy, &schema))
                .collect(),
            rules,
            names: Names::new(),
            actions: schema.action_entities().expect("of the shipped schema"),
            authorizer: Authorizer::new(),
            cache: Mutex::new(Cache::new()),
        };
        let policies = Self { inner: Some(inner) };
        Ok((policies, warnings))
    }

    fn rules(&self) -> &[Rule] {
        self.inner.as_ref().map_or(&[], |inner| &inner.rules)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.rules().len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.is_none()
    }

    /// Each policy's name and mode, in order.
    #[must_use]
    pub fn names(&self) -> Vec<(&str, Mode)> {
        let rules = self.rules().iter();
        rules.map(|rule| (rule.name.as_str(), rule.mode)).collect()
    }

    /// Judges a request, and then each tool that it offers. One that is denied is looked at no further.
    pub fn judge(&self, ask: &Ask<'_>) -> Judged {
        let Some(inner) = &self.inner else {
            return Judged::default();
        };
        let slice = {
            let mut cache = inner.cache.lock().unwrap_or_else(PoisonError::into_inner);
            cache.slice(ask, || inner.slice(ask))
        };
        inner.judge(ask, &slice)
    }

    /// As [`Self::judge`], with every policy evaluated whatever its scope: what slices are tested
    /// against.
    #[cfg(test)]
    pub(super) fn judge_by_all(&self, ask: &Ask<'_>) -> Judged {
        let Some(inner) = &self.inner else {
            return Judged::default();
        };
        let all: Vec<usize> = (0..inner.rules.len()).collect();
        let slice = inner.slice(ask).with_all(|| Set::of(&inner.rules, &all));
        inner.judge(ask, &slice)
    }
}

impl Inner {
    fn slice(&self, ask: &Ask<'_>) -> Slice {
        Slice::new(&self.rules, &self.scopes, &self.names, &self.actions, ask)
    }

    fn judge(&self, ask: &Ask<'_>, slice: &Slice) -> Judged {
        let mut judged = Judged {
            governs_tools: slice.governs_tools,
            ..Judged::default()
        };
        let Some(entities) = &slice.entities else {
            judged.denied = Some(cannot_evaluate(ENGINE));
            return judged;
        };
        if slice.request.count > 0 {
            let context = ask.context(None);
            let resource = slice.model.clone();
            let action = slice.action.clone();
            let request = request(slice, action, resource, context);
            self.evaluate(&slice.request, request, entities, &mut judged);
        }
        if judged.denied.is_none() && !ask.tools.is_empty() {
            self.judge_tools(ask, slice, entities, &mut judged);
        }
        judged
    }

    fn judge_tools(&self, ask: &Ask<'_>, slice: &Slice, entities: &Entities, judged: &mut Judged) {
        let mut seen = HashSet::new();
        let tools: Vec<(&str, &Set)> = ask
            .tools
            .iter()
            .filter(|&&name| seen.insert(name))
            .map(|&name| (name, slice.of_tool(name)))
            .filter(|(_, set)| set.count > 0)
            .collect();
        if tools.is_empty() {
            return;
        }
        if tools.len() > MAX_TOOLS {
            judged.denied = Some(Denial {
                policy: ENGINE.to_owned(),
                reason: Some(format!(
                    "policies are asked about at most {MAX_TOOLS} tools of a request"
                )),
                error: false,
            });
            return;
        }
        let model = RestrictedExpression::new_entity_uid(slice.model.clone());
        let context = ask.context(Some(("model".to_owned(), model)));
        let offered = tools.iter().filter_map(|(name, _)| {
            let name_itself = RestrictedExpression::new_string((*name).to_owned());
            let attributes = HashMap::from([("name".to_owned(), name_itself)]);
            Entity::new(uid(&self.names.tool, name), attributes, HashSet::new()).ok()
        });
        let Ok(entities) = entities.clone().add_entities(offered, None) else {
            judged.denied = Some(cannot_evaluate(ENGINE));
            return;
        };
        for (name, set) in tools {
            let tool = uid(&self.names.tool, name);
            let request = request(slice, slice.call_tool.clone(), tool, context.clone());
            self.evaluate(set, request, &entities, judged);
            if judged.denied.is_some() {
                return;
            }
        }
    }

    /// Asks Cedar. Its own answer would be to allow where a `forbid` errors; ours is to deny.
    fn evaluate(
        &self,
        set: &Set,
        request: Option<Request>,
        entities: &Entities,
        judged: &mut Judged,
    ) {
        let Some(request) = request else {
            judged.denied = Some(cannot_evaluate(ENGINE));
            return;
        };
        let response = self
            .authorizer
            .is_authorized(&request, &set.policies, entities);
        let diagnostics = response.diagnostics();
        let matched = diagnostics.reason().map(|id| (false, id));
        let failed = diagnostics.errors().map(|error| {
            let cedar_policy::AuthorizationError::PolicyEvaluationError(error) = error;
            (true, error.policy_id())
        });
        // The kernel's own permit is no number.
        let mut found: Vec<(bool, usize)> = matched
            .chain(failed)
            .filter_map(|(error, id)| Some((error, rule_of(id)?)))
            .collect();
        // What really matches before what cannot be told; then in the files' order.
        found.sort_unstable();
        let none_found = found.is_empty();
        for (error, index) in found {
            let Some(rule) = self.rules.get(index) else {
                continue;
            };
            let denial = if error {
                cannot_evaluate(&rule.name)
            } else {
                Denial {
                    policy: rule.name.clone(),
                    reason: rule.reason.clone(),
                    error,
                }
            };
            match rule.mode {
                Mode::Enforce => judged.denied = judged.denied.take().or(Some(denial)),
                Mode::Warn => once(&mut judged.warned, denial),
                Mode::Shadow => once(&mut judged.shadowed, denial),
            }
        }
        // A denial that no policy accounts for must not be lost.
        if response.decision() == Decision::Deny && none_found {
            judged.denied = Some(cannot_evaluate(ENGINE));
        }
    }
}

/// The index that a slice gave it.
fn rule_of(id: &PolicyId) -> Option<usize> {
    let id: &str = id.as_ref();
    id.parse().ok()
}

fn once(denials: &mut Vec<Denial>, denial: Denial) {
    if !denials.iter().any(|other| other.policy == denial.policy) {
        denials.push(denial);
    }
}

fn cannot_evaluate(policy: &str) -> Denial {
    Denial {
        policy: policy.to_owned(),
        reason: Some(CANNOT_EVALUATE.to_owned()),
        error: true,
    }
}

fn request(
    slice: &Slice,
    action: EntityUid,
    resource: EntityUid,
    context: Option<Context>,
) -> Option<Request> {
    Request::new(slice.principal.clone(), action, resource, context?, None).ok()
}

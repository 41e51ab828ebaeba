//! Which policies can apply to an agent, an action and a model. The rest are not evaluated: each
//! would cost some 0.7 µs.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock};

use cedar_policy::{
    Entities, Entity, EntityUid, Policy, PolicyId, PolicySet, PrincipalConstraint,
    ResourceConstraint, Schema,
};

use super::ask::Ask;
use super::names::{CALL_TOOL, Names, action, uid};
use super::rule::{Mode, Rule};

/// Where a policy can apply, as far as its scope tells.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    principal: PrincipalConstraint,
    /// By name.
    actions: BTreeSet<String>,
    resource: ResourceConstraint,
}

impl Scope {
    pub(super) fn of(policy: &Policy, schema: &Schema) -> Self {
        Self {
            principal: policy.principal_constraint(),
            actions: policy
                .get_valid_request_envs(schema)
                .map(|env| env.action().id().unescaped().to_owned())
                .collect(),
            resource: policy.resource_constraint(),
        }
    }

    fn admits(&self, action: &str, principal: &Kin<'_>) -> bool {
        use PrincipalConstraint as P;
        self.actions.contains(action)
            && match &self.principal {
                P::Any => true,
                P::Eq(it) => *it == principal.own,
                P::In(it) => principal.is_in(it),
                P::Is(kind) => kind == principal.own.type_name(),
                P::IsIn(kind, it) => kind == principal.own.type_name() && principal.is_in(it),
            }
    }

    fn admits_resource(&self, resource: &Kin<'_>) -> bool {
        use ResourceConstraint as R;
        match &self.resource {
            R::Any => true,
            R::Eq(it) => *it == resource.own,
            R::In(it) => resource.is_in(it),
            R::Is(kind) => kind == resource.own.type_name(),
            R::IsIn(kind, it) => kind == resource.own.type_name() && resource.is_in(it),
        }
    }

    /// The one tool that it is about, if it is about one.
    fn only_tool(&self, names: &Names) -> Option<&str> {
        use ResourceConstraint as R;
        match &self.resource {
            // A tool is in nothing but itself.
            R::Eq(it) | R::In(it) | R::IsIn(_, it) if it.type_name() == &names.tool => {
                Some(it.id().unescaped())
            }
            _ => None,
        }
    }
}

/// An entity and what it is in.
struct Kin<'a> {
    own: EntityUid,
    above: &'a [EntityUid],
}

impl Kin<'_> {
    fn is_in(&self, it: &EntityUid) -> bool {
        *it == self.own || self.above.contains(it)
    }
}

/// Policies that are evaluated together.
#[derive(Debug, Default)]
pub(super) struct Set {
    pub(super) policies: PolicySet,
    pub(super) count: usize,
}

impl Set {
    /// The kernel's own permit, and those of `rules`. The id of each is its index.
    pub(super) fn of(rules: &[Rule], which: &[usize]) -> Self {
        let mut policies = PolicySet::new();
        policies.add(PERMIT_ALL.clone()).expect("the first");
        for &index in which {
            let policy = rules[index].policy.new_id(PolicyId::new(index.to_string()));
            policies.add(policy).expect("an index is there once");
        }
        Self {
            policies,
            count: which.len(),
        }
    }
}

/// Parsed once: slices are made while requests wait.
static PERMIT_ALL: LazyLock<Policy> = LazyLock::new(|| {
    let text = "permit (principal, action, resource);";
    Policy::parse(Some(PolicyId::new("permit")), text).expect("a policy")
});

/// Everything that is the same for all requests of one agent, route and model.
pub(super) struct Slice {
    pub(super) principal: EntityUid,
    pub(super) action: EntityUid,
    pub(super) call_tool: EntityUid,
    pub(super) model: EntityUid,
    /// The agent and its groups, the model and its provider, the actions. Absent: they make no sense,
    /// and nothing can be decided.
    pub(super) entities: Option<Entities>,
    pub(super) request: Set,
    /// One that is enforced is about tools.
    pub(super) governs_tools: bool,
    /// For tools of any name.
    tools: Set,
    /// For tools that a policy names: those above, and its own.
    named_tools: HashMap<String, Set>,
}

impl Slice {
    /// `actions`: the schema's own entities, which say what action is in which group.
    pub(super) fn new(
        rules: &[Rule],
        scopes: &[Scope],
        names: &Names,
        actions: &Entities,
        ask: &Ask<'_>,
    ) -> Self {
        let groups: Vec<EntityUid> = ask
            .groups
            .iter()
            .map(|group| uid(&names.group, group))
            .collect();
        let provider = [uid(&names.provider, ask.provider)];
        let agent = Kin {
            own: uid(&names.agent, ask.agent),
            above: &groups,
        };
        let model = Kin {
            own: uid(&names.model, ask.model),
            above: &provider,
        };
        let of_request = |(index, scope): (usize, &Scope)| {
            let may = scope.admits(action(ask.route), &agent) && scope.admits_resource(&model);
            may.then_some(index)
        };
        let request: Vec<usize> = scopes.iter().enumerate().filter_map(of_request).collect();
        let of_tools: Vec<(usize, Option<&str>)> = scopes
            .iter()
            .enumerate()
            .filter(|(_, scope)| scope.admits(CALL_TOOL, &agent))
            .map(|(index, scope)| (index, scope.only_tool(names)))
            .collect();
        let about = |tool: Option<&str>| -> Vec<usize> {
            let fits = |only: Option<&str>| only.is_none() || only == tool;
            let fitting = of_tools.iter().filter(|(_, only)| fits(*only));
            fitting.map(|(index, _)| *index).collect()
        };
        let named: BTreeSet<&str> = of_tools.iter().filter_map(|(_, only)| *only).collect();
        let enforced = |(index, _): &(usize, _)| rules[*index].mode == Mode::Enforce;
        Self {
            governs_tools: of_tools.iter().any(enforced),
            entities: entities(&agent, &model, actions),
            action: uid(&names.action, action(ask.route)),
            call_tool: uid(&names.action, CALL_TOOL),
            request: Set::of(rules, &request),
            tools: Set::of(rules, &about(None)),
            named_tools: named
                .into_iter()
                .map(|tool| (tool.to_owned(), Set::of(rules, &about(Some(tool)))))
                .collect(),
            principal: agent.own,
            model: model.own,
        }
    }

    /// What is asked about a tool.
    pub(super) fn of_tool(&self, name: &str) -> &Set {
        self.named_tools.get(name).unwrap_or(&self.tools)
    }

    /// The same, with every policy in each of its sets.
    #[cfg(test)]
    pub(super) fn with_all(mut self, all: impl Fn() -> Set) -> Self {
        self.request = all();
        self.tools = all();
        self.named_tools.clear();
        self
    }

    /// Policies that it keeps: what it costs in memory.
    fn weight(&self) -> usize {
        let named: usize = self.named_tools.values().map(|set| set.count + 1).sum();
        self.request.count + self.tools.count + named + 2
    }
}

/// The agent below its groups, the model below its provider, and the actions.
/// Nothing where the path is no path: a group that is there twice, or above itself.
fn entities(agent: &Kin<'_>, model: &Kin<'_>, actions: &Entities) -> Option<Entities> {
    let chain = |kin: &Kin<'_>| {
        let mut all = vec![kin.own.clone()];
        all.extend(kin.above.iter().cloned());
        let parent = |at: usize| all.get(at + 1).cloned().into_iter().collect::<HashSet<_>>();
        let entity = |at: usize| Entity::new_no_attrs(all[at].clone(), parent(at));
        (0..all.len()).map(entity).collect::<Vec<_>>()
    };
    let all = chain(agent).into_iter().chain(chain(model));
    actions.clone().add_entities(all, None).ok()
}

/// Slices that were made. Dropped with the policies they are made of.
pub(super) struct Cache {
    slices: HashMap<u64, Cached>,
    weight: usize,
    hasher: RandomState,
}

struct Cached {
    agent: String,
    groups: Vec<String>,
    route: &'static str,
    model: String,
    slice: Arc<Slice>,
}

/// Most policies in all slices together: some tens of megabytes.
const MAX_WEIGHT: usize = 100_000;

impl Cached {
    fn is_for(&self, ask: &Ask<'_>) -> bool {
        self.agent == ask.agent
            && self.route == action(ask.route)
            && self.model == ask.model
            && self.groups.iter().eq(ask.groups.iter())
    }
}

impl Cache {
    pub(super) fn new() -> Self {
        Self {
            slices: HashMap::new(),
            weight: 0,
            hasher: RandomState::new(),
        }
    }

    pub(super) fn slice(&mut self, ask: &Ask<'_>, make: impl FnOnce() -> Slice) -> Arc<Slice> {
        let key = self
            .hasher
            .hash_one((ask.agent, ask.groups, ask.route, ask.model));
        if let Some(cached) = self.slices.get(&key).filter(|cached| cached.is_for(ask)) {
            return Arc::clone(&cached.slice);
        }
        let slice = Arc::new(make());
        if self.weight.saturating_add(slice.weight()) > MAX_WEIGHT {
            self.slices.clear();
            self.weight = 0;
        }
        self.weight += slice.weight();
        let cached = Cached {
            agent: ask.agent.to_owned(),
            groups: ask.groups.iter().map(|&group| group.to_owned()).collect(),
            route: action(ask.route),
            model: ask.model.to_owned(),
            slice: Arc::clone(&slice),
        };
        if let Some(old) = self.slices.insert(key, cached) {
            self.weight = self.weight.saturating_sub(old.slice.weight());
        }
        slice
    }
}

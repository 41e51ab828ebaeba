//! What is proposed: policies, and limits and capabilities of scopes. Checked as they would be when they
//! come into force.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aex_admin_proto::operator::{AgentState, Settings};
use aex_admin_proto::rehearsal::{ProposedFile, RehearseParams};
use aex_admin_proto::scope::{KERNEL, ScopeId, ScopeKind};
use serde::Deserialize;

use crate::config::{Config, ConfigError, LoadError, read_yaml};
use crate::core::scope::Scope;
use crate::policy::{Known, MAX_FILES, Policies, PolicyFile};
use crate::writer::check_proposed;

pub(super) struct Proposal {
    pub policies: Policies,
    pub scopes: HashMap<ScopeId, Settings>,
    pub warnings: Vec<String>,
}

/// A file of scopes: settings as `aex agent show --json` names them.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ScopesFile {
    kernel: Option<Settings>,
    groups: BTreeMap<String, Settings>,
    agents: BTreeMap<String, Settings>,
}

impl Proposal {
    /// `scopes`: every agent and group that there is, closed ones too.
    pub(super) fn read(
        params: &RehearseParams,
        config: &Config,
        scopes: &[Scope],
    ) -> Result<Self, LoadError> {
        let mut known = Known::of(config);
        known.agents = Some(names(scopes, ScopeKind::Agent));
        known.groups = Some(names(scopes, ScopeKind::Group));
        if params.policies.len() > MAX_FILES {
            return Err(LoadError::Policies {
                path: path_of(params).into(),
                problem: format!("there are more than {MAX_FILES} files: join some"),
            });
        }
        let files: Vec<PolicyFile> = params.policies.iter().map(policy_file).collect();
        let (policies, remarks) = Policies::parse(&files, &known)?;
        let proposed = match &params.scopes {
            Some(file) => read_scopes(file, config, scopes)?,
            None => HashMap::new(),
        };
        if policies.is_empty() && proposed.is_empty() {
            return Err(LoadError::Policies {
                path: path_of(params).into(),
                problem: "it has no policy and no limit: there is nothing to rehearse".to_owned(),
            });
        }
        Ok(Self {
            policies,
            scopes: proposed,
            warnings: remarks.iter().map(ToString::to_string).collect(),
        })
    }
}

/// What a fault of the whole is told of: the one file that there is, or all of them.
fn path_of(params: &RehearseParams) -> &str {
    match (params.policies.as_slice(), &params.scopes) {
        ([file], None) | ([], Some(file)) => &file.path,
        _ => "the proposal",
    }
}

fn names(scopes: &[Scope], kind: ScopeKind) -> BTreeSet<String> {
    let living = |scope: &&Scope| scope.kind == kind && scope.grant.state != AgentState::Closed;
    let living = scopes.iter().filter(living);
    living.map(|scope| scope.name.clone()).collect()
}

fn policy_file(file: &ProposedFile) -> PolicyFile {
    let name = file.path.rsplit('/').next().unwrap_or_default();
    PolicyFile {
        path: file.path.clone(),
        name: name.to_owned(),
        text: file.text.clone(),
    }
}

fn read_scopes(
    file: &ProposedFile,
    config: &Config,
    scopes: &[Scope],
) -> Result<HashMap<ScopeId, Settings>, LoadError> {
    let at_fault = |error: ConfigError| LoadError::Invalid {
        path: file.path.clone().into(),
        error,
    };
    let wrong = |message: String| {
        at_fault(ConfigError {
            line: None,
            column: None,
            message,
        })
    };
    let read: ScopesFile = read_yaml(&file.text).map_err(at_fault)?;
    let mut proposed = HashMap::new();
    let mut propose = |scope: ScopeId, what: String, settings: Settings| -> Result<(), LoadError> {
        check_proposed(&settings, config)
            .map_err(|error| wrong(format!("{what}: {}", error.message)))?;
        proposed.insert(scope, settings);
        Ok(())
    };
    if let Some(settings) = read.kernel {
        propose(KERNEL, "kernel".to_owned(), settings)?;
    }
    for (kind, listed) in [
        (ScopeKind::Group, read.groups),
        (ScopeKind::Agent, read.agents),
    ] {
        for (name, settings) in listed {
            let what = format!("{} {name}", kind.name());
            let found = scopes
                .iter()
                .find(|scope| scope.kind == kind && scope.name == name)
                .ok_or_else(|| wrong(format!("there is no {what}; see aex tree")))?;
            propose(found.id, what, settings)?;
        }
    }
    Ok(proposed)
}

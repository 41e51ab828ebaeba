//! `aex-admin policy-check`: would the policies of a directory come into force? Read-only, with the
//! kernel running or stopped.

use std::collections::BTreeSet;
use std::path::Path;

use aex_admin_proto::operator::AgentState;
use aex_admin_proto::policies::{PolicyCheck, PolicyPlace, PolicyView};

use crate::config::{self, LoadError};
use crate::core::scope::Scope;
use crate::ledger::{LedgerError, open_read_only, reader};
use crate::policy::{self, Known, Policies, Warning};

/// Checks `directory`, else the one beside `config_file`, against that models.yaml. The ledger says
/// which agents and groups there are; without one nobody is missed.
#[must_use]
pub fn check(config_file: &Path, directory: Option<&Path>, ledger: Option<&Path>) -> PolicyCheck {
    let beside = policy::directory(config_file);
    let directory = directory.unwrap_or(&beside);
    let answer = PolicyCheck {
        directory: directory.to_owned(),
        ..PolicyCheck::default()
    };
    match load(config_file, directory, ledger) {
        Ok((policies, warnings)) => PolicyCheck {
            ok: true,
            policies: policies
                .names()
                .into_iter()
                .map(|(name, mode)| PolicyView {
                    name: name.to_owned(),
                    mode: mode.as_str().to_owned(),
                })
                .collect(),
            warnings: warnings.iter().map(ToString::to_string).collect(),
            ..answer
        },
        Err(error) => PolicyCheck {
            at: place(&error),
            problem: Some(error.to_string()),
            ..answer
        },
    }
}

fn load(
    config_file: &Path,
    directory: &Path,
    ledger: Option<&Path>,
) -> Result<(Policies, Vec<Warning>), LoadError> {
    let (config, _) = config::load(config_file)?;
    let mut known = Known::of(&config);
    if let Some(ledger) = ledger {
        // A ledger that cannot be read is no reason not to check the policies.
        if let Ok((agents, groups)) = names(ledger) {
            known.agents = Some(agents);
            known.groups = Some(groups);
        }
    }
    policy::load(directory, &known)
}

/// The agents and groups that are not deleted.
fn names(ledger: &Path) -> Result<(BTreeSet<String>, BTreeSet<String>), LedgerError> {
    let conn = open_read_only(ledger)?;
    let living = |rows: Vec<Scope>| {
        let living = rows
            .into_iter()
            .filter(|row| row.grant.state != AgentState::Closed);
        living.map(|row| row.name).collect()
    };
    Ok((
        living(reader::agents(&conn)?),
        living(reader::groups(&conn)?),
    ))
}

fn place(error: &LoadError) -> Option<PolicyPlace> {
    let LoadError::Invalid { path, error } = error else {
        return None;
    };
    Some(PolicyPlace {
        file: path.clone(),
        line: error.line?,
        column: error.column?,
    })
}

//! `aex doctor`: tries what could be wrong with an installation, and says what it found and what to do.
//!
//! Owns: the list of what is looked at. Each look is a [`Finding`]; nothing is repaired, and nothing that
//! is looked at changes. Absent on purpose: what only the kernel can know, which it is asked for.

mod files;
mod host;
mod kernel;
mod keys;
mod links;
mod powers;
mod reach;
mod stranger;
mod sudo;
mod tries;

use serde::Serialize;

pub(crate) use stranger::Stranger;
pub(crate) use tries::run as run_tries;

use aex_admin_proto::operator::{ConfigSummary, ProviderList, ProviderView, method};
use aex_admin_proto::places::Places;
use serde_json::json;

use crate::fault::Fault;
use crate::link::{Kernel, Link};
use crate::supervisor::check::{self, Checked};

/// How a look came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Ok,
    /// It could not be tried, and nothing is proven.
    Skipped,
    /// It works, and less safely than it could.
    Warning,
    /// It does not hold.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What was looked at: `kernel`, `files`, `keys`, ….
    pub(crate) check: &'static str,
    pub(crate) state: State,
    pub(crate) says: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fix: Option<String>,
}

impl Finding {
    fn new(check: &'static str, state: State, says: impl Into<String>) -> Self {
        Self {
            check,
            state,
            says: says.into(),
            fix: None,
        }
    }

    fn ok(check: &'static str, says: impl Into<String>) -> Self {
        Self::new(check, State::Ok, says)
    }

    fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

/// Looks at everything; with `stranger` also at what that user can do.
pub(crate) async fn look(
    kernel: &Kernel,
    stranger: Option<&Stranger>,
) -> Result<Vec<Finding>, Fault> {
    let (link, mut findings) = kernel::look(kernel).await;
    let providers = providers(kernel, link.as_ref(), &mut findings).await;
    findings.extend(files::look(&kernel.places));
    findings.extend(keys::look(&kernel.places, &providers, std::env::vars_os()));
    findings.extend(host::look(kernel, link.as_ref()).await);
    let reached = reach::look(&providers).await;
    findings.extend(reached.iter().map(reach::Reached::finding));
    if let Some(stranger) = stranger {
        findings.extend(stranger::look(stranger, kernel, link.as_ref(), &reached).await?);
    }
    Ok(findings)
}

/// The providers as the file names them, else as the kernel has them: one who may not read the file may
/// ask, and a kernel that refuses to start cannot be asked.
async fn providers(
    kernel: &Kernel,
    link: Option<&Link>,
    findings: &mut Vec<Finding>,
) -> Vec<ProviderView> {
    let file = &kernel.places.config_file;
    // A kernel that refused it is not there to be asked.
    let then = match link {
        Some(_) => "aex config reload",
        None if kernel.places == Places::system() => "systemctl start aex.target",
        None => "aex daemon start",
    };
    let asked = match link {
        Some(link) => link
            .call::<_, ProviderList>(method::PROVIDER_LIST, &json!({}))
            .await
            .ok(),
        None => None,
    };
    match check::config(file).await {
        Ok(Checked::Good(ConfigSummary {
            provider_list,
            warnings,
            ..
        })) => {
            findings.push(Finding::ok("config", format!("{} is good", file.display())));
            findings.extend(
                (warnings.into_iter())
                    .map(|warning| Finding::new("config", State::Warning, warning)),
            );
            return provider_list;
        }
        // The package of a host brings its own.
        Err(Fault::NotFound(problem)) if kernel.places != Places::system() => findings.push(
            Finding::new("config", State::Failed, problem)
                .fix(format!("run `aex init`, which makes one, then `{then}`")),
        ),
        Ok(Checked::Bad(problem)) | Err(Fault::NotFound(problem)) => findings.push(
            Finding::new("config", State::Failed, problem)
                .fix(format!("mend it, see `aex config check`, then `{then}`")),
        ),
        Err(fault) => findings.push(Finding::new("config", State::Skipped, fault.to_string())),
    }
    asked.map(|list| list.providers).unwrap_or_default()
}

//! `aex policy`. `check`: the reader of policies is `aex-admin`; this runs it, so that no kernel need.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aex_admin_proto::places::Places;
use aex_admin_proto::policies::PolicyCheck;
use tokio::process::Command;

use super::{child, explain, rehearse};
use crate::args::PolicyCommand;
use crate::fault::Fault;
use crate::link::Kernel;
use crate::output::Out;
use crate::render;
use crate::supervisor::check;

const LIMIT: Duration = Duration::from_secs(60);

pub(super) async fn run(command: PolicyCommand, kernel: &Kernel, out: Out) -> Result<u8, Fault> {
    match command {
        PolicyCommand::Check { directory } => {
            let checked = checked(&kernel.places, directory.as_deref()).await?;
            let Some(problem) = &checked.problem else {
                out.answer(&checked, || render::policies(&checked))?;
                return Ok(0);
            };
            if out.json {
                out.document(&checked)?;
            }
            Err(Fault::Failed(problem.clone()))
        }
        PolicyCommand::Explain(args) => explain::run(args, kernel, out).await,
        PolicyCommand::Rehearse { proposed, since_s } => {
            rehearse::run(&proposed, since_s, kernel, out).await
        }
    }
}

async fn checked(places: &Places, directory: Option<&Path>) -> Result<PolicyCheck, Fault> {
    if !places.config_file.exists() {
        return Err(Fault::NotFound(format!(
            "no configuration at {}: run `aex init` first",
            places.config_file.display()
        )));
    }
    let mut arguments: Vec<&OsStr> = vec!["--config".as_ref(), places.config_file.as_ref()];
    if places.ledger.exists() {
        arguments.extend([OsStr::new("--db"), places.ledger.as_ref()]);
    }
    let directory = directory.map(named).transpose()?;
    if let Some(directory) = &directory {
        arguments.extend([OsStr::new("--dir"), directory.as_ref()]);
    }
    let mut reader = Command::new(check::beside("aex-admin")?);
    reader.arg("policy-check").args(arguments);
    let output = tokio::time::timeout(LIMIT, child::given(reader, "aex-admin policy-check", b""))
        .await
        .map_err(|_| Fault::failed("aex-admin policy-check did not end in time"))??;
    serde_json::from_slice(&output.stdout).map_err(|error| {
        Fault::failed(format!(
            "aex-admin policy-check answers in another form ({error}, {}): are `aex` and `aex-admin` \
             of the same version?",
            output.status
        ))
    })
}

/// A directory of the command line. aex-admin has the same working directory, but a name may look
/// like an option.
fn named(directory: &Path) -> Result<PathBuf, Fault> {
    if directory.is_dir() {
        return std::path::absolute(directory)
            .map_err(|error| Fault::file("find", directory, &error));
    }
    let named = directory.display();
    if !directory.exists() {
        return Err(Fault::NotFound(format!(
            "there is no {named}: name a directory that has *.cedar files"
        )));
    }
    let parent = directory
        .parent()
        .filter(|parent| *parent != Path::new(""))
        .unwrap_or(Path::new("."));
    Err(Fault::NotFound(format!(
        "{named} is a file: policies are checked together, so name the directory that has it, {}",
        parent.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_file_the_directory_to_name_is_told() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("money.cedar");
        std::fs::write(&file, "").unwrap();
        let told = |path: &Path| match named(path) {
            Err(Fault::NotFound(text)) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(named(home.path()).unwrap(), home.path());
        let text = told(&file);
        let parent = home.path().display().to_string();
        assert!(
            text.ends_with(&format!("the directory that has it, {parent}")),
            "{text}"
        );
        assert!(told(&home.path().join("none")).starts_with("there is no "));
        // A file without a directory in its name is in this one.
        assert!(told(Path::new("Cargo.toml")).ends_with("that has it, ."));
    }
}

//! `aex policy rehearse`. The kernel rehearses; this reads what is proposed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aex_admin_proto::clock;
use aex_admin_proto::operator::method;
use aex_admin_proto::rehearsal::{ProposedFile, Rehearsal, RehearseParams};

use crate::fault::Fault;
use crate::link::Kernel;
use crate::output::Out;
use crate::render;

/// The kernel gives it ten minutes.
const LIMIT: Duration = Duration::from_secs(660);
/// All files together; the kernel takes no more.
const MAX_BYTES: u64 = 512 * 1024;
/// In a directory, limits and capabilities of scopes are in this file.
const SCOPES: &str = "scopes.yaml";

pub(super) async fn run(
    proposed: &Path,
    since_s: u64,
    kernel: &Kernel,
    out: Out,
) -> Result<u8, Fault> {
    let since_ms = i64::try_from(since_s.saturating_mul(1000)).unwrap_or(i64::MAX);
    let mut params = RehearseParams {
        policies: Vec::new(),
        scopes: None,
        since_ms: clock::wall_ms().saturating_sub(since_ms),
    };
    let mut left_bytes = MAX_BYTES;
    for path in files(proposed)? {
        let file = read(&path, &mut left_bytes)?;
        if is(&path, "cedar") {
            params.policies.push(file);
        } else {
            params.scopes = Some(file);
        }
    }
    let link = kernel.open().await?;
    let rehearsal: Rehearsal = link
        .call_within(method::POLICY_REHEARSE, &params, LIMIT)
        .await?;
    out.answer(&rehearsal, || render::rehearsal(&rehearsal))?;
    Ok(0)
}

fn is(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

/// The files of a proposal, by name.
fn files(proposed: &Path) -> Result<Vec<PathBuf>, Fault> {
    if !proposed.exists() {
        return Err(Fault::NotFound(format!(
            "there is no {}: name a file NAME.cedar or {SCOPES}, or a directory that has such files",
            proposed.display()
        )));
    }
    if !proposed.is_dir() {
        let known = ["cedar", "yaml", "yml"]
            .iter()
            .any(|kind| is(proposed, kind));
        return if known {
            Ok(vec![proposed.to_owned()])
        } else {
            Err(Fault::Usage(format!(
                "{} is neither NAME.cedar (policies) nor NAME.yaml (limits of scopes)",
                proposed.display()
            )))
        };
    }
    let failed = |error: std::io::Error| Fault::file("read", proposed, &error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(proposed).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_policy = name.ends_with(".cedar") && !name.starts_with('.');
        if is_policy || name == SCOPES {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(Fault::NotFound(format!(
            "{} has neither *.cedar files nor {SCOPES}",
            proposed.display()
        )));
    }
    Ok(files)
}

fn read(path: &Path, left_bytes: &mut u64) -> Result<ProposedFile, Fault> {
    use std::io::Read;
    let failed = |error: std::io::Error| Fault::file("read", path, &error);
    let mut text = String::new();
    // One byte more, by which one that is too long is known.
    std::fs::File::open(path)
        .and_then(|file| file.take(*left_bytes + 1).read_to_string(&mut text))
        .map_err(failed)?;
    *left_bytes = left_bytes.checked_sub(text.len() as u64).ok_or_else(|| {
        Fault::failed(format!(
            "with {} the proposal is larger than {MAX_BYTES} bytes: take some out",
            path.display()
        ))
    })?;
    Ok(ProposedFile {
        path: path.display().to_string(),
        text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proposal_is_a_file_or_the_files_of_a_directory() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        assert!(matches!(files(&at("none")), Err(Fault::NotFound(_))));
        assert!(matches!(files(home.path()), Err(Fault::NotFound(_))));
        for name in ["b.cedar", "a.cedar", ".c.cedar", "scopes.yaml", "d.txt"] {
            std::fs::write(at(name), name).unwrap();
        }
        let named = |paths: Vec<PathBuf>| -> Vec<String> {
            let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
            paths.iter().map(name).collect()
        };
        let all = named(files(home.path()).unwrap());
        assert_eq!(all, ["a.cedar", "b.cedar", "scopes.yaml"]);
        assert_eq!(named(files(&at("b.cedar")).unwrap()), ["b.cedar"]);
        assert!(matches!(files(&at("d.txt")), Err(Fault::Usage(_))));
    }

    #[test]
    fn all_files_together_have_a_bound() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a.cedar");
        std::fs::write(&path, "12345").unwrap();
        let mut left = 9;
        assert_eq!(read(&path, &mut left).unwrap().text, "12345");
        assert_eq!(left, 4);
        assert!(matches!(read(&path, &mut left), Err(Fault::Failed(_))));
    }
}

//! Completions and man pages, made from the same definition of the command line that reads it.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use serde_json::json;

use crate::args::Cli;
use crate::fault::Fault;
use crate::output::Out;

pub(super) fn completions(shell: Shell, out: Out) -> Result<u8, Fault> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "aex", &mut script);
    let script = String::from_utf8(script)
        .map_err(|error| Fault::failed(format!("the script is not text: {error}")))?;
    if out.json {
        out.document(&json!({"shell": shell.to_string(), "script": script}))?;
    } else {
        out.raw(&script)?;
    }
    Ok(0)
}

pub(super) fn pages(dir: &Path) -> Result<u8, Fault> {
    clap_mangen::generate_to(Cli::command(), dir)
        .map_err(|error| Fault::file("write man pages into", dir, &error))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_is_shown_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        pages(dir.path()).unwrap();
        let has = |page: &str| dir.path().join(page).exists();
        for command in Cli::command().get_subcommands() {
            let page = format!("aex-{}.1", command.get_name());
            assert_eq!(has(&page), !command.is_hide_set(), "{page}");
        }
        assert!(has("aex.1") && has("aex-agent-create.1"));
        assert!(pages(&dir.path().join("missing")).is_err());
    }

    #[test]
    fn every_shell_is_told_of_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "aex", &mut script);
            let script = String::from_utf8(script).unwrap();
            for word in ["rotate-token", "max-tokens-per-minute", "checkpoint"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}

//! `aex config check` and `reload`. The reader of models.yaml is `aex-admin`; this only asks it.

use std::path::Path;

use aex_admin_proto::operator::{ConfigSummary, method};
use serde::Serialize;
use serde_json::json;

use crate::args::ConfigCommand;
use crate::fault::Fault;
use crate::link::Kernel;
use crate::output::Out;
use crate::render::counted;
use crate::supervisor::check;

pub(super) async fn run(command: ConfigCommand, kernel: &Kernel, out: Out) -> Result<u8, Fault> {
    match command {
        ConfigCommand::Check { file: Some(file) } => check(&file, out).await,
        ConfigCommand::Check { file: None } => {
            let checked = check(&kernel.places.config_file, out).await;
            checked.map_err(|fault| match fault {
                Fault::NotFound(what) => Fault::NotFound(format!("{what}: run `aex init` first")),
                other => other,
            })
        }
        ConfigCommand::Reload => {
            let link = kernel.open().await?;
            let summary: ConfigSummary = link.call(method::CONFIG_RELOAD, &json!({})).await?;
            out.answer(&summary, || told(&summary, "In force"))?;
            Ok(0)
        }
    }
}

async fn check(file: &Path, out: Out) -> Result<u8, Fault> {
    match check::config(file).await? {
        check::Checked::Good(summary) => {
            let answer = Good {
                ok: true,
                file,
                summary: &summary,
            };
            out.answer(&answer, || {
                told(&summary, &format!("{} is good", file.display()))
            })?;
            Ok(0)
        }
        check::Checked::Bad(problem) => {
            if out.json {
                out.document(&json!({"ok": false, "file": file, "problem": problem}))?;
            }
            Err(Fault::Failed(problem))
        }
    }
}

#[derive(Serialize)]
struct Good<'a> {
    ok: bool,
    file: &'a Path,
    #[serde(flatten)]
    summary: &'a ConfigSummary,
}

fn told(summary: &ConfigSummary, verdict: &str) -> String {
    let mut text: String = summary
        .warnings
        .iter()
        .map(|warning| format!("warning: {warning}\n"))
        .collect();
    text.push_str(&format!(
        "{verdict}: {}, {}, {}.",
        counted(summary.providers, "provider", "providers"),
        counted(summary.models, "model", "models"),
        counted(summary.policies, "policy", "policies"),
    ));
    text
}

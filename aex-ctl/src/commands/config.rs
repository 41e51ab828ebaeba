//! `aex config check` and `reload`. The reader of models.yaml is `aex-admin`; this only asks it.

use aex_admin_proto::operator::{ConfigSummary, method};
use serde_json::json;

use crate::args::ConfigCommand;
use crate::fault::Fault;
use crate::link::Kernel;
use crate::output::Out;
use crate::supervisor::check;

pub(super) async fn run(command: ConfigCommand, kernel: &Kernel, out: Out) -> Result<u8, Fault> {
    match command {
        ConfigCommand::Check { file } => {
            let file = file.unwrap_or_else(|| kernel.places.config_file.clone());
            let found = check::config(&file).await?;
            match found {
                check::Checked::Good(notes) => {
                    let answer = json!({"ok": true, "file": file, "notes": notes});
                    out.answer(&answer, || {
                        let mut lines = notes.clone();
                        lines.push(format!("{} is good.", file.display()));
                        lines.join("\n")
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
        ConfigCommand::Reload => {
            let link = kernel.open().await?;
            let summary: ConfigSummary = link.call(method::CONFIG_RELOAD, &json!({})).await?;
            out.answer(&summary, || {
                let mut text: String = summary
                    .warnings
                    .iter()
                    .map(|warning| format!("warning: {warning}\n"))
                    .collect();
                text.push_str(&format!(
                    "In force: {} providers, {} models.",
                    summary.providers, summary.models
                ));
                text
            })?;
            Ok(0)
        }
    }
}

//! `aex prices`. The reader and writer of prices is `aex-admin`; this runs it, so that no kernel need.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use aex_admin_proto::places::Places;
use aex_admin_proto::prices::{ImportReport, PriceList, PriceView};
use serde::de::DeserializeOwned;
use tokio::process::Command;

use crate::args::PricesCommand;
use crate::fault::Fault;
use crate::output::Out;
use crate::render;
use crate::supervisor::check;

const LIMIT: Duration = Duration::from_secs(60);

pub(super) async fn run(command: PricesCommand, places: &Places, out: Out) -> Result<u8, Fault> {
    let config: &Path = &places.config_file;
    let at: [&OsStr; 2] = ["--config".as_ref(), config.as_ref()];
    match command {
        PricesCommand::List { provider } => {
            let provider = provider.as_deref();
            let of: Vec<&OsStr> = provider
                .into_iter()
                .flat_map(|name| ["--provider".as_ref(), name.as_ref()])
                .collect();
            let list: PriceList = ask("prices-list", &[&at[..], &of].concat()).await?;
            out.answer(&list, || render::prices(&list))?;
        }
        PricesCommand::Show { model } => {
            let of = ["--".as_ref(), model.as_ref()];
            let view: PriceView = ask("prices-show", &[at, of].concat()).await?;
            out.answer(&view, || render::price(&view))?;
        }
        PricesCommand::Import { file } => {
            // aex-admin has the same working directory, but a name may look like an option.
            let file =
                std::path::absolute(&file).map_err(|error| Fault::file("find", &file, &error))?;
            let from: [&OsStr; 2] = ["--from".as_ref(), file.as_ref()];
            let report: ImportReport = ask("prices-import", &[at, from].concat()).await?;
            out.answer(&report, || render::import(&report))?;
        }
    }
    Ok(0)
}

/// What `aex-admin` answers; its exit codes are those of `aex`.
async fn ask<T: DeserializeOwned>(what: &str, arguments: &[&OsStr]) -> Result<T, Fault> {
    let mut admin = Command::new(check::beside("aex-admin")?);
    admin
        .arg(what)
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, admin.output())
        .await
        .map_err(|_| Fault::failed(format!("aex-admin {what} did not end in time")))?
        .map_err(|error| Fault::failed(format!("cannot run aex-admin {what}: {error}")))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    let complaint = complaint
        .trim()
        .trim_start_matches("aex-admin: ")
        .to_owned();
    match output.status.code() {
        Some(0) => serde_json::from_slice(&output.stdout).map_err(|error| {
            Fault::failed(format!(
                "aex-admin {what} answers in another form ({error}): are `aex` and `aex-admin` of \
                 the same version?"
            ))
        }),
        Some(2) => Err(Fault::Usage(complaint)),
        Some(4) => Err(Fault::NotFound(complaint)),
        Some(5) => Err(Fault::Refused(complaint)),
        Some(1) if !complaint.is_empty() => Err(Fault::Failed(complaint)),
        _ => Err(Fault::failed(format!(
            "aex-admin {what} failed ({}): {complaint}",
            output.status
        ))),
    }
}

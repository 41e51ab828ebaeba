//! `aex ledger restore`: the one command about the ledger that needs a stopped kernel. `aex-admin` does
//! it; what the egress's journal tells of sent requests is `aex-egress`'s to read.

use std::path::Path;
use std::process::Stdio;

use aex_admin_proto::operator::RestoreReport;
use aex_admin_proto::places::Places;
use tokio::process::Command;

use super::child::given;
use crate::fault::Fault;
use crate::output::Out;
use crate::render;
use crate::supervisor::{check, running};

pub(super) async fn run(
    file: &Path,
    accept_loss: bool,
    places: &Places,
    out: Out,
) -> Result<u8, Fault> {
    if running(places)?.is_some() {
        return Err(Fault::Refused(
            "the kernel runs: stop it first with `aex daemon stop`".to_owned(),
        ));
    }
    if !file.is_file() {
        return Err(Fault::NotFound(format!("no backup at {}", file.display())));
    }
    let sent = sent(places).await?;
    let mut restore = Command::new(check::beside("aex-admin")?);
    restore.arg("restore").arg("--db").arg(&places.ledger);
    restore.arg("--from").arg(file);
    if accept_loss {
        restore.arg("--accept-loss");
    }
    let output = given(restore, "aex-admin restore", &sent).await?;
    let Ok(report) = serde_json::from_slice::<RestoreReport>(&output.stdout) else {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Fault::failed(said.trim().trim_start_matches("aex-admin: ")));
    };
    out.answer(&report, || render::restore(&report))?;
    Ok(u8::from(!report.restored))
}

/// Ids of requests that the egress's journal tells as sent, one a line.
async fn sent(places: &Places) -> Result<Vec<u8>, Fault> {
    let mut journal = Command::new(check::beside("aex-egress")?);
    journal
        .arg("--list-sent")
        .arg("--journal")
        .arg(places.egress_journal())
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = journal
        .output()
        .await
        .map_err(|error| Fault::failed(format!("cannot run aex-egress: {error}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Fault::failed(format!(
            "the egress's journal cannot be read: {}",
            said.trim()
        )));
    }
    Ok(output.stdout)
}

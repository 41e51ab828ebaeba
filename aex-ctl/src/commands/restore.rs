//! `aex ledger restore`: the one command about the ledger that needs a stopped kernel. `aex-admin` does
//! it; what the egress's journal tells of sent requests is `aex-egress`'s to read.

use std::path::Path;
use std::process::Stdio;

use aex_admin_proto::operator::RestoreReport;
use aex_admin_proto::places::Places;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

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
    let output = given(restore, sent).await?;
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

async fn given(mut command: Command, input: Vec<u8>) -> Result<std::process::Output, Fault> {
    let failed = |error| Fault::failed(format!("cannot run aex-admin restore: {error}"));
    command
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(failed)?;
    let stdin = child.stdin.take();
    // It reads all of it before it says anything.
    let write = async {
        if let Some(mut stdin) = stdin {
            let _ = stdin.write_all(&input).await;
        }
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), write);
    output.map_err(failed)
}

//! `aex status`, `metrics`, `models`.

use std::io::IsTerminal;
use std::time::Duration;

use aex_admin_proto::operator::{DaemonState, Metrics, ModelList, Status, method};
use serde::Serialize;
use serde_json::json;

use crate::fault::Fault;
use crate::link::Kernel;
use crate::listen::Ways;
use crate::output::{self, Out};
use crate::render;

/// Pause between two screens of `aex metrics --watch`.
const WATCH: Duration = Duration::from_secs(2);
/// Whoever asks how it is waits for no kernel that is not.
const STATUS_LIMIT: Duration = Duration::from_secs(5);
/// How long a watch waits for a kernel that is being restarted.
const WATCH_LIMIT: Duration = Duration::from_secs(60);

#[derive(Serialize)]
struct Running<'a> {
    running: bool,
    #[serde(flatten)]
    status: &'a Status,
    base_url: Option<String>,
    daemon: Option<DaemonState>,
}

pub(super) async fn status(kernel: &Kernel, out: Out) -> Result<u8, Fault> {
    let link = match kernel.open().await {
        Ok(link) => link,
        Err(fault) => {
            // Scripts get a document also of a kernel that is stopped.
            if out.json {
                out.document(&json!({"running": false, "ready": false}))?;
            }
            return Err(fault);
        }
    };
    let status: Status = link
        .call_within(method::STATUS, &json!({}), STATUS_LIMIT)
        .await?;
    let daemon = kernel.daemon();
    let ways = match &daemon {
        Some(daemon) => Ways::of_daemon(daemon),
        None => Ways::of_everybody(&status),
    };
    let answer = Running {
        running: true,
        status: &status,
        base_url: ways.base_url(),
        daemon,
    };
    out.answer(&answer, || render::status(&status, ways.all()))?;
    Ok(0)
}

pub(super) async fn metrics(watch: bool, kernel: &Kernel, out: Out) -> Result<u8, Fault> {
    let link = kernel.open().await?;
    // On a terminal each screen replaces the last; elsewhere they follow each other.
    let clear = watch && !out.json && std::io::stdout().is_terminal();
    loop {
        let figures: Metrics = link
            .read_again(method::METRICS, &json!({}), WATCH_LIMIT)
            .await?;
        if clear {
            out.clear_screen()?;
        }
        out.answer(&figures, || render::metrics(&figures))?;
        if !watch {
            return Ok(0);
        }
        tokio::select! {
            () = tokio::time::sleep(WATCH) => {}
            () = output::reader_left() => return Ok(0),
        }
    }
}

pub(super) async fn models(kernel: &Kernel, out: Out) -> Result<u8, Fault> {
    let link = kernel.open().await?;
    let list: ModelList = link.call(method::MODEL_LIST, &json!({})).await?;
    out.answer(&list, || render::models(&list))?;
    Ok(0)
}

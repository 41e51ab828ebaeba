//! What must hold before anything is started: the programs are there, the configuration is good.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use aex_admin_proto::client::{CallError, Client};
use aex_admin_proto::operator::{ConfigSummary, method};
use aex_admin_proto::places::Places;
use aex_admin_proto::rpc::code;
use tokio::process::Command;

use crate::args::{Plan, front_options};
use crate::fault::Fault;

const CHECK_LIMIT: Duration = Duration::from_secs(30);

pub(crate) enum Checked {
    Good(ConfigSummary),
    /// `FILE:line:col: message`.
    Bad(String),
}

/// A program of AEX: it lies beside this one.
pub(crate) fn beside(binary: &str) -> Result<PathBuf, Fault> {
    let own = std::env::current_exe()
        .and_then(|path| path.canonicalize())
        .map_err(|error| Fault::failed(format!("cannot find this program's own file: {error}")))?;
    let path = own.with_file_name(binary);
    if path.is_file() {
        return Ok(path);
    }
    Err(Fault::failed(format!(
        "{binary} is missing: expected at {}. Install the four programs of AEX side by side.",
        path.display()
    )))
}

/// Whether the running programs can act on a configuration that is good in itself: they try to take it
/// up, keys and certificates included, and keep the old one where that fails.
pub(crate) async fn is_taken_up(places: &Places) -> Result<(), Fault> {
    let Ok(client) = Client::connect(&places.operator_socket()).await else {
        return Ok(());
    };
    let taken: Result<ConfigSummary, CallError> = client
        .call(method::CONFIG_RELOAD, &serde_json::json!({}), CHECK_LIMIT)
        .await;
    match taken {
        // What has a line and a column was for the new programs to judge, and they did.
        Err(CallError::Rpc(error)) if error.code == code::BAD_CONFIG && error.data.is_none() => {
            Err(Fault::Failed(error.message))
        }
        // Programs that are in trouble themselves are no reason not to start them anew.
        _ => Ok(()),
    }
}

/// That agents are listened to as it was asked for: no plain HTTP beyond this host that nobody named, and files
/// of TLS that workers can use.
pub(crate) async fn front(plan: &Plan) -> Result<(), Fault> {
    if let Some(listen) = plan.plain_beyond() {
        return Err(Fault::Usage(format!(
            "plain HTTP on {listen} is refused: beyond loopback tokens would travel in clear text. Give a \
             certificate (--tls-cert, --tls-key), or --plain-http to have it all the same"
        )));
    }
    if plan.front.tls.is_none() {
        return Ok(());
    }
    let mut reader = Command::new(beside("aex-proxy")?);
    reader
        .arg("--check-tls")
        .args(front_options(&plan.front))
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(CHECK_LIMIT, reader.output())
        .await
        .map_err(|_| Fault::failed("aex-proxy --check-tls did not end in time"))?
        .map_err(|error| Fault::failed(format!("cannot run aex-proxy --check-tls: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = complaint_of(&output, "aex-proxy: ");
    Err(Fault::Failed(format!("TLS: {complaint}")))
}

/// What a program said went wrong, without its name.
fn complaint_of(output: &std::process::Output, name: &str) -> String {
    let complaint = String::from_utf8_lossy(&output.stderr);
    complaint.trim().trim_start_matches(name).to_owned()
}

/// Has `aex-admin` read a models.yaml; no kernel need run.
pub(crate) async fn config(file: &Path) -> Result<Checked, Fault> {
    if let Err(error) = std::fs::metadata(file) {
        return Err(match error.kind() {
            std::io::ErrorKind::NotFound => {
                Fault::NotFound(format!("no configuration at {}", file.display()))
            }
            _ => Fault::file("look at", file, &error),
        });
    }
    let mut reader = Command::new(beside("aex-admin")?);
    reader
        .args(["config-check", "--json", "--file"])
        .arg(file)
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(CHECK_LIMIT, reader.output())
        .await
        .map_err(|_| Fault::failed("aex-admin config-check did not end in time"))?
        .map_err(|error| Fault::failed(format!("cannot run aex-admin config-check: {error}")))?;
    let complaint = complaint_of(&output, "aex-admin: ");
    match output.status.code() {
        Some(0) => serde_json::from_slice(&output.stdout)
            .map(Checked::Good)
            .map_err(|error| {
                Fault::failed(format!(
                    "aex-admin config-check answers in another form ({error}): are `aex` and \
                     `aex-admin` of the same version?"
                ))
            }),
        Some(1) if !complaint.is_empty() => Ok(Checked::Bad(complaint)),
        _ => Err(Fault::failed(format!(
            "aex-admin config-check failed ({}): {complaint}",
            output.status
        ))),
    }
}

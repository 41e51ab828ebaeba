//! `aex audit` and `aex ledger tail`.

use std::time::Duration;

use aex_admin_proto::operator::{AuditReport, Tail, TailParams, method};
use aex_admin_proto::worker::POLL_MS;
use serde_json::json;

use crate::args::LedgerCommand;
use crate::fault::Fault;
use crate::link::Kernel;
use crate::output::{self, Out};
use crate::render;

/// A long ledger takes its time.
const AUDIT_LIMIT: Duration = Duration::from_secs(3600);
/// One long poll, and the time of a restart beside it.
const FOLLOW_LIMIT: Duration = Duration::from_millis(POLL_MS + 60_000);
/// Events asked for at once while following.
const FOLLOW_EVENTS: u32 = 500;

pub(super) async fn audit(strict: bool, kernel: &Kernel, out: Out) -> Result<u8, Fault> {
    let link = kernel.open().await.map_err(|fault| match fault {
        Fault::Unreachable { socket, why } => Fault::NoAnswer(format!(
            "cannot reach the kernel at {}: {why}\nStart it with `aex daemon start`, or check the \
             ledger as it lies with `aex-admin audit --db {}`.",
            socket.display(),
            kernel.places.ledger.display()
        )),
        other => other,
    })?;
    let mut report: AuditReport = link
        .call_within(method::LEDGER_AUDIT, &json!({}), AUDIT_LIMIT)
        .await?;
    report.ok &= report.violations.is_empty() && (!strict || report.warnings.is_empty());
    out.answer(&report, || render::audit(&report, strict))?;
    Ok(u8::from(!report.ok))
}

pub(super) async fn run(command: LedgerCommand, kernel: &Kernel, out: Out) -> Result<u8, Fault> {
    let LedgerCommand::Tail { follow, lines } = command;
    let link = kernel.open().await?;
    let first = TailParams {
        limit: Some(lines),
        ..TailParams::default()
    };
    let tail: Tail = link.call(method::LEDGER_TAIL, &first).await?;
    let mut last = show(&tail, out)?.unwrap_or(0);
    if !follow {
        return Ok(0);
    }
    loop {
        let next = TailParams {
            after: Some(last),
            limit: Some(FOLLOW_EVENTS),
            follow: true,
        };
        let tail: Tail = tokio::select! {
            tail = link.read_again(method::LEDGER_TAIL, &next, FOLLOW_LIMIT) => tail?,
            () = output::reader_left() => return Ok(0),
        };
        last = show(&tail, out)?.unwrap_or(last);
    }
}

/// Prints the events and gives the last one's id.
fn show(tail: &Tail, out: Out) -> Result<Option<i64>, Fault> {
    for event in &tail.events {
        out.answer(event, || render::event(event))?;
    }
    Ok(tail.events.last().map(|event| event.id))
}

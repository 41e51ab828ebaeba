//! `aex audit` and `aex ledger`.

use std::path::Path;
use std::time::Duration;

use aex_admin_proto::checkpoints;
use aex_admin_proto::operator::{
    AuditParams, AuditReport, Checkpoint, Replay, ResolveParams, ResolveReply, Tail, TailParams,
    method,
};
use aex_admin_proto::worker::POLL_MS;
use serde_json::json;

use super::restore;
use crate::args::{ExportFormat, LedgerCommand, ResolveArgs};
use crate::fault::Fault;
use crate::link::Kernel;
use crate::output::{self, Out};
use crate::render;

/// A long ledger takes its time.
pub(super) const AUDIT_LIMIT: Duration = Duration::from_secs(3600);
/// One long poll, and the time of a restart beside it.
const FOLLOW_LIMIT: Duration = Duration::from_millis(POLL_MS + 60_000);
/// Events asked for at once while following.
const FOLLOW_EVENTS: u32 = 500;
/// Events asked for at once by an export.
const EXPORT_EVENTS: u32 = 1000;

pub(super) async fn audit(
    against: Option<&Path>,
    strict: bool,
    kernel: &Kernel,
    out: Out,
) -> Result<u8, Fault> {
    let against = match against {
        Some(file) => checkpoints::read(file).map_err(Fault::Usage)?,
        None => Vec::new(),
    };
    let link = kernel.open().await.map_err(|fault| match fault {
        Fault::Unreachable { socket, why, .. } => Fault::NoAnswer(format!(
            "cannot reach the kernel at {}: {why}\nStart it with `aex daemon start`, or check the \
             ledger as it lies with `aex-admin audit --db {}`.",
            socket.display(),
            kernel.places.ledger.display()
        )),
        other => other,
    })?;
    let mut report: AuditReport = link
        .call_within(method::LEDGER_AUDIT, &AuditParams { against }, AUDIT_LIMIT)
        .await?;
    report.ok &= report.violations.is_empty() && (!strict || report.warnings.is_empty());
    out.answer(&report, || render::audit(&report, strict))?;
    Ok(u8::from(!report.ok))
}

pub(super) async fn run(command: LedgerCommand, kernel: &Kernel, out: Out) -> Result<u8, Fault> {
    match command {
        LedgerCommand::Tail { follow, lines } => tail(follow, lines, kernel, out).await,
        LedgerCommand::Export { format } => export(format, kernel, out).await,
        LedgerCommand::Checkpoint => {
            let link = kernel.open().await?;
            let signed: Checkpoint = link.call(method::LEDGER_CHECKPOINT, &json!({})).await?;
            out.document(&signed)?;
            Ok(0)
        }
        LedgerCommand::Backup { file } => super::backup::run(&file, kernel, out).await,
        LedgerCommand::Restore { file, accept_loss } => {
            restore::run(&file, accept_loss, &kernel.places, out).await
        }
        LedgerCommand::Replay => {
            let link = kernel.open().await?;
            let replay: Replay = link
                .call_within(method::LEDGER_REPLAY, &json!({}), AUDIT_LIMIT)
                .await?;
            out.answer(&replay, || render::replay(&replay))?;
            Ok(u8::from(!replay.same))
        }
        LedgerCommand::Resolve(args) => resolve(args, kernel, out).await,
    }
}

async fn tail(follow: bool, lines: u32, kernel: &Kernel, out: Out) -> Result<u8, Fault> {
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

/// All that there is when it begins, page by page; what comes meanwhile is left out.
async fn export(format: ExportFormat, kernel: &Kernel, out: Out) -> Result<u8, Fault> {
    let link = kernel.open().await?;
    let newest = TailParams {
        limit: Some(1),
        ..TailParams::default()
    };
    let tail: Tail = link.call(method::LEDGER_TAIL, &newest).await?;
    let end = tail.events.last().map_or(0, |event| event.id);
    if format == ExportFormat::Csv {
        out.raw(&format!("{}\r\n", render::CSV_HEAD))?;
    }
    let mut last = 0;
    while last < end {
        let next = TailParams {
            after: Some(last),
            limit: Some(EXPORT_EVENTS),
            follow: false,
        };
        let page: Tail = link.call(method::LEDGER_TAIL, &next).await?;
        let Some(newest) = page.events.last() else {
            break;
        };
        last = newest.id;
        for event in page.events.iter().filter(|event| event.id <= end) {
            match format {
                ExportFormat::Jsonl => out.document(event)?,
                ExportFormat::Csv => out.raw(&format!("{}\r\n", render::csv(event)))?,
            }
        }
    }
    Ok(0)
}

async fn resolve(args: ResolveArgs, kernel: &Kernel, out: Out) -> Result<u8, Fault> {
    let params = ResolveParams {
        hold: args.hold,
        agent: args.agent,
        cost_pico: args.cost.or(args.add).unwrap_or(0),
        reason: args.reason,
    };
    let link = kernel.open().await?;
    let done: ResolveReply = link
        .call_within(method::LEDGER_RESOLVE, &params, AUDIT_LIMIT)
        .await?;
    out.answer(&done, || match done.event {
        None => "The ledger had that cost already: nothing was appended.".to_owned(),
        Some(event) => format!(
            "Event {event}: {} picodollars more charged to {}, which has {} left.",
            done.cost_pico,
            done.agent,
            render::money(done.remaining_micro)
        ),
    })?;
    Ok(0)
}

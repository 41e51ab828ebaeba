//! What an operator may ask; an auditor, of that, what only reads.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aex_admin_proto::clock;
use aex_admin_proto::operator::{
    AgentList, AgentState, AgentView, AuditParams, AuditReport, Checkpoint, ConfigText,
    MAX_AGAINST, Metrics, ModelList, NameParams, ProviderList, ResolveParams, ScopeList, ScopeView,
    Tail, TailParams, TokenList, method as m,
};
use aex_admin_proto::rehearsal::{Rehearsal, RehearseParams};
use aex_admin_proto::rpc::{RpcError, code};
use aex_admin_proto::scope::{ScopeId, ScopeKind};
use aex_admin_proto::worker::POLL_MS;
use jiff::tz::TimeZone;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::connection::Outbox;
use super::{Call, Kernel, Role, discover, params, reload, reply};
use crate::config;
use crate::core::period;
use crate::core::reserve::Now;
use crate::core::scope::Scope;
use crate::ledger::{LedgerError, reader};
use crate::rehearse::{RehearseError, rehearse};
use crate::writer::{Command, OperatorCommand as Op};
use crate::{audit, views};

const MAX_TAIL: u32 = 1000;
const DEFAULT_TAIL: u32 = 20;
/// Longest that a rehearsal may take.
const MAX_REHEARSAL_MS: u64 = 600_000;

/// Of a method that takes none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoParams {}

pub(super) fn dispatch(
    kernel: &Arc<Kernel>,
    call: Call,
    method: &str,
    raw: Option<&RawValue>,
) -> Option<()> {
    match method {
        m::AGENT_CREATE => change(kernel, call, raw, |params| Op::Create(Box::new(params))),
        m::AGENT_SET => change(kernel, call, raw, |params| Op::Set(Box::new(params))),
        m::AGENT_ROTATE_TOKEN => change(kernel, call, raw, Op::Rotate),
        m::AGENT_PAUSE => change(kernel, call, raw, Op::Pause),
        m::AGENT_RESUME => change(kernel, call, raw, Op::Resume),
        m::AGENT_SEVER => change(kernel, call, raw, Op::Sever),
        m::AGENT_DELETE => change(kernel, call, raw, Op::Delete),
        m::GROUP_CREATE => change(kernel, call, raw, |params| {
            Op::GroupCreate(Box::new(params))
        }),
        m::GROUP_SET => change(kernel, call, raw, |params| Op::GroupSet(Box::new(params))),
        m::GROUP_PAUSE => change(kernel, call, raw, Op::GroupPause),
        m::GROUP_RESUME => change(kernel, call, raw, Op::GroupResume),
        m::GROUP_SEVER => change(kernel, call, raw, Op::GroupSever),
        m::GROUP_DELETE => change(kernel, call, raw, Op::GroupDelete),
        m::RUN_CREATE => change(kernel, call, raw, |params| Op::RunCreate(Box::new(params))),
        m::RUN_END => change(kernel, call, raw, Op::RunEnd),
        m::TOKEN_CREATE => change(kernel, call, raw, Op::TokenCreate),
        m::TOKEN_REVOKE => change(kernel, call, raw, Op::TokenRevoke),
        m::POLICY_EXPLAIN => change(kernel, call, raw, |params| Op::Explain(Box::new(params))),
        m::LEDGER_CHECKPOINT => change(kernel, call, raw, |_: NoParams| Op::Checkpoint),
        m::CONFIG_CHECK => {
            let (call, ConfigText { text }) = params(call, raw)?;
            let checked = config::load_catalogue(&kernel.config_file)
                .map_err(|error| reload::bad_file(&error))
                .and_then(|catalogue| {
                    config::parse(&text, &catalogue)
                        .map_err(|error| reload::bad_config(&error, None))
                })
                .map(|(config, warnings)| reload::summary(&config, warnings));
            call.answer(checked);
            Some(())
        }
        m::DISCOVER => {
            call.answer(Ok(discover::document()));
            Some(())
        }
        m::PROVIDER_LIST => {
            let providers = views::providers(&kernel.config());
            call.answer(Ok(ProviderList { providers }));
            Some(())
        }
        m::MODEL_LIST => {
            call.answer(Ok(ModelList {
                models: views::models(&kernel.config()),
            }));
            Some(())
        }
        _ => read(kernel, call, method, raw),
    }
}

fn change<P: DeserializeOwned>(
    kernel: &Arc<Kernel>,
    call: Call,
    raw: Option<&RawValue>,
    command: impl FnOnce(P) -> Op,
) -> Option<()> {
    let (call, params) = params(call, raw)?;
    let by_uid = call.by_another();
    let reply = reply(call);
    kernel.send(Command::Operator {
        command: command(params),
        by_uid,
        reply,
    });
    Some(())
}

/// Calls that take a while: each in a task of its own.
fn read(kernel: &Arc<Kernel>, call: Call, method: &str, raw: Option<&RawValue>) -> Option<()> {
    let kernel = Arc::clone(kernel);
    let role = call.role;
    match method {
        m::AGENT_LIST => answer(call, async move { agents(&kernel, role).await }),
        m::AGENT_SHOW => {
            let (call, NameParams { name }) = params(call, raw)?;
            answer(call, async move { agent_view(&kernel, role, &name).await });
        }
        m::GROUP_LIST => answer(call, async move {
            let mut list = tree(&kernel, role).await?;
            list.scopes
                .retain(|scope| matches!(scope.kind, ScopeKind::Kernel | ScopeKind::Group));
            Ok(list)
        }),
        m::GROUP_SHOW => {
            let (call, NameParams { name }) = params(call, raw)?;
            answer(call, async move { group_view(&kernel, role, &name).await });
        }
        m::TREE => answer(call, async move { tree(&kernel, role).await }),
        m::TOKEN_LIST => {
            let (call, NameParams { name }) = params(call, raw)?;
            answer(call, async move {
                agent(&kernel, role, name.clone()).await?;
                let tokens = kernel
                    .desk(role)
                    .reader
                    .run(move |conn| reader::tokens(conn, &name))
                    .await?;
                Ok(TokenList { tokens })
            });
        }
        m::STATUS => answer(call, async move {
            let scopes = tree(&kernel, role).await?.scopes;
            let agents = scopes.iter().filter(|scope| scope.kind == ScopeKind::Agent);
            let agents = agents.count() as u64;
            Ok(kernel.status(agents, scopes))
        }),
        m::METRICS => answer(call, async move { metrics(&kernel, role).await }),
        m::LEDGER_TAIL => {
            let (call, asked) = params(call, raw)?;
            answer(call, async move { tail(&kernel, role, asked).await });
        }
        m::LEDGER_AUDIT => {
            let (call, AuditParams { against }) = params(call, raw)?;
            answer(call, async move { audit_now(&kernel, role, against).await });
        }
        m::LEDGER_REPLAY => answer(call, async move {
            aside(
                &kernel,
                &kernel.desk(role).at_long_work,
                "a replay",
                |path| audit::replay(&path),
            )
            .await
        }),
        m::POLICY_REHEARSE => {
            let (call, asked) = params(call, raw)?;
            let outbox = Arc::clone(&call.outbox);
            answer(
                call,
                async move { rehearse_now(&kernel, outbox, asked).await },
            );
        }
        m::LEDGER_BACKUP => {
            let (call, asked) = params(call, raw)?;
            answer(
                call,
                async move { super::backups::make(&kernel, asked).await },
            );
        }
        m::LEDGER_BACKUP_PART => {
            let (call, asked) = params(call, raw)?;
            answer(
                call,
                async move { super::backups::part(&kernel, asked).await },
            );
        }
        m::LEDGER_RESOLVE => {
            let (call, asked) = params(call, raw)?;
            tokio::spawn(async move { resolve(&kernel, call, asked).await });
        }
        // The role's table has no other.
        _ => {
            let by_uid = call.by_another();
            answer(call, async move { kernel.reload(by_uid).await });
        }
    }
    Some(())
}

fn answer<T>(call: Call, work: impl Future<Output = Result<T, RpcError>> + Send + 'static)
where
    T: Serialize + 'static,
{
    tokio::spawn(async move { call.answer(work.await) });
}

async fn agents(kernel: &Kernel, role: Role) -> Result<AgentList, RpcError> {
    let (rows, nodes) = kernel
        .desk(role)
        .reader
        .run(|conn| Ok((reader::agents(conn)?, reader::groups(conn)?)))
        .await?;
    let above = Above::of(&nodes, &kernel.config());
    let now = now();
    let view = |row: &Scope| {
        let (group, zone) = above.of_agent(row);
        views::agent(row, group, &zone, &kernel.shared, now)
    };
    Ok(AgentList {
        agents: rows.iter().map(view).collect(),
    })
}

fn now() -> Now {
    Now {
        boot_ms: clock::boot_ms(),
        wall_ms: clock::wall_ms(),
    }
}

/// The groups above agents, for views.
struct Above {
    groups: HashMap<ScopeId, Scope>,
    zone: TimeZone,
}

impl Above {
    fn of(nodes: &[Scope], config: &config::Config) -> Self {
        Self {
            groups: nodes.iter().map(|node| (node.id, node.clone())).collect(),
            zone: config.time_zone.clone(),
        }
    }

    /// The name of the group above an agent, and the zone of its periods.
    fn of_agent(&self, row: &Scope) -> (Option<String>, TimeZone) {
        let group = row
            .grant
            .group
            .and_then(|id| self.groups.get(&ScopeId::Node(id)));
        let mut named = row.grant.settings.time_zone.as_deref();
        let mut above = row.parent;
        for _ in 0..self.groups.len() {
            let Some(next) = above.and_then(|id| self.groups.get(&id)) else {
                break;
            };
            named = named.or(next.grant.settings.time_zone.as_deref());
            above = next.parent;
        }
        let zone = named.and_then(period::zone);
        (
            group.map(|group| group.name.clone()),
            zone.unwrap_or_else(|| self.zone.clone()),
        )
    }
}

async fn agent_view(kernel: &Kernel, role: Role, name: &str) -> Result<AgentView, RpcError> {
    let row = agent(kernel, role, name.to_owned()).await?;
    let nodes = kernel.desk(role).reader.run(reader::groups).await?;
    let (group, zone) = Above::of(&nodes, &kernel.config()).of_agent(&row);
    Ok(views::agent(&row, group, &zone, &kernel.shared, now()))
}

/// Every scope that has not ended.
async fn tree(kernel: &Kernel, role: Role) -> Result<ScopeList, RpcError> {
    let mut rows = kernel
        .desk(role)
        .reader
        .run(|conn| {
            let mut rows = reader::groups(conn)?;
            rows.extend(reader::agents(conn)?);
            rows.extend(reader::open_runs(conn)?);
            Ok(rows)
        })
        .await?;
    let now = now();
    let over = |row: &Scope| row.expires_at_ms.is_some_and(|at_ms| at_ms <= now.wall_ms);
    rows.retain(|row| row.grant.state != AgentState::Closed && !over(row));
    Ok(ScopeList {
        scopes: views::tree(&rows, &kernel.config(), &kernel.shared, now),
    })
}

async fn group_view(kernel: &Kernel, role: Role, name: &str) -> Result<ScopeView, RpcError> {
    let list = tree(kernel, role).await?;
    let found = list.scopes.into_iter().find(|scope| {
        scope.name == name && matches!(scope.kind, ScopeKind::Kernel | ScopeKind::Group)
    });
    let text = format!("there is no group {name}; see aex group list");
    found.ok_or_else(|| RpcError::new(code::NOT_FOUND, text))
}

async fn agent(kernel: &Kernel, role: Role, name: String) -> Result<Scope, RpcError> {
    let text = format!("there is no agent {name}; see aex agent list");
    let row = kernel
        .desk(role)
        .reader
        .run(move |conn| reader::agent(conn, &name))
        .await?;
    row.ok_or_else(|| RpcError::new(code::NOT_FOUND, text))
}

async fn metrics(kernel: &Kernel, role: Role) -> Result<Metrics, RpcError> {
    let agents = agents(kernel, role).await?.agents;
    let counters = kernel.shared.counters();
    let named = |counts: std::collections::BTreeMap<&'static str, u64>| {
        counts
            .into_iter()
            .map(|(name, count)| (name.to_owned(), count))
            .collect()
    };
    Ok(Metrics {
        uptime_ms: kernel.uptime_ms(),
        reserves: counters.reserves,
        granted: counters.granted,
        replayed: counters.replayed,
        refused: named(counters.refused),
        settled: named(counters.settled),
        policies: counters.policies,
        overruns: counters.overruns,
        role_violations: counters.role_violations,
        wrong_peers: counters.wrong_peers,
        outside_updates: counters.outside_updates,
        commits: counters.commits,
        operations: counters.operations,
        open_holds: kernel.shared.open_holds(),
        waiting: kernel.shared.waiting(),
        spent_micro: agents
            .iter()
            .map(|agent| agent.spent_micro)
            .fold(0, i64::saturating_add),
        held_micro: agents
            .iter()
            .map(|agent| agent.reserved_micro)
            .fold(0, i64::saturating_add),
        agents,
        breakers: views::breakers(&kernel.shared, clock::boot_ms()),
    })
}

async fn tail(kernel: &Kernel, role: Role, asked: TailParams) -> Result<Tail, RpcError> {
    let limit = asked.limit.unwrap_or(DEFAULT_TAIL).clamp(1, MAX_TAIL);
    if let (true, Some(after)) = (asked.follow, asked.after) {
        let mut events = kernel.shared.events();
        let news = events.wait_for(|last| *last > after);
        // None in time: an empty answer.
        let _ = tokio::time::timeout(Duration::from_millis(POLL_MS), news).await;
    }
    let events = kernel
        .desk(role)
        .reader
        .run(move |conn| reader::tail(conn, asked.after, limit))
        .await?;
    Ok(Tail { events })
}

async fn audit_now(
    kernel: &Kernel,
    role: Role,
    against: Vec<Checkpoint>,
) -> Result<AuditReport, RpcError> {
    if against.len() > MAX_AGAINST {
        let text = format!("at most {MAX_AGAINST} checkpoints at once");
        return Err(RpcError::new(code::INVALID_PARAMS, text));
    }
    aside(
        kernel,
        &kernel.desk(role).at_long_work,
        "an audit",
        move |path| audit::of_file(&path, &against),
    )
    .await
}

/// Ends when its caller has gone, and after [`MAX_REHEARSAL_MS`]. In a place of its own: a backup need not
/// wait for it.
async fn rehearse_now(
    kernel: &Kernel,
    outbox: Arc<Outbox>,
    asked: RehearseParams,
) -> Result<Rehearsal, RpcError> {
    let config = kernel.config();
    let until_boot_ms = clock::boot_ms().saturating_add(MAX_REHEARSAL_MS);
    let played = aside(kernel, &kernel.at_rehearsal, "a rehearsal", move |path| {
        let goes_on = || clock::boot_ms() < until_boot_ms && !outbox.is_gone();
        match rehearse(&config, &path, &asked, &goes_on) {
            Err(RehearseError::Ledger(error)) => Err(error),
            played => Ok(played),
        }
    });
    played.await?.map_err(|error| {
        let code = match error {
            RehearseError::Proposal(_) => code::BAD_CONFIG,
            _ => code::UNAVAILABLE,
        };
        // As `aex policy check` tells it: FILE:LINE:COLUMN.
        RpcError::new(code, error.to_string())
    })
}

/// Long work on the ledger's file: one at a time, on a thread and a connection of its own.
pub(super) async fn aside<T: Send + 'static>(
    kernel: &Kernel,
    busy: &AtomicBool,
    what: &str,
    work: impl FnOnce(PathBuf) -> Result<T, LedgerError> + Send + 'static,
) -> Result<T, RpcError> {
    if busy.swap(true, Ordering::AcqRel) {
        let text = format!(
            "{what}, or other work of its kind, is running already; try again when it is done"
        );
        return Err(RpcError::new(code::CONFLICT, text));
    }
    let path = kernel.ledger.clone();
    let done = tokio::task::spawn_blocking(move || work(path)).await;
    busy.store(false, Ordering::Release);
    match done {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(LedgerError::Refused(text))) => Err(RpcError::new(code::CONFLICT, text)),
        Ok(Err(error)) => Err(RpcError::new(code::INTERNAL, error.to_string())),
        Err(_) => {
            let text = format!("{what} failed; see the log of aex-admin");
            Err(RpcError::new(code::INTERNAL, text))
        }
    }
}

/// The history of the request is read beside the writer, which then reads only what came since.
async fn resolve(kernel: &Kernel, call: Call, asked: ResolveParams) {
    let history = match asked.hold.clone() {
        None => Ok(None),
        Some(hold) => {
            aside(
                kernel,
                &kernel.operators.at_long_work,
                "a resolve",
                move |path| reader::hold_history(&reader::snapshot(&path)?, &hold).map(Some),
            )
            .await
        }
    };
    match history {
        Err(error) => call.answer::<()>(Err(error)),
        Ok(history) => {
            let by_uid = call.by_another();
            let command = Op::Resolve(Box::new(asked), history);
            kernel.send(Command::Operator {
                command,
                by_uid,
                reply: reply(call),
            });
        }
    }
}

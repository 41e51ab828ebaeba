//! `aex group …` and `aex tree`.

use aex_admin_proto::operator::{NameParams, ScopeList, ScopeView, method};
use serde::Serialize;
use serde_json::json;

use crate::args::GroupCommand;
use crate::fault::Fault;
use crate::link::Kernel;
use crate::output::Out;
use crate::render;

pub(super) async fn run(command: GroupCommand, kernel: &Kernel, out: Out) -> Result<u8, Fault> {
    let named = |method, name| async move { view(method, &NameParams { name }, kernel, out).await };
    match command {
        GroupCommand::Create(args) => view(method::GROUP_CREATE, &args.params(), kernel, out).await,
        GroupCommand::Set(args) => {
            let params = args.params().map_err(Fault::Usage)?;
            view(method::GROUP_SET, &params, kernel, out).await
        }
        GroupCommand::List => list(method::GROUP_LIST, kernel, out).await,
        GroupCommand::Show { name } => named(method::GROUP_SHOW, name).await,
        GroupCommand::Pause { name } => named(method::GROUP_PAUSE, name).await,
        GroupCommand::Resume { name } => named(method::GROUP_RESUME, name).await,
        GroupCommand::Sever { name } => sever(name, kernel, out).await,
        GroupCommand::Delete { name } => named(method::GROUP_DELETE, name).await,
    }
}

async fn sever(name: String, kernel: &Kernel, out: Out) -> Result<u8, Fault> {
    let params = NameParams { name };
    let link = kernel.open().await?;
    let group: ScopeView = link.call(method::GROUP_SEVER, &params).await?;
    out.answer(&group, || {
        format!(
            "{}All open streams below it are cut, and it is paused; `aex group resume {}` undoes the pause.",
            render::scope(&group),
            group.name
        )
    })?;
    Ok(0)
}

pub(super) async fn tree(kernel: &Kernel, out: Out) -> Result<u8, Fault> {
    list(method::TREE, kernel, out).await
}

async fn list(method: &str, kernel: &Kernel, out: Out) -> Result<u8, Fault> {
    let link = kernel.open().await?;
    let list: ScopeList = link.call(method, &json!({})).await?;
    out.answer(&list, || render::tree(&list))?;
    Ok(0)
}

/// A method that answers the group as it now is.
async fn view<P: Serialize>(
    method: &str,
    params: &P,
    kernel: &Kernel,
    out: Out,
) -> Result<u8, Fault> {
    let group: ScopeView = kernel.open().await?.call(method, params).await?;
    out.answer(&group, || render::scope(&group))?;
    Ok(0)
}

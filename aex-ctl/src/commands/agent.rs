//! `aex agent …` and `aex token …`.

use aex_admin_proto::operator::{
    AgentList, AgentView, NameParams, TokenCreateParams, TokenIdParams, TokenList, TokenReply,
    method,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::args::AgentCommand;
use crate::fault::Fault;
use crate::link::Kernel;
use crate::output::Out;
use crate::render;

/// A reply with a token, and where to use it.
#[derive(Serialize)]
struct NewToken<'a> {
    #[serde(flatten)]
    reply: &'a TokenReply,
    base_url: &'a str,
}

pub(super) async fn run(command: AgentCommand, kernel: &Kernel, out: Out) -> Result<u8, Fault> {
    let named = |method, name| async move { view(method, &NameParams { name }, kernel, out).await };
    match command {
        AgentCommand::Create(args) => {
            new_token(method::AGENT_CREATE, &args.params(), kernel, out).await
        }
        AgentCommand::RotateToken(args) => {
            new_token(method::AGENT_ROTATE_TOKEN, &args.params(), kernel, out).await
        }
        AgentCommand::List => {
            let link = kernel.open().await?;
            let list: AgentList = link.call(method::AGENT_LIST, &json!({})).await?;
            out.answer(&list, || render::agents(&list))?;
            Ok(0)
        }
        AgentCommand::Set(args) => {
            let params = args.params().map_err(Fault::Usage)?;
            view(method::AGENT_SET, &params, kernel, out).await
        }
        AgentCommand::Show { name } => named(method::AGENT_SHOW, name).await,
        AgentCommand::Pause { name } => named(method::AGENT_PAUSE, name).await,
        AgentCommand::Resume { name } => named(method::AGENT_RESUME, name).await,
        AgentCommand::Sever { name } => sever(name, kernel, out).await,
        AgentCommand::Delete { name } => named(method::AGENT_DELETE, name).await,
    }
}

/// A method that answers the agent as it now is.
async fn view<P: Serialize>(
    method: &str,
    params: &P,
    kernel: &Kernel,
    out: Out,
) -> Result<u8, Fault> {
    let link = kernel.open().await?;
    let agent: AgentView = link.call(method, params).await?;
    out.answer(&agent, || render::agent(&agent))?;
    if agent.settings.bound_to().is_some() {
        let ways = kernel.ways(&link, &agent.name).await;
        ways.unserved(&agent.name, &agent.settings)
            .iter()
            .for_each(|doubt| Out::complain(doubt));
    }
    Ok(0)
}

async fn sever(name: String, kernel: &Kernel, out: Out) -> Result<u8, Fault> {
    let params = NameParams { name };
    let link = kernel.open().await?;
    let agent: AgentView = link.call(method::AGENT_SEVER, &params).await?;
    out.answer(&agent, || {
        format!(
            "{}Its open streams are cut, and it is paused; `aex agent resume {}` undoes the pause.",
            render::agent(&agent),
            agent.name
        )
    })?;
    Ok(0)
}

/// A method that answers a token: shown once.
async fn new_token<P: Serialize>(
    method: &str,
    params: &P,
    kernel: &Kernel,
    out: Out,
) -> Result<u8, Fault> {
    let link = kernel.open().await?;
    let reply: TokenReply = link.call(method, params).await?;
    let ways = kernel.ways(&link, &reply.name).await;
    let (reply, base_url) = (&reply, &ways.base_url_for(&reply.settings));
    let shown = out.answer(&NewToken { reply, base_url }, || {
        render::new_token(reply, base_url)
    });
    match shown {
        Err(Fault::Failed(why)) => Err(Fault::Failed(format!(
            "{why}. It was made all the same; its token is lost: make another with \
             `aex agent rotate-token {}`",
            reply.name
        ))),
        shown => {
            shown?;
            ways.doubts(&reply.name, &reply.settings)
                .iter()
                .for_each(|doubt| Out::complain(doubt));
            Ok(0)
        }
    }
}

pub(super) async fn create_token(
    params: &TokenCreateParams,
    kernel: &Kernel,
    out: Out,
) -> Result<u8, Fault> {
    new_token(method::TOKEN_CREATE, params, kernel, out).await
}

pub(super) async fn list_tokens(name: String, kernel: &Kernel, out: Out) -> Result<u8, Fault> {
    let link = kernel.open().await?;
    let list: TokenList = link.call(method::TOKEN_LIST, &NameParams { name }).await?;
    out.answer(&list, || render::tokens(&list))?;
    Ok(0)
}

pub(super) async fn revoke_token(id: i64, kernel: &Kernel, out: Out) -> Result<u8, Fault> {
    let link = kernel.open().await?;
    // Only who it was is shown, so the rest of the answer may be of any form.
    let token: Value = link
        .call(method::TOKEN_REVOKE, &TokenIdParams { id })
        .await?;
    out.answer(&token, || {
        let agent = token["agent"].as_str().unwrap_or("?");
        format!("Token {id} of {agent} is revoked.")
    })?;
    Ok(0)
}

//! `aex run`: a command with a token of its own and without provider credentials. The token
//! ends with it.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use aex_admin_proto::operator::{
    AgentState, AgentView, DaemonState, NameParams, RunCreateParams, Status, TokenCreateParams,
    TokenIdParams, TokenReply, method,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::de::IgnoredAny;
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::RunArgs;
use crate::confine;
use crate::credentials::is_provider_credential;
use crate::fault::{Fault, RUN_FAILED};
use crate::link::{Kernel, Link};
use crate::listen::socket_of;
use crate::output::Out;

/// How long the end of the command may wait for the kernel to revoke its token.
const REVOKE_LIMIT: Duration = Duration::from_secs(10);

/// By these a client is told of CAs: OpenSSL and most that read PEM, Python's requests, Node.
const TRUST: [&str; 3] = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"];

const CANNOT_EXECUTE: u8 = 126;
const NOT_FOUND: u8 = 127;

pub(super) async fn run(args: RunArgs, kernel: &Kernel) -> Result<u8, Fault> {
    let mut signals = Signals::take()?;
    let link = kernel.open().await?;
    let mut args = args;
    warn(&link, &args.agent).await;
    let token: TokenReply = match args.take_limits() {
        Some(run) => {
            let parent = args.agent.clone();
            let params = RunCreateParams { parent, run };
            link.call(method::RUN_CREATE, &params).await?
        }
        None => {
            let params = TokenCreateParams {
                name: args.agent.clone(),
                ttl_s: args.ttl,
                label: Some("run".into()),
                read_only: false,
            };
            link.call(method::TOKEN_CREATE, &params).await?
        }
    };
    let ways = kernel.ways(&link, &token.name).await;
    let base_url = ways.base_url_for(&token.settings);
    ways.doubts(&token.name, &token.settings)
        .iter()
        .for_each(|doubt| Out::complain(doubt));
    let trusts = TRUST.iter().any(|name| std::env::var_os(name).is_some());
    if let Some(hint) = trust_hint(&base_url, kernel.daemon().as_ref(), trusts) {
        Out::complain(&hint);
    }
    let command = command_of(kernel, &link, &args, &base_url).await;
    let ended = match command.and_then(|command| start(command, &token, &base_url)) {
        Ok(mut child) => wait(&mut child, &mut signals).await,
        Err(fault) => Err(fault),
    };
    revoke(&link, &token).await;
    ended.map(exit_code)
}

/// CMD may have other things to do, so it is started all the same. What else is wrong with the name is
/// told where a token is asked for.
async fn warn(link: &Link, name: &str) {
    let params = NameParams { name: name.into() };
    let agent: Result<AgentView, Fault> = link.call(method::AGENT_SHOW, &params).await;
    let Ok(agent) = agent else { return };
    let own = nix::unistd::geteuid().as_raw();
    for warning in pause_of(&agent).into_iter().chain(other_user(&agent, own)) {
        Out::complain(&warning);
    }
}

fn other_user(agent: &AgentView, own: u32) -> Option<String> {
    let name = &agent.name;
    agent.settings.uid.filter(|uid| *uid != own).map(|uid| {
        format!(
            "aex: {name} is bound to uid {uid}: requests of uid {own} are refused as of no token"
        )
    })
}

fn pause_of(agent: &AgentView) -> Option<String> {
    let name = &agent.name;
    (agent.state == AgentState::Paused).then(|| {
        format!("aex: {name} is paused: its requests are refused until aex agent resume {name}")
    })
}

/// Clients know public CAs alone, and of another's certificate they say only that they cannot verify it.
/// What CMD trusts is not this program's to set.
fn trust_hint(base_url: &str, daemon: Option<&DaemonState>, trusts: bool) -> Option<String> {
    let tls = daemon?.front.tls.as_ref()?;
    (base_url.starts_with("https://") && !trusts).then(|| {
        format!(
            "aex: {base_url} shows the certificate {}: where no public CA has signed it, clients must be told \
             of its CA, most by SSL_CERT_FILE=CA.pem, Node by NODE_EXTRA_CA_CERTS",
            tls.cert.display()
        )
    })
}

/// CMD itself, or the helper that confines it.
async fn command_of(
    kernel: &Kernel,
    link: &Link,
    args: &RunArgs,
    base_url: &str,
) -> Result<std::process::Command, Fault> {
    if !args.confine {
        return child_of(&args.command);
    }
    let status: Status = link.call(method::STATUS, &json!({})).await?;
    let bounds = confine::Bounds {
        kernel,
        ledger: Path::new(&status.ledger),
        way: socket_of(base_url),
        allowed: &args.allow_socket,
    };
    confine::wrap(&bounds, &args.command)
}

pub(crate) fn child_of(command: &[OsString]) -> Result<std::process::Command, Fault> {
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| Fault::Usage("no command to run".into()))?;
    let mut child = std::process::Command::new(program);
    child.args(arguments);
    Ok(child)
}

fn start(
    command: std::process::Command,
    token: &TokenReply,
    base_url: &str,
) -> Result<Child, Fault> {
    let program = command.get_program().to_owned();
    let mut child = Command::from(command);
    for (name, _) in std::env::vars_os() {
        if is_provider_credential(&name) {
            child.env_remove(name);
        }
    }
    child
        .env("OPENAI_BASE_URL", base_url)
        .env("OPENAI_API_BASE", base_url)
        .env("OPENAI_API_KEY", &token.token);
    child.spawn().map_err(|error| cannot_run(&program, &error))
}

/// Why a command did not start, with a shell's exit codes.
pub(crate) fn cannot_run(program: &OsStr, error: &std::io::Error) -> Fault {
    let name = program.to_string_lossy();
    let (exit, message) = match error.kind() {
        std::io::ErrorKind::NotFound => (NOT_FOUND, format!("{name}: no such command")),
        _ => (CANNOT_EXECUTE, format!("cannot run {name}: {error}")),
    };
    Fault::Command { exit, message }
}

/// Waits for the end; signals meant to end this program go to the command.
async fn wait(child: &mut Child, signals: &mut Signals) -> Result<ExitStatus, Fault> {
    loop {
        let signal = tokio::select! {
            ended = child.wait() => return ended.map_err(|error| Fault::Command {
                exit: RUN_FAILED,
                message: format!("cannot wait for the command: {error}"),
            }),
            signal = signals.next() => signal,
        };
        // The terminal's own keys reached the command already: twice would be once too often.
        let from_terminal = matches!(signal, Signal::SIGINT | Signal::SIGQUIT)
            && nix::unistd::tcgetpgrp(std::io::stdin()) == Ok(nix::unistd::getpgrp());
        if !from_terminal && let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) {
            // Not reaped before `wait` returns, so the pid is the command's.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

/// The token ends with the command, and with a run all that is open under it.
async fn revoke(link: &Link, token: &TokenReply) {
    let revoked: Result<IgnoredAny, Fault> = match &token.run {
        Some(run) => {
            let name = NameParams { name: run.clone() };
            link.read_again(method::RUN_END, &name, REVOKE_LIMIT).await
        }
        None => {
            let id = TokenIdParams { id: token.token_id };
            link.read_again(method::TOKEN_REVOKE, &id, REVOKE_LIMIT)
                .await
        }
    };
    if let Err(fault) = revoked {
        Out::complain(&format!(
            "aex: the token of this run could not be revoked: {fault}\nDo it with `aex token \
             revoke {}`.",
            token.token_id
        ));
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(i32::from(RUN_FAILED));
    u8::try_from(code).unwrap_or(RUN_FAILED)
}

struct Signals {
    interrupt: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn take() -> Result<Self, Fault> {
        let on = |kind| {
            signal(kind).map_err(|error| Fault::failed(format!("cannot take signals: {error}")))
        };
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            quit: on(SignalKind::quit())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::SIGINT,
            _ = self.quit.recv() => Signal::SIGQUIT,
            _ = self.terminate.recv() => Signal::SIGTERM,
            _ = self.hangup.recv() => Signal::SIGHUP,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_command_becomes_the_exit_code() {
        assert_eq!(exit_code(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(exit_code(ExitStatus::from_raw(15)), 143);
    }

    #[test]
    fn only_of_a_pause_is_warned() {
        let agent = |state: &str| -> AgentView {
            serde_json::from_value(serde_json::json!({
                "name": "ana", "state": state, "budget_micro": 0, "spent_micro": 0,
                "reserved_micro": 0, "remaining_micro": 0, "rpm": 1, "settings": {},
                "created_at_ms": 0, "in_flight": 0, "requests_last_minute": 0,
                "tokens_last_minute": 0,
            }))
            .unwrap()
        };
        assert_eq!(pause_of(&agent("active")), None);
        let warning = pause_of(&agent("paused")).unwrap();
        assert_eq!(
            warning,
            "aex: ana is paused: its requests are refused until aex agent resume ana"
        );
    }
}

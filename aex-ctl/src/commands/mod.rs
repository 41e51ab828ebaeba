//! One module a command: ask, show, exit code. Nothing is decided here.

mod advice;
mod agent;
mod backup;
pub(crate) mod child;
mod config;
mod daemon;
mod doctor;
mod explain;
mod group;
mod kernel;
mod ledger;
mod logs;
mod manual;
mod policy;
mod prices;
mod rehearse;
mod restore;
pub(crate) mod run;

pub(crate) use advice::key_variable;

use aex_admin_proto::operator::TokenCreateParams;
use serde_json::value::RawValue;

use crate::args::{Cli, Command, DaemonCommand, TokenCommand};
use crate::doctor::run_tries;
use crate::fault::Fault;
use crate::home;
use crate::link::{self, Kernel};
use crate::output::Out;

/// Carries one command line out; the exit code when nothing went wrong.
pub(crate) async fn run(cli: Cli) -> Result<u8, Fault> {
    let out = Out { json: cli.json };
    let kernel = || Kernel::choose(cli.socket.as_deref());
    match cli.command {
        Command::Init => init(out),
        Command::Daemon { command } => match command {
            DaemonCommand::Start(args) => daemon::start(args, out).await,
            DaemonCommand::Stop => daemon::stop(out).await,
            DaemonCommand::Restart(place) => daemon::restart(place, out).await,
            DaemonCommand::Status => daemon::status(out),
            DaemonCommand::Logs { follow, lines } => logs::show(lines, follow, out).await,
        },
        Command::Agent { command } => agent::run(command, &kernel()?, out).await,
        Command::Group { command } => group::run(command, &kernel()?, out).await,
        Command::Tree => group::tree(&kernel()?, out).await,
        Command::Token { command } => match command {
            TokenCommand::Create {
                name,
                ttl,
                label,
                read_only,
            } => {
                let params = TokenCreateParams {
                    name,
                    ttl_s: ttl,
                    label,
                    read_only,
                };
                agent::create_token(&params, &kernel()?, out).await
            }
            TokenCommand::List { name } => agent::list_tokens(name, &kernel()?, out).await,
            TokenCommand::Revoke { id } => agent::revoke_token(id, &kernel()?, out).await,
        },
        Command::Run(args) => run::run(args, &kernel()?).await,
        // Has run before there was a runtime.
        Command::Confined(_) => Ok(0),
        Command::Status => kernel::status(&kernel()?, out).await,
        Command::Metrics { watch } => kernel::metrics(watch, &kernel()?, out).await,
        Command::Models => kernel::models(&kernel()?, out).await,
        Command::Audit { against, strict } => {
            ledger::audit(against.as_deref(), strict, &kernel()?, out).await
        }
        Command::Ledger { command } => ledger::run(command, &kernel()?, out).await,
        Command::Prices { command } => prices::run(command, &kernel()?.places, out).await,
        Command::Config { command } => config::run(command, &kernel()?, out).await,
        Command::Policy { command } => policy::run(command, &kernel()?, out).await,
        Command::Completions { shell } => manual::completions(shell, out),
        Command::Man { dir } => manual::pages(&dir),
        Command::Doctor { stranger } => doctor::run(stranger.as_ref(), &kernel()?, out).await,
        Command::DoctorTries => run_tries(out),
        Command::Rpc { method, params } => rpc(&method, params, &kernel()?, out).await,
    }
}

/// Init: the home, its directories, the first models.yaml.
fn init(out: Out) -> Result<u8, Fault> {
    let places = link::user_places()?;
    let mut done = home::make_directories(&places)?;
    done.extend(home::first_config(&places)?);
    let value = serde_json::json!({
        "home": places.home,
        "config": places.config_file,
        "changed": done,
    });
    out.answer(&value, || {
        if done.is_empty() {
            return format!(
                "{} is there already: nothing was changed.",
                places.home.display()
            );
        }
        format!(
            "{}\nNext: look at {}, then `aex daemon start`.",
            done.join("\n"),
            places.config_file.display()
        )
    })?;
    Ok(0)
}

/// Rpc: the answer as it came.
async fn rpc(method: &str, params: String, kernel: &Kernel, out: Out) -> Result<u8, Fault> {
    // Raw line breaks stand only between the tokens of JSON, and a frame is one line.
    let params = RawValue::from_string(params.replace(['\n', '\r'], " "))
        .map_err(|error| Fault::Usage(format!("PARAMS is not JSON: {error}")))?;
    if !params.get().starts_with(['{', '[']) {
        return Err(Fault::Usage("PARAMS must be a JSON object".into()));
    }
    let link = kernel.open().await?;
    let answer: Box<RawValue> = link.call(method, &params).await?;
    out.document(&answer)?;
    Ok(0)
}

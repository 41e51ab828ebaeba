//! The options of `aex policy explain`: a request, and whose it is.

use std::path::PathBuf;

use aex_admin_proto::worker::Route;
use clap::Args;

use super::values;

/// The end of its help: how the answer is read.
pub(super) const HELP: &str = "\
The first line says whether the request passes, the next one whose rule decides. Below is a
table for each provider that has the model: every rule that was looked at, in order.
  scope    whose rule it is: the run's, the agent's, a group's or the kernel's; - where it is
           the model's or the provider's
  needs    the least that the request needs of it (money, tokens, requests); without an output
           cap of its own it may get more: what it would hold is in the first line
  most     the limit
  used     what is spent or counted of it until now
  held     what requests that are open hold of it
  verdict  passes, refuses, waits (it would fit but for what is held); warns and shadows are
           rules that would refuse, and whose mode lets it pass

Exit 0 whether the request passes or not; 1 when it is no valid request.

Example:
  aex policy explain --agent atlas request.json
  aex policy explain --agent atlas --run atlas/7 --json - < request.json";

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The agent whose request it is
    #[arg(short, long, value_name = "NAME")]
    pub(crate) agent: String,
    /// One of its runs, whose limits then hold as well [default: with a token of the agent itself]
    #[arg(long, value_name = "RUN")]
    pub(crate) run: Option<String>,
    /// Where it would be sent to: /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/responses
    #[arg(long, value_name = "ROUTE", default_value = "/v1/chat/completions", value_parser = values::route)]
    pub(crate) route: Route,
    /// The agent brings a provider key of its own
    #[arg(long)]
    pub(crate) own_key: bool,
    /// Its session, as in the header x-aex-session
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,
    /// The body of the request, JSON as the agent would send it; - reads standard input
    #[arg(value_name = "REQUEST.json")]
    pub(crate) request: PathBuf,
}

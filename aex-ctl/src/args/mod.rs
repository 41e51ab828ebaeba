//! The command line as clap reads it. Every `--help` ends with an example.

mod agent;
mod capabilities;
mod explain;
mod group;
mod limits;
mod place;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;

use aex_admin_proto::operator::RunParams;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

pub(crate) use agent::AgentCommand;
pub(crate) use explain::ExplainArgs;
pub(crate) use group::GroupCommand;
pub(crate) use place::{PlaceArgs, Plan, front_options};

use crate::credentials;
use crate::doctor::Stranger;
use crate::fault::RUN_FAILED;

#[derive(Debug, Parser)]
#[command(
    name = "aex",
    version,
    about = "AEX, the local boundary between AI agents and model providers",
    after_help = "Example:\n  aex init\n  aex daemon start\n  aex agent create my-agent 5.00 30"
)]
pub(crate) struct Cli {
    /// Print one JSON document (a following command: one a line) and nothing else
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Socket of aex-admin [env: AEX_SOCKET] [default: the system's, or run/admin.sock of AEX_HOME]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make the home (~/.aex or AEX_HOME) with a commented models.yaml
    #[command(after_help = "Example:\n  aex init && $EDITOR ~/.aex/config/models.yaml")]
    Init,
    /// Start, stop and watch the kernel of this user
    #[command(after_help = "Example:\n  GROQ_API_KEY=… aex daemon start")]
    Daemon {
        #[command(subcommand)]
        command: DaemonCommand,
    },
    /// Agents: what each may spend and do
    #[command(after_help = "Example:\n  aex agent create my-agent 5.00 30")]
    Agent {
        #[command(subcommand)]
        command: AgentCommand,
    },
    /// Groups: limits that all agents below them share; the kernel's own is called kernel
    #[command(after_help = "Example:\n  aex group create team --budget-per-day 20.00")]
    Group {
        #[command(subcommand)]
        command: GroupCommand,
    },
    /// Every scope: who has what, used, held, left
    #[command(after_help = "Example:\n  aex tree")]
    Tree,
    /// Run a command as an agent: with a token of its own, without provider credentials
    #[command(after_help = run_help())]
    Run(RunArgs),
    /// What `aex run --confine` starts itself as
    #[command(hide = true)]
    Confined(ConfinedArgs),
    /// Tokens of an agent
    #[command(after_help = "Example:\n  aex token list my-agent")]
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Whether the kernel runs and is ready (exit 3 when it is stopped)
    #[command(after_help = "Example:\n  aex status --json")]
    Status,
    /// Figures of the kernel and of each agent
    #[command(after_help = "Example:\n  aex metrics --watch")]
    Metrics {
        /// Again every two seconds
        #[arg(long)]
        watch: bool,
    },
    /// Check the ledger; names what is violated, where (exit 1)
    #[command(
        after_help = "Example:\n  aex audit --strict\n  aex audit --against /mnt/elsewhere/checkpoints.jsonl"
    )]
    Audit {
        /// Checkpoints that were kept elsewhere, as `aex ledger checkpoint` prints them
        #[arg(long, value_name = "FILE")]
        against: Option<PathBuf>,
        /// Changes made from outside count as violations
        #[arg(long)]
        strict: bool,
    },
    /// Read, sign, back up and correct the ledger
    #[command(after_help = "Example:\n  aex ledger tail -f")]
    Ledger {
        #[command(subcommand)]
        command: LedgerCommand,
    },
    /// Models, where they go and what they cost
    #[command(after_help = "Example:\n  aex models")]
    Models,
    /// Prices that are known of providers' models, and your own over them
    #[command(
        after_help = "A prices.yaml beside models.yaml is laid over the shipped prices; what models.yaml says itself\ncomes before both. The kernel need not run.\n\nExample:\n  aex prices show gpt-4o"
    )]
    Prices {
        #[command(subcommand)]
        command: PricesCommand,
    },
    /// Check models.yaml, or take it up again
    #[command(after_help = "Example:\n  aex config check && aex config reload")]
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Policies: what settings allow and you forbid all the same; and which rule decides on a request
    #[command(after_help = "Example:\n  aex policy check && aex config reload")]
    Policy {
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// Try what could be wrong: sockets, permissions, keys, clock, providers, ways around (exit 1 if anything is)
    #[command(
        after_help = "With --as (as root) it becomes that user and tries: to read the ledger, keys and logs, to open sockets,\nto reach providers past AEX. Nothing is written, and nothing is sent to a provider.\n\nExample:\n  aex doctor\n  sudo aex doctor --as agents"
    )]
    Doctor {
        /// Also what this user of the host can do, by number or name
        #[arg(long = "as", value_name = "UID", value_parser = Stranger::parse)]
        stranger: Option<Stranger>,
    },
    /// The part of `aex doctor --as` that is done as another user
    #[command(hide = true)]
    DoctorTries,
    /// One raw JSON-RPC call
    #[command(
        after_help = "Example:\n  aex rpc agent.show '{\"name\":\"my-agent\"}'\n  aex rpc rpc.discover"
    )]
    Rpc {
        /// Its name, as in `rpc.discover`
        method: String,
        /// Parameters, a JSON object
        #[arg(default_value = "{}")]
        params: String,
    },
    /// Print completions for a shell; packages bring them along
    #[command(
        after_help = "Example:\n  aex completions bash > ~/.local/share/bash-completion/completions/aex"
    )]
    Completions {
        /// For which one
        shell: Shell,
    },
    /// Write the man pages, one a command, into a directory: how packages are made
    #[command(hide = true, after_help = "Example:\n  aex man target/man")]
    Man {
        /// It must be there
        dir: PathBuf,
    },
}

const CONFINE_HELP: &str = "With --confine CMD sees no file, socket or process of AEX, no process but \
    its own, and none of the\nUnix sockets at which programs listen when it starts, as far as Linux tells where (buses, \
    docker, X,\nssh-agent), but --allow-socket: it can ask for no more money than it has. Started by root, CMD \
    finds\n/, /usr, /etc and /boot read-only. It does not stop what CMD writes for others to run later (a \
    shell's\nstart files, cron, git hooks). What CMD left running ends with it. Where the kernel does not allow it, CMD is \
    not started (exit 125).";

fn run_help() -> String {
    format!(
        "{}\n\n{CONFINE_HELP}\n\nExit code: that of CMD (128 + N when signal N ended it); 125 to 127 are aex's own.\n\n\
         Example:\n  aex run -a my-agent -- python3 agent.py\n  \
         aex run -a my-agent --budget 0.50 --max-tokens 20000 --ttl 30m -- python3 agent.py\n  \
         aex run -a my-agent --confine -- python3 agent.py",
        credentials::help()
    )
}

impl Command {
    /// The exit code that stands for all failures of the command's own, if it has one.
    pub(crate) fn own_failure(&self) -> Option<u8> {
        matches!(self, Self::Run(_) | Self::Confined(_)).then_some(RUN_FAILED)
    }

    /// Whether this process becomes the supervisor.
    pub(crate) fn supervises(&self) -> bool {
        matches!(
            self,
            Self::Daemon {
                command: DaemonCommand::Start(StartArgs {
                    foreground: true,
                    ..
                })
            }
        )
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum DaemonCommand {
    /// Start the kernel; returns when it would answer a request, else says why not
    #[command(
        after_help = "Provider keys (GROQ_API_KEY, OPENAI_API_KEY, …) are taken from the environment of this command\n\
                      and given to aex-egress alone; the supervisor keeps them for its restarts.\n\nExample:\n  GROQ_API_KEY=… aex daemon start --workers 2\n  aex daemon start --listen 127.0.0.1:9000 --listen unix:/srv/aex/agents.sock\n  aex daemon start --listen 0.0.0.0:9443 --tls-cert chain.pem --tls-key key.pem"
    )]
    Start(StartArgs),
    /// Stop the kernel; requests in flight are finished first
    #[command(after_help = "Example:\n  aex daemon stop")]
    Stop,
    /// Restart the programs of a running daemon; its port and its provider keys are kept
    #[command(
        after_help = "Where no daemon runs, one is started with the options of this command and the defaults: nothing is\n\
                      kept of one that was stopped.\n\n\
                      With another --workers, --listen or TLS option it is a whole new daemon, whose keys are those of this\n\
                      environment; it is refused where they lack one that the running daemon has.\n\nExample:\n  aex daemon restart"
    )]
    Restart(PlaceArgs),
    /// The supervisor and its programs (exit 3 when stopped)
    #[command(after_help = "Example:\n  aex daemon status")]
    Status,
    /// Logs of all programs, by time
    #[command(after_help = "Example:\n  aex daemon logs -f -n 20")]
    Logs {
        /// Go on with what is logged from now on
        #[arg(short, long)]
        follow: bool,
        /// Lines to begin with
        #[arg(short = 'n', long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=100_000))]
        lines: u32,
    },
}

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Stay in the foreground and log to standard error
    #[arg(long)]
    pub(crate) foreground: bool,
    /// How the background start calls itself: in a session of its own, the outcome on stdout
    #[arg(long, hide = true, requires = "foreground")]
    pub(crate) detached: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The agent that pays
    #[arg(short, long, value_name = "NAME")]
    pub(crate) agent: String,
    /// The token ends after this, whatever CMD does: 90s, 30m, 24h, 7d
    #[arg(long, value_name = "TIME", value_parser = values::seconds)]
    pub(crate) ttl: Option<u64>,
    /// USD that this run may spend, of the agent's
    #[arg(long, value_name = "USD", value_parser = values::usd, allow_negative_numbers = true)]
    budget: Option<i64>,
    /// Requests of this run in any 60 seconds
    #[arg(long, value_name = "N", value_parser = agent::rpm(), allow_negative_numbers = true)]
    rpm: Option<u64>,
    #[command(flatten)]
    options: agent::OptionArgs,
    /// Shut CMD in: AEX's files, sockets and processes are not to be found, and CMD has no more rights
    /// than its user (needs user namespaces)
    #[arg(long)]
    pub(crate) confine: bool,
    /// With --confine: a Unix socket that CMD may use, and that is hidden from it otherwise, as every one is at
    /// which a program listens (a database's, $SSH_AUTH_SOCK); may be given several times
    #[arg(long, value_name = "PATH", requires = "confine")]
    pub(crate) allow_socket: Vec<PathBuf>,
    /// The command; what follows its name is its own. `--` before it is optional
    #[arg(trailing_var_arg = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct ConfinedArgs {
    #[arg(long)]
    pub(crate) stage: Stage,
    /// Whose end is that of this process too.
    #[arg(long, value_name = "PID")]
    pub(crate) parent: Option<String>,
    #[arg(long, value_name = "PATH")]
    pub(crate) hide: Vec<PathBuf>,
    /// Is seen, and can be neither written nor replaced.
    #[arg(long, value_name = "PATH")]
    pub(crate) hold: Vec<PathBuf>,
    #[arg(long, value_name = "PATH")]
    pub(crate) allow_socket: Vec<PathBuf>,
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Stage {
    Outer,
    Inner,
    Command,
}

impl RunArgs {
    /// The run's own limits; none where the agent's alone hold.
    pub(crate) fn take_limits(&mut self) -> Option<RunParams> {
        let run = RunParams {
            budget_micro: self.budget.take(),
            rpm: self.rpm.take(),
            ttl_s: None,
            settings: std::mem::take(&mut self.options).settings(),
        };
        (run != RunParams::default()).then_some(RunParams {
            ttl_s: self.ttl,
            ..run
        })
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Tokens of an agent (never the token itself)
    #[command(after_help = "Example:\n  aex token list my-agent")]
    List {
        /// The agent
        name: String,
    },
    /// A further token of an agent, printed once
    #[command(after_help = "Example:\n  aex token create my-agent --read-only --ttl 7d")]
    Create {
        /// The agent
        name: String,
        /// Life of the token: 90s, 30m, 24h, 7d [default: no end]
        #[arg(long, value_name = "TIME", value_parser = values::seconds)]
        ttl: Option<u64>,
        /// What it is for, shown in `aex token list`
        #[arg(long, value_name = "TEXT")]
        label: Option<String>,
        /// It may look (models, its own budget, quotes), and carry nothing out
        #[arg(long)]
        read_only: bool,
    },
    /// End one token, at once
    #[command(after_help = "Example:\n  aex token revoke 7")]
    Revoke {
        /// Its number, as in `aex token list`
        #[arg(value_parser = clap::value_parser!(i64).range(1..))]
        id: i64,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum LedgerCommand {
    /// The last events, and with -f those that follow
    #[command(after_help = "Example:\n  aex ledger tail -n 20 -f")]
    Tail {
        /// Go on with new events
        #[arg(short, long)]
        follow: bool,
        /// Events to begin with
        #[arg(short = 'n', long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
        lines: u32,
    },
    /// Every event, all fields, oldest first
    #[command(after_help = "Example:\n  aex ledger export --format csv > events.csv")]
    Export {
        /// JSON Lines, or CSV with a head
        #[arg(long, value_enum, default_value_t = ExportFormat::Jsonl)]
        format: ExportFormat,
    },
    /// Sign the last event; keep what it prints elsewhere, for `aex audit --against`
    #[command(after_help = "Example:\n  aex ledger checkpoint >> /mnt/elsewhere/checkpoints.jsonl")]
    Checkpoint,
    /// Copy the ledger to a new file while the kernel runs
    #[command(after_help = "Example:\n  aex ledger backup /mnt/elsewhere/aex-2026-01-31.db")]
    Backup {
        /// A new file; the directory must be writable for aex-admin
        file: PathBuf,
    },
    /// Put a backup in the ledger's place; the kernel must be stopped
    ///
    /// The backup is audited, and compared with the ledger that is there, its last checkpoint and the
    /// egress's journal. Where it lacks something that they tell, or is signed with another key than the
    /// one in aex.db.key, nothing is changed without --accept-loss. The ledger that was there is kept.
    #[command(after_help = "Example:\n  aex daemon stop && aex ledger restore aex-2026-01-31.db")]
    Restore {
        /// As `aex ledger backup` wrote it
        file: PathBuf,
        /// Restore although events are missing in it; what is missing is recorded
        #[arg(long)]
        accept_loss: bool,
    },
    /// Rebuild every balance from the events, and compare (exit 1 when one differs)
    #[command(after_help = "Example:\n  aex ledger replay")]
    Replay,
    /// Append a correction, with a reason
    ///
    /// With HOLD: that request is to have cost --cost in all, by the provider's bill. With --agent:
    /// --add is added to what the agent spent.
    #[command(
        after_help = "Example:\n  aex ledger resolve 6f1c… --cost 0.0132 --reason 'invoice 2026-01, line 7'\n  aex ledger resolve --agent atlas --add 1.50 --reason 'lost with the disk of 31 January'"
    )]
    Resolve(ResolveArgs),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ExportFormat {
    Jsonl,
    Csv,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ResolveArgs {
    /// Reservation id of an ended request: `x-aex-request-id`, `hold` in the events
    #[arg(requires = "cost", conflicts_with_all = ["agent", "add"])]
    pub(crate) hold: Option<String>,
    /// What the request really cost, USD, to the picodollar
    #[arg(long, value_name = "USD", requires = "hold", conflicts_with_all = ["agent", "add"], value_parser = values::usd_pico)]
    pub(crate) cost: Option<i64>,
    /// An agent whose money is corrected without a request: what was lost with a disk, say
    #[arg(
        long,
        value_name = "NAME",
        requires = "add",
        required_unless_present = "hold"
    )]
    pub(crate) agent: Option<String>,
    /// Added to what the agent spent, USD; may be negative
    #[arg(long, value_name = "USD", requires = "agent", allow_hyphen_values = true, value_parser = values::signed_usd_pico)]
    pub(crate) add: Option<i64>,
    /// Kept with the correction; at most 500 bytes
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check a file, the prices.yaml and the policies beside it; the kernel need not run
    #[command(after_help = "Example:\n  aex config check ./models.yaml")]
    Check {
        /// The models.yaml to check [default: the kernel's]
        file: Option<PathBuf>,
    },
    /// Take models.yaml, prices.yaml and policies up again; a bad file is refused and the old ones stay in force
    #[command(after_help = "Example:\n  aex config reload")]
    Reload,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Check *.cedar files, against models.yaml and the agents that there are; the kernel need not run
    #[command(
        after_help = "Exit 1 when they would not come into force; the first fault is told as FILE:LINE:COLUMN.\n\nExample:\n  aex policy check ./policies"
    )]
    Check {
        /// The directory of *.cedar files [default: policies/ beside the kernel's models.yaml]
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
    },
    /// Why a request would pass or not: each rule that is looked at, whose it is, with its figures
    ///
    /// The request is judged as the kernel would judge it now, by the same reader and the same rules:
    /// settings, policies, limits and budgets of the agent and of all that is above it. Nothing is sent to
    /// a provider, and nothing is held. The kernel must run.
    #[command(after_help = explain::HELP)]
    Explain(ExplainArgs),
    /// Which requests of the past would a proposal have refused
    ///
    /// Requests that were granted since then are decided again, by what is proposed alone: by whom they
    /// would have been refused, and the money. Nothing is changed. The kernel must run.
    #[command(after_help = REHEARSE_HELP)]
    Rehearse {
        /// NAME.cedar (policies), NAME.yaml (limits of scopes), or a directory of *.cedar and scopes.yaml
        proposed: PathBuf,
        /// How far back: 90s, 30m, 24h, 7d
        #[arg(long = "since", value_name = "TIME", default_value = "24h", value_parser = values::seconds)]
        since_s: u64,
    },
}

const REHEARSE_HELP: &str = "\
A scopes.yaml has settings under the names that `aex agent show --json` gives them:
  kernel: { max_concurrency: 10 }
  groups: { team: { limits: [money/day=5.00] } }
  agents: { ana: { limits: [requests/minute=10], capabilities: { denied_tools: [shell] } } }
A sum counts from the beginning of that time. Exit 0 whatever is found, 1 where the proposal is at fault.

Example:
  aex policy rehearse ./proposed --since 7d";

#[derive(Debug, Subcommand)]
pub(crate) enum PricesCommand {
    /// Every model with a known price
    #[command(after_help = "Example:\n  aex prices list --provider groq")]
    List {
        /// Of this provider alone
        #[arg(long, value_name = "NAME")]
        provider: Option<String>,
    },
    /// What a model costs, its limits, and where that is from (exit 4 when nothing is known)
    #[command(after_help = "Example:\n  aex prices show openai/gpt-4o")]
    Show {
        /// PROVIDER/NAME, or a name or alias that one provider alone has
        model: String,
    },
    /// Take up LiteLLM's model_prices_and_context_window.json as a prices.yaml beside models.yaml
    #[command(
        after_help = "An entry that cannot be read is left out and counted, never guessed. A prices.yaml that you wrote\nis kept as prices.yaml.old.\n\nExample:\n  aex prices import model_prices_and_context_window.json && aex config reload"
    )]
    Import {
        /// LiteLLM's file
        file: PathBuf,
    },
}

/// A mistake in the usage is 2; one of `aex run` must not look like an exit code of CMD.
pub(crate) fn usage_exit_code(arguments: impl Iterator<Item = OsString>) -> u8 {
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        if argument == "--socket" {
            arguments.next();
        } else if !argument.to_string_lossy().starts_with('-') {
            return if argument == "run" { RUN_FAILED } else { 2 };
        }
    }
    2
}

#[cfg(test)]
mod tests;

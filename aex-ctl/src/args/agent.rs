//! `aex agent …`: what an agent may spend and do, as options, and as the settings of the protocol.

use aex_admin_proto::CertDigest;
use aex_admin_proto::limit::LimitKey;
use aex_admin_proto::operator::{CreateParams, Passthrough, RotateParams, SetParams, Settings};
use clap::{Args, Subcommand, ValueEnum};

use super::capabilities::{CapabilityArgs, either, is_set};
use super::limits::LimitArgs;
use super::values::{self, Names};

#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// Make an agent and print its token, once
    #[command(
        after_help = "Example:\n  aex agent create my-agent 5.00 30 --allowed-models gpt-oss-20b --ttl 24h"
    )]
    Create(Box<CreateArgs>),
    /// All agents
    #[command(after_help = "Example:\n  aex agent list --json")]
    List,
    /// One agent, in full
    #[command(after_help = "Example:\n  aex agent show my-agent")]
    Show {
        /// The agent
        name: String,
    },
    /// Change an agent; in force at its next request
    #[command(
        after_help = "Example:\n  aex agent set my-agent --add 2.50 --rpm 60 --clear allowed-models"
    )]
    Set(Box<SetArgs>),
    /// A new token; the old ones end now, or after --grace
    ///
    /// All of them do, further ones (`aex token create`) and those of running runs too; one that ends
    /// before --grace is over still does. What is open is not cut.
    #[command(after_help = "Example:\n  aex agent rotate-token my-agent --grace 10m")]
    RotateToken(RotateArgs),
    /// Refuse the agent's requests until it is resumed
    #[command(after_help = "Example:\n  aex agent pause my-agent")]
    Pause {
        /// The agent
        name: String,
    },
    /// End a pause
    #[command(after_help = "Example:\n  aex agent resume my-agent")]
    Resume {
        /// The agent
        name: String,
    },
    /// Pause, and cut what is open
    #[command(after_help = "Example:\n  aex agent sever my-agent")]
    Sever {
        /// The agent
        name: String,
    },
    /// Close the agent: its history stays, its name stays taken
    #[command(after_help = "Example:\n  aex agent delete my-agent")]
    Delete {
        /// The agent
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// What it is called: 1 to 64 of A-Z a-z 0-9 . _ -
    name: String,
    /// USD, an exact decimal
    #[arg(value_parser = values::usd, allow_negative_numbers = true)]
    budget: i64,
    /// Requests in any 60 seconds
    #[arg(value_parser = rpm(), allow_negative_numbers = true)]
    rpm: u64,
    /// Life of the token: 90s, 30m, 24h, 7d [default: no end]
    #[arg(long, value_name = "TIME", value_parser = values::seconds)]
    ttl: Option<u64>,
    /// The group above it [default: none but the kernel]
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    #[command(flatten)]
    options: OptionArgs,
}

impl CreateArgs {
    pub(crate) fn params(self) -> CreateParams {
        CreateParams {
            name: self.name,
            budget_micro: self.budget,
            rpm: self.rpm,
            ttl_s: self.ttl,
            settings: self.options.settings(),
            group: self.group,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct RotateArgs {
    /// The agent
    name: String,
    /// Life of the new token: 90s, 30m, 24h, 7d [default: no end]
    #[arg(long, value_name = "TIME", value_parser = values::seconds)]
    ttl: Option<u64>,
    /// The old tokens, those of runs too, stay valid this long [default: they end now]
    #[arg(long, value_name = "TIME", value_parser = values::seconds)]
    grace: Option<u64>,
}

impl RotateArgs {
    pub(crate) fn params(self) -> RotateParams {
        RotateParams {
            name: self.name,
            ttl_s: self.ttl,
            grace_s: self.grace,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// The agent
    name: String,
    /// The new budget in USD
    #[arg(long, value_name = "USD", value_parser = values::usd, conflicts_with = "add",
          allow_negative_numbers = true)]
    budget: Option<i64>,
    /// Add to the budget; a negative amount takes from it
    #[arg(long, value_name = "USD", value_parser = values::signed_usd, allow_hyphen_values = true)]
    add: Option<i64>,
    /// Requests in any 60 seconds
    #[arg(long, value_name = "N", value_parser = rpm(), allow_negative_numbers = true)]
    rpm: Option<u64>,
    /// Put a setting back to its default (may be given again)
    #[arg(long, value_name = "SETTING")]
    clear: Vec<Setting>,
    /// Take a limit away, and what it has counted: tokens/day, … (may be given again)
    #[arg(long, value_name = "LIMIT")]
    drop_limit: Vec<LimitKey>,
    /// Move it below this group; `kernel` for none
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    #[command(flatten)]
    options: OptionArgs,
}

impl SetArgs {
    /// Nothing to change, or a setting both set and cleared, is a mistake.
    pub(crate) fn params(self) -> Result<SetParams, String> {
        let settings = self.options.settings();
        if let Some(both) = self.clear.iter().find(|setting| setting.is_in(&settings)) {
            return Err(format!(
                "{} cannot be set and cleared at once",
                both.wire_name().replace('_', "-")
            ));
        }
        let params = SetParams {
            name: self.name,
            budget_micro: self.budget,
            add_micro: self.add,
            rpm: self.rpm,
            settings,
            clear: self.clear.iter().map(|s| s.wire_name().into()).collect(),
            drop_limits: self.drop_limit,
            group: self.group,
        };
        let nothing = SetParams {
            name: params.name.clone(),
            ..SetParams::default()
        };
        if params == nothing {
            return Err(
                "nothing to change: give --budget, --add, --rpm, --clear or another option \
                 (see `aex agent set --help`)"
                    .into(),
            );
        }
        Ok(params)
    }
}

/// What an agent may do. Absent: the default of models.yaml, or no limit.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "What the agent may do")]
pub(super) struct OptionArgs {
    /// Only these models; * is any run of characters
    #[arg(long, value_name = "A,B", value_parser = values::names)]
    allowed_models: Option<Names>,
    /// May bring its own provider key, else the operator's is used
    #[arg(long, group = "passthrough_choice")]
    allow_passthrough: bool,
    /// Must bring its own provider key
    #[arg(long, group = "passthrough_choice")]
    require_passthrough: bool,
    /// May not bring its own provider key
    #[arg(long, group = "passthrough_choice")]
    no_passthrough: bool,
    /// Tokens in any 60 seconds
    #[arg(long, value_name = "N", value_parser = rate())]
    max_tokens_per_minute: Option<u64>,
    /// Input tokens of one request
    #[arg(long, value_name = "N", value_parser = rate())]
    max_input_tokens: Option<u64>,
    /// Output tokens of one request
    #[arg(long, value_name = "N", value_parser = rate())]
    max_output_tokens: Option<u64>,
    /// Requests at once
    #[arg(long, value_name = "N", value_parser = rate())]
    max_concurrency: Option<u64>,
    /// May stream
    #[arg(long, conflicts_with = "no_streaming")]
    streaming: bool,
    /// May not stream
    #[arg(long)]
    no_streaming: bool,
    /// May use tools
    #[arg(long, conflicts_with = "no_tools")]
    tools: bool,
    /// May not use tools
    #[arg(long, conflicts_with = "allowed_tools")]
    no_tools: bool,
    /// Only these tools; * is any run of characters
    #[arg(long, value_name = "A,B", value_parser = values::names)]
    allowed_tools: Option<Names>,
    /// May send images
    #[arg(long, conflicts_with = "no_vision")]
    vision: bool,
    /// May not send images
    #[arg(long)]
    no_vision: bool,
    #[command(flatten)]
    bound: BoundArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    capabilities: CapabilityArgs,
}

/// From whom tokens are taken. Absent: from whoever has one.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "From whom its tokens are taken")]
struct BoundArgs {
    /// This user's processes alone, over a Unix socket (--listen unix:…)
    #[arg(long, value_name = "N|NAME", value_parser = values::uid)]
    uid: Option<u32>,
    /// Whoever shows this client certificate alone, over TLS (--tls-client-ca): its SHA-256, or a PEM file
    #[arg(long, value_name = "SHA256|FILE", value_parser = values::client_cert)]
    client_cert: Option<CertDigest>,
}

impl OptionArgs {
    pub(super) fn settings(self) -> Settings {
        let passthrough = if self.allow_passthrough {
            Some(Passthrough::Allow)
        } else if self.require_passthrough {
            Some(Passthrough::Require)
        } else if self.no_passthrough {
            Some(Passthrough::Deny)
        } else {
            None
        };
        let mut settings = Settings {
            allowed_models: self.allowed_models.map(|names| names.0),
            passthrough,
            max_tokens_per_minute: self.max_tokens_per_minute,
            max_input_tokens: self.max_input_tokens,
            max_output_tokens: self.max_output_tokens,
            max_concurrency: self.max_concurrency,
            streaming: either(self.streaming, self.no_streaming),
            tools: either(self.tools, self.no_tools),
            allowed_tools: self.allowed_tools.map(|names| names.0),
            vision: either(self.vision, self.no_vision),
            capabilities: Box::new(self.capabilities.capabilities()),
            uid: self.bound.uid,
            client_cert: self.bound.client_cert,
            ..Settings::default()
        };
        self.limits.add_to(&mut settings);
        settings
    }
}

pub(super) fn rpm() -> impl clap::builder::TypedValueParser<Value = u64> {
    clap::value_parser!(u64).range(1..=1_000_000_000)
}

/// A positive whole number that also fits the ledger's columns.
fn rate() -> impl clap::builder::TypedValueParser<Value = u64> {
    clap::value_parser!(u64).range(1..=1_000_000_000_000)
}

/// Settings by name, for `--clear`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Setting {
    AllowedModels,
    Passthrough,
    MaxTokensPerMinute,
    MaxInputTokens,
    MaxOutputTokens,
    MaxConcurrency,
    Streaming,
    Tools,
    AllowedTools,
    Vision,
    Limits,
    MaxHeld,
    MaxSessions,
    TimeZone,
    Labels,
    Uid,
    ClientCert,
    AllowedProviders,
    AllowedRoutes,
    Audio,
    Files,
    StructuredOutput,
    HostedTools,
    DeniedTools,
    ParallelToolCalls,
    MaxChoices,
    Temperature,
    OnForbiddenTool,
}

impl Setting {
    /// The field's name in [`Settings`].
    pub(super) fn wire_name(self) -> &'static str {
        match self {
            Self::AllowedModels => "allowed_models",
            Self::Passthrough => "passthrough",
            Self::MaxTokensPerMinute => "max_tokens_per_minute",
            Self::MaxInputTokens => "max_input_tokens",
            Self::MaxOutputTokens => "max_output_tokens",
            Self::MaxConcurrency => "max_concurrency",
            Self::Streaming => "streaming",
            Self::Tools => "tools",
            Self::AllowedTools => "allowed_tools",
            Self::Vision => "vision",
            Self::Limits => "limits",
            Self::MaxHeld => "max_held_percent",
            Self::MaxSessions => "max_sessions",
            Self::TimeZone => "time_zone",
            Self::Labels => "labels",
            Self::Uid => "uid",
            Self::ClientCert => "client_cert",
            Self::AllowedProviders => "allowed_providers",
            Self::AllowedRoutes => "allowed_routes",
            Self::Audio => "audio",
            Self::Files => "files",
            Self::StructuredOutput => "structured_output",
            Self::HostedTools => "hosted_tools",
            Self::DeniedTools => "denied_tools",
            Self::ParallelToolCalls => "parallel_tool_calls",
            Self::MaxChoices => "max_choices",
            Self::Temperature => "temperature",
            Self::OnForbiddenTool => "on_forbidden_tool",
        }
    }

    pub(super) fn is_in(self, settings: &Settings) -> bool {
        match self {
            Self::AllowedModels => settings.allowed_models.is_some(),
            Self::Passthrough => settings.passthrough.is_some(),
            Self::MaxTokensPerMinute => settings.max_tokens_per_minute.is_some(),
            Self::MaxInputTokens => settings.max_input_tokens.is_some(),
            Self::MaxOutputTokens => settings.max_output_tokens.is_some(),
            Self::MaxConcurrency => settings.max_concurrency.is_some(),
            Self::Streaming => settings.streaming.is_some(),
            Self::Tools => settings.tools.is_some(),
            Self::AllowedTools => settings.allowed_tools.is_some(),
            Self::Vision => settings.vision.is_some(),
            Self::Limits => settings.limits.is_some(),
            Self::MaxHeld => settings.max_held_percent.is_some(),
            Self::MaxSessions => settings.max_sessions.is_some(),
            Self::TimeZone => settings.time_zone.is_some(),
            Self::Labels => settings.labels.is_some(),
            Self::Uid => settings.uid.is_some(),
            Self::ClientCert => settings.client_cert.is_some(),
            _ => is_set(&settings.capabilities, self.wire_name()),
        }
    }
}

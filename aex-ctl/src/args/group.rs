//! `aex group …`: limits that a whole team shares, and the kernel's own.

use aex_admin_proto::limit::LimitKey;
use aex_admin_proto::operator::{GroupCreateParams, GroupSetParams, Settings};
use clap::{Args, Subcommand, ValueEnum};

use super::agent::{OptionArgs, Setting, rpm};
use super::values;

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// Make a group
    #[command(
        after_help = "Example:\n  aex group create team --budget-per-day 20.00 --max-concurrency 10 --time-zone Europe/Berlin"
    )]
    Create(CreateArgs),
    /// The kernel and every group
    #[command(after_help = "Example:\n  aex group list --json")]
    List,
    /// One group, in full
    #[command(after_help = "Example:\n  aex group show team")]
    Show {
        /// The group; `kernel` for all
        name: String,
    },
    /// Change a group, or the kernel's own scope; in force at the next request of all below it
    #[command(
        after_help = "Example:\n  aex group set team --add 50.00\n  aex group set kernel --max-concurrency 100"
    )]
    Set(SetArgs),
    /// Refuse the requests of all below it until it is resumed
    #[command(after_help = "Example:\n  aex group pause team")]
    Pause {
        /// The group; `kernel` for all
        name: String,
    },
    /// End a pause
    #[command(after_help = "Example:\n  aex group resume team")]
    Resume {
        /// The group; `kernel` for all
        name: String,
    },
    /// Pause, and cut what is open anywhere below it
    #[command(after_help = "Example:\n  aex group sever team")]
    Sever {
        /// The group; `kernel` for all
        name: String,
    },
    /// Close an empty group: its history stays, its name stays taken
    #[command(after_help = "Example:\n  aex group delete team")]
    Delete {
        /// The group
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// What it is called: 1 to 64 of A-Z a-z 0-9 . _ -
    name: String,
    /// USD in all that is below it may spend [default: no limit]
    #[arg(long, value_name = "USD", value_parser = values::usd, allow_negative_numbers = true)]
    budget: Option<i64>,
    /// Requests in any 60 seconds [default: no limit]
    #[arg(long, value_name = "N", value_parser = rpm(), allow_negative_numbers = true)]
    rpm: Option<u64>,
    /// The group above it [default: none but the kernel]
    #[arg(long, value_name = "GROUP", visible_alias = "group")]
    parent: Option<String>,
    #[command(flatten)]
    options: OptionArgs,
}

impl CreateArgs {
    pub(crate) fn params(self) -> GroupCreateParams {
        GroupCreateParams {
            name: self.name,
            parent: self.parent,
            budget_micro: self.budget,
            rpm: self.rpm,
            settings: self.options.settings(),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// The group, or `kernel`
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
    /// Move it below this group; `kernel` for none
    #[arg(long, value_name = "GROUP", visible_alias = "group")]
    parent: Option<String>,
    /// Take a limit or setting away (may be given again)
    #[arg(long, value_name = "SETTING")]
    clear: Vec<GroupSetting>,
    /// Take a limit away, and what it has counted: tokens/day, … (may be given again)
    #[arg(long, value_name = "LIMIT")]
    drop_limit: Vec<LimitKey>,
    #[command(flatten)]
    options: OptionArgs,
}

/// What `--clear` takes: a group's own two, and all that an agent has.
#[derive(Debug, Clone, Copy)]
enum GroupSetting {
    Budget,
    Rpm,
    Other(Setting),
}

impl std::str::FromStr for GroupSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "budget" => Ok(Self::Budget),
            "rpm" => Ok(Self::Rpm),
            _ => Setting::from_str(text, false)
                .map(Self::Other)
                .map_err(|_| {
                    let names = Setting::value_variants().iter();
                    let names = names.filter_map(ValueEnum::to_possible_value);
                    let names: Vec<String> =
                        names.map(|value| value.get_name().to_owned()).collect();
                    format!("expected budget, rpm, {}", names.join(", "))
                }),
        }
    }
}

impl GroupSetting {
    fn wire_name(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::Rpm => "rpm",
            Self::Other(setting) => setting.wire_name(),
        }
    }

    fn is_in(self, settings: &Settings) -> bool {
        matches!(self, Self::Other(setting) if setting.is_in(settings))
    }
}

impl SetArgs {
    /// Nothing to change, or a setting both set and cleared, is a mistake.
    pub(crate) fn params(self) -> Result<GroupSetParams, String> {
        let settings = self.options.settings();
        if let Some(both) = self.clear.iter().find(|setting| setting.is_in(&settings)) {
            return Err(format!(
                "{} cannot be set and cleared at once",
                both.wire_name().replace('_', "-")
            ));
        }
        let params = GroupSetParams {
            name: self.name,
            budget_micro: self.budget,
            add_micro: self.add,
            rpm: self.rpm,
            settings,
            clear: self.clear.iter().map(|s| s.wire_name().into()).collect(),
            drop_limits: self.drop_limit,
            parent: self.parent,
        };
        let nothing = GroupSetParams {
            name: params.name.clone(),
            ..GroupSetParams::default()
        };
        if params == nothing {
            return Err(
                "nothing to change: give --budget, --add, --rpm, --parent, --clear or another option \
                 (see `aex group set --help`)"
                    .into(),
            );
        }
        Ok(params)
    }
}

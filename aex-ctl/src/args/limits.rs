//! Limits of a scope beyond an agent's named ones, as options.

use aex_admin_proto::limit::{Limit, LimitKey, Mode, Quantity, Span};
use aex_admin_proto::operator::Settings;
use clap::Args;

use super::values::{self, Names};

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitArgs {
    /// Tokens in all, from when this is set
    #[arg(long, value_name = "N", value_parser = count())]
    max_tokens: Option<u64>,
    /// USD in each calendar hour
    #[arg(long, value_name = "USD", value_parser = values::usd)]
    budget_per_hour: Option<i64>,
    /// USD in each calendar day
    #[arg(long, value_name = "USD", value_parser = values::usd)]
    budget_per_day: Option<i64>,
    /// USD in each calendar week, which begins on Monday
    #[arg(long, value_name = "USD", value_parser = values::usd)]
    budget_per_week: Option<i64>,
    /// USD in each calendar month
    #[arg(long, value_name = "USD", value_parser = values::usd)]
    budget_per_month: Option<i64>,
    /// Tokens of each session (x-aex-session)
    #[arg(long, value_name = "N", value_parser = count())]
    max_session_tokens: Option<u64>,
    /// Sessions that may ever be [default: 64 where a session is limited]
    #[arg(long, value_name = "N", value_parser = count())]
    max_sessions: Option<u64>,
    /// Any other limit, WHAT[/SPAN][@model:NAME|@provider:NAME]=MOST[:warn|:shadow]; WHAT is money, tokens,
    /// requests, parallel, input or output, SPAN minute, hour, day, week, month or session (may be given
    /// again)
    #[arg(long, value_name = "LIMIT")]
    limit: Vec<Limit>,
    /// Share of the money and slots here that one child may hold at once, as in 50%
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    max_held: Option<u64>,
    /// In which calendar periods are counted [default: that of the scope above, UTC]
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// What policies may ask for
    #[arg(long, value_name = "A,B", value_parser = values::names, visible_alias = "label")]
    labels: Option<Names>,
}

impl LimitArgs {
    pub(super) fn add_to(self, settings: &mut Settings) {
        let money = |usd: Option<i64>| usd.and_then(|micro| u64::try_from(micro).ok());
        let named = [
            (Quantity::Tokens, Span::Whole, self.max_tokens),
            (Quantity::Money, Span::Hour, money(self.budget_per_hour)),
            (Quantity::Money, Span::Day, money(self.budget_per_day)),
            (Quantity::Money, Span::Week, money(self.budget_per_week)),
            (Quantity::Money, Span::Month, money(self.budget_per_month)),
            (Quantity::Tokens, Span::Session, self.max_session_tokens),
        ];
        let named = named.into_iter().filter_map(|(what, span, most)| {
            Some(Limit {
                key: LimitKey::of_all(what, span),
                most: most?,
                mode: Mode::Enforce,
            })
        });
        let limits: Vec<Limit> = named.chain(self.limit).collect();
        settings.limits = (!limits.is_empty()).then_some(limits);
        settings.max_sessions = self.max_sessions;
        settings.max_held_percent = self.max_held;
        settings.time_zone = self.time_zone;
        settings.labels = self.labels.map(|names| names.0);
    }
}

fn count() -> impl clap::builder::TypedValueParser<Value = u64> {
    clap::value_parser!(u64).range(1..=1_000_000_000_000)
}

fn percent(text: &str) -> Result<u64, String> {
    let digits = text.strip_suffix('%').unwrap_or(text);
    let percent = digits
        .parse()
        .ok()
        .filter(|percent| (1..=100).contains(percent));
    percent.ok_or_else(|| format!("expected 1% to 100%, not `{text}`"))
}

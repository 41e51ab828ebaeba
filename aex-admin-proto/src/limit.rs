//! A limit of a scope, in one text form for the command line, the wire and the ledger:
//! `WHAT[/SPAN][@model:NAME|@provider:NAME]=MOST[:warn|:shadow]`.
//!
//! `money/day=5.00`, `tokens=200000`, `requests/minute@model:gpt-4o=10`, `parallel@provider:groq=4:warn`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// Whole micro-dollars; in text, USD.
    Money,
    Tokens,
    Requests,
    /// Requests at once.
    Parallel,
    /// Tokens of one request's prompt, as its bound tells.
    Input,
    /// Output tokens of one request, all its answers together.
    Output,
    /// That a session is there: kept as a sum, and no limit by itself.
    Sessions,
}

/// Over what time it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Span {
    /// From when the limit was set, without end; or of each request by itself.
    Whole,
    /// Any 60 seconds.
    Minute,
    /// Calendar periods, in the scope's time zone. A week begins on Monday.
    Hour,
    Day,
    Week,
    Month,
    /// Of each `x-aex-session`.
    Session,
}

/// Of which requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    #[default]
    All,
    Model(String),
    Provider(String),
}

/// What happens when it is passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    #[default]
    Enforce,
    /// Served, and the client is told in a header.
    Warn,
    /// Served, and only recorded.
    Shadow,
}

/// Which limit it is: a scope has one of each.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LimitKey {
    pub what: Quantity,
    pub span: Span,
    pub subject: Subject,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Limit {
    pub key: LimitKey,
    /// Micro-dollars for money, else a count.
    pub most: u64,
    pub mode: Mode,
}

/// Why a text is not a limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotALimit(String);

/// Largest that a limit may be: 9,000,000 USD, or 10^12 of anything else.
const MOST_MONEY_MICRO: u64 = 9_000_000_000_000;
const MOST_COUNT: u64 = 1_000_000_000_000;
const MAX_NAME_BYTES: usize = 256;

impl Subject {
    /// Whether a request for `model` at `provider` is meant.
    #[must_use]
    pub fn covers(&self, model: &str, provider: &str) -> bool {
        match self {
            Self::All => true,
            Self::Model(name) => name == model,
            Self::Provider(name) => name == provider,
        }
    }
}

impl Quantity {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Money, "money"),
        (Self::Tokens, "tokens"),
        (Self::Requests, "requests"),
        (Self::Parallel, "parallel"),
        (Self::Input, "input"),
        (Self::Output, "output"),
        (Self::Sessions, "sessions"),
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(one, _)| *one == self)
            .map_or("", |(_, name)| name)
    }

    /// Whether it can be counted over `span`.
    fn goes_with(self, span: Span) -> bool {
        match self {
            Self::Money => span != Span::Minute,
            Self::Tokens | Self::Requests => true,
            Self::Parallel | Self::Input | Self::Output => span == Span::Whole,
            Self::Sessions => span == Span::Session,
        }
    }
}

impl Span {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Minute, "minute"),
        (Self::Hour, "hour"),
        (Self::Day, "day"),
        (Self::Week, "week"),
        (Self::Month, "month"),
        (Self::Session, "session"),
    ];

    /// As the text form has it; nothing for [`Span::Whole`].
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        let found = Self::ALL.iter().find(|(one, _)| *one == self);
        found.map(|(_, name)| *name)
    }

    #[must_use]
    pub fn is_calendar(self) -> bool {
        matches!(self, Self::Hour | Self::Day | Self::Week | Self::Month)
    }
}

impl LimitKey {
    /// Of all requests of a scope.
    #[must_use]
    pub fn of_all(what: Quantity, span: Span) -> Self {
        Self {
            what,
            span,
            subject: Subject::All,
        }
    }

    /// It is kept as a sum in the ledger; the others are windows, or need no memory.
    #[must_use]
    pub fn is_counter(&self) -> bool {
        match self.what {
            Quantity::Money | Quantity::Tokens | Quantity::Requests => self.span != Span::Minute,
            Quantity::Sessions => true,
            _ => false,
        }
    }

    /// It needs a window, or a count of what is open.
    #[must_use]
    pub fn is_window(&self) -> bool {
        self.span == Span::Minute || self.what == Quantity::Parallel
    }
}

impl fmt::Display for LimitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what.name())?;
        if let Some(span) = self.span.name() {
            write!(f, "/{span}")?;
        }
        match &self.subject {
            Subject::All => Ok(()),
            Subject::Model(name) => write!(f, "@model:{name}"),
            Subject::Provider(name) => write!(f, "@provider:{name}"),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=", self.key)?;
        if self.key.what == Quantity::Money {
            write!(f, "{}.{:06}", self.most / 1_000_000, self.most % 1_000_000)?;
        } else {
            write!(f, "{}", self.most)?;
        }
        match self.mode {
            Mode::Enforce => Ok(()),
            Mode::Warn => f.write_str(":warn"),
            Mode::Shadow => f.write_str(":shadow"),
        }
    }
}

impl FromStr for LimitKey {
    type Err = NotALimit;

    fn from_str(text: &str) -> Result<Self, NotALimit> {
        let (kind, subject) = match text.split_once('@') {
            None => (text, Subject::All),
            Some((kind, subject)) => (kind, subject_of(subject)?),
        };
        let (what, span) = match kind.split_once('/') {
            None => (kind, Span::Whole),
            Some((what, span)) => (what, span_of(span)?),
        };
        let what = Quantity::ALL
            .iter()
            .find(|(_, name)| *name == what)
            .map(|(quantity, _)| *quantity)
            .ok_or_else(|| {
                NotALimit(format!(
                    "there is no limit of {what:?}: money, tokens, requests, parallel, input or output"
                ))
            })?;
        if !what.goes_with(span) {
            let span = span.name().unwrap_or("all time");
            return Err(NotALimit(format!(
                "{} has no limit per {span}",
                what.name()
            )));
        }
        Ok(Self {
            what,
            span,
            subject,
        })
    }
}

fn subject_of(text: &str) -> Result<Subject, NotALimit> {
    let named = |name: &str| {
        let odd = |c: char| c.is_control() || c.is_whitespace() || matches!(c, ',' | '=' | '@');
        if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(odd) {
            return Err(NotALimit(format!(
                "{name:?} is no name of a model or provider"
            )));
        }
        Ok(name.to_owned())
    };
    match text.split_once(':') {
        Some(("model", name)) => named(name).map(Subject::Model),
        Some(("provider", name)) => named(name).map(Subject::Provider),
        _ => Err(NotALimit(format!(
            "after @ stands model:NAME or provider:NAME, not {text:?}"
        ))),
    }
}

fn span_of(text: &str) -> Result<Span, NotALimit> {
    let found = Span::ALL.iter().find(|(_, name)| *name == text);
    found.map(|(span, _)| *span).ok_or_else(|| {
        NotALimit(format!(
            "there is no span {text:?}: minute, hour, day, week, month or session"
        ))
    })
}

impl FromStr for Limit {
    type Err = NotALimit;

    fn from_str(text: &str) -> Result<Self, NotALimit> {
        let (key, amount) = text.split_once('=').ok_or_else(|| {
            NotALimit(format!(
                "{text:?} is not of the form WHAT[/SPAN][@model:NAME]=MOST, as in tokens/day=200000"
            ))
        })?;
        let key: LimitKey = key.parse()?;
        if key.what == Quantity::Sessions {
            let why = "how many sessions there may be is max_sessions, not a limit of this form";
            return Err(NotALimit(why.to_owned()));
        }
        let (amount, mode) = match amount.split_once(':') {
            None => (amount, Mode::Enforce),
            Some((amount, "enforce")) => (amount, Mode::Enforce),
            Some((amount, "warn")) => (amount, Mode::Warn),
            Some((amount, "shadow")) => (amount, Mode::Shadow),
            Some((_, rest)) if amount.contains('@') => {
                return Err(NotALimit(format!(
                    "@model:NAME and @provider:NAME stand before the =, as in tokens@model:m=5, not in \
                     {rest:?}"
                )));
            }
            Some((_, mode)) => {
                return Err(NotALimit(format!(
                    "there is no mode {mode:?}: enforce, warn or shadow"
                )));
            }
        };
        let (most, largest) = if key.what == Quantity::Money {
            (micro_of(amount), MOST_MONEY_MICRO)
        } else {
            (amount.parse().ok(), MOST_COUNT)
        };
        let most = most.filter(|most| (1..=largest).contains(most));
        most.map(|most| Self { key, most, mode })
            .ok_or_else(|| NotALimit(format!("{text}: {amount:?} is no amount above zero here")))
    }
}

/// USD with at most six decimals, in micro-dollars.
fn micro_of(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 6 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let fraction: u64 = format!("{fraction:0<6}").parse().ok()?;
    whole
        .parse::<u64>()
        .ok()?
        .checked_mul(1_000_000)?
        .checked_add(fraction)
}

macro_rules! as_text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

as_text!(Limit);
as_text!(LimitKey);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_reads_as_it_is_written() {
        for text in [
            "money=0.000001",
            "money/day=5.000000",
            "money/session@model:a/b=1.500000",
            "tokens=20000",
            "tokens/minute@provider:groq=100:warn",
            "tokens/session=500",
            "requests/minute@model:gpt-4o=10:shadow",
            "requests/month=3",
            "parallel=4",
            "input=1000",
            "output@model:a:b=16",
        ] {
            let limit: Limit = text.parse().unwrap();
            assert_eq!(limit.to_string(), text);
            let json = serde_json::to_string(&limit).unwrap();
            assert_eq!(serde_json::from_str::<Limit>(&json).unwrap(), limit);
        }
        assert_eq!("money/day=5".parse::<Limit>().unwrap().most, 5_000_000);
    }

    #[test]
    fn what_is_no_limit_says_why() {
        for (text, why) in [
            ("tokens", "form"),
            ("", "form"),
            ("fuel=3", "no limit of"),
            ("money/minute=1.00", "per minute"),
            ("parallel/day=4", "per day"),
            ("tokens/fortnight=1", "no span"),
            ("tokens=0", "above zero"),
            ("tokens=-1", "above zero"),
            ("tokens=1.5", "above zero"),
            ("tokens=1000000000001", "above zero"),
            ("money=0.0000001", "above zero"),
            ("money=.5", "above zero"),
            ("money=9000000.000001", "above zero"),
            ("tokens@host:a=1", "model:NAME"),
            ("tokens@model:=1", "no name"),
            ("sessions/session=5", "max_sessions"),
            ("sessions=5", "no limit per"),
            ("tokens=1:soft", "no mode"),
            ("tokens/session=5@model:x", "before the ="),
        ] {
            let error = text.parse::<Limit>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}

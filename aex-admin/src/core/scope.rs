//! A scope as a decision sees it: who it is, what it was granted, its money, and its limits in one form.
//!
//! A path is the scopes that a request must pass, the token's own first, the kernel last. What a charge
//! belongs to ([`Charged`]) is fixed when it is held: later moves of an agent do not touch it.

use std::fmt;
use std::str::FromStr;

use aex_admin_proto::limit::{LimitKey, Mode, Quantity, Span, Subject};
use aex_admin_proto::operator::{AgentState, Settings};
use aex_admin_proto::scope::{KERNEL, ScopeId, ScopeKind};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::money::Balance;

/// What AEX itself last wrote of a scope's grant. A row that differs was changed from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    pub state: AgentState,
    /// In all; none is no limit, which no agent has.
    pub budget_micro: Option<i64>,
    /// Requests in any 60 seconds; none is no limit, which no agent has.
    pub rpm: Option<u64>,
    pub settings: Settings,
    /// Node id of the group above an agent or group; none: right below the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<i64>,
}

impl Recorded {
    /// No limit of anything: the kernel as it begins.
    #[must_use]
    pub fn none() -> Self {
        Self {
            state: AgentState::Active,
            budget_micro: None,
            rpm: None,
            settings: Settings::default(),
            group: None,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Scope {
    pub id: ScopeId,
    pub kind: ScopeKind,
    pub name: String,
    /// None for the kernel alone.
    pub parent: Option<ScopeId>,
    pub created_at_ms: i64,
    /// Of a run: when it ends by itself.
    pub expires_at_ms: Option<i64>,
    pub balance: Balance,
    /// As the row is now.
    pub grant: Recorded,
}

/// What an agent has where its own settings say nothing (`limits` of models.yaml).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DefaultLimits {
    pub max_tokens_per_minute: Option<u64>,
    pub max_input_tokens: Option<u64>,
    pub max_output_tokens: Option<u64>,
    pub max_concurrency: Option<u64>,
}

/// One limit of a scope, whichever option it was given by.
#[derive(Debug, Clone, Copy)]
pub struct Bound<'a> {
    pub what: Quantity,
    pub span: Span,
    pub subject: &'a Subject,
    pub most: u64,
    pub mode: Mode,
}

static ALL: Subject = Subject::All;

impl Bound<'_> {
    fn of_all(what: Quantity, span: Span, most: Option<u64>) -> Option<Self> {
        most.map(|most| Self {
            what,
            span,
            subject: &ALL,
            most,
            mode: Mode::Enforce,
        })
    }

    #[must_use]
    pub fn key(&self) -> LimitKey {
        LimitKey {
            what: self.what,
            span: self.span,
            subject: self.subject.clone(),
        }
    }
}

/// Sessions that a scope may have when it limits what one may use, and not their number.
pub const DEFAULT_SESSIONS: u64 = 64;

impl Scope {
    /// Its limits for a request of `model` at `provider`, but for the budget in all.
    pub fn bounds<'a>(
        &'a self,
        defaults: &DefaultLimits,
        model: &'a str,
        provider: &'a str,
    ) -> impl Iterator<Item = Bound<'a>> {
        let own = &self.grant.settings;
        let defaults = if self.kind == ScopeKind::Agent {
            *defaults
        } else {
            DefaultLimits::default()
        };
        let named = [
            Bound::of_all(
                Quantity::Input,
                Span::Whole,
                own.max_input_tokens.or(defaults.max_input_tokens),
            ),
            Bound::of_all(
                Quantity::Output,
                Span::Whole,
                own.max_output_tokens.or(defaults.max_output_tokens),
            ),
            Bound::of_all(
                Quantity::Parallel,
                Span::Whole,
                own.max_concurrency.or(defaults.max_concurrency),
            ),
            Bound::of_all(Quantity::Requests, Span::Minute, self.grant.rpm),
            Bound::of_all(
                Quantity::Tokens,
                Span::Minute,
                own.max_tokens_per_minute.or(defaults.max_tokens_per_minute),
            ),
        ];
        let listed = own.limits.iter().flatten();
        let listed = listed
            .filter(|limit| limit.key.subject.covers(model, provider))
            .map(|limit| Bound {
                what: limit.key.what,
                span: limit.key.span,
                subject: &limit.key.subject,
                most: limit.most,
                mode: limit.mode,
            });
        named.into_iter().flatten().chain(listed)
    }

    /// How many sessions it may have; none: it does not look at them.
    #[must_use]
    pub fn max_sessions(&self) -> Option<u64> {
        let own = &self.grant.settings;
        let mut limits = own.limits.iter().flatten();
        let by_session = limits.any(|limit| limit.key.span == Span::Session);
        own.max_sessions.or(by_session.then_some(DEFAULT_SESSIONS))
    }
}

fn is_empty<T>(list: &[T]) -> bool {
    list.is_empty()
}

/// To which scopes and sums, beside its agent's and the kernel's own, a hold belongs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Charged {
    /// Node ids of its runs, the token's own first.
    #[serde(skip_serializing_if = "is_empty")]
    pub runs: Vec<i64>,
    /// Node ids of the groups above its agent, the nearest first.
    #[serde(skip_serializing_if = "is_empty")]
    pub groups: Vec<i64>,
    #[serde(skip_serializing_if = "is_empty")]
    pub meters: Vec<Meter>,
}

/// A sum, or a window of a part of a scope's requests, in which a hold counts. In text, which each hold's
/// event bears: `a7 tokens/day 1789948800000`, and after that the session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Meter {
    pub scope: ScopeId,
    pub key: LimitKey,
    /// When the sum was first counted (in its calendar period), Unix milliseconds; 0 for a window.
    pub from_ms: i64,
    /// The session's id, where it is counted by session.
    pub session: Option<String>,
}

/// Why a text is not a meter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a meter is a scope, a limit and the beginning of its period")]
pub struct NotAMeter;

impl fmt::Display for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.scope, self.key, self.from_ms)?;
        match &self.session {
            Some(session) => write!(f, " {session}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Meter {
    type Err = NotAMeter;

    fn from_str(text: &str) -> Result<Self, NotAMeter> {
        // Names of models and providers have no spaces.
        let mut words = text.splitn(4, ' ');
        let mut word = || words.next().ok_or(NotAMeter);
        let (scope, key, from_ms) = (word()?, word()?, word()?);
        Ok(Self {
            scope: scope.parse().map_err(|_| NotAMeter)?,
            key: key.parse().map_err(|_| NotAMeter)?,
            from_ms: from_ms.parse().map_err(|_| NotAMeter)?,
            session: words.next().map(str::to_owned),
        })
    }
}

impl Serialize for Meter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Meter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Charged {
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.runs.is_empty() && self.groups.is_empty() && self.meters.is_empty()
    }

    #[must_use]
    pub fn has_sums(&self) -> bool {
        self.meters.iter().any(|meter| meter.key.is_counter())
    }

    /// What the end of a hold must say of it: its sums are in the event that opened it.
    #[must_use]
    pub fn without_sums(&self) -> Self {
        let windows = self.meters.iter().filter(|meter| !meter.key.is_counter());
        Self {
            runs: self.runs.clone(),
            groups: self.groups.clone(),
            meters: windows.cloned().collect(),
        }
    }

    /// Of a path, with the sums that its limits keep.
    #[must_use]
    pub fn of<'a>(path: impl IntoIterator<Item = &'a Scope>, meters: Vec<Meter>) -> Self {
        let mut charged = Self {
            meters,
            ..Self::default()
        };
        for scope in path {
            match (scope.kind, scope.id) {
                (ScopeKind::Run, ScopeId::Node(id)) => charged.runs.push(id),
                (ScopeKind::Group, ScopeId::Node(id)) => charged.groups.push(id),
                _ => {}
            }
        }
        charged
    }

    /// The whole path of a hold of `agent`, the token's own scope first.
    pub fn path(&self, agent: i64) -> impl Iterator<Item = ScopeId> {
        let runs = self.runs.iter().copied().map(ScopeId::Node);
        let groups = self.groups.iter().copied().map(ScopeId::Node);
        runs.chain([ScopeId::Agent(agent)])
            .chain(groups)
            .chain([KERNEL])
    }
}

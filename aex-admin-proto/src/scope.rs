//! Scopes: kernel → group (any depth) → agent → run (any depth). A request passes all of its path.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Which row a scope is: agents have their own table. `a7`, `s3` in text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ScopeId {
    Agent(i64),
    /// The kernel, a group or a run.
    Node(i64),
}

/// The kernel's own scope: above everything.
pub const KERNEL: ScopeId = ScopeId::Node(KERNEL_NODE);
/// Its row.
pub const KERNEL_NODE: i64 = 1;

/// The name under which the kernel's own scope is shown and set.
pub const KERNEL_NAME: &str = "kernel";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScopeKind {
    Kernel,
    Group,
    Agent,
    Run,
}

impl ScopeKind {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Group => "group",
            Self::Agent => "agent",
            Self::Run => "run",
        }
    }
}

/// Why a text is not a scope's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a scope's id is a or s, and a number")]
pub struct NotAScope;

impl fmt::Display for ScopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(id) => write!(f, "a{id}"),
            Self::Node(id) => write!(f, "s{id}"),
        }
    }
}

impl FromStr for ScopeId {
    type Err = NotAScope;

    fn from_str(text: &str) -> Result<Self, NotAScope> {
        let id = |digits: &str| digits.parse().map_err(|_| NotAScope);
        match text.split_at_checked(1) {
            Some(("a", digits)) => id(digits).map(Self::Agent),
            Some(("s", digits)) => id(digits).map(Self::Node),
            _ => Err(NotAScope),
        }
    }
}

impl Serialize for ScopeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ScopeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_as_it_is_written() {
        for id in [ScopeId::Agent(7), ScopeId::Node(1)] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for text in ["", "a", "7", "x7", "a7b", "é7"] {
            assert_eq!(text.parse::<ScopeId>(), Err(NotAScope), "{text}");
        }
    }
}

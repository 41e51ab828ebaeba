//! Refusals on their way into the ledger: counted by who was refused and why, and recorded once a minute,
//! so that a flood of them costs a few events. Bounded; what is beyond goes into one entry `other`.
//!
//! What a batch refuses counts once the batch is written, and what it recorded is forgotten then. Absent:
//! texts that an agent wrote. A model is named where the configuration has it.

use std::collections::BTreeMap;

use aex_admin_proto::Refusal;
use aex_admin_proto::scope::ScopeKind;
use serde::Serialize;

use super::reserve::Now;

/// How long refusals are gathered.
pub const GATHER_MS: u64 = 60_000;
/// Most entries of one agent a minute, `other` among them.
pub const MOST_OF_AGENT: usize = 64;
/// Most entries of all agents a minute, `other` without an agent beside them.
pub const MOST: usize = 1024;
const OTHER: &str = "other";
/// Longest reason that is recorded, in characters.
const MAX_REASON: usize = 200;

/// Refusals that are the same for the ledger.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Agent id; zero for a token that nobody has.
    pub agent: i64,
    pub code: &'static str,
    /// The limit or policy that decided.
    pub rule: Option<String>,
    /// As the configuration names it.
    pub model: Option<String>,
}

impl Key {
    #[must_use]
    pub fn of(agent: i64, refusal: &Refusal, model: Option<&str>) -> Self {
        Self {
            agent,
            code: refusal.code(),
            rule: refusal.rule(),
            model: model.filter(|_| agent != 0).map(str::to_owned),
        }
    }

    fn other(agent: i64) -> Self {
        Self {
            agent,
            code: OTHER,
            rule: None,
            model: None,
        }
    }
}

/// What is recorded of the refusals of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Told {
    pub code: &'static str,
    /// The first one's, as its agent read it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The kind of the scope that decided, where it is above the token's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<ScopeKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    pub count: u64,
    pub first_ms: i64,
    pub last_ms: i64,
}

impl Told {
    fn new(key: &Key, refusal: Option<&Refusal>, at_ms: i64) -> Self {
        Self {
            code: key.code,
            reason: refusal.map(reason).unwrap_or_default(),
            scope: refusal.and_then(Refusal::scope_above),
            rule: key.rule.clone(),
            model: key.model.clone(),
            count: 0,
            first_ms: at_ms,
            last_ms: at_ms,
        }
    }
}

/// A text of AEX's own. Those that repeat what the agent wrote are told without it.
fn reason(refusal: &Refusal) -> String {
    let text = match refusal {
        Refusal::ModelNotFound { .. } => "no such model".to_owned(),
        Refusal::ModelNotPriced { .. } => "Model not priced".to_owned(),
        other => other.to_string(),
    };
    let text = text.chars().filter(|letter| !letter.is_control());
    text.take(MAX_REASON).collect()
}

#[derive(Debug, Default)]
pub struct Refusals {
    gathered: BTreeMap<Key, Told>,
    /// When the first of them was gathered, boot clock.
    since_boot_ms: u64,
    /// Of the batch that is being written. Bounded by the batch.
    noted: Vec<(Key, Refusal, Now)>,
    /// The batch records what is gathered.
    recorded: bool,
}

impl Refusals {
    /// A request is refused by the batch that is being written.
    pub fn note(&mut self, key: Key, refusal: &Refusal, now: Now) {
        self.noted.push((key, refusal.clone(), now));
    }

    /// Whether what was gathered is to be recorded.
    #[must_use]
    pub fn are_due(&self, now: Now) -> bool {
        let ends_boot_ms = self.since_boot_ms.saturating_add(GATHER_MS);
        !self.gathered.is_empty() && now.boot_ms >= ends_boot_ms
    }

    /// What the batch records: agent ids, each with what is told of it. Forgotten once it is written.
    pub fn record(&mut self) -> Vec<(i64, Told)> {
        self.recorded = true;
        let entries = self.gathered.iter();
        entries
            .map(|(key, told)| (key.agent, told.clone()))
            .collect()
    }

    /// The batch is written.
    pub fn committed(&mut self) {
        if std::mem::take(&mut self.recorded) {
            self.gathered.clear();
        }
        for (key, refusal, now) in std::mem::take(&mut self.noted) {
            self.gather(key, &refusal, now);
        }
    }

    /// The batch is undone: nobody was refused by it, and nothing recorded.
    pub fn undone(&mut self) {
        self.recorded = false;
        self.noted.clear();
    }

    fn gather(&mut self, key: Key, refusal: &Refusal, now: Now) {
        if self.gathered.is_empty() {
            self.since_boot_ms = now.boot_ms;
        }
        let place = self.place(key);
        let refusal = (place.code != OTHER).then_some(refusal);
        let told = Told::new(&place, refusal, now.wall_ms);
        let told = self.gathered.entry(place).or_insert(told);
        told.count = told.count.saturating_add(1);
        told.last_ms = now.wall_ms;
    }

    /// The key itself while there is room for it, else its agent's `other`, else everybody's.
    fn place(&self, key: Key) -> Key {
        let has = |key: &Key| self.gathered.contains_key(key);
        let has_room = self.gathered.len() < MOST;
        if has(&key) || (has_room && self.of_agent(key.agent) < MOST_OF_AGENT - 1) {
            return key;
        }
        let others = Key::other(key.agent);
        if has(&others) || has_room {
            return others;
        }
        Key::other(0)
    }

    fn of_agent(&self, agent: i64) -> usize {
        let least = |agent| Key {
            code: "",
            ..Key::other(agent)
        };
        let of_it = self.gathered.range(least(agent)..);
        of_it.take_while(|(key, _)| key.agent == agent).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now {
            boot_ms: ms,
            wall_ms: i64::try_from(ms).unwrap(),
        }
    }

    fn refuse(refusals: &mut Refusals, agent: i64, model: &str, ms: u64) {
        let refusal = Refusal::RequestRate {
            limit: 1,
            retry_after_ms: 1,
        };
        let key = Key::of(agent, &refusal, Some(model));
        refusals.note(key, &refusal, at(ms));
        refusals.committed();
    }

    #[test]
    fn the_same_refusals_of_a_minute_are_one_entry() {
        let mut refusals = Refusals::default();
        (0..1000).for_each(|ms| refuse(&mut refusals, 1, "m", ms));
        assert!(!refusals.are_due(at(59_999)));
        assert!(refusals.are_due(at(60_000)));
        let found = refusals.record();
        let [(1, told)] = &found[..] else {
            panic!("{found:?}")
        };
        assert_eq!((told.count, told.first_ms, told.last_ms), (1000, 0, 999));
        assert_eq!(told.rule.as_deref(), Some("requests/minute"));
        refusals.committed();
        assert_eq!(refusals.record(), []);
    }

    #[test]
    fn a_batch_that_is_undone_refused_nobody_and_recorded_nothing() {
        let mut refusals = Refusals::default();
        refuse(&mut refusals, 1, "m", 0);
        let refusal = Refusal::InvalidToken;
        refusals.note(Key::of(0, &refusal, None), &refusal, at(1));
        assert_eq!(refusals.record().len(), 1);
        refusals.undone();
        assert_eq!(refusals.record().len(), 1);
    }

    #[test]
    fn an_agent_and_all_of_them_have_so_many_entries_and_nothing_is_lost() {
        let mut refusals = Refusals::default();
        for agent in 1..=100 {
            for model in 0..100 {
                refuse(&mut refusals, agent, &format!("m{model}"), 0);
            }
        }
        let found = refusals.record();
        assert_eq!(found.len(), MOST + 1);
        let of_first = found.iter().filter(|(agent, _)| *agent == 1);
        assert_eq!(of_first.count(), MOST_OF_AGENT);
        let count: u64 = found.iter().map(|(_, told)| told.count).sum();
        assert_eq!(count, 10_000);
    }

    #[test]
    fn what_an_agent_wrote_is_not_repeated() {
        let refusal = Refusal::ModelNotFound {
            model: "my secret prompt".to_owned(),
        };
        let told = Told::new(&Key::of(1, &refusal, None), Some(&refusal), 0);
        let text = serde_json::to_string(&told).unwrap();
        assert!(!text.contains("secret"), "{text}");
    }
}

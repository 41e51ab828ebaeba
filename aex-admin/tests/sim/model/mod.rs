//! The naive model: what the core must answer, found the slow and obvious way. Lists of all that ever
//! happened, scanned anew for each question; money in 128 bits; no code of `aex_admin::core`.
//!
//! It predicts every answer. Not predicted: when the egress is asked for a hold (its orders are taken
//! as they come; that every hold ends is checked at the end of a run), and texts for people.

mod batch;
mod decide;
mod ending;
mod judge;
mod operate;

use std::collections::BTreeSet;

use aex_admin::core::reserve::Now;
use aex_admin_proto::egress::Ending;
use aex_admin_proto::operator::{AgentState, Settings};
use aex_admin_proto::ticket::TicketKey;
use aex_admin_proto::tools::ToolRules;
use aex_admin_proto::worker::{Observed, ReserveParams, SettleParams};
use aex_admin_proto::{HoldId, Refusal, TokenDigest};

use crate::asks::{Answer, Ask, Tag};
use crate::kernel::{Fault, TICKET_KEY};
use crate::setup::{ModelFact, Variant};

const PICO: i128 = 1_000_000;
const MINUTE_MS: u64 = 60_000;
const DAY_MS: i64 = 86_400_000;

pub(crate) struct Model {
    variant: Variant,
    key: TicketKey,
    now: Now,
    state: State,
    /// All that wait, in the order in which they came.
    waiting: Vec<Waiter>,
    stirred: BTreeSet<usize>,
    operator_keys: Vec<String>,
    swept_boot_ms: u64,
    signed_boot_ms: u64,
    /// Asks that wait for somebody else's lock, with their arrivals; and since when it is away.
    locked_out: Vec<(u64, Tag, Ask)>,
    locked_since_ms: Option<u64>,
    trouble: bool,
    fault: Option<Fault>,
    /// Events of the batch so far, and whether an agent's row is still to be written.
    appended: u64,
    dirty: bool,
    /// Sent at once, and with the commit.
    at_once: Vec<(Tag, Answer)>,
    with_commit: Vec<(Tag, Answer)>,
}

/// What a batch that is undone takes back.
#[derive(Clone, Default)]
struct State {
    agents: Vec<Agent>,
    holds: Vec<Hold>,
    charges: Vec<Charge>,
    events: Vec<EventNote>,
    /// How many of them are signed by a checkpoint that the process knows.
    signed: usize,
    requests: Vec<Entry>,
    tokens: Vec<Entry>,
    /// Answers to settles since the start of the process.
    settled: Vec<(SettleParams, Answer)>,
    /// Agents of whom the process remembers something.
    remembered: BTreeSet<usize>,
    /// Not told to the ledger yet: when, and of whom and why.
    refused: Vec<(u64, String)>,
    /// Somebody committed from outside, and no batch has looked since.
    touched: bool,
}

#[derive(Clone)]
pub(crate) struct Agent {
    pub(crate) name: String,
    pub(crate) grant: Grant,
    /// As AEX last wrote it.
    recorded: Grant,
    pub(crate) spent: i128,
    pub(crate) held: i128,
    tokens: Vec<Token>,
    created_at_ms: i64,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) state: AgentState,
    pub(crate) budget_micro: i64,
    pub(crate) rpm: u64,
    pub(crate) settings: Settings,
}

#[derive(Clone)]
struct Token {
    digest: Option<TokenDigest>,
    expires_at_ms: Option<i64>,
    revoked: bool,
}

/// One hold, for ever.
#[derive(Clone)]
pub(crate) struct Hold {
    pub(crate) id: HoldId,
    pub(crate) agent: usize,
    model: &'static ModelFact,
    params: ReserveParams,
    pub(crate) pico: i128,
    pub(crate) input_tokens: u64,
    cap: u64,
    /// When it was granted, for its key: boot clock, wall clock.
    keyed_boot_ms: i64,
    keyed_wall_ms: i64,
    /// The rules of tools under which it was granted.
    tools: Vec<ToolRules>,
    /// 0 where the process does not remember its grant.
    opened_boot_ms: u64,
    expires_boot_ms: u64,
    deadline_boot_ms: u64,
    /// As this process gave it.
    ticket: Option<String>,
    pub(crate) open: bool,
    pub(crate) severed: bool,
    dispatched: bool,
    owner: Owner,
    receipt: Option<Ending>,
    receipt_boot_ms: u64,
    claim: Option<Claim>,
    /// Ended, and its receipt is still to come: status and completeness as booked.
    booked: Option<(Option<u16>, bool)>,
    pub(crate) charged: i128,
    /// Nobody could say whether it was sent.
    pub(crate) unknown: bool,
    /// Ended at its ceiling without its worker's figure, which may still come: since when it is waited
    /// for.
    late_since_ms: Option<u64>,
    was_corrected: bool,
    /// All of it was given back.
    pub(crate) released: bool,
}

impl Hold {
    fn choices(&self) -> u64 {
        self.params.facts.choices.max(1)
    }

    fn output_tokens(&self) -> u64 {
        self.cap * self.choices()
    }

    fn tokens(&self) -> u64 {
        self.input_tokens + self.output_tokens()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Session(u64),
    Nobody { since_boot_ms: u64 },
}

#[derive(Clone)]
struct Claim {
    params: SettleParams,
    tag: Option<Tag>,
    since_boot_ms: u64,
}

#[derive(Clone)]
struct Charge {
    hold: usize,
    /// What a window counts after a restart.
    tokens: u64,
    sent: bool,
    correction: bool,
    /// The whole hold, and its worker has not said anything.
    is_ceiling_unsaid: bool,
    /// The receipt was there already.
    receipt: bool,
    booked: (Option<u16>, bool),
}

#[derive(Clone, Copy)]
struct EventNote {
    at_ms: i64,
    /// The charge that it is.
    charge: Option<usize>,
    is_checkpoint: bool,
}

/// Something that counts in the windows of an agent and of a model for a minute.
#[derive(Clone)]
struct Entry {
    agent: usize,
    model: &'static str,
    at_boot_ms: u64,
    amount: u64,
}

struct Waiter {
    tag: Tag,
    agent: usize,
    params: ReserveParams,
    session: u64,
    refusal: Refusal,
    deadline_boot_ms: u64,
}

/// The armed fault struck: the batch is undone.
struct Struck;

type Go = Result<(), Struck>;

impl Model {
    pub(crate) fn new(variant: Variant) -> Self {
        Self {
            variant,
            key: TicketKey::new(TICKET_KEY.0, TICKET_KEY.1),
            now: Now {
                boot_ms: 0,
                wall_ms: 0,
            },
            state: State {
                touched: true,
                ..State::default()
            },
            waiting: Vec::new(),
            stirred: BTreeSet::new(),
            operator_keys: Vec::new(),
            swept_boot_ms: 0,
            signed_boot_ms: 0,
            locked_out: Vec::new(),
            locked_since_ms: None,
            trouble: false,
            fault: None,
            appended: 0,
            dirty: false,
            at_once: Vec::new(),
            with_commit: Vec::new(),
        }
    }

    pub(crate) fn set_clocks(&mut self, now: Now) {
        self.now = now;
    }

    pub(crate) fn agents(&self) -> &[Agent] {
        &self.state.agents
    }

    pub(crate) fn holds(&self) -> &[Hold] {
        &self.state.holds
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn agent_mut(&mut self, agent: usize) -> &mut Agent {
        &mut self.state.agents[agent]
    }

    /// What became of holds, for the record of what a run reached.
    pub(crate) fn outcomes(&self) -> Vec<&'static str> {
        let holds = self.state.holds.iter();
        let overran = holds.clone().filter(|hold| hold.charged > hold.pico);
        let unknown = holds.filter(|hold| hold.unknown);
        let corrected = self.state.charges.iter().filter(|charge| charge.correction);
        let names = overran.map(|_| "overran");
        let names = names.chain(unknown.map(|_| "unknown"));
        names.chain(corrected.map(|_| "corrected")).collect()
    }

    pub(crate) fn events(&self) -> usize {
        self.state.events.len()
    }

    /// Holds that are open, or ended without a receipt.
    pub(crate) fn unfinished(&self) -> usize {
        let unfinished = |hold: &&Hold| hold.open || hold.booked.is_some();
        self.state.holds.iter().filter(unfinished).count()
    }

    /// A token that the operator was shown.
    pub(crate) fn learn_token(&mut self, agent: usize, digest: TokenDigest) {
        if let Some(token) = self.state.agents[agent].tokens.last_mut() {
            token.digest = Some(digest);
        }
    }

    /// Somebody commits to the file from outside.
    pub(crate) fn touch(&mut self) {
        self.state.touched = true;
    }

    fn find_agent(&self, name: &str) -> Option<usize> {
        self.state
            .agents
            .iter()
            .position(|agent| agent.name == name)
    }

    fn find_open(&self, id: HoldId) -> Option<usize> {
        let holds = &self.state.holds;
        holds.iter().rposition(|hold| hold.open && hold.id == id)
    }

    fn open_of(&self, agent: usize) -> impl Iterator<Item = &Hold> {
        let holds = self.state.holds.iter();
        holds.filter(move |hold| hold.open && hold.agent == agent)
    }

    fn append(&mut self, charge: Option<usize>, is_hold: bool) -> Go {
        let strikes = match self.fault {
            Some(Fault::FullAtEvent) => true,
            Some(Fault::FullAtHold) => is_hold,
            Some(Fault::FullAtRows | Fault::Commit) | None => false,
        };
        if strikes {
            return Err(Struck);
        }
        self.appended += 1;
        self.state.events.push(EventNote {
            at_ms: self.now.wall_ms,
            charge,
            is_checkpoint: false,
        });
        Ok(())
    }

    /// The chain is signed: an event as well.
    fn checkpoint(&mut self) -> Go {
        self.append(None, false)?;
        if let Some(event) = self.state.events.last_mut() {
            event.is_checkpoint = true;
        }
        self.state.signed = self.state.events.len();
        Ok(())
    }

    fn owes_checkpoint(&self) -> bool {
        let is_time = self.now.boot_ms >= self.signed_boot_ms + MINUTE_MS;
        is_time && self.state.events.len() > self.state.signed
    }

    /// Rows of agents are written.
    fn write_rows(&mut self) -> Go {
        if std::mem::take(&mut self.dirty) && self.fault == Some(Fault::FullAtRows) {
            return Err(Struck);
        }
        Ok(())
    }
}

/// What is free now, with every hold kept.
fn free(agent: &Agent) -> i128 {
    unspent(agent) - agent.held
}

/// What is left when every hold is freed.
fn unspent(agent: &Agent) -> i128 {
    i128::from(agent.grant.budget_micro) * PICO - agent.spent
}

fn floor_micro(pico: i128) -> i64 {
    i64::try_from(pico.div_euclid(PICO)).unwrap()
}

fn ceil_micro(pico: i128) -> i64 {
    i64::try_from(-(-pico).div_euclid(PICO)).unwrap()
}

fn remaining(agent: &Agent) -> i64 {
    floor_micro(free(agent)).max(0)
}

/// A window forgets up to a hundredth of a second late.
fn rounded(at_boot_ms: u64) -> u64 {
    at_boot_ms.div_ceil(10) * 10
}

fn status_and_completeness(seen: Option<&Observed>) -> (Option<u16>, bool) {
    seen.map_or((None, false), |seen| (seen.status, seen.complete))
}

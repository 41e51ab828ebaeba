//! `fill-ledger`: a ledger with a long history, for the benchmark of what length costs.
//!
//! Written by the ledger's own code, so that its chain and its balances are whole, but in batches
//! far larger than the writer's. Absent on purpose: decisions; the events only look like theirs.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::ExitCode;

use aex_admin::core::hold::Terms;
use aex_admin::core::money::Balance;
use aex_admin::core::price::Price;
use aex_admin::core::scope::{Charged, Recorded};
use aex_admin::ledger::{Event, Ledger, LedgerError, NewAgent};
use aex_admin_proto::clock;
use aex_admin_proto::operator::{AgentState, Settings};
use aex_admin_proto::scope::{KERNEL, ScopeId};
use aex_admin_proto::ticket::KeyMode;
use aex_admin_proto::worker::{Basis, Facts, OnDisconnect, Usage};
use clap::Parser;
use serde_json::json;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A checkpoint as often as the kernel signs one.
const SIGNED_EVENTS: i64 = 65_536;
/// Events in one transaction.
const BATCH_EVENTS: i64 = 50_000;
/// Holds open at once: each ends this many holds after it was opened.
const OPEN_HOLDS: usize = 64;
const BUDGET_MICRO: i64 = 1_000_000_000_000;
const PRICE_SOURCE: &str = "models.yaml";
/// Bytes of a prompt for each of its tokens, about: the bound is that much above the usage.
const BOUND_FACTOR: u64 = 4;

/// Writes a ledger of N events: agents, and pairs of a hold and its charge, spread over days.
#[derive(Parser)]
#[command(
    version,
    after_help = "Example:\n  fill-ledger --db /tmp/aex.db --events 10000000"
)]
struct Args {
    /// A file that does not exist yet.
    #[arg(long, value_name = "FILE")]
    db: PathBuf,
    #[arg(long, default_value_t = 10_000_000)]
    events: i64,
    #[arg(long, default_value_t = 100)]
    agents: usize,
    /// The time that the events are spread over, in seconds.
    #[arg(long, default_value_t = 30 * 86_400)]
    span_s: i64,
    /// How long ago it ended, in seconds: what is younger than a minute is read at a start.
    #[arg(long, default_value_t = 3600)]
    age_s: i64,
}

#[derive(Debug, thiserror::Error)]
enum FillError {
    #[error("{0} is there already")]
    There(PathBuf),
    #[error("{0}")]
    Ledger(#[from] LedgerError),
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("an amount beyond 64 bits")]
    Amount,
}

#[expect(clippy::print_stderr, reason = "the program's own messages")]
fn main() -> ExitCode {
    match fill(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("fill-ledger: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn fill(args: &Args) -> Result<(), FillError> {
    if args.db.exists() {
        return Err(FillError::There(args.db.clone()));
    }
    let mut filler = Filler::new(args)?;
    filler.ledger.begin()?;
    filler.ledger.declare_key(filler.at_ms())?;
    filler.create_agents(args.agents.max(1))?;
    while filler.is_short_of(args.events) {
        if filler.in_batch >= BATCH_EVENTS {
            filler.next_batch()?;
        }
        filler.open_hold()?;
        if filler.open.len() > OPEN_HOLDS {
            filler.end_oldest()?;
        }
    }
    while !filler.open.is_empty() {
        filler.end_oldest()?;
    }
    filler.write_balances()?;
    filler.ledger.commit()?;
    Ok(())
}

struct Agent {
    id: i64,
    name: String,
    balance: Balance,
}

/// A hold on its way.
struct Open {
    agent: usize,
    id: String,
    terms: Terms,
    usage: Usage,
}

struct Filler {
    ledger: Ledger,
    agents: Vec<Agent>,
    /// Of the kernel's own scope.
    kernel: Balance,
    open: VecDeque<Open>,
    random: Random,
    written: i64,
    in_batch: i64,
    /// Time of the first event, and from it to the last.
    first_ms: i64,
    span_ms: i64,
    events: i64,
}

impl Filler {
    fn new(args: &Args) -> Result<Self, FillError> {
        let span_ms = args.span_s * 1000;
        Ok(Self {
            ledger: Ledger::open(&args.db)?,
            agents: Vec::new(),
            kernel: Balance::default(),
            open: VecDeque::new(),
            random: Random(0x5EED),
            written: 0,
            in_batch: 0,
            first_ms: clock::wall_ms() - args.age_s * 1000 - span_ms,
            span_ms,
            events: args.events.max(1),
        })
    }

    /// More is to be opened: what is open already will take an event each.
    fn is_short_of(&self, events: i64) -> bool {
        let to_come = i64::try_from(self.open.len()).unwrap_or(i64::MAX);
        self.written + to_come + 2 <= events
    }

    fn at_ms(&self) -> i64 {
        let share = i128::from(self.span_ms) * i128::from(self.written) / i128::from(self.events);
        self.first_ms + i64::try_from(share).unwrap_or(self.span_ms)
    }

    fn append(&mut self, event: &Event<'_>) -> Result<(), FillError> {
        self.ledger.append(event)?;
        self.written += 1;
        self.in_batch += 1;
        Ok(())
    }

    fn create_agents(&mut self, count: usize) -> Result<(), FillError> {
        let grant = Recorded {
            state: AgentState::Active,
            budget_micro: Some(BUDGET_MICRO),
            rpm: Some(100_000),
            settings: Settings::default(),
            group: None,
        };
        let detail = json!({ "now": grant }).to_string();
        for index in 0..count {
            let name = format!("agent-{index:04}");
            let at_ms = self.at_ms();
            let id = self.ledger.insert_agent(&NewAgent {
                name: &name,
                grant: &grant,
                created_at_ms: at_ms,
            })?;
            self.append(&Event::note(at_ms, Some(&name), "agent.create", &detail))?;
            let balance = Balance {
                budget_micro: Some(BUDGET_MICRO),
                ..Balance::default()
            };
            self.agents.push(Agent { id, name, balance });
        }
        Ok(())
    }

    fn open_hold(&mut self) -> Result<(), FillError> {
        let agent = self.random.below(self.agents.len());
        let usage = self.random.usage();
        let hold = Open {
            agent,
            id: self.random.hold_id(),
            terms: terms(&usage)?,
            usage,
        };
        let held_pico = hold.terms.hold_pico;
        let owner = &mut self.agents[agent];
        owner.balance = (owner.balance.with_hold(held_pico)).ok_or(FillError::Amount)?;
        self.kernel = (self.kernel.with_hold(held_pico)).ok_or(FillError::Amount)?;
        let name = owner.name.clone();
        let detail = serde_json::to_string(&hold.terms)?;
        self.append(&Event {
            held_pico,
            hold: Some(&hold.id),
            ..Event::note(self.at_ms(), Some(&name), "hold.open", &detail)
        })?;
        self.open.push_back(hold);
        Ok(())
    }

    fn end_oldest(&mut self) -> Result<(), FillError> {
        let Some(hold) = self.open.pop_front() else {
            return Ok(());
        };
        let held_pico = hold.terms.hold_pico;
        let cost_pico = (hold.terms.price.cost_pico(&hold.usage)).ok_or(FillError::Amount)?;
        let owner = &mut self.agents[hold.agent];
        let (balance, cost_micro) =
            (owner.balance.with_commit(held_pico, cost_pico)).ok_or(FillError::Amount)?;
        owner.balance = balance;
        let kernel = self.kernel.with_commit(held_pico, cost_pico);
        (self.kernel, _) = kernel.ok_or(FillError::Amount)?;
        let name = owner.name.clone();
        let detail = settled(&hold)?;
        self.append(&Event {
            cost_micro,
            cost_pico,
            held_pico: -held_pico,
            hold: Some(&hold.id),
            ..Event::note(self.at_ms(), Some(&name), "usage.commit", &detail)
        })
    }

    fn write_balances(&self) -> Result<(), FillError> {
        for agent in &self.agents {
            self.ledger
                .set_balance(ScopeId::Agent(agent.id), &agent.balance)?;
        }
        self.ledger.set_balance(KERNEL, &self.kernel)?;
        Ok(())
    }

    fn next_batch(&mut self) -> Result<(), FillError> {
        self.write_balances()?;
        if self.ledger.events_since_checkpoint() >= SIGNED_EVENTS {
            self.ledger.checkpoint(self.at_ms())?;
        }
        self.ledger.commit()?;
        self.in_batch = 0;
        Ok(self.ledger.begin()?)
    }
}

fn terms(usage: &Usage) -> Result<Terms, FillError> {
    let price = Price {
        input_pico: 75_000,
        cached_input_pico: 37_500,
        cache_write_pico: 75_000,
        output_pico: 300_000,
        ..Price::FREE
    };
    let (input_tokens, output_cap) = (usage.prompt * BOUND_FACTOR, usage.output * BOUND_FACTOR);
    Ok(Terms {
        route: aex_admin_proto::worker::Route::ChatCompletions,
        model: "gpt-oss-20b".to_owned(),
        provider: "sim".to_owned(),
        upstream_model: "gpt-oss-20b".to_owned(),
        key: KeyMode::Operator,
        hold_pico: (price.ceiling_pico(input_tokens, output_cap)).ok_or(FillError::Amount)?,
        price,
        price_source: PRICE_SOURCE.to_owned(),
        input_tokens,
        output_cap,
        choices: 1,
        prompts: 1,
        cap_is_ours: false,
        hidden_output: false,
        counts_choices: false,
        on_disconnect: OnDisconnect::Drain,
        idempotency: None,
        charged: Charged::default(),
        warned: Vec::new(),
        shadowed: Vec::new(),
        attempt: None,
        tools: Vec::new(),
        asked: Facts::default(),
        names_left_out: 0,
    })
}

/// As the writer writes a charge by the provider's usage, field for field.
fn settled(hold: &Open) -> Result<String, FillError> {
    #[derive(serde::Serialize)]
    struct Detail<'a> {
        model: &'a str,
        provider: &'a str,
        basis: Basis,
        tokens: u64,
        sent: bool,
        hold_pico: i64,
        price_source: &'a str,
        usage: Usage,
        status: u16,
        complete: bool,
    }
    let detail = Detail {
        model: &hold.terms.model,
        provider: &hold.terms.provider,
        basis: Basis::Exact,
        tokens: hold.usage.prompt + hold.usage.output,
        sent: true,
        hold_pico: hold.terms.hold_pico,
        price_source: PRICE_SOURCE,
        usage: hold.usage,
        status: 200,
        complete: true,
    };
    Ok(serde_json::to_string(&detail)?)
}

/// SplitMix64: the same ledger each time but for its dates.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap_or(0)
    }

    fn hold_id(&mut self) -> String {
        format!("{:016x}{:016x}", self.next(), self.next())
    }

    fn usage(&mut self) -> Usage {
        let prompt = 100 + self.next() % 4000;
        Usage {
            prompt,
            cached: if self.next().is_multiple_of(3) {
                prompt / 2
            } else {
                0
            },
            output: 10 + self.next() % 800,
            ..Usage::default()
        }
    }
}

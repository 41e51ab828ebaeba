//! The world around the core: agents, workers, the egress and the provider, all played by one list of
//! operations. Each batch goes to the real core and to the naive model, and must come back the same.

mod act;
mod check;
mod upset;

use std::collections::BTreeMap;

use aex_admin::core::reserve::Now;
use aex_admin_proto::egress::Receipt;
use aex_admin_proto::operator::{CreateParams, Settings};
use aex_admin_proto::rpc::code;
use aex_admin_proto::worker::{Grant, ReserveParams, ReserveReply, SettleParams};
use aex_admin_proto::{HoldId, TokenDigest};

use crate::asks::{Answer, Ask, Change, Tag};
use crate::egress::Egress;
use crate::kernel::{Fault, Kernel};
use crate::model::Model;
use crate::ops::{Fate, Step};
use crate::provider::Outcome;
use crate::rng::Rng;
use crate::setup::Variant;

/// What is wrong, in words.
pub(crate) type Checked = Result<(), String>;

const WORKERS: usize = 3;

pub(crate) struct World {
    variant: Variant,
    kernel: Kernel,
    model: Model,
    egress: Egress,
    now: Now,
    agents: Vec<Agent>,
    /// The connection of each worker.
    sessions: [u64; WORKERS],
    next_session: u64,
    requests: Vec<Request>,
    batch: Vec<(Tag, Ask)>,
    purposes: BTreeMap<Tag, (Purpose, Fate)>,
    next_tag: Tag,
    fault: Option<Fault>,
    locked: bool,
    flushed: u64,
    /// How often what came about.
    pub(crate) seen: BTreeMap<String, u64>,
    is_told: bool,
}

struct Agent {
    name: String,
    /// That somebody knows, newest last.
    tokens: Vec<TokenDigest>,
}

/// One request of an agent, as its worker and the egress carry it.
struct Request {
    id: HoldId,
    worker: usize,
    params: ReserveParams,
    /// Its worker lives and carries it.
    is_carried: bool,
    /// Its worker says what it saw.
    is_honest: bool,
    grant: Option<Grant>,
    is_redeemed: bool,
    head_seen: bool,
    outcome: Option<Outcome>,
    settle: Option<SettleParams>,
    is_settled: bool,
    /// A byte may have reached the provider, and what that costs.
    is_sent: bool,
    bill_pico: i128,
    /// Polls of the egress that an exchange outlived although its agent was severed, and the last.
    outlived: (u64, u64),
    /// Its ticket is older than the egress's journal, which cannot know whether it was used or voided.
    is_replay: bool,
}

/// Why something was asked, for its answer.
#[derive(Clone)]
enum Purpose {
    Reserve(usize),
    Settle(usize),
    Receipts { process: u64, batch: Vec<Receipt> },
    Token(usize),
    Other,
}

impl World {
    pub(crate) fn new(seed: u64, is_told: bool) -> Self {
        let variant = Variant::of(seed);
        let mut world = Self {
            variant,
            kernel: Kernel::new(variant.config()),
            model: Model::new(variant),
            egress: Egress::default(),
            now: Now {
                boot_ms: 5_000_000,
                wall_ms: 1_700_000_000_000,
            },
            agents: Vec::new(),
            sessions: [0; WORKERS],
            next_session: 1,
            requests: Vec::new(),
            batch: Vec::new(),
            purposes: BTreeMap::new(),
            next_tag: 0,
            fault: None,
            locked: false,
            flushed: 0,
            seen: BTreeMap::new(),
            is_told,
        };
        world.set_clocks();
        world.kernel.start();
        world.model.start(true);
        world.reconnect_all();
        world.egress.restart(world.now.boot_ms);
        if seed.is_multiple_of(3) {
            world.egress.journal_began_ms = world.now.boot_ms;
        }

        world.connect_egress();
        world
    }

    /// Plays `steps`; an error says at which step what was wrong.
    pub(crate) fn play(&mut self, seed: u64, steps: &[Step]) -> Checked {
        self.hire(&mut Rng::new(seed ^ 0xA6E2));
        self.flush()?;
        for (number, &(op, joins)) in steps.iter().enumerate() {
            if self.is_told {
                println!("step {number} at {}: {op:?}", self.now.boot_ms);
            }
            let done = self
                .apply(op)
                .and_then(|()| if joins { Ok(()) } else { self.flush() });
            done.map_err(|what| format!("step {number}, {op:?}: {what}"))?;
        }
        self.quiesce().map_err(|what| format!("at the end: {what}"))
    }

    /// The agents of a run: one rich, the others poor in one way or another.
    fn hire(&mut self, rng: &mut Rng) {
        for (number, name) in ["whale", "atlas", "boreas", "ceres", "dione"]
            .iter()
            .enumerate()
        {
            let budget_micro = match number {
                0 => 500_000_000,
                _ => 10 * i64::try_from(rng.within(5, 60) * rng.pick(&[1, 4, 4, 60])).unwrap(),
            };
            let mut settings = Settings {
                max_concurrency: rng.percent(30).then(|| rng.within(1, 4)),
                max_tokens_per_minute: rng.percent(40).then(|| rng.within(300, 9_000)),
                max_input_tokens: rng.percent(20).then(|| rng.within(100, 2_000)),
                max_output_tokens: rng.percent(30).then(|| rng.within(10, 4_000)),
                streaming: rng.percent(10).then_some(false),
                vision: rng.percent(30).then_some(false),
                tools: rng.percent(15).then_some(false),
                ..Settings::default()
            };
            if rng.percent(30) {
                let names = ["plain", "slow", "dust", "free", "dear", "ghost"];
                settings.allowed_models = Some(
                    names
                        .iter()
                        .filter(|_| rng.percent(60))
                        .map(|n| (*n).into())
                        .collect(),
                )
                .filter(|names: &Vec<String>| !names.is_empty());
            }
            self.agents.push(Agent {
                name: (*name).to_owned(),
                tokens: Vec::new(),
            });
            let params = CreateParams {
                name: (*name).to_owned(),
                budget_micro,
                rpm: rng.pick(&[3, 8, 20, 60]),
                ttl_s: rng.percent(15).then(|| rng.within(20, 300)),
                settings,
                group: None,
            };
            self.ask(
                Ask::Change(Change::Create(Box::new(params))),
                Purpose::Token(number),
                Fate::Fine,
            );
        }
    }

    fn set_clocks(&mut self) {
        self.kernel.set_clocks(self.now);
        self.model.set_clocks(self.now);
    }

    fn ask(&mut self, ask: Ask, purpose: Purpose, fate: Fate) {
        if fate == Fate::RequestLost {
            if let Purpose::Receipts { process, batch } = purpose {
                self.receipts_failed(process, batch);
            }
            return;
        }
        let tag = self.next_tag;
        self.next_tag += 1;
        self.purposes.insert(tag, (purpose, fate));
        self.batch.push((tag, ask));
    }

    /// One batch, to both; what came back is compared, and acted upon.
    fn flush(&mut self) -> Checked {
        let batch = std::mem::take(&mut self.batch);
        let fault = self.fault.take();
        let locked = std::mem::take(&mut self.locked);
        let digit = fault.map_or(0, Fault::digit);
        self.now.wall_ms += digit;
        self.set_clocks();
        if self.is_told {
            for (tag, ask) in &batch {
                println!("    {tag}: {ask:?}");
            }
        }
        let holds = self.model.holds().len();
        let asked = batch.len();
        let ran = self.model.step(batch.clone(), fault, locked);
        let (done, answers) = self.kernel.step(batch, locked);
        if self.is_told {
            println!("    -> {done:?} {answers:?}");
        }
        let answers = compare(ran.died, &ran.unanswered, ran.answers, &done, answers)?;
        self.now.wall_ms += (10 - digit) % 10;
        self.set_clocks();
        if ran.died {
            self.restart_core(false);
        }
        let first_tag = self.next_tag - asked;
        self.see("died", ran.died);
        self.see("undone", ran.undone);
        for (tag, answer) in answers {
            self.see(&answer.name(), true);
            let waited = tag < first_tag && matches!(answer, Answer::Reserve(_));
            self.see("waited", waited);
            self.take_answer(tag, answer);
        }
        self.check_granted(holds)?;
        self.check()
    }

    pub(super) fn see(&mut self, what: &str, is_there: bool) {
        if is_there {
            *self.seen.entry(what.to_owned()).or_default() += 1;
        }
    }

    fn take_answer(&mut self, tag: Tag, answer: Answer) {
        let Some((purpose, fate)) = self.purposes.remove(&tag) else {
            return;
        };
        let is_lost = fate == Fate::ReplyLost || answer == Answer::Dropped;
        match (purpose, answer) {
            (Purpose::Receipts { process, batch }, answer) => {
                let is_taken = answer == Answer::Receipts && !is_lost;
                if is_taken && process == self.egress.process {
                    self.egress.acknowledged(&batch, self.now.boot_ms);
                } else {
                    self.receipts_failed(process, batch);
                }
            }
            (Purpose::Token(agent), Answer::Changed(value)) => {
                let text = value["token"].as_str().unwrap_or_default();
                let digest = TokenDigest::of(text.as_bytes());
                self.agents[agent].tokens.push(digest);
                self.model.learn_token(agent, digest);
            }
            _ if is_lost => {}
            (Purpose::Reserve(at), Answer::Reserve(ReserveReply::Granted(grant))) => {
                let request = &mut self.requests[at];
                if request.is_carried && !request.is_redeemed && request.settle.is_none() {
                    request.grant = Some(*grant);
                }
            }
            (Purpose::Settle(at), answer) => {
                let again = answer == Answer::Error(code::UNAVAILABLE);
                self.requests[at].is_settled |= !again;
            }
            _ => {}
        }
    }

    fn receipts_failed(&mut self, process: u64, batch: Vec<Receipt>) {
        if process == self.egress.process {
            self.egress.give_back(batch);
        }
    }

    fn connect_egress(&mut self) {
        self.egress.connect();
        if self.egress.is_up {
            let keys = Ask::OperatorKeys(vec!["far".to_owned()]);
            self.ask(keys, Purpose::Other, Fate::Fine);
        }
    }

    fn reconnect_all(&mut self) {
        for worker in 0..WORKERS {
            self.reconnect(worker);
        }
    }

    fn reconnect(&mut self, worker: usize) {
        self.sessions[worker] = self.next_session;
        self.next_session += 1;
    }

    /// The core's process is gone, and the next one starts.
    fn restart_core(&mut self, new_boot: bool) {
        let batch = std::mem::take(&mut self.batch);
        drop(batch);
        let lost = std::mem::take(&mut self.purposes);
        for (purpose, _) in lost.into_values() {
            if let Purpose::Receipts { process, batch } = purpose {
                self.receipts_failed(process, batch);
            }
        }
        if new_boot {
            self.kernel.machine_gone();
        } else {
            self.kernel.kill();
        }
        self.set_clocks();
        self.kernel.start();
        self.model.start(new_boot);
        self.reconnect_all();
        self.connect_egress();
    }
}

/// The answers of the core, once they are what the model says.
fn compare<E: std::fmt::Debug>(
    died: bool,
    unanswered: &[Tag],
    mut expected: Vec<(Tag, Answer)>,
    done: &Result<(), E>,
    answers: Vec<(Tag, Answer)>,
) -> Result<Vec<(Tag, Answer)>, String> {
    if died != done.is_err() {
        return Err(format!(
            "the core {} (it says {done:?})",
            if died { "goes on" } else { "ends" }
        ));
    }
    let is_free = |tag: &Tag, answer: &Answer| {
        *answer == Answer::Dropped
            || (unanswered.contains(tag) && *answer == Answer::Error(code::UNAVAILABLE))
    };
    let mut came: Vec<(Tag, Answer)> = (answers.iter())
        .filter(|(tag, answer)| !is_free(tag, answer))
        .cloned()
        .collect();
    came.sort_by_key(|&(tag, _)| tag);
    expected.sort_by_key(|&(tag, _)| tag);
    for at in 0..came.len().max(expected.len()) {
        let (real, model) = (came.get(at), expected.get(at));
        let comparable = |one: Option<&(Tag, Answer)>| {
            one.map(|(tag, answer)| (*tag, answer.clone().comparable()))
        };
        if comparable(real) != comparable(model) {
            return Err(format!(
                "answers differ\n  core:  {real:?}\n  model: {model:?}\n  all of the core: {came:?}"
            ));
        }
    }
    Ok(answers)
}

//! A rehearsal says of recorded requests what the kernel itself says when the proposal is in force: the
//! same requests, by the same clock, are asked of two kernels, one without the limits and one with them.

mod cases;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aex_admin::config::{Catalogue, Config, parse};
use aex_admin::core::reserve::Now;
use aex_admin::rehearse::{RehearseError, rehearse};
use aex_admin::writer::OperatorCommand;
use aex_admin_proto::operator::{
    CreateParams, GroupCreateParams, GroupSetParams, RunCreateParams, RunParams, Settings,
};
use aex_admin_proto::peer::Peer;
use aex_admin_proto::rehearsal::{ProposedFile, Rehearsal, RehearseParams};
use aex_admin_proto::worker::{Facts, Grant, ReserveParams, Route};
use aex_admin_proto::{HoldId, Refusal, TokenDigest};
use serde_json::{Value, json};

use crate::kernel::{CONFIG, Kernel, answered};

const START_MS: u64 = 1_790_000_000_000;

struct Rng(u64);

impl Rng {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end.max(1)
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }
}

/// A kernel with the group `team` of the agents `ana` and `ben`, and a clock of the test's.
struct World {
    _home: tempfile::TempDir,
    kernel: Kernel,
    now_ms: Arc<AtomicU64>,
    tokens: BTreeMap<String, TokenDigest>,
}

fn token_of(answer: &Value) -> TokenDigest {
    TokenDigest::of(answer["token"].as_str().unwrap().as_bytes())
}

fn settings(of: &Value, scope: &str) -> Settings {
    let found = of.pointer(scope).cloned();
    serde_json::from_value(found.unwrap_or_else(|| json!({}))).unwrap()
}

impl World {
    /// `in_force`: settings of `/kernel`, `/groups/team`, `/agents/ana`, `/agents/ben`.
    fn new(in_force: &Value) -> Self {
        let home = tempfile::tempdir().unwrap();
        let now_ms = Arc::new(AtomicU64::new(START_MS));
        let at = Arc::clone(&now_ms);
        let clock = Box::new(move || {
            let now_ms = at.load(Ordering::Relaxed);
            Now {
                boot_ms: now_ms,
                wall_ms: i64::try_from(now_ms).unwrap(),
            }
        });
        let kernel = Kernel::start_at(home.path(), "boot", clock);
        let change = |command| kernel.operator(command).unwrap();
        change(OperatorCommand::GroupSet(Box::new(GroupSetParams {
            name: "kernel".into(),
            settings: settings(in_force, "/kernel"),
            ..GroupSetParams::default()
        })));
        change(OperatorCommand::GroupCreate(Box::new(GroupCreateParams {
            name: "team".into(),
            settings: settings(in_force, "/groups/team"),
            ..GroupCreateParams::default()
        })));
        let mut tokens = BTreeMap::new();
        for name in ["ana", "ben"] {
            let made = change(OperatorCommand::Create(Box::new(CreateParams {
                name: name.into(),
                budget_micro: 1_000_000_000,
                rpm: 1_000_000,
                ttl_s: None,
                settings: settings(in_force, &format!("/agents/{name}")),
                group: Some("team".into()),
            })));
            tokens.insert(name.to_owned(), token_of(&made));
            let run = change(OperatorCommand::RunCreate(Box::new(RunCreateParams {
                parent: name.into(),
                run: RunParams::default(),
            })));
            tokens.insert(format!("{name}/run"), token_of(&run));
        }
        Self {
            _home: home,
            kernel,
            now_ms,
            tokens,
        }
    }

    fn ledger(&self) -> std::path::PathBuf {
        self.kernel.home.join("aex.db")
    }

    fn request(&self, who: &str, number: u64, facts: &Facts) -> ReserveParams {
        ReserveParams {
            id: id(number),
            token: self.tokens[who],
            route: Route::ChatCompletions,
            model: "m".into(),
            facts: facts.clone(),
            idempotency: None,
            again: None,
            peer: Peer::default(),
        }
    }

    fn reserve(&self, who: &str, number: u64, facts: &Facts) -> Result<Grant, Refusal> {
        self.kernel.reserve(self.request(who, number, facts))
    }

    fn after(&self, ms: u64) {
        self.now_ms.fetch_add(ms, Ordering::Relaxed);
    }

    fn cost_pico(&self, number: u64) -> i64 {
        self.kernel.sql(&format!(
            "SELECT SUM(cost_pico) FROM events WHERE hold = '{}'",
            id(number)
        ))
    }
}

fn id(number: u64) -> HoldId {
    let mut bytes = [7; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    HoldId::from(bytes)
}

fn config() -> Config {
    parse(CONFIG, Catalogue::builtin()).unwrap().0
}

fn proposal(scopes: &Value, policies: &[(&str, &str)], since_ms: u64) -> RehearseParams {
    let file = |path: &str, text: &str| ProposedFile {
        path: path.into(),
        text: text.into(),
    };
    RehearseParams {
        policies: policies
            .iter()
            .map(|(path, text)| file(path, text))
            .collect(),
        // JSON is YAML.
        scopes: (!scopes.is_null()).then(|| file("scopes.yaml", &scopes.to_string())),
        since_ms: i64::try_from(since_ms).unwrap(),
    }
}

fn played(ledger: &Path, params: &RehearseParams) -> Rehearsal {
    rehearse(&config(), ledger, params, &|| true).unwrap()
}

fn refusal_of(ledger: &Path, params: &RehearseParams) -> String {
    match rehearse(&config(), ledger, params, &|| true) {
        Err(RehearseError::Proposal(error)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

/// What a random request asks for.
fn facts(rng: &mut Rng) -> Facts {
    let mut tools = Vec::new();
    for tool in ["read", "shell", "web"] {
        if rng.below(4) == 0 {
            tools.push(tool.to_owned());
        }
    }
    Facts {
        messages: 1,
        ascii_bytes: 44 + rng.below(100),
        choices: 1 + rng.below(3),
        output_cap: Some(10 + rng.below(90)),
        stream: rng.below(2) == 0,
        tools,
        session: (rng.below(3) == 0).then(|| format!("s{}", rng.below(3))),
        ..Facts::default()
    }
}

/// Random settings of some scopes. `sums`: also such that may be waited for.
fn random_scopes(rng: &mut Rng, sums: bool) -> Value {
    let windows = ["tokens/minute=400", "input=130", "output=60", "parallel=2"];
    let more = [
        "requests/minute=2",
        "tokens/hour=1500",
        "money/day=0.000100",
        "requests/day=9",
        "tokens/session=900",
        "money=0.000200",
        "tokens/minute@model:m=500",
        "requests/minute@provider:q=1",
    ];
    let capabilities = [
        json!({"denied_tools": ["shell"]}),
        json!({"max_choices": 2}),
        json!({"hosted_tools": false}),
        json!({"denied_tools": ["we*"], "on_forbidden_tool": "strip"}),
    ];
    let mut one = || {
        let mut limits = vec![*rng.pick(&windows)];
        if sums {
            limits.push(*rng.pick(&more));
        }
        let mut settings = json!({"limits": limits});
        match rng.below(5) {
            0 => settings["capabilities"] = rng.pick(&capabilities).clone(),
            1 => settings["streaming"] = json!(false),
            2 => settings["max_sessions"] = json!(2),
            _ => {}
        }
        settings
    };
    let (kernel, team, ana, ben) = (one(), one(), one(), one());
    match rng.below(4) {
        0 => json!({"groups": {"team": team}}),
        1 => json!({"agents": {"ana": ana}}),
        2 => json!({"kernel": kernel, "agents": {"ben": ben}}),
        _ => json!({"groups": {"team": team}, "agents": {"ana": ana, "ben": ben}}),
    }
}

/// Refusals and the money, as the rehearsal tells them and as the kernel decides.
fn compare(seed: u64) -> u64 {
    let mut rng = Rng(seed);
    let sums = rng.below(2) == 0;
    let scopes = random_scopes(&mut rng, sums);
    let (free, bound) = (World::new(&Value::Null), World::new(&scopes));
    let mut refused: BTreeMap<String, (u64, i64)> = BTreeMap::new();
    let mut open: Vec<(u64, String, Grant, Option<Grant>, u64)> = Vec::new();
    let mut dearest = 0;
    for number in 0..80 {
        let step_ms = *rng.pick(&[0, 900, 7_000, 25_000, 61_000, 1_900_000]);
        for world in [&free, &bound] {
            world.after(step_ms);
        }
        let agent = *rng.pick(&["ana", "ben"]);
        let who = if rng.below(4) == 0 {
            format!("{agent}/run")
        } else {
            agent.to_owned()
        };
        let facts = facts(&mut rng);
        let granted = free.reserve(&who, number, &facts).unwrap();
        let there = bound.reserve(&who, number, &facts);
        let there = there.map_err(|_| refused.entry(agent.into()).or_default().0 += 1);
        let output = rng.below(facts.output_cap.unwrap() * facts.choices);
        open.push((number, agent.into(), granted, there.ok(), output));
        // Where nothing may wait, some overlap.
        while !open.is_empty() && (sums || open.len() > 3 || rng.below(3) > 0) {
            let (number, agent, granted, there, output) = open.remove(0);
            let used = answered(40, output);
            free.kernel
                .settle(id(number), &granted, used.clone())
                .unwrap();
            let cost_pico = free.cost_pico(number);
            dearest = dearest.max(cost_pico);
            match there {
                Some(grant) => {
                    bound.kernel.settle(id(number), &grant, used).unwrap();
                }
                None => refused.get_mut(&agent).unwrap().1 += cost_pico,
            }
        }
    }
    for (number, agent, granted, there, output) in open {
        free.kernel
            .settle(id(number), &granted, answered(40, output))
            .unwrap();
        if there.is_none() {
            refused.get_mut(&agent).unwrap().1 += free.cost_pico(number);
        }
    }
    let told = played(&free.ledger(), &proposal(&scopes, &[], START_MS));
    let mut said: BTreeMap<String, (u64, i64)> = BTreeMap::new();
    for line in &told.refusals {
        let sum = said.entry(line.agent.clone()).or_default();
        sum.0 += line.tally.requests;
        sum.1 += line.tally.cost_micro;
    }
    assert_eq!(told.requests.requests, 80, "seed {seed}");
    let counts = |of: &BTreeMap<String, (u64, i64)>| -> Vec<(String, u64)> {
        of.iter()
            .map(|(agent, sum)| (agent.clone(), sum.0))
            .collect()
    };
    assert_eq!(
        counts(&said),
        counts(&refused),
        "seed {seed}: {scopes}\n{told:#?}"
    );
    let cost_pico: i64 = refused.values().map(|sum| sum.1).sum();
    assert_eq!(
        told.refused.cost_micro,
        (cost_pico + 999_999) / 1_000_000,
        "seed {seed}: {scopes}"
    );
    assert_eq!(
        (told.waited.requests, told.unreadable),
        (0, 0),
        "seed {seed}"
    );
    told.refused.requests
}

#[test]
fn a_rehearsal_refuses_what_the_kernel_refuses() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let first = number("AEX_TEST_SEED");
    let seeds = first.map_or(number("AEX_TEST_SEEDS").unwrap_or(24), |_| 1);
    let first = first.unwrap_or_else(rand_seed);
    println!("AEX_TEST_SEED={first}");
    let refused: u64 = (first..first + seeds).map(compare).sum();
    assert!(refused > 0, "no limit was ever passed");
}

fn rand_seed() -> u64 {
    let id = HoldId::random().unwrap();
    let bytes: [u8; 8] = id.as_bytes()[..8].try_into().unwrap();
    u64::from_be_bytes(bytes) >> 16
}

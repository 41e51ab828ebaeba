//! Random trees, limits and requests against a naive reference: no scope is ever above any of its limits,
//! and nothing that fits every scope is refused. Across restarts, moves, ended runs and days.
//!
//! The seed is printed; `AEX_TEST_SEED` repeats a run, `AEX_TEST_SEEDS` says how many there are.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod naive;
mod plant;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::channel;

use aex_admin::audit;
use aex_admin::config::{Catalogue, Config, parse};
use aex_admin::core::reserve::Now;
use aex_admin::ledger::Ledger;
use aex_admin::writer::{Command, OperatorCommand, Reply, Shared, Writer};
use aex_admin_proto::egress::{Ending, Receipt, ReceiptsParams};
use aex_admin_proto::peer::Peer;
use aex_admin_proto::rpc::RpcError;
use aex_admin_proto::ticket::TicketKey;
use aex_admin_proto::worker::{
    Facts, Observed, ReserveParams, ReserveReply, Route, SettleParams, SettleReply, Usage,
    UsageSeen,
};
use aex_admin_proto::{HoldId, TokenDigest};
use naive::{Asked, Ended, Hold, Naive};

/// 10,000 and 100,000 picodollars a token; `dear` ten times that.
const CONFIG: &str = "
providers:
  p: { base_url: 'http://127.0.0.1:1/v1', request_timeout: 24h }
  q: { base_url: 'http://127.0.0.1:2/v1', request_timeout: 24h }
models:
  plain: { provider: p, hidden_output: false, price: { input_per_mtok: 0.01, output_per_mtok: 0.1 } }
  dear: { provider: q, hidden_output: false, price: { input_per_mtok: 0.1, output_per_mtok: 1 } }
  free: { provider: p, hidden_output: false, price: free }
hold_wait: 0ms
";
/// Of a chat of one message: 48 + 8.
const FRAME_TOKENS: u64 = 56;

pub(crate) struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.index(of.len())]
    }

    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }
}

#[derive(Default)]
struct Clocks {
    boot_ms: AtomicU64,
    wall_ms: AtomicI64,
}

/// The real writer, and the naive tree beside it.
pub(crate) struct World {
    home: tempfile::TempDir,
    config: Arc<Config>,
    clocks: Arc<Clocks>,
    writer: Option<Writer>,
    pub(crate) naive: Naive,
    /// Tokens, each with the scope that owns it.
    pub(crate) tokens: Vec<(TokenDigest, usize)>,
    /// Open holds: number in the naive list, id, ticket.
    open: Vec<(usize, HoldId, String)>,
    asked: u64,
    pub(crate) granted: u64,
    pub(crate) refused: u64,
}

fn home() -> tempfile::TempDir {
    let in_memory = std::path::Path::new("/dev/shm");
    let made = in_memory.is_dir().then(|| tempfile::tempdir_in(in_memory));
    match made {
        Some(Ok(home)) => home,
        _ => tempfile::tempdir().unwrap(),
    }
}

impl World {
    fn new() -> Self {
        let clocks = Arc::new(Clocks::default());
        clocks.boot_ms.store(1_000_000, Ordering::Relaxed);
        clocks.wall_ms.store(1_790_000_000_000, Ordering::Relaxed);
        let mut world = Self {
            home: home(),
            config: Arc::new(parse(CONFIG, Catalogue::builtin()).unwrap().0),
            clocks,
            writer: None,
            naive: Naive::default(),
            tokens: Vec::new(),
            open: Vec::new(),
            asked: 0,
            granted: 0,
            refused: 0,
        };
        world.advance(0);
        world.start();
        world
    }

    fn start(&mut self) {
        self.writer = None;
        let ledger = Ledger::open(&self.home.path().join("aex.db")).unwrap();
        let clocks = Arc::clone(&self.clocks);
        let clock = Box::new(move || Now {
            boot_ms: clocks.boot_ms.load(Ordering::Relaxed),
            wall_ms: clocks.wall_ms.load(Ordering::Relaxed),
        });
        let key = TicketKey::new(1, [9; 32]);
        let (config, shared) = (Arc::clone(&self.config), Arc::new(Shared::default()));
        let writer = Writer::new(ledger, "boot", key, config, shared, clock);
        self.writer = Some(writer.unwrap());
    }

    fn advance(&mut self, ms: u64) {
        let boot_ms = self.clocks.boot_ms.fetch_add(ms, Ordering::Relaxed) + ms;
        let step = i64::try_from(ms).unwrap();
        let wall_ms = self.clocks.wall_ms.fetch_add(step, Ordering::Relaxed) + step;
        (self.naive.boot_ms, self.naive.wall_ms) = (boot_ms, wall_ms);
    }

    /// One command, answered. Whoever must wait for what is held is refused at the next look: nobody waits
    /// here.
    fn ask<T: Send + 'static>(
        &mut self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, RpcError> {
        let (sender, receiver) = channel();
        let reply = Reply::new(move |answer| drop(sender.send(answer)));
        self.writer
            .as_mut()
            .unwrap()
            .step(vec![command(reply)])
            .unwrap();
        if let Ok(answer) = receiver.try_recv() {
            return answer;
        }
        self.advance(50);
        self.writer.as_mut().unwrap().step(Vec::new()).unwrap();
        receiver.try_recv().unwrap()
    }

    pub(crate) fn operator(&mut self, command: OperatorCommand) -> serde_json::Value {
        self.ask(|reply| Command::Operator {
            command,
            by_uid: None,
            reply,
        })
        .unwrap()
    }

    fn reserve(&mut self, rng: &mut Rng) {
        let (token, own) = self.tokens[rng.index(self.tokens.len())];
        let (model, provider, input_pico) = rng.pick(&[
            ("plain", "p", 10_000),
            ("plain", "p", 10_000),
            ("dear", "q", 100_000),
            ("free", "p", 0),
        ]);
        let (text, output) = (1 + rng.below(200), 1 + rng.below(60));
        let input = FRAME_TOKENS + text;
        let path = self.naive.path(own);
        let asked = Asked {
            agent: self.naive.agent(&path),
            model,
            provider,
            session: rng.pick(&["", "s1", "s2", "s3"]).to_owned(),
            input,
            output,
            pico: input_pico * i128::from(input) + 10 * input_pico * i128::from(output),
        };
        self.asked += 1;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.asked.to_be_bytes());
        let id = HoldId::from(bytes);
        let params = ReserveParams {
            id,
            token,
            route: Route::ChatCompletions,
            model: model.to_owned(),
            facts: Facts {
                messages: 1,
                ascii_bytes: text,
                choices: 1,
                output_cap: Some(output),
                session: Some(asked.session.clone()).filter(|session| !session.is_empty()),
                ..Facts::default()
            },
            idempotency: None,
            again: None,
            peer: Peer::default(),
        };
        let broken = self.naive.broken(&path, &asked);
        let day_ms = self.naive.day_ms();
        let params = Box::new(params);
        let reply = self.ask(|reply| Command::Reserve {
            params,
            session: 1,
            reply,
        });
        match (reply.unwrap(), broken) {
            (ReserveReply::Granted(grant), None) => {
                self.granted += 1;
                self.open.push((self.naive.holds.len(), id, grant.ticket));
                self.naive.holds.push(Hold {
                    path,
                    model,
                    provider,
                    pico: asked.pico,
                    tokens: asked.input + asked.output,
                    session: asked.session,
                    day_ms,
                    ended: None,
                });
                self.naive.check();
            }
            (ReserveReply::Refused(_), Some(_)) => self.refused += 1,
            (reply, broken) => panic!("answered {reply:?}, and broken is {broken:?}"),
        }
    }

    /// One open hold ends: by its usage, or as never sent.
    fn end(&mut self, rng: &mut Rng) {
        if self.open.is_empty() {
            return;
        }
        let (at, id, ticket) = self.open.swap_remove(rng.index(self.open.len()));
        let hold = self.naive.holds[at].clone();
        let at_boot_ms = self.naive.boot_ms;
        if rng.percent(15) {
            let said = ReceiptsParams {
                receipts: vec![Receipt {
                    id,
                    ending: Ending::Voided,
                }],
                journal_begun_boot_ms: u64::MAX,
            };
            self.ask(|reply| Command::Receipts { said, reply }).unwrap();
            self.naive.holds[at].ended = Some(Ended {
                at_boot_ms,
                pico: 0,
                tokens: 0,
                sent: false,
            });
            return;
        }
        let output = rng.below(10).min(hold.tokens);
        let prompt = rng.below(hold.tokens - output + 1).min(60);
        let observed = Observed {
            status: Some(200),
            complete: true,
            usage: UsageSeen::Reported(Usage {
                prompt,
                output,
                ..Usage::default()
            }),
            ..Observed::default()
        };
        let params = Box::new(SettleParams {
            id,
            ticket,
            observed,
        });
        let reply: SettleReply = self.ask(|reply| Command::Settle { params, reply }).unwrap();
        self.naive.holds[at].ended = Some(Ended {
            at_boot_ms,
            pico: i128::from(reply.cost_pico),
            tokens: prompt + output,
            sent: true,
        });
    }

    fn pass_time(&mut self, rng: &mut Rng) {
        let ms = match rng.below(10) {
            0..5 => 10 * rng.below(100),
            5..8 => 1_000 * rng.below(40),
            8 => 61_000,
            _ => 3_600_000 * (1 + rng.below(9)),
        };
        self.advance(ms);
    }

    /// What the ledger says of itself, and each scope's row against the naive list.
    fn check_rows(&self) {
        let path = self.home.path().join("aex.db");
        let report = audit::of_file(&path, &[]).unwrap();
        assert!(report.ok, "{:#?}", report.violations);
        let conn = rusqlite::Connection::open(&path).unwrap();
        let sql = "SELECT spent_micro, carry_pico, held_pico FROM agents WHERE name = ?1 \
                   UNION ALL SELECT spent_micro, carry_pico, held_pico FROM nodes WHERE name = ?1";
        for (at, scope) in self.naive.scopes.iter().enumerate() {
            let row: (i64, i64, i64) = conn
                .query_row(sql, [&scope.name], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })
                .unwrap();
            let used = i128::from(row.0) * 1_000_000 + i128::from(row.1 + row.2);
            assert_eq!(used, self.naive.money(at), "{}", scope.name);
        }
    }
}

fn run(seed: u64) -> (u64, u64) {
    let mut rng = Rng(seed);
    let mut world = World::new();
    world.plant(&mut rng);
    for _ in 0..400 {
        match rng.below(100) {
            0..55 => world.reserve(&mut rng),
            55..85 => world.end(&mut rng),
            85..95 => world.pass_time(&mut rng),
            95..97 => world.move_agent(&mut rng),
            97 => world.end_run(&mut rng),
            98 => world.check_rows(),
            _ => world.start(),
        }
    }
    while !world.open.is_empty() {
        world.end(&mut rng);
    }
    world.check_rows();
    (world.granted, world.refused)
}

#[test]
fn no_scope_is_above_a_limit_and_what_fits_every_scope_is_granted() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().unwrap())
    };
    let seeds = number("AEX_TEST_SEEDS").unwrap_or(40);
    let first = number("AEX_TEST_SEED").unwrap_or_else(aex_admin_proto::clock::boot_ms);
    let (mut granted, mut refused) = (0, 0);
    for seed in first..first + seeds {
        let done = std::panic::catch_unwind(|| run(seed));
        let (more, less) = done.unwrap_or_else(|_| panic!("AEX_TEST_SEED={seed} AEX_TEST_SEEDS=1"));
        granted += more;
        refused += less;
    }
    // Both happen, or nothing was tried.
    assert!(
        granted > 20 * seeds && refused > 20 * seeds,
        "{granted} granted, {refused} refused"
    );
}

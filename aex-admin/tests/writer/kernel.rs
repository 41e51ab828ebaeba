//! A writer over a ledger of its own, driven by plain calls.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use aex_admin::audit;
use aex_admin::config::{Catalogue, parse};
use aex_admin::ledger::Ledger;
use aex_admin::writer::{Clock, Command, OperatorCommand, Reply, Shared, Writer, system_clock};
use aex_admin_proto::egress::{Ending, Exchange, Receipt, ReceiptsParams};
use aex_admin_proto::operator::{CreateParams, Settings};
use aex_admin_proto::peer::Peer;
use aex_admin_proto::rpc::RpcError;
use aex_admin_proto::ticket::TicketKey;
use aex_admin_proto::worker::{
    Facts, Grant, Observed, ReserveParams, ReserveReply, Route, SettleParams, SettleReply, Usage,
    UsageSeen,
};
use aex_admin_proto::{HoldId, Refusal, TokenDigest};
use serde_json::Value;

/// Input 10 micro-dollars a thousand tokens, output 100: pico 10,000 and 100,000 a token.
pub(crate) const CONFIG: &str = "
providers:
  p: { base_url: 'http://127.0.0.1:1/v1', request_timeout: 20s }
  q: { base_url: 'https://far.example/v1', keys: operator, request_timeout: 60s }
models:
  two:
    targets:
      - { provider: p, model: there, hidden_output: false, price: { input_per_mtok: 0.01, output_per_mtok: 0.1 } }
      - { provider: q, hidden_output: false, tokenizer: o200k_base, price: { input_per_mtok: 0.01, output_per_mtok: 0.1 } }
      - { provider: p, hidden_output: false, price: { input_per_mtok: 0.01, output_per_mtok: 0.1 } }
  m: { provider: p, hidden_output: false, price: { input_per_mtok: 0.01, output_per_mtok: 0.1 } }
hold_wait: 300ms
lock_wait: 200ms
";
pub(crate) const LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at what the writer does by itself.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
pub(crate) const INPUT_PICO: i64 = 10_000;
pub(crate) const OUTPUT_PICO: i64 = 100_000;

pub(crate) struct Kernel {
    pub(crate) home: PathBuf,
    pub(crate) queue: Sender<Command>,
    pub(crate) shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

pub(crate) struct Agent {
    pub(crate) token: TokenDigest,
}

impl Kernel {
    pub(crate) fn start(home: &Path) -> Self {
        Self::start_at(home, "boot", system_clock())
    }

    /// At a boot and by a clock of the test's.
    pub(crate) fn start_at(home: &Path, boot_id: &str, clock: Clock) -> Self {
        let shared = Arc::new(Shared::default());
        let writer = writer(home, boot_id, Arc::clone(&shared), clock);
        let (queue, commands) = channel();
        let thread = Some(std::thread::spawn(move || writer.run(&commands)));
        Self {
            home: home.to_owned(),
            queue,
            shared,
            thread,
        }
    }

    pub(crate) fn ask<T: Send + 'static>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Receiver<Result<T, RpcError>> {
        let (sender, receiver) = channel();
        let reply = Reply::new(move |answer| drop(sender.send(answer)));
        self.queue.send(command(reply)).unwrap();
        receiver
    }

    pub(crate) fn operator(&self, command: OperatorCommand) -> Result<Value, RpcError> {
        self.ask(|reply| Command::Operator {
            command,
            // As on a shared host: by somebody else than the kernel itself.
            by_uid: Some(4242),
            reply,
        })
        .recv_timeout(LIMIT)
        .unwrap()
    }

    pub(crate) fn agent(&self, name: &str, budget_micro: i64, rpm: u64) -> Agent {
        let params = CreateParams {
            name: name.into(),
            budget_micro,
            rpm,
            ttl_s: None,
            settings: Settings::default(),
            group: None,
        };
        let answer = self
            .operator(OperatorCommand::Create(Box::new(params)))
            .unwrap();
        Agent {
            token: TokenDigest::of(answer["token"].as_str().unwrap().as_bytes()),
        }
    }

    pub(crate) fn reserve_later(
        &self,
        params: ReserveParams,
    ) -> Receiver<Result<ReserveReply, RpcError>> {
        self.ask(|reply| Command::Reserve {
            params: Box::new(params),
            session: 1,
            reply,
        })
    }

    pub(crate) fn reply(&self, params: ReserveParams) -> ReserveReply {
        let reply = self.reserve_later(params).recv_timeout(LIMIT);
        reply.unwrap().unwrap()
    }

    #[track_caller]
    pub(crate) fn reserve(&self, params: ReserveParams) -> Result<Grant, Refusal> {
        match self.reply(params) {
            ReserveReply::Granted(grant) => Ok(*grant),
            ReserveReply::Refused(refusal) | ReserveReply::Measure { refusal, .. } => Err(refusal),
            ReserveReply::Replay(replay) => panic!("{replay:?}"),
        }
    }

    pub(crate) fn settle_later(
        &self,
        id: HoldId,
        grant: &Grant,
        observed: Observed,
    ) -> Receiver<Result<SettleReply, RpcError>> {
        let params = Box::new(SettleParams {
            id,
            ticket: grant.ticket.clone(),
            observed,
        });
        self.ask(|reply| Command::Settle { params, reply })
    }

    pub(crate) fn settle(
        &self,
        id: HoldId,
        grant: &Grant,
        observed: Observed,
    ) -> Result<SettleReply, RpcError> {
        self.settle_later(id, grant, observed)
            .recv_timeout(LIMIT)
            .unwrap()
    }

    pub(crate) fn receipt(&self, id: HoldId, ending: Ending) {
        self.receipt_since(id, ending, u64::MAX);
    }

    pub(crate) fn receipt_since(&self, id: HoldId, ending: Ending, journal_begun_boot_ms: u64) {
        let receipts = vec![Receipt { id, ending }];
        self.ask(|reply| Command::Receipts {
            said: ReceiptsParams {
                receipts,
                journal_begun_boot_ms,
            },
            reply,
        })
        .recv_timeout(LIMIT)
        .unwrap()
        .unwrap();
    }

    pub(crate) fn sql<T: rusqlite::types::FromSql>(&self, sql: &str) -> T {
        let conn = rusqlite::Connection::open(self.home.join("aex.db")).unwrap();
        conn.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    pub(crate) fn outside(&self, sql: &str) {
        let conn = rusqlite::Connection::open(self.home.join("aex.db")).unwrap();
        conn.busy_timeout(LIMIT).unwrap();
        conn.execute(sql, []).unwrap();
    }

    /// Waits for what the writer does by itself.
    #[track_caller]
    pub(crate) fn until(&self, holds: impl Fn(&Self) -> bool) {
        for _ in 0..LIMIT.as_millis() / LOOK_AGAIN.as_millis() {
            if holds(self) {
                return;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        panic!("it does not come true");
    }

    #[track_caller]
    pub(crate) fn audit(&self) {
        let report = audit::of_file(&self.home.join("aex.db"), &[]).unwrap();
        assert!(report.ok, "{:#?}", report.violations);
    }

    pub(crate) fn stop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.queue.send(Command::Stop).unwrap();
            thread.join().unwrap();
        }
    }
}

/// The writer alone, for who drives it batch by batch.
pub(crate) fn writer(home: &Path, boot_id: &str, shared: Arc<Shared>, clock: Clock) -> Writer {
    let (config, _) = parse(CONFIG, Catalogue::builtin()).unwrap();
    let ledger = Ledger::open(&home.join("aex.db")).unwrap();
    let key = TicketKey::new(1, [9; 32]);
    Writer::new(ledger, boot_id, key, Arc::new(config), shared, clock).unwrap()
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn ask(agent: &Agent, id: u8, output_cap: Option<u64>) -> ReserveParams {
    ReserveParams {
        id: HoldId::from([id; 16]),
        token: agent.token,
        route: Route::ChatCompletions,
        model: "m".into(),
        // Bound: 48 + 8 + 44 = 100 tokens.
        facts: Facts {
            messages: 1,
            ascii_bytes: 44,
            choices: 1,
            output_cap,
            ..Facts::default()
        },
        idempotency: None,
        again: None,
        peer: Peer::default(),
    }
}

pub(crate) fn hold_pico(output_cap: u64) -> i64 {
    100 * INPUT_PICO + i64::try_from(output_cap).unwrap() * OUTPUT_PICO
}

pub(crate) fn id(id: u8) -> HoldId {
    HoldId::from([id; 16])
}

pub(crate) fn answered(prompt: u64, output: u64) -> Observed {
    Observed {
        status: Some(200),
        complete: true,
        usage: UsageSeen::Reported(Usage {
            prompt,
            output,
            ..Usage::default()
        }),
        ..Observed::default()
    }
}

pub(crate) fn status(status: u16) -> Observed {
    Observed {
        status: Some(status),
        complete: true,
        ..Observed::default()
    }
}

pub(crate) fn ended(status: u16) -> Ending {
    Ending::Ended(Exchange {
        sent: true,
        status: Some(status),
        complete: true,
        ..Exchange::default()
    })
}

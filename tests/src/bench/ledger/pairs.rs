//! Holds and settles in a closed loop, over the sockets that workers and the egress use.
//!
//! Each of N loops reserves, then settles with the provider's usage, and begins again; both answers
//! come after the ledger's sync. The egress's receipt of each exchange leaves at the moment of its
//! settle, gathered as the real egress gathers them: one call at a time.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aex_admin_proto::client::Client;
use aex_admin_proto::egress::{
    Ending, Exchange, MAX_RECEIPTS, ORDERS, Orders, OrdersParams, RECEIPTS, Receipt, ReceiptsParams,
};
use aex_admin_proto::operator::{CreateParams, Metrics, Settings, TokenReply, method};
use aex_admin_proto::peer::Peer;
use aex_admin_proto::places::Places;
use aex_admin_proto::sandbox::InForce;
use aex_admin_proto::worker::{
    self, Facts, Observed, ReadyReply, ReserveParams, ReserveReply, Route, SettingsParams,
    SettleParams, SettleReply, Usage, UsageSeen, WorkerSettings,
};
use aex_admin_proto::{HoldId, TokenDigest, clock};
use serde::de::IgnoredAny;
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::admin::{Admin, CALL_LIMIT};
use super::{lost, micros};
use crate::bench::load::now_us;

/// No agent comes near these.
const BUDGET_MICRO: i64 = 1_000_000_000_000;
const RPM: u64 = 100_000_000;
const MODEL: &str = "gpt-oss-20b";
const PROVIDER: &str = "sim";
const LOOKS: usize = 1000;
const LOOK: Duration = Duration::from_millis(10);

/// What the loops of one load saw.
#[derive(Debug, Default)]
pub struct Tally {
    pub pairs: u64,
    /// Refusals and lost answers.
    pub errors: u64,
    pub holds_us: Vec<u32>,
    pub settles_us: Vec<u32>,
    pub elapsed_us: u64,
    /// Of `aex-admin` in this time, as are the next two.
    pub cpu_ms: u64,
    pub commits: u64,
    pub operations: u64,
}

impl Tally {
    pub fn add(&mut self, other: Self) {
        self.pairs += other.pairs;
        self.errors += other.errors;
        self.holds_us.extend(other.holds_us);
        self.settles_us.extend(other.settles_us);
        self.elapsed_us += other.elapsed_us;
        self.cpu_ms += other.cpu_ms;
        self.commits += other.commits;
        self.operations += other.operations;
    }
}

/// Workers and egress of a running `aex-admin`, and agents to ask for.
pub struct Load {
    workers: Vec<Client>,
    egress: Arc<Egress>,
    agents: Vec<TokenDigest>,
    /// What no other run of this process has used; the high half of every id.
    run: u64,
    next_id: u64,
    _background: JoinSet<()>,
}

impl Load {
    /// Connects, and waits until the kernel is ready to be asked.
    ///
    /// # Errors
    /// It does not become ready, or makes no agent.
    pub async fn begin(
        admin: &Admin,
        places: &Places,
        workers: u32,
        agents: u32,
    ) -> io::Result<Self> {
        let mut background = JoinSet::new();
        let egress = Arc::new(Egress::connect(places).await?);
        background.spawn(take_orders(Arc::clone(&egress)));
        background.spawn(give_receipts(Arc::clone(&egress)));
        let mut load = Self {
            workers: Vec::new(),
            egress,
            agents: Vec::new(),
            run: now_us(),
            next_id: 0,
            _background: background,
        };
        for index in 0..workers.max(1) {
            load.workers.push(worker(places, index).await?);
        }
        ready(&load.workers[0]).await?;
        for index in 0..agents.max(1) {
            // Another run on the same ledger has agents of other names.
            let name = format!("bench-{}-{index}", load.run);
            load.agents.push(agent(admin, name).await?);
        }
        Ok(load)
    }

    /// Keeps `in_flight` pairs going for `time_us`, then lets each come to its end.
    ///
    /// # Errors
    /// `aex-admin` tells no metrics, or takes no receipts.
    pub async fn run(
        &mut self,
        admin: &Admin,
        in_flight: usize,
        time_us: u64,
    ) -> io::Result<Tally> {
        let before: Metrics = admin.ask(method::METRICS, &json!({})).await?;
        let cpu_before_ms = admin.cpu_ms();
        let started_us = now_us();
        let mut tasks = JoinSet::new();
        for index in 0..in_flight.max(1) {
            tasks.spawn(self.one_loop(index).drive(started_us + time_us));
        }
        let mut all = Tally::default();
        while let Some(tally) = tasks.join_next().await {
            all.add(tally?);
        }
        all.elapsed_us = now_us() - started_us;
        all.cpu_ms = admin.cpu_ms() - cpu_before_ms;
        let after: Metrics = admin.ask(method::METRICS, &json!({})).await?;
        all.commits = after.commits - before.commits;
        all.operations = after.operations - before.operations;
        self.egress.nothing_owed().await?;
        Ok(all)
    }

    fn one_loop(&mut self, index: usize) -> Loop {
        self.next_id += 1 << 32;
        Loop {
            worker: self.workers[index % self.workers.len()].clone(),
            egress: Arc::clone(&self.egress),
            agent: self.agents[index % self.agents.len()],
            ids: Ids {
                run: self.run,
                next: self.next_id,
            },
        }
    }
}

async fn worker(places: &Places, index: u32) -> io::Result<Client> {
    let client = Client::connect(&places.worker_socket()).await?;
    let introduction = SettingsParams {
        known: None,
        worker: index,
        pid: std::process::id(),
        sandbox: InForce::default(),
        listeners: Vec::new(),
    };
    let _: WorkerSettings = client
        .call(worker::SETTINGS, &introduction, CALL_LIMIT)
        .await
        .map_err(lost)?;
    Ok(client)
}

async fn ready(worker: &Client) -> io::Result<()> {
    for _ in 0..LOOKS {
        let state: ReadyReply = worker
            .call(worker::READY, &json!({}), CALL_LIMIT)
            .await
            .map_err(lost)?;
        if state.ready {
            return Ok(());
        }
        sleep(LOOK).await;
    }
    Err(io::Error::other("the kernel does not become ready"))
}

async fn agent(admin: &Admin, name: String) -> io::Result<TokenDigest> {
    let params = CreateParams {
        name,
        budget_micro: BUDGET_MICRO,
        rpm: RPM,
        ttl_s: None,
        settings: Settings::default(),
        group: None,
    };
    let reply: TokenReply = admin.ask(method::AGENT_CREATE, &params).await?;
    Ok(TokenDigest::of(reply.token.as_bytes()))
}

/// Unique is enough here: nobody guesses.
struct Ids {
    run: u64,
    next: u64,
}

impl Ids {
    fn next(&mut self) -> HoldId {
        self.next += 1;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.run.to_be_bytes());
        bytes[8..].copy_from_slice(&self.next.to_be_bytes());
        HoldId::from(bytes)
    }
}

/// One of the loops that run at once.
struct Loop {
    worker: Client,
    egress: Arc<Egress>,
    agent: TokenDigest,
    ids: Ids,
}

impl Loop {
    async fn drive(mut self, end_us: u64) -> Tally {
        let mut tally = Tally::default();
        while now_us() < end_us {
            match self.pair().await {
                Some((hold_us, settle_us)) => {
                    tally.pairs += 1;
                    tally.holds_us.push(hold_us);
                    tally.settles_us.push(settle_us);
                }
                None => tally.errors += 1,
            }
        }
        tally
    }

    /// The times of a hold and its settle.
    async fn pair(&mut self) -> Option<(u32, u32)> {
        let id = self.ids.next();
        let asked_us = now_us();
        let ticket = self.hold(id).await?;
        let held_us = now_us();
        self.egress.ended(id);
        let settle = SettleParams {
            id,
            ticket,
            observed: observed(),
        };
        let settled = self
            .worker
            .call::<_, SettleReply>(worker::SETTLE, &settle, CALL_LIMIT)
            .await;
        settled.ok()?;
        Some((micros(held_us - asked_us), micros(now_us() - held_us)))
    }

    async fn hold(&self, id: HoldId) -> Option<String> {
        let reserve = ReserveParams {
            id,
            token: self.agent,
            route: Route::ChatCompletions,
            model: MODEL.to_owned(),
            facts: facts(),
            idempotency: None,
            again: None,
            peer: Peer::default(),
        };
        let reply = self
            .worker
            .call(worker::RESERVE, &reserve, CALL_LIMIT)
            .await;
        match reply {
            Ok(ReserveReply::Granted(grant)) => Some(grant.ticket),
            _ => None,
        }
    }
}

/// A chat request of about 1 KB that asks for 16 tokens.
fn facts() -> Facts {
    Facts {
        body_bytes: 960,
        ascii_bytes: 820,
        messages: 1,
        output_cap: Some(16),
        choices: 1,
        ..Facts::default()
    }
}

fn observed() -> Observed {
    Observed {
        status: Some(200),
        complete: true,
        usage: UsageSeen::Reported(Usage {
            prompt: 190,
            output: 16,
            ..Usage::default()
        }),
        own_output_tokens: 64,
        ..Observed::default()
    }
}

/// The egress's side: what is owed to `aex-admin`.
struct Egress {
    client: Client,
    owed: Mutex<Owed>,
    owing: Notify,
}

#[derive(Default)]
struct Owed {
    receipts: Vec<Receipt>,
    /// Of a call that is not answered yet.
    sent: usize,
}

impl Egress {
    async fn connect(places: &Places) -> io::Result<Self> {
        Ok(Self {
            client: Client::connect(&places.egress_role_socket()).await?,
            owed: Mutex::default(),
            owing: Notify::new(),
        })
    }

    fn owed(&self) -> MutexGuard<'_, Owed> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self, id: HoldId) {
        let ending = Ending::Ended(Exchange {
            sent: true,
            status: Some(200),
            failure: None,
            bytes_up: 960,
            bytes_down: 600,
            complete: true,
            head_boot_ms: clock::boot_ms(),
        });
        self.owed().receipts.push(Receipt { id, ending });
        self.owing.notify_one();
    }

    fn take_batch(&self) -> ReceiptsParams {
        let mut owed = self.owed();
        let count = owed.receipts.len().min(MAX_RECEIPTS);
        let rest = owed.receipts.split_off(count);
        let receipts = std::mem::replace(&mut owed.receipts, rest);
        owed.sent = receipts.len();
        ReceiptsParams {
            receipts,
            journal_begun_boot_ms: 0,
        }
    }

    fn owes(&self) -> bool {
        let owed = self.owed();
        owed.sent > 0 || !owed.receipts.is_empty()
    }

    async fn nothing_owed(&self) -> io::Result<()> {
        for _ in 0..LOOKS {
            if !self.owes() {
                return Ok(());
            }
            sleep(LOOK).await;
        }
        Err(io::Error::other("aex-admin takes no receipts"))
    }
}

/// Takes up every configuration. There is nothing to void or to cut: each hold is settled at once.
async fn take_orders(egress: Arc<Egress>) {
    let mut said = OrdersParams {
        pid: std::process::id(),
        acting_on: None,
        operator_keys: vec![PROVIDER.to_owned()],
        problem: None,
        sandbox: InForce::default(),
    };
    // Ends with `aex-admin`.
    while let Ok(orders) = egress
        .client
        .call::<_, Orders>(ORDERS, &said, CALL_LIMIT)
        .await
    {
        if let Some(config) = orders.config {
            said.acting_on = Some(config.generation);
        }
    }
}

async fn give_receipts(egress: Arc<Egress>) {
    loop {
        let batch = egress.take_batch();
        if batch.receipts.is_empty() {
            egress.owing.notified().await;
            continue;
        }
        let taken = egress
            .client
            .call::<_, IgnoredAny>(RECEIPTS, &batch, CALL_LIMIT)
            .await;
        egress.owed().sent = 0;
        if taken.is_err() {
            return;
        }
    }
}

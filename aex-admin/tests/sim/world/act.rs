//! What goes as it should: requests on their way, receipts, orders, what an operator does.

use aex_admin_proto::egress::{Exchange, Failure, ReceiptsParams};
use aex_admin_proto::operator::{RotateParams, SetParams, Settings};
use aex_admin_proto::peer::Peer;
use aex_admin_proto::worker::{
    Facts, Idempotency, Measured, Observed, ReserveParams, Route, SettleParams, Usage, UsageSeen,
};
use aex_admin_proto::{HoldId, KeyDigest, RequestDigest, TokenDigest};

use super::{Checked, Purpose, Request, WORKERS, World};
use crate::asks::{Ask, Change, Turn};
use crate::ops::{Fate, Op};
use crate::provider::{self, Outcome, Sent};
use crate::rng::{Rng, index};
use crate::setup::model;

impl World {
    pub(super) fn apply(&mut self, op: Op) -> Checked {
        match op {
            Op::Reserve {
                agent,
                worker,
                shape,
                fate,
            } => self.reserve(agent, worker, shape, fate),
            Op::AskAgain { pick, fate } => self.ask_again(pick, fate),
            Op::ReuseId { pick, shape } => self.reuse_id(pick, shape),
            Op::Progress { pick, shape } => self.progress(pick, shape),
            Op::Settle { pick, fate } => self.settle_one(pick, fate),
            Op::SettleAgain { pick, changed } => self.settle_again(pick, changed),
            Op::Lie { pick, shape } => self.lie(pick, shape),
            Op::RedeemLate { pick } => self.redeem_late(pick),
            Op::Cancel { pick } => {
                if let Some(at) = self.pick(pick, |request| request.is_carried) {
                    let ask = Ask::Cancel(self.requests[at].id);
                    self.ask(ask, Purpose::Other, Fate::Fine);
                }
            }
            Op::Receipts { count, fate } => self.tell(count, fate),
            Op::Orders { lost } => return self.poll(lost),
            Op::Budget { agent, shape } => self.set_budget(agent, shape),
            Op::Limits { agent, shape } => self.set_limits(agent, shape),
            Op::Pause { agent } => self.turn(Turn::Pause, agent),
            Op::Resume { agent } => self.turn(Turn::Resume, agent),
            Op::Sever { agent } => self.turn(Turn::Sever, agent),
            Op::Delete { agent } => self.turn(Turn::Delete, agent),
            Op::Rotate { agent, shape } => self.rotate(agent, shape),
            Op::Flush => return self.flush(),
            Op::Wait { ms } => return self.wait(ms),
            other => return self.upset(other),
        }
        Ok(())
    }

    /// One of the requests that fit, by number.
    pub(super) fn pick(&self, pick: u64, fits: impl Fn(&Request) -> bool) -> Option<usize> {
        let fitting: Vec<usize> = (self.requests.iter().enumerate())
            .filter(|(_, request)| fits(request))
            .map(|(at, _)| at)
            .collect();
        // The newer half more often: the older ones are done.
        (!fitting.is_empty()).then(|| fitting[fitting.len() - 1 - index(pick, fitting.len())])
    }

    fn reserve(&mut self, agent: u64, worker: u64, shape: u64, fate: Fate) {
        let agent = index(agent, self.agents.len());
        let worker = index(worker, WORKERS);
        let mut rng = Rng::new(shape);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&(self.requests.len() as u64).to_be_bytes());
        bytes[8..].copy_from_slice(&rng.next().to_be_bytes());
        let params = ReserveParams {
            id: HoldId::from(bytes),
            token: self.token(agent, &mut rng),
            route: Route::ChatCompletions,
            // Limits of a model are shared by two agents, of which one never waits for money: whose
            // waiters are looked at first must not matter.
            model: choose_model(agent, &mut rng).to_owned(),
            facts: facts(&mut rng),
            idempotency: key(&mut rng),
            again: None,
            peer: Peer::default(),
        };
        self.requests.push(Request {
            id: params.id,
            worker,
            params: params.clone(),
            is_carried: true,
            is_honest: true,
            grant: None,
            is_redeemed: false,
            head_seen: false,
            outcome: None,
            settle: None,
            is_settled: false,
            is_sent: false,
            bill_pico: 0,
            outlived: (0, 0),
            is_replay: false,
        });
        self.send_reserve(self.requests.len() - 1, params, fate);
    }

    fn send_reserve(&mut self, at: usize, params: ReserveParams, fate: Fate) {
        let session = self.sessions[self.requests[at].worker];
        let ask = Ask::Reserve { params, session };
        self.ask(ask, Purpose::Reserve(at), fate);
    }

    fn token(&self, agent: usize, rng: &mut Rng) -> TokenDigest {
        let known = &self.agents[agent].tokens;
        match known.last() {
            Some(&newest) if rng.percent(95) => newest,
            Some(_) if rng.percent(60) => rng.pick(known),
            _ => TokenDigest::of(b"nobody's"),
        }
    }

    fn ask_again(&mut self, pick: u64, fate: Fate) {
        let fits = |request: &Request| request.is_carried && request.settle.is_none();
        if let Some(at) = self.pick(pick, fits) {
            let params = self.requests[at].params.clone();
            self.send_reserve(at, params, fate);
        }
    }

    fn reuse_id(&mut self, pick: u64, shape: u64) {
        if let Some(at) = self.pick(pick, |request| request.is_carried) {
            let mut params = self.requests[at].params.clone();
            params.facts.ascii_bytes += 1 + shape % 3;
            let session = self.sessions[self.requests[at].worker];
            // Whatever comes of it, nobody carries it.
            self.ask(Ask::Reserve { params, session }, Purpose::Other, Fate::Fine);
        }
    }

    fn progress(&mut self, pick: u64, shape: u64) {
        let goes_on = |request: &Request| {
            request.is_carried && request.grant.is_some() && request.settle.is_none()
        };
        let Some(at) = self.pick(pick, goes_on) else {
            return;
        };
        let mut rng = Rng::new(shape);
        let request = &self.requests[at];
        if request.outcome.is_some() {
            self.settle(at, Fate::Fine);
        } else if !request.is_redeemed {
            self.redeem(at);
        } else if !request.head_seen && request.params.facts.stream && rng.percent(60) {
            self.requests[at].head_seen = true;
            self.egress.opened(self.requests[at].id, self.now.boot_ms);
        } else {
            let outcome = provider::answer(&self.sent(at), &mut rng);
            self.end_exchange(at, outcome);
        }
    }

    /// A worker hands its request to the egress.
    fn redeem(&mut self, at: usize) {
        let request = &self.requests[at];
        let Some(grant) = &request.grant else { return };
        if !self.egress.is_up {
            return;
        }
        let claims = self.claims(&grant.ticket);
        let in_time = self.now.boot_ms <= claims.expires_boot_ms;
        let (expires_ms, deadline_ms) = (claims.expires_boot_ms, claims.deadline_boot_ms);
        let goes = in_time && self.egress.redeem(request.id, expires_ms, deadline_ms);
        let is_replay = expires_ms <= self.egress.journal_began_ms + 30_000;
        let request = &mut self.requests[at];
        if goes {
            request.is_replay = is_replay;
            request.is_redeemed = true;
            request.is_sent = true;
        } else if request.settle.is_none() {
            request.outcome = Some(Outcome::unsent(Failure::Ticket));
        }
    }

    fn redeem_late(&mut self, pick: u64) {
        let fits = |request: &Request| {
            request.is_carried && request.grant.is_some() && !request.is_redeemed
        };
        if let Some(at) = self.pick(pick, fits) {
            self.requests[at].is_honest &= self.requests[at].settle.is_none();
            self.redeem(at);
        }
    }

    /// What the provider was asked, under the terms of the hold.
    pub(super) fn sent(&self, at: usize) -> Sent {
        let request = &self.requests[at];
        let cap = request.grant.as_ref().map_or(0, |grant| grant.output_cap);
        let holds = self.model.holds().iter();
        let input_tokens = holds
            .rev()
            .find(|hold| hold.id == request.id)
            .map_or(1, |hold| hold.input_tokens);
        Sent {
            model: model(&request.params.model).unwrap(),
            input_tokens,
            cap,
            choices: request.params.facts.choices.max(1),
            stream: request.params.facts.stream,
            head_seen: request.head_seen,
            on_disconnect: self.variant.on_disconnect,
        }
    }

    pub(super) fn end_exchange(&mut self, at: usize, outcome: Outcome) {
        let request = &mut self.requests[at];
        if request.is_redeemed && self.egress.is_open(request.id) {
            let exchange = Exchange {
                head_boot_ms: self.now.boot_ms,
                ..outcome.exchange.clone()
            };
            self.egress.end(request.id, exchange);
            request.is_sent = outcome.exchange.sent;
            request.bill_pico = outcome.bill_pico;
        }
        request.outcome = Some(outcome);
    }

    fn settle_one(&mut self, pick: u64, fate: Fate) {
        // One that was not handed to the egress is given up.
        let fits = |request: &Request| {
            let is_over = request.outcome.is_some() || !request.is_redeemed;
            request.is_carried && request.grant.is_some() && request.settle.is_none() && is_over
        };
        if let Some(at) = self.pick(pick, fits) {
            self.settle(at, fate);
        }
    }

    pub(super) fn settle(&mut self, at: usize, fate: Fate) {
        let outcome = self.requests[at].outcome.as_ref();
        let observed = outcome.map_or_else(Observed::default, |outcome| outcome.observed.clone());
        self.send_settle(at, observed, fate);
    }

    fn send_settle(&mut self, at: usize, observed: Observed, fate: Fate) {
        let request = &mut self.requests[at];
        let Some(grant) = &request.grant else { return };
        let params = SettleParams {
            id: request.id,
            ticket: grant.ticket.clone(),
            observed,
        };
        request.settle = Some(params.clone());
        self.ask(Ask::Settle(params), Purpose::Settle(at), fate);
    }

    fn settle_again(&mut self, pick: u64, changed: bool) {
        let fits = |request: &Request| request.is_carried && request.settle.is_some();
        let Some(at) = self.pick(pick, fits) else {
            return;
        };
        let Some(mut params) = self.requests[at].settle.clone() else {
            return;
        };
        if changed {
            // As a worker that was taken over would.
            self.requests[at].is_honest = false;
            params.observed.own_output_tokens += 1;
        }
        self.ask(Ask::Settle(params), Purpose::Settle(at), Fate::Fine);
    }

    fn lie(&mut self, pick: u64, shape: u64) {
        let fits = |request: &Request| {
            request.is_carried && request.grant.is_some() && request.settle.is_none()
        };
        let Some(at) = self.pick(pick, fits) else {
            return;
        };
        self.requests[at].is_honest = false;
        let mut rng = Rng::new(shape);
        self.send_settle(at, lie(&mut rng), Fate::Fine);
    }

    /// The egress tells how exchanges ended.
    pub(super) fn tell(&mut self, count: u64, fate: Fate) {
        if !self.egress.is_connected {
            return;
        }
        let batch = self.egress.take_batch(usize::try_from(count).unwrap());
        if batch.is_empty() {
            return;
        }
        let ask = Ask::Receipts(ReceiptsParams {
            receipts: batch.clone(),
            journal_begun_boot_ms: self.egress.journal_began_ms,
        });
        let process = self.egress.process;
        self.ask(ask, Purpose::Receipts { process, batch }, fate);
    }

    /// The egress takes its orders. Lost: its connection ends with them on the way.
    pub(super) fn poll(&mut self, lost: bool) -> Checked {
        self.flush()?;
        if !self.egress.is_connected {
            return Ok(());
        }
        let orders = self.kernel.take_orders();
        if lost {
            let requests = self.requests.iter_mut();
            requests.for_each(|request| request.outlived = (0, 0));
            self.connect_egress();
            return Ok(());
        }
        for id in orders.cut {
            if self.egress.cut(id, self.now.boot_ms) {
                self.cut(id, Failure::Severed);
            }
        }
        for id in orders.void {
            self.egress.void(id, self.now.boot_ms);
        }
        self.check_cuts()
    }

    pub(super) fn cut(&mut self, id: HoldId, why: Failure) {
        let holder = |request: &Request| request.id == id && request.is_redeemed;
        if let Some(at) = self.requests.iter().position(holder) {
            let outcome = provider::cut(&self.sent(at), why, &mut Rng::new(at as u64));
            self.end_exchange(at, outcome);
        }
    }

    pub(super) fn wait(&mut self, ms: u64) -> Checked {
        self.flush()?;
        self.now.boot_ms += ms;
        self.now.wall_ms += i64::try_from(ms).unwrap();
        self.set_clocks();
        self.egress.forget(self.now.boot_ms);
        let overdue: Vec<HoldId> = (self.egress.open().iter())
            .filter(|open| open.deadline_boot_ms <= self.now.boot_ms)
            .map(|open| open.id)
            .collect();
        for id in overdue {
            self.cut(id, Failure::Timeout);
        }
        Ok(())
    }

    pub(super) fn agent(&self, pick: u64) -> (usize, String) {
        let agent = index(pick, self.agents.len());
        (agent, self.agents[agent].name.clone())
    }

    fn change(&mut self, change: Change) {
        self.ask(Ask::Change(change), Purpose::Other, Fate::Fine);
    }

    fn turn(&mut self, turn: Turn, agent: u64) {
        let (_, name) = self.agent(agent);
        self.change(Change::Turn(turn, name));
    }

    fn rotate(&mut self, agent: u64, shape: u64) {
        let (agent, name) = self.agent(agent);
        let mut rng = Rng::new(shape);
        let params = RotateParams {
            name,
            ttl_s: rng.percent(30).then(|| rng.within(5, 200)),
            grace_s: rng.percent(50).then(|| rng.within(0, 30)),
        };
        let change = Ask::Change(Change::Rotate(params));
        self.ask(change, Purpose::Token(agent), Fate::Fine);
    }

    fn set_budget(&mut self, agent: u64, shape: u64) {
        let mut rng = Rng::new(shape);
        // The rich one stays rich: it never waits for money.
        let (_, name) = self.agent(1 + agent % 4);
        let amount = i64::try_from(rng.within(1, 20_000)).unwrap();
        let (budget_micro, add_micro) = match rng.below(4) {
            0 => (Some(amount), None),
            1 => (None, Some(-amount)),
            _ => (None, Some(amount)),
        };
        self.change(Change::Set(Box::new(SetParams {
            name,
            budget_micro,
            add_micro,
            ..SetParams::default()
        })));
    }

    fn set_limits(&mut self, agent: u64, shape: u64) {
        let mut rng = Rng::new(shape);
        let (_, name) = self.agent(agent);
        let settings = Settings {
            max_concurrency: rng.percent(30).then(|| rng.within(1, 6)),
            max_tokens_per_minute: rng.percent(30).then(|| rng.within(500, 20_000)),
            streaming: rng.percent(20).then(|| rng.percent(80)),
            ..Settings::default()
        };
        let clear = rng.pick(&["allowed_models", "max_concurrency", "max_tokens_per_minute"]);
        self.change(Change::Set(Box::new(SetParams {
            name,
            rpm: rng.percent(50).then(|| rng.within(1, 40)),
            settings,
            clear: rng
                .percent(30)
                .then(|| clear.to_owned())
                .into_iter()
                .collect(),
            ..SetParams::default()
        })));
    }
}

fn choose_model(agent: usize, rng: &mut Rng) -> &'static str {
    match rng.below(40) {
        0..16 => "plain",
        16..22 => "dust",
        22..25 => "free",
        25..33 => "dear",
        33 => "ghost",
        34 => "blank",
        _ if agent < 2 => "slow",
        _ => "plain",
    }
}

fn facts(rng: &mut Rng) -> Facts {
    let some = |rng: &mut Rng, chance, names: &[&str]| -> Vec<String> {
        let named = rng.percent(chance).then(|| rng.pick(names).to_owned());
        named.into_iter().collect()
    };
    Facts {
        messages: rng.within(1, 3),
        ascii_bytes: rng.within(1, rng.clone().pick(&[100, 500, 5_000])),
        other_bytes: rng.pick(&[0, 0, 0, 30]),
        tool_bytes: rng.pick(&[0, 0, 0, 50]),
        output_cap: rng
            .percent(65)
            .then(|| rng.within(1, rng.clone().pick(&[50, 400, 900, 2_000, 3_200]))),
        choices: rng.pick(&[0, 1, 1, 1, 1, 2, 3]),
        stream: rng.percent(60),
        tools: some(rng, 8, &["search", "shell"]),
        images: u64::from(rng.percent(2)),
        measured: rng.percent(40).then(|| Measured {
            text: rng.within(1, 1_500),
            tools: rng.pick(&[0, 0, 20]),
        }),
        unknown_params: some(rng, 3, &["beta", "gamma", "n_predict", "models"]),
        costly_params: some(rng, 2, &["web_search_options", "store"]),
        own_key: rng.percent(2),
        ..Facts::default()
    }
}

/// What a worker that was taken over might say to pay less.
fn lie(rng: &mut Rng) -> Observed {
    let usage = Usage {
        prompt: rng.below(3),
        cached: rng.below(2) * 5,
        output: rng.below(3),
        ..Usage::default()
    };
    let answered = Observed {
        status: Some(200),
        complete: true,
        usage: UsageSeen::Reported(usage),
        ..Observed::default()
    };
    match rng.below(6) {
        0 => Observed::default(),
        1 => Observed {
            status: Some(429),
            complete: true,
            ..Observed::default()
        },
        2 => Observed {
            failure: Some(Failure::Connect),
            ..Observed::default()
        },
        3 => Observed {
            complete: false,
            failure: Some(Failure::WorkerGone),
            ..answered
        },
        4 => Observed {
            usage: UsageSeen::Missing,
            ..answered
        },
        _ => answered,
    }
}

/// One of few keys, so that they meet; now and then under another body.
fn key(rng: &mut Rng) -> Option<Idempotency> {
    rng.percent(15).then(|| Idempotency {
        key: KeyDigest::of(&[u8::try_from(rng.next() % 12).unwrap()]),
        request: RequestDigest::of("", &[u8::from(rng.percent(10))]),
    })
}

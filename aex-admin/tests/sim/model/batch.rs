//! One batch, and what a start takes up from the ledger.

use std::collections::{BTreeMap, BTreeSet};

use aex_admin_proto::operator::Settings;
use aex_admin_proto::rpc::code;
use aex_admin_proto::scope::ScopeId;
use aex_admin_proto::ticket::{Claims, KeyMode};
use aex_admin_proto::tools::ToolRules;
use aex_admin_proto::worker::{Grant, ReserveParams, ReserveReply};
use aex_admin_proto::{HoldId, Refusal, TokenDigest};

use super::decide::Decision;
use super::{DAY_MS, Entry, Go, Hold, MINUTE_MS, Model, Owner, Waiter, remaining, rounded};
use crate::asks::{Answer, Ask, Tag};
use crate::kernel::Fault;
use crate::setup::{ModelFact, model};

/// What came of a batch.
#[derive(Debug, Default)]
pub(crate) struct Ran {
    /// The process ended: nothing that waited for the commit was answered.
    pub(crate) died: bool,
    pub(crate) undone: bool,
    pub(crate) answers: Vec<(Tag, Answer)>,
    /// Asked, and not answered before the batch was undone: an error, or no answer.
    pub(crate) unanswered: Vec<Tag>,
}

const SWEEP_MS: u64 = 50;
const TICKET_MS: u64 = 30_000;
const MAX_WAITING: usize = 64;

impl Model {
    /// A process starts, at a boot that is new or not.
    pub(crate) fn start(&mut self, new_boot: bool) {
        if new_boot {
            let boot_ms = i64::try_from(self.now.boot_ms).unwrap();
            for hold in &mut self.state.holds {
                let age_ms = (self.now.wall_ms - hold.keyed_wall_ms).clamp(0, 2 * DAY_MS);
                hold.keyed_boot_ms = boot_ms - age_ms;
            }
            for hold in self.state.holds.iter_mut().filter(|hold| hold.open) {
                hold.opened_boot_ms = 0;
                (hold.expires_boot_ms, hold.deadline_boot_ms) = (0, 0);
            }
        }
        self.waiting.clear();
        self.locked_out.clear();
        self.locked_since_ms = None;
        self.state.refused.clear();
        self.stirred.clear();
        self.operator_keys.clear();
        self.swept_boot_ms = 0;
        self.trouble = false;
        self.fault = None;
        self.rebuild();
        // No fault is armed at a start.
        let _ = self.note_outside();
        self.signed_boot_ms = self.now.boot_ms;
        let count = self.state.events.len();
        let last = self.state.events.last();
        self.state.signed = last.filter(|last| last.is_checkpoint).map_or(0, |_| count);
        if count == 0 {
            // The key is declared, and signs.
            let _ = self.append(None, false);
            let _ = self.checkpoint();
        }
    }

    /// All that the ledger does not keep is made from what it keeps.
    fn rebuild(&mut self) {
        let now = self.now;
        self.state.settled.clear();
        self.state.requests.clear();
        self.state.tokens.clear();
        self.state.remembered.clear();
        for hold in &mut self.state.holds {
            hold.booked = None;
            hold.ticket = None;
            hold.claim = None;
            hold.dispatched = false;
            hold.severed = false;
            hold.late_since_ms = None;
            hold.receipt_boot_ms = now.boot_ms;
            hold.owner = Owner::Nobody {
                since_boot_ms: now.boot_ms,
            };
            if hold.open {
                self.state.remembered.insert(hold.agent);
            }
        }
        // The clock may have been set back: then the last event counts as now.
        let last_ms = self
            .state
            .events
            .last()
            .map_or(i64::MIN, |event| event.at_ms);
        let now_ms = now.wall_ms.max(last_ms);
        let events = self.state.events.iter().rev();
        let young: Vec<(i64, usize)> = events
            .take_while(|event| event.at_ms >= now_ms - 600_000)
            .filter_map(|event| Some((event.at_ms, event.charge?)))
            .collect();
        for (at_ms, charge) in young {
            self.remember(now_ms, at_ms, charge);
        }
    }

    fn remember(&mut self, now_ms: i64, at_ms: i64, charge: usize) {
        let charge = self.state.charges[charge].clone();
        if charge.correction {
            return;
        }
        let age_ms = u64::try_from((now_ms - at_ms).max(0)).unwrap();
        let at_boot_ms = self.now.boot_ms.saturating_sub(age_ms);
        if age_ms < 60_000 {
            let agent = self.state.holds[charge.hold].agent;
            self.state.remembered.insert(agent);
            self.count_tokens(charge.hold, charge.tokens, at_boot_ms);
            if charge.sent {
                self.count_request(charge.hold, at_boot_ms);
            }
        }
        if charge.is_ceiling_unsaid && !self.state.holds[charge.hold].was_corrected {
            self.state.holds[charge.hold].late_since_ms = Some(at_boot_ms);
        }
        if !charge.receipt {
            self.book(charge.hold, charge.booked);
        }
    }

    pub(super) fn count_tokens(&mut self, hold: usize, amount: u64, at_boot_ms: u64) {
        let entry = self.entry(hold, amount, at_boot_ms);
        self.state.tokens.extend((amount > 0).then_some(entry));
    }

    pub(super) fn count_request(&mut self, hold: usize, at_boot_ms: u64) {
        let entry = self.entry(hold, 1, at_boot_ms);
        self.state.requests.push(entry);
    }

    fn entry(&self, hold: usize, amount: u64, at_boot_ms: u64) -> Entry {
        Entry {
            agent: self.state.holds[hold].agent,
            model: self.state.holds[hold].model.name,
            at_boot_ms: rounded(at_boot_ms),
            amount,
        }
    }

    /// The receipt of an ended hold is still to come. One id has one such hold.
    pub(super) fn book(&mut self, hold: usize, booked: (Option<u16>, bool)) {
        let id = self.state.holds[hold].id;
        for other in self.state.holds.iter_mut().filter(|other| other.id == id) {
            other.booked = None;
        }
        self.state.holds[hold].booked = Some(booked);
    }

    pub(crate) fn step(
        &mut self,
        batch: Vec<(Tag, Ask)>,
        fault: Option<Fault>,
        locked: bool,
    ) -> Ran {
        self.fault = fault;
        self.appended = 0;
        self.dirty = false;
        let (asks, departures) = self.take_quick(batch);
        let ran = self.write(asks, locked);
        if !ran.died {
            for ask in departures {
                match ask {
                    Ask::Cancel(id) => self.cancel(id),
                    Ask::SessionGone(session) => self.session_gone(session),
                    _ => {}
                }
            }
        }
        let mut ran = ran;
        ran.answers.append(&mut self.at_once);
        self.fault = None;
        ran
    }

    /// What needs no ledger is done first; who left is looked at last.
    fn take_quick(&mut self, batch: Vec<(Tag, Ask)>) -> (Vec<(Tag, Ask)>, Vec<Ask>) {
        let (mut rest, mut departures) = (Vec::new(), Vec::new());
        for (tag, ask) in batch {
            match ask {
                Ask::Cancel(_) | Ask::SessionGone(_) => departures.push(ask),
                Ask::Reclaim { tickets, session } => {
                    let ended = self.reclaim(&tickets, session);
                    self.at_once.push((tag, Answer::Reclaimed(ended)));
                }
                Ask::OperatorKeys(names) => self.operator_keys = names,
                _ => rest.push((tag, ask)),
            }
        }
        (rest, departures)
    }

    fn write(&mut self, asks: Vec<(Tag, Ask)>, locked: bool) -> Ran {
        let sweep = self.now.boot_ms >= self.swept_boot_ms + SWEEP_MS;
        if sweep {
            self.swept_boot_ms = self.now.boot_ms;
        }
        let news = asks
            .into_iter()
            .map(|(tag, ask)| (self.now.boot_ms, tag, ask));
        let mut all = std::mem::take(&mut self.locked_out);
        all.extend(news);
        if all.is_empty() && !(sweep && self.has_upkeep()) {
            return Ran::default();
        }
        if locked {
            return self.lock_out(all);
        }
        self.locked_since_ms = None;
        let mut asks: Vec<(Tag, Ask)> = all.into_iter().map(|(_, tag, ask)| (tag, ask)).collect();
        asks.sort_by_key(|(_, ask)| order(ask));
        let before = self.state.clone();
        let tags: Vec<Tag> = asks.iter().map(|&(tag, _)| tag).collect();
        let done = self.transact(asks, sweep);
        let mut answers = std::mem::take(&mut self.with_commit);
        match done {
            Ok(()) if self.fault == Some(Fault::Commit) && self.appended > 0 => {
                self.state = before;
                Ran {
                    died: true,
                    ..Ran::default()
                }
            }
            Ok(()) => {
                self.trouble = false;
                Ran {
                    answers,
                    ..Ran::default()
                }
            }
            Err(_) => {
                self.trouble = true;
                self.state = before;
                self.rebuild();
                for (_, answer) in &mut answers {
                    *answer = Answer::Error(code::UNAVAILABLE);
                }
                let answered = |tag: &Tag| answers.iter().any(|(other, _)| other == tag);
                let waits = |tag: &Tag| self.waiting.iter().any(|waiter| waiter.tag == *tag);
                let left = tags.into_iter().filter(|tag| !answered(tag) && !waits(tag));
                Ran {
                    died: false,
                    undone: true,
                    unanswered: left.collect(),
                    answers,
                }
            }
        }
    }

    fn has_upkeep(&self) -> bool {
        self.trouble
            || !self.waiting.is_empty()
            || self.unfinished() > 0
            || !self.state.remembered.is_empty()
            || self.owes_checkpoint()
            || self.owes_refusals()
    }

    /// Each waits for the lock from its own arrival, and is refused after that.
    fn lock_out(&mut self, asks: Vec<(u64, Tag, Ask)>) -> Ran {
        let now_boot_ms = self.now.boot_ms;
        let wait_ms = self.variant.lock_wait_ms;
        let is_over = |since_boot_ms: u64| now_boot_ms - since_boot_ms >= wait_ms;
        let (late, rest): (Vec<_>, Vec<_>) =
            (asks.into_iter()).partition(|&(arrived_boot_ms, _, _)| is_over(arrived_boot_ms));
        self.locked_out = rest;
        let since_boot_ms = *self.locked_since_ms.get_or_insert(now_boot_ms);
        self.trouble |= is_over(since_boot_ms) || !late.is_empty();
        let refused = |(_, tag, _)| (tag, Answer::Error(code::UNAVAILABLE));
        let mut answers: Vec<(Tag, Answer)> = late.into_iter().map(refused).collect();
        self.expire_waiters();
        answers.append(&mut self.with_commit);
        Ran {
            answers,
            ..Ran::default()
        }
    }

    fn transact(&mut self, asks: Vec<(Tag, Ask)>, sweep: bool) -> Go {
        self.note_outside()?;
        let mut peers: BTreeMap<[u8; 32], u64> = BTreeMap::new();
        let of = |token: &TokenDigest| *token.as_bytes();
        let mut reserves = Vec::new();
        for (tag, ask) in asks {
            match ask {
                Ask::Reserve { params, session } => {
                    *peers.entry(of(&params.token)).or_default() += 1;
                    reserves.push((tag, params, session));
                }
                Ask::Settle(params) => self.settle(tag, params)?,
                Ask::Receipts(said) => self.receipts(tag, said)?,
                Ask::Change(change) => self.change(tag, change)?,
                _ => {}
            }
        }
        if sweep {
            self.sweep()?;
        }
        self.wake()?;
        for (tag, params, session) in reserves {
            let others = peers.entry(of(&params.token)).or_default();
            *others -= 1;
            let others = *others;
            self.reserve(tag, params, session, others)?;
        }
        self.write_rows()?;
        if self.owes_checkpoint() {
            self.signed_boot_ms = self.now.boot_ms;
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Changes from outside count from the next batch on, and go into the chain.
    fn note_outside(&mut self) -> Go {
        if !std::mem::take(&mut self.state.touched) {
            return Ok(());
        }
        for index in 0..self.state.agents.len() {
            let agent = &mut self.state.agents[index];
            if agent.recorded != agent.grant {
                agent.recorded = agent.grant.clone();
                self.append(None, false)?;
                self.stirred.insert(index);
            }
        }
        self.stirred
            .extend(self.waiting.iter().map(|waiter| waiter.agent));
        Ok(())
    }

    fn wake(&mut self) -> Go {
        for agent in std::mem::take(&mut self.stirred) {
            while let Some(at) = self.waiting.iter().position(|waiter| waiter.agent == agent) {
                let mut waiter = self.waiting.remove(at);
                let contenders = self.waiting_of(agent) + 1;
                match self.decide(&waiter.params, contenders, false) {
                    Decision::Wait { refusal, .. } => {
                        waiter.refusal = refusal;
                        self.waiting.insert(at, waiter);
                        break;
                    }
                    decision => {
                        self.answer_decided(waiter.tag, decision, waiter.params, waiter.session)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn waiting_of(&self, agent: usize) -> u64 {
        let waiting = self.waiting.iter();
        waiting.filter(|waiter| waiter.agent == agent).count() as u64
    }

    fn reserve(&mut self, tag: Tag, params: ReserveParams, session: u64, others: u64) -> Go {
        if let Some(at) = self
            .waiting
            .iter()
            .position(|waiter| waiter.params.id == params.id)
        {
            let waiter = self.waiting.remove(at);
            self.stirred.insert(waiter.agent);
            self.at_once
                .push((waiter.tag, Answer::refused(Refusal::Cancelled)));
        }
        if let Some(index) = self.find_open(params.id) {
            let answer = self.same_again(index, &params, session);
            self.with_commit.push((tag, answer));
            return Ok(());
        }
        let waiting = self
            .bearer(&params)
            .map_or(0, |agent| self.waiting_of(agent));
        match self.decide(&params, waiting + others + 1, waiting > 0) {
            Decision::Wait { agent, refusal } if self.waiting_of(agent) >= MAX_WAITING as u64 => {
                self.note_refused(&params, &refusal);
                self.with_commit.push((tag, Answer::refused(refusal)));
                Ok(())
            }
            Decision::Wait { agent, refusal } => {
                self.waiting.push(Waiter {
                    tag,
                    agent,
                    params,
                    session,
                    refusal,
                    deadline_boot_ms: self.now.boot_ms + self.variant.hold_wait_ms,
                });
                Ok(())
            }
            decision => self.answer_decided(tag, decision, params, session),
        }
    }

    fn same_again(&mut self, index: usize, params: &ReserveParams, session: u64) -> Answer {
        let hold = &mut self.state.holds[index];
        if hold.params != *params {
            return Answer::refused(Refusal::HoldIdReused);
        }
        hold.owner = Owner::Session(session);
        Answer::Reserve(ReserveReply::Granted(Box::new(self.grant(index))))
    }

    fn answer_decided(
        &mut self,
        tag: Tag,
        decision: Decision,
        params: ReserveParams,
        session: u64,
    ) -> Go {
        let answer = match decision {
            Decision::Refuse(refusal) | Decision::Wait { refusal, .. } => {
                self.note_refused(&params, &refusal);
                Answer::refused(refusal)
            }
            Decision::Replay(replay) => Answer::Reserve(ReserveReply::Replay(replay)),
            Decision::Measure(refusal) => Answer::Reserve(ReserveReply::Measure {
                tokenizer: "o200k_base".to_owned(),
                refusal,
            }),
            Decision::Grant {
                agent,
                model,
                input_tokens,
                cap,
                pico,
            } => {
                self.append(None, true)?;
                let index = self.open(agent, model, params, session);
                let hold = &mut self.state.holds[index];
                (hold.input_tokens, hold.cap, hold.pico) = (input_tokens, cap, pico);
                self.state.agents[agent].held += pico;
                // A hold of nothing moves no money.
                self.dirty |= pico != 0;
                let grant = self.grant(index);
                self.state.holds[index].ticket = Some(grant.ticket.clone());
                Answer::Reserve(ReserveReply::Granted(Box::new(grant)))
            }
        };
        self.with_commit.push((tag, answer));
        Ok(())
    }

    fn open(
        &mut self,
        agent: usize,
        model: &'static ModelFact,
        params: ReserveParams,
        session: u64,
    ) -> usize {
        let boot_ms = self.now.boot_ms;
        self.state.remembered.insert(agent);
        self.state.holds.push(Hold {
            id: params.id,
            agent,
            model,
            params,
            pico: 0,
            input_tokens: 0,
            cap: 0,
            keyed_boot_ms: i64::try_from(boot_ms).unwrap(),
            keyed_wall_ms: self.now.wall_ms,
            tools: tool_rules(&self.state.agents[agent].grant.settings),
            opened_boot_ms: boot_ms,
            expires_boot_ms: boot_ms + TICKET_MS,
            deadline_boot_ms: boot_ms + model.timeout_ms,
            ticket: None,
            open: true,
            severed: false,
            dispatched: false,
            owner: Owner::Session(session),
            receipt: None,
            receipt_boot_ms: 0,
            claim: None,
            booked: None,
            charged: 0,
            unknown: false,
            late_since_ms: None,
            was_corrected: false,
            released: false,
        });
        self.state.holds.len() - 1
    }

    fn grant(&self, index: usize) -> Grant {
        let hold = &self.state.holds[index];
        let key = match (hold.params.facts.own_key, hold.model.loopback) {
            (true, _) => KeyMode::Own,
            (false, true) => KeyMode::None,
            (false, false) => KeyMode::Operator,
        };
        let max_response_bytes = 256 * 1024 * 1024;
        let sealed = self.key.seal(&Claims {
            id: hold.id,
            provider: hold.model.provider.to_owned(),
            method: "POST".to_owned(),
            path: "/chat/completions".to_owned(),
            key,
            max_body_bytes: 10 * 1024 * 1024 + 4096,
            max_response_bytes,
            deadline_boot_ms: hold.deadline_boot_ms,
            expires_boot_ms: hold.expires_boot_ms,
        });
        Grant {
            ticket: hold.ticket.clone().unwrap_or(sealed),
            // None is in a group; rows are numbered as they are made.
            tenant: ScopeId::Agent(i64::try_from(hold.agent).unwrap() + 1),
            provider: hold.model.provider.to_owned(),
            path: "/chat/completions".to_owned(),
            upstream_model: hold.model.name.to_owned(),
            output_cap: hold.cap,
            output_cap_param: "max_tokens".to_owned(),
            output_tokens: hold.tokens() - hold.input_tokens,
            cap_is_ours: hold.params.facts.output_cap.is_none(),
            stream_usage: true,
            service_tier: None,
            force_store_off: false,
            knows_store: false,
            hidden_output: hold.model.hidden_output,
            remaining_micro: Some(remaining(&self.state.agents[hold.agent])),
            warnings: Vec::new(),
            on_disconnect: self.variant.on_disconnect,
            drain_timeout_ms: 30_000,
            deadline_boot_ms: hold.deadline_boot_ms,
            max_response_bytes,
            retry_until_boot_ms: 0,
            first_byte_ms: 0,
            tools: hold.tools.clone(),
        }
    }

    pub(super) fn expire_waiters(&mut self) {
        let now_boot_ms = self.now.boot_ms;
        let late = |waiter: &mut Waiter| waiter.deadline_boot_ms <= now_boot_ms;
        let late: Vec<Waiter> = self.waiting.extract_if(.., late).collect();
        for waiter in late {
            self.stirred.insert(waiter.agent);
            self.note_refused(&waiter.params, &waiter.refusal);
            self.with_commit
                .push((waiter.tag, Answer::refused(waiter.refusal)));
        }
    }

    /// Told to the ledger when their minute is over: one event for all that are alike.
    fn note_refused(&mut self, params: &ReserveParams, refusal: &Refusal) {
        let who = self.bearer(params);
        let name = params.model.as_str();
        let model = (who.is_some() && model(name).is_some()).then(|| name.to_owned());
        let what = (refusal.code(), refusal.rule());
        self.state
            .refused
            .push((self.now.boot_ms, format!("{who:?} {what:?} {model:?}")));
    }

    pub(super) fn owes_refusals(&self) -> bool {
        let mut refused = self.state.refused.iter();
        let first = refused.next();
        first.is_some_and(|(since_ms, _)| self.now.boot_ms >= since_ms + MINUTE_MS)
    }

    pub(super) fn tell_refusals(&mut self) -> Go {
        if self.owes_refusals() {
            let told: BTreeSet<String> = (self.state.refused.drain(..))
                .map(|(_, what)| what)
                .collect();
            for _ in told {
                self.append(None, false)?;
            }
        }
        Ok(())
    }

    fn cancel(&mut self, id: HoldId) {
        let is_it = |ask: &Ask| matches!(ask, Ask::Reserve { params, .. } if params.id == id);
        let locked_out = self.locked_out.iter();
        if let Some(at) = locked_out.clone().position(|(_, _, ask)| is_it(ask)) {
            let (_, tag, _) = self.locked_out.remove(at);
            self.at_once
                .push((tag, Answer::refused(Refusal::Cancelled)));
        } else if let Some(at) = self
            .waiting
            .iter()
            .position(|waiter| waiter.params.id == id)
        {
            let waiter = self.waiting.remove(at);
            self.stirred.insert(waiter.agent);
            self.at_once
                .push((waiter.tag, Answer::refused(Refusal::Cancelled)));
        }
    }

    fn reclaim(&mut self, tickets: &[String], session: u64) -> Vec<HoldId> {
        let mut ended = Vec::new();
        for ticket in tickets {
            let Ok(claims) = self.key.open_expired(ticket) else {
                continue;
            };
            match self.find_open(claims.id) {
                Some(index) => self.state.holds[index].owner = Owner::Session(session),
                None => ended.push(claims.id),
            }
        }
        ended
    }

    fn session_gone(&mut self, session: u64) {
        let is_of = |ask: &Ask| matches!(ask, Ask::Reserve { session: of, .. } if *of == session);
        self.locked_out.retain(|(_, _, ask)| !is_of(ask));
        let is_of = |waiter: &mut Waiter| waiter.session == session;
        let gone: Vec<Waiter> = self.waiting.extract_if(.., is_of).collect();
        self.stirred.extend(gone.iter().map(|waiter| waiter.agent));
        let since_boot_ms = self.now.boot_ms;
        for hold in self.state.holds.iter_mut().filter(|hold| hold.open) {
            if hold.owner == Owner::Session(session) {
                hold.owner = Owner::Nobody { since_boot_ms };
            }
        }
    }

    /// Scopes in which nothing goes on are forgotten.
    pub(super) fn forget_idle(&mut self) {
        let idle: Vec<usize> = (self.state.remembered.iter().copied())
            .filter(|&agent| self.open_of(agent).next().is_none() && !self.has_recent(agent))
            .collect();
        for agent in idle {
            self.state.remembered.remove(&agent);
        }
        let now_boot_ms = self.now.boot_ms;
        let counts = |entry: &Entry| entry.at_boot_ms + MINUTE_MS > now_boot_ms;
        self.state.requests.retain(counts);
        self.state.tokens.retain(counts);
    }
}

/// Settles free money, receipts too; reserves take it.
fn order(ask: &Ask) -> u8 {
    match ask {
        Ask::Settle(_) => 0,
        Ask::Receipts(_) => 1,
        Ask::Reserve { .. } => 3,
        _ => 2,
    }
}

/// Frozen in the hold: what is changed later holds for later requests.
fn tool_rules(settings: &Settings) -> Vec<ToolRules> {
    let rules = ToolRules {
        none: settings.tools == Some(false),
        allowed: settings.allowed_tools.clone(),
        ..ToolRules::default()
    };
    if rules == ToolRules::default() {
        return Vec::new();
    }
    vec![rules]
}

//! What must hold of the ledger itself, after every batch and at the end.

use aex_admin_proto::egress::Failure;

use super::{Checked, Purpose, WORKERS, World};
use crate::asks::Ask;
use crate::model::Hold;
use crate::ops::Fate;

const EVENTS: &str = "SELECT COUNT(*) FROM events";
/// How often the sums over all events are looked at.
const SUMS_EVERY: u64 = 16;
/// An exchange that was severed outlives this many polls of a connected egress at most, a second apart.
const MOST_POLLS: u64 = 4;
const POLL_MS: u64 = 1_010;

fn wrong(is_right: bool, what: impl FnOnce() -> String) -> Checked {
    if is_right { Ok(()) } else { Err(what()) }
}

fn pico(micro: i64, rest_pico: i64) -> i128 {
    i128::from(micro) * 1_000_000 + i128::from(rest_pico)
}

impl World {
    pub(super) fn check(&mut self) -> Checked {
        self.flushed += 1;
        self.check_rows()?;
        let held = |hold: &&Hold| hold.open;
        let open = i64::try_from(self.model.holds().iter().filter(held).count()).unwrap();
        let rows = self.kernel.count("SELECT COUNT(*) FROM holds");
        wrong(open == rows, || {
            format!("{rows} holds are open, not {open}")
        })?;
        let written = self.kernel.count(EVENTS);
        let events = i64::try_from(self.model.events()).unwrap();
        wrong(written == events, || {
            format!("{written} events are written, not {events}")
        })?;
        if self.flushed.is_multiple_of(SUMS_EVERY) {
            self.check_sums()?;
        }
        Ok(())
    }

    fn check_rows(&self) -> Checked {
        let rows = self.kernel.money();
        let agents = self.model.agents();
        wrong(rows.len() == agents.len(), || format!("agents: {rows:?}"))?;
        for (row, agent) in rows.iter().zip(agents) {
            let spent = pico(row.spent_micro, row.carry_pico);
            let held = i128::from(row.held_pico);
            let is_right = row.name == agent.name
                && row.budget_micro == agent.grant.budget_micro
                && spent == agent.spent
                && held == agent.held
                && i128::from(row.reserved_micro) == (held + 999_999) / 1_000_000;
            wrong(is_right, || {
                format!(
                    "a row differs\n  core:  {row:?}\n  model: budget {}, spent {}, held {}",
                    agent.grant.budget_micro, agent.spent, agent.held
                )
            })?;
        }
        Ok(())
    }

    fn check_sums(&self) -> Checked {
        for (row, sums) in self.kernel.money().iter().zip(self.kernel.sums()) {
            let spent = i64::try_from(pico(row.spent_micro, row.carry_pico)).unwrap();
            let expected = (row.name.clone(), row.spent_micro, spent, row.held_pico);
            wrong(expected == sums, || {
                format!("a row {expected:?} is not what its events make: {sums:?}")
            })?;
        }
        Ok(())
    }

    /// Holds from number `first` on were granted just now: what is spent and held is within the budget.
    pub(super) fn check_granted(&self, first: usize) -> Checked {
        let new = self.model.holds().get(first..).unwrap_or_default();
        for hold in new.iter().filter(|hold| hold.pico > 0) {
            let row = &self.kernel.money()[hold.agent];
            let used = pico(row.spent_micro, row.carry_pico) + i128::from(row.held_pico);
            wrong(used <= pico(row.budget_micro, 0), || {
                format!("granted beyond the budget: {row:?}")
            })?;
        }
        Ok(())
    }

    /// A severed agent's exchange is cut as long as the core remembers that it was severed.
    pub(super) fn check_cuts(&mut self) -> Checked {
        for request in &mut self.requests {
            let mut holds = self.model.holds().iter().rev();
            let severed = holds
                .find(|hold| hold.id == request.id)
                .is_some_and(|hold| hold.open && hold.severed);
            if !severed || !self.egress.is_open(request.id) {
                request.outlived = (0, 0);
                continue;
            }
            let (polls, last_boot_ms) = &mut request.outlived;
            if self.now.boot_ms >= *last_boot_ms + POLL_MS {
                *polls += 1;
                *last_boot_ms = self.now.boot_ms;
            }
            wrong(*polls < MOST_POLLS, || {
                format!("{} was severed, and is not cut", request.id)
            })?;
        }
        Ok(())
    }

    /// Everybody goes home, and nothing stays open.
    pub(super) fn quiesce(&mut self) -> Checked {
        self.flush()?;
        if !self.egress.is_up {
            self.egress.restart(self.now.boot_ms);
            self.connect_egress();
        }
        self.settle_half();
        self.flush()?;
        for worker in 0..WORKERS {
            let gone = Ask::SessionGone(self.sessions[worker]);
            self.ask(gone, Purpose::Other, Fate::Fine);
            self.worker_dies(worker);
        }
        let left: Vec<_> = self.egress.open().iter().map(|open| open.id).collect();
        for id in left {
            self.cut(id, Failure::Timeout);
        }
        for _ in 0..60 {
            self.wait(2_500)?;
            self.flush()?;
            self.poll(false)?;
            while self.egress.owes() {
                self.tell(64, Fate::Fine);
                self.flush()?;
            }
            if self.model.unfinished() == 0 && self.model.waiting() == 0 {
                break;
            }
        }
        self.check_end()
    }

    fn settle_half(&mut self) {
        for at in 0..self.requests.len() {
            let request = &self.requests[at];
            let is_over = request.outcome.is_some() && request.settle.is_none();
            if at % 2 == 0 && is_over && request.is_carried && request.grant.is_some() {
                self.settle(at, Fate::Fine);
            }
        }
    }

    fn check_end(&mut self) -> Checked {
        for request in 0..self.requests.len() {
            let request = &self.requests[request];
            let (sent, honest) = (request.is_sent, request.is_honest);
            self.see("sent", sent);
            self.see("lied", !honest);
        }
        for name in self.model.outcomes() {
            self.see(name, true);
        }
        let open = self.kernel.count("SELECT COUNT(*) FROM holds");
        wrong(open == 0, || format!("{open} holds stay for ever"))?;
        let waiting = self.model.waiting();
        wrong(waiting == 0, || format!("{waiting} wait for ever"))?;
        self.check_sums()?;
        self.check_holds()?;
        self.check_bills()?;
        let violations = self.kernel.audit();
        wrong(violations.is_empty(), || {
            format!("the audit: {violations:#?}")
        })
    }

    /// Each hold ended once, and cost what the model says.
    fn check_holds(&self) -> Checked {
        for (id, opened, ended, cost) in self.kernel.by_hold() {
            let holds = self.model.holds().iter();
            let of_id: Vec<&Hold> = holds.filter(|hold| hold.id.to_string() == id).collect();
            let charged: i128 = of_id.iter().map(|hold| hold.charged).sum();
            let count = i64::try_from(of_id.len()).unwrap();
            let is_right = opened == count && ended == count && i128::from(cost) == charged;
            wrong(is_right, || {
                format!("hold {id}: opened {opened}, ended {ended}, cost {cost}; not {charged}")
            })?;
        }
        Ok(())
    }

    /// The provider's bills are the truth. An honest worker's request is charged at least its bill, and
    /// nothing that was never sent costs, where somebody could know. Nobody, honest or not, gets money
    /// back for what was billed. A bill above its hold is known only where the worker could tell of it.
    fn check_bills(&self) -> Checked {
        for request in &self.requests {
            let holds = self.model.holds().iter();
            let of_id: Vec<&Hold> = holds.filter(|hold| hold.id == request.id).collect();
            let charged: i128 = of_id.iter().map(|hold| hold.charged).sum();
            let told = || {
                format!(
                    "request {}: charged {charged}, billed {}, sent {}, settled {:?}",
                    request.id, request.bill_pico, request.is_sent, request.settle
                )
            };
            if request.is_replay {
                continue;
            }
            let held = of_id.iter().map(|hold| hold.pico).max().unwrap_or(0);
            if request.is_honest {
                wrong(charged >= request.bill_pico.min(held), || {
                    told() + ": too little"
                })?;
            }
            let unknown = of_id.iter().any(|hold| hold.unknown);
            if request.is_honest && !request.is_sent && !unknown {
                wrong(charged == 0, || told() + ": it was never sent")?;
            }
            let released = !of_id.is_empty() && of_id.iter().all(|hold| hold.released);
            if released {
                wrong(request.bill_pico == 0, || told() + ": all was given back")?;
            }
        }
        Ok(())
    }
}

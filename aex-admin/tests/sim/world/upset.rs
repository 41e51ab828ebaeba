//! What goes wrong: processes that are gone, clocks that jump, a machine that goes down, somebody's own
//! SQL.

use aex_admin_proto::egress::Failure;
use aex_admin_proto::operator::AgentState;
use aex_admin_proto::ticket::{Claims, TicketKey};

use super::{Checked, Purpose, Request, WORKERS, World};
use crate::asks::Ask;
use crate::kernel::TICKET_KEY;
use crate::ops::{Fate, Op};
use crate::provider;
use crate::rng::{Rng, index};

impl World {
    pub(super) fn upset(&mut self, op: Op) -> Checked {
        match op {
            Op::Reclaim { worker } => self.reclaim(index(worker, WORKERS)),
            Op::WorkerGone { worker, dies } => self.worker_gone(index(worker, WORKERS), dies),
            Op::EgressGone { journal_lost } => self.egress_gone(journal_lost),
            Op::EgressBack if !self.egress.is_up => {
                self.egress.restart(self.now.boot_ms);
                self.connect_egress();
            }
            Op::EgressReconnects => self.connect_egress(),
            Op::AdminGone { after_commit } => return self.admin_gone(after_commit),
            Op::MachineGone => return self.machine_gone(),
            Op::Outside { agent, shape } => return self.outside(agent, shape),
            Op::WallJump { ms } => {
                self.flush()?;
                self.now.wall_ms += ms;
                self.set_clocks();
            }
            Op::Break(fault) => self.fault = Some(fault),
            Op::Lock => self.locked = self.fault.is_none(),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn claims(&self, ticket: &str) -> Claims {
        let key = TicketKey::new(TICKET_KEY.0, TICKET_KEY.1);
        key.open_expired(ticket).unwrap()
    }

    fn reclaim(&mut self, worker: usize) {
        let carries = |request: &&Request| {
            request.worker == worker && request.is_carried && !request.is_settled
        };
        let tickets = (self.requests.iter().filter(carries))
            .filter_map(|request| Some(request.grant.as_ref()?.ticket.clone()))
            .collect();
        let session = self.sessions[worker];
        let ask = Ask::Reclaim { tickets, session };
        self.ask(ask, Purpose::Other, Fate::Fine);
    }

    fn worker_gone(&mut self, worker: usize, dies: bool) {
        let gone = Ask::SessionGone(self.sessions[worker]);
        self.ask(gone, Purpose::Other, Fate::Fine);
        self.reconnect(worker);
        if dies {
            self.worker_dies(worker);
        } else {
            self.reclaim(worker);
        }
    }

    pub(super) fn worker_dies(&mut self, worker: usize) {
        for at in 0..self.requests.len() {
            let request = &mut self.requests[at];
            if request.worker != worker || !request.is_carried {
                continue;
            }
            request.is_carried = false;
            let id = request.id;
            if self.egress.is_open(id) {
                self.cut(id, Failure::WorkerGone);
            }
        }
    }

    fn egress_gone(&mut self, journal_lost: bool) {
        let open: Vec<_> = self.egress.open().iter().map(|open| open.id).collect();
        for id in open {
            let holder = |request: &Request| request.id == id && request.is_redeemed;
            if let Some(at) = self.requests.iter().position(holder) {
                let outcome = provider::egress_gone(&self.sent(at), &mut Rng::new(at as u64));
                let request = &mut self.requests[at];
                request.bill_pico = outcome.bill_pico;
                request.outcome = Some(outcome);
            }
        }
        for id in self.egress.kill() {
            // Whatever it was, nobody can prove that nothing was sent.
            let lost = self.requests.iter_mut().filter(|lost| lost.id == id);
            lost.for_each(|request| request.is_sent = true);
        }
        if journal_lost {
            self.egress.lose_journal(self.now.boot_ms);
        }
    }

    /// Killed after a commit and before its answers, or before anything of what was asked.
    fn admin_gone(&mut self, after_commit: bool) -> Checked {
        if after_commit && !self.batch.is_empty() {
            for (tag, _) in &self.batch {
                if let Some((_, fate)) = self.purposes.get_mut(tag) {
                    *fate = Fate::ReplyLost;
                }
            }
            self.flush()?;
        }
        self.restart_core(false);
        Ok(())
    }

    fn machine_gone(&mut self) -> Checked {
        self.flush()?;
        for worker in 0..WORKERS {
            self.worker_dies(worker);
        }
        self.egress.kill();
        self.now.boot_ms = 20_000;
        self.now.wall_ms += 60_000;
        self.egress.lose_journal(self.now.boot_ms);
        self.egress.restart(self.now.boot_ms);
        self.restart_core(true);
        Ok(())
    }

    fn outside(&mut self, agent: u64, shape: u64) -> Checked {
        // What was asked before is not overtaken.
        self.flush()?;
        let mut rng = Rng::new(shape);
        let (at, name) = self.agent(agent);
        let row = self.model.agent_mut(at);
        let before = row.grant.clone();
        let spent_micro = i64::try_from(row.spent.div_euclid(1_000_000)).unwrap();
        let change = match rng.below(7) {
            0 | 1 if at > 0 => {
                row.grant.budget_micro = spent_micro;
                "budget_micro = spent_micro".to_owned()
            }
            2..4 if at > 0 => {
                row.grant.budget_micro += i64::try_from(rng.within(1, 9_000)).unwrap();
                format!("budget_micro = {}", row.grant.budget_micro)
            }
            4 if row.grant.state != AgentState::Closed => {
                row.grant.state = AgentState::Active;
                "state = 'active'".to_owned()
            }
            5 => {
                row.grant.settings.allowed_models = None;
                "allowed_models = NULL".to_owned()
            }
            _ => {
                row.grant.rpm = rng.within(1, 50);
                format!("rpm = {}", row.grant.rpm)
            }
        };
        self.kernel
            .outside(&format!("UPDATE agents SET {change} WHERE name = '{name}'"));
        // SQLite writes no page for what is there already.
        if self.model.agents()[at].grant != before {
            self.model.touch();
        }
        Ok(())
    }
}

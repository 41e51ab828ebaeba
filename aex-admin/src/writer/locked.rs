//! What waits while another process has the ledger's lock: each command for `lock_wait` from its own
//! arrival, not from the moment at which somebody happened to try.

use aex_admin_proto::HoldId;
use aex_admin_proto::worker::ReserveReply;

use super::{Command, Reply, SessionId};

#[derive(Default)]
pub(super) struct Locked {
    /// With the time of arrival, boot clock; the oldest first.
    waiting: Vec<(u64, Command)>,
    /// Arrivals of those commands of the batch at hand that had been waiting: its first ones.
    arrivals_boot_ms: Vec<u64>,
    since_boot_ms: Option<u64>,
}

impl Locked {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Those that wait, then `news`.
    pub(super) fn with(&mut self, news: Vec<Command>) -> Vec<Command> {
        self.arrivals_boot_ms.clear();
        if self.waiting.is_empty() {
            return news;
        }
        let (arrivals, mut all): (Vec<u64>, Vec<Command>) = self.waiting.drain(..).unzip();
        self.arrivals_boot_ms = arrivals;
        all.extend(news);
        all
    }

    /// The lock is free.
    pub(super) fn opened(&mut self) {
        self.since_boot_ms = None;
    }

    /// Keeps those of a batch that have not waited `wait_ms` yet. Answers the others, once the lock
    /// itself has been away for that long.
    pub(super) fn keep(
        &mut self,
        commands: Vec<Command>,
        now_boot_ms: u64,
        wait_ms: u64,
    ) -> Option<Vec<Command>> {
        let since_boot_ms = *self.since_boot_ms.get_or_insert(now_boot_ms);
        let mut arrivals = std::mem::take(&mut self.arrivals_boot_ms).into_iter();
        let mut late = Vec::new();
        for command in commands {
            let arrived_boot_ms = arrivals.next().unwrap_or(now_boot_ms);
            if now_boot_ms.saturating_sub(arrived_boot_ms) >= wait_ms {
                late.push(command);
            } else {
                self.waiting.push((arrived_boot_ms, command));
            }
        }
        let away = now_boot_ms.saturating_sub(since_boot_ms) >= wait_ms;
        (away || !late.is_empty()).then_some(late)
    }

    /// Takes a reserve that was given up.
    pub(super) fn cancel(&mut self, id: &HoldId) -> Option<Reply<ReserveReply>> {
        let is_it = |command: &Command| matches!(command, Command::Reserve { params, .. } if params.id == *id);
        let at = self
            .waiting
            .iter()
            .position(|(_, command)| is_it(command))?;
        match self.waiting.remove(at).1 {
            Command::Reserve { reply, .. } => Some(reply),
            _ => None,
        }
    }

    /// Nobody is there any more to use what this connection asked for.
    pub(super) fn session_gone(&mut self, gone: SessionId) {
        self.waiting.retain(
            |(_, command)| !matches!(command, Command::Reserve { session, .. } if *session == gone),
        );
    }
}

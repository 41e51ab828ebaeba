//! All programs of one kernel: started together, ended in order, watched until they are ready.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aex_admin_proto::clock;
use tokio::sync::mpsc;

use super::Signals;
use super::keeper::{Ended, Keeper, Kit, last_lines, log_file};
use super::plan::{Program, drain_timeout_ms};
use super::ready::{self, Probe};
use super::state;

/// Ends of one program before a start has failed.
const MAX_ENDS: u32 = 5;
/// Lines of its log that are shown then.
const SHOWN_LINES: usize = 5;
/// A start that is not ready by now has failed.
const READY_LIMIT_MS: u64 = 60_000;
const PROBE_PAUSE: Duration = Duration::from_millis(25);
/// A reason that stands this long with every program there will not go away by itself.
const LASTING_MS: u64 = 2_000;
const MAX_ENDED_WAITING: usize = 64;

/// Beyond the drain timeout, before force is used.
const DRAIN_SLACK_MS: u64 = 5_000;
/// The workers are gone then, so nothing should be in flight.
const EGRESS_LIMIT_MS: u64 = 15_000;
const ADMIN_LIMIT_MS: u64 = 15_000;
/// For programs that never were ready.
const ABANDON_LIMIT_MS: u64 = 5_000;

pub(super) fn stop_limit_ms(drain_ms: u64) -> u64 {
    (drain_ms + DRAIN_SLACK_MS + EGRESS_LIMIT_MS + ADMIN_LIMIT_MS).max(60_000)
}

#[derive(Debug)]
pub(super) enum Waited {
    Ready,
    ToldToStop,
    Failed(String),
}

pub(super) struct Family {
    kit: Arc<Kit>,
    workers: u32,
    /// In the order of their end.
    keepers: Vec<Keeper>,
    ended: mpsc::Receiver<Ended>,
    tell_ended: mpsc::Sender<Ended>,
    /// Length of each log when its program was last started.
    logs_from: HashMap<Program, u64>,
}

impl Family {
    pub(super) fn start(kit: Kit, workers: u32) -> Self {
        let (tell_ended, ended) = mpsc::channel(MAX_ENDED_WAITING);
        let mut family = Self {
            kit: Arc::new(kit),
            workers,
            keepers: Vec::new(),
            ended,
            tell_ended,
            logs_from: HashMap::new(),
        };
        family.start_all();
        family
    }

    /// All at once: each looks for the others until they are there.
    fn start_all(&mut self) {
        for program in state::programs(self.workers) {
            let log = std::fs::metadata(log_file(&self.kit.places, program));
            self.logs_from
                .insert(program, log.map_or(0, |meta| meta.len()));
            let keeper = Keeper::start(Arc::clone(&self.kit), program, self.tell_ended.clone());
            self.keepers.push(keeper);
        }
        self.keepers
            .sort_by_key(|keeper| keeper.program.stop_order());
    }

    /// Until a request would be answered, or it is clear that none will be.
    pub(super) async fn wait_ready(&mut self, address: &str, signals: &mut Signals) -> Waited {
        let deadline_ms = clock::boot_ms() + READY_LIMIT_MS;
        let mut ends: HashMap<Program, u32> = HashMap::new();
        let mut lasting: Option<(String, u64)> = None;
        let mut last = "nobody answers".to_owned();
        loop {
            let probe = tokio::select! {
                probe = ready::probe(address) => probe,
                () = signals.stop() => return Waited::ToldToStop,
                Some(ended) = self.ended.recv() => {
                    let count = ends.entry(ended.program).or_default();
                    *count += 1;
                    if *count >= MAX_ENDS {
                        return Waited::Failed(self.keeps_ending(&ended, *count));
                    }
                    continue;
                }
            };
            let now_ms = clock::boot_ms();
            match probe {
                Probe::Ready => return Waited::Ready,
                Probe::NoAnswer => {}
                Probe::NotReady(why) => {
                    last = why;
                    let reason = ready::lasting_reason(&self.kit.places, self.workers).await;
                    lasting = match (reason, lasting) {
                        (Some(now), Some((then, since))) if now == then => Some((then, since)),
                        (Some(now), _) => Some((now, now_ms)),
                        (None, _) => None,
                    };
                    if let Some((why, since)) = &lasting
                        && now_ms - since >= LASTING_MS
                    {
                        return Waited::Failed(format!("the kernel is not ready: {why}"));
                    }
                }
            }
            if now_ms >= deadline_ms {
                return Waited::Failed(format!(
                    "the kernel is not ready after {} s: {last}. See `aex daemon logs`.",
                    READY_LIMIT_MS / 1000
                ));
            }
            tokio::time::sleep(PROBE_PAUSE).await;
        }
    }

    fn keeps_ending(&self, ended: &Ended, count: u32) -> String {
        let log = log_file(&self.kit.places, ended.program);
        let from = self.logs_from.get(&ended.program).copied().unwrap_or(0);
        let lines = last_lines(&log, from, SHOWN_LINES);
        let name = ended.program.instance();
        if lines.is_empty() {
            return format!("{name} ended {count} times ({})", ended.how);
        }
        format!(
            "{name} ended {count} times ({}). The last of {}:\n{lines}",
            ended.how,
            log.display()
        )
    }

    /// Ends that happen in service are logged by the keeper; nobody counts them.
    pub(super) async fn drain_ends(&mut self) {
        // This side holds a sender, so the queue never closes.
        let _ = self.ended.recv().await;
    }

    /// Everything down in order and up again, behind the same listener and with the same keys.
    /// False, and nothing is started again, when the order to stop comes meanwhile.
    pub(super) async fn restart(&mut self, signals: &mut Signals) -> bool {
        if !self.stop(signals).await {
            return false;
        }
        while self.ended.try_recv().is_ok() {}
        self.start_all();
        true
    }

    /// Workers first, which finish what they carry; told to stop meanwhile, it hurries and says false.
    pub(super) async fn stop(&mut self, signals: &mut Signals) -> bool {
        let config = std::fs::read_to_string(&self.kit.places.config_file).unwrap_or_default();
        let drain_ms = drain_timeout_ms(&config) + DRAIN_SLACK_MS;
        let mut hurry = false;
        for (order, limit_ms) in [(0, drain_ms), (1, EGRESS_LIMIT_MS), (2, ADMIN_LIMIT_MS)] {
            self.end_group(order, if hurry { ABANDON_LIMIT_MS } else { limit_ms });
            tokio::select! {
                () = self.group_ended(order) => continue,
                () = signals.stop() => hurry = true,
            }
            tracing::warn!("told to stop once more: what is in flight is cut");
            self.end_group(order, 0);
            self.group_ended(order).await;
        }
        self.keepers.clear();
        !hurry
    }

    /// The end of a start that failed.
    pub(super) async fn abandon(&mut self) {
        for order in 0..=2 {
            self.end_group(order, ABANDON_LIMIT_MS);
            self.group_ended(order).await;
        }
        self.keepers.clear();
    }

    fn end_group(&self, order: u8, limit_ms: u64) {
        for keeper in &self.keepers {
            if keeper.program.stop_order() == order {
                keeper.end(limit_ms);
            }
        }
    }

    async fn group_ended(&mut self, order: u8) {
        for keeper in &mut self.keepers {
            if keeper.program.stop_order() == order {
                keeper.ended().await;
            }
        }
    }
}

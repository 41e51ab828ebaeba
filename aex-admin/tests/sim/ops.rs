//! The operations of a run: plain data, made from a seed alone, so that a list of them can be replayed,
//! shortened, and kept. Whom an operation is about is a number; the world takes it modulo those that
//! there are, and passes over an operation that fits nobody.

use crate::kernel::Fault;
use crate::rng::Rng;

/// What happens to an ask on its way, and to its answer on the way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Fine,
    RequestLost,
    ReplyLost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Reserve {
        agent: u64,
        worker: u64,
        shape: u64,
        fate: Fate,
    },
    /// The same once more: its answer was lost, or its worker is impatient.
    AskAgain {
        pick: u64,
        fate: Fate,
    },
    /// Another request under an id that was used.
    ReuseId {
        pick: u64,
        shape: u64,
    },
    /// One request goes on: is redeemed, gets its head, gets its end, is settled.
    Progress {
        pick: u64,
        shape: u64,
    },
    Settle {
        pick: u64,
        fate: Fate,
    },
    SettleAgain {
        pick: u64,
        changed: bool,
    },
    /// A worker that was taken over settles as it likes.
    Lie {
        pick: u64,
        shape: u64,
    },
    /// A worker that was taken over redeems a ticket, settled or not.
    RedeemLate {
        pick: u64,
    },
    Cancel {
        pick: u64,
    },
    Reclaim {
        worker: u64,
    },
    WorkerGone {
        worker: u64,
        dies: bool,
    },
    Orders {
        lost: bool,
    },
    Receipts {
        count: u64,
        fate: Fate,
    },
    EgressGone {
        journal_lost: bool,
    },
    EgressBack,
    EgressReconnects,
    AdminGone {
        after_commit: bool,
    },
    MachineGone,
    Budget {
        agent: u64,
        shape: u64,
    },
    Limits {
        agent: u64,
        shape: u64,
    },
    Pause {
        agent: u64,
    },
    Resume {
        agent: u64,
    },
    Sever {
        agent: u64,
    },
    Delete {
        agent: u64,
    },
    Rotate {
        agent: u64,
        shape: u64,
    },
    Outside {
        agent: u64,
        shape: u64,
    },
    Wait {
        ms: u64,
    },
    WallJump {
        ms: i64,
    },
    /// The next batch fails.
    Break(Fault),
    /// Somebody else has the ledger's lock during the next batch.
    Lock,
    /// What was asked so far is one batch.
    Flush,
}

impl Op {
    /// The numbers that choose, to be made small.
    pub(crate) fn numbers(&mut self) -> Vec<&mut u64> {
        match self {
            Self::Reserve {
                agent,
                worker,
                shape,
                ..
            } => vec![agent, worker, shape],
            Self::ReuseId { pick, shape }
            | Self::Progress { pick, shape }
            | Self::Lie { pick, shape } => vec![pick, shape],
            Self::AskAgain { pick, .. }
            | Self::Settle { pick, .. }
            | Self::SettleAgain { pick, .. }
            | Self::RedeemLate { pick }
            | Self::Cancel { pick } => vec![pick],
            Self::Reclaim { worker } | Self::WorkerGone { worker, .. } => vec![worker],
            Self::Budget { agent, shape }
            | Self::Limits { agent, shape }
            | Self::Rotate { agent, shape }
            | Self::Outside { agent, shape } => vec![agent, shape],
            Self::Pause { agent }
            | Self::Resume { agent }
            | Self::Sever { agent }
            | Self::Delete { agent } => vec![agent],
            Self::Receipts { count, .. } => vec![count],
            _ => Vec::new(),
        }
    }
}

/// An operation, and whether the next one's asks come into the same batch.
pub(crate) type Step = (Op, bool);

pub(crate) fn list(seed: u64) -> Vec<Step> {
    let mut rng = Rng::new(seed);
    // Each run has a temper of its own: how often things break.
    let trouble = rng.pick(&[0, 4, 10, 20]);
    let count = rng.within(150, 300);
    (0..count)
        .map(|_| {
            let op = if rng.percent(trouble) {
                mishap(&mut rng)
            } else {
                ordinary(&mut rng)
            };
            (op, rng.percent(30))
        })
        .collect()
}

fn fate(rng: &mut Rng) -> Fate {
    match rng.below(20) {
        0 => Fate::RequestLost,
        1 | 2 => Fate::ReplyLost,
        _ => Fate::Fine,
    }
}

fn ordinary(rng: &mut Rng) -> Op {
    let (pick, shape) = (rng.next(), rng.next());
    match rng.below(100) {
        0..21 => Op::Reserve {
            agent: pick,
            worker: rng.next(),
            shape,
            fate: fate(rng),
        },
        21..52 => Op::Progress { pick, shape },
        52..58 => Op::Settle {
            pick,
            fate: fate(rng),
        },
        58..62 => Op::AskAgain {
            pick,
            fate: fate(rng),
        },
        62..70 => Op::Receipts {
            count: rng.within(1, 8),
            fate: fate(rng),
        },
        70..75 => Op::Orders {
            lost: rng.percent(10),
        },
        75..87 => Op::Wait { ms: pause(rng) },
        87 => Op::Budget { agent: pick, shape },
        88 => Op::Limits { agent: pick, shape },
        89 | 90 => Op::Resume { agent: pick },
        91 => Op::Outside { agent: pick, shape },
        92 => Op::Cancel { pick },
        93 => Op::Reclaim { worker: pick },
        94 => Op::SettleAgain {
            pick,
            changed: rng.percent(30),
        },
        95 => Op::Rotate { agent: pick, shape },
        96 if shape % 2 == 0 => Op::Sever { agent: pick },
        96 => Op::Resume { agent: pick },
        97 => Op::Lie { pick, shape },
        98 => Op::RedeemLate { pick },
        _ => rare(rng),
    }
}

fn rare(rng: &mut Rng) -> Op {
    let (pick, shape) = (rng.next(), rng.next());
    match rng.below(8) {
        0 if shape % 2 == 0 => Op::Delete { agent: pick },
        1 => Op::Pause { agent: pick },
        3..5 => Op::ReuseId { pick, shape },
        _ => Op::Flush,
    }
}

fn pause(rng: &mut Rng) -> u64 {
    10 * match rng.below(20) {
        0..9 => rng.within(1, 10),
        9..15 => rng.within(5, 100),
        15..18 => rng.within(100, 600),
        18 => rng.within(600, 3_500),
        _ => rng.within(3_500, 9_000),
    }
}

fn mishap(rng: &mut Rng) -> Op {
    match rng.below(28) {
        0..3 => Op::WorkerGone {
            worker: rng.next(),
            dies: rng.percent(50),
        },
        3..5 => Op::EgressGone {
            journal_lost: rng.percent(20),
        },
        5..9 => Op::EgressBack,
        9 => Op::EgressReconnects,
        10..13 => Op::AdminGone {
            after_commit: rng.percent(60),
        },
        13 => Op::MachineGone,
        14..16 => Op::WallJump { ms: jump(rng) },
        16 => Op::Lock,
        17..19 => Op::Outside {
            agent: rng.next(),
            shape: rng.next(),
        },
        _ => Op::Break(rng.pick(&[
            Fault::Commit,
            Fault::FullAtEvent,
            Fault::FullAtHold,
            Fault::FullAtRows,
        ])),
    }
}

fn jump(rng: &mut Rng) -> i64 {
    let ms = 10 * rng.pick(&[50, 3_000, 9_000, 360_000]);
    if rng.percent(50) { ms } else { -ms }
}

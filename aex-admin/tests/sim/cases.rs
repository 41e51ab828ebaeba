//! What the simulation found, each kept as the shortest list of operations that showed it.

use crate::kernel::Fault;
use crate::ops::{Fate, Op, Step};

pub(crate) struct Case {
    pub(crate) found: &'static str,
    /// For the agents and the configuration.
    pub(crate) seed: u64,
    pub(crate) steps: Vec<Step>,
    /// What it must come to: else it is no longer the case that it was.
    pub(crate) reaches: &'static [&'static str],
}

const FINE: Fate = Fate::Fine;

fn reserve(agent: u64, shape: u64) -> Op {
    Op::Reserve {
        agent,
        worker: 0,
        shape,
        fate: FINE,
    }
}

fn progress(shape: u64) -> Op {
    Op::Progress { pick: 0, shape }
}

/// Each its own batch.
fn one_by_one(ops: &[Op]) -> Vec<Step> {
    ops.iter().map(|&op| (op, false)).collect()
}

pub(crate) fn all() -> Vec<Case> {
    vec![
        corrected_twice(),
        answer_of_an_undone_batch(),
        forgotten_outside_update(),
        severed_and_not_cut(),
        correction_of_an_id_granted_anew(),
        voided_after_its_end(),
        late_figure_twice(),
        late_lie_after_a_restart(),
    ]
}

fn corrected_twice() -> Case {
    Case {
        found: "a receipt that contradicts a settle was told again after a restart, and the \
                correction was charged a second time",
        seed: 3,
        steps: one_by_one(&[
            reserve(0, 1),
            progress(0),
            Op::Lie { pick: 0, shape: 5 },
            Op::WorkerGone {
                worker: 0,
                dies: true,
            },
            Op::Receipts {
                count: 8,
                fate: Fate::ReplyLost,
            },
            Op::AdminGone {
                after_commit: false,
            },
        ]),
        reaches: &["corrected"],
    }
}

fn answer_of_an_undone_batch() -> Case {
    let mut steps = one_by_one(&[reserve(0, 1), progress(0), progress(7)]);
    steps.extend([
        (reserve(0, 1), true),
        (Op::Break(Fault::FullAtHold), true),
        (
            Op::Settle {
                pick: 1,
                fate: FINE,
            },
            false,
        ),
        (
            Op::SettleAgain {
                pick: 0,
                changed: false,
            },
            false,
        ),
    ]);
    Case {
        found: "a settle of a batch that was undone was answered as if it stood when it was asked \
                again: the hold stayed open, and was charged whole",
        seed: 3,
        steps,
        reaches: &["undone", "Exact"],
    }
}

fn forgotten_outside_update() -> Case {
    Case {
        found: "an UPDATE from outside that a batch noted was forgotten with the batch when the disk \
                was full: it never came into the chain, and woke nobody",
        seed: 3,
        steps: vec![
            (Op::Outside { agent: 0, shape: 0 }, true),
            (Op::Break(Fault::FullAtEvent), true),
            (reserve(0, 1), false),
            (reserve(0, 1), false),
        ],
        reaches: &["undone"],
    }
}

fn severed_and_not_cut() -> Case {
    let mut steps = one_by_one(&[
        reserve(0, 1),
        progress(0),
        Op::Sever { agent: 0 },
        Op::Orders { lost: true },
        Op::Wait { ms: 31_000 },
    ]);
    for _ in 0..6 {
        steps.extend(one_by_one(&[
            Op::Wait { ms: 1_100 },
            Op::Orders { lost: false },
        ]));
    }
    Case {
        found: "a cut whose order was lost was never ordered again where the egress was asked for the \
                hold as well: a severed request went on to its deadline",
        seed: 3,
        steps,
        reaches: &["sent"],
    }
}

fn correction_of_an_id_granted_anew() -> Case {
    let mut steps = one_by_one(&[
        reserve(0, 1),
        progress(0),
        progress(7),
        Op::EgressGone {
            journal_lost: false,
        },
    ]);
    steps.extend([
        (
            Op::AskAgain {
                pick: 0,
                fate: FINE,
            },
            true,
        ),
        (progress(0), false),
    ]);
    Case {
        found: "the audit took the correction of an ended hold for the end of another of the same id",
        seed: 3,
        steps,
        reaches: &["corrected"],
    }
}

fn voided_after_its_end() -> Case {
    let mut steps = one_by_one(&[
        reserve(0, 1),
        progress(0),
        progress(7),
        Op::Receipts {
            count: 8,
            fate: FINE,
        },
    ]);
    steps.extend([
        (Op::Wait { ms: 56_000 }, true),
        (Op::Break(Fault::FullAtEvent), true),
        (reserve(0, 1), false),
        (Op::Cancel { pick: 1 }, false),
        (Op::Orders { lost: false }, false),
        (
            Op::Receipts {
                count: 8,
                fate: FINE,
            },
            false,
        ),
    ]);
    Case {
        found: "a hold whose end the egress had told, and forgotten since, was voided on a late cancel: \
                what the provider had billed was given back",
        seed: 8,
        steps,
        reaches: &["undone", "sent"],
    }
}

/// Its end was told, and its worker says nothing for ten seconds: it ends at its ceiling.
fn ended_unsaid() -> Vec<Step> {
    one_by_one(&[
        Op::Receipts {
            count: 8,
            fate: FINE,
        },
        Op::Wait { ms: 10_100 },
        Op::Flush,
    ])
}

fn late_figure_twice() -> Case {
    let mut steps = one_by_one(&[reserve(0, 1), progress(0), progress(7)]);
    steps.extend(ended_unsaid());
    steps.extend(one_by_one(&[
        Op::Settle {
            pick: 0,
            fate: Fate::ReplyLost,
        },
        Op::AdminGone {
            after_commit: false,
        },
        Op::SettleAgain {
            pick: 0,
            changed: false,
        },
    ]));
    Case {
        found: "a worker's late figure that was told again after a restart gave the money back a \
                second time",
        seed: 3,
        steps,
        reaches: &["corrected", "Exact"],
    }
}

fn late_lie_after_a_restart() -> Case {
    let mut steps = one_by_one(&[
        reserve(0, 1),
        progress(0),
        Op::EgressGone {
            journal_lost: false,
        },
        Op::EgressBack,
    ]);
    steps.extend(ended_unsaid());
    steps.extend(one_by_one(&[
        Op::AdminGone {
            after_commit: false,
        },
        Op::Lie { pick: 0, shape: 5 },
    ]));
    Case {
        found: "after a restart a worker's late figure was not held against the receipt that had ended \
                its hold: a cut answer could be called a complete and cheap one",
        seed: 3,
        steps,
        reaches: &["lied", "Ceiling"],
    }
}

//! The course of one open reservation: granted, perhaps sent, perhaps orphaned, ended by the egress's
//! word. What is to be done about it at a given time. Pure: no clock, no socket, no ledger.
//!
//! Time alone never frees a hold that may have been sent: the egress is asked, and its answer decides.
//! Without its answer the hold stays.

use aex_admin_proto::egress::{Ending, Exchange};

/// A worker that lost its connection has this long to come back and re-claim.
const RECLAIM_MS: u64 = 2_000;
/// The egress is asked again for a hold after this long.
pub const ASK_AGAIN_MS: u64 = 1_000;
/// A worker has this long to settle after the exchange has ended.
const SETTLE_MS: u64 = 10_000;

/// Who answers for a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A worker's connection.
    Session(u64),
    /// Its worker went away at this time, boot clock.
    Nobody { since_boot_ms: u64 },
}

/// All times are the boot clock's.
#[derive(Debug, Clone)]
pub struct Reservation {
    /// 0 when it was granted before this boot.
    pub opened_boot_ms: u64,
    /// Until when its ticket can be redeemed.
    pub expires_boot_ms: u64,
    /// When the egress cuts its exchange.
    pub deadline_boot_ms: u64,
    /// Its answer has begun: it counts in the RPM window by that time.
    pub dispatched: bool,
    pub owner: Owner,
    pub severed: bool,
    pub receipt: Option<Ending>,
    pub receipt_boot_ms: u64,
    /// When the egress was last asked about it.
    pub asked_boot_ms: u64,
    /// When it was last told to cut it: to be asked does not cut.
    pub cut_boot_ms: u64,
}

/// What a look at a reservation comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    Nothing,
    /// Ask the egress to void it, or to say how it ended.
    Ask,
    /// Its receipt is here, and nobody else will end it.
    End,
}

impl Reservation {
    /// Granted now, to a worker's connection.
    #[must_use]
    pub fn granted(session: u64, now_boot_ms: u64, ticket_ms: u64, timeout_ms: u64) -> Self {
        Self {
            opened_boot_ms: now_boot_ms,
            expires_boot_ms: now_boot_ms.saturating_add(ticket_ms),
            deadline_boot_ms: now_boot_ms.saturating_add(timeout_ms),
            dispatched: false,
            owner: Owner::Session(session),
            severed: false,
            receipt: None,
            receipt_boot_ms: 0,
            asked_boot_ms: 0,
            cut_boot_ms: 0,
        }
    }

    /// `claimed`: its worker has said how it ended, and waits for the receipt.
    pub fn due(&mut self, claimed: bool, now_boot_ms: u64) -> Due {
        let orphaned = match self.owner {
            Owner::Session(_) => false,
            Owner::Nobody { since_boot_ms } => {
                now_boot_ms >= since_boot_ms.saturating_add(RECLAIM_MS)
            }
        };
        if self.receipt.is_some() {
            let late = now_boot_ms >= self.receipt_boot_ms.saturating_add(SETTLE_MS);
            return if orphaned || late || claimed {
                Due::End
            } else {
                Due::Nothing
            };
        }
        let unused = now_boot_ms > self.expires_boot_ms && !self.dispatched;
        let past = now_boot_ms > self.deadline_boot_ms.saturating_add(ASK_AGAIN_MS);
        let may_ask = again(self.asked_boot_ms, now_boot_ms);
        if (orphaned || unused || past || claimed) && may_ask {
            self.asked_boot_ms = now_boot_ms;
            return Due::Ask;
        }
        Due::Nothing
    }

    /// A severed exchange that is still open is cut again.
    pub fn cut_is_due(&mut self, now_boot_ms: u64) -> bool {
        let is_open = self.receipt.is_none();
        let due = self.severed && is_open && again(self.cut_boot_ms, now_boot_ms);
        if due {
            self.cut_boot_ms = now_boot_ms;
        }
        due
    }

    /// What the egress's word means for this one. Of a reservation that is younger than its journal it
    /// knows every redemption: one that it does not know was never sent, and will not be.
    #[must_use]
    pub fn understood(&self, ending: &Ending, journal_begun_boot_ms: u64) -> Ending {
        match ending {
            Ending::Unknown if self.opened_boot_ms > journal_begun_boot_ms => Ending::Voided,
            said => said.clone(),
        }
    }

    /// When its exchange reached the provider, as the egress tells; nothing for one that did not.
    #[must_use]
    pub fn sent_at_boot_ms(ending: &Ending) -> Option<u64> {
        match ending {
            Ending::Opened { head_boot_ms } => Some(*head_boot_ms),
            Ending::Ended(Exchange {
                sent: true,
                head_boot_ms,
                ..
            }) => Some(*head_boot_ms),
            _ => None,
        }
    }
}

fn again(last_boot_ms: u64, now_boot_ms: u64) -> bool {
    now_boot_ms >= last_boot_ms.saturating_add(ASK_AGAIN_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 100_000;
    const TICKET: u64 = 30_000;
    const TIMEOUT: u64 = 600_000;

    fn granted() -> Reservation {
        Reservation::granted(1, START, TICKET, TIMEOUT)
    }

    fn orphan() -> Reservation {
        let owner = Owner::Nobody {
            since_boot_ms: START,
        };
        Reservation { owner, ..granted() }
    }

    fn ended() -> Reservation {
        Reservation {
            receipt: Some(Ending::Ended(Exchange::default())),
            receipt_boot_ms: START,
            ..granted()
        }
    }

    fn dispatched() -> Reservation {
        Reservation {
            dispatched: true,
            ..granted()
        }
    }

    #[track_caller]
    fn check(mut reservation: Reservation, claimed: bool, after_ms: u64, expected: Due) {
        assert_eq!(reservation.due(claimed, START + after_ms), expected);
    }

    #[test]
    fn a_hold_is_asked_for_when_its_worker_ticket_or_time_is_gone() {
        check(granted(), false, TICKET, Due::Nothing);
        check(granted(), false, TICKET + 1, Due::Ask);
        check(granted(), true, 0, Due::Ask);
        check(orphan(), false, RECLAIM_MS - 1, Due::Nothing);
        check(orphan(), false, RECLAIM_MS, Due::Ask);
        check(dispatched(), false, TIMEOUT + ASK_AGAIN_MS, Due::Nothing);
        check(dispatched(), false, TIMEOUT + ASK_AGAIN_MS + 1, Due::Ask);
    }

    #[test]
    fn a_receipt_ends_it_when_nobody_else_will() {
        check(ended(), false, SETTLE_MS - 1, Due::Nothing);
        check(ended(), false, SETTLE_MS, Due::End);
        check(ended(), true, 0, Due::End);
        let owner = Owner::Nobody {
            since_boot_ms: START,
        };
        check(
            Reservation { owner, ..ended() },
            false,
            RECLAIM_MS,
            Due::End,
        );
    }

    #[test]
    fn it_is_asked_for_once_a_second_and_never_freed_by_time() {
        let mut lost = orphan();
        let mut asked = 0;
        for ms in (0..3_600_000).step_by(50) {
            match lost.due(false, START + ms) {
                Due::Ask => asked += 1,
                Due::Nothing => {}
                Due::End => panic!("freed without a word of the egress"),
            }
        }
        assert_eq!(asked, 3_600 - RECLAIM_MS / 1000);
    }

    #[test]
    fn a_severed_one_is_cut_until_it_ends() {
        assert!(!granted().cut_is_due(START));
        let mut severed = Reservation {
            severed: true,
            ..granted()
        };
        assert!(severed.cut_is_due(START));
        assert!(!severed.cut_is_due(START + ASK_AGAIN_MS - 1));
        assert_eq!(severed.due(true, START + ASK_AGAIN_MS), Due::Ask);
        assert!(severed.cut_is_due(START + ASK_AGAIN_MS));
        severed.receipt = Some(Ending::Ended(Exchange::default()));
        assert!(!severed.cut_is_due(START + 9 * ASK_AGAIN_MS));
    }

    #[test]
    fn what_an_older_journal_does_not_know_was_never_sent() {
        let young = granted();
        assert_eq!(
            young.understood(&Ending::Unknown, START - 1),
            Ending::Voided
        );
        assert_eq!(young.understood(&Ending::Unknown, START), Ending::Unknown);
        let before_this_boot = Reservation {
            opened_boot_ms: 0,
            ..granted()
        };
        assert_eq!(
            before_this_boot.understood(&Ending::Unknown, 0),
            Ending::Unknown
        );
        let ended = Ending::Ended(Exchange::default());
        assert_eq!(young.understood(&ended, 0), ended);
    }
}

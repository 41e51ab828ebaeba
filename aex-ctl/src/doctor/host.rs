//! The machine: its clock against the ledger's, and room for the ledger.

use std::path::Path;

use aex_admin_proto::clock;
use aex_admin_proto::operator::{Tail, TailParams, method};
use nix::sys::statvfs::statvfs;

use super::{Finding, State};
use crate::link::{Kernel, Link};

/// How far the clock may be behind the last event: what a time service steps at once.
const MAX_BEHIND_MS: i64 = 60_000;
/// A ledger grows by some 0.5 KB a request: a million requests.
const ENOUGH_BYTES: u64 = 512 * 1024 * 1024;

pub(super) async fn look(kernel: &Kernel, link: Option<&Link>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(link) = link {
        let params = TailParams {
            limit: Some(1),
            ..TailParams::default()
        };
        if let Ok(tail) = link.call::<_, Tail>(method::LEDGER_TAIL, &params).await
            && let Some(last) = tail.events.last()
        {
            findings.push(of_clock(clock::wall_ms(), last.at_ms));
        }
    }
    findings.extend(of_room(&kernel.places.home));
    findings
}

fn of_clock(now_ms: i64, last_event_ms: i64) -> Finding {
    let behind_ms = last_event_ms.saturating_sub(now_ms);
    if behind_ms <= MAX_BEHIND_MS {
        return Finding::ok("clock", "not behind the ledger's last event");
    }
    let says = format!(
        "it is {} s behind the ledger's last event: calendar limits would count into the wrong period",
        behind_ms / 1000
    );
    Finding::new("clock", State::Failed, says).fix("set the clock (timedatectl set-ntp true)")
}

fn of_room(directory: &Path) -> Option<Finding> {
    let about = statvfs(directory).ok()?;
    let free = about
        .blocks_available()
        .saturating_mul(about.fragment_size());
    let says = format!("{} MB are free at {}", free >> 20, directory.display());
    Some(if free >= ENOUGH_BYTES {
        Finding::ok("disk", says)
    } else {
        Finding::new("disk", State::Warning, says).fix("a full disk stops every request: make room")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_behind_the_ledger_fails() {
        assert_eq!(of_clock(1_000_000, 1_000_000).state, State::Ok);
        assert_eq!(of_clock(1_000_000, 1_060_000).state, State::Ok);
        assert_eq!(of_clock(1_000_000, 1_060_001).state, State::Failed);
        assert_eq!(of_clock(2_000_000, 1_000_000).state, State::Ok);
    }
}

//! The machine: its clock against the ledger's, and room for the ledger.

use std::path::Path;

use aex_admin_proto::clock;
use aex_admin_proto::operator::{Tail, TailParams, method};
use aex_admin_proto::places::Places;
use nix::sys::statvfs::statvfs;

use super::{Finding, State};
use crate::link::{Kernel, Link};
use crate::listen::DEFAULT_LISTEN;

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
    if kernel.places == Places::system() {
        findings.extend(of_port(
            &std::fs::read_to_string("/proc/net/tcp").unwrap_or_default(),
        ));
        findings.extend(of_rules());
    }
    findings
}

/// Who holds the usual port, where anybody does: systemd's listeners are root's. Lines of proc(5).
fn of_port(tcp: &str) -> Option<Finding> {
    const LISTENING: &str = "0A";
    let port = DEFAULT_LISTEN.port();
    let holder = tcp.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, uid) = (fields.get(1)?, fields.get(3)?, fields.get(7)?);
        let (_, local_port) = local.split_once(':')?;
        let is_it = u16::from_str_radix(local_port, 16) == Ok(port) && *state == LISTENING;
        is_it.then(|| uid.parse::<u32>().ok()).flatten()
    })?;
    Some(match holder {
        0 => Finding::ok("port", format!("{port} is held by systemd")),
        uid => {
            let says = format!(
                "{port} is held by uid {uid}, and not by systemd: agents would give it their tokens"
            );
            Finding::new("port", State::Failed, says)
                .fix("end that program, systemctl restart aex-proxy.socket, and rotate the tokens that it saw")
        }
    })
}

/// Users are barred by rules that a firewall's own reload may have taken away.
fn of_rules() -> Option<Finding> {
    let wanted = Path::new("/etc/systemd/system/multi-user.target.wants/nftables-aex.service");
    if wanted.symlink_metadata().is_err() || !nix::unistd::geteuid().is_root() {
        return None;
    }
    let listed = std::process::Command::new("/usr/sbin/nft")
        .args(["list", "set", "inet", "aex", "barred"])
        .env_clear()
        .output();
    Some(if listed.is_ok_and(|listed| listed.status.success()) {
        Finding::ok(
            "ways around",
            "the rules of nftables-aex.service are in force",
        )
    } else {
        let says =
            "nftables-aex.service is enabled, and its rules are not in force: who is barred is not";
        Finding::new("ways around", State::Failed, says).fix("systemctl restart nftables-aex")
    })
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

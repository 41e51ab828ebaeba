//! The machine: its clock against the ledger's, and room for the ledger.

use std::collections::BTreeSet;
use std::path::Path;

use aex_admin_proto::clock;
use aex_admin_proto::listen::Listen;
use aex_admin_proto::operator::{Tail, TailParams, method};
use aex_admin_proto::places::Places;
use nix::sys::statvfs::statvfs;

use super::{Finding, State};
use crate::link::{Kernel, Link};
use crate::listen::{DEFAULT_LISTEN, Ways};

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
        let ways = match link {
            Some(link) => kernel.ways(link, "").await,
            None => Ways::default(),
        };
        let tables: String = ["/proc/net/tcp", "/proc/net/tcp6"]
            .iter()
            .filter_map(|table| std::fs::read_to_string(table).ok())
            .collect();
        findings.extend(
            ports(&ways)
                .iter()
                .filter_map(|port| of_port(*port, &tables)),
        );
        findings.extend(of_rules());
    }
    findings
}

/// Those of the workers; where none tells any, the usual one.
fn ports(ways: &Ways) -> BTreeSet<u16> {
    let tcp = ways.all().iter().filter_map(|place| match place.at {
        Listen::Tcp(address) => Some(address.port()),
        Listen::Unix(_) => None,
    });
    let told: BTreeSet<u16> = tcp.collect();
    if ways.is_empty() {
        BTreeSet::from([DEFAULT_LISTEN.port()])
    } else {
        told
    }
}

/// Who holds a port, where anybody does: systemd's listeners are root's. Lines of proc(5), headings among them.
fn of_port(port: u16, tables: &str) -> Option<Finding> {
    const LISTENING: &str = "0A";
    let holder = tables.lines().find_map(|line| {
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
    fn a_port_of_somebody_elses_is_found() {
        let line = |local: &str, state: &str, uid: u32| {
            format!("  0: {local} 00000000:0000 {state} 0:0 00:0 0 {uid} 0 1 1 0 100 0 0 10 0\n")
        };
        let heading = "  sl  local_address rem_address   st tx_queue rx_queue\n";
        let tables = [
            heading.to_owned(),
            line("0100007F:2328", "01", 7),
            line("0100007F:2328", "0A", 0),
            heading.to_owned(),
            line("00000000000000000000000001000000:238C", "0A", 7),
        ]
        .concat();
        let state = |port| of_port(port, &tables).map(|finding| finding.state);
        assert_eq!(state(9000), Some(State::Ok));
        assert_eq!(state(9100), Some(State::Failed));
        assert_eq!(state(9200), None);
    }

    #[test]
    fn a_clock_that_is_behind_the_ledger_fails() {
        assert_eq!(of_clock(1_000_000, 1_000_000).state, State::Ok);
        assert_eq!(of_clock(1_000_000, 1_060_000).state, State::Ok);
        assert_eq!(of_clock(1_000_000, 1_060_001).state, State::Failed);
        assert_eq!(of_clock(2_000_000, 1_000_000).state, State::Ok);
    }
}

//! The machine: its clock against the ledger's, and room for the ledger.

use std::collections::BTreeSet;
use std::path::Path;

use aex_admin_proto::clock;
use aex_admin_proto::listen::Listen;
use aex_admin_proto::operator::{Status, Tail, TailParams, method};
use aex_admin_proto::places::Places;
use nix::sys::statvfs::statvfs;
use serde_json::json;

use super::{Finding, State};
use crate::link::{Kernel, Link};
use crate::listen::DEFAULT_LISTEN;
use crate::ports::{self, Listener};

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
        let listeners = ports::listeners();
        let told = told(link).await;
        findings.extend(told.iter().map(|port| of_port(*port, &listeners)));
        findings.extend(of_rules());
    }
    findings
}

/// Ports that workers say they listen at, whether it is true or not; the usual one where none says any.
async fn told(link: Option<&Link>) -> BTreeSet<u16> {
    let status: Option<Status> = match link {
        Some(link) => link.call(method::STATUS, &json!({})).await.ok(),
        None => None,
    };
    let workers = status.into_iter().flat_map(|status| status.workers);
    let places: Vec<Listen> = workers
        .flat_map(|worker| worker.listeners)
        .map(|place| place.at)
        .collect();
    if places.is_empty() {
        return BTreeSet::from([DEFAULT_LISTEN.port()]);
    }
    let tcp = places.iter().filter_map(|at| match at {
        Listen::Tcp(address) => Some(address.port()),
        Listen::Unix(_) => None,
    });
    tcp.collect()
}

const ANEW: &str = "systemctl stop 'aex-proxy*'; systemctl start aex.target; and rotate tokens that may have been told to another";

/// Who holds a port, at whichever address of this host: `localhost` may mean several.
fn of_port(port: u16, listeners: &[Listener]) -> Finding {
    let mut at = listeners.iter().filter(|one| one.port == port).peekable();
    if at.peek().is_none() {
        let says =
            format!("nobody listens at {port}: agents are not served, and any user may take it");
        return Finding::new("port", State::Failed, says).fix(ANEW);
    }
    match at.find(|one| one.uid != 0) {
        None => Finding::ok("port", format!("{port} is held by systemd")),
        Some(other) => {
            let says = format!(
                "{port} of {} is held by uid {}, and not by systemd: agents would give it their tokens",
                other.ip, other.uid
            );
            let fix = format!("end that program; {ANEW}");
            Finding::new("port", State::Failed, says).fix(fix)
        }
    }
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
    fn a_port_of_somebody_elses_or_of_nobody_is_found() {
        let at = |ip: &str, port, uid| Listener {
            ip: ip.parse().unwrap(),
            port,
            uid,
        };
        let all = [
            at("127.0.0.1", 9000, 0),
            at("127.0.0.1", 9100, 0),
            at("::1", 9100, 7),
        ];
        assert_eq!(of_port(9000, &all).state, State::Ok);
        assert_eq!(of_port(9100, &all).state, State::Failed);
        assert_eq!(of_port(9200, &all).state, State::Failed);
    }

    #[test]
    fn a_clock_that_is_behind_the_ledger_fails() {
        assert_eq!(of_clock(1_000_000, 1_000_000).state, State::Ok);
        assert_eq!(of_clock(1_000_000, 1_060_000).state, State::Ok);
        assert_eq!(of_clock(1_000_000, 1_060_001).state, State::Failed);
        assert_eq!(of_clock(2_000_000, 1_000_000).state, State::Ok);
    }
}

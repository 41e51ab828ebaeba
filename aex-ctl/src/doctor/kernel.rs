//! What the kernel says of itself: whether it answers, what it lacks, how far it is kept apart from others.

use std::time::Duration;

use aex_admin_proto::operator::{Status, method};
use aex_admin_proto::places::Places;
use aex_admin_proto::sandbox::InForce;
use serde_json::json;

use super::{Finding, State};
use crate::fault::Fault;
use crate::link::{Kernel, Link};

/// One that hangs is a finding, and not to be waited for over and over.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(5);

/// A link to it, if there is one.
pub(super) async fn look(kernel: &Kernel) -> (Option<Link>, Vec<Finding>) {
    let link = match kernel.open().await {
        Ok(link) => link,
        Err(fault) => {
            let state = match &fault {
                Fault::Refused(_) => State::Skipped,
                _ => State::Failed,
            };
            return (None, vec![Finding::new("kernel", state, fault.to_string())]);
        }
    };
    let status: Result<Status, Fault> = link
        .call_within(method::STATUS, &json!({}), CALL_LIMIT)
        .await;
    // What does not answer now is asked nothing more.
    let answers = status.is_ok();
    let findings = match status {
        Ok(status) => of_status(&status, kernel.places == Places::system()),
        Err(fault) => vec![Finding::new("kernel", State::Failed, fault.to_string())],
    };
    (answers.then_some(link), findings)
}

fn of_status(status: &Status, is_of_the_host: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.push(match (&status.why, status.ready) {
        (_, true) => Finding::ok(
            "kernel",
            format!("it answers (aex-admin pid {})", status.pid),
        ),
        (why, false) => {
            let why = why.as_deref().unwrap_or("it does not say why");
            let logs = if is_of_the_host {
                "see `journalctl -u 'aex-*'`"
            } else {
                "see `aex daemon logs`"
            };
            Finding::new("kernel", State::Failed, format!("not ready: {why}")).fix(logs)
        }
    });
    if status.workers.is_empty() {
        let start = if is_of_the_host {
            "systemctl start aex-proxy@1"
        } else {
            "aex daemon restart"
        };
        findings.push(
            Finding::new(
                "kernel",
                State::Failed,
                "no worker is connected: no agent is served",
            )
            .fix(start),
        );
    }
    if status.version != env!("CARGO_PKG_VERSION") {
        let says = format!(
            "aex-admin is version {}, this program {}",
            status.version,
            env!("CARGO_PKG_VERSION")
        );
        findings
            .push(Finding::new("kernel", State::Warning, says).fix("restart it after an upgrade"));
    }
    findings.push(match status.boundary.as_str() {
        "enforced" => Finding::ok(
            "boundary",
            "enforced: each program is another user, and agents are none of them",
        ),
        _ => Finding::new(
            "boundary",
            State::Warning,
            "advisory: all programs, and perhaps the agents, are one user; runaways are stopped, a \
             hostile program of the same user is not",
        )
        .fix("start agents with `aex run --confine`, or as another user; on a shared host install the package"),
    });
    findings.extend(of_sandboxes(status));
    findings
}

/// What holds each program in, as it said itself.
fn of_sandboxes(status: &Status) -> Vec<Finding> {
    let admin = ("aex-admin".to_owned(), status.sandbox);
    let egress = (status.egress_sandbox).map(|sandbox| ("aex-egress".to_owned(), sandbox));
    let workers = (status.workers.iter())
        .map(|worker| (format!("aex-proxy {}", worker.worker), worker.sandbox));
    let programs: Vec<(String, InForce)> = std::iter::once(admin)
        .chain(egress)
        .chain(workers)
        .collect();
    let weak: Vec<Finding> = (programs.iter())
        .filter(|(_, sandbox)| !sandbox.is_whole())
        .map(|(name, sandbox)| {
            let fix = if sandbox.switched_off {
                "start it without AEX_SANDBOX=off"
            } else {
                "a newer Linux has more of it (6.12 has all)"
            };
            Finding::new("sandbox", State::Warning, format!("{name}: {sandbox}")).fix(fix)
        })
        .collect();
    if weak.is_empty() {
        let all = programs
            .first()
            .map_or_else(String::new, |(_, sandbox)| sandbox.to_string());
        return vec![Finding::ok(
            "sandbox",
            format!("each of {} programs: {all}", programs.len()),
        )];
    }
    weak
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> InForce {
        InForce {
            no_new_privs: true,
            not_dumpable: true,
            no_core: true,
            landlock_abi: Some(7),
            tcp: true,
            scoped: true,
            seccomp: true,
            ..InForce::default()
        }
    }

    #[test]
    fn a_program_that_is_held_in_by_less_is_named() {
        let mut weak = status(true, "enforced");
        assert_eq!(of_sandboxes(&weak)[0].state, State::Ok);
        weak.workers[0].sandbox.landlock_abi = None;
        let findings = of_sandboxes(&weak);
        assert_eq!((findings.len(), findings[0].state), (1, State::Warning));
        assert!(findings[0].says.starts_with("aex-proxy 1"), "{findings:?}");
    }

    fn status(ready: bool, boundary: &str) -> Status {
        serde_json::from_value(json!({
            "version": env!("CARGO_PKG_VERSION"), "boundary": boundary, "ready": ready,
            "why": (!ready).then_some("aex-egress is not connected"), "pid": 7, "uptime_ms": 0,
            "egress_pid": null, "operator_keys": [], "sandbox": whole(),
            "workers": [{"worker": 1, "pid": 8, "in_flight": 0, "sandbox": whole()}], "agents": 0, "open_holds": 0,
            "waiting": 0, "events": 0, "ledger": "/l", "config_generation": 1,
        }))
        .unwrap()
    }

    fn states(status: &Status) -> Vec<State> {
        let findings = of_status(status, true);
        let others = findings
            .into_iter()
            .filter(|finding| finding.check != "sandbox");
        others.map(|finding| finding.state).collect()
    }

    #[test]
    fn what_is_missing_fails_and_what_is_weak_warns() {
        assert_eq!(states(&status(true, "enforced")), [State::Ok, State::Ok]);
        assert_eq!(
            states(&status(true, "advisory")),
            [State::Ok, State::Warning]
        );
        assert_eq!(
            states(&status(false, "enforced")),
            [State::Failed, State::Ok]
        );
        let mut alone = status(true, "enforced");
        alone.workers.clear();
        alone.version = "0.0.1".into();
        assert_eq!(
            states(&alone),
            [State::Ok, State::Failed, State::Warning, State::Ok]
        );
    }
}

//! What another user of this host can do to the kernel, and past it: proven by trying, as that user.

use std::path::PathBuf;

use aex_admin_proto::listen::{Listen, reachable};
use aex_admin_proto::operator::{Status, method};
use aex_admin_proto::places::Places;
use nix::unistd::{Uid, User};
use serde_json::json;
use tokio::process::Command;

use super::powers;
use super::reach::Reached;
use super::sudo;
use super::tries::{Asked, Outcome, Try};
use super::{Finding, State};
use crate::commands::child;
use crate::fault::Fault;
use crate::link::{Kernel, Link};
use crate::listen::{DEFAULT_LISTEN, Ways};

/// Most files of one directory that are tried.
const MAX_FILES: usize = 100;

/// A user of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stranger {
    uid: u32,
    gid: u32,
    name: Option<String>,
}

impl Stranger {
    /// A user by number or name. A number that nobody has is a user all the same.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let known = match text.parse::<u32>() {
            Ok(uid) => User::from_uid(Uid::from_raw(uid)),
            Err(_) => User::from_name(text),
        };
        match (known, text.parse::<u32>()) {
            (Ok(Some(user)), _) => Ok(Self {
                uid: user.uid.as_raw(),
                gid: user.gid.as_raw(),
                name: Some(user.name),
            }),
            (Ok(None), Ok(uid)) => Ok(Self {
                uid,
                gid: uid,
                name: None,
            }),
            (Ok(None), Err(_)) => Err(format!("there is no user {text} on this host")),
            (Err(errno), _) => Err(format!("users cannot be looked up: {errno}")),
        }
        .and_then(|user| match user.uid {
            0 => Err("root can do everything: name the user that agents run as".to_owned()),
            _ => Ok(user),
        })
    }

    fn title(&self) -> String {
        match &self.name {
            Some(name) => format!("{name} (uid {})", self.uid),
            None => format!("uid {}", self.uid),
        }
    }
}

/// One thing tried: what it is, for people, and what it proves when it can be done.
struct Look {
    check: &'static str,
    what: String,
    wanted: Try,
    /// It must work, not fail.
    must_work: bool,
    fix: &'static str,
}

const CLOSE: &str = "close it to other users; `aex doctor` names modes that are wrong";
const BAR: &str =
    "bar the user from the network: packaging/nftables, or IPAddressDeny= of its units";

pub(super) async fn look(
    stranger: &Stranger,
    kernel: &Kernel,
    link: Option<&Link>,
    reached: &[Reached],
) -> Result<Vec<Finding>, Fault> {
    let status: Option<Status> = match link {
        Some(link) => link.call(method::STATUS, &json!({})).await.ok(),
        None => None,
    };
    let mut looks = of_files(&kernel.places);
    looks.extend(status.iter().flat_map(of_processes));
    looks.extend(reached.iter().filter_map(of_provider));
    let ways = match link {
        Some(link) => kernel.ways(link, "").await,
        None => Ways::default(),
    };
    looks.extend(of_aex(&ways));
    let tries = looks.iter().map(|look| look.wanted.clone()).collect();
    let outcomes = tried(stranger, tries).await?;
    let title = stranger.title();
    let mut findings: Vec<Finding> = (looks.iter().zip(outcomes))
        .map(|(look, outcome)| judged(&title, look, outcome))
        .collect();
    findings.extend(powers::look(
        &title,
        stranger.name.as_deref().unwrap_or_default(),
        stranger.uid,
    ));
    findings.extend(sudo::look(&title, stranger.name.as_deref()).await);
    findings.extend(reached.iter().filter_map(|provider| {
        let why = provider.at.as_ref().err()?;
        let says = format!(
            "whether {title} can reach {} past AEX: not reachable from here either ({why}), so nothing is \
             proven",
            provider.provider
        );
        Some(Finding::new("ways around", State::Skipped, says))
    }));
    Ok(findings)
}

async fn tried(stranger: &Stranger, tries: Vec<Try>) -> Result<Vec<Outcome>, Fault> {
    let own = std::env::current_exe()
        .map_err(|error| Fault::failed(format!("cannot find this program's own file: {error}")))?;
    let asked = Asked {
        uid: stranger.uid,
        gid: stranger.gid,
        name: stranger.name.clone(),
        tries,
    };
    let input = serde_json::to_vec(&asked).map_err(|error| Fault::failed(error.to_string()))?;
    let mut copy = Command::new(own);
    copy.arg("doctor-tries");
    let output = child::given(copy, "aex doctor-tries", &input).await?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().trim_start_matches("aex: ").to_owned();
        return Err(Fault::Refused(said));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| Fault::failed(error.to_string()))
}

fn judged(title: &str, look: &Look, outcome: Outcome) -> Finding {
    let what = &look.what;
    match (outcome, look.must_work) {
        (None, true) => Finding::ok(look.check, format!("{title} can {what}")),
        (Some(why), false) => Finding::ok(look.check, format!("{title} cannot {what}: {why}")),
        (None, false) => {
            Finding::new(look.check, State::Failed, format!("{title} can {what}")).fix(look.fix)
        }
        (Some(why), true) => {
            let says = format!("{title} cannot {what}: {why}");
            Finding::new(look.check, State::Failed, says).fix(look.fix)
        }
    }
}

fn of_files(places: &Places) -> Vec<Look> {
    let sockets = [
        places.operator_socket(),
        places.auditor_socket(),
        places.worker_socket(),
        places.egress_role_socket(),
        places.egress_socket(),
    ];
    let sockets = sockets.into_iter().filter(|path| path.exists());
    let connect = |path: PathBuf| Look {
        check: "sockets",
        what: format!("connect to {}", path.display()),
        wanted: Try::ConnectUnix(path),
        must_work: false,
        fix: "it is an operator, or may be one: take it out of the group of the socket",
    };
    let mut paths = vec![
        places.home.clone(),
        places.keys.clone(),
        places.logs.clone(),
    ];
    for directory in [&places.home, &places.keys, &places.logs] {
        let entries = std::fs::read_dir(directory).into_iter().flatten();
        let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
        paths.extend(files.filter(|path| path.is_file()).take(MAX_FILES));
    }
    paths.push(places.ledger.clone());
    paths.push(places.egress_journal());
    paths.push(places.spool());
    paths.sort_unstable();
    paths.dedup();
    let read = |path: PathBuf| Look {
        check: "files",
        what: format!("read {}", path.display()),
        wanted: Try::Read(path),
        must_work: false,
        fix: CLOSE,
    };
    let paths = paths.into_iter().filter(|path| path.exists());
    sockets.map(connect).chain(paths.map(read)).collect()
}

fn of_processes(status: &Status) -> Vec<Look> {
    let workers = status.workers.iter().map(|worker| worker.pid);
    let pids = [Some(status.pid), status.egress_pid];
    (pids.into_iter().flatten().chain(workers))
        .flat_map(|pid| ["environ", "mem", "maps"].map(|file| format!("/proc/{pid}/{file}")))
        .map(|path| Look {
            check: "memory",
            what: format!("read {path}"),
            wanted: Try::Read(path.into()),
            must_work: false,
            fix: "it is a user of AEX's own programs: agents must run as another one",
        })
        .collect()
}

fn of_provider(provider: &Reached) -> Option<Look> {
    let address = *provider.at.as_ref().ok()?;
    Some(Look {
        check: "ways around",
        what: format!("reach {} at {address} past AEX", provider.provider),
        wanted: Try::Connect(address),
        must_work: false,
        fix: BAR,
    })
}

/// The way that is left must be open. What cannot be asked is taken to be where it usually is.
fn of_aex(ways: &Ways) -> Vec<Look> {
    let usual = [Listen::Tcp(DEFAULT_LISTEN)];
    let told: Vec<Listen> = ways.all().iter().map(|place| place.at.clone()).collect();
    let places = if told.is_empty() { &usual[..] } else { &told };
    let each = places.iter().map(|at| Look {
        check: "agents' way",
        what: format!("reach AEX at {at}"),
        wanted: match at {
            Listen::Tcp(address) => Try::Connect(reachable(*address)),
            Listen::Unix(path) => Try::ConnectUnix(path.clone()),
        },
        must_work: true,
        fix: "start the kernel, and let the user reach its address",
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_known_by_name_or_number_and_root_proves_nothing() {
        assert!(Stranger::parse("root").unwrap_err().contains("root"));
        assert!(Stranger::parse("0").is_err());
        assert!(Stranger::parse("no-such-user-here").is_err());
        let nobody = Stranger::parse("nobody").unwrap();
        assert_eq!(Stranger::parse(&nobody.uid.to_string()), Ok(nobody.clone()));
        let unknown = Stranger::parse("3999999").unwrap();
        assert_eq!((unknown.uid, unknown.name), (3_999_999, None));
    }

    #[test]
    fn what_must_fail_and_does_not_is_a_failure() {
        let look = |must_work| Look {
            check: "files",
            what: "read /x".into(),
            wanted: Try::Read("/x".into()),
            must_work,
            fix: CLOSE,
        };
        let state = |must_work, outcome: Outcome| judged("u", &look(must_work), outcome).state;
        assert_eq!(state(false, Some("no".into())), State::Ok);
        assert_eq!(state(false, None), State::Failed);
        assert_eq!(state(true, None), State::Ok);
        assert_eq!(state(true, Some("no".into())), State::Failed);
    }
}

//! Who can read what lies on disk: the home of user mode, or the directories of the host's service.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aex_admin_proto::places::Places;

use super::links::{open_on_the_way, way_to};
use super::{Finding, State};

/// Most files of one directory that are looked at.
const MAX_FILES: usize = 1000;

const OTHERS: u32 = 0o007;
const GROUP_AND_OTHERS: u32 = 0o077;

/// A place, and the bits that nobody may have there.
struct Rule {
    path: PathBuf,
    closed_to: u32,
    owner: Option<u32>,
}

pub(super) fn look(places: &Places) -> Vec<Finding> {
    let rules = if *places == Places::system() {
        of_the_host(places)
    } else {
        of_a_home(places)
    };
    let (mut looked, mut findings) = (0, Vec::new());
    for rule in rules {
        match fs::symlink_metadata(&rule.path) {
            Ok(about) => {
                looked += 1;
                findings.extend(if about.is_symlink() {
                    judge_link(&rule, about.uid())
                } else {
                    judge(&rule, about.mode() & 0o7777, about.uid())
                });
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => findings.push(not_seen(&rule.path, &error)),
        }
    }
    if !findings
        .iter()
        .any(|finding| finding.state == State::Failed)
    {
        let says = format!("{looked} files and directories are closed to other users");
        findings.insert(0, Finding::ok("files", says));
    }
    findings
}

fn not_seen(path: &Path, error: &std::io::Error) -> Finding {
    let says = format!("cannot look at {}: {error}", path.display());
    Finding::new("files", State::Skipped, says).fix("run `aex doctor` as root")
}

/// A link's own mode says nothing: what it leads to is judged, and whether others can have it lead
/// elsewhere.
fn judge_link(rule: &Rule, link_uid: u32) -> Option<Finding> {
    let path = rule.path.display();
    let failed = |says, fix| Some(Finding::new("files", State::Failed, says).fix(fix));
    if rule.owner.is_some_and(|owner| owner != link_uid) {
        return another_owner(&rule.path, link_uid);
    }
    let found = way_to(&rule.path).and_then(|way| Ok((fs::symlink_metadata(&way.end)?, way)));
    let (about, way) = match found {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return Some(not_seen(&rule.path, &error));
        }
        Err(error) => {
            let says = format!("{path} is a link that leads to nothing: {error}");
            return failed(says, format!("remove it: ls -l {path}"));
        }
    };
    if let Some(open) = open_on_the_way(&way, link_uid) {
        let says = format!(
            "{path} leads through {}, in which others can write",
            open.display()
        );
        return failed(says, format!("put the file itself at {path}"));
    }
    let end = Rule {
        path: way.end,
        closed_to: rule.closed_to,
        owner: rule.owner,
    };
    judge(&end, about.mode() & 0o7777, about.uid())
}

fn judge(rule: &Rule, mode: u32, uid: u32) -> Option<Finding> {
    let path = rule.path.display();
    if mode & rule.closed_to != 0 {
        let says = format!("{path} is open to other users (mode {mode:04o})");
        let closed = mode & !rule.closed_to;
        return Some(
            Finding::new("files", State::Failed, says).fix(format!("chmod {closed:04o} {path}")),
        );
    }
    rule.owner
        .filter(|owner| *owner != uid)
        .and_then(|_| another_owner(&rule.path, uid))
}

fn another_owner(path: &Path, uid: u32) -> Option<Finding> {
    let path = path.display();
    let says = format!("{path} belongs to another user (uid {uid})");
    let fix = format!("chown it back, or look who put it there: ls -l {path}");
    Some(Finding::new("files", State::Failed, says).fix(fix))
}

fn of_a_home(places: &Places) -> Vec<Rule> {
    let mut paths = vec![places.home.clone()];
    // Closed at the top, what is below is closed too; it is looked at all the same: a copy, a backup or a
    // move keeps modes.
    let config = places.config_file.parent().unwrap_or(&places.home);
    for directory in [
        &places.home,
        config,
        &places.keys,
        &places.run,
        &places.logs,
    ] {
        paths.extend(files_in(directory));
    }
    let owner = Some(nix::unistd::geteuid().as_raw());
    paths.sort_unstable();
    paths.dedup();
    paths
        .into_iter()
        .map(|path| Rule {
            // Agents connect to these; the token is what counts.
            closed_to: if is_agents_socket(&path, places) {
                0
            } else {
                GROUP_AND_OTHERS
            },
            path,
            owner,
        })
        .collect()
}

fn of_the_host(places: &Places) -> Vec<Rule> {
    let config = places.config_file.parent().unwrap_or(&places.home);
    let mut rules = vec![
        Rule {
            path: places.home.clone(),
            closed_to: GROUP_AND_OTHERS,
            owner: None,
        },
        Rule {
            path: config.to_owned(),
            closed_to: OTHERS,
            owner: Some(0),
        },
    ];
    rules.extend(files_in(&places.home).into_iter().map(|path| Rule {
        path,
        closed_to: GROUP_AND_OTHERS,
        owner: None,
    }));
    for directory in [config, &places.run] {
        rules.extend(files_in(directory).into_iter().map(|path| Rule {
            closed_to: if is_agents_socket(&path, places) {
                0
            } else {
                OTHERS
            },
            path,
            owner: Some(0),
        }));
    }
    rules
}

fn is_agents_socket(path: &Path, places: &Places) -> bool {
    path.starts_with(places.run.join("agents"))
}

fn files_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .take(MAX_FILES)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_open_file_is_found_and_named_with_its_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::user(dir.path());
        fs::create_dir(&places.keys).unwrap();
        let close = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        for path in [dir.path(), &places.keys] {
            close(path, 0o700);
        }
        let key = places.keys.join("groq");
        fs::write(&key, "fake").unwrap();
        close(&key, 0o600);
        let closed = look(&places);
        assert!(closed.iter().all(|f| f.state == State::Ok), "{closed:?}");
        close(&key, 0o640);
        let open = look(&places);
        assert_eq!(open.len(), 1, "{open:?}");
        assert_eq!(open[0].state, State::Failed);
        assert_eq!(open[0].fix, Some(format!("chmod 0600 {}", key.display())));
    }

    #[test]
    fn of_a_link_what_it_leads_to_is_judged() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let elsewhere = elsewhere.path().canonicalize().unwrap();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(dir.path(), 0o700);
        let target = elsewhere.join("models.yaml");
        fs::write(&target, "x").unwrap();
        let places = Places::user(dir.path());
        let beside = places.config_file.parent().unwrap();
        fs::create_dir_all(beside).unwrap();
        mode(beside, 0o700);
        std::os::unix::fs::symlink(&target, &places.config_file).unwrap();
        let told = || {
            let found = look(&places);
            let failed = found.into_iter().find(|f| f.state == State::Failed);
            failed.map(|f| format!("{}; {}", f.says, f.fix.unwrap_or_default()))
        };
        mode(&target, 0o600);
        mode(&elsewhere, 0o755);
        assert_eq!(told(), None);
        mode(&target, 0o644);
        let open = told().unwrap();
        assert!(
            open.contains(&format!("chmod 0600 {}", target.display())),
            "{open}"
        );
        mode(&target, 0o600);
        // Anybody can put another file in its place.
        mode(&elsewhere, 0o777);
        let open = told().unwrap();
        assert!(
            open.contains(&format!("through {}", elsewhere.display())),
            "{open}"
        );
        mode(&elsewhere, 0o755);
        fs::remove_file(&target).unwrap();
        let gone = told().unwrap();
        assert!(gone.contains("leads to nothing"), "{gone}");
    }

    #[test]
    fn another_owner_is_told() {
        let rule = Rule {
            path: "/x".into(),
            closed_to: OTHERS,
            owner: Some(0),
        };
        assert!(judge(&rule, 0o640, 0).is_none());
        let told = judge(&rule, 0o640, 1000).unwrap();
        assert!(told.says.contains("uid 1000"), "{told:?}");
    }
}

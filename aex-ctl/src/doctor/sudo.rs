//! Whether a user may run commands as another by sudo's own rules, as sudo itself says. Its lists are not
//! read here: they include each other, and may be in a directory service.

use std::path::Path;
use std::time::Duration;

use nix::unistd::geteuid;
use tokio::process::Command;
use tokio::time::timeout;

use super::{Finding, State};
use crate::commands::child;

/// Where sudo may be: by PATH it would be whoever set that.
const PLACES: &[&str] = &["/usr/bin/sudo", "/usr/local/bin/sudo", "/bin/sudo"];
/// It may ask a directory service.
const LIMIT: Duration = Duration::from_secs(10);
const CHECK: &str = "ways around";

/// Nothing to say where there is no sudo. One whom this host has no name for is nobody to sudo either.
pub(super) async fn look(title: &str, name: Option<&str>) -> Option<Finding> {
    let name = name?;
    let sudo = PLACES.iter().find(|path| Path::new(path).exists())?;
    if !geteuid().is_root() {
        let says = format!("whether {title} may run commands by sudo: root alone can ask");
        return Some(Finding::new(CHECK, State::Skipped, says).fix("run `aex doctor` as root"));
    }
    let mut asked = Command::new(sudo);
    asked.args(["-n", "-l", "-U", name]);
    // It has an empty environment, so it speaks English.
    let said = match timeout(LIMIT, child::given(asked, "sudo", b"")).await {
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Ok(Err(_)) | Err(_) => String::new(),
    };
    Some(judge(title, name, &said))
}

/// What is not known to be a no is a yes.
fn judge(title: &str, name: &str, said: &str) -> Finding {
    let by_hand = format!("sudo -l -U {name}");
    let said = said.trim();
    if said.is_empty() {
        let says = format!("whether {title} may run commands by sudo: sudo did not say");
        return Finding::new(CHECK, State::Skipped, says).fix(format!("ask it: {by_hand}"));
    }
    // The whole of it: a rule may have these words in it.
    let none = format!("User {name} is not allowed to run sudo on ");
    if said.starts_with(&none) && said.lines().count() == 1 {
        return Finding::ok(CHECK, format!("{title} may run nothing by sudo"));
    }
    let says = format!("{title} may run commands as root, or as others, by sudo");
    Finding::new(CHECK, State::Failed, says).fix(format!(
        "see {by_hand}, and take the rule out: agents must run as a user without one"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_no_is_a_no() {
        let state = |said| judge("ana (uid 1000)", "ana", said).state;
        let no = "User ana is not allowed to run sudo on host.\n";
        assert_eq!(state(no), State::Ok);
        for yes in [
            "User ana may run the following commands on host:\n    (ALL : ALL) ALL\n",
            "User ana may run the following commands on host:\n    (root) !ALL\n",
            // Of somebody else, or with words of a rule in it.
            "User ann is not allowed to run sudo on host.\n",
            "User ana may run the following commands on host:\n    (root) /x User ana is not allowed to run sudo on host.\n",
            "User ana is not allowed to run sudo on host.\n    (root) /bin/sh\n",
            "Something else.\n",
        ] {
            assert_eq!(state(yes), State::Failed, "{yes}");
        }
        assert_eq!(state("\n"), State::Skipped);
    }

    #[tokio::test]
    async fn a_uid_without_a_name_is_nobody_to_sudo() {
        assert_eq!(look("uid 3999999", None).await, None);
    }
}

//! What makes a user of this host more than one uid: groups that lead to root, or to the kernel's
//! operators, and subordinate uids, by which rules about sockets do not know it.

use std::fs;

use nix::unistd::{Group, User, getgrouplist};

use super::{Finding, State};

/// Groups whose members can become root, or read and write every file.
const TO_ROOT: &[&str] = &[
    "root",
    "sudo",
    "wheel",
    "admin",
    "docker",
    "lxd",
    "incus-admin",
    "libvirt",
    "disk",
    "shadow",
];
/// Groups of the kernel's own.
const OF_AEX: &[&str] = &["aex-admin", "aex-audit", "aex-egress", "aex-proxy"];

pub(super) fn look(title: &str, name: &str, uid: u32) -> Vec<Finding> {
    let mut findings = Vec::new();
    let groups = groups_of(name);
    for (list, what) in [
        (TO_ROOT, "can become root"),
        (OF_AEX, "is of the kernel itself"),
    ] {
        let held: Vec<&str> = (list.iter().copied())
            .filter(|group| groups.iter().any(|has| has == group))
            .collect();
        if !held.is_empty() {
            let says = format!("{title} is in {}: it {what}", held.join(", "));
            findings.push(
                Finding::new("ways around", State::Failed, says)
                    .fix("agents must run as a user without such a group"),
            );
        }
    }
    for file in ["/etc/subuid", "/etc/subgid"] {
        let text = fs::read_to_string(file).unwrap_or_default();
        if has_range(&text, name, uid) {
            let says = format!(
                "{title} has a range in {file}: sockets that it opens under those do not count as its own"
            );
            findings.push(Finding::new("ways around", State::Failed, says).fix(
                "take the line out, or bar the range too (elements of the set in /etc/aex/aex.nft)",
            ));
        }
    }
    if findings.is_empty() {
        let says =
            format!("{title} has no group that leads to root or to the kernel, and no other uid");
        findings.push(Finding::ok("ways around", says));
    }
    findings
}

fn groups_of(name: &str) -> Vec<String> {
    let Ok(Some(user)) = User::from_name(name) else {
        return Vec::new();
    };
    let ids = std::ffi::CString::new(name)
        .ok()
        .and_then(|name| getgrouplist(&name, user.gid).ok())
        .unwrap_or_default();
    ids.into_iter()
        .filter_map(|id| Some(Group::from_gid(id).ok()??.name))
        .collect()
}

/// Lines are `NAME:FIRST:COUNT`, the name being a number too (subuid(5)).
fn has_range(text: &str, name: &str, uid: u32) -> bool {
    let uid = uid.to_string();
    text.lines().any(|line| {
        let mut fields = line.split(':');
        let whose = fields.next().unwrap_or_default();
        let count = fields.nth(1).and_then(|count| count.trim().parse().ok());
        let is_its = whose == uid || (!name.is_empty() && whose == name);
        is_its && count.is_some_and(|count: u64| count > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_other_uids_are_known_by_name_or_number() {
        let text = "ana:100000:65536\n1500:165536:65536\nbob:300000:0\nbroken\n";
        for (name, uid, has) in [
            ("ana", 1, true),
            ("", 1500, true),
            ("eve", 1500, true),
            ("bob", 1, false),
            ("", 1, false),
            ("broken", 1, false),
        ] {
            assert_eq!(has_range(text, name, uid), has, "{name} {uid}");
        }
    }

    #[test]
    fn root_is_in_a_group_that_leads_to_root() {
        assert!(groups_of("root").iter().any(|group| group == "root"));
        assert_eq!(look("root", "root", 0)[0].state, State::Failed);
        assert!(groups_of("no-such-user-here").is_empty());
    }
}

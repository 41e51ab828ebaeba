//! What holds a program in, as it says itself: which of the kernel's means are in force in its process.
//!
//! Absent on purpose: entering. That is `aex-sandbox`, which fills this in with what the kernel really
//! took.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The protections of one process. Each is false or absent unless the kernel has it in force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InForce {
    /// No program that it could run would gain rights.
    pub no_new_privs: bool,
    /// Nobody of the same user reads its memory, environment or descriptors.
    pub not_dumpable: bool,
    /// It leaves no core file.
    pub no_core: bool,
    /// The version of Landlock's rules that limits its paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub landlock_abi: Option<u8>,
    /// Landlock denies it TCP beyond what it needs (from version 4 on).
    pub tcp: bool,
    /// Landlock keeps its signals and abstract sockets to itself (from version 6 on).
    pub scoped: bool,
    /// System calls beyond its list are denied.
    pub seccomp: bool,
    /// What of its memory is never swapped out.
    pub memory: Memory,
    /// `AEX_SANDBOX=off` was asked for: no Landlock and no seccomp.
    pub switched_off: bool,
}

/// What of a process's memory is locked into RAM.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Memory {
    #[default]
    Unlocked,
    /// The pages with keys.
    Keys,
    All,
}

impl InForce {
    /// All that the newest kernel known here has.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.no_new_privs
            && self.not_dumpable
            && self.no_core
            && self.landlock_abi.is_some()
            && self.tcp
            && self.scoped
            && self.seccomp
    }
}

impl fmt::Display for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.switched_off {
            f.write_str("off by AEX_SANDBOX, ")?;
        } else {
            match self.landlock_abi {
                Some(abi) => write!(f, "landlock abi {abi}")?,
                None => f.write_str("no landlock")?,
            }
            if self.landlock_abi.is_some() {
                f.write_str(if self.tcp {
                    " with tcp"
                } else {
                    " without tcp"
                })?;
                f.write_str(if self.scoped { " and scopes" } else { "" })?;
            }
            f.write_str(if self.seccomp {
                ", seccomp, "
            } else {
                ", no seccomp, "
            })?;
        }
        let or_not = |is: bool, yes: &'static str, no: &'static str| if is { yes } else { no };
        write!(
            f,
            "{}, {}, {}",
            or_not(self.no_new_privs, "no new privileges", "NEW PRIVILEGES"),
            or_not(self.not_dumpable, "not dumpable", "DUMPABLE"),
            or_not(self.no_core, "no core", "CORE FILES"),
        )?;
        match self.memory {
            Memory::Unlocked => Ok(()),
            Memory::Keys => f.write_str(", keys locked"),
            Memory::All => f.write_str(", memory locked"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: InForce = InForce {
        no_new_privs: true,
        not_dumpable: true,
        no_core: true,
        landlock_abi: Some(7),
        tcp: true,
        scoped: true,
        seccomp: true,
        memory: Memory::Keys,
        switched_off: false,
    };

    #[test]
    fn what_lacks_is_said() {
        assert!(WHOLE.is_whole());
        assert_eq!(
            WHOLE.to_string(),
            "landlock abi 7 with tcp and scopes, seccomp, no new privileges, not dumpable, no core, \
             keys locked"
        );
        let old = InForce {
            landlock_abi: Some(2),
            tcp: false,
            scoped: false,
            ..WHOLE
        };
        assert!(!old.is_whole());
        assert!(
            old.to_string()
                .starts_with("landlock abi 2 without tcp, seccomp")
        );
        let off = InForce {
            switched_off: true,
            ..InForce::default()
        };
        let said = off.to_string();
        assert!(said.starts_with("off by AEX_SANDBOX"), "{said}");
        assert!(said.contains("DUMPABLE"), "{said}");
    }

    #[test]
    fn a_program_that_says_nothing_has_nothing() {
        let said: InForce = serde_json::from_str("{}").unwrap();
        assert_eq!(said, InForce::default());
        assert!(!said.is_whole());
    }
}

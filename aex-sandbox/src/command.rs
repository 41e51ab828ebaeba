//! What holds a command of an agent in: no rights by programs that it runs, its signals and abstract
//! sockets kept to itself, and no typing into the terminal that it shares. It may run programs, read and
//! connect as its user may: what it must not find is hidden from it by others.

use std::collections::BTreeMap;

use landlock::{ABI, Access, CompatLevel, Compatible, LandlockStatus, Ruleset, RulesetAttr, Scope};
use nix::libc;
use nix::sys::prctl;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::SandboxError;

/// Holds for this process and all that it starts. Answers whether the kernel keeps signals and abstract
/// sockets in.
///
/// # Errors
/// The kernel refuses what it has.
pub fn hold_command() -> Result<bool, SandboxError> {
    prctl::set_no_new_privs().map_err(SandboxError::NoNewPrivs)?;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .scope(Scope::from_all(ABI::V6))?
        .create()?
        .restrict_self()?;
    let scoped = matches!(
        status.landlock,
        LandlockStatus::Available { effective_abi, .. } if effective_abi >= ABI::V6
    );
    if let Ok(arch) = TargetArch::try_from(std::env::consts::ARCH) {
        seccompiler::apply_filter(&no_typing(arch)?)?;
    }
    Ok(scoped)
}

/// What is pushed into a terminal's input is read, and run, by the shell that outlives the command.
fn no_typing(arch: TargetArch) -> Result<BpfProgram, seccompiler::Error> {
    let typing = [libc::TIOCSTI, libc::TIOCLINUX].map(|request| {
        // Half of the argument: the kernel reads no more of it.
        let is = SeccompCondition::new(
            1,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::Eq,
            request & 0xffff_ffff,
        )?;
        SeccompRule::new(vec![is])
    });
    let rules: Result<Vec<SeccompRule>, _> = typing.into_iter().collect();
    let filter = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_ioctl, rules?)]),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        arch,
    )?;
    Ok(filter.try_into()?)
}

//! The filter of system calls. What is not listed fails with EPERM, as if the user had no right to it;
//! `clone3`, whose arguments no filter can see, with ENOSYS, which sends every caller to `clone`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use nix::libc;
use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use crate::calls::{self, Call, Check};
use crate::{Network, SandboxError};

/// False when this machine's architecture has no list.
pub(crate) fn enter(
    network: Network,
    listeners: Option<&RangeInclusive<u32>>,
) -> Result<bool, SandboxError> {
    let Ok(arch) = TargetArch::try_from(std::env::consts::ARCH) else {
        return Ok(false);
    };
    for filter in filters(network, listeners, arch)? {
        match seccompiler::apply_filter(&filter) {
            Ok(()) => {}
            // Built without: said, not fatal.
            Err(Error::Seccomp(error)) if is_absent(&error) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL))
}

/// The one call that fails otherwise, and the allow-list.
fn filters(
    network: Network,
    listeners: Option<&RangeInclusive<u32>>,
    arch: TargetArch,
) -> Result<[BpfProgram; 2], Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in calls::allowed(network, listeners) {
        let (number, rule) = match call {
            Call::Free(number) => (number, None),
            Call::If(number, checks) => (number, Some(rule(&checks)?)),
        };
        rules.entry(number).or_default().extend(rule);
    }
    // Answered by the other filter, whose ENOSYS an EPERM would outdo.
    rules.insert(libc::SYS_clone3, Vec::new());
    let allow = SeccompFilter::new(
        rules,
        SeccompAction::Errno(errno(libc::EPERM)),
        SeccompAction::Allow,
        arch,
    )?;
    let absent = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_clone3, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(errno(libc::ENOSYS)),
        arch,
    )?;
    // The allow-list last: under it no further filter can be made.
    Ok([absent.try_into()?, allow.try_into()?])
}

fn errno(number: i32) -> u32 {
    number.unsigned_abs()
}

fn rule(checks: &[Check]) -> Result<SeccompRule, Error> {
    let conditions: Result<Vec<SeccompCondition>, _> = checks
        .iter()
        .map(|check| {
            let (argument, how, value) = match *check {
                Check::Is(argument, value) => (argument, SeccompCmpOp::Eq, value),
                Check::Below(argument, value) => (argument, SeccompCmpOp::Lt, value),
                Check::Above(argument, value) => (argument, SeccompCmpOp::Gt, value),
                Check::Bits {
                    argument,
                    mask,
                    value,
                } => (argument, SeccompCmpOp::MaskedEq(mask), value),
            };
            SeccompCondition::new(argument, SeccompCmpArgLen::Dword, how, value)
        })
        .collect();
    Ok(SeccompRule::new(conditions?)?)
}

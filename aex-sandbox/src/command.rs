//! What holds a command of an agent in: no rights by programs that it runs, its signals and abstract
//! sockets kept to itself, no typing into the terminal that it shares, and none of the kernel's keys. It may run programs, read and
//! connect as its user may: what it must not find is hidden from it by others.

use std::collections::BTreeMap;

use landlock::{ABI, Access, CompatLevel, Compatible, LandlockStatus, Ruleset, RulesetAttr, Scope};
use nix::libc;
use nix::sys::prctl;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
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
        seccompiler::apply_filter(&denials(arch)?)?;
    }
    Ok(scoped)
}

/// What is pushed into a terminal's input is read, and run, by the shell that outlives the command. For a key
/// that is not there the kernel runs a program as root (request-key(8)), and keyrings are shared with programs
/// outside.
fn denials(arch: TargetArch) -> Result<BpfProgram, seccompiler::Error> {
    let typing = [libc::TIOCSTI, libc::TIOCLINUX].map(|request| {
        let request = u64::from(low(request));
        let is = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, request)?;
        SeccompRule::new(vec![is])
    });
    let rules: Result<Vec<SeccompRule>, _> = typing.into_iter().collect();
    let filter = SeccompFilter::new(
        BTreeMap::from([
            (libc::SYS_ioctl, rules?),
            (libc::SYS_add_key, Vec::new()),
            (libc::SYS_request_key, Vec::new()),
            (libc::SYS_keyctl, Vec::new()),
        ]),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        arch,
    )?;
    let mut program = other_calls(arch);
    program.extend(BpfProgram::try_from(filter)?);
    Ok(program)
}

/// What goes before a filter of the library, which kills whoever makes calls in another way than the
/// processor's own. Programs of 32 bits go on, with the same calls denied; those of x32 get EPERM.
fn other_calls(arch: TargetArch) -> BpfProgram {
    // Offsets in struct seccomp_data; the last is the lower half of the second argument.
    const NR: u32 = 0;
    const ARCH: u32 = 4;
    const REQUEST: u32 = 24;
    /// Of i386 and of arm alike.
    const IOCTL_32: u32 = 54;
    const X32: u32 = 0x4000_0000;
    // AUDIT_ARCH_I386 and AUDIT_ARCH_ARM, with their add_key, the first of three in a row; nothing has none.
    let (small, add_key) = match arch {
        TargetArch::x86_64 => (0x4000_0003, 286),
        TargetArch::aarch64 => (0x4000_0028, 309),
        TargetArch::riscv64 => (0, 0),
    };
    let load = |k| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, k, 0, 0);
    let equal = |k, jt, jf| instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k, jt, jf);
    let at_least = |k, jt, jf| instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, k, jt, jf);
    let answer = |k| instruction(libc::BPF_RET | libc::BPF_K, k, 0, 0);
    let allow = || answer(libc::SECCOMP_RET_ALLOW);
    let deny = || answer(libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs());
    vec![
        load(ARCH),
        equal(small, 0, 10),
        load(NR),
        at_least(add_key, 0, 1),
        at_least(add_key + 3, 0, 6),
        equal(IOCTL_32, 1, 0),
        allow(),
        load(REQUEST),
        equal(low(libc::TIOCSTI), 2, 0),
        equal(low(libc::TIOCLINUX), 1, 0),
        allow(),
        deny(),
        load(NR),
        at_least(X32, 0, 1),
        deny(),
    ]
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter {
        // Every code has one byte.
        code: u16::try_from(code).unwrap_or(u16::MAX),
        jt,
        jf,
        k,
    }
}

/// Half of the argument: the kernel reads no more of it.
fn low(request: libc::Ioctl) -> u32 {
    u32::try_from(request & 0xffff_ffff).unwrap_or(u32::MAX)
}

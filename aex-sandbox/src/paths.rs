//! Landlock: which paths may be read and written, no program run, which TCP is denied.

use std::io;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus,
    PathBeneath, PathFd, PathFdError, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetStatus, Scope,
};

use crate::{Network, Sandbox, SandboxError};

/// The newest version whose rules were tried. Later ones would deny what nobody has seen.
const TRIED: ABI = ABI::V7;

/// What of Landlock is in force.
pub(crate) struct Held {
    pub(crate) abi: u8,
    pub(crate) tcp: bool,
    pub(crate) scoped: bool,
}

/// Nothing when the kernel has no Landlock.
pub(crate) fn enter(sandbox: &Sandbox) -> Result<Option<Held>, SandboxError> {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(TRIED))?
        .handle_access(denied_tcp(sandbox.network))?
        .scope(Scope::from_all(TRIED))?
        .create()?;
    let ruleset = allow(ruleset, sandbox)?;
    let status = ruleset.restrict_self()?;
    let LandlockStatus::Available { effective_abi, .. } = status.landlock else {
        return Ok(None);
    };
    if status.ruleset == RulesetStatus::NotEnforced {
        return Ok(None);
    }
    Ok(Some(Held {
        abi: u8::try_from(effective_abi as i32).unwrap_or(u8::MAX),
        tcp: effective_abi >= ABI::V4,
        scoped: effective_abi >= ABI::V6,
    }))
}

/// A provider's port may change while the program runs, so connecting is free for who connects at all.
fn denied_tcp(network: Network) -> BitFlags<AccessNet> {
    match network {
        Network::Client => AccessNet::BindTcp.into(),
        Network::Unix | Network::None => AccessNet::BindTcp | AccessNet::ConnectTcp,
    }
}

fn allow(mut ruleset: RulesetCreated, sandbox: &Sandbox) -> Result<RulesetCreated, SandboxError> {
    let reads = AccessFs::ReadFile | AccessFs::ReadDir;
    let writes = reads
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeDir
        | AccessFs::MakeReg
        | AccessFs::MakeSock
        | AccessFs::RemoveDir
        | AccessFs::RemoveFile
        | AccessFs::Refer;
    let all = (sandbox.reads.iter().map(|path| (path, reads)))
        .chain(sandbox.writes.iter().map(|path| (path, writes)));
    for (path, access) in all {
        let opened = match PathFd::new(path) {
            Ok(opened) => opened,
            Err(PathFdError::OpenCall { source, .. })
                if matches!(
                    source.kind(),
                    io::ErrorKind::NotFound
                        | io::ErrorKind::NotADirectory
                        | io::ErrorKind::PermissionDenied
                ) =>
            {
                // What is not there, or not for this user, is not reached either way.
                tracing::debug!(path = %path.display(), "the sandbox has no such path");
                continue;
            }
            Err(error) => {
                return Err(SandboxError::Path {
                    path: path.clone(),
                    why: error.to_string(),
                });
            }
        };
        let access = if path.is_dir() {
            access
        } else {
            access & AccessFs::from_file(TRIED)
        };
        ruleset = ruleset.add_rule(PathBeneath::new(opened, access))?;
    }
    Ok(ruleset)
}

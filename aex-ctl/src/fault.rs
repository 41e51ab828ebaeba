//! What can go wrong with a command, and the exit code of each kind. The texts say what to do next.

use std::path::{Path, PathBuf};

use aex_admin_proto::client::CallError;
use aex_admin_proto::rpc::{RpcError, code};

/// Exit code of `aex run` when the kernel or the agent is the trouble.
pub(crate) const RUN_FAILED: u8 = 125;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The thing checked does not hold, or a start failed.
    #[error("{0}")]
    Failed(String),
    #[error("{0}")]
    Usage(String),
    #[error(
        "cannot reach the kernel at {}: {why}\nStart it with `{start}`, or name its socket with --socket.",
        socket.display()
    )]
    Unreachable {
        socket: PathBuf,
        /// The command that starts it.
        start: &'static str,
        why: String,
    },
    #[error("{0}")]
    NoAnswer(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Refused(String),
    /// CMD of `aex run` did not start.
    #[error("{message}")]
    Command { exit: u8, message: String },
    /// Whoever read the output has gone: an end, not an error.
    #[error("the output was closed")]
    ClosedOutput,
}

impl Fault {
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    /// An operation on a file that failed.
    pub(crate) fn file(doing: &str, path: &Path, error: &std::io::Error) -> Self {
        let path = path.display();
        if error.kind() == std::io::ErrorKind::PermissionDenied {
            return Self::Refused(format!(
                "not permitted to {doing} {path}: run it as the user whose it is, or set AEX_HOME \
                 to a directory of your own"
            ));
        }
        Self::Failed(format!("cannot {doing} {path}: {error}"))
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::ClosedOutput => 0,
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable { .. } | Self::NoAnswer(_) => 3,
            Self::NotFound(_) => 4,
            Self::Refused(_) => 5,
            Self::Command { exit, .. } => *exit,
        }
    }

    pub(crate) fn of_call(error: CallError, socket: &Path) -> Self {
        match error {
            CallError::NotConnected(_) => Self::Unreachable {
                socket: socket.to_owned(),
                start: "aex daemon start",
                why: "nobody answers there".into(),
            },
            CallError::Lost | CallError::Timeout | CallError::Busy => Self::NoAnswer(format!(
                "the kernel gave {error}; it may have been carried out. Look with `aex status` \
                 and `aex ledger tail` before you try again."
            )),
            CallError::Rpc(error) => Self::of_rpc(&error),
            CallError::Frame(error) => Self::Usage(format!("the call is too large: {error}")),
            CallError::Answer(error) => Self::Failed(format!(
                "the kernel's answer is of another form ({error}): are `aex` and `aex-admin` of \
                 the same version?"
            )),
        }
    }

    pub(crate) fn of_rpc(error: &RpcError) -> Self {
        let message = error.message.clone();
        match error.code {
            code::NOT_FOUND | code::METHOD_NOT_FOUND => Self::NotFound(message),
            code::CONFLICT | code::NOT_PERMITTED => Self::Refused(message),
            code::INVALID_PARAMS => Self::Usage(message),
            code::UNAVAILABLE => Self::NoAnswer(format!("{message} (try again)")),
            _ => Self::Failed(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_code_has_its_exit_code() {
        for (code, exit) in [
            (code::NOT_FOUND, 4),
            (code::METHOD_NOT_FOUND, 4),
            (code::CONFLICT, 5),
            (code::NOT_PERMITTED, 5),
            (code::INVALID_PARAMS, 2),
            (code::UNAVAILABLE, 3),
            (code::BAD_CONFIG, 1),
            (code::INTERNAL, 1),
        ] {
            assert_eq!(Fault::of_rpc(&RpcError::new(code, "x")).exit_code(), exit);
        }
        let gone = Fault::of_call(CallError::NotConnected("s".into()), Path::new("s"));
        assert_eq!(gone.exit_code(), 3);
        assert!(gone.to_string().contains("aex daemon start"));
    }
}

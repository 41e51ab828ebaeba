//! Where AEX keeps things: one home in user mode, the system's directories in system mode.

use std::path::{Path, PathBuf};

/// Every path that a program of AEX touches. In user mode all lie below one 0700 directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The home of user mode; in system mode the state directory.
    pub home: PathBuf,
    pub config_file: PathBuf,
    pub ledger: PathBuf,
    /// One 0600 file a provider, named after it.
    pub keys: PathBuf,
    /// Sockets; in user mode pids, journal and spool too.
    pub run: PathBuf,
    /// The egress's own: its journal.
    egress_run: PathBuf,
    /// The workers' own: answers that they keep.
    proxy_run: PathBuf,
    pub logs: PathBuf,
}

impl Places {
    #[must_use]
    pub fn user(home: &Path) -> Self {
        Self {
            home: home.to_owned(),
            config_file: home.join("config/models.yaml"),
            ledger: home.join("aex.db"),
            keys: home.join("keys"),
            run: home.join("run"),
            egress_run: home.join("run"),
            proxy_run: home.join("run"),
            logs: home.join("logs"),
        }
    }

    #[must_use]
    pub fn system() -> Self {
        Self {
            home: "/var/lib/aex".into(),
            config_file: "/etc/aex/models.yaml".into(),
            ledger: "/var/lib/aex/aex.db".into(),
            keys: "/etc/aex/keys".into(),
            run: "/run/aex".into(),
            egress_run: "/run/aex-egress".into(),
            proxy_run: "/run/aex/kept".into(),
            logs: "/var/log/aex".into(),
        }
    }

    /// The system's, or those of the environment.
    #[must_use]
    pub fn choose(system: bool) -> Option<Self> {
        if system {
            Some(Self::system())
        } else {
            Self::from_environment()
        }
    }

    /// `$AEX_HOME`, else `~/.aex`; nothing when neither variable is set.
    #[must_use]
    pub fn from_environment() -> Option<Self> {
        let set = |name| {
            std::env::var_os(name)
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
        };
        let home = set("AEX_HOME").or_else(|| set("HOME").map(|home| home.join(".aex")))?;
        Some(Self::user(&home))
    }

    /// Operators' socket of `aex-admin`.
    #[must_use]
    pub fn operator_socket(&self) -> PathBuf {
        self.run.join("admin.sock")
    }

    /// Auditors' socket of `aex-admin`: reads only.
    #[must_use]
    pub fn auditor_socket(&self) -> PathBuf {
        self.run.join("audit.sock")
    }

    /// Workers' socket of `aex-admin`.
    #[must_use]
    pub fn worker_socket(&self) -> PathBuf {
        self.run.join("worker.sock")
    }

    /// The egress's socket of `aex-admin`.
    #[must_use]
    pub fn egress_role_socket(&self) -> PathBuf {
        self.run.join("egress-admin.sock")
    }

    /// HTTP of `aex-egress`, for workers.
    #[must_use]
    pub fn egress_socket(&self) -> PathBuf {
        self.run.join("egress.sock")
    }

    /// Dispatch journal of `aex-egress`.
    #[must_use]
    pub fn egress_journal(&self) -> PathBuf {
        self.egress_run.join("egress.journal")
    }

    /// Answers that workers keep for requests with an `Idempotency-Key`, encrypted, one file each.
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        self.proxy_run.join("spool")
    }

    /// Where the supervisor of user mode asks its workers whether they are ready, if agents speak TLS.
    #[must_use]
    pub fn probe_socket(&self) -> PathBuf {
        self.run.join("probe.sock")
    }

    /// Lock and pid of the supervisor in user mode.
    #[must_use]
    pub fn daemon_pid(&self) -> PathBuf {
        self.run.join("daemon.pid")
    }

    /// What the supervisor says of itself: JSON, see `operator::DaemonState`.
    #[must_use]
    pub fn daemon_state(&self) -> PathBuf {
        self.run.join("daemon.json")
    }
}

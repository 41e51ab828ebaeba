//! A directory of programs that run with the library of `tests/interpose` before libc, and the files
//! by which that library is told what to do.
//!
//! `aex` starts the programs that lie beside it, in clean environments: so beside a link to it lie
//! shell scripts under the programs' names. They set what the library needs and become the real
//! program; pid and name are the program's own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{program, wait_for};

const LIBRARY: &str = "libaex_interpose.so";
const PROGRAMS: [&str; 3] = ["aex-admin", "aex-proxy", "aex-egress"];

/// The directory of one kernel's programs.
pub(super) struct Interposed {
    directory: PathBuf,
}

impl Interposed {
    /// # Panics
    /// The directory cannot be written, or the programs or the library were not built.
    pub(super) fn install(directory: &Path) -> Self {
        fs::create_dir(directory).expect("a directory for the programs");
        let aex = program("aex");
        let link = directory.join("aex");
        // Not a symbolic link: `aex` looks beside the file that it really is.
        fs::hard_link(&aex, &link)
            .or_else(|_| fs::copy(&aex, &link).map(drop))
            .expect("aex can be linked or copied");
        let interposed = Self {
            directory: directory.to_owned(),
        };
        for name in PROGRAMS {
            interposed.wrap(name);
        }
        interposed
    }

    fn wrap(&self, name: &str) {
        let steering = self.steering(name);
        fs::create_dir(&steering.directory).expect("a directory for the steering files");
        let script = format!(
            // Held up and recorded in directories that no sandbox allows.
            "#!/bin/sh\nexport AEX_SANDBOX=off LD_PRELOAD='{}' AEX_INTERPOSE='{}'\nexec '{}' \"$@\"\n",
            program(LIBRARY).display(),
            steering.directory.display(),
            program(name).display(),
        );
        let path = self.program(name);
        fs::write(&path, script).expect("the script can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("made executable");
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(super) fn steering(&self, name: &str) -> Steering {
        Steering {
            directory: self.directory.join(format!("{name}.steer")),
        }
    }

    /// Nothing is held up or failed any more: what waits can be ended.
    pub(super) fn lift_all(&self) {
        for name in PROGRAMS {
            self.steering(name).lift();
        }
    }
}

/// What the library does in one program. It holds for the running process and those that follow it.
#[derive(Debug, Clone)]
pub struct Steering {
    directory: PathBuf,
}

impl Steering {
    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Written aside first: the library reads at any moment.
    fn put(&self, name: &str, text: &str) {
        let aside = self.file("aside");
        fs::write(&aside, text).expect("a steering file can be written");
        fs::rename(&aside, self.file(name)).expect("a steering file can be put in place");
    }

    fn remove(&self, name: &str) {
        // It may not be there.
        let _ = fs::remove_file(self.file(name));
    }

    /// Holds the first call that fits `rule`; `tests/interpose/src/rule.rs` says how one is written.
    pub fn gate(&self, rule: &str) {
        self.remove("reached");
        self.put("gate", rule);
    }

    /// Waits until a call is held.
    pub fn reached(&self) {
        wait_for("a program at its gate", || {
            self.file("reached").exists().then_some(())
        });
    }

    /// Fails calls that fit `rule`.
    pub fn fault(&self, rule: &str) {
        self.remove("fault.done");
        self.put("fault", rule);
    }

    /// A fault that was to come once has come.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.file("fault.done").exists()
    }

    /// Whoever is held goes on, and no call fails any more.
    pub fn lift(&self) {
        self.remove("gate");
        self.remove("fault");
    }

    /// Records what is written below `directory`, by processes that start from now on.
    pub fn record(&self, directory: &Path) {
        self.put("record", &directory.to_string_lossy());
    }

    /// The record so far.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn recorded(&self) -> Vec<u8> {
        fs::read(self.file("record.log")).expect("a record")
    }
}

//! Runs the real programs, each kernel in a home of its own, and sees that nothing of them is left.
//!
//! The harness asks the kernel only what an operator could: the `aex` command, the sqlite3 shell, the
//! files of the home, and /proc.

mod client;
mod interpose;
mod kernel;
pub mod process;

pub use interpose::Steering;
pub use kernel::{Kernel, KernelBuilder};

use std::path::PathBuf;
use std::time::Duration;

use aex_admin_proto::clock;

/// Between two looks at a condition that is waited for.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// How long [`wait_for`] waits.
const PATIENCE_MS: u64 = 30_000;

/// Looks until `condition` gives something, for at most `limit`.
pub fn wait_until<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    let end_ms = clock::boot_ms().saturating_add(limit_ms);
    loop {
        if let Some(found) = condition() {
            return Some(found);
        }
        if clock::boot_ms() >= end_ms {
            return None;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// As [`wait_until`], with a patience that is enough for anything that should happen at all.
///
/// # Panics
/// It did not happen.
pub fn wait_for<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    wait_until(Duration::from_millis(PATIENCE_MS), condition)
        .unwrap_or_else(|| panic!("waited {PATIENCE_MS} ms for {what}"))
}

/// A program of the workspace: in `$AEX_BIN`, else beside the running test or benchmark.
///
/// # Panics
/// It was not built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("the own executable is known");
    let given = std::env::var_os("AEX_BIN").map(PathBuf::from);
    let beside = own.ancestors().skip(1).take(2).map(PathBuf::from);
    let found = given
        .into_iter()
        .chain(beside)
        .map(|directory| directory.join(name))
        .find_map(|path| path.canonicalize().ok());
    found.unwrap_or_else(|| panic!("{name} is not built: run `cargo build --workspace` first"))
}

/// Whether the tests run as root. Where they must (`CI=true`) and do not, this panics.
///
/// # Panics
/// `CI=true` without root.
#[must_use]
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub fn root_or_skip(test: &str) -> bool {
    if nix::unistd::Uid::effective().is_root() {
        return true;
    }
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "{test} needs root, and CI=true says that it must run"
    );
    eprintln!("SKIPPED: {test} needs root");
    false
}

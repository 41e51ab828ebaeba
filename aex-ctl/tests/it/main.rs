//! The command line as a user has it: the real binary, against a fake `aex-admin` socket or among
//! fake programs.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on ends its test"
)]

mod commands;
mod explain;
mod fake_admin;
mod fake_programs;
mod run;
mod supervisor;

use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Looks until it holds; far longer than it ever takes.
const LIMIT: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

#[expect(
    clippy::disallowed_methods,
    reason = "a test's patience is no time of the product"
)]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LIMIT, "never happened: {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// A command without anything of the caller's environment that AEX would read.
fn bare(program: &std::path::Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/bin:/bin");
    command
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn expect_exit(output: &Output, code: i32) {
    assert_eq!(
        output.status.code(),
        Some(code),
        "stdout: {}\nstderr: {}",
        stdout(output),
        stderr(output)
    );
}

//! `aex`, also installed as `aex-ctl`: the operator's command line, and in user mode the supervisor
//! of the other three programs.
//!
//! Owns: the arguments ([`args`]), the way to `aex-admin` ([`link`]), what is printed ([`render`],
//! [`output`]), one module a command ([`commands`]), and `aex daemon` ([`supervisor`]).
//!
//! Absent on purpose: the ledger and any rule about money or policy. Everything is asked of
//! `aex-admin` over its operators' socket, and this program holds no state of its own.

mod args;
mod commands;
mod confine;
mod credentials;
mod doctor;
mod fault;
mod home;
mod link;
mod listen;
mod output;
mod ports;
mod render;
mod supervisor;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::fault::Fault;
use crate::output::Out;

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    // It prints tokens, hands keys over and reads requests (`aex policy explain`).
    aex_sandbox::tell_place_alone();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let own_failure = cli.command.own_failure();
    if cli.command.supervises() {
        // First of all: later there are descriptors of its own.
        supervisor::close_inherited();
    }
    if let Command::Confined(args) = &cli.command {
        // Before a runtime: only a process with one thread enters a user namespace.
        return match confine::run(args) {
            Ok(code) => ExitCode::from(code),
            Err(fault) => fail(&fault, own_failure),
        };
    }
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Fault::failed(format!("no runtime: {error}")), own_failure),
    };
    let done = runtime.block_on(commands::run(cli));
    // A task that still reads must not delay the exit.
    runtime.shutdown_background();
    match done {
        Ok(code) => ExitCode::from(code),
        Err(fault) => fail(&fault, own_failure),
    }
}

/// `own_failure`: the exit code that replaces every other, for `aex run`.
fn fail(fault: &Fault, own_failure: Option<u8>) -> ExitCode {
    if matches!(fault, Fault::ClosedOutput) {
        return ExitCode::SUCCESS;
    }
    Out::complain(&format!("aex: {fault}"));
    ExitCode::from(match (fault, own_failure) {
        (Fault::Command { exit, .. }, _) => *exit,
        (_, Some(code)) => code,
        (fault, None) => fault.exit_code(),
    })
}

/// Help and version are no mistakes; a mistake in `aex run` is one of its own failures.
fn usage(error: &clap::Error) -> ExitCode {
    // A closed standard output or error is no reason for another complaint.
    let _ = error.print();
    if !error.use_stderr() {
        return ExitCode::SUCCESS;
    }
    ExitCode::from(args::usage_exit_code(std::env::args_os().skip(1)))
}

//! The ledger alone: `aex-admin` without agents, HTTP or a provider, under holds and settles from its
//! own sockets ([`pairs`]), beside what the disk itself can do ([`disk`]), and with a long history
//! ([`size`]).
//!
//! The benchmark is worker and egress at once and speaks their protocol; it decides nothing and reads
//! no row of the ledger.

pub mod admin;
pub mod disk;
pub mod pairs;
pub mod report;
pub mod size;

use std::io;

use aex_admin_proto::client::CallError;

/// The one thread of the benchmark itself, so that most of the machine is left to what is measured.
///
/// # Errors
/// The system gives no event queue.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // As workers do: whoever is about to answer runs first.
        .on_thread_park(std::thread::yield_now)
        .build()
}

fn lost(error: CallError) -> io::Error {
    io::Error::other(error)
}

fn micros(taken_us: u64) -> u32 {
    u32::try_from(taken_us).unwrap_or(u32::MAX)
}

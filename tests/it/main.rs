//! Tests of the whole: the real programs, started as a user starts them, against the simulator.
//!
//! One file a theme, one binary for all of them, since linking is what costs.

#![expect(
    clippy::unwrap_used,
    reason = "all of this is test code, its helpers outside #[test] functions too"
)]

mod architecture;
mod auditors;
mod badinput;
mod boundary;
mod byok;
mod cli;
mod common;
mod confine;
mod crash;
mod disk;
mod doctor;
mod fallback;
mod front;
mod greed;
mod hidden;
mod http_surface;
mod idempotency;
mod in_force;
mod leaks;
mod ledger;
mod load;
mod matrix;
mod memory;
mod money;
mod outside;
mod policy;
mod power;
mod prices;
mod rehearse;
mod restart;
mod routes;
mod sandbox;
mod scenarios;
mod secrets;
mod storage;
mod threats;
mod tools;
mod tree;
mod windows;

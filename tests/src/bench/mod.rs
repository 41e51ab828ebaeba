//! The benchmark: a closed-loop load generator ([`load`]), the servers it is turned on ([`target`]),
//! and what it prints ([`report`]).
//!
//! Beside it the ledger alone ([`ledger`]).
//!
//! All targets are measured in one run, in turns, since a machine's mood changes by the minute.

pub mod ledger;
pub mod load;
pub mod report;
pub mod target;

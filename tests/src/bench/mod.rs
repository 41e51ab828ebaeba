//! The benchmark: a closed-loop load generator ([`load`]), the servers it is turned on ([`target`]),
//! and what it prints ([`report`]).
//!
//! All targets are measured in one run, in turns, since a machine's mood changes by the minute.

pub mod load;
pub mod report;
pub mod target;

//! `aex-admin`: the privileged owner of the ledger, the policy, the prices and the ticket key.
//!
//! Owns: [`core`] (pure decisions), the configuration ([`config`]), operators' policies
//! ([`policy`]) and their rehearsal ([`rehearse`]), the SQLite ledger ([`ledger`]),
//! the one thread that writes it ([`writer`]), and the JSON-RPC sockets ([`rpc`]). Absent on purpose:
//! provider keys, prompt or completion text, and the network.

pub mod audit;
pub mod config;
pub mod core;
pub mod doors;
pub mod ledger;
pub mod policy;
pub mod policy_check;
pub mod prices;
pub mod rehearse;
pub mod restore;
pub mod rpc;
pub mod serve;
mod token;
pub mod views;
pub mod writer;

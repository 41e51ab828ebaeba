//! `aex-admin`: the privileged owner of the ledger, the policy, the prices and the ticket key.
//!
//! Owns: [`core`] (pure decisions), the configuration ([`config`]), the SQLite ledger, the writer
//! thread and the JSON-RPC sockets. Absent on purpose: provider keys, prompt or completion text, and
//! the network.

pub mod config;
pub mod core;

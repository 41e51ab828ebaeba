//! `aex-proxy`, the unprivileged worker: parses what agents send, holds no key and no ledger.
//!
//! The path of a request: [`server`] accepts connections on its listeners ([`listener`]), by their terms
//! ([`front`], [`tls`]), and `connection` bounds each one; [`serve`] reads one request
//! ([`route`], [`headers`], [`mod@request`]) and hands it to [`carry`], which reserves at
//! `aex-admin` ([`admin`]), forwards to `aex-egress` ([`egress`]), and settles. What happens in
//! between is decided by the pure [`exchange`], with [`sse`] and [`usage`]; every error becomes HTTP
//! in [`answer`]. What was answered under an `Idempotency-Key` ([`idempotency`]) is kept ([`keeping`],
//! [`spool`]) and given again. What AEX itself answers to a token's holder is in [`own`]. How
//! a body is read is also told to an operator, in [`facts`].
//!
//! Absent on purpose: policy, prices, budgets (it asks), any way to a provider but the egress, and
//! every network connection of its own making.

pub mod admin;
pub mod answer;
pub mod body;
pub mod carry;
mod connection;
mod crowd;
pub mod egress;
pub mod exchange;
pub mod facts;
pub mod fallback;
pub mod front;
pub mod headers;
pub mod idempotency;
pub mod ids;
pub mod keeping;
mod leaving;
pub mod listener;
pub mod measure;
pub mod own;
pub mod request;
pub mod room;
pub mod route;
pub mod serve;
pub mod server;
pub mod spool;
pub mod sse;
pub mod tls;
pub mod tokenizer;
pub mod tools;
pub mod usage;

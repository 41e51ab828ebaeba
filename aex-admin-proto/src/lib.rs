//! What the four AEX programs say to each other, and nothing else.
//!
//! Owns: the JSON-RPC 2.0 envelope ([`rpc`]), its size-capped framing ([`frame`]), the methods and
//! their parameters ([`worker`], [`egress`], [`operator`]), what a scope may ask for
//! ([`capabilities`], [`tools`], [`pattern`]: asked on both sides, so said once), scopes and their limits
//! ([`scope`], [`limit`]), refusals as data ([`refusal`]), the form of tokens ([`token`]), who holds one ([`peer`]), durations as people type them
//! ([`duration`]), tickets
//! ([`ticket`]), the async client ([`client`]), the Unix sockets that carry it
//! all ([`quiet`]), where files lie ([`places`]), what holds a program in ([`sandbox`]), and the one reader of
//! the clock ([`clock`]).
//!
//! Absent on purpose: any decision. No policy, price or ledger rule is made here.

pub mod capabilities;
pub mod checkpoints;
pub mod client;
pub mod clock;
pub mod duration;
pub mod egress;
pub mod explain;
pub mod frame;
pub mod id;
pub mod limit;
pub mod listen;
pub mod money;
pub mod operator;
pub mod pattern;
pub mod peer;
pub mod places;
pub mod policies;
pub mod prices;
pub mod quiet;
pub mod refusal;
pub mod rehearsal;
pub mod rpc;
pub mod sandbox;
pub mod scope;
pub mod service;
pub mod ticket;
pub mod token;
pub mod tools;
pub mod worker;

pub use id::{CertDigest, HoldId, KeyDigest, KeyMark, RequestDigest, TokenDigest};
pub use refusal::{IdempotencyConflict, Refusal};

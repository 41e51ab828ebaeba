//! Decisions, as pure code: facts and a command and a time go in, a reply and changes come out.
//!
//! Absent on purpose: SQLite, sockets, files, clocks, randomness, tokio. Times and ids are passed in.

pub mod book;
pub mod bound;
pub mod breaker;
pub mod capabilities;
pub mod charge;
pub mod hold;
pub mod idempotency;
pub mod live;
pub mod money;
pub mod period;
pub mod price;
pub mod recall;
pub mod refusals;
pub mod reservation;
pub mod reserve;
pub mod routing;
pub mod scope;
pub mod share;
pub mod window;

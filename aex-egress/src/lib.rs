//! `aex-egress`: the custodian of provider keys, and the only way out to a provider.
//!
//! Owns: operators' keys ([`keys`]), the rules for headers ([`attach`]), that no answer repeats an
//! operator's key ([`mask`]), which tickets were used ([`book`], kept across restarts by [`journal`]), connections to providers ([`pool`], [`wire`]),
//! where workers call ([`doors`]), and the exchange itself ([`forward`], [`serve`]). It takes its configuration from `aex-admin`
//! ([`orders`]) and tells it how each exchange ended ([`receipts`]).
//!
//! Absent on purpose: any reading of what an agent wrote. Bodies pass as opaque bytes, in which
//! only an operator's key is looked for; nothing here parses JSON of a request or an answer. There is no ledger, no policy and no price either.

pub mod attach;
pub mod body;
pub mod book;
pub mod doors;
pub mod error;
pub mod flight;
pub mod forward;
pub mod journal;
pub mod keys;
pub mod mask;
pub mod orders;
pub mod pool;
pub mod provider;
pub mod receipts;
pub mod record;
pub mod register;
pub mod serve;
pub mod tls;
pub mod vault;
pub mod wire;

pub use error::EgressError;

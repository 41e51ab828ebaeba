//! Policies of operators, in Cedar: what settings allow, and a policy forbids all the same.
//!
//! Owns: the schema (`schema.cedarschema`), how files become policies ([`Policies::parse`]), which of
//! them can apply to a request, and the decision ([`Policies::judge`]). All of it is pure but for
//! [`load`], which reads the directory.
//!
//! The kernel's own `permit` of everything is built in, so a file holds `forbid` alone. Cedar skips a
//! policy whose condition cannot be evaluated, and a skipped `forbid` would allow: here such an error
//! denies.
//!
//! Absent on purpose: the clock (an [`Ask`] carries its time as numbers), the ledger, limits, and
//! prompt text: an ask has facts about a request, never its words.

mod ask;
mod error;
mod judge;
mod known;
mod load;
mod names;
mod parse;
mod request;
mod rule;
mod slice;
mod source;
mod time;

#[cfg(test)]
mod tests;

pub use ask::Ask;
pub use error::{Place, PolicyError, Warning};
pub use judge::{Denial, Judged, Policies};
pub use known::Known;
pub use load::{directory, load, load_all};
pub use parse::PolicyFile;
pub use request::ToJudge;
pub use rule::Mode;
pub use time::PolicyTime;

/// The schema, in Cedar's human form.
pub const SCHEMA: &str = include_str!("schema.cedarschema");

/// The group that every agent is in.
pub const KERNEL_GROUP: &str = "kernel";

/// Most files of a directory.
pub const MAX_FILES: usize = 64;
/// Of all files together.
pub const MAX_BYTES: usize = 512 * 1024;
/// Most policies of all files together.
pub const MAX_POLICIES: usize = 512;
/// Most different tools of one request that policies are asked about; with more it is denied.
pub const MAX_TOOLS: usize = 128;

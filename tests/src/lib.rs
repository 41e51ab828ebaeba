//! What AEX is tested with: a provider simulator that keeps its own bill ([`sim`]), a harness that
//! runs the real programs in a home of their own ([`harness`]), a blocking HTTP client that shows
//! what is really on the wire ([`http`]), and the load generator of the benchmark ([`bench`]).
//!
//! Absent on purpose: any knowledge of how AEX decides. The tests predict from the outer surface and
//! from the simulator's bill, never from the kernel's own code.

pub mod bench;
pub mod harness;
pub mod http;
pub mod sim;
pub mod tls;

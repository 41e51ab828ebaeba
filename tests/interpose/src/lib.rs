//! Preloaded into a program (`LD_PRELOAD`), it stands between the program and libc's writing calls.
//!
//! What it does is told by small files in the directory that `AEX_INTERPOSE` names, looked at on each
//! call, so that a test changes it while the program runs:
//!
//! - `gate`: a rule; the first call that it fits creates `reached` and then waits until `gate` is
//!   removed, or the process is killed ([`gate`]).
//! - `fault`: a rule and an errno; the calls that it fits fail with it ([`fault`]).
//! - `record`: a directory; writes, truncations and syncs of files below it are appended to
//!   `record.log`, and so are the bytes that are about to be sent over Unix sockets ([`record`]).
//!
//! This is the only crate with unsafe code. Absent on purpose: any knowledge of AEX; which file and
//! which bytes are meant is in the rules. Calls that the programs do not use are not covered, mapped
//! memory neither.

mod calls;
mod fault;
mod gate;
mod real;
mod record;
mod rule;
mod steer;
mod target;

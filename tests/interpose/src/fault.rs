//! Fails calls that fit the rule, as a device or a file system would.

use libc::c_int;

use crate::rule::{Call, Rule};
use crate::steer::{self, Paths};
use crate::target::Target;

/// The errno that this call fails with, if it does.
pub(crate) fn of(paths: &Paths, call: Call, target: &Target) -> Option<c_int> {
    let rule = Rule::read(&steer::read(&paths.fault)?);
    if !rule.is_of(call) || !rule.is_at(target) {
        return None;
    }
    if rule.once && !steer::move_away(&paths.fault, &paths.fault_done) {
        // Another thread's call was the one.
        return None;
    }
    Some(rule.errno)
}

//! Stops the process at a point: one call that fits the rule, before it is made or when it is done.
//!
//! A gate holds one call, once: the file `reached` says that it has, and while that lies there no
//! other call waits, in whichever process.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crate::rule::{Call, Rule, contains};
use crate::steer::{self, Paths};
use crate::target::Target;

const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// The rule's text was written, and its file not synced since.
static WRITTEN: AtomicBool = AtomicBool::new(false);

/// A call that is about to be made. Gates before it wait here; the answer is whether one waits when
/// it is done.
pub(crate) fn before(paths: &Paths, call: Call, target: &Target, bytes: &[u8]) -> bool {
    let Some(rule) = steer::read(&paths.gate) else {
        return false;
    };
    let rule = Rule::read(&rule);
    if !rule.is_at(target) {
        return false;
    }
    let told = contains(bytes, &rule.text);
    if call == Call::Write && told && !rule.text.is_empty() {
        WRITTEN.store(true, Relaxed);
    }
    let fits = rule.is_of(call)
        && match call {
            Call::Sync => rule.text.is_empty() || WRITTEN.swap(false, Relaxed),
            _ => told,
        };
    if fits && !rule.after {
        hold(paths);
    }
    fits && rule.after
}

/// Waits for as long as the gate is there.
pub(crate) fn hold(paths: &Paths) {
    if !steer::create_new(&paths.reached) {
        return;
    }
    while steer::exists(&paths.gate) {
        std::thread::sleep(LOOK_AGAIN);
    }
}

//! Where people's reading is done: one desk for operators and one for auditors, so that nothing that an
//! auditor asks for, however often, is in an operator's way.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::reader::Reader;

pub(super) struct Desk {
    pub reader: Reader,
    /// An audit, a replay, a backup.
    pub at_long_work: AtomicBool,
}

impl Desk {
    pub(super) fn at(ledger: &Path) -> Self {
        Self {
            reader: Reader::start(ledger.to_owned()),
            at_long_work: AtomicBool::new(false),
        }
    }
}

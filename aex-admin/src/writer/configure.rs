//! Which configuration is in force: in the chain, and in what is decided from there on. An event says so
//! at each start, and at a reload that changed a file.

use std::sync::Arc;

use serde_json::json;

use super::Writer;
use super::operator::{Changed, text_of};
use crate::config::Config;
use crate::core::reserve::Now;
use crate::ledger::{Event, LedgerError};
use crate::policy::Policies;

/// What comes into force with a reload.
#[derive(Debug)]
pub struct Configuration {
    pub generation: u64,
    pub config: Arc<Config>,
    pub policies: Arc<Policies>,
}

impl Writer {
    /// Records what this start found. A configuration that is of no files is nobody's to prove.
    pub(super) fn note_start(&mut self, now: Now) -> Result<(), LedgerError> {
        let Some(files) = &self.config.files else {
            return Ok(());
        };
        let detail = text_of(&json!({
            "generation": 1,
            "version": env!("CARGO_PKG_VERSION"),
            "files": files,
        }));
        self.ledger
            .append(&Event::note(now.wall_ms, None, "config.load", &detail))?;
        Ok(())
    }

    /// In force from the next operation of this batch on, unless the batch is undone.
    pub(super) fn configure(&mut self, next: Configuration, now: Now) -> Changed {
        if next.config.files != self.config.files {
            let detail = text_of(&json!({
                "generation": next.generation,
                "files": next.config.files,
            }));
            self.ledger.within(|ledger| {
                ledger.append(&Event::note(now.wall_ms, None, "config.reload", &detail))
            })?;
        }
        let config = std::mem::replace(&mut self.config, next.config);
        let policies = std::mem::replace(&mut self.policies, next.policies);
        self.replaced.get_or_insert((config, policies));
        Ok(json!({}))
    }

    /// After a batch that was undone.
    pub(super) fn configure_back(&mut self) {
        if let Some((config, policies)) = self.replaced.take() {
            self.config = config;
            self.policies = policies;
        }
    }
}

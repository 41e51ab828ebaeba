//! What of the chain is signed: the key that it declares, its checkpoints, those that were kept
//! elsewhere, and the seal of its end.

use std::collections::BTreeMap;
use std::path::Path;

use aex_admin_proto::operator::Checkpoint;
use rusqlite::Connection;
use serde::Deserialize;

use super::{Found, finding};
use crate::ledger::seal::{self, Sealer};
use crate::ledger::{CHECKPOINT_ACTION, Event, EventHash, KEY_ACTION, LedgerError, is_sealed_by};

/// A chain that declares a key has a checkpoint at least this often; the kernel signs far sooner.
const MAX_UNSIGNED_EVENTS: i64 = 200_000;

const KEPT: &str = "checkpoint_agrees";

pub(super) struct Signed {
    pub checkpoints: u64,
    /// The key beside the ledger; absent in a copy.
    sealer: Option<Sealer>,
    is_sealed: bool,
    declared: Option<String>,
    /// The event after which a checkpoint must follow at once: it declared a key.
    unproven: Option<i64>,
    last_checkpoint: i64,
    last_event: i64,
    /// Hashes that events must have, and who says so.
    expected: BTreeMap<i64, Vec<(Option<EventHash>, &'static str)>>,
}

#[derive(Deserialize)]
struct Key {
    public_key: String,
}

impl Signed {
    pub(super) fn of(
        key_of: Option<&Path>,
        conn: &Connection,
        kept: Option<&Checkpoint>,
        against: &[Checkpoint],
    ) -> Result<Self, LedgerError> {
        let sealer = match key_of {
            Some(key_of) => Sealer::load(key_of)?,
            None => None,
        };
        let is_sealed = match &sealer {
            Some(sealer) => is_sealed_by(conn, sealer)?,
            None => false,
        };
        let mut signed = Self {
            checkpoints: 0,
            sealer,
            is_sealed,
            declared: None,
            unproven: None,
            last_checkpoint: 0,
            last_event: 0,
            expected: BTreeMap::new(),
        };
        for checkpoint in against {
            signed.expect(checkpoint, "the checkpoint that was given");
        }
        if let Some(kept) = kept {
            signed.expect(kept, "the checkpoint that is kept beside the ledger");
        }
        Ok(signed)
    }

    fn expect(&mut self, checkpoint: &Checkpoint, who: &'static str) {
        let hash = seal::hash_of(checkpoint).filter(|_| seal::is_signed(checkpoint));
        let at = self.expected.entry(checkpoint.event).or_default();
        at.push((hash, who));
    }

    /// One event, after `previous`, with the hash that it is written with.
    pub(super) fn event(
        &mut self,
        id: i64,
        event: &Event<'_>,
        previous: &EventHash,
        hash: &[u8],
    ) -> Vec<Found> {
        let mut found = Vec::new();
        self.last_event = id;
        while let Some(entry) = self
            .expected
            .first_entry()
            .filter(|entry| *entry.key() <= id)
        {
            let at = *entry.key();
            for (expected, who) in entry.remove() {
                let same = at == id && expected.is_some_and(|expected| expected == hash);
                if !same {
                    found.push(violation(KEPT, at, differs(who)));
                }
            }
        }
        if let Some(at) = self.unproven.take()
            && event.action != CHECKPOINT_ACTION
        {
            found.push(violation(
                "key_proven",
                at,
                "a key is declared, and not proven",
            ));
        }
        match event.action {
            KEY_ACTION => found.extend(self.key(id, event)),
            CHECKPOINT_ACTION => found.extend(self.checkpoint(id, event, previous)),
            "outside.events" => found.push(violation(
                "head_sealed",
                id,
                "found at a start: events were changed, cut or added while AEX did not run",
            )),
            "ledger.restore" => found.push(warning(
                "ledger_restored",
                id,
                "a backup was put in the ledger's place; its detail says what is missing",
            )),
            _ => {}
        }
        if self.declared.is_some() && id - self.last_checkpoint > MAX_UNSIGNED_EVENTS {
            found.push(violation(
                "signed_in_time",
                id,
                "no checkpoint for too long",
            ));
            self.last_checkpoint = id;
        }
        found
    }

    fn key(&mut self, id: i64, event: &Event<'_>) -> Option<Found> {
        let key = serde_json::from_str::<Key>(event.detail).ok();
        let before = self
            .declared
            .replace(key.map_or_else(String::new, |key| key.public_key));
        self.unproven = Some(id);
        self.last_checkpoint = id;
        if before == self.declared {
            let text = "the key that signs already is declared again: nobody needs that";
            return Some(violation("key_proven", id, text));
        }
        before.map(|_| {
            warning(
                "key_replaced",
                id,
                "another signing key is declared: what came before is proven by a kept checkpoint only",
            )
        })
    }

    fn checkpoint(&mut self, id: i64, event: &Event<'_>, previous: &EventHash) -> Option<Found> {
        let told = serde_json::from_str::<Checkpoint>(event.detail).ok();
        let holds = told.is_some_and(|told| {
            told.event == id - 1
                && seal::hash_of(&told).as_ref() == Some(previous)
                && Some(&told.public_key) == self.declared.as_ref()
                && seal::is_signed(&told)
        });
        self.last_checkpoint = id;
        if holds {
            self.checkpoints += 1;
            return None;
        }
        Some(violation(
            KEPT,
            id,
            "its signature is not of the declared key over the event before it",
        ))
    }

    pub(super) fn at_the_end(&mut self) -> Vec<Found> {
        let mut found = Vec::new();
        for (at, expected) in std::mem::take(&mut self.expected) {
            found.extend(
                expected
                    .into_iter()
                    .map(|(_, who)| violation(KEPT, at, differs(who))),
            );
        }
        if let Some(at) = self.unproven {
            found.push(violation(
                "key_proven",
                at,
                "a key is declared, and not proven",
            ));
        }
        let Some(sealer) = &self.sealer else {
            found.push(Found::Warning(finding(
                "head_sealed",
                None,
                None,
                "not checked: the signing key is not beside this file, so its last events could \
                 have been cut or added to",
            )));
            return found;
        };
        if self.declared.as_deref() != Some(&sealer.public_key()) {
            found.push(Found::Violation(finding(
                "key_declared",
                None,
                None,
                "the chain does not declare the signing key that lies beside it",
            )));
        }
        if !self.is_sealed {
            found.push(violation(
                "head_sealed",
                self.last_event,
                "it does not bear the kernel's seal: events were cut, added or replaced",
            ));
        }
        found
    }
}

fn differs(who: &str) -> String {
    format!("it is not as {who} signs it")
}

fn violation(property: &str, event: i64, message: impl Into<String>) -> Found {
    Found::Violation(finding(property, None, Some(event), message))
}

fn warning(property: &str, event: i64, message: impl Into<String>) -> Found {
    Found::Warning(finding(property, None, Some(event), message))
}

//! Checkpoints and the seal in the ledger: what [`super::seal`] signs, put into the chain and kept.

use aex_admin_proto::operator::Checkpoint;
use rusqlite::{Connection, OptionalExtension};

use super::{Event, Ledger, LedgerError, Result, agents, events, schema, seal};

/// `meta`: the seal of the last event, renewed with each commit.
const HEAD_SEAL: &str = "head_seal";
/// `meta`: when writing was tried again, while it failed.
const TRIED: &str = "tried_boot_ms";
/// `meta`: the public key that the chain declared last.
const PUBLIC_KEY: &str = "public_key";

pub(crate) const KEY_ACTION: &str = "ledger.key";
pub(crate) const CHECKPOINT_ACTION: &str = "ledger.checkpoint";

/// The newest checkpoint of the chain, and the one that is written in the open batch.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    /// Id of its event, and what it says.
    last: Option<(i64, Checkpoint)>,
    written: Option<(i64, Checkpoint)>,
    /// Committed, and not yet kept beside the ledger.
    unkept: bool,
}

impl Checkpoints {
    /// What a ledger that was just opened ends with; an older checkpoint is not looked for.
    pub(super) fn found(conn: &Connection, head: i64) -> Result<Self> {
        let detail: Option<String> = conn
            .query_row(
                "SELECT detail FROM events WHERE id = ?1 AND action = ?2",
                (head, CHECKPOINT_ACTION),
                |row| row.get(0),
            )
            .optional()?;
        let last = detail.and_then(|text| Some((head, serde_json::from_str(&text).ok()?)));
        Ok(Self {
            unkept: last.is_some(),
            last,
            written: None,
        })
    }

    pub(super) fn committed(&mut self) {
        if let Some(written) = self.written.take() {
            self.last = Some(written);
            self.unkept = true;
        }
    }

    pub(super) fn undone(&mut self) {
        self.written = None;
    }
}

impl Ledger {
    /// Whether the chain declares the key that this ledger is signed with.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn declares_key(&self) -> Result<bool> {
        let declared = self.meta(PUBLIC_KEY)?;
        Ok(declared.is_some_and(|key| key == self.sealer.public_key().as_bytes()))
    }

    /// Declares the signing key from here on, and proves it with a first checkpoint.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn declare_key(&mut self, at_ms: i64) -> Result<()> {
        let public_key = self.sealer.public_key();
        let detail = format!(r#"{{"public_key":"{public_key}"}}"#);
        self.append(&Event::note(at_ms, None, KEY_ACTION, &detail))?;
        self.set_meta(PUBLIC_KEY, public_key.as_bytes())?;
        self.checkpoint(at_ms)?;
        Ok(())
    }

    /// Whether the last event that was found is the one that was committed last. A ledger without events,
    /// and one that this key has yet to sign, were left by nobody.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn is_as_left(&self) -> Result<bool> {
        if self.key_is_new || self.committed.id == 0 {
            return Ok(true);
        }
        let seal = self.meta(HEAD_SEAL)?.unwrap_or_default();
        Ok(self
            .sealer
            .is_seal(&seal, self.committed.id, &self.committed.hash))
    }

    /// Writes something, so that the commit shows whether anything can be written. It must differ from
    /// what is there: SQLite writes no page for the same bytes.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn touch(&self, at_boot_ms: u64) -> Result<()> {
        schema::set_meta(&self.conn, TRIED, &at_boot_ms.to_be_bytes())
    }

    pub(super) fn seal_head(&self) -> Result<()> {
        let seal = self.sealer.seal(self.head.id, &self.head.hash);
        schema::set_meta(&self.conn, HEAD_SEAL, &seal)
    }

    /// Signs the last event, in the open batch; the one that was signed last is answered again when
    /// nothing came after it. Balances must be written before.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn checkpoint(&mut self, at_ms: i64) -> Result<Checkpoint> {
        let newest = self.checkpoints.written.as_ref();
        if let Some((event, checkpoint)) = newest.or(self.checkpoints.last.as_ref())
            && *event == self.head.id
        {
            return Ok(checkpoint.clone());
        }
        let spent_micro = agents::all_spent_micro(&self.conn)?;
        let checkpoint = self
            .sealer
            .sign(self.head.id, &self.head.hash, at_ms, spent_micro);
        let detail = serde_json::to_string(&checkpoint)
            .map_err(|error| LedgerError::Value(error.to_string()))?;
        // It says what is there, whoever asks, and is what it signs word for word.
        let by_uid = self.by_uid.take();
        let event = self.append(&Event::note(at_ms, None, CHECKPOINT_ACTION, &detail));
        self.by_uid = by_uid;
        let event = event?;
        self.checkpoints.written = Some((event, checkpoint.clone()));
        Ok(checkpoint)
    }

    /// How many events, those of the open batch too, came after the last checkpoint that this process
    /// knows.
    #[must_use]
    pub fn events_since_checkpoint(&self) -> i64 {
        let last = self
            .checkpoints
            .last
            .as_ref()
            .map_or(0, |(event, _)| *event);
        self.head.id.saturating_sub(last)
    }

    /// Keeps the newest committed checkpoint beside the ledger, if it is not there yet.
    ///
    /// # Errors
    /// The file cannot be written; it is tried again at the next call.
    pub fn keep_checkpoint(&mut self) -> Result<()> {
        if !self.checkpoints.unkept {
            return Ok(());
        }
        if let Some((_, checkpoint)) = &self.checkpoints.last {
            seal::keep_checkpoint(&self.path, checkpoint)?;
        }
        self.checkpoints.unkept = false;
        Ok(())
    }
}

/// The key that the chain declares, by the ledger's own note of it.
pub(super) fn declared_key(conn: &Connection) -> Result<Option<String>> {
    let key = schema::meta(conn, PUBLIC_KEY)?;
    Ok(key.and_then(|key| String::from_utf8(key).ok()))
}

/// The checkpoint that is the last event; nothing when that is none.
pub(super) fn last(conn: &Connection) -> Result<Option<Checkpoint>> {
    let found = Checkpoints::found(conn, events::head(conn)?.id)?;
    Ok(found.last.map(|(_, checkpoint)| checkpoint))
}

/// Whether the last event of what `conn` sees bears the seal of `sealer`.
pub(crate) fn is_sealed_by(conn: &Connection, sealer: &seal::Sealer) -> Result<bool> {
    let seal = schema::meta(conn, HEAD_SEAL)?.unwrap_or_default();
    let head = events::head(conn)?;
    Ok(sealer.is_seal(&seal, head.id, &head.hash))
}

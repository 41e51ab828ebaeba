//! The ledger's signing key, and what it signs: checkpoints, and the seal of the last event.
//!
//! The key lies beside the ledger (`aex.db.key`, 0600), not in it: who can write the file of the ledger
//! can recompute a hash chain, but can neither sign a checkpoint nor seal a head. The seal is renewed
//! with every commit, so that rows cut or added at the end are found too, where no checkpoint is yet.
//! The last checkpoint is also kept beside the ledger (`aex.db.checkpoint`), so that an older ledger
//! put in place of this one is noticed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aex_admin_proto::operator::Checkpoint;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::chain::EventHash;
use super::{LedgerError, Result};

/// First bytes of what a checkpoint's signature is over.
const CHECKPOINT_CONTEXT: &[u8] = b"aex ledger checkpoint 1\0";
const SEAL_CONTEXT: &[u8] = b"aex ledger head 1\0";

/// The file of the signing key of the ledger at `ledger`.
#[must_use]
pub fn key_path(ledger: &Path) -> PathBuf {
    beside(ledger, ".key")
}

/// The file of its last checkpoint.
#[must_use]
pub fn checkpoint_path(ledger: &Path) -> PathBuf {
    beside(ledger, ".checkpoint")
}

pub(super) fn beside(ledger: &Path, suffix: &str) -> PathBuf {
    let mut name = ledger.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Signs for one ledger.
pub struct Sealer {
    key: SigningKey,
}

impl Sealer {
    /// The key beside the ledger at `ledger`; nothing when there is none.
    ///
    /// # Errors
    /// It cannot be read, is no key, or others may read it.
    pub fn load(ledger: &Path) -> Result<Option<Self>> {
        Ok(load_secret(&key_path(ledger))?.map(|secret| Self {
            key: SigningKey::from_bytes(&secret),
        }))
    }

    /// Makes a key, durable before it is used.
    ///
    /// # Errors
    /// It cannot be written, or there is no randomness.
    pub fn create(ledger: &Path) -> Result<Self> {
        let secret = create_secret(&key_path(ledger))?;
        Ok(Self {
            key: SigningKey::from_bytes(&secret),
        })
    }

    /// 64 hexadecimal digits.
    #[must_use]
    pub fn public_key(&self) -> String {
        hex::encode(self.key.verifying_key().as_bytes())
    }

    #[must_use]
    pub fn sign(&self, event: i64, hash: &EventHash, at_ms: i64, spent_micro: i64) -> Checkpoint {
        let message = signed_bytes(event, at_ms, spent_micro, hash);
        Checkpoint {
            event,
            hash: hex::encode(hash),
            at_ms,
            spent_micro,
            public_key: self.public_key(),
            signature: hex::encode(self.key.sign(&message).to_bytes()),
        }
    }

    /// What only the holder of the key can say of the last event.
    #[must_use]
    pub fn seal(&self, event: i64, hash: &EventHash) -> [u8; 32] {
        self.mac(event, hash).finalize().into_bytes().into()
    }

    /// Compares in constant time.
    #[must_use]
    pub fn is_seal(&self, seal: &[u8], event: i64, hash: &EventHash) -> bool {
        self.mac(event, hash).verify_slice(seal).is_ok()
    }

    fn mac(&self, event: i64, hash: &EventHash) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.as_bytes())
            .expect("HMAC takes keys of any length");
        mac.update(SEAL_CONTEXT);
        mac.update(&event.to_be_bytes());
        mac.update(hash);
        mac
    }
}

/// The key that signs tickets, kept beside the ledger too; made when there is none.
pub(super) fn ticket_key(ledger: &Path) -> Result<[u8; 32]> {
    let path = beside(ledger, ".ticket-key");
    let secret = match load_secret(&path)? {
        Some(secret) => secret,
        None => create_secret(&path)?,
    };
    Ok(*secret)
}

fn load_secret(path: &Path) -> Result<Option<Zeroizing<[u8; 32]>>> {
    let file_error = |source| LedgerError::File {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(file_error)?,
    };
    let mode = file.metadata().map_err(file_error)?.mode();
    if mode & 0o077 != 0 {
        let text = format!("{0}: others may read it; chmod 600 {0}", path.display());
        return Err(LedgerError::Refused(text));
    }
    let mut text = Zeroizing::new(String::new());
    (file.take(1024).read_to_string(&mut text)).map_err(file_error)?;
    let mut secret = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim(), secret.as_mut_slice())
        .map_err(|_| LedgerError::Key(path.to_owned()))?;
    Ok(Some(secret))
}

fn create_secret(path: &Path) -> Result<Zeroizing<[u8; 32]>> {
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(secret.as_mut_slice())
        .map_err(|error| LedgerError::Value(format!("no randomness: {error}")))?;
    let text = Zeroizing::new(format!("{}\n", hex::encode(secret.as_slice())));
    write_durably(path, text.as_bytes())?;
    Ok(secret)
}

/// Whether its signature is its own public key's. Whose key that is, is the caller's to know.
#[must_use]
pub fn is_signed(checkpoint: &Checkpoint) -> bool {
    let check = || {
        let hash = hash_of(checkpoint)?;
        let mut public_key = [0; 32];
        hex::decode_to_slice(&checkpoint.public_key, &mut public_key).ok()?;
        let mut signature = [0; 64];
        hex::decode_to_slice(&checkpoint.signature, &mut signature).ok()?;
        let message = signed_bytes(
            checkpoint.event,
            checkpoint.at_ms,
            checkpoint.spent_micro,
            &hash,
        );
        VerifyingKey::from_bytes(&public_key)
            .ok()?
            .verify_strict(&message, &Signature::from_bytes(&signature))
            .ok()
    };
    check().is_some()
}

/// The hash that a checkpoint tells; nothing when that is none.
#[must_use]
pub fn hash_of(checkpoint: &Checkpoint) -> Option<EventHash> {
    let mut hash = [0; 32];
    hex::decode_to_slice(&checkpoint.hash, &mut hash).ok()?;
    Some(hash)
}

fn signed_bytes(event: i64, at_ms: i64, spent_micro: i64, hash: &EventHash) -> Vec<u8> {
    let mut message = CHECKPOINT_CONTEXT.to_vec();
    for number in [event, at_ms, spent_micro] {
        message.extend_from_slice(&number.to_be_bytes());
    }
    message.extend_from_slice(hash);
    message
}

/// The checkpoint that is kept beside the ledger; nothing when there is none.
///
/// # Errors
/// It cannot be read, or is none.
pub fn kept_checkpoint(ledger: &Path) -> Result<Option<Checkpoint>> {
    let path = checkpoint_path(ledger);
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(LedgerError::File { path, source }),
        Ok(text) => text,
    };
    let checkpoint: Checkpoint =
        serde_json::from_str(&text).map_err(|_| LedgerError::KeptCheckpoint(path.clone()))?;
    if !is_signed(&checkpoint) {
        return Err(LedgerError::KeptCheckpoint(path));
    }
    Ok(Some(checkpoint))
}

/// Puts a checkpoint in the place of the one that is kept beside the ledger.
///
/// # Errors
/// It cannot be written; the old one is still there.
pub fn keep_checkpoint(ledger: &Path, checkpoint: &Checkpoint) -> Result<()> {
    let text =
        serde_json::to_string(checkpoint).map_err(|error| LedgerError::Value(error.to_string()))?;
    write_durably(&checkpoint_path(ledger), (text + "\n").as_bytes())
}

/// A whole private file, or the old one: written beside it, synced, put in its place.
fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    let new = beside(path, ".new");
    let write = || -> io::Result<()> {
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        sync_directory(path)
    };
    write().map_err(|source| LedgerError::File {
        path: path.to_owned(),
        source,
    })
}

/// Makes the directory entries beside `path` durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    match path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        Some(parent) => File::open(parent)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_signs_what_only_it_can_sign() {
        let home = tempfile::tempdir().unwrap();
        let ledger = home.path().join("aex.db");
        assert!(Sealer::load(&ledger).unwrap().is_none());
        let made = Sealer::create(&ledger).unwrap();
        let found = Sealer::load(&ledger).unwrap().unwrap();
        assert_eq!(made.public_key(), found.public_key());
        let signed = made.sign(7, &[3; 32], 1_000, 42);
        assert!(is_signed(&signed));
        keep_checkpoint(&ledger, &signed).unwrap();
        assert_eq!(kept_checkpoint(&ledger).unwrap(), Some(signed.clone()));
        let forgeries = [
            Checkpoint {
                event: 8,
                ..signed.clone()
            },
            Checkpoint {
                hash: hex::encode([4; 32]),
                ..signed.clone()
            },
            Checkpoint {
                at_ms: 1_001,
                ..signed.clone()
            },
            Checkpoint {
                spent_micro: 41,
                ..signed.clone()
            },
            Checkpoint {
                public_key: hex::encode([5; 32]),
                ..signed.clone()
            },
            Checkpoint {
                signature: String::new(),
                ..signed
            },
        ];
        assert!(forgeries.iter().all(|forgery| !is_signed(forgery)));
        let seal = made.seal(7, &[3; 32]);
        assert!(found.is_seal(&seal, 7, &[3; 32]));
        assert!(!found.is_seal(&seal, 6, &[3; 32]));
        assert!(!found.is_seal(&seal[..31], 7, &[3; 32]));
    }

    #[test]
    fn a_broken_key_or_checkpoint_is_told_not_replaced() {
        let home = tempfile::tempdir().unwrap();
        let ledger = home.path().join("aex.db");
        write_durably(&key_path(&ledger), b"abc").unwrap();
        assert!(matches!(Sealer::load(&ledger), Err(LedgerError::Key(_))));
        std::fs::write(checkpoint_path(&ledger), "{}").unwrap();
        let found = kept_checkpoint(&ledger);
        assert!(matches!(found, Err(LedgerError::KeptCheckpoint(_))));
    }
}

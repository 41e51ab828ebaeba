//! Files of checkpoints that an operator keeps elsewhere: one JSON document after another, as
//! `aex ledger checkpoint` prints them (`>>` appends the next).

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::operator::{Checkpoint, MAX_AGAINST};

/// A checkpoint is some 330 bytes.
const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// Reads them; of many the newest [`MAX_AGAINST`], which are the last.
///
/// # Errors
/// What is wrong with the file, for people.
pub fn read(path: &Path) -> Result<Vec<Checkpoint>, String> {
    let bad = |what: String| format!("{}: {what}", path.display());
    let mut text = String::new();
    let file = File::open(path).map_err(|error| bad(error.to_string()))?;
    file.take(MAX_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| bad(error.to_string()))?;
    let mut checkpoints: Vec<Checkpoint> = serde_json::Deserializer::from_str(&text)
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(|error| {
            bad(format!(
                "not checkpoints as `aex ledger checkpoint` prints them: {error}"
            ))
        })?;
    if checkpoints.is_empty() {
        return Err(bad("no checkpoint in it".to_owned()));
    }
    let older = checkpoints.len().saturating_sub(MAX_AGAINST);
    Ok(checkpoints.split_off(older))
}

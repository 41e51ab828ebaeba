//! From LiteLLM's table to a prices.yaml beside models.yaml, written as a whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aex_admin_proto::prices::ImportReport;
use sha2::{Digest, Sha256};

use super::litellm::{self, Table};
use super::{PricesError, text};
use crate::config::{Catalogue, MAX_CONFIG_BYTES, prices_file};

/// No table is larger; the real one has 4 MiB.
const MAX_TABLE_BYTES: u64 = 32 * 1024 * 1024;
/// Names of unreadable entries that a report has.
const MAX_NAMES: usize = 20;
/// How the version of an import begins; what begins otherwise somebody wrote.
const VERSION: &str = "import-";

/// Reads a table and writes the prices that it has for known providers, 0600. `now_ms` dates them
/// (Unix milliseconds). What was there and is no import is kept beside it.
///
/// # Errors
/// The table cannot be read or has nothing to take, or the file cannot be written. Nothing is changed
/// then.
pub fn import(config_file: &Path, from: &Path, now_ms: i64) -> Result<ImportReport, PricesError> {
    let json = read(from)?;
    let not_a_table = |why: String| PricesError::NotATable {
        path: from.to_owned(),
        why,
    };
    let digest = hex::encode(Sha256::digest(&json));
    let version = format!("{VERSION}{}", &digest[..12]);
    let mut table =
        litellm::read(&json, Catalogue::builtin(), &day(now_ms)).map_err(not_a_table)?;
    let (text, taken) = render(&mut table, &version);
    if taken == 0 {
        return Err(not_a_table("no entry of it can be taken".to_owned()));
    }
    if text.len() > MAX_CONFIG_BYTES {
        let why = format!("its prices would be larger than {MAX_CONFIG_BYTES} bytes");
        return Err(not_a_table(why));
    }
    Catalogue::builtin()
        .overlaid(&text)
        .map_err(|error| not_a_table(format!("what it comes to is refused: {error}")))?;
    let file = prices_file(config_file);
    let kept = keep(&file)?;
    replace(&file, text.as_bytes())?;
    table.unreadable.truncate(MAX_NAMES);
    Ok(ImportReport {
        from: from.display().to_string(),
        file: file.display().to_string(),
        version,
        kept: kept.map(|path| path.display().to_string()),
        taken,
        left_out: table.left_out,
        unreadable: table.unreadable,
    })
}

fn failed<'a>(
    doing: &'static str,
    path: &'a Path,
) -> impl Fn(std::io::Error) -> PricesError + use<'a> {
    move |source| PricesError::File {
        doing,
        path: path.to_owned(),
        source,
    }
}

fn read(path: &Path) -> Result<Vec<u8>, PricesError> {
    let failed = failed("read", path);
    let refused = |why: &str| PricesError::NotATable {
        path: path.to_owned(),
        why: why.to_owned(),
    };
    // Asked before the open, which would wait for ever on a FIFO.
    if !fs::metadata(path).map_err(&failed)?.is_file() {
        return Err(refused("it is not a regular file"));
    }
    let mut json = Vec::new();
    File::open(path)
        .map_err(&failed)?
        .take(MAX_TABLE_BYTES + 1)
        .read_to_end(&mut json)
        .map_err(&failed)?;
    if json.len() as u64 > MAX_TABLE_BYTES {
        return Err(refused("it is larger than 32 MiB"));
    }
    Ok(json)
}

/// The text of the file, and how many models are in it. What the catalogue's own reader refuses is
/// left out.
fn render(table: &mut Table, version: &str) -> (String, u64) {
    let head = text::head(
        version,
        "Written by `aex prices import`; config/prices.yaml of AEX tells the format.",
    );
    let mut whole = head.clone();
    let mut taken = 0;
    for model in std::mem::take(&mut table.models) {
        let entry = text::entry(&model);
        match Catalogue::builtin().overlaid(&format!("{head}{entry}")) {
            Ok(_) => {
                whole.push_str(&entry);
                taken += 1;
            }
            Err(error) => {
                let key = format!("{}/{}", model.provider, model.upstream_model);
                table.leave_unreadable(&key, &error.message);
            }
        }
    }
    (whole, taken)
}

/// Puts prices that somebody wrote aside, so that an import does not take them away.
fn keep(file: &Path) -> Result<Option<PathBuf>, PricesError> {
    if !file.exists() || is_import(file) {
        return Ok(None);
    }
    let aside = file.with_extension("yaml.old");
    let _ = fs::remove_file(&aside);
    fs::hard_link(file, &aside).map_err(failed("kept aside", file))?;
    Ok(Some(aside))
}

fn is_import(file: &Path) -> bool {
    // Asked before the open, which would wait for ever on a FIFO.
    if !fs::metadata(file).is_ok_and(|found| found.is_file()) {
        return false;
    }
    let mut text = String::new();
    let read = File::open(file)
        .and_then(|file| file.take(MAX_CONFIG_BYTES as u64).read_to_string(&mut text));
    read.is_ok()
        && Catalogue::builtin()
            .overlaid(&text)
            .is_ok_and(|catalogue| catalogue.version().starts_with(VERSION))
}

/// A reader sees the old text or the new, after a crash too.
fn replace(path: &Path, text: &[u8]) -> Result<(), PricesError> {
    let failed = failed("written", path);
    // Of this process alone: two imports at once do not take each other's.
    let fresh = path.with_extension(format!("yaml.new-{}", std::process::id()));
    // What a cut-off import left would keep its own mode.
    let _ = fs::remove_file(&fresh);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)
        .map_err(&failed)?;
    // Whoever reads models.yaml reads its prices too: on a shared host that is a group, which the directory
    // hands on.
    let beside = fs::metadata(path.with_file_name("models.yaml")).map(|about| about.mode());
    let mode = 0o600 | (beside.unwrap_or(0) & 0o040);
    let written = file
        .set_permissions(fs::Permissions::from_mode(mode))
        .and_then(|()| file.write_all(text))
        .and_then(|()| file.sync_all());
    written
        .and_then(|()| fs::rename(&fresh, path))
        .map_err(|error| {
            let _ = fs::remove_file(&fresh);
            failed(error)
        })?;
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(&failed)
}

/// The day of a moment in UTC, `2026-11-26`.
pub(super) fn day(at_ms: i64) -> String {
    // Years begin in March here, and eras of 400 of them have 146,097 days.
    let days = at_ms.div_euclid(86_400_000) + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

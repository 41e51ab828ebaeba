//! `aex daemon logs`: the logs of all programs as one, by time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::fault::Fault;
use crate::link;
use crate::output::{self, Out};

/// How much of each log's end is looked at.
const END_BYTES: u64 = 512 * 1024;
/// Most that is read of one log at a time while following.
const CHUNK_BYTES: u64 = 256 * 1024;
/// A line longer than this is shown in pieces.
const MAX_LINE_BYTES: usize = 64 * 1024;
const POLL: Duration = Duration::from_millis(250);

pub(super) async fn show(lines: u32, follow: bool, out: Out) -> Result<u8, Fault> {
    let places = link::user_places()?;
    let mut logs: BTreeMap<PathBuf, Log> = BTreeMap::new();
    let mut found = Vec::new();
    for path in log_files(&places.logs)? {
        let mut log = Log::at_end(&path);
        found.extend(log.read(END_BYTES));
        logs.insert(path, log);
    }
    if found.is_empty() && !follow {
        Out::complain("aex: there are no logs yet: start the kernel with `aex daemon start`.");
    }
    let lines = usize::try_from(lines).unwrap_or(usize::MAX);
    print(by_time(found, lines), out)?;
    if !follow {
        return Ok(0);
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = output::reader_left() => return Ok(0),
        }
        let mut fresh = Vec::new();
        for path in log_files(&places.logs)? {
            let log = logs.entry(path.clone()).or_insert_with(|| Log::new(&path));
            fresh.extend(log.read(CHUNK_BYTES));
        }
        print(by_time(fresh, usize::MAX), out)?;
    }
}

fn log_files(directory: &Path) -> Result<Vec<PathBuf>, Fault> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Fault::file("read", directory, &error)),
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .collect();
    files.sort();
    Ok(files)
}

fn print(lines: Vec<Line>, out: Out) -> Result<(), Fault> {
    for line in lines {
        let value = json!({"program": line.program, "line": line.text});
        out.answer(&value, || format!("{:<12} {}", line.program, line.text))?;
    }
    Ok(())
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    program: String,
    /// The time at the line's head; a line without one belongs to the one before.
    at: String,
    text: String,
}

/// One log, and how far it was read.
struct Log {
    path: PathBuf,
    program: String,
    offset: u64,
    inode: u64,
    /// The first bytes read may begin in the middle of a line.
    skip_first: bool,
    /// A line whose end was not there yet.
    partial: Vec<u8>,
    at: String,
}

impl Log {
    fn new(path: &Path) -> Self {
        let program = path.file_stem().unwrap_or_default().to_string_lossy();
        Self {
            path: path.to_owned(),
            program: program.into_owned(),
            offset: 0,
            inode: std::fs::metadata(path).map_or(0, |meta| meta.ino()),
            skip_first: false,
            partial: Vec::new(),
            at: String::new(),
        }
    }

    fn at_end(path: &Path) -> Self {
        let mut log = Self::new(path);
        let length = std::fs::metadata(path).map_or(0, |meta| meta.len());
        log.offset = length.saturating_sub(END_BYTES);
        log.skip_first = log.offset > 0;
        log
    }

    /// The whole lines that came since. A log that was put aside or cut begins anew.
    fn read(&mut self, limit_bytes: u64) -> Vec<Line> {
        let Ok(mut file) = File::open(&self.path) else {
            return Vec::new();
        };
        let Ok(meta) = file.metadata() else {
            return Vec::new();
        };
        if meta.ino() != self.inode || meta.len() < self.offset {
            *self = Self::new(&self.path.clone());
        }
        let mut bytes = Vec::new();
        let read = file
            .seek(SeekFrom::Start(self.offset))
            .and_then(|_| file.take(limit_bytes).read_to_end(&mut bytes));
        self.offset += read.map_or(0, |n| n as u64);
        self.split(&bytes)
    }

    fn split(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            self.partial.extend_from_slice(piece);
            if !piece.ends_with(b"\n") && self.partial.len() < MAX_LINE_BYTES {
                continue;
            }
            let text = String::from_utf8_lossy(&std::mem::take(&mut self.partial))
                .trim_end()
                .to_owned();
            if std::mem::take(&mut self.skip_first) {
                continue;
            }
            if let Some(at) = time_of(&text) {
                self.at = at.to_owned();
            }
            lines.push(Line {
                program: self.program.clone(),
                at: self.at.clone(),
                text,
            });
        }
        lines
    }
}

/// The RFC 3339 time that a log line begins with.
fn time_of(line: &str) -> Option<&str> {
    let word = line.split_whitespace().next()?;
    let bytes = word.as_bytes();
    let looks = bytes.len() >= 20
        && bytes[..4].iter().all(u8::is_ascii_digit)
        && bytes[4] == b'-'
        && bytes[10] == b'T'
        && word.ends_with('Z');
    looks.then_some(word)
}

/// Stable by time, the last `count`. Times of one form compare as text.
fn by_time(mut lines: Vec<Line>, count: usize) -> Vec<Line> {
    lines.sort_by(|a, b| a.at.cmp(&b.at));
    let from = lines.len().saturating_sub(count);
    lines.split_off(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn logs_are_merged_by_time_and_followed_from_where_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a.log"), dir.path().join("b.log"));
        std::fs::write(
            &a,
            "2026-01-01T00:00:01.0Z one\n  more of one\n2026-01-01T00:00:03.0Z three\n",
        )
        .unwrap();
        std::fs::write(&b, "2026-01-01T00:00:02.0Z two\n2026-01-01T00:00:04.0Z fo").unwrap();
        let (mut log_a, mut log_b) = (Log::at_end(&a), Log::at_end(&b));
        let mut lines = log_a.read(END_BYTES);
        lines.extend(log_b.read(END_BYTES));
        assert_eq!(
            texts(&by_time(lines.clone(), 9)),
            [
                "2026-01-01T00:00:01.0Z one",
                "  more of one",
                "2026-01-01T00:00:02.0Z two",
                "2026-01-01T00:00:03.0Z three"
            ]
        );
        assert_eq!(by_time(lines, 1).len(), 1);

        std::fs::write(
            &b,
            "2026-01-01T00:00:02.0Z two\n2026-01-01T00:00:04.0Z four\n",
        )
        .unwrap();
        assert_eq!(
            texts(&log_b.read(END_BYTES)),
            ["2026-01-01T00:00:04.0Z four"]
        );
        std::fs::write(&b, "new\n").unwrap();
        assert_eq!(texts(&log_b.read(END_BYTES)), ["new"]);
        assert!(log_files(dir.path()).unwrap() == [a, b]);
    }

    #[test]
    fn a_long_line_comes_in_pieces() {
        let mut log = Log::new(Path::new("x.log"));
        let lines = log.split(&vec![b'x'; MAX_LINE_BYTES]);
        assert_eq!(lines.len(), 1);
        assert!(log.partial.is_empty());
    }
}

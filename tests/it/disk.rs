//! What a disk would have kept: the record of a program's writes (`tests/interpose`), and the files as
//! they are after the power went at a point of it. Pure.
//!
//! Kept is what was written to a file before a sync of it began that has ended. Names change at once.
//! Of the rest nothing is kept, or some of it: writes in their order, the last of them torn between
//! two sectors.

use std::collections::{BTreeMap, HashMap};

const SECTOR_BYTES: usize = 512;

/// Not to be guessed, but the same again for the same seed (splitmix64).
pub(crate) struct Chance(pub u64);

impl Chance {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let limit = u64::try_from(limit.max(1)).unwrap();
        usize::try_from(z % limit).unwrap()
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Entry {
    Write {
        file: String,
        at: usize,
        data: Vec<u8>,
    },
    Truncate {
        file: String,
        size: usize,
    },
    SyncBegun {
        file: String,
        thread: i32,
    },
    Synced {
        file: String,
        thread: i32,
    },
    Rename {
        file: String,
        to: String,
    },
    Unlink {
        file: String,
    },
    /// Bytes that were about to be sent.
    Answer {
        text: String,
    },
}

/// Reads a whole record. A torn last entry, of a program that was killed, is left out.
pub(crate) fn entries(mut record: &[u8]) -> Vec<Entry> {
    let mut all = Vec::new();
    while let Some(entry) = next(&mut record) {
        all.push(entry);
    }
    all
}

fn take<'a>(record: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = record.split_at_checked(count)?;
    *record = rest;
    Some(taken)
}

fn number(record: &mut &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(take(record, 4)?.try_into().ok()?))
}

/// The layout is in `tests/interpose/src/record.rs`.
fn next(record: &mut &[u8]) -> Option<Entry> {
    let kind = take(record, 1)?[0];
    let thread = number(record)?.cast_signed();
    let name_bytes = usize::try_from(number(record)?).ok()?;
    let offset = u64::from_ne_bytes(take(record, 8)?.try_into().ok()?);
    let data_bytes = usize::try_from(number(record)?).ok()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let file = text(take(record, name_bytes)?);
    let data = take(record, data_bytes)?;
    let offset = usize::try_from(offset).ok()?;
    Some(match kind {
        b'W' => Entry::Write {
            file,
            at: offset,
            data: data.to_vec(),
        },
        b'T' => Entry::Truncate { file, size: offset },
        b'B' => Entry::SyncBegun { file, thread },
        b'S' => Entry::Synced { file, thread },
        b'R' => Entry::Rename {
            file,
            to: text(data),
        },
        b'U' => Entry::Unlink { file },
        b'A' => Entry::Answer { text: text(data) },
        other => panic!("a record of kind {other}"),
    })
}

#[derive(Debug, Clone)]
enum Change {
    Write { at: usize, data: Vec<u8> },
    Truncate { size: usize },
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { at, data } => {
                let end = at + data.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*at..end].copy_from_slice(data);
            }
            Self::Truncate { size } => content.resize(*size, 0),
        }
    }

    /// The part of it that lies before a sector's end.
    fn torn(&self, chance: &mut Chance) -> Option<Self> {
        let Self::Write { at, data } = self else {
            return None;
        };
        let first = at / SECTOR_BYTES + 1;
        let last = (at + data.len()).div_ceil(SECTOR_BYTES);
        let end = (first + chance.below(last - first)) * SECTOR_BYTES;
        let kept = end.saturating_sub(*at).min(data.len());
        Some(Self::Write {
            at: *at,
            data: data[..kept].to_vec(),
        })
    }
}

#[derive(Debug, Clone, Default)]
struct File {
    /// On the disk, if the file is.
    kept: Option<Vec<u8>>,
    unsynced: Vec<Change>,
    /// Changes ever made, and those of them that are on the disk.
    made: usize,
    synced: usize,
}

impl File {
    fn change(&mut self, change: Change) {
        self.unsynced.push(change);
        self.made += 1;
    }

    fn sync(&mut self, up_to: usize) {
        let kept = self.kept.get_or_insert_default();
        let count = up_to.saturating_sub(self.synced);
        for change in self.unsynced.drain(..count) {
            change.apply(kept);
        }
        self.synced += count;
    }
}

/// Files by name, as the power would leave them.
pub(crate) type Image = BTreeMap<String, Vec<u8>>;

#[derive(Debug, Default)]
pub(crate) struct Disk {
    files: BTreeMap<String, File>,
    /// By thread: what the sync that it is in will have put on the disk.
    syncs: HashMap<i32, usize>,
}

impl Disk {
    pub(crate) fn take(&mut self, entry: &Entry) {
        match entry {
            Entry::Write { file, at, data } => self.file(file).change(Change::Write {
                at: *at,
                data: data.clone(),
            }),
            Entry::Truncate { file, size } => {
                self.file(file).change(Change::Truncate { size: *size });
            }
            Entry::SyncBegun { file, thread } => {
                let made = self.file(file).made;
                self.syncs.insert(*thread, made);
            }
            Entry::Synced { file, thread } => {
                let up_to = self.syncs.remove(thread).expect("a sync that began");
                self.file(file).sync(up_to);
            }
            Entry::Rename { file, to } => {
                let moved = self.files.remove(file).unwrap_or_default();
                self.files.insert(to.clone(), moved);
            }
            Entry::Unlink { file } => {
                self.files.remove(file);
            }
            Entry::Answer { .. } => {}
        }
    }

    fn file(&mut self, name: &str) -> &mut File {
        self.files.entry(name.to_owned()).or_default()
    }

    /// Nothing that was not synced is there.
    pub(crate) fn without_tails(&self) -> Image {
        let kept = |(name, file): (&String, &File)| Some((name.clone(), file.kept.clone()?));
        self.files.iter().filter_map(kept).collect()
    }

    /// Of each file some of what was not synced is there too.
    pub(crate) fn with_torn_tails(&self, chance: &mut Chance) -> Image {
        let mut image = self.without_tails();
        for (name, file) in &self.files {
            if file.unsynced.is_empty() {
                continue;
            }
            let content = image.entry(name.clone()).or_default();
            let whole = chance.below(file.unsynced.len() + 1);
            for change in &file.unsynced[..whole] {
                change.apply(content);
            }
            let torn = file.unsynced.get(whole);
            if let Some(torn) = torn.and_then(|change| change.torn(chance)) {
                torn.apply(content);
            }
        }
        image
    }
}

#[test]
fn what_was_synced_is_kept_and_no_more() {
    let write = |at, data: &[u8]| Entry::Write {
        file: "f".into(),
        at,
        data: data.to_vec(),
    };
    let begun = |thread| Entry::SyncBegun {
        file: "f".into(),
        thread,
    };
    let synced = |thread| Entry::Synced {
        file: "f".into(),
        thread,
    };
    let mut disk = Disk::default();
    let kept = |disk: &Disk| disk.without_tails().get("f").cloned();
    disk.take(&write(0, b"abc"));
    assert_eq!(kept(&disk), None);
    disk.take(&begun(1));
    // Too late for the sync that has begun.
    disk.take(&write(1, b"XY"));
    disk.take(&synced(1));
    assert_eq!(kept(&disk).unwrap(), b"abc");
    let mut chance = Chance(1);
    let torn = disk.with_torn_tails(&mut chance);
    assert_eq!(torn["f"], b"aXY", "less than a sector is not torn");
    disk.take(&begun(2));
    disk.take(&synced(2));
    assert_eq!(kept(&disk).unwrap(), b"aXY");
}

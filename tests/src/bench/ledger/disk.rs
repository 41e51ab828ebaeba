//! What the disk under the ledger can do by itself: 4 KiB appended to a file, then `fdatasync`, one
//! after the other.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::micros;
use crate::bench::load::now_us;

const BLOCK: [u8; 4096] = [0xA5; 4096];

/// What the disk did in the slices of time that it was given.
#[derive(Debug, Default)]
pub struct Syncs {
    pub latencies_us: Vec<u32>,
    pub elapsed_us: u64,
}

/// A file of its own beside the ledger.
pub struct Disk {
    file: File,
    path: PathBuf,
}

impl Disk {
    /// # Errors
    /// The directory cannot be written.
    pub fn beside(ledger: &Path) -> io::Result<Self> {
        let path = ledger.with_extension("disk");
        let file = File::create(&path)?;
        Ok(Self { file, path })
    }

    /// Appends and syncs for `time_us`, at least once.
    ///
    /// # Errors
    /// The disk's own.
    pub fn run(&mut self, time_us: u64, syncs: &mut Syncs) -> io::Result<()> {
        let started_us = now_us();
        let mut before_us = started_us;
        loop {
            self.file.write_all(&BLOCK)?;
            self.file.sync_data()?;
            let after_us = now_us();
            syncs.latencies_us.push(micros(after_us - before_us));
            before_us = after_us;
            if after_us - started_us >= time_us {
                syncs.elapsed_us += after_us - started_us;
                return Ok(());
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What is left over goes with the home.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_of_no_time_syncs_once_and_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = dir.path().join("aex.db");
        let mut syncs = Syncs::default();
        let mut disk = Disk::beside(&ledger).unwrap();
        disk.run(0, &mut syncs).unwrap();
        drop(disk);
        assert_eq!(syncs.latencies_us.len(), 1);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

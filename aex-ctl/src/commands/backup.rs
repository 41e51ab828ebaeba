//! `aex ledger backup`: aex-admin makes the copy, this program puts it where its user may write.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aex_admin_proto::operator::{BackupParams, BackupPart, BackupPartParams, BackupReply, method};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::ledger::AUDIT_LIMIT;
use crate::fault::Fault;
use crate::link::{Kernel, Link};
use crate::output::Out;

pub(super) async fn run(file: &Path, kernel: &Kernel, out: Out) -> Result<u8, Fault> {
    let path = std::path::absolute(file).map_err(|error| Fault::file("find", file, &error))?;
    if path.symlink_metadata().is_ok() {
        return Err(there_already(&path));
    }
    let link = kernel.open().await?;
    let partial = Partial::create(&path)?;
    let params = BackupParams::default();
    let mut done: BackupReply = link
        .call_within(method::LEDGER_BACKUP, &params, AUDIT_LIMIT)
        .await?;
    copy(&link, &done, &partial).await?;
    partial.name(&path)?;
    done.path = path.display().to_string();
    done.id = None;
    out.answer(&done, || {
        format!(
            "{}: {} bytes, up to event {}. Check it with `aex-admin audit --db {}`.",
            done.path, done.bytes, done.event, done.path
        )
    })?;
    Ok(0)
}

fn there_already(path: &Path) -> Fault {
    Fault::Refused(format!(
        "{} is there already; choose another name",
        path.display()
    ))
}

async fn copy(link: &Link, made: &BackupReply, partial: &Partial) -> Result<(), Fault> {
    let id = made.id.ok_or_else(|| {
        Fault::failed("the kernel's answer is of another form: is aex-admin of the same version?")
    })?;
    let mut offset: u64 = 0;
    loop {
        let params = BackupPartParams { id, offset };
        let part: BackupPart = link.call(method::LEDGER_BACKUP_PART, &params).await?;
        let bytes = STANDARD
            .decode(&part.data)
            .map_err(|error| Fault::failed(format!("a part of the backup is damaged: {error}")))?;
        if bytes.is_empty() {
            break;
        }
        partial.write(&bytes)?;
        offset = offset.saturating_add(bytes.len() as u64);
    }
    if offset == made.bytes {
        return Ok(());
    }
    let text = format!("{offset} of the backup's {} bytes came", made.bytes);
    Err(Fault::failed(text))
}

/// A file that gets its name only when it is whole, and is removed otherwise.
struct Partial {
    path: PathBuf,
    file: File,
}

impl Partial {
    fn create(of: &Path) -> Result<Self, Fault> {
        let mut name = of.as_os_str().to_owned();
        name.push(".partial");
        let path = PathBuf::from(name);
        // Left by one that was cut off.
        let _ = std::fs::remove_file(&path);
        let mut options = File::options();
        let made = options.write(true).create_new(true).mode(0o600).open(&path);
        let file = made.map_err(|error| Fault::file("write", &path, &error))?;
        Ok(Self { path, file })
    }

    fn write(&self, bytes: &[u8]) -> Result<(), Fault> {
        (&self.file)
            .write_all(bytes)
            .map_err(|error| Fault::file("write", &self.path, &error))
    }

    /// One that came meanwhile is not overwritten.
    fn name(&self, path: &Path) -> Result<(), Fault> {
        let named = self.file.sync_all().and_then(|()| {
            std::fs::hard_link(&self.path, path)?;
            let directory = path.parent().unwrap_or(Path::new("/"));
            File::open(directory)?.sync_all()
        });
        named.map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => there_already(path),
            _ => Fault::file("write", path, &error),
        })
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

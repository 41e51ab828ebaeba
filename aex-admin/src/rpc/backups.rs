//! Backups of the ledger. One that is named is written where `aex-admin` may write; another has no name,
//! and is read part by part by whoever asked, who puts it where `aex-admin` cannot reach.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use aex_admin_proto::operator::{
    BACKUP_PART_BYTES, BackupParams, BackupPart, BackupPartParams, BackupReply,
};
use aex_admin_proto::rpc::{RpcError, code};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Kernel;
use super::operator::aside;
use crate::ledger::{LedgerError, backup};

/// The copy without a name that was made last.
pub(super) struct Unnamed {
    id: u64,
    file: Arc<File>,
}

pub(super) async fn make(kernel: &Kernel, asked: BackupParams) -> Result<BackupReply, RpcError> {
    let Some(path) = asked.path else {
        return unnamed(kernel).await;
    };
    aside(
        kernel,
        &kernel.operators.at_long_work,
        "a backup",
        move |ledger| {
            backup::write(&ledger, Path::new(&path)).map_err(|error| match error {
            LedgerError::File { path, source }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                let text = format!(
                    "aex-admin may not write {}: it writes in its own directory alone. `aex ledger \
                     backup FILE` writes where you may",
                    path.display()
                );
                LedgerError::Refused(text)
            }
            other => other,
        })
        },
    )
    .await
}

async fn unnamed(kernel: &Kernel) -> Result<BackupReply, RpcError> {
    let made = aside(
        kernel,
        &kernel.operators.at_long_work,
        "a backup",
        |ledger| backup::unnamed(&ledger),
    );
    let (mut reply, file) = made.await?;
    let id = kernel.next_session();
    reply.id = Some(id);
    let made = Unnamed {
        id,
        file: Arc::new(file),
    };
    *kernel.backup.lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
    Ok(reply)
}

pub(super) async fn part(kernel: &Kernel, asked: BackupPartParams) -> Result<BackupPart, RpcError> {
    let of = |kept: &Option<Unnamed>| {
        let kept = kept.as_ref().filter(|kept| kept.id == asked.id);
        kept.map(|kept| Arc::clone(&kept.file))
    };
    let kept = || kernel.backup.lock().unwrap_or_else(PoisonError::into_inner);
    let file = of(&kept()).ok_or_else(|| {
        let text = "there is no such backup any more: another was made meanwhile; make it again";
        RpcError::new(code::CONFLICT, text)
    })?;
    let read = tokio::task::spawn_blocking(move || read_part(&file, asked.offset)).await;
    let bytes = match read {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => return Err(RpcError::new(code::INTERNAL, error.to_string())),
        Err(_) => return Err(RpcError::new(code::INTERNAL, "the backup was lost")),
    };
    if bytes.is_empty() {
        kept().take_if(|kept| kept.id == asked.id);
    }
    Ok(BackupPart {
        data: STANDARD.encode(bytes),
    })
}

fn read_part(file: &File, offset: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; BACKUP_PART_BYTES as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], offset.saturating_add(filled as u64))? {
            0 => break,
            more => filled += more,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

//! A thread of its own with a connection that can only read: views never wait for the writer, and
//! the sockets never wait for views.

use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};

use aex_admin_proto::rpc::{RpcError, code};
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::ledger::{self, LedgerError};

type Job = Box<dyn FnOnce(&Connection) + Send>;

pub(super) struct Reader {
    jobs: Sender<Job>,
}

impl Reader {
    pub(super) fn start(path: PathBuf) -> Self {
        let (jobs, queue) = channel::<Job>();
        std::thread::spawn(move || {
            let conn = match ledger::open_read_only(&path) {
                Ok(conn) => conn,
                Err(error) => {
                    tracing::error!(%error, "no reader of the ledger");
                    return;
                }
            };
            while let Ok(job) = queue.recv() {
                job(&conn);
            }
        });
        Self { jobs }
    }

    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, RpcError> {
        let (sender, receiver) = oneshot::channel();
        let gone = || RpcError::new(code::UNAVAILABLE, "the ledger cannot be read now");
        let job: Job = Box::new(move |conn| {
            let _ = sender.send(job(conn));
        });
        self.jobs.send(job).map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())?.map_err(|error| {
            tracing::error!(%error, "a view failed");
            RpcError::new(code::INTERNAL, error.to_string())
        })
    }
}

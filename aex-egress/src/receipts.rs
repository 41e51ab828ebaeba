//! Tells `aex-admin` how exchanges ended: one call at a time, with all that gathered meanwhile.
//!
//! A receipt is owed until it is acknowledged; the register keeps it, here it is only in flight.

use std::time::Duration;

use aex_admin_proto::client::{CallError, Client};
use aex_admin_proto::egress::{RECEIPTS, ReceiptsParams};
use serde::de::IgnoredAny;
use tokio::time::sleep;

use crate::register::Register;

const CALL_LIMIT: Duration = Duration::from_secs(30);
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// Runs for as long as the process.
pub async fn run(client: &Client, register: &Register) {
    loop {
        if !register.owes_receipts() {
            register.owing.notified().await;
        } else if !send_batch(client, register).await {
            sleep(REFUSED_PAUSE).await;
        }
    }
}

/// Sends what is owed, until nothing is. For a stop; the caller bounds the time.
pub async fn flush(client: &Client, register: &Register) {
    while register.owes_receipts() {
        if !send_batch(client, register).await {
            sleep(REFUSED_PAUSE).await;
        }
    }
}

/// False: `aex-admin` did not take it and should be left alone for a moment.
async fn send_batch(client: &Client, register: &Register) -> bool {
    let batch = Batch::take(register);
    let answer = client
        .call::<_, IgnoredAny>(RECEIPTS, &batch.params, CALL_LIMIT)
        .await;
    match answer {
        Ok(_) => {
            batch.acknowledged();
            true
        }
        Err(CallError::Lost | CallError::NotConnected(_) | CallError::Timeout) => true,
        Err(error) => {
            tracing::error!(%error, "aex-admin did not take receipts; they are sent again");
            false
        }
    }
}

/// Receipts in flight. Dropped without an answer, they are owed again.
struct Batch<'a> {
    register: &'a Register,
    params: ReceiptsParams,
}

impl<'a> Batch<'a> {
    fn take(register: &'a Register) -> Self {
        Self {
            register,
            params: ReceiptsParams {
                receipts: register.take_batch(),
                journal_begun_boot_ms: register.journal_begun_boot_ms(),
            },
        }
    }

    fn acknowledged(mut self) {
        let receipts = std::mem::take(&mut self.params.receipts);
        self.register.acknowledged(&receipts);
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if !self.params.receipts.is_empty() {
            self.register
                .give_back(std::mem::take(&mut self.params.receipts));
        }
    }
}

//! What the egress may ask, and how orders reach it.

use std::sync::Arc;
use std::time::Duration;

use aex_admin_proto::egress::{
    self, EgressConfig, Orders, OrdersParams, ReceiptsParams, SharedTicketKey,
};
use aex_admin_proto::worker::POLL_MS;
use serde_json::value::RawValue;

use super::kernel::EgressState;
use super::{Call, Kernel, params, reply_as};
use crate::writer::Command;

pub(super) fn dispatch(
    kernel: &Arc<Kernel>,
    call: Call,
    method: &str,
    raw: Option<&RawValue>,
) -> Option<()> {
    if method == egress::RECEIPTS {
        let (call, said): (_, ReceiptsParams) = params(call, raw)?;
        let reply = reply_as(call, |()| serde_json::Map::new());
        kernel.send(Command::Receipts { said, reply });
        return Some(());
    }
    let (call, said): (_, OrdersParams) = params(call, raw)?;
    kernel.set_operator_keys(&said.operator_keys);
    let session = call.session;
    kernel.egress.send_modify(|state| {
        let same = state.session == Some(session);
        let offered = state.offered.filter(|_| same);
        *state = EgressState {
            session: Some(session),
            said,
            offered,
        };
    });
    let kernel = Arc::clone(kernel);
    tokio::spawn(async move {
        let orders = orders(&kernel, session).await;
        call.answer(Ok(orders));
    });
    Some(())
}

/// What there is to do; empty when the poll has lasted.
async fn orders(kernel: &Kernel, session: u64) -> Orders {
    let wait = async {
        let mut offered = kernel.offered.subscribe();
        loop {
            if kernel.egress.borrow().session != Some(session) {
                // Another egress is there: what is ordered is for it.
                kernel.shared.orders_wait.notify_one();
                return Orders::default();
            }
            let config = news(kernel, session);
            let pending = kernel.shared.take_orders();
            if config.is_some() || !pending.void.is_empty() || !pending.cut.is_empty() {
                return Orders {
                    config,
                    void: pending.void,
                    cut: pending.cut,
                };
            }
            tokio::select! {
                () = kernel.shared.orders_wait.notified() => {}
                _ = offered.changed() => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_millis(POLL_MS), wait)
        .await
        .unwrap_or_default()
}

/// The configuration, unless this egress acts on it, or was offered it and refused.
fn news(kernel: &Kernel, session: u64) -> Option<EgressConfig> {
    let offered = kernel.offered.borrow().clone();
    let mut wanted = false;
    kernel.egress.send_if_modified(|state| {
        let generation = Some(offered.generation);
        wanted = state.session == Some(session)
            && state.said.acting_on != generation
            && state.offered != generation;
        if wanted {
            state.offered = generation;
        }
        false
    });
    wanted.then(|| EgressConfig {
        generation: offered.generation,
        ticket_key: SharedTicketKey {
            id: kernel.ticket_key.id(),
            secret: hex::encode(kernel.ticket_key.expose()),
        },
        providers: offered
            .config
            .providers
            .values()
            .map(|p| p.for_egress())
            .collect(),
    })
}

//! Carries out what `aex-admin` orders: take up a configuration, void tickets, cut exchanges.
//!
//! Its absence stops nothing: tickets that are out stay good, and no others can come.

use std::sync::Arc;
use std::time::Duration;

use aex_admin_proto::client::{CallError, Client};
use aex_admin_proto::egress::{EgressConfig, Failure, ORDERS, Orders, OrdersParams};
use aex_admin_proto::worker::POLL_MS;
use tokio::time::sleep;

use crate::EgressError;
use crate::forward::Egress;
use crate::keys::KeyRing;
use crate::provider::Active;
use crate::tls::SystemTrust;

const CALL_LIMIT: Duration = Duration::from_millis(POLL_MS + 15_000);
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// What this process has to say of itself on one connection.
struct Standing {
    egress: Arc<Egress>,
    keys: KeyRing,
    system: Arc<SystemTrust>,
    /// Number of the connection that the rest is about.
    connection: u64,
    acting_on: Option<u64>,
    problem: Option<Problem>,
    /// Nobody looks at what this process says but a service manager: see [`run`].
    ends_on_forbidden_key: bool,
}

struct Problem {
    generation: u64,
    text: String,
}

/// Runs for as long as the process. With `ends_on_forbidden_key` it ends where an operator's key is there
/// that must not exist, and nothing is served yet: a start that is refused.
///
/// # Errors
/// That, and nothing else.
pub async fn run(
    client: &Client,
    egress: Arc<Egress>,
    keys: KeyRing,
    ends_on_forbidden_key: bool,
) -> Result<(), EgressError> {
    let mut connections = client.connections();
    let mut standing = Standing {
        egress,
        keys,
        system: Arc::default(),
        connection: 0,
        acting_on: None,
        problem: None,
        ends_on_forbidden_key,
    };
    loop {
        // Ends only with the client, which the caller holds.
        let Ok(number) = connections
            .wait_for(|&number| number != 0)
            .await
            .map(|n| *n)
        else {
            return Ok(());
        };
        standing.on_connection(number);
        let params = standing.params();
        match client.call::<_, Orders>(ORDERS, &params, CALL_LIMIT).await {
            Ok(orders) => {
                let is_stuck = !standing.carry_out(orders)?;
                if is_stuck {
                    sleep(REFUSED_PAUSE).await;
                }
            }
            Err(CallError::Lost | CallError::NotConnected(_) | CallError::Timeout) => {}
            Err(error) => {
                tracing::error!(%error, "aex-admin gave no orders; asking again");
                sleep(REFUSED_PAUSE).await;
            }
        }
    }
}

impl Standing {
    /// A new connection may be to a new `aex-admin`, whose generations count anew: it is told that
    /// nothing is acted on, and answers with everything.
    fn on_connection(&mut self, number: u64) {
        if self.connection != number {
            self.connection = number;
            self.acting_on = None;
            self.problem = None;
            tracing::info!("connected to aex-admin");
        }
    }

    fn params(&self) -> OrdersParams {
        OrdersParams {
            pid: std::process::id(),
            acting_on: self.acting_on,
            operator_keys: self
                .egress
                .active()
                .map(|active| active.operator_keys())
                .unwrap_or_default(),
            problem: self.problem.as_ref().map(|problem| problem.text.clone()),
            sandbox: aex_sandbox::in_force(),
        }
    }

    /// False: the same configuration cannot be taken up again, and asking at once would be idle.
    fn carry_out(&mut self, orders: Orders) -> Result<bool, EgressError> {
        for id in orders.cut {
            self.egress.register.cut(id, Failure::Severed);
        }
        for id in orders.void {
            self.egress.register.void(id);
        }
        let Some(config) = orders.config else {
            return Ok(true);
        };
        let generation = config.generation;
        let done = match self.take_up(config) {
            Err(error @ EgressError::KeyForbidden { .. })
                if self.ends_on_forbidden_key && self.egress.active().is_none() =>
            {
                return Err(error);
            }
            Ok(()) => {
                self.acting_on = Some(generation);
                self.problem = None;
                tracing::info!(generation, "configuration taken up");
                true
            }
            Err(error) => {
                let text = error.to_string();
                let known = self.problem.as_ref();
                let is_new = known.is_none_or(|p| p.generation != generation || p.text != text);
                if is_new {
                    tracing::error!(generation, problem = text, "configuration refused");
                }
                self.problem = Some(Problem { generation, text });
                is_new
            }
        };
        Ok(done)
    }

    fn take_up(&self, config: EgressConfig) -> Result<(), EgressError> {
        let before = self.egress.active();
        let active = Active::build(config, &self.keys, &self.system, before.as_deref())?;
        self.egress.activate(Arc::new(active));
        Ok(())
    }
}

//! What `aex-egress` and `aex-admin` say to each other. The egress always calls; orders reach it as
//! the answer of a long poll.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::HoldId;
use crate::sandbox::InForce;

/// [`OrdersParams`] → [`Orders`]. Long poll: answers when there is something to do, or after
/// [`crate::worker::POLL_MS`].
pub const ORDERS: &str = "egress.orders";
/// [`ReceiptsParams`] → `{}`. Answered when the receipts are safe; resent until then. Idempotent.
pub const RECEIPTS: &str = "egress.receipts";

/// Most exchanges under way with one provider.
pub const MAX_EXCHANGES: u32 = 1024;

/// Most receipts in one call.
pub const MAX_RECEIPTS: usize = 512;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrdersParams {
    pub pid: u32,
    /// Generation of the configuration that the egress acts on; absent at first.
    pub acting_on: Option<u64>,
    /// Providers for which an operator's key is loaded. Names, never keys.
    pub operator_keys: Vec<String>,
    /// Why the newest configuration could not be taken up (bad CA file, forbidden key, …).
    pub problem: Option<String>,
    #[serde(default)]
    pub sandbox: InForce,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// Present when it differs from `acting_on`.
    pub config: Option<EgressConfig>,
    /// Answer for each with a receipt: its true ending, or [`Ending::Unknown`]. Either way it cannot be
    /// redeemed any more.
    pub void: Vec<HoldId>,
    /// Cut these exchanges now.
    pub cut: Vec<HoldId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressConfig {
    pub generation: u64,
    pub ticket_key: SharedTicketKey,
    pub providers: Vec<ProviderConfig>,
}

/// The ticket key on its way to the egress. Never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedTicketKey {
    pub id: u32,
    /// 64 hexadecimal digits.
    pub secret: String,
}

impl fmt::Debug for SharedTicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedTicketKey({}, redacted)", self.id)
    }
}

/// Whose keys a provider is used with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyPolicy {
    Operator,
    /// Strict BYOK: an operator's key for it must not exist.
    Passthrough,
    #[default]
    Either,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderConfig {
    pub name: String,
    /// `http://` or `https://`, host, optional port and path, without a trailing slash.
    pub base_url: String,
    pub keys: KeyPolicy,
    /// PEM file whose certificates alone are trusted for this provider.
    pub ca_file: Option<String>,
    pub connect_timeout_ms: u64,
    pub request_timeout_ms: u64,
}

/// Why an exchange ended otherwise than by the provider's complete answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// No connection: nothing was sent.
    Connect,
    /// No TLS session: nothing was sent.
    Tls,
    /// No provider of that name, or no key for it: nothing was sent.
    NotConfigured,
    /// The ticket is missing, forged, used, expired, or for something else: nothing was sent.
    Ticket,
    /// The request's body was cut, or over `max_body_bytes`: the provider has no whole request.
    RequestBody,
    /// The connection broke after sending began.
    Reset,
    /// The deadline passed.
    Timeout,
    /// The answer was over `max_response_bytes`.
    ResponseTooLarge,
    /// Cut by order.
    Severed,
    /// The worker went away.
    WorkerGone,
    /// The egress stopped, or was killed, in mid-exchange.
    EgressGone,
}

impl Failure {
    /// The wire name, as in `x-aex-egress-failure`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::NotConfigured => "not_configured",
            Self::Ticket => "ticket",
            Self::RequestBody => "request_body",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::ResponseTooLarge => "response_too_large",
            Self::Severed => "severed",
            Self::WorkerGone => "worker_gone",
            Self::EgressGone => "egress_gone",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        const ALL: [Failure; 11] = [
            Failure::Connect,
            Failure::Tls,
            Failure::NotConfigured,
            Failure::Ticket,
            Failure::RequestBody,
            Failure::Reset,
            Failure::Timeout,
            Failure::ResponseTooLarge,
            Failure::Severed,
            Failure::WorkerGone,
            Failure::EgressGone,
        ];
        ALL.into_iter().find(|failure| failure.as_str() == text)
    }
}

/// Header by which the egress tells the worker that it, not the provider, made this answer.
pub const FAILURE_HEADER: &str = "x-aex-egress-failure";
/// Header that carries the ticket from worker to egress.
pub const TICKET_HEADER: &str = "x-aex-ticket";
/// Header that carries an agent's own provider key from worker to egress.
pub const OWN_KEY_HEADER: &str = "x-aex-provider-key";

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptsParams {
    pub receipts: Vec<Receipt>,
    /// Since when the egress knows every redemption: a hold that was granted later, and of which it
    /// says [`Ending::Unknown`], was never sent. Boot clock.
    pub journal_begun_boot_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub id: HoldId,
    pub ending: Ending,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Not an ending yet: a stream's answer head came. Sent for streams alone.
    Opened { head_boot_ms: u64 },
    /// The exchange is over.
    Ended(Exchange),
    /// The ticket was never redeemed and never can be now. `aex-admin` makes this of an `Unknown`
    /// that is younger than the journal.
    Voided,
    /// The egress does not know it, and will not redeem it.
    Unknown,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// A byte may have reached the provider.
    pub sent: bool,
    pub status: Option<u16>,
    pub failure: Option<Failure>,
    pub bytes_up: u64,
    pub bytes_down: u64,
    /// The provider's answer came to its proper end.
    pub complete: bool,
    /// When the answer's head came, else when the exchange ended; boot clock.
    pub head_boot_ms: u64,
}

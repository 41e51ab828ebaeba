//! The real `aex-egress` process between a fake `aex-admin`, a fake provider, and a fake worker.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers of a test fail it where it stands"
)]

mod admin;
mod doors;
mod echoes;
mod egress;
mod forwarding;
mod hardening;
mod provider;
mod recovery;
mod refusals;
mod stopping;
mod tls;
mod worker;

use std::time::Duration;

/// Longest that a test waits for something that should come at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// A key that must turn up nowhere but in front of the provider.
const OPERATOR_KEY: &str = "sk-canary-operator-fake";
const OWN_KEY: &str = "sk-canary-own-fake";

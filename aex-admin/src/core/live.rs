//! What is going on in one scope (an agent, a model): open holds and the last 60 seconds.
//!
//! A TPM window counts open holds whatever their age, and true tokens for 60 s from settle. An RPM
//! window counts requests not known to be dispatched, and dispatched ones for 60 s from the moment
//! the provider's answer began (so by the provider's own clock, too, no 60 seconds hold more).

use super::window::Window;

#[derive(Debug, Clone, Default)]
pub struct Live {
    /// Open holds.
    pub open: u64,
    pub open_tokens: u64,
    /// Granted, and not yet in `requests`.
    pub undispatched: u64,
    pub requests: Window,
    pub tokens: Window,
}

impl Live {
    pub fn expire(&mut self, now_boot_ms: u64) {
        self.requests.expire(now_boot_ms);
        self.tokens.expire(now_boot_ms);
    }

    #[must_use]
    pub fn requests_used(&self) -> u64 {
        self.undispatched.saturating_add(self.requests.sum())
    }

    #[must_use]
    pub fn tokens_used(&self) -> u64 {
        self.open_tokens.saturating_add(self.tokens.sum())
    }

    pub fn opened(&mut self, tokens: u64) {
        self.open += 1;
        self.undispatched += 1;
        self.open_tokens = self.open_tokens.saturating_add(tokens);
    }

    /// The provider's answer began at `at_boot_ms`.
    pub fn dispatched(&mut self, at_boot_ms: u64) {
        self.undispatched = self.undispatched.saturating_sub(1);
        self.requests.add(at_boot_ms, 1);
    }

    /// A hold of `held_tokens` ended with `true_tokens` used.
    pub fn ended(&mut self, held_tokens: u64, true_tokens: u64, now_boot_ms: u64) {
        self.open = self.open.saturating_sub(1);
        self.open_tokens = self.open_tokens.saturating_sub(held_tokens);
        self.tokens.add(now_boot_ms, true_tokens);
    }

    /// A hold that was never sent gives its slot back.
    pub fn never_sent(&mut self) {
        self.undispatched = self.undispatched.saturating_sub(1);
    }

    /// Nothing is going on and nothing is remembered.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.open == 0 && self.requests.sum() == 0 && self.tokens.sum() == 0
    }
}

//! Whether a request that failed at one target may be tried at another. Pure.
//!
//! Only where nothing of a provider's answer has come: whatever began may have been paid for and seen.

use aex_admin_proto::egress::Failure;

/// By what came of it: the provider's status, or how the egress failed. A refusal of the request itself
/// (any other 4xx) would be the same elsewhere.
#[must_use]
pub fn may_go_elsewhere(status: Option<u16>, failure: Option<Failure>) -> bool {
    match (failure, status) {
        (
            Some(
                Failure::Connect
                | Failure::Tls
                | Failure::NotConfigured
                | Failure::Reset
                | Failure::Timeout,
            ),
            _,
        ) => true,
        (Some(_), _) => false,
        (None, Some(status)) => matches!(status, 408 | 429 | 500..=599),
        (None, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_be_different_elsewhere() {
        for (status, expected) in [
            (200, false),
            (302, false),
            (400, false),
            (401, false),
            (404, false),
            (408, true),
            (409, false),
            (422, false),
            (429, true),
            (500, true),
            (502, true),
            (503, true),
            (504, true),
            (529, true),
            (600, false),
        ] {
            assert_eq!(may_go_elsewhere(Some(status), None), expected, "{status}");
        }
        for (failure, expected) in [
            (Failure::Connect, true),
            (Failure::Tls, true),
            (Failure::NotConfigured, true),
            (Failure::Reset, true),
            (Failure::Timeout, true),
            (Failure::Ticket, false),
            (Failure::RequestBody, false),
            (Failure::ResponseTooLarge, false),
            (Failure::Severed, false),
            (Failure::WorkerGone, false),
            (Failure::EgressGone, false),
        ] {
            assert_eq!(
                may_go_elsewhere(None, Some(failure)),
                expected,
                "{failure:?}"
            );
            assert_eq!(may_go_elsewhere(Some(502), Some(failure)), expected);
        }
        assert!(!may_go_elsewhere(None, None));
    }
}

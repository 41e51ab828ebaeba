use super::*;

/// Status, code, detail, then the headers that steer a client.
fn line(row: &Row) -> String {
    let mut line = format!("{} {} {}", row.status.as_u16(), row.code, row.message);
    for (name, value) in &row.headers {
        line += &format!(" | {name}: {}", value.to_str().unwrap());
    }
    line
}

fn refusals() -> Vec<(Refusal, &'static str)> {
    let model = || "m".to_owned();
    vec![
        (
            Refusal::InvalidToken,
            "401 invalid_api_key Invalid API token | x-should-retry: false",
        ),
        (
            Refusal::TokenExpired,
            "401 invalid_api_key API token has expired | x-should-retry: false",
        ),
        (
            Refusal::AgentPaused,
            "423 agent_paused Agent is paused | x-should-retry: false",
        ),
        (
            Refusal::ModelNotFound { model: model() },
            "404 model_not_found no such model: m",
        ),
        (
            Refusal::ModelNotAllowed { model: model() },
            "403 model_not_allowed Model not allowed | x-should-retry: false",
        ),
        (
            Refusal::ModelNotPriced { model: model() },
            "403 model_not_priced Model not priced | x-should-retry: false",
        ),
        (
            Refusal::CapabilityNotAllowed {
                capability: "tool x".into(),
            },
            "403 capability_not_allowed Capability not allowed: tool x | x-should-retry: false",
        ),
        (
            Refusal::PassthroughNotEnabled,
            "403 passthrough_not_enabled Passthrough mode not enabled for this agent | x-should-retry: false",
        ),
        (
            Refusal::ProviderKeyRequired,
            "403 provider_key_required Provider key required | x-should-retry: false",
        ),
        (
            Refusal::PolicyForbids {
                policy: "no-dear".into(),
                reason: Some("ask for less".into()),
            },
            "403 policy_forbids Forbidden by policy: ask for less | x-should-retry: false",
        ),
        (
            Refusal::PolicyForbids {
                policy: "a.cedar:3".into(),
                reason: None,
            },
            "403 policy_forbids Forbidden by policy: a.cedar:3 | x-should-retry: false",
        ),
        (
            Refusal::InvalidRequest {
                message: "no".into(),
                param: Some("top_k".into()),
            },
            "400 invalid_request no",
        ),
        (
            Refusal::BodyTooLarge { limit_bytes: 9 },
            "413 body_too_large body too large: 9 bytes at most",
        ),
        (
            Refusal::ConcurrencyLimit { limit: 2 },
            "429 rate_limit_exceeded Concurrency limit exceeded | retry-after: 1",
        ),
        (
            Refusal::RequestRate {
                limit: 10,
                retry_after_ms: 12_001,
            },
            "429 rate_limit_exceeded RPM Rate limit exceeded | retry-after: 13 \
             | x-ratelimit-limit-requests: 10 | x-ratelimit-remaining-requests: 0 \
             | x-ratelimit-reset-requests: 13s",
        ),
        (
            Refusal::TokenRate {
                limit: 1000,
                remaining: 4,
                retry_after_ms: 250,
                never: false,
            },
            "429 rate_limit_exceeded TPM Rate limit exceeded | retry-after: 1 \
             | x-ratelimit-limit-tokens: 1000 | x-ratelimit-remaining-tokens: 4 \
             | x-ratelimit-reset-tokens: 250ms",
        ),
        (
            Refusal::TokenRate {
                limit: 1000,
                remaining: 4,
                retry_after_ms: 300_000,
                never: true,
            },
            "429 rate_limit_exceeded TPM Rate limit exceeded | retry-after: 60 \
             | x-ratelimit-limit-tokens: 1000 | x-ratelimit-remaining-tokens: 4 \
             | x-ratelimit-reset-tokens: 300s | x-should-retry: false",
        ),
        (
            Refusal::InsufficientBudget {
                scope: "atlas".into(),
                needed_micro: 5,
                remaining_micro: 3,
                affordable_output_tokens: 1,
            },
            "402 insufficient_budget Insufficient budget | x-should-retry: false",
        ),
        (
            Refusal::BudgetHeld {
                scope: "atlas".into(),
                needed_micro: 5,
                free_micro: 1,
                held_micro: 9,
            },
            "429 budget_held Budget held by requests in flight | retry-after: 1",
        ),
    ]
}

#[test]
fn each_refusal_is_told_as_the_contract_says() {
    for (refusal, expected) in refusals() {
        assert_eq!(line(&of_refusal(&refusal)), expected);
    }
}

#[test]
fn each_fault_is_told_as_the_contract_says() {
    for (fault, expected) in [
        (
            Fault::NotAuthenticated,
            "401 invalid_api_key Not authenticated | x-should-retry: false",
        ),
        (
            Fault::InvalidToken,
            "401 invalid_api_key Invalid API token | x-should-retry: false",
        ),
        (
            Fault::NoModel("m".into()),
            "404 model_not_found no such model: m",
        ),
        (
            Fault::MethodNotAllowed { allow: "POST" },
            "405 method_not_allowed this route takes POST alone | allow: POST",
        ),
        (
            Fault::Kernel("away".into()),
            "503 kernel_unavailable away | retry-after: 1",
        ),
        (Fault::Upstream("gone".into()), "502 upstream_error gone"),
        (
            Fault::UpstreamTimeout,
            "504 upstream_error the provider did not answer in time",
        ),
        (
            Fault::Severed,
            "423 agent_paused Agent is paused | x-should-retry: false",
        ),
    ] {
        assert_eq!(line(&fault.row()), expected);
    }
}

#[test]
fn no_text_of_a_402_or_403_reads_like_a_rate_limit() {
    for (refusal, _) in refusals() {
        let row = of_refusal(&refusal);
        let body = String::from_utf8(row.body().to_vec())
            .unwrap()
            .to_lowercase();
        if matches!(row.status.as_u16(), 402 | 403) {
            for word in ["429", "rate limit", "rate_limit", "too many requests"] {
                assert!(!body.contains(word), "{body}");
            }
        }
    }
}

#[test]
fn the_form_is_read_by_scripts_and_sdks_alike() {
    let refusal = Refusal::InsufficientBudget {
        scope: "atlas".into(),
        needed_micro: 5,
        remaining_micro: 3,
        affordable_output_tokens: 1,
    };
    let body: Value = serde_json::from_slice(&of_refusal(&refusal).body()).unwrap();
    assert_eq!(
        body,
        serde_json::json!({
            "detail": "Insufficient budget",
            "error": {
                "message": "Insufficient budget",
                "type": "insufficient_quota",
                "code": "insufficient_budget",
                "param": null,
                "aex": {
                    "scope": "atlas",
                    "needed_micro": 5,
                    "remaining_micro": 3,
                    "affordable_output_tokens": 1,
                },
            },
        })
    );
    let event = Fault::Severed.row().event();
    assert!(event.starts_with(b"data: {\"error\":{\"message\":\"Agent is paused\""));
    assert!(event.ends_with(b"}\n\n"));
}

#[test]
fn a_providers_error_gains_a_detail_and_loses_nothing() {
    for (body, expected) in [
        (
            r#" {"error":{"message":"slow \"down\"","n":1.50}}"#,
            Some(r#" {"detail":"slow \"down\"","error":{"message":"slow \"down\"","n":1.50}}"#),
        ),
        (r#"{"error":"no"}"#, Some(r#"{"detail":"no","error":"no"}"#)),
        (
            r#"{"message":"m"}"#,
            Some(r#"{"detail":"m","message":"m"}"#),
        ),
        (
            "{}",
            Some(r#"{"detail":"The provider answered with an error"}"#),
        ),
        (r#"{"detail":"theirs"}"#, None),
        ("[]", None),
        ("<html>", None),
        ("", None),
    ] {
        let found = with_detail(body.as_bytes());
        let found = found.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
        assert_eq!(found.as_deref(), expected, "{body}");
    }
}

//! The table itself: a row for each refusal and each fault, in the order of their enums.

use aex_admin_proto::scope::ScopeKind;
use aex_admin_proto::{IdempotencyConflict, Refusal};
use http::StatusCode;
use http::header::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::{Fault, Row, allow, retry_after, should_not_retry};

/// The types that OpenAI's own errors have.
const INVALID: &str = "invalid_request_error";
const AUTHENTICATION: &str = "authentication_error";
const QUOTA: &str = "insufficient_quota";
const PERMISSION: &str = "permission_error";
const RATE: &str = "rate_limit_error";
const SERVER: &str = "server_error";
const UPSTREAM: &str = "upstream_error";

fn row(status: StatusCode, kind: &'static str, code: &'static str, message: String) -> Row {
    let mut headers = Vec::new();
    if matches!(status.as_u16(), 401..=403 | 423) {
        headers.push(should_not_retry());
    }
    Row {
        status,
        kind,
        code,
        message,
        param: None,
        figures: Map::new(),
        headers,
    }
}

fn figures(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

pub(super) fn of_refusal(refusal: &Refusal) -> Row {
    let text = refusal.to_string();
    match refusal {
        Refusal::HoldIdReused | Refusal::Cancelled => kernel(text),
        Refusal::InvalidToken | Refusal::WrongPeer { .. } | Refusal::TokenExpired => {
            unauthorized(text)
        }
        Refusal::AgentPaused => paused(),
        Refusal::IdempotencyConflict { conflict } => asked_before(text, *conflict),
        Refusal::ModelNotFound { .. } => no_model(text),
        Refusal::ModelNotAllowed { .. } => forbidden("model_not_allowed", text, Some("model")),
        Refusal::ModelNotPriced { .. } => forbidden("model_not_priced", text, Some("model")),
        Refusal::CapabilityNotAllowed { .. } => forbidden("capability_not_allowed", text, None),
        Refusal::PassthroughNotEnabled => forbidden("passthrough_not_enabled", text, None),
        Refusal::ProviderKeyRequired => forbidden("provider_key_required", text, None),
        Refusal::PolicyForbids { .. } => forbidden("policy_forbids", text, None),
        Refusal::InvalidRequest { message, param } => invalid(message.clone(), param.clone()),
        Refusal::BodyTooLarge { limit_bytes } => too_large(*limit_bytes),
        Refusal::ConcurrencyLimit { limit } => concurrency(text, *limit),
        Refusal::RequestRate {
            limit,
            retry_after_ms,
        } => request_rate(text, *limit, *retry_after_ms),
        Refusal::TokenRate {
            limit,
            remaining,
            retry_after_ms,
            never,
        } => token_rate(text, *limit, *remaining, *retry_after_ms, *never),
        Refusal::InsufficientBudget {
            scope,
            needed_micro,
            remaining_micro,
            affordable_output_tokens,
        } => Row {
            figures: figures(json!({
                "scope": scope,
                "needed_micro": needed_micro,
                "remaining_micro": remaining_micro,
                "affordable_output_tokens": affordable_output_tokens,
            })),
            ..row(
                StatusCode::PAYMENT_REQUIRED,
                QUOTA,
                "insufficient_budget",
                text,
            )
        },
        Refusal::BudgetHeld {
            scope,
            needed_micro,
            free_micro,
            held_micro,
        } => Row {
            figures: figures(json!({
                "scope": scope,
                "needed_micro": needed_micro,
                "free_micro": free_micro,
                "held_micro": held_micro,
            })),
            ..held(text)
        },
        Refusal::LimitSpent {
            scope,
            limit,
            needed,
            remaining,
            resets_at_ms,
        } => Row {
            figures: figures(json!({
                "scope": scope,
                "limit": limit,
                "needed": needed,
                "remaining": remaining,
                "resets_at_ms": resets_at_ms,
            })),
            ..row(
                StatusCode::PAYMENT_REQUIRED,
                QUOTA,
                "insufficient_budget",
                text,
            )
        },
        Refusal::LimitHeld {
            scope,
            limit,
            needed,
            free,
            held: held_now,
        } => Row {
            figures: figures(json!({
                "scope": scope,
                "limit": limit,
                "needed": needed,
                "free": free,
                "held": held_now,
            })),
            ..held(text)
        },
        Refusal::Above { scope, why } => above(*scope, of_refusal(why)),
    }
}

fn held(text: String) -> Row {
    Row {
        headers: vec![retry_after(1000)],
        ..row(StatusCode::TOO_MANY_REQUESTS, RATE, "budget_held", text)
    }
}

/// When to come again may be known of a scope that is not the token's own, and nothing else of it.
fn above(scope: ScopeKind, mut row: Row) -> Row {
    row.figures = figures(json!({ "scope": scope.name() }));
    row.headers
        .retain(|(name, _)| !name.as_str().starts_with("x-ratelimit-"));
    row
}

pub(super) fn of_fault(fault: &Fault) -> Row {
    match fault {
        Fault::NotAuthenticated => unauthorized("Not authenticated".into()),
        Fault::InvalidToken => unauthorized(Refusal::InvalidToken.to_string()),
        Fault::NoRoute => row(
            StatusCode::NOT_FOUND,
            INVALID,
            "not_found",
            "no such route; AEX serves POST /v1/chat/completions, /v1/completions, /v1/embeddings \
             and /v1/responses, and GET /v1/models"
                .into(),
        ),
        Fault::NoModel(model) => no_model(
            Refusal::ModelNotFound {
                model: model.clone(),
            }
            .to_string(),
        ),
        Fault::NoToken(id) => row(
            StatusCode::NOT_FOUND,
            INVALID,
            "not_found",
            format!("this agent has no token {id}; GET /v1/aex/tokens lists them"),
        ),
        Fault::MethodNotAllowed { allow: method } => Row {
            headers: vec![allow(method)],
            ..row(
                StatusCode::METHOD_NOT_ALLOWED,
                INVALID,
                "method_not_allowed",
                format!("this route takes {method} alone"),
            )
        },
        Fault::Invalid(invalid_at) => invalid(invalid_at.message.clone(), invalid_at.param.clone()),
        Fault::BodyTooLarge { limit_bytes } => too_large(*limit_bytes),
        Fault::UnsupportedType(text) => row(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            INVALID,
            "unsupported_media_type",
            (*text).into(),
        ),
        Fault::TooSlow(text) => row(
            StatusCode::REQUEST_TIMEOUT,
            INVALID,
            "invalid_request",
            (*text).into(),
        ),
        Fault::Refused(refusal) => of_refusal(refusal),
        Fault::Kernel(why) => kernel(why.clone()),
        Fault::Upstream(why) => row(
            StatusCode::BAD_GATEWAY,
            UPSTREAM,
            "upstream_error",
            why.clone(),
        ),
        Fault::UpstreamTimeout => row(
            StatusCode::GATEWAY_TIMEOUT,
            UPSTREAM,
            "upstream_error",
            "the provider did not answer in time".into(),
        ),
        Fault::Severed => paused(),
    }
}

fn unauthorized(text: String) -> Row {
    row(
        StatusCode::UNAUTHORIZED,
        AUTHENTICATION,
        "invalid_api_key",
        text,
    )
}

fn forbidden(code: &'static str, text: String, param: Option<&str>) -> Row {
    Row {
        param: param.map(str::to_owned),
        ..row(StatusCode::FORBIDDEN, PERMISSION, code, text)
    }
}

fn invalid(message: String, param: Option<String>) -> Row {
    Row {
        param,
        ..row(StatusCode::BAD_REQUEST, INVALID, "invalid_request", message)
    }
}

fn no_model(text: String) -> Row {
    Row {
        param: Some("model".into()),
        ..row(StatusCode::NOT_FOUND, INVALID, "model_not_found", text)
    }
}

fn too_large(limit_bytes: u64) -> Row {
    row(
        StatusCode::PAYLOAD_TOO_LARGE,
        INVALID,
        "body_too_large",
        Refusal::BodyTooLarge { limit_bytes }.to_string(),
    )
}

fn paused() -> Row {
    row(
        StatusCode::LOCKED,
        PERMISSION,
        "agent_paused",
        Refusal::AgentPaused.to_string(),
    )
}

/// Clients ask again after a 409 by themselves: where that cannot help they are told not to.
fn asked_before(text: String, conflict: IdempotencyConflict) -> Row {
    let header = match conflict {
        IdempotencyConflict::StillRunning => retry_after(1000),
        IdempotencyConflict::AnotherRequest | IdempotencyConflict::NotKept => should_not_retry(),
    };
    Row {
        headers: vec![header],
        ..row(StatusCode::CONFLICT, INVALID, "idempotency_conflict", text)
    }
}

fn kernel(text: String) -> Row {
    Row {
        headers: vec![retry_after(1000)],
        ..row(
            StatusCode::SERVICE_UNAVAILABLE,
            SERVER,
            "kernel_unavailable",
            text,
        )
    }
}

fn limited(text: String, after_ms: u64, told: Value) -> Row {
    Row {
        figures: figures(told),
        headers: vec![retry_after(after_ms)],
        ..row(
            StatusCode::TOO_MANY_REQUESTS,
            RATE,
            "rate_limit_exceeded",
            text,
        )
    }
}

fn concurrency(text: String, limit: u64) -> Row {
    limited(text, 1000, json!({ "limit": limit }))
}

fn request_rate(text: String, limit: u64, after_ms: u64) -> Row {
    let told = json!({ "limit": limit, "retry_after_ms": after_ms });
    let mut row = limited(text, after_ms, told);
    row.headers.extend([
        rate("x-ratelimit-limit-requests", limit.into()),
        rate("x-ratelimit-remaining-requests", 0.into()),
        rate("x-ratelimit-reset-requests", duration(after_ms)),
    ]);
    row
}

fn token_rate(text: String, limit: u64, remaining: u64, after_ms: u64, never: bool) -> Row {
    let told = json!({ "limit": limit, "remaining": remaining, "retry_after_ms": after_ms });
    let mut row = limited(text, after_ms, told);
    row.headers.extend([
        rate("x-ratelimit-limit-tokens", limit.into()),
        rate("x-ratelimit-remaining-tokens", remaining.into()),
        rate("x-ratelimit-reset-tokens", duration(after_ms)),
    ]);
    if never {
        row.headers.push(should_not_retry());
    }
    row
}

fn rate(name: &'static str, value: HeaderValue) -> (HeaderName, HeaderValue) {
    (HeaderName::from_static(name), value)
}

/// A duration as OpenAI writes it there: `250ms`, `12s`.
fn duration(ms: u64) -> HeaderValue {
    let text = if ms < 1000 {
        format!("{ms}ms")
    } else {
        format!("{}s", ms.div_ceil(1000))
    };
    HeaderValue::from_str(&text).expect("digits and letters")
}

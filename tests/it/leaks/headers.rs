//! Headers of the agent's that the provider must not see. What comes back is judged with each case
//! that is forwarded.

use super::case::{ALL, Case, Change, passed};

const fn unseen(name: &'static str, lines: &'static str) -> Case {
    passed(name, ALL, Change::Headers(lines))
}

pub(super) const CASES: &[Case] = &[
    unseen("a cookie", "cookie: session=canary-of-agent"),
    unseen(
        "an account",
        "openai-organization: canary-of-agent\nopenai-project: canary-of-agent",
    ),
    unseen("a beta", "openai-beta: canary-of-agent"),
    unseen(
        "an SDK",
        "x-stainless-lang: canary-of-agent\nx-stainless-retry-count: 0",
    ),
    unseen("a user agent", "user-agent: canary-of-agent"),
    unseen("codings", "accept-encoding: gzip, br"),
    unseen(
        "an address",
        "x-forwarded-for: canary-of-agent\nx-real-ip: canary-of-agent",
    ),
    unseen(
        "a host",
        "x-forwarded-host: canary-of-agent\nforwarded: host=canary-of-agent",
    ),
    unseen(
        "a path",
        "x-original-url: /v1/files\nx-rewrite-url: /v1/files",
    ),
    unseen(
        "a method",
        "x-http-method-override: DELETE\nx-method-override: DELETE",
    ),
    unseen(
        "hop by hop",
        "connection: keep-alive, x-canary\nx-canary: canary-of-agent\nkeep-alive: timeout=5",
    ),
    unseen(
        "a header named by connection",
        "connection: authorization\nx-trace: canary-of-agent",
    ),
    unseen(
        "an upgrade",
        "connection: upgrade\nupgrade: websocket\nsec-websocket-key: canary-of-agent",
    ),
    unseen("te", "te: trailers\ntrailer: x-canary"),
    unseen(
        "a proxy",
        "proxy-connection: keep-alive\nvia: 1.1 canary-of-agent",
    ),
    unseen(
        "a referrer",
        "referer: http://canary-of-agent/\norigin: http://canary-of-agent",
    ),
    unseen(
        "a trace",
        "traceparent: 00-canary-of-agent\nbaggage: canary-of-agent",
    ),
    unseen("a key of idempotency", "x-request-id: canary-of-agent"),
    unseen("what AEX adds", "x-aex-session: canary-of-agent"),
    unseen(
        "a ticket",
        "x-aex-ticket: canary-of-agent\nx-aex-own-key: canary-of-agent",
    ),
    unseen(
        "a tier by header",
        "x-service-tier: priority\nhelicone-auth: canary-of-agent",
    ),
    unseen(
        "a site",
        "http-referer: canary-of-agent\nx-title: canary-of-agent",
    ),
    unseen(
        "bytes that are no text",
        "x-odd: canary-of-agent\u{e9}\u{fc}",
    ),
    unseen("what is accepted", "accept: application/json"),
];

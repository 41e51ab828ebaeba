use aex_admin_proto::egress::{OWN_KEY_HEADER, TICKET_HEADER};

use super::*;

fn map(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(
            name.parse::<HeaderName>().unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    headers
}

fn names(headers: &HeaderMap) -> Vec<&str> {
    let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    names
}

#[test]
fn only_listed_headers_reach_a_provider() {
    let given = map(&[
        ("host", "evil.example"),
        ("content-type", "application/json"),
        ("accept", "text/event-stream"),
        ("content-length", "999"),
        ("authorization", "Bearer aex-token"),
        ("cookie", "a=b"),
        ("openai-organization", "org"),
        ("openai-project", "p"),
        ("x-api-key", "k"),
        ("api-key", "k"),
        ("connection", "close, x-secret"),
        ("x-secret", "1"),
        ("transfer-encoding", "chunked"),
        ("te", "trailers"),
        ("expect", "100-continue"),
        ("upgrade", "h2c"),
        ("x-forwarded-for", "10.0.0.1"),
        ("accept-encoding", "gzip"),
        ("user-agent", "agent"),
        ("x-stainless-lang", "python"),
        ("idempotency-key", "1"),
        (TICKET_HEADER, "v2.1.a.b"),
        (OWN_KEY_HEADER, "sk-own-fake"),
    ]);
    let host = HeaderValue::from_static("api.example");
    let sent = request_headers(&given, bearer(b"sk-fake"), Some(&host), 12);
    assert_eq!(
        names(&sent),
        [
            "accept",
            "accept-encoding",
            "authorization",
            "content-length",
            "content-type",
            "host",
            "user-agent"
        ]
    );
    assert_eq!(sent["host"], "api.example");
    assert_eq!(sent["authorization"], "Bearer sk-fake");
    assert_eq!(sent["accept-encoding"], "identity");
    assert_eq!(sent["content-length"], "12");
    assert!(sent["user-agent"].to_str().unwrap().starts_with("aex/"));
    assert_eq!(sent.len(), 7, "no header twice");
}

#[test]
fn a_header_given_twice_is_not_passed() {
    let given = map(&[("accept", "a/b"), ("accept", "c/d")]);
    let sent = request_headers(&given, None, None, 0);
    assert_eq!(
        names(&sent),
        ["accept-encoding", "content-length", "user-agent"]
    );
}

#[test]
fn a_key_that_could_break_out_of_its_header_is_refused() {
    for bad in [
        &b""[..],
        b"a b",
        b"a\r\nx: y",
        b"a\0",
        b"\xffkey",
        b"k\n",
        "k\u{e9}".as_bytes(),
    ] {
        assert_eq!(bearer(bad), None, "{bad:?}");
    }
    assert_eq!(bearer(&[b'k'; MAX_KEY_BYTES + 1]), None);
    let good = bearer(b"sk-fake").unwrap();
    assert!(good.is_sensitive());
    assert!(!format!("{good:?}").contains("fake"));
}

#[test]
fn an_answer_loses_what_is_not_the_workers() {
    let mut answer = map(&[
        ("content-type", "application/json"),
        ("retry-after", "3"),
        ("x-ratelimit-remaining-requests", "7"),
        ("x-request-id", "r"),
        ("date", "now"),
        ("content-encoding", "gzip"),
        ("content-length", "3"),
        ("connection", "keep-alive, x-hop, Content-Length"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("transfer-encoding", "chunked"),
        ("set-cookie", "a=b"),
        ("set-cookie", "c=d"),
        ("openai-organization", "org"),
        ("openai-project", "proj"),
        ("x-aex-egress-failure", "connect"),
        ("x-aex-anything", "1"),
        (
            "www-authenticate",
            "Bearer error=\"bad key sk-canary-fake\"",
        ),
        ("location", "/?key=sk-canary-fake"),
    ]);
    clean_answer(&mut answer, bearer(b"sk-canary-fake").as_ref());
    assert_eq!(
        names(&answer),
        [
            "content-encoding",
            "content-length",
            "content-type",
            "date",
            "retry-after",
            "x-ratelimit-remaining-requests",
            "x-request-id"
        ]
    );
}

#[test]
fn a_body_length_has_one_reading() {
    type Case<'a> = (&'a [(&'a str, &'a str)], Option<u64>);
    let cases: &[Case<'_>] = &[
        (&[("content-length", "12")], Some(12)),
        (&[("content-length", "0")], Some(0)),
        (&[], Some(0)),
        (&[("transfer-encoding", "chunked")], None),
        (&[("content-length", "12"), ("content-length", "12")], None),
        (&[("content-length", "+12")], None),
        (&[("content-length", "-1")], None),
        (&[("content-length", "0x10")], None),
        (&[("content-length", "")], None),
        (&[("content-length", "99999999999999999999")], None),
        (
            &[("content-length", "1"), ("transfer-encoding", "chunked")],
            None,
        ),
    ];
    for (given, expected) in cases {
        assert_eq!(body_length(&map(given)), *expected, "{given:?}");
    }
}

#[test]
fn event_streams_are_known_by_their_type() {
    for (value, expected) in [
        ("text/event-stream", true),
        ("Text/Event-Stream; charset=utf-8", true),
        ("text/event-streams", false),
        ("application/json", false),
    ] {
        assert_eq!(
            is_event_stream(&map(&[("content-type", value)])),
            expected,
            "{value}"
        );
    }
    assert!(!is_event_stream(&HeaderMap::new()));
}

#[test]
fn what_a_provider_says_of_the_operators_account_is_hidden() {
    let hidden: Vec<u16> = (100..600)
        .filter(|&code| refuses_key(StatusCode::from_u16(code).unwrap()))
        .collect();
    assert_eq!(hidden, [401, 402, 403]);
}

#[test]
fn a_key_is_found_again_in_its_header() {
    assert_eq!(key_of(&bearer(b"sk-fake").unwrap()), Some(&b"sk-fake"[..]));
}

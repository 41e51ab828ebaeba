use http::header::HeaderMap;

use super::*;

fn map(lines: &[(&str, &[u8])]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name: HeaderName = name.parse().unwrap();
        headers.append(name, HeaderValue::from_bytes(value).unwrap());
    }
    headers
}

#[test]
fn one_bearer_token_and_no_other_door() {
    let good = bearer(&map(&[("authorization", b"Bearer aex-fake-token")]));
    assert_eq!(good, Ok(TokenDigest::of(b"aex-fake-token")));
    assert_eq!(
        bearer(&map(&[("authorization", b"bearer aex-fake-token")])),
        good
    );
    let none = Err(Fault::NotAuthenticated);
    assert_eq!(bearer(&map(&[])), none);
    assert_eq!(
        bearer(&map(&[("x-api-key", b"t"), ("api-key", b"t")])),
        none
    );
    let long = [b"Bearer ".as_slice(), &[b'a'; 513]].concat();
    for value in [
        b"".as_slice(),
        b"Bearer",
        b"Bearer ",
        b"Bearer  two",
        b"Bearer a b",
        b"Bearer a\tb",
        b"Bearer \xc3\xa9",
        b"Basic dXNlcjpwYXNz",
        b"aex-fake-token",
        &long,
    ] {
        let found = bearer(&map(&[("authorization", value)]));
        assert_eq!(found, Err(Fault::InvalidToken), "{value:?}");
    }
    let two = map(&[
        ("authorization", b"Bearer a"),
        ("authorization", b"Bearer a"),
    ]);
    assert_eq!(bearer(&two), Err(Fault::InvalidToken));
}

#[test]
fn an_own_key_is_one_visible_word() {
    use secrecy::ExposeSecret;
    let key = provider_key(&map(&[("x-aex-provider-key", b"sk-fake")]))
        .unwrap()
        .unwrap();
    assert_eq!(key.expose_secret(), "sk-fake");
    assert!(provider_key(&map(&[])).unwrap().is_none());
    for value in [b"".as_slice(), b"a b", b"\xff", &[b'a'; 4097]] {
        assert!(provider_key(&map(&[("x-aex-provider-key", value)])).is_err());
    }
    let two = map(&[("x-aex-provider-key", b"a"), ("x-aex-provider-key", b"b")]);
    assert!(provider_key(&two).is_err());
}

#[test]
fn a_body_is_plain_json_of_a_bounded_length() {
    let status = |lines: &[(&str, &[u8])]| match json_body(&map(lines), 100) {
        Ok(length) => length.map_or("unknown".to_owned(), |length| length.to_string()),
        Err(fault) => fault.row().status.as_str().to_owned(),
    };
    let json: (&str, &[u8]) = ("content-type", b"application/json");
    for (lines, expected) in [
        (&[json][..], "unknown"),
        (&[], "unknown"),
        (
            &[("content-type", b"Application/JSON; charset=utf-8")],
            "unknown",
        ),
        (&[json, ("content-length", b"100")], "100"),
        (&[json, ("content-length", b"101")], "413"),
        (
            &[json, ("content-length", b"99999999999999999999999")],
            "413",
        ),
        (
            &[("content-type", b"application/x-www-form-urlencoded")],
            "415",
        ),
        (&[("content-type", b"application/jsonx")], "415"),
        (&[json, json], "415"),
        (&[json, ("content-encoding", b"identity")], "unknown"),
        (&[json, ("content-encoding", b"gzip")], "415"),
        (
            &[
                json,
                ("content-encoding", b"identity"),
                ("content-encoding", b"br"),
            ],
            "415",
        ),
    ] {
        assert_eq!(status(lines), expected, "{lines:?}");
    }
}

#[test]
fn an_agent_gets_the_providers_headers_without_the_operators_account() {
    let mut headers = map(&[
        ("content-type", b"application/json"),
        ("retry-after", b"7"),
        ("x-ratelimit-remaining-requests", b"3"),
        ("x-request-id", b"r"),
        ("connection", b"keep-alive, x-private"),
        ("x-private", b"p"),
        ("transfer-encoding", b"chunked"),
        ("content-length", b"5"),
        ("set-cookie", b"a=b"),
        ("set-cookie", b"c=d"),
        ("openai-organization", b"org"),
        ("openai-project", b"proj"),
        ("x-aex-cost-micro", b"0"),
        ("x-aex-egress-failure", b"reset"),
    ]);
    keep_for_agent(&mut headers);
    let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "content-type",
            "retry-after",
            "x-ratelimit-remaining-requests",
            "x-request-id"
        ]
    );
}

use super::*;

#[test]
fn base_urls_say_where_a_provider_is() {
    let place = Place::parse("https://api.groq.com/openai/v1").unwrap();
    assert!(place.is_tls);
    assert_eq!((place.host.as_str(), place.port), ("api.groq.com", 443));
    assert_eq!(place.host_header, "api.groq.com");
    let target = |absolute| {
        place
            .target("/chat/completions", absolute)
            .unwrap()
            .to_string()
    };
    assert_eq!(target(false), "/openai/v1/chat/completions");
    assert_eq!(
        target(true),
        "https://api.groq.com/openai/v1/chat/completions"
    );

    let place = Place::parse("http://[::1]:8080").unwrap();
    assert_eq!((place.host.as_str(), place.port), ("::1", 8080));
    assert_eq!(place.host_header, "[::1]:8080");
    assert_eq!(place.target("/v1/x", false).unwrap().to_string(), "/v1/x");
}

#[test]
fn what_is_no_base_url_is_refused() {
    for (url, part) in [
        ("groq", "http://"),
        ("ftp://host", "http://"),
        ("https://", "URL"),
        ("https://user:pass@host/v1", "credentials"),
        ("https://host/v1?x=1", "query"),
        ("http://api.groq.com/v1", "https://"),
        ("http://10.0.0.1/v1", "https://"),
        ("http://localhost.evil.example/", "https://"),
        ("https://-bad-.example", "certificate"),
    ] {
        let why = Place::parse(url).err().unwrap_or_default();
        assert!(why.contains(part), "{url}: {why:?}");
    }
    for url in [
        "http://localhost:1/v1",
        "http://127.9.9.9",
        "https://10.0.0.1",
    ] {
        assert!(Place::parse(url).is_ok(), "{url}");
    }
}

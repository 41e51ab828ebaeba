//! What is refused: each case is one line of text below a marker of the place that the error names.

use super::*;

/// `place` is `LINE:COLUMN`; `says` is a part of the message.
#[track_caller]
fn check(text: &str, place: &str, says: &str) {
    let error = bad(text);
    let found = match (error.line, error.column) {
        (Some(line), Some(column)) => format!("{line}:{column}"),
        _ => "nowhere".to_owned(),
    };
    assert_eq!(found, place, "{error}\n{text}");
    assert!(
        error.message.contains(says),
        "{error}\ndoes not say: {says}"
    );
}

/// The value stands at line 1, right after `KEY: `.
#[track_caller]
fn check_top(key: &str, value: &str, says: &str) {
    let column = key.len() + 3;
    check(&format!("{key}: {value}\n"), &format!("1:{column}"), says);
}

#[test]
fn strict_for_all_has_no_exceptions() {
    check(
        "keys: passthrough\nproviders:\n  a: { base_url: 'http://127.0.0.1', keys: either }\n",
        "3:44",
        "holds for every provider",
    );
    check_top("keys", "mine", "must be operator, passthrough or either");
}

#[test]
fn broken_yaml() {
    check("models: {\n", "1:9", "unclosed bracket");
    check("models:\n\ta: 1\n", "2:2", "tabs disallowed");
    check("hold_wait: 'x\n", "1:12", "unclosed quote");
    check("- a\n", "1:1", "expected lines of KEY: VALUE here");
    check("models: 3\n", "1:9", "expected lines of KEY: VALUE here");
    check("hold_wait: [1]\n", "1:12", "expected a single value here");
    check(
        "hold_wait: 1s\n---\nhold_wait: 2s\n",
        "3:1",
        "only single YAML document",
    );
    check("models:\n  b: *nope\n", "2:6", "unknown");
    check("hold_wait: !foo 3s\n", "1:17", "unsupported tag");
}

#[test]
fn unknown_keys() {
    check(
        "hold_wiat: 2s\n",
        "1:1",
        "unknown key `hold_wiat`, expected one of",
    );
    check(
        &with_provider("    api_key: x\n"),
        "4:5",
        "unknown key `api_key`",
    );
    check(
        &with_provider("models:\n  m:\n    priec: free\n"),
        "6:5",
        "unknown key `priec`",
    );
    check("limits: { max_tpm: 1 }\n", "1:11", "unknown key `max_tpm`");
    let price = "models:\n  m: { provider: far, price: { input: 1, output_per_mtok: 1 } }\n";
    check(&with_provider(price), "5:32", "unknown key `input`");
    let limits = "models:\n  m: { provider: far, limits: { max_concurrency: 1 } }\n";
    check(
        &with_provider(limits),
        "5:33",
        "unknown key `max_concurrency`",
    );
}

#[test]
fn duplicate_keys() {
    check(
        "hold_wait: 1s\nhold_wait: 1s\n",
        "2:1",
        "duplicate key `hold_wait`",
    );
    check("models: {}\nmodels: {}\n", "2:1", "duplicate key `models`");
    let provider = with_provider("  far:\n    base_url: https://b.example\n");
    check(&provider, "4:3", "duplicate key `far`");
    check(
        &with_provider("    base_url: https://b.example\n"),
        "4:5",
        "duplicate key `base_url`",
    );
    check(
        &with_provider("models:\n  m: {provider: far}\n  m: {provider: far}\n"),
        "6:3",
        "duplicate",
    );
    check(
        "limits: {max_concurrency: 1, \"max_\\u0063oncurrency\": 9}\n",
        "1:30",
        "duplicate key",
    );
}

#[test]
fn limits_that_are_none() {
    for (value, says) in [
        (
            "0",
            "max_tokens_per_minute: cannot be 0; leave the line out for no limit",
        ),
        ("00", "cannot be 0"),
        (
            "-1",
            "max_tokens_per_minute: cannot be negative; leave the line out for no limit",
        ),
        ("-0", "cannot be negative"),
        ("1.5", "must be a whole number from 1 up"),
        ("1e3", "must be a whole number from 1 up"),
        ("0x10", "must be a whole number from 1 up"),
        ("1_000", "must be a whole number from 1 up"),
        ("many", "must be a whole number from 1 up"),
        ("''", "must be a whole number from 1 up"),
        ("true", "must be a whole number from 1 up"),
        ("18446744073709551616", "is too large"),
        ("1000000000001", "is too large"),
    ] {
        check(
            &format!("limits:\n  max_tokens_per_minute: {value}\n"),
            "2:26",
            says,
        );
        let text = with_provider(&format!(
            "models:\n  m:\n    provider: far\n    limits: {{ max_tokens_per_minute: {value} }}\n"
        ));
        check(&text, "7:38", says);
    }
    for key in ["max_input_tokens", "max_output_tokens", "max_concurrency"] {
        let column = key.len() + 5;
        check(
            &format!("limits:\n  {key}: 0\n"),
            &format!("2:{column}"),
            "cannot be 0",
        );
    }
    for key in [
        "default_output_tokens",
        "min_output_tokens",
        "max_body_bytes",
    ] {
        check_top(key, "0", "cannot be 0");
        check_top(key, "-5", "cannot be negative");
    }
    check_top(
        "max_body_bytes",
        "67108865",
        "max_body_bytes: is 67108864 at most",
    );
    check_top("default_output_tokens", "10000001", "is 10000000 at most");
    let both = "default_output_tokens: 10\nmin_output_tokens: 11\n";
    check(both, "2:20", "above default_output_tokens (10)");
}

#[test]
fn durations() {
    for value in ["2", "s", "2 s", "2sec", "-2s", "1.5s", "2S", "+2s", "''"] {
        check_top(
            "hold_wait",
            value,
            "hold_wait: not a duration: write a whole number and a unit",
        );
    }
    check_top("hold_wait", "601s", "hold_wait: is 600s at most");
    check_top("drain_timeout", "61m", "is 3600s at most");
    check_top("lock_wait", "99999999999999999999s", "too long a duration");
    check_top("lock_wait", "18446744073709551615h", "too long a duration");
    check(
        &with_provider("    connect_timeout: 0s\n"),
        "4:22",
        "connect_timeout: cannot be 0",
    );
    check(
        &with_provider("    request_timeout: 25h\n"),
        "4:22",
        "is 86400s at most",
    );
    assert_eq!(
        good("min_output_tokens: 16\ndrain_timeout: 2m\n")
            .0
            .drain_timeout_ms,
        120_000
    );
}

#[test]
fn words() {
    check_top("on_disconnect", "ignore", "must be drain or abort");
    check(
        &with_provider("    keys: sk-1\n"),
        "4:11",
        "must be operator, passthrough or either",
    );
    check(
        &with_provider("    stream_usage: yes\n"),
        "4:19",
        "true or false expected",
    );
    check(
        &with_provider("    ca_file: ca.pem\n"),
        "4:14",
        "must be an absolute path",
    );
    check(
        &with_provider("    extra_params: top_k\n"),
        "4:19",
        "expected",
    );
    check(
        &with_provider("    extra_params: [top k]\n"),
        "4:20",
        "a parameter's name is",
    );
    let governed = with_provider("    extra_params: [top_k, n_predict]\n");
    check(&governed, "4:27", "governed by AEX");
    let tokenizer = "models:\n  m: { provider: far, tokenizer: a b }\n";
    check(
        &with_provider(tokenizer),
        "5:34",
        "tokenizer: must be a name",
    );
}

#[test]
fn names() {
    check("providers:\n  Groq: {}\n", "2:3", "a provider's name is");
    check("providers:\n  -groq: {}\n", "2:3", "a provider's name is");
    check("providers:\n  ../x: {}\n", "2:3", "a provider's name is");
    let long = format!("providers:\n  {}: {{}}\n", "a".repeat(65));
    check(&long, "2:3", "a provider's name is");
    check(
        "providers:\n  groq:\n",
        "2:3",
        "provider groq: base_url is missing",
    );
    check(
        "providers:\n  groq: { keys: either }\n",
        "2:3",
        "provider groq: base_url is missing",
    );
    let collide = "providers:\n  a.b: { base_url: https://a }\n  a-b: { base_url: https://b }\n";
    check(
        collide,
        "3:3",
        "providers a.b and a-b would both take their key from A_B_API_KEY",
    );

    check(
        &with_provider("models:\n  a b: { provider: far }\n"),
        "5:3",
        "a model's name is",
    );
    check(
        &with_provider("models:\n  gpt-\u{3bf}: {}\n"),
        "5:3",
        "a model's name is",
    );
    let long = format!("models:\n  {}: {{}}\n", "m".repeat(257));
    check(&with_provider(&long), "5:3", "a model's name is");
    check(
        &with_provider("models:\n  m:\n"),
        "5:3",
        "model m: provider is missing",
    );
    let unknown = "models:\n  m:\n    provider: near\n";
    check(
        &with_provider(unknown),
        "6:15",
        "model m: no such provider; this file has: far",
    );
    check(
        "models:\n  m: { provider: near }\n",
        "2:18",
        "this file has: none",
    );
    let upstream = "models:\n  m: { provider: far, upstream_model: 'a b' }\n";
    check(
        &with_provider(upstream),
        "5:39",
        "upstream_model: a model's name is",
    );
}

#[test]
fn addresses() {
    for (url, says) in [
        ("''", "must look like https://"),
        ("far.example", "must look like https://"),
        ("ftp://far.example", "must begin with https://"),
        (
            "http://far.example/v1",
            "plain http is for loopback hosts alone",
        ),
        (
            "http://10.0.0.1/v1",
            "plain http is for loopback hosts alone",
        ),
        ("http://128.0.0.1", "plain http is for loopback hosts alone"),
        (
            "http://localhost.example",
            "plain http is for loopback hosts alone",
        ),
        (
            "http://foo.localhost",
            "plain http is for loopback hosts alone",
        ),
        (
            "http://127.0.0.1.example",
            "plain http is for loopback hosts alone",
        ),
        ("http://[::2]", "plain http is for loopback hosts alone"),
        (
            "http://[::ffff:127.0.0.1]",
            "plain http is for loopback hosts alone",
        ),
        ("http://0.0.0.0", "plain http is for loopback hosts alone"),
        ("http://127.1", "not a host name"),
        ("http://0x7f.0.0.1", "not a host name"),
        ("https://2130706433", "not a host name"),
        ("https://127.0.0.01", "not a host name"),
        ("https://localhost.", "not a host name"),
        ("https://", "not a host name"),
        ("https:///v1", "not a host name"),
        ("https://:443", "not a host name"),
        ("https://a..b", "not a host name"),
        ("https://-a.b", "not a host name"),
        ("https://b\u{fc}cher.example", "not a host name"),
        ("https://a%2eb", "not a host name"),
        ("https://a\\b", "not a host name"),
        ("https://[::1", "not an IPv6 address"),
        ("https://[::1%25lo]", "not an IPv6 address"),
        ("https://[::1]x", "must look like https://"),
        ("https://u:p@far.example", "no credentials"),
        ("http://localhost@evil.example", "no credentials"),
        ("https://far.example/v1?k=v", "no query and no fragment"),
        ("https://far.example/v1#x", "no query and no fragment"),
        ("https://far.example:0/v1", "from 1 to 65535"),
        ("https://far.example:65536/v1", "from 1 to 65535"),
        ("https://far.example:/v1", "from 1 to 65535"),
        ("https://far.example:+80/v1", "from 1 to 65535"),
        (
            "https://far.example/a/../b",
            "no empty, \".\" or \"..\" segments",
        ),
        ("https://far.example/a//b", "no empty"),
        ("https://far.example/%2e%2e/b", "does not belong"),
        ("https://far.example/a b", "does not belong"),
    ] {
        let quoted = if url == "''" {
            url.to_owned()
        } else {
            format!("'{url}'")
        };
        check(
            &format!("providers:\n  p:\n    base_url: {quoted}\n"),
            "3:15",
            says,
        );
    }
}

/// A key in the wrong place is not printed: error texts end up in logs.
#[test]
fn no_error_repeats_a_value() {
    let secret = "sk-0123456789abcdef";
    for text in [
        format!("hold_wait: {secret}\n"),
        format!("limits: {{ max_concurrency: {secret} }}\n"),
        format!("limits: {secret}\n"),
        format!("models: [{secret}]\n"),
        format!("providers: {{ groq: {secret} }}\n"),
        format!("providers: {{ groq: {{ base_url: 'https://{secret}@a.example' }} }}\n"),
        with_provider(&format!("    keys: {secret}\n")),
        with_provider(&format!("    ca_file: {secret}\n")),
        with_provider(&format!("    api_key: {secret}\n")),
        with_provider(&format!("    stream_usage: {secret}\n")),
        with_provider(&format!("    extra_params: {secret}\n")),
        with_provider(&format!("    extra_params: ['{secret} x']\n")),
        with_provider(&format!("models: {{ m: {{ provider: {secret} }} }}\n")),
        with_provider(&format!(
            "models: {{ m: {{ provider: far, price: {secret} }} }}\n"
        )),
        with_provider(&format!(
            "models: {{ m: {{ provider: far, hidden_output: {secret} }} }}\n"
        )),
        with_provider(&format!(
            "models: {{ m: {{ provider: far, tokenizer: '{secret} x' }} }}\n"
        )),
        format!("hold_wait: '{secret}\n"),
        format!("hold_wait: {secret}: {secret}\n"),
        format!("hold_wait: [{secret}\n"),
        format!("{secret}\n"),
    ] {
        let error = bad(&text);
        assert!(error.line.is_some(), "{error}");
        assert!(!error.to_string().contains(secret), "{error}");
        assert!(!format!("{error:?}").contains(secret), "{error:?}");
    }
}

#[test]
fn errors_print_their_place() {
    let error = bad("hold_wait: 2\n");
    assert!(
        error
            .to_string()
            .starts_with("line 1, column 12: hold_wait: not a duration")
    );
    let large = bad(&"#".repeat(MAX_CONFIG_BYTES + 1));
    assert_eq!(large.to_string(), "larger than 1048576 bytes");
}

#[test]
fn files_are_loaded_with_their_name_in_errors() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("models.yaml");
    let refused = || load(&path).unwrap_err().to_string();
    let name = path.display();

    assert!(refused().starts_with(&format!("{name}: cannot be read: ")));
    std::fs::write(&path, "hold_wait: 2\n").unwrap();
    assert!(refused().starts_with(&format!("{name}:1:12: hold_wait: not a duration")));
    std::fs::write(&path, b"hold_wait: \xff\n").unwrap();
    assert_eq!(refused(), format!("{name}: is not UTF-8 text"));
    std::fs::write(&path, "#".repeat(MAX_CONFIG_BYTES + 1)).unwrap();
    assert_eq!(refused(), format!("{name}: is larger than 1048576 bytes"));
    std::fs::write(&path, "hold_wait: 3s\n").unwrap();
    assert_eq!(load(&path).unwrap().0.hold_wait_ms, 3_000);
    assert_eq!(
        load(home.path()).unwrap_err().to_string(),
        format!("{}: is not a regular file", home.path().display())
    );
}

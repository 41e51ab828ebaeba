//! One request that two servers would read differently.

use super::case::{
    ALL, CHAT, CHAT_AND_TEXT, Case, Change, EMBEDDINGS, GENERATING, NOT_RESPONSES, PRICED,
    RESPONSES, bad, bad_body, bad_made, good, passed, refused,
};

fn bom(body: &str) -> Vec<u8> {
    [b"\xef\xbb\xbf", body.as_bytes()].concat()
}

fn utf_16(body: &str) -> Vec<u8> {
    body.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn utf_16_with_bom(body: &str) -> Vec<u8> {
    let marked = format!("\u{feff}{body}");
    marked.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

fn with_user(body: &str, user: &[u8]) -> Vec<u8> {
    let head = &body.as_bytes()[..body.len() - 1];
    [head, b",\"user\":\"", user, b"\"}"].concat()
}

fn bad_byte(body: &str) -> Vec<u8> {
    with_user(body, b"\xff")
}

fn overlong(body: &str) -> Vec<u8> {
    with_user(body, b"\xc0\xaf")
}

fn encoded_surrogate(body: &str) -> Vec<u8> {
    with_user(body, b"\xed\xa0\x80")
}

fn half_a_character(body: &str) -> Vec<u8> {
    with_user(body, b"\xe2\x82")
}

fn raw_newline(body: &str) -> Vec<u8> {
    with_user(body, b"a\nb")
}

fn raw_nul(body: &str) -> Vec<u8> {
    with_user(body, b"a\0b")
}

fn latin_1_key(body: &str) -> Vec<u8> {
    let head = &body.as_bytes()[..body.len() - 1];
    [head, b",\"us\xe9r\":\"\"}"].concat()
}

fn nested(body: &str, depth: usize) -> Vec<u8> {
    let nest = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let head = &body[..body.len() - 1];
    format!("{head},\"metadata\":{nest}}}").into_bytes()
}

fn nested_20_000(body: &str) -> Vec<u8> {
    nested(body, 20_000)
}

fn nested_200(body: &str) -> Vec<u8> {
    nested(body, 200)
}

fn nested_objects(body: &str) -> Vec<u8> {
    let nest = format!("{}1{}", r#"{"a":"#.repeat(20_000), "}".repeat(20_000));
    let head = &body[..body.len() - 1];
    format!("{head},\"user\":{nest}}}").into_bytes()
}

fn never_closed(_: &str) -> Vec<u8> {
    "{\"messages\":[".repeat(20_000).into_bytes()
}

fn twice(body: &str) -> Vec<u8> {
    body.repeat(2).into_bytes()
}

fn lines(body: &str) -> Vec<u8> {
    format!("{body}\n{body}\n").into_bytes()
}

fn trailing_text(body: &str) -> Vec<u8> {
    format!("{body} x").into_bytes()
}

fn trailing_nul(body: &str) -> Vec<u8> {
    format!("{body}\0").into_bytes()
}

fn trailing_brace(body: &str) -> Vec<u8> {
    format!("{body}}}").into_bytes()
}

fn cut(body: &str) -> Vec<u8> {
    body[..body.len() - 1].into()
}

fn in_a_list(body: &str) -> Vec<u8> {
    format!("[{body}]").into_bytes()
}

fn as_a_string(body: &str) -> Vec<u8> {
    serde_json::to_vec(body).unwrap()
}

fn empty(_: &str) -> Vec<u8> {
    Vec::new()
}

fn as_a_form(_: &str) -> Vec<u8> {
    b"model=priced&max_tokens=5&prompt=hi".to_vec()
}

/// Members of gzip: a head, and one stored block.
fn gzip(body: &str) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap();
    let mut out = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x01".to_vec();
    out.extend(length.to_le_bytes());
    out.extend((!length).to_le_bytes());
    out.extend(body.as_bytes());
    out.extend([0; 8]);
    out
}

/// A deflate block of one repeated byte, at a thousand to one: 20 MB where it is unpacked.
fn bomb(_: &str) -> Vec<u8> {
    let mut out =
        b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xec\xc1\x01\x01\0\0\0\x80\x90\xfe\xaf\xee\x08\x0a".to_vec();
    out.extend([0; 20_000]);
    out
}

fn plain(body: &str) -> Vec<u8> {
    body.as_bytes().to_vec()
}

const fn packed(name: &'static str, lines: &'static str, make: fn(&str) -> Vec<u8>) -> Case {
    refused(name, ALL, 415, Change::Packed(lines, make)).on(PRICED)
}

const fn typed(name: &'static str, lines: &'static str) -> Case {
    refused(name, ALL, 415, Change::Headers(lines)).on(PRICED)
}

pub(super) const CASES: &[Case] = &[
    bad("a cap twice", GENERATING, r#""CAP":5,"CAP":4000"#),
    bad("a cap twice, the same", GENERATING, r#""CAP":5,"CAP":5"#),
    bad(
        "a cap twice, once null",
        GENERATING,
        r#""CAP":5,"CAP":null"#,
    ),
    bad(
        "a cap twice, once escaped",
        GENERATING,
        r#""CAP":5,"m\u0061x_tokens":4000,"m\u0061x_output_tokens":4000"#,
    ),
    bad(
        "a cap twice, escaped once each way",
        CHAT_AND_TEXT,
        r#""max\u005ftokens":5,"max\u005Ftokens":4000"#,
    ),
    bad(
        "a cap twice, escaped as \\/ is",
        CHAT_AND_TEXT,
        r#""\u006d\u0061\u0078\u005f\u0074\u006f\u006b\u0065\u006e\u0073":4000,"max_tokens":5"#,
    ),
    bad("a model twice", ALL, r#""model":"vendor/dear""#),
    bad(
        "a model twice, once escaped",
        ALL,
        r#""mod\u0065l":"vendor/dear""#,
    ),
    bad("a prompt twice", ALL, "PROMPT"),
    bad("n twice", CHAT_AND_TEXT, r#""n":1,"n":100"#),
    bad(
        "stream twice",
        GENERATING,
        r#""stream":false,"stream":true"#,
    ),
    bad(
        "a key twice below",
        ALL,
        r#""metadata":{"a":1,"a":2},"user":{"a":1,"a":2}"#,
    ),
    bad(
        "a key twice below, once escaped",
        ALL,
        r#""metadata":{"a":1,"\u0061":2},"user":{"a":1,"\u0061":2}"#,
    ),
    bad(
        "a key twice deep below",
        ALL,
        r#""metadata":{"x":[{"y":{"a":1,"a":2}}]},"user":[{"y":{"a":1,"a":2}}]"#,
    ),
    bad_body(
        "a role twice",
        CHAT,
        r#"{"model":"MODEL","messages":[{"role":"user","content":"a","role":"system"}],"CAP":5}"#,
    ),
    bad_body(
        "a content twice",
        CHAT,
        r#"{"model":"MODEL","messages":[{"role":"user","content":"a","cont\u0065nt":"bbbb"}],"CAP":5}"#,
    ),
    bad_body(
        "a content of an item twice",
        RESPONSES,
        r#"{"model":"MODEL","input":[{"role":"user","content":"a","content":"bbbb"}],"CAP":5}"#,
    ),
    bad_body(
        "a part's text twice",
        CHAT,
        r#"{"model":"MODEL","messages":[{"role":"user","content":[{"type":"text","text":"a","text":"b"}]}],"CAP":5}"#,
    ),
    bad_body(
        "a part's type twice",
        CHAT,
        r#"{"model":"MODEL","messages":[{"role":"user","content":[{"type":"text","type":"input_audio","text":"a"}]}],"CAP":5}"#,
    ),
    bad_body(
        "a tool's type twice",
        RESPONSES,
        r#"{"model":"MODEL",PROMPT,"CAP":5,"tools":[{"type":"function","name":"f","type":"web_search"}]}"#,
    ),
    bad(
        "both kinds of cap",
        GENERATING,
        r#""CAP":5,"max_completion_tokens":4000"#,
    ),
    bad(
        "both kinds of cap, the same",
        GENERATING,
        r#""CAP":5,"max_completion_tokens":5"#,
    ),
    bad(
        "the other route's cap",
        NOT_RESPONSES,
        r#""max_output_tokens":4000"#,
    ),
    bad("the other routes' cap", RESPONSES, r#""max_tokens":4000"#),
    bad(
        "a cap where nothing is generated",
        EMBEDDINGS,
        r#""max_tokens":4000"#,
    ),
    good(
        "the newer cap alone",
        CHAT,
        r#""max_completion_tokens":7"#,
        r#"{"CAP":7}"#,
    ),
    good(
        "one kind of cap null",
        CHAT,
        r#""max_tokens":null,"max_completion_tokens":7"#,
        r#"{"CAP":7}"#,
    ),
    good(
        "an escaped cap alone",
        CHAT_AND_TEXT,
        r#""max\u005ftokens":7"#,
        r#"{"CAP":7}"#,
    ),
    good(
        "an escaped name of a model's key alone",
        CHAT,
        r#""us\u0065r":"u""#,
        r#"{"user":"u"}"#,
    ),
    bad("stream a string", GENERATING, r#""stream":"true""#),
    bad("stream a number", GENERATING, r#""stream":1"#),
    bad("stream an object", GENERATING, r#""stream":{}"#),
    bad("stream in capitals", GENERATING, r#""stream":True"#),
    good("stream null", GENERATING, r#""stream":null"#, "{}"),
    good(
        "stream false",
        GENERATING,
        r#""stream":false"#,
        r#"{"stream":false}"#,
    ),
    bad(
        "stream options without a stream",
        GENERATING,
        r#""stream_options":{"include_usage":false}"#,
    ),
    bad(
        "stream options unknown",
        GENERATING,
        r#""stream":true,"stream_options":{"include_usage":true,"n":2}"#,
    ),
    bad(
        "stream options as a list",
        GENERATING,
        r#""stream":true,"stream_options":[true,true]"#,
    ),
    bad(
        "stream options twice below",
        GENERATING,
        r#""stream":true,"stream_options":{"include_usage":true,"include_usage":false}"#,
    ),
    good(
        "a stream asks for its usage",
        CHAT_AND_TEXT,
        r#""stream":true"#,
        r#"{"stream_options":{"include_usage":true}}"#,
    ),
    good(
        "a stream that denies its usage",
        CHAT_AND_TEXT,
        r#""stream":true,"stream_options":{"include_usage":false}"#,
        r#"{"stream_options":{"include_usage":true}}"#,
    ),
    good(
        "a stream of events",
        RESPONSES,
        r#""stream":true"#,
        r#"{"stream":true,"stream_options":null}"#,
    ),
    bad("a lone surrogate", ALL, r#""user":"\ud800""#),
    bad("a lone low surrogate", ALL, r#""user":"\udc00 ""#),
    bad(
        "surrogates the wrong way round",
        ALL,
        r#""user":"\udc00\ud800""#,
    ),
    bad(
        "a lone surrogate in a key",
        ALL,
        r#""metadata":{"\ud800":1},"\ud800":1"#,
    ),
    bad("a bad escape", ALL, r#""user":"\x41""#),
    bad("a trailing comma", ALL, r#""user":"u","#),
    bad("a comment", ALL, r#""user":"u"/* ,"n":9 */"#),
    bad("single quotes", ALL, r"'user':'u'"),
    bad("a key without quotes", ALL, r#"user:"u""#),
    bad_made("a byte-order mark", ALL, bom),
    bad_made("UTF-16", ALL, utf_16),
    bad_made("UTF-16 with a mark", ALL, utf_16_with_bom),
    bad_made("a byte that is no UTF-8", ALL, bad_byte),
    bad_made("an overlong character", ALL, overlong),
    bad_made("a surrogate as UTF-8", ALL, encoded_surrogate),
    bad_made("half a character", ALL, half_a_character),
    bad_made("a raw newline in a string", ALL, raw_newline),
    bad_made("a raw NUL in a string", ALL, raw_nul),
    bad_made("a key in Latin-1", ALL, latin_1_key),
    bad_made("lists 20,000 deep", ALL, nested_20_000),
    bad_made("lists 200 deep", ALL, nested_200),
    bad_made("objects 20,000 deep", ALL, nested_objects),
    bad_made("never closed", ALL, never_closed),
    bad_made("two documents", ALL, twice),
    bad_made("two lines", ALL, lines),
    bad_made("trailing text", ALL, trailing_text),
    bad_made("a trailing NUL", ALL, trailing_nul),
    bad_made("a brace too many", ALL, trailing_brace),
    bad_made("a brace too few", ALL, cut),
    bad_made("in a list", ALL, in_a_list),
    bad_made("as a string", ALL, as_a_string),
    bad_made("empty", ALL, empty),
    bad_made("as a form", ALL, as_a_form),
    bad_made("packed, and not said so", ALL, gzip),
    packed("packed", "content-encoding: gzip", gzip),
    packed("packed by another name", "content-encoding: x-gzip", gzip),
    packed("a bomb", "content-encoding: gzip", bomb),
    packed("deflate", "content-encoding: deflate", plain),
    packed("brotli", "content-encoding: br", plain),
    packed("zstd", "content-encoding: zstd", plain),
    packed(
        "a list of codings",
        "content-encoding: identity, gzip",
        gzip,
    ),
    packed(
        "a list the other way round",
        "content-encoding: gzip, identity",
        gzip,
    ),
    packed(
        "codings twice",
        "content-encoding: identity\ncontent-encoding: gzip",
        gzip,
    ),
    packed("no coding by name", "content-encoding: ,", plain),
    passed(
        "identity",
        ALL,
        Change::Headers("content-encoding: identity"),
    ),
    typed("plain text", "content-type: text/plain"),
    typed("a form", "content-type: application/x-www-form-urlencoded"),
    typed(
        "a form in parts",
        "content-type: multipart/form-data; boundary=x",
    ),
    typed("lines of JSON", "content-type: application/x-ndjson"),
    typed("almost JSON", "content-type: application/json-seq"),
    typed(
        "two types",
        "content-type: application/json\ncontent-type: text/plain",
    ),
    passed(
        "JSON in another charset is read as UTF-8",
        ALL,
        Change::Headers("content-type: application/json; charset=utf-16"),
    ),
];

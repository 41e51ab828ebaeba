//! Requests within requests: framing that two servers would read differently.

use super::case::{ALL, Case, Change, dropped, passed};

/// A request with these framing lines and bytes.
fn framed(path: &str, token: &str, lines: &str, bytes: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\n{lines}\r\n{bytes}"
    )
    .into_bytes()
}

fn chunks(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}

fn chunked(path: &str, token: &str, body: &str) -> Vec<u8> {
    framed(path, token, "transfer-encoding: chunked\r\n", &chunks(body))
}

fn chunk_extensions(path: &str, token: &str, body: &str) -> Vec<u8> {
    let bytes = format!("{:x};a=b\r\n{body}\r\n0;c\r\n\r\n", body.len());
    framed(path, token, "transfer-encoding: chunked\r\n", &bytes)
}

fn trailers(path: &str, token: &str, body: &str) -> Vec<u8> {
    let bytes = format!(
        "{:x}\r\n{body}\r\n0\r\nx-canary: canary-of-agent\r\n\r\n",
        body.len()
    );
    framed(path, token, "transfer-encoding: chunked\r\n", &bytes)
}

fn byte_by_byte(path: &str, token: &str, body: &str) -> Vec<u8> {
    let each: String = body.chars().map(|c| format!("1\r\n{c}\r\n")).collect();
    framed(
        path,
        token,
        "transfer-encoding: chunked\r\n",
        &format!("{each}0\r\n\r\n"),
    )
}

/// A second request, of nobody, where the first one ends early.
fn hidden(path: &str, body: &str) -> String {
    String::from_utf8(framed(
        path,
        "nobody",
        &format!("content-length: {}\r\n", body.len()),
        body,
    ))
    .unwrap()
}

fn length_and_chunked(path: &str, token: &str, body: &str) -> Vec<u8> {
    let second = hidden(path, body);
    let bytes = format!("0\r\n\r\n{second}");
    let lines = format!(
        "content-length: {}\r\ntransfer-encoding: chunked\r\n",
        bytes.len()
    );
    framed(path, token, &lines, &bytes)
}

fn chunked_and_length(path: &str, token: &str, body: &str) -> Vec<u8> {
    let lines = format!(
        "transfer-encoding: chunked\r\ncontent-length: {}\r\n",
        body.len()
    );
    framed(path, token, &lines, &chunks(body))
}

fn two_lengths(path: &str, token: &str, body: &str) -> Vec<u8> {
    let lines = format!("content-length: {}\r\ncontent-length: 2\r\n", body.len());
    framed(path, token, &lines, body)
}

fn a_list_of_lengths(path: &str, token: &str, body: &str) -> Vec<u8> {
    let lines = format!("content-length: {}, 2\r\n", body.len());
    framed(path, token, &lines, body)
}

fn a_negative_length(path: &str, token: &str, body: &str) -> Vec<u8> {
    framed(path, token, "content-length: -1\r\n", body)
}

fn a_length_with_a_plus(path: &str, token: &str, body: &str) -> Vec<u8> {
    framed(
        path,
        token,
        &format!("content-length: +{}\r\n", body.len()),
        body,
    )
}

fn a_length_beyond_64_bits(path: &str, token: &str, body: &str) -> Vec<u8> {
    framed(
        path,
        token,
        "content-length: 18446744073709551620\r\n",
        body,
    )
}

fn another_coding(path: &str, token: &str, body: &str) -> Vec<u8> {
    framed(path, token, "transfer-encoding: gzip\r\n", &chunks(body))
}

fn a_coding_after_chunked(path: &str, token: &str, body: &str) -> Vec<u8> {
    framed(
        path,
        token,
        "transfer-encoding: chunked, identity\r\n",
        &chunks(body),
    )
}

fn a_folded_header(path: &str, token: &str, body: &str) -> Vec<u8> {
    let lines = format!(
        "x-a: b\r\n content-length: 2\r\ncontent-length: {}\r\n",
        body.len()
    );
    framed(path, token, &lines, body)
}

fn a_folded_coding(path: &str, token: &str, body: &str) -> Vec<u8> {
    framed(
        path,
        token,
        "transfer-encoding:\r\n chunked\r\n",
        &chunks(body),
    )
}

fn a_space_before_the_colon(path: &str, token: &str, body: &str) -> Vec<u8> {
    let lines = format!(
        "transfer-encoding : chunked\r\ncontent-length: {}\r\n",
        body.len()
    );
    framed(path, token, &lines, body)
}

fn a_nul_in_a_header(path: &str, token: &str, body: &str) -> Vec<u8> {
    let lines = format!("x-a: b\0c\r\ncontent-length: {}\r\n", body.len());
    framed(path, token, &lines, body)
}

fn a_return_alone(path: &str, token: &str, body: &str) -> Vec<u8> {
    let lines = format!(
        "x-a: b\rcontent-length: 2\r\ncontent-length: {}\r\n",
        body.len()
    );
    framed(path, token, &lines, body)
}

fn a_chunk_too_long(path: &str, token: &str, body: &str) -> Vec<u8> {
    let bytes = format!("fffffffffffffffff\r\n{body}\r\n0\r\n\r\n");
    framed(path, token, "transfer-encoding: chunked\r\n", &bytes)
}

fn a_chunk_size_that_is_none(path: &str, token: &str, body: &str) -> Vec<u8> {
    let bytes = format!("0x{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    framed(path, token, "transfer-encoding: chunked\r\n", &bytes)
}

fn a_chunk_longer_than_said(path: &str, token: &str, body: &str) -> Vec<u8> {
    let bytes = format!("2\r\n{body}\r\n0\r\n\r\n");
    framed(path, token, "transfer-encoding: chunked\r\n", &bytes)
}

fn line_feeds_alone(path: &str, token: &str, body: &str) -> Vec<u8> {
    let lines = format!("content-length: {}\r\n", body.len());
    let all = String::from_utf8(framed(path, token, &lines, "")).unwrap();
    format!("{}{body}", all.replace("\r\n", "\n")).into_bytes()
}

fn http_2(path: &str, token: &str, body: &str) -> Vec<u8> {
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &*chunked(path, token, body),
    ]
    .concat()
}

fn http_0_9(path: &str, _: &str, _: &str) -> Vec<u8> {
    format!("GET {path}\r\n\r\n").into_bytes()
}

fn http_1_0_chunked(path: &str, token: &str, body: &str) -> Vec<u8> {
    let all = String::from_utf8(chunked(path, token, body)).unwrap();
    all.replacen("HTTP/1.1", "HTTP/1.0", 1).into_bytes()
}

fn a_space_in_the_target(path: &str, token: &str, body: &str) -> Vec<u8> {
    let path = format!("{path} /v1/files");
    chunked(&path, token, body)
}

pub(super) const CASES: &[Case] = &[
    passed("chunks", ALL, Change::Wire(chunked)),
    passed(
        "chunks with extensions",
        ALL,
        Change::Wire(chunk_extensions),
    ),
    passed("chunks with trailers", ALL, Change::Wire(trailers)),
    passed("chunks of a byte", ALL, Change::Wire(byte_by_byte)),
    passed("line feeds alone", ALL, Change::Wire(line_feeds_alone)),
    dropped(
        "a length, and chunks with a request behind",
        ALL,
        Change::Wire(length_and_chunked),
    ),
    passed(
        "chunks win over a length",
        ALL,
        Change::Wire(chunked_and_length),
    ),
    dropped("two lengths", ALL, Change::Wire(two_lengths)),
    dropped("a list of lengths", ALL, Change::Wire(a_list_of_lengths)),
    dropped("a negative length", ALL, Change::Wire(a_negative_length)),
    dropped(
        "a length with a plus",
        ALL,
        Change::Wire(a_length_with_a_plus),
    ),
    dropped(
        "a length beyond 64 bits",
        ALL,
        Change::Wire(a_length_beyond_64_bits),
    ),
    dropped("another coding", ALL, Change::Wire(another_coding)),
    dropped(
        "a coding after chunks",
        ALL,
        Change::Wire(a_coding_after_chunked),
    ),
    dropped("a folded header", ALL, Change::Wire(a_folded_header)),
    dropped("a folded coding", ALL, Change::Wire(a_folded_coding)),
    dropped(
        "a space before a colon",
        ALL,
        Change::Wire(a_space_before_the_colon),
    ),
    dropped("a NUL in a header", ALL, Change::Wire(a_nul_in_a_header)),
    dropped("a return alone", ALL, Change::Wire(a_return_alone)),
    dropped(
        "a chunk beyond 64 bits",
        ALL,
        Change::Wire(a_chunk_too_long),
    ),
    dropped(
        "a chunk's size that is none",
        ALL,
        Change::Wire(a_chunk_size_that_is_none),
    ),
    dropped(
        "a chunk longer than it says",
        ALL,
        Change::Wire(a_chunk_longer_than_said),
    ),
    dropped("another protocol", ALL, Change::Wire(http_2)),
    dropped("a protocol of old", ALL, Change::Wire(http_0_9)),
    dropped(
        "chunks where there are none",
        ALL,
        Change::Wire(http_1_0_chunked),
    ),
    dropped(
        "a space in the target",
        ALL,
        Change::Wire(a_space_in_the_target),
    ),
];

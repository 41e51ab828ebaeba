//! A provider's usage is read the same however its stream is cut up, and never as something else than
//! what a well-formed document says.

use aex_admin_proto::worker::{Observed, Route, Usage, UsageSeen};
use aex_proxy::exchange::{Asked, Ending, Exchange, Head, Step};
use bytes::Bytes;
use serde_json::Value;

use super::corpus::{Entry, entries};
use super::mutate::{Chance, mutated};
use super::{chance, grant, in_time, mutants, shown, strict};

/// What was seen, and the lines that went on to the client. A hidden event may leave an empty one.
type Outcome = (Observed, Vec<String>);

fn exchange(route: Route, stream: bool, hide_usage: bool, chunks: &[&[u8]]) -> Outcome {
    let asked = Asked {
        route,
        stream,
        hide_usage,
        echoed_tokens: 0,
        hides_choices: false,
        own_key: false,
    };
    let mut exchange = Exchange::new(asked, &grant(route));
    exchange.head(Head {
        status: 200,
        event_stream: stream,
        encoded: false,
        other_charset: false,
        failure: None,
    });
    let mut sent = Vec::new();
    let mut stopped = false;
    for chunk in chunks {
        match exchange.chunk(Bytes::copy_from_slice(chunk)) {
            Step::Read => {}
            Step::Send(bytes) => sent.extend_from_slice(&bytes),
            Step::WindDown | Step::Stop => {
                stopped = true;
                break;
            }
        }
    }
    if !stopped && let Some(last) = exchange.ended(Ending::Whole) {
        sent.extend_from_slice(&last);
    }
    (exchange.observed(), lines(&sent))
}

fn lines(bytes: &[u8]) -> Vec<String> {
    bytes
        .split(|byte| matches!(byte, b'\r' | b'\n'))
        .filter(|line| !line.is_empty())
        .map(shown)
        .collect()
}

fn cut_up<'a>(chance: &mut Chance, mut bytes: &'a [u8]) -> Vec<&'a [u8]> {
    let longest = [1, 3, 40, 400][chance.below(4)];
    let mut chunks = Vec::new();
    while !bytes.is_empty() {
        let (chunk, rest) = bytes.split_at((1 + chance.below(longest)).min(bytes.len()));
        chunks.push(chunk);
        bytes = rest;
    }
    chunks
}

/// The kept streams say 21 in and 9 out.
fn assert_known(usage: UsageSeen, name: &str) {
    let UsageSeen::Reported(Usage { prompt, output, .. }) = usage else {
        panic!("{name}: {usage:?}");
    };
    let nothing_generated = name.starts_with("embeddings");
    let wanted = if nothing_generated { 0 } else { 9 };
    assert_eq!((prompt, output), (21, wanted), "{name}");
}

/// The same stream, written otherwise.
fn rewritten(text: &str, way: usize) -> String {
    match way {
        0 => text.to_owned(),
        1 => text.replace('\n', "\r\n"),
        2 => text.replace('\n', "\r"),
        3 => text.replace("data: ", ": comment\nid: 1\nretry: 3\ndata:"),
        4 => text.replace(",\"", ",\ndata: \""),
        5 => text.replace("\n\n", "\r\n\n: ping\r\r"),
        _ => text.trim_end().to_owned(),
    }
}

#[test]
fn every_family_is_read_the_same_however_it_is_written_and_cut_up() {
    let mut chance = chance();
    for Entry { name, route, bytes } in entries("streams") {
        let text = String::from_utf8(bytes).unwrap();
        for way in 0..7 {
            let written = rewritten(&text, way);
            for hide in [false, true] {
                let whole = exchange(route, true, hide, &[written.as_bytes()]);
                assert_known(whole.0.usage, &format!("{name} written {way}"));
                assert!(
                    hide || whole.1 == lines(written.as_bytes()),
                    "{name} written {way}"
                );
                for _ in 0..20 {
                    let chunks = cut_up(&mut chance, written.as_bytes());
                    let pieces = exchange(route, true, hide, &chunks);
                    assert_eq!(pieces, whole, "{name} written {way}");
                }
            }
        }
    }
    for Entry { name, route, bytes } in entries("answers") {
        assert_known(exchange(route, false, false, &[&bytes]).0.usage, &name);
    }
}

#[test]
fn mutated_streams_are_read_the_same_however_they_are_cut_up() {
    let (mut chance, entries) = (chance(), entries("streams"));
    for nth in 0..mutants() {
        let entry = &entries[nth % entries.len()];
        let other = &entries[chance.below(entries.len())].bytes;
        let stream = mutated(&mut chance, &entry.bytes, other);
        let hide = chance.below(2) == 0;
        let whole = in_time(&stream, || exchange(entry.route, true, hide, &[&stream]));
        // One that was cut for its length was cut somewhere.
        if whole.0.outran {
            continue;
        }
        let chunks = cut_up(&mut chance, &stream);
        let pieces = in_time(&stream, || exchange(entry.route, true, hide, &chunks));
        if !pieces.0.outran {
            assert_eq!(pieces, whole, "{}", shown(&stream));
        }
    }
}

/// The plain reading of a document's usage: tokens in and out.
fn plain_usage(document: &Value) -> Option<(u64, u64)> {
    let usage = document.get("usage").filter(|usage| !usage.is_null());
    let usage = usage.or_else(|| document.get("x_groq")?.get("usage"))?;
    let count = |names: [&str; 2]| names.iter().filter_map(|name| usage[*name].as_u64()).max();
    let prompt = count(["prompt_tokens", "input_tokens"])?;
    let total = usage["total_tokens"].as_u64();
    let by_total = total.and_then(|total| total.checked_sub(prompt));
    let output = count(["completion_tokens", "output_tokens"]).max(by_total)?;
    Some((prompt, output))
}

#[test]
fn mutated_answers_are_never_read_as_something_else() {
    let (mut chance, entries) = (chance(), entries("answers"));
    let mut read = 0;
    for nth in 0..mutants() {
        let entry = &entries[nth % entries.len()];
        let other = &entries[chance.below(entries.len())].bytes;
        let answer = mutated(&mut chance, &entry.bytes, other);
        let seen = in_time(&answer, || {
            exchange(entry.route, false, false, &[&answer]).0
        });
        let (UsageSeen::Reported(usage), Some(document)) = (seen.usage, strict::read(&answer))
        else {
            continue;
        };
        let plain = plain_usage(&document);
        assert_eq!(
            Some((usage.prompt, usage.output)),
            plain,
            "{}",
            shown(&answer)
        );
        read += 1;
    }
    assert!(read > mutants() / 50, "{read} read prove little");
}

use proptest::prelude::*;

use super::*;

fn mask(key: &[u8]) -> Mask {
    Mask::new(Arc::new(MaskedKey::new(key).unwrap()))
}

/// From left to right, each occurrence that does not overlap the one before.
fn naive(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut out = data.to_vec();
    let mut at = 0;
    while at + key.len() <= data.len() {
        if data[at..].starts_with(key) {
            out[at..at + key.len()].fill(b'*');
            at += key.len();
        } else {
            at += 1;
        }
    }
    out
}

/// The longest end of what may be other text that is a start of the key.
fn naive_held(key: &[u8], masked: &[u8]) -> usize {
    (1..key.len())
        .rev()
        .find(|&length| masked.ends_with(&key[..length]))
        .unwrap_or(0)
}

fn chunks<'a>(mut data: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    let mut all = Vec::new();
    for &length in lengths {
        let (chunk, rest) = data.split_at(length.min(data.len()));
        all.push(chunk);
        data = rest;
    }
    all.push(data);
    all
}

fn check(key: &[u8], data: &[u8], lengths: &[usize]) {
    let mut mask = mask(key);
    let mut out = Vec::new();
    let mut came = 0;
    let chunks = chunks(data, lengths);
    let (last, others) = chunks.split_last().unwrap();
    for chunk in others {
        out.extend_from_slice(&mask.push(Bytes::copy_from_slice(chunk)));
        came += chunk.len();
        let expected = naive(key, &data[..came]);
        let held = naive_held(key, &expected);
        assert_eq!(mask.held_bytes(), held, "no more and no less is held back");
        assert_eq!(out, expected[..came - held]);
    }
    out.extend_from_slice(&mask.finish(Bytes::copy_from_slice(last)));
    assert_eq!(out, naive(key, data));
    assert_eq!(mask.held_bytes(), 0);
    assert!(!out.windows(key.len()).any(|window| window == key));
}

/// Text that is full of the key, its parts, and other things.
fn text(key: Vec<u8>) -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let length = key.len();
    let (start_of, end_of) = (key.clone(), key.clone());
    let piece = prop_oneof![
        2 => Just(key.clone()),
        3 => (0..length).prop_map(move |to| start_of[..to].to_vec()),
        2 => (0..length).prop_map(move |from| end_of[from..].to_vec()),
        2 => prop::collection::vec(prop::sample::select(&b"abc \n}"[..]), 0..12),
    ];
    let data = prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat());
    (Just(key), data)
}

fn key_and_text() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    // Two or three kinds of bytes make keys that overlap themselves in every way.
    prop_oneof![
        prop::collection::vec(prop::sample::select(&b"ab"[..]), 8..14),
        prop::collection::vec(prop::sample::select(&b"abc"[..]), 8..40),
        prop::collection::vec(b'!'..=b')', 8..300),
    ]
    .prop_flat_map(text)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_chunks_are_masked_as_the_whole_is(
        (key, data) in key_and_text(),
        lengths in prop::collection::vec(0_usize..20, 0..40),
    ) {
        check(&key, &data, &lengths);
    }
}

#[test]
fn a_key_is_masked_wherever_it_is_cut() {
    let key = b"sk-canary-fake";
    let data = b"{\"a\":\"Bearer sk-canary-fake sk-canasksk-canary-fake\"}\n";
    for first in 0..=data.len() {
        for second in 0..=data.len() - first {
            check(key, data, &[first, second]);
        }
    }
    check(key, data, &vec![1; data.len()]);
}

#[test]
fn a_chunk_without_a_part_of_the_key_is_handed_on_as_it_is() {
    let mut mask = mask(b"sk-canary-fake");
    for text in [
        "data: {\"k\":\"sk-canary\"}\n\n",
        "{\"sk-\": 1}",
        "sk-canary-",
    ] {
        let chunk = Bytes::from(text);
        let place = chunk.as_ptr();
        let out = mask.push(chunk);
        assert_eq!(out.as_ptr(), place, "nothing is copied");
        assert_eq!(out.len() + mask.held_bytes(), text.len());
    }
    assert_eq!(mask.held_bytes(), 10);
    assert_eq!(mask.finish(Bytes::new()), "sk-canary-");
}

#[test]
fn a_key_that_would_hit_ordinary_text_is_not_masked() {
    assert!(MaskedKey::new(b"").is_none());
    assert!(MaskedKey::new(b"1234567").is_none());
    assert!(MaskedKey::new(b"12345678").is_some());
}

#[test]
fn masking_never_makes_a_key() {
    let key = b"abcdefg*";
    let mut mask = mask(key);
    let out = mask.finish(Bytes::from_static(b"abcdefgabcdefg*"));
    assert_eq!(out, "abcdefg        ");
}

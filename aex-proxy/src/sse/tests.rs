use proptest::prelude::*;

use super::*;

fn split(text: &str, cut: usize) -> (Vec<String>, String) {
    let mut splitter = Splitter::default();
    let mut events = Vec::new();
    for chunk in text.as_bytes().chunks(cut) {
        let chunk = Bytes::copy_from_slice(chunk);
        splitter
            .push(&chunk, |event| {
                events.push(String::from_utf8(event.to_vec()).unwrap());
            })
            .unwrap();
    }
    let rest = String::from_utf8(splitter.rest().to_vec()).unwrap();
    (events, rest)
}

#[test]
fn events_end_with_a_blank_line_of_any_kind() {
    for (text, expected) in [
        ("data: a\n\ndata: b\n\n", vec!["data: a\n\n", "data: b\n\n"]),
        (
            "data: a\r\n\r\ndata: b\r\n\r\n",
            vec!["data: a\r\n\r\n", "data: b\r\n\r\n"],
        ),
        ("data: a\r\rdata: b\r\r", vec!["data: a\r\r", "data: b\r\r"]),
        ("data: a\ndata: b\n\nrest", vec!["data: a\ndata: b\n\n"]),
        (
            ": comment\n\ndata: a\r\n\n",
            vec![": comment\n\n", "data: a\r\n\n"],
        ),
    ] {
        assert_eq!(split(text, text.len()).0, expected, "{text:?}");
    }
}

#[test]
fn data_lines_are_joined_and_others_skipped() {
    for (event, expected) in [
        ("data: a\n\n", Some("a")),
        ("data:a\r\n\r\n", Some("a")),
        ("data:  a\n\n", Some(" a")),
        ("event: x\ndata: a\ndata: b\nid: 1\n\n", Some("a\nb")),
        ("data\n\n", Some("")),
        (": ping\n\n", None),
        ("database: x\n\n", None),
    ] {
        let found = data(event.as_bytes()).map(|data| String::from_utf8(data.to_vec()).unwrap());
        assert_eq!(found.as_deref(), expected, "{event:?}");
    }
}

#[test]
fn an_endless_event_is_refused() {
    let mut splitter = Splitter::default();
    let chunk = Bytes::from(vec![b'x'; MAX_EVENT_BYTES]);
    assert_eq!(splitter.push(&chunk, |_| {}), Ok(()));
    assert_eq!(splitter.push(&chunk, |_| {}), Err(EventTooLong));
}

proptest! {
    #[test]
    fn every_byte_comes_out_once_and_data_is_the_same_under_any_chunking(
        text in "(data: [ab]{0,3}|: c)?(\n|\r\n|\r|\n\n|\r\n\r\n|\r\r|x){0,12}(data: z(\n|\r\n|\r){0,3}){0,4}",
        cut in 1usize..9,
    ) {
        let (events, rest) = split(&text, cut);
        prop_assert_eq!(events.concat() + &rest, text.clone());
        let values = |events: &[String], rest: &str| -> Vec<String> {
            let all = events.iter().map(String::as_str).chain([rest]);
            all.filter_map(|event| data(event.as_bytes()))
                .map(|data| String::from_utf8(data.to_vec()).unwrap())
                .collect()
        };
        let (whole_events, whole_rest) = split(&text, text.len().max(1));
        prop_assert_eq!(values(&events, &rest), values(&whole_events, &whole_rest));
    }
}

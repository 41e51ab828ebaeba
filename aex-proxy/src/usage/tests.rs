use proptest::prelude::*;

use super::*;

fn reported(prompt: u64, cached: u64, cache_write: u64, output: u64, reasoning: u64) -> UsageSeen {
    UsageSeen::Reported(Usage {
        prompt,
        cached,
        cache_write,
        output,
        reasoning,
    })
}

fn of(documents: &[&str]) -> UsageSeen {
    let mut tally = Tally::default();
    for document in documents {
        tally.document(document.as_bytes());
    }
    tally.usage()
}

/// The usage of one document whose `usage` is this.
fn usage(text: &str) -> UsageSeen {
    of(&[&format!(r#"{{"choices":[],"usage":{text}}}"#)])
}

#[test]
fn each_providers_form_is_read() {
    for (text, expected) in [
        (
            r#"{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}"#,
            reported(9, 0, 0, 3, 0),
        ),
        (
            r#"{"prompt_tokens":9,"completion_tokens":5,"total_tokens":14,"prompt_tokens_details":{"cached_tokens":4,"cache_write_tokens":2,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":3}}"#,
            reported(9, 4, 2, 5, 3),
        ),
        // DeepSeek
        (
            r#"{"prompt_tokens":9,"completion_tokens":1,"prompt_cache_hit_tokens":6,"prompt_cache_miss_tokens":3}"#,
            reported(9, 6, 0, 1, 0),
        ),
        // Gemini: thoughts only in the total
        (
            r#"{"prompt_tokens":10,"completion_tokens":2,"total_tokens":100}"#,
            reported(10, 0, 0, 90, 0),
        ),
        // vLLM: details null
        (
            r#"{"prompt_tokens":1,"completion_tokens":1,"prompt_tokens_details":null,"completion_tokens_details":null}"#,
            reported(1, 0, 0, 1, 0),
        ),
        // OpenRouter: more besides
        (
            r#"{"prompt_tokens":1,"completion_tokens":1,"cost":0.0012,"is_byok":false}"#,
            reported(1, 0, 0, 1, 0),
        ),
        (
            r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#,
            reported(0, 0, 0, 0, 0),
        ),
        (
            r#"{"prompt_tokens":5,"total_tokens":9}"#,
            reported(5, 0, 0, 4, 0),
        ),
        ("null", UsageSeen::Missing),
        ("{}", UsageSeen::Missing),
    ] {
        assert_eq!(usage(text), expected, "{text}");
    }
}

#[test]
fn what_cannot_be_believed_is_unreadable() {
    for text in [
        r#"{"prompt_tokens":-1,"completion_tokens":3}"#,
        r#"{"prompt_tokens":1.5,"completion_tokens":3}"#,
        r#"{"prompt_tokens":9,"completion_tokens":"3"}"#,
        r#"{"prompt_tokens":9,"completion_tokens":true}"#,
        r#"{"prompt_tokens":9,"completion_tokens":100000001}"#,
        r#"{"prompt_tokens":9,"completion_tokens":1e30}"#,
        r#"{"prompt_tokens":9,"completion_tokens":3,"completion_tokens":1}"#,
        r#"{"prompt_tokens":9,"completion_tokens":[3]}"#,
        r#"{"completion_tokens":3}"#,
        r#"{"prompt_tokens":9}"#,
        r#"{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":10}}"#,
        r#"{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":7}"#,
        r#"{"prompt_tokens":9,"completion_tokens":3,"completion_tokens_details":{"reasoning_tokens":4}}"#,
        "7",
        r#""lots""#,
        "[9,3]",
    ] {
        assert_eq!(usage(text), UsageSeen::Unreadable, "{text}");
    }
    let twice = r#"{"usage":{"prompt_tokens":1,"completion_tokens":1},"usage":null}"#;
    assert_eq!(of(&[twice]), UsageSeen::Unreadable);
    assert_eq!(of(&["not json"]), UsageSeen::Unreadable);
    assert_eq!(of(&["[1]"]), UsageSeen::Unreadable);
}

#[test]
fn the_last_top_level_usage_wins() {
    let one = r#"{"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
    let two = r#"{"usage":{"prompt_tokens":2,"completion_tokens":2}}"#;
    let none = r#"{"usage":null,"choices":[]}"#;
    let bad = r#"{"usage":{"prompt_tokens":-2}}"#;
    let groq = r#"{"x_groq":{"id":"r","usage":{"prompt_tokens":3,"completion_tokens":3}}}"#;
    let nested = r#"{"choices":[{"delta":{"usage":{"prompt_tokens":9,"completion_tokens":9}}}]}"#;
    assert_eq!(of(&[one, two, none]), reported(2, 0, 0, 2, 0));
    assert_eq!(of(&[one, bad]), UsageSeen::Unreadable);
    assert_eq!(of(&[bad, one]), reported(1, 0, 0, 1, 0));
    assert_eq!(of(&[groq]), reported(3, 0, 0, 3, 0));
    assert_eq!(of(&[one, groq]), reported(1, 0, 0, 1, 0));
    assert_eq!(of(&[nested]), UsageSeen::Missing);
}

#[test]
fn visible_output_is_counted_and_labels_are_not() {
    let mut tally = Tally::default();
    tally.document(r#"{"choices":[{"delta":{"role":"assistant","content":"hé"}}]}"#.as_bytes());
    assert_eq!(tally.output_bytes(), 3);
    tally.document(
        br#"{"choices":[{"delta":{"tool_calls":[{"id":"call_1","type":"function","index":0,"function":{"name":"f","arguments":"{}"}}]}},{"delta":{"refusal":"no"}}]}"#,
    );
    assert_eq!(tally.output_bytes(), 3 + 3 + 2);
    tally.document(br#"{"choices":[{"message":{"content":"four"},"text":"x"}]}"#);
    assert_eq!(tally.output_bytes(), 8 + 5);
    assert!(!tally.finished());
    tally.document(br#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#);
    assert!(tally.finished());
}

#[test]
fn only_usage_with_an_empty_list_is_a_usage_chunk() {
    let kind = |text: &str| Tally::default().document(text.as_bytes());
    let figures = r#""usage":{"prompt_tokens":1,"completion_tokens":1}"#;
    assert_eq!(
        kind(&format!(r#"{{"choices":[],{figures}}}"#)),
        Kind::UsageOnly
    );
    assert_eq!(kind(&format!(r#"{{{figures}}}"#)), Kind::Other);
    assert_eq!(
        kind(&format!(r#"{{"choices":[{{"delta":{{}}}}],{figures}}}"#)),
        Kind::Other
    );
    // Azure's filter results come like this.
    assert_eq!(
        kind(r#"{"choices":[],"usage":null,"prompt_filter_results":[]}"#),
        Kind::Other
    );
}

fn read_both_ways(documents: &[String]) -> (Tally, Tally) {
    let (mut chunks, mut each) = (Tally::default(), Tally::default());
    for document in documents {
        assert_eq!(
            chunks.chunk(document.as_bytes()),
            each.document(document.as_bytes())
        );
    }
    (chunks, each)
}

#[test]
fn a_chunk_like_the_one_before_is_not_read_again_and_counts() {
    let chunk = |text: &str| {
        format!(r#"{{"choices":[{{"delta":{{"content":"{text}"}},"finish_reason":null}}]}}"#)
    };
    let mut tally = Tally::default();
    tally.chunk(chunk("four").as_bytes());
    let like = chunk("fives");
    assert_eq!(tally.template.output_bytes(like.as_bytes()), Some(5));
    for other in [
        chunk("a\\n"),
        chunk("\u{fc}"),
        chunk("a\",\"b\":\""),
        chunk("\n"),
    ] {
        assert_eq!(tally.template.output_bytes(other.as_bytes()), None);
    }
    tally.chunk(like.as_bytes());
    assert_eq!(tally.output_bytes(), 9);
}

proptest! {
    #[test]
    fn chunks_count_as_documents_do(
        pieces in prop::collection::vec(
            (
                prop::sample::select(vec!["content", "id", "role", "reasoning", "content\\u0022"]),
                prop::sample::select(vec!["", "a", "word ", "\\n", "\\\"content\\\":\\\"", "\u{e9}", "\u{1}", "\"", "x\",\"content\":\"y"]),
                prop::sample::select(vec!["", r#","usage":null"#, r#","usage":{"prompt_tokens":1,"completion_tokens":2}"#, r#","content":"top""#, "]", r#","x_groq":{"usage":{"prompt_tokens":7,"completion_tokens":2}}"#]),
                prop::sample::select(vec!["null", "\"stop\"", "null", "null"]),
                prop::sample::select(vec!["", r#""content":"top","#, r#""id":"a","#]),
            ),
            0..12,
        ),
    ) {
        let documents: Vec<String> = pieces
            .iter()
            .map(|(key, text, more, finish, first)| {
                format!(r#"{{{first}"choices":[{{"delta":{{"{key}":"{text}"}},"finish_reason":{finish}}}]{more}}}"#)
            })
            .collect();
        let (chunks, each) = read_both_ways(&documents);
        prop_assert_eq!(chunks.usage(), each.usage());
        prop_assert_eq!(chunks.finished(), each.finished());
        prop_assert_eq!(chunks.output_bytes(), each.output_bytes());
    }
}

#[test]
fn usages_that_stand_alone_are_added_up() {
    let alone = |output: u64| {
        format!(r#"{{"choices":[],"usage":{{"prompt_tokens":9,"completion_tokens":{output}}}}}"#)
    };
    let mut tally = Tally::default();
    tally.chunk(alone(40).as_bytes());
    assert_eq!(tally.usage_chunks(), None);
    tally.chunk(alone(1).as_bytes());
    assert_eq!(tally.usage(), reported(9, 0, 0, 1, 0));
    let both = UsageChunks {
        count: 2,
        output: 41,
    };
    assert_eq!(tally.usage_chunks(), Some(both));
    // A running figure on chunks that have choices is not a usage a choice.
    tally.chunk(br#"{"choices":[{}],"usage":{"prompt_tokens":9,"completion_tokens":9}}"#);
    assert_eq!(tally.usage_chunks(), Some(both));
}

#[test]
fn a_usage_that_output_follows_was_not_the_last_word() {
    const FIRST: &str = r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":0}}"#;
    const TEXT: &str = r#"{"choices":[{"delta":{"content":"hey"}}]}"#;
    const FINISH: &str = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
    const LAST: &str = r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#;
    const RUNNING: &str = r#"{"choices":[{"delta":{"content":"hey"}}],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#;
    const GROQ: &str = r#"{"choices":[{"delta":{}}],"x_groq":{"usage":{"prompt_tokens":3,"completion_tokens":2}}}"#;
    assert_eq!(of(&[FIRST, TEXT]), UsageSeen::Missing);
    assert_eq!(of(&[FIRST, FINISH]), reported(3, 0, 0, 0, 0));
    assert_eq!(of(&[FIRST, TEXT, FINISH, LAST]), reported(3, 0, 0, 2, 0));
    assert_eq!(of(&[RUNNING, FINISH]), reported(3, 0, 0, 1, 0));
    assert_eq!(of(&[RUNNING, TEXT]), UsageSeen::Missing);
    assert_eq!(of(&[TEXT, GROQ]), reported(3, 0, 0, 2, 0));
    // Chunks that differ in plain text alone take another way.
    let mut tally = Tally::default();
    tally.chunk(FIRST.as_bytes());
    for _ in 0..4 {
        tally.chunk(TEXT.as_bytes());
    }
    assert_eq!(tally.usage(), UsageSeen::Missing);
}

#[test]
fn an_answer_of_an_unknown_shape_has_no_count() {
    for text in [
        r#"{"response":"long long"}"#,
        r#"{"choices":null,"delta":{"content":"x"}}"#,
        "{}",
    ] {
        let mut tally = Tally::default();
        tally.document(text.as_bytes());
        assert_eq!(tally.output_bytes(), u64::MAX, "{text}");
    }
    let mut tally = Tally::default();
    tally.document(br#"{"usage":{"prompt_tokens":3,"completion_tokens":2}}"#);
    assert_eq!(tally.output_bytes(), 0);
    // After a usage it takes nothing from it.
    tally.document(br#"{"type":"ping"}"#);
    assert_eq!(tally.usage(), reported(3, 0, 0, 2, 0));
}

fn of_responses(events: &[&str]) -> Tally {
    let mut tally = Tally::new(Route::Responses);
    for event in events {
        tally.chunk(event.as_bytes());
    }
    tally
}

#[test]
fn a_response_tells_its_usage_in_its_last_event() {
    let usage = r#""usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":4},"output_tokens":5,"output_tokens_details":{"reasoning_tokens":2},"total_tokens":14}"#;
    let delta = r#"{"type":"response.output_text.delta","delta":"hey"}"#;
    let item = r#"{"type":"response.output_item.done","item":{"id":"msg_1","type":"message","content":[{"type":"output_text","text":"heyhey"}]}}"#;
    for kind in ["completed", "incomplete", "failed"] {
        let last = format!(r#"{{"type":"response.{kind}","response":{{"output":[],{usage}}}}}"#);
        let tally = of_responses(&[delta, delta, item, &last]);
        assert_eq!(tally.usage(), reported(9, 4, 0, 5, 2), "{kind}");
        assert!(tally.finished());
        // The item repeats what its pieces said.
        assert_eq!(tally.output_bytes(), 6);
    }
    let early = format!(r#"{{"type":"response.in_progress","response":{{{usage}}}}}"#);
    let cut = of_responses(&[&early, delta]);
    assert_eq!((cut.usage(), cut.finished()), (UsageSeen::Missing, false));
    let failed =
        of_responses(&[r#"{"type":"response.failed","response":{"usage":null,"output":[]}}"#]);
    assert_eq!(
        (failed.usage(), failed.finished()),
        (UsageSeen::Missing, true)
    );
    let top_level = format!(r#"{{"type":"response.output_text.delta","delta":"x",{usage}}}"#);
    assert_eq!(of_responses(&[&top_level]).usage(), UsageSeen::Missing);
    for odd in ["{}", "[]", r#"{"type":1}"#, r#"{"type":"a","type":"b"}"#] {
        assert_eq!(of_responses(&[odd]).usage(), UsageSeen::Unreadable, "{odd}");
    }
}

#[test]
fn a_whole_response_is_read_like_its_last_event() {
    let read = |text: &str| {
        let mut tally = Tally::new(Route::Responses);
        tally.document(text.as_bytes());
        tally
    };
    let whole = read(
        r#"{"id":"resp_1","status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"four"}]}],"usage":{"input_tokens":3,"output_tokens":1}}"#,
    );
    assert_eq!(whole.usage(), reported(3, 0, 0, 1, 0));
    assert!(whole.output_bytes() >= 4);
    let silent = read(r#"{"output":[{"content":[{"text":"four"}]}]}"#);
    assert_eq!(
        (silent.usage(), silent.output_bytes()),
        (UsageSeen::Missing, 4)
    );
    assert_eq!(read("{}").output_bytes(), u64::MAX);
}

#[test]
fn one_figure_under_two_names_is_the_larger_one() {
    assert_eq!(
        usage(r#"{"prompt_tokens":0,"input_tokens":9,"completion_tokens":4,"output_tokens":2}"#),
        reported(9, 0, 0, 4, 0)
    );
    assert_eq!(
        usage(r#"{"input_tokens":-1,"prompt_tokens":3}"#),
        UsageSeen::Unreadable
    );
}

#[test]
fn an_embeddings_answer_has_no_output() {
    let mut tally = Tally::new(Route::Embeddings);
    tally.document(br#"{"object":"list","data":[{"embedding":[0.1]}],"usage":{"prompt_tokens":8,"total_tokens":8}}"#);
    assert_eq!(tally.usage(), reported(8, 0, 0, 0, 0));
}

#[test]
fn what_a_stream_has_shown_is_never_less_than_its_chunks_say() {
    let chunk = |text: &str| format!(r#"{{"choices":[{{"delta":{{"content":"{text}"}}}}]}}"#);
    let mut tally = Tally::default();
    for text in ["a", "", "b", "c"] {
        tally.chunk(chunk(text).as_bytes());
    }
    assert_eq!(tally.shown_tokens(), 3);
    tally.chunk(chunk(&"word ".repeat(100)).as_bytes());
    assert_eq!(tally.shown_tokens(), 503 / 24);
    tally.chunk(br#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":90}}"#);
    assert_eq!(tally.shown_tokens(), 90);
}

#[test]
fn a_list_is_not_read_as_an_object() {
    assert_eq!(
        usage(r#"{"prompt_tokens":100,"completion_tokens":1,"prompt_tokens_details":[50]}"#),
        UsageSeen::Unreadable
    );
    let event =
        r#"{"type":"response.completed","response":[{"input_tokens":1,"output_tokens":1}]}"#;
    assert_eq!(of_responses(&[event]).usage(), UsageSeen::Unreadable);
    let groq = r#"{"choices":[],"x_groq":[{"prompt_tokens":1,"completion_tokens":1}]}"#;
    assert_eq!(of(&[groq]), UsageSeen::Unreadable);
}

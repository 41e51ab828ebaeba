use aex_admin_proto::worker::Usage;
use proptest::prelude::*;

use super::*;

const USAGE_CHUNK: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\n";
const TEXT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"hey\"}}],\"usage\":null}\n\n";
const FINISH: &str = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";

fn grant() -> Grant {
    Grant {
        ticket: "ticket".into(),
        tenant: aex_admin_proto::scope::ScopeId::Agent(1),
        provider: "p".into(),
        path: "/chat/completions".into(),
        upstream_model: "m".into(),
        output_cap: 7,
        output_cap_param: "max_tokens".into(),
        output_tokens: 10_000,
        cap_is_ours: true,
        stream_usage: true,
        service_tier: None,
        force_store_off: true,
        knows_store: false,
        hidden_output: false,
        remaining_micro: Some(0),
        warnings: Vec::new(),
        on_disconnect: OnDisconnect::Drain,
        drain_timeout_ms: 30_000,
        deadline_boot_ms: 0,
        max_response_bytes: 10_000,
        retry_until_boot_ms: 0,
        first_byte_ms: 0,
        tools: Vec::new(),
    }
}

fn asks(stream: bool, hide_usage: bool, own_key: bool) -> Asked {
    Asked {
        route: Route::ChatCompletions,
        stream,
        hide_usage,
        echoed_tokens: 0,
        hides_choices: false,
        own_key,
    }
}

fn exchange(stream: bool) -> Exchange {
    let asked = asks(stream, stream, false);
    Exchange::new(asked, &grant())
}

fn head(status: u16) -> Head {
    Head {
        status,
        event_stream: false,
        encoded: false,
        other_charset: false,
        failure: None,
    }
}

fn sse() -> Head {
    Head {
        event_stream: true,
        ..head(200)
    }
}

/// What a stream's client gets, chunk by chunk.
fn relayed(exchange: &mut Exchange, text: &str, cut: usize) -> String {
    assert_eq!(exchange.head(sse()), Way::Relay);
    let mut out = Vec::new();
    for chunk in text.as_bytes().chunks(cut) {
        match exchange.chunk(Bytes::copy_from_slice(chunk)) {
            Step::Send(bytes) => out.extend_from_slice(&bytes),
            Step::Read => {}
            Step::WindDown | Step::Stop => panic!("stopped"),
        }
    }
    out.extend_from_slice(&exchange.ended(Ending::Whole).unwrap_or_default());
    String::from_utf8(out).unwrap()
}

fn reported() -> UsageSeen {
    UsageSeen::Reported(Usage {
        prompt: 5,
        output: 2,
        ..Usage::default()
    })
}

#[test]
fn a_whole_answer_is_collected_and_given_unchanged() {
    let mut exchange = exchange(false);
    assert_eq!(exchange.head(head(200)), Way::Collect);
    let body = r#"{"choices":[{"message":{"content":"hey"}}],"usage":{"prompt_tokens":5,"completion_tokens":2}}"#;
    for chunk in body.as_bytes().chunks(10) {
        assert_eq!(exchange.chunk(Bytes::copy_from_slice(chunk)), Step::Read);
    }
    assert_eq!(exchange.ended(Ending::Whole), None);
    let observed = exchange.observed();
    assert_eq!(
        (observed.status, observed.complete, observed.failure),
        (Some(200), true, None)
    );
    assert_eq!(
        (observed.usage, observed.own_output_tokens),
        (reported(), 3)
    );
    assert_eq!(exchange.verdict(false), Verdict::Provider(body.into()));
}

#[test]
fn the_operators_trouble_is_not_told_as_the_agents() {
    for (status, own_key, expected) in [
        (401, false, 502),
        (402, false, 502),
        (403, false, 502),
        (401, true, 401),
        (403, true, 403),
        (429, false, 429),
        (500, false, 500),
        (302, false, 502),
    ] {
        let asked = asks(false, false, own_key);
        let mut exchange = Exchange::new(asked, &grant());
        exchange.head(head(status));
        exchange.ended(Ending::Whole);
        assert_eq!(exchange.observed().status, Some(status));
        let told = match exchange.verdict(false) {
            Verdict::Provider(_) => status,
            Verdict::Fault(fault) => fault.row().status.as_u16(),
        };
        assert_eq!(told, expected, "{status} own key: {own_key}");
    }
}

#[test]
fn each_failure_of_the_egress_is_settled_as_itself_and_told() {
    for (failure, expected) in [
        (Failure::Connect, 502),
        (Failure::Tls, 502),
        (Failure::NotConfigured, 502),
        (Failure::Reset, 502),
        (Failure::ResponseTooLarge, 502),
        (Failure::Timeout, 504),
        (Failure::Ticket, 503),
        (Failure::Severed, 423),
    ] {
        let mut exchange = exchange(true);
        let head = Head {
            failure: Some(failure),
            ..head(502)
        };
        assert_eq!(exchange.head(head), Way::Collect);
        exchange.ended(Ending::Whole);
        let observed = exchange.observed();
        assert_eq!((observed.status, observed.failure), (None, Some(failure)));
        assert!(!observed.complete);
        let Verdict::Fault(fault) = exchange.verdict(false) else {
            panic!("{failure:?} was told as an answer");
        };
        assert_eq!(fault.row().status.as_u16(), expected, "{failure:?}");
    }
}

#[test]
fn a_usage_chunk_is_hidden_from_a_client_that_did_not_ask() {
    let text = [TEXT, FINISH, USAGE_CHUNK, DONE].concat();
    let mut hiding = exchange(true);
    assert_eq!(
        relayed(&mut hiding, &text, text.len()),
        [TEXT, FINISH, DONE].concat()
    );
    assert_eq!(hiding.observed().usage, reported());
    assert!(hiding.observed().complete);
    assert_eq!(hiding.stream_fault(true), None);

    let asked = asks(true, false, false);
    let mut showing = Exchange::new(asked, &grant());
    assert_eq!(relayed(&mut showing, &text, 7), text);
}

#[test]
fn a_stream_without_an_end_mark_is_a_cut() {
    let mut cut = exchange(true);
    assert_eq!(relayed(&mut cut, TEXT, 100), TEXT);
    assert!(!cut.observed().complete);
    assert!(matches!(cut.stream_fault(false), Some(Fault::Upstream(_))));
    assert_eq!(cut.stream_fault(true), Some(Fault::Severed));
}

#[test]
fn a_cut_in_mid_event_sends_no_half_of_it() {
    let mut exchange = exchange(true);
    exchange.head(sse());
    let chunk = format!("{TEXT}data: {{\"choi");
    assert_eq!(exchange.chunk(chunk.into()), Step::Send(TEXT.into()));
    assert_eq!(exchange.ended(Ending::Cut), None);
    let observed = exchange.observed();
    assert_eq!(
        (observed.complete, observed.usage),
        (false, UsageSeen::Missing)
    );
    assert_eq!(observed.own_output_tokens, 3);
}

#[test]
fn half_an_event_before_a_clean_close_is_not_sent() {
    // The error event that follows would run into it.
    for half in ["data: {\"choices\":[]}", "data: {\"choices\":[]}\n"] {
        let mut exchange = exchange(true);
        assert_eq!(relayed(&mut exchange, &format!("{TEXT}{half}"), 7), TEXT);
        assert!(exchange.stream_fault(false).is_some());
    }
}

#[test]
fn too_large_an_answer_is_stopped() {
    for stream in [false, true] {
        let mut exchange = exchange(stream);
        exchange.head(if stream { sse() } else { head(200) });
        assert_eq!(exchange.chunk(vec![b'x'; 10_001].into()), Step::Stop);
        exchange.ended(Ending::Cut);
        assert_eq!(exchange.observed().failure, Some(Failure::ResponseTooLarge));
    }
}

#[test]
fn an_encoded_answer_is_passed_on_and_not_believed() {
    let mut exchange = exchange(true);
    exchange.head(Head {
        encoded: true,
        ..sse()
    });
    let chunk = Bytes::from_static(b"\x1f\x8b");
    assert_eq!(exchange.chunk(chunk.clone()), Step::Send(chunk));
    exchange.ended(Ending::Whole);
    assert_eq!(exchange.observed().usage, UsageSeen::Unreadable);
}

fn aborting(stream: bool) -> Exchange {
    let terms = Grant {
        on_disconnect: OnDisconnect::Abort,
        max_response_bytes: 1 << 20,
        ..grant()
    };
    let asked = asks(stream, stream, false);
    Exchange::new(asked, &terms)
}

#[test]
fn leaving_is_answered_by_the_grants_terms() {
    assert_eq!(exchange(true).client_gone(), 30_000);
    let mut aborting = aborting(true);
    assert_eq!(aborting.client_gone(), ABORT_READ_MS);
    aborting.ended(Ending::GivenUp(Failure::WorkerGone));
    assert_eq!(aborting.observed().failure, Some(Failure::WorkerGone));
}

#[test]
fn an_aborted_answer_is_counted_only_where_it_was_read_as_far_as_it_had_come() {
    let given_up = |mut exchange: Exchange, head, before: usize, after: usize| {
        exchange.head(head);
        for _ in 0..before {
            exchange.chunk(Bytes::from_static(TEXT.as_bytes()));
        }
        exchange.client_gone();
        for _ in 0..after {
            exchange.chunk(Bytes::from_static(TEXT.as_bytes()));
        }
        exchange.ended(Ending::GivenUp(Failure::WorkerGone));
        exchange.observed().own_output_tokens
    };
    assert_eq!(given_up(aborting(true), sse(), 2, 3), 15);
    assert_eq!(given_up(aborting(true), sse(), 2000, 0), 6000);
    // It had written far ahead: nobody knows how far.
    assert_eq!(given_up(aborting(true), sse(), 0, 2000), u64::MAX);
    // A part of it could not be read.
    let mut exchange = aborting(true);
    exchange.head(sse());
    exchange.chunk(Bytes::from_static(b"data: {\n\n"));
    exchange.client_gone();
    exchange.ended(Ending::GivenUp(Failure::WorkerGone));
    assert_eq!(exchange.observed().own_output_tokens, u64::MAX);
    // A plain answer is read at its end alone.
    assert_eq!(given_up(aborting(false), head(200), 1, 0), u64::MAX);
}

/// A stream that was granted 8 tokens, and is told 16 and an eighth more.
fn granted_eight(echoed_tokens: u64) -> Exchange {
    let terms = Grant {
        output_tokens: 8,
        max_response_bytes: 1 << 20,
        ..grant()
    };
    let asked = Asked {
        echoed_tokens,
        hides_choices: false,
        ..asks(true, true, false)
    };
    let mut exchange = Exchange::new(asked, &terms);
    exchange.head(sse());
    exchange
}

#[test]
fn a_stream_that_outruns_its_hold_is_cut_with_an_error() {
    let mut exchange = granted_eight(0);
    for _ in 0..25 {
        assert_eq!(exchange.chunk(TEXT.into()), Step::Send(TEXT.into()));
    }
    assert_eq!(exchange.chunk(TEXT.into()), Step::WindDown);
    assert_eq!(exchange.chunk(TEXT.into()), Step::Read, "counted, not sent");
    assert!(exchange.is_abandoned());
    exchange.ended(Ending::GivenUp(Failure::WorkerGone));
    let observed = exchange.observed();
    assert_eq!((observed.outran, observed.complete), (true, false));
    assert_eq!(observed.own_output_tokens, 27 * 3);
    assert!(
        matches!(exchange.stream_fault(false), Some(Fault::Upstream(text)) if text.contains("cap"))
    );

    // Few chunks with much in them.
    let long = TEXT.replace("hey", &"word ".repeat(200));
    assert_eq!(granted_eight(0).chunk(long.clone().into()), Step::WindDown);
    // A usage on the way that is above it.
    let said = TEXT.replace("null", r#"{"prompt_tokens":5,"completion_tokens":26}"#);
    assert_eq!(granted_eight(0).chunk(said.into()), Step::WindDown);
    // The last one is the truth, and is booked as such.
    let last = USAGE_CHUNK.replace(":2}", ":2600}");
    let mut over = granted_eight(0);
    assert_eq!(
        over.chunk([FINISH, &last, DONE].concat().into()),
        Step::Send([FINISH, DONE].concat().into())
    );
    over.ended(Ending::Whole);
    assert_eq!(
        (over.observed().outran, over.observed().complete),
        (true, true)
    );
    // A prompt that comes back is not output.
    assert!(matches!(
        granted_eight(1000).chunk(long.into()),
        Step::Send(_)
    ));
}

#[test]
fn a_plain_answer_that_shows_more_than_was_granted_says_so() {
    let outran = |words: usize| {
        let terms = Grant {
            output_tokens: 8,
            max_response_bytes: 1 << 20,
            ..grant()
        };
        let mut exchange = Exchange::new(asks(false, false, false), &terms);
        exchange.head(head(200));
        let text = "word ".repeat(words);
        exchange.chunk(format!(r#"{{"choices":[{{"message":{{"content":"{text}"}}}}]}}"#).into());
        exchange.ended(Ending::Whole);
        exchange.observed().outran
    };
    assert!(!outran(8) && outran(200));
}

proptest! {
    #[test]
    fn any_chunking_relays_the_same_bytes_and_reads_the_same_usage(cut in 1usize..400) {
        let text = [": hello\r\n\r\n", TEXT, TEXT, FINISH, USAGE_CHUNK, DONE].concat();
        let mut exchange = exchange(true);
        let expected = text.replace(USAGE_CHUNK, "");
        prop_assert_eq!(relayed(&mut exchange, &text, cut), expected);
        let observed = exchange.observed();
        prop_assert_eq!((observed.usage, observed.own_output_tokens), (reported(), 6));
        prop_assert!(observed.complete);
    }
}

#[test]
fn answers_that_are_not_shown_are_not_counted() {
    let read = |more: &str| {
        let body = format!(r#"{{"model":"m","prompt":"hi"{more}}}"#);
        let read = crate::request::read(Route::Completions, body.as_bytes());
        read.unwrap().hides_choices
    };
    assert!(!read("") && !read(r#","n":3"#) && !read(r#","n":3,"best_of":3"#));
    assert!(read(r#","best_of":2"#) && read(r#","best_of":4,"n":3"#));
    let shown = Asked {
        route: Route::Completions,
        stream: false,
        hide_usage: false,
        echoed_tokens: 0,
        hides_choices: true,
        own_key: false,
    };
    let mut exchange = Exchange::new(shown, &grant());
    exchange.head(Head {
        status: 200,
        event_stream: false,
        encoded: false,
        other_charset: false,
        failure: None,
    });
    let answer = r#"{"choices":[{"text":"tok","finish_reason":"stop"}]}"#;
    exchange.chunk(Bytes::from_static(answer.as_bytes()));
    exchange.ended(Ending::Whole);
    let seen = exchange.observed();
    assert_eq!(
        (seen.usage, seen.own_output_tokens),
        (UsageSeen::Missing, u64::MAX)
    );
}

//! Many at once on one budget: never a cent above it, hardly one left.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use aex_tests::harness::Kernel;
use aex_tests::sim::Behaviour;
use serde_json::{Value, json};

use crate::common::{bill_pico, hello, sim, spent_pico};

const REQUESTS: usize = 500;
const PARALLEL: usize = 50;
/// Tokens of each answer, so many that the prompt's bound weighs little beside them.
const OUTPUT: u64 = 200;

#[derive(Debug, Clone, Copy)]
struct Case {
    streamed: bool,
    delay_ms: u64,
    capped: bool,
}

#[test]
fn plain() {
    for delay_ms in [0, 100] {
        budget_for_a_hundred(Case {
            streamed: false,
            delay_ms,
            capped: true,
        });
    }
}

#[test]
fn streamed() {
    for delay_ms in [0, 100] {
        budget_for_a_hundred(Case {
            streamed: true,
            delay_ms,
            capped: true,
        });
    }
}

#[test]
fn plain_without_a_cap() {
    for delay_ms in [0, 100] {
        budget_for_a_hundred(Case {
            streamed: false,
            delay_ms,
            capped: false,
        });
    }
}

#[test]
fn streamed_without_a_cap() {
    for delay_ms in [0, 100] {
        budget_for_a_hundred(Case {
            streamed: true,
            delay_ms,
            capped: false,
        });
    }
}

fn request(case: Case) -> Value {
    let mut body = hello(json!({"max_tokens": OUTPUT, "stream": case.streamed}));
    if !case.capped {
        body.as_object_mut().unwrap().remove("max_tokens");
    }
    body
}

/// 500 requests, 50 in parallel, on a budget that pays for exactly 100 of them.
fn budget_for_a_hundred(case: Case) {
    let sim = sim();
    sim.behave(Behaviour {
        delay_ms: case.delay_ms,
        natural_tokens: Some(OUTPUT),
        tokens_per_chunk: Some(20),
        ..Behaviour::default()
    });
    let kernel = Kernel::on(&sim);
    let request = request(case);
    let budget_micro = price_of_a_hundred(&kernel, &request);
    sim.reset();
    let token = kernel.create_agent("crowd", &usd(budget_micro), 1_000_000, &[]);

    let served = send_all(&kernel, &token, &request, case.streamed);
    kernel.settled();

    let bill = bill_pico(&sim.bill());
    let spent = spent_pico(&kernel, "crowd");
    assert!(
        bill <= budget_micro * 1_000_000,
        "{case:?}: billed {bill} of {budget_micro} micro"
    );
    assert_eq!(
        bill, spent,
        "{case:?}: the ledger says what the provider says"
    );
    assert!(served >= 99, "{case:?}: only {served} were served");
    assert_eq!(
        sim.bill().requests,
        served as u64,
        "{case:?}: a refused one was forwarded"
    );
    kernel.audit();
}

/// What 100 of them cost, found out with one by another agent.
fn price_of_a_hundred(kernel: &Kernel, request: &Value) -> i64 {
    let mut request = request.clone();
    request["max_tokens"] = json!(OUTPUT);
    request["stream"] = json!(false);
    let token = kernel.create_agent("probe", "1.00", 1000, &[]);
    assert_eq!(kernel.chat(&token, &request).status, 200);
    let hundred_pico = 100 * spent_pico(kernel, "probe");
    assert_eq!(
        hundred_pico % 1_000_000,
        0,
        "the budget must come out whole"
    );
    hundred_pico / 1_000_000
}

fn usd(micro: i64) -> String {
    format!("{}.{:06}", micro / 1_000_000, micro % 1_000_000)
}

/// How many were served. The others were refused for want of money, and for nothing else.
fn send_all(kernel: &Kernel, token: &str, request: &Value, streamed: bool) -> usize {
    let (next, served) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                while next.fetch_add(1, Relaxed) < REQUESTS {
                    let answered = if streamed {
                        one_stream(kernel, token, request)
                    } else {
                        let answer = kernel.chat(token, request);
                        assert!(money(answer.status, &answer.code()), "{}", answer.text());
                        answer.status == 200
                    };
                    served.fetch_add(usize::from(answered), Relaxed);
                }
            });
        }
    });
    served.into_inner()
}

fn money(status: u16, code: &str) -> bool {
    matches!(
        (status, code),
        (200, _) | (402, "insufficient_budget") | (429, "budget_held")
    )
}

fn one_stream(kernel: &Kernel, token: &str, request: &Value) -> bool {
    let mut events = kernel.chat_stream(token, request);
    let status = events.head.status;
    if status != 200 {
        assert!(matches!(status, 402 | 429), "{:?}", events.head);
        return false;
    }
    let last = events.by_ref().last().map(|event| event.data);
    assert_eq!(last.as_deref(), Some("[DONE]"));
    assert!(events.complete);
    true
}

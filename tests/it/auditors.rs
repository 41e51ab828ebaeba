//! Auditors who never stop asking: operators do not notice.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aex_tests::harness::{Kernel, wait_for};
use serde_json::{Value, json};

use crate::common::{hello, sim};

/// As many as aex-admin has open of one connection; and connections, of 256 that auditors may have.
const AT_ONCE: usize = 8;
const LOOPS: usize = 40;
const ASKED: usize = 30;

struct Caller {
    stream: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Caller {
    fn at(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        let limit = Some(Duration::from_secs(30));
        stream.set_read_timeout(limit).unwrap();
        let answers = BufReader::new(stream.try_clone().unwrap());
        Self { stream, answers }
    }

    fn send(&mut self, method: &str, params: &Value) {
        let frame = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        writeln!(self.stream, "{frame}").unwrap();
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|problem| panic!("{problem}: {line:?}"))
    }

    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.send(method, params);
        self.answer()
    }
}

#[derive(Default)]
struct Auditors {
    stop: AtomicBool,
    done: AtomicU64,
    turned_away: AtomicU64,
}

impl Auditors {
    /// Asks again as soon as there is an answer, with as many open as there may be.
    fn ask_for_ever(&self, socket: &Path, method: &str) {
        let mut caller = Caller::at(socket);
        for _ in 0..AT_ONCE {
            caller.send(method, &json!({}));
        }
        while !self.stop.load(Ordering::Relaxed) {
            let answer = caller.answer();
            let counted = match answer.get("result") {
                Some(_) => &self.done,
                None => &self.turned_away,
            };
            counted.fetch_add(1, Ordering::Relaxed);
            caller.send(method, &json!({}));
        }
    }
}

/// Stops the loops however the test ends, or its scope would wait for them for ever.
struct AtTheEnd<'a>(&'a [&'a Auditors]);

impl Drop for AtTheEnd<'_> {
    fn drop(&mut self) {
        for auditors in self.0 {
            auditors.stop.store(true, Ordering::Relaxed);
        }
    }
}

fn with_history() -> (aex_tests::sim::Sim, Kernel, String) {
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "1.00", 1_000_000, &[]);
    let mut operator = Caller::at(&kernel.places.operator_socket());
    let name = json!({"name": "a"});
    for _ in 0..200 {
        assert!(operator.ask("agent.pause", &name).get("result").is_some());
        assert!(operator.ask("agent.resume", &name).get("result").is_some());
    }
    (sim, kernel, token)
}

#[test]
fn auditors_in_a_loop_keep_no_operator_from_long_work() {
    let (_sim, kernel, token) = with_history();
    let auditors = Auditors::default();
    std::thread::scope(|threads| {
        let _end = AtTheEnd(&[&auditors]);
        for _ in 0..LOOPS {
            threads.spawn(|| {
                auditors.ask_for_ever(&kernel.places.auditor_socket(), "ledger.audit");
            });
        }
        // Their one place is taken all the time.
        wait_for("auditors turning each other away", || {
            let done = auditors.done.load(Ordering::Relaxed) > 5;
            (done && auditors.turned_away.load(Ordering::Relaxed) > 500).then_some(())
        });
        let mut operator = Caller::at(&kernel.places.operator_socket());
        for method in ["ledger.audit", "ledger.replay", "ledger.backup"] {
            for time in 0..ASKED / 3 {
                let answer = operator.ask(method, &json!({}));
                assert!(answer.get("result").is_some(), "{method} {time}: {answer}");
            }
        }
        assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200);
    });
    kernel.audit();
}

#[test]
fn auditors_in_a_loop_are_not_before_an_operator_in_any_queue() {
    let (_sim, kernel, token) = with_history();
    let (audits, statuses) = (Auditors::default(), Auditors::default());
    let socket = &kernel.places.auditor_socket();
    std::thread::scope(|threads| {
        let _end = AtTheEnd(&[&audits, &statuses]);
        threads.spawn(|| audits.ask_for_ever(socket, "ledger.audit"));
        for _ in 0..LOOPS {
            threads.spawn(|| statuses.ask_for_ever(socket, "kernel.status"));
        }
        wait_for("auditors that ask without end", || {
            (statuses.done.load(Ordering::Relaxed) > 1000).then_some(())
        });
        // However fast the machine is: in one queue with them an operator would come after all that they
        // have open, some 320.
        let mut operator = Caller::at(&kernel.places.operator_socket());
        let mut before: Vec<u64> = (0..ASKED)
            .map(|_| {
                let since = statuses.done.load(Ordering::Relaxed);
                let answer = operator.ask("kernel.status", &json!({}));
                assert!(answer.get("result").is_some(), "{answer}");
                statuses.done.load(Ordering::Relaxed) - since
            })
            .collect();
        before.sort_unstable();
        let most = (LOOPS * AT_ONCE / 2) as u64;
        assert!(before[ASKED / 2] < most, "answered before it: {before:?}");
        assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200);
    });
    kernel.audit();
}

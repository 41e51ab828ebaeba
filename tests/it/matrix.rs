//! kill -9 of each program and each pair of them, at each step of a request's life.
//!
//! A gate in the program that is about to take the step stops it there; then the victims are killed,
//! and whoever survived goes on. Afterwards the kernel serves again, no hold stays, and the ledger has
//! what the provider bills, once.

use std::sync::{Condvar, Mutex, PoisonError, mpsc};
use std::time::Duration;

use aex_admin_proto::clock;
use aex_admin_proto::operator::Status;
use aex_tests::harness::{Kernel, process, wait_until};
use aex_tests::http::Connection;
use aex_tests::sim::{Behaviour, Sim};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::common::{DEAR_MODEL, hello, sim};

/// Kernels of this theme at once: they mostly wait.
const MAX_CASES: usize = 6;
/// Promised is a second; four of it for a machine that does other things too.
const SERVES_AGAIN: Duration = Duration::from_secs(4);
/// Promised are ten seconds.
const NO_HOLD_LEFT: Duration = Duration::from_secs(40);
/// Whose request is caught at the step; it appears in the ledger's file before each action's name.
const AGENT: &str = "caught-in-the-act";
/// The simulator's name for the model that only the caught request asks for.
const UPSTREAM_MODEL: &str = "vendor/sim-large";
const INPUT_PICO: u64 = 30_000_000;
const OUTPUT_PICO: u64 = 60_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Admin,
    Egress,
    Worker,
}

impl Victim {
    fn pid(self, status: &Status) -> u32 {
        match self {
            Self::Admin => status.pid,
            Self::Egress => status.egress_pid.unwrap(),
            Self::Worker => status.workers[0].pid,
        }
    }
}

const VICTIMS: [&[Victim]; 6] = [
    &[Victim::Admin],
    &[Victim::Egress],
    &[Victim::Worker],
    &[Victim::Admin, Victim::Egress],
    &[Victim::Admin, Victim::Worker],
    &[Victim::Egress, Victim::Worker],
];

/// How far the request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    BeforeTheHoldCommits,
    CommittedNotAnswered,
    AnsweredNotSent,
    RedeemedNoByteYet,
    InMidStream,
    StreamEndedNotSettled,
    SettledNotAnswered,
}

impl Step {
    /// The program that is stopped at it, and the rule of its gate; none where the provider's pace
    /// is enough.
    fn gate(self) -> Option<(&'static str, String)> {
        let commit = |action: &str| format!("call sync\npath /aex.db-wal\ntext {AGENT}{action}\n");
        let after = |rule: String| rule + "after\n";
        Some(match self {
            Self::BeforeTheHoldCommits => ("aex-admin", commit("hold.open")),
            Self::CommittedNotAnswered => ("aex-admin", after(commit("hold.open"))),
            Self::SettledNotAnswered => ("aex-admin", after(commit("usage.commit"))),
            Self::AnsweredNotSent => ("aex-proxy", "call write\npath /egress.sock\n".into()),
            Self::RedeemedNoByteYet => ("aex-egress", "call write\npath tcp\n".into()),
            Self::StreamEndedNotSettled => (
                "aex-proxy",
                "call write\npath /worker.sock\ntext worker.settle\n".into(),
            ),
            Self::InMidStream => return None,
        })
    }

    fn is_streamed(self) -> bool {
        matches!(self, Self::InMidStream | Self::StreamEndedNotSettled)
    }
}

/// The right to run a case now.
struct Place;

static RUNNING: Mutex<usize> = Mutex::new(0);
static ONE_ENDED: Condvar = Condvar::new();

impl Place {
    fn wait() -> Self {
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut running = ONE_ENDED
            .wait_while(running, |running| *running >= MAX_CASES)
            .unwrap_or_else(PoisonError::into_inner);
        *running += 1;
        Self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ONE_ENDED.notify_all();
    }
}

/// All cases of a step, side by side. Those that fail are named.
fn at(step: Step) {
    let failed: Vec<_> = std::thread::scope(|scope| {
        let cases = VICTIMS.map(|victims| {
            let case = scope.spawn(move || {
                let _place = Place::wait();
                run(step, victims);
            });
            (victims, case)
        });
        let ended = cases.map(|(victims, case)| (victims, case.join()));
        let failed = ended.iter().filter(|(_, result)| result.is_err());
        failed.map(|(victims, _)| *victims).collect()
    });
    assert!(failed.is_empty(), "{step:?}: failed killing {failed:?}");
}

#[expect(
    clippy::print_stderr,
    reason = "the figures are what a run with --nocapture is made for"
)]
fn run(step: Step, victims: &[Victim]) {
    let sim = sim();
    let kernel = Kernel::builder()
        .default_models(&sim)
        .workers(1)
        .interposed()
        .out_of_turn()
        .start();
    let token = kernel.create_agent(AGENT, "5.00", 1000, &[]);
    let other = kernel.create_agent("other", "5.00", 1_000_000, &[]);
    let pids: Vec<u32> = {
        let status = kernel.status();
        victims.iter().map(|victim| victim.pid(&status)).collect()
    };

    let request = Caught::at(step, &kernel, &sim, &token);
    for &pid in &pids {
        process::send_signal(pid, Signal::SIGKILL);
    }
    let killed_boot_ms = clock::boot_ms();
    if let Some((program, _)) = step.gate() {
        kernel.steer(program).lift();
    }
    let serves_again_ms = serve_again(&kernel, &other, killed_boot_ms);
    // While it lives its hold may.
    request.ends();
    let no_hold_ms = no_hold_stays(&kernel);
    eprintln!(
        "{step:?} {victims:?}: serves again after {serves_again_ms} ms, then no hold after \
         {no_hold_ms} ms"
    );
    check_money(&kernel, &sim, step, victims);
    kernel.audit();
}

/// A request that stands at the step.
struct Caught {
    ended: mpsc::Receiver<()>,
}

impl Caught {
    fn at(step: Step, kernel: &Kernel, sim: &Sim, token: &str) -> Self {
        if step == Step::InMidStream {
            sim.behave(Behaviour {
                times: Some(1),
                chunk_delay_ms: 50,
                ..Behaviour::default()
            });
        }
        if let Some((program, rule)) = step.gate() {
            kernel.steer(program).gate(&rule);
        }
        let body = hello(json!({"model": DEAR_MODEL, "stream": step.is_streamed()}));
        let bytes = Kernel::chat_bytes(token, &body, &[]);
        let mut connection = kernel.connect();
        connection.send(&bytes).unwrap();
        let (tell_ended, ended) = mpsc::channel();
        let (tell_begun, begun) = mpsc::channel();
        std::thread::spawn(move || {
            read(connection, step.is_streamed(), &tell_begun);
            // The case may have failed meanwhile.
            let _ = tell_ended.send(());
        });
        match step.gate() {
            Some((program, _)) => kernel.steer(program).reached(),
            None => begun.recv().expect("a stream that has begun"),
        }
        Self { ended }
    }

    fn ends(self) {
        let limit = NO_HOLD_LEFT;
        self.ended.recv_timeout(limit).expect("the request ends");
    }
}

/// Reads an answer to whatever end it comes to.
fn read(mut connection: Connection, streamed: bool, begun: &mpsc::Sender<()>) {
    if !streamed {
        let _ = connection.response();
        return;
    }
    let Ok(events) = connection.events() else {
        return;
    };
    for (number, _) in events.enumerate() {
        if number == 3 {
            // At a gate nobody waits for it.
            let _ = begun.send(());
        }
    }
}

/// Milliseconds until another agent's request was answered.
fn serve_again(kernel: &Kernel, token: &str, since_boot_ms: u64) -> u64 {
    let bytes = Kernel::chat_bytes(token, &hello(json!({})), &[]);
    let served = wait_until(SERVES_AGAIN, || {
        let mut connection = Connection::tcp(kernel.addr).ok()?;
        connection.send(&bytes).ok()?;
        let answer = connection.response().ok()?;
        (answer.status == 200 && answer.complete).then_some(())
    });
    let took_ms = clock::boot_ms() - since_boot_ms;
    let limit_ms = u64::try_from(SERVES_AGAIN.as_millis()).unwrap();
    assert!(
        served.is_some() && took_ms <= limit_ms,
        "served again: {served:?}, after {took_ms} ms"
    );
    took_ms
}

/// Milliseconds until nothing was held any more.
fn no_hold_stays(kernel: &Kernel) -> u64 {
    let since_boot_ms = clock::boot_ms();
    let free = wait_until(NO_HOLD_LEFT, || kernel.holds_nothing().then_some(()));
    assert!(free.is_some(), "a hold stays: {:?}", kernel.look());
    clock::boot_ms() - since_boot_ms
}

/// The one hold's way through the ledger.
#[derive(Debug)]
struct Booked {
    hold_pico: i64,
    cost_pico: i64,
    ends: i64,
    /// Why it was not exact, in the ledger's words.
    reason: String,
}

fn booked(kernel: &Kernel) -> Booked {
    let number = |what: &str| {
        kernel.sqlite_number(&format!(
            "SELECT COALESCE({what}, 0) FROM events WHERE agent='{AGENT}'"
        ))
    };
    assert!(
        number("SUM(action='hold.open')") <= 1,
        "held more than once"
    );
    Booked {
        hold_pico: number("SUM(held_pico) FILTER (WHERE action='hold.open')"),
        cost_pico: number("SUM(cost_pico)"),
        ends: number(
            "SUM(action='hold.release' OR (action='usage.commit' AND \
             detail->>'correction' IS NULL))",
        ),
        reason: kernel.sqlite(&format!(
            "SELECT detail->>'reason' FROM events WHERE agent='{AGENT}' ORDER BY id DESC LIMIT 1"
        )),
    }
}

fn check_money(kernel: &Kernel, sim: &Sim, step: Step, victims: &[Victim]) {
    let bill = sim.bill();
    let true_pico = bill.models.get(UPSTREAM_MODEL).map_or(0, |model| {
        i64::try_from(model.cost_pico(INPUT_PICO, INPUT_PICO, OUTPUT_PICO)).unwrap()
    });
    let was_seen = bill
        .log
        .iter()
        .any(|one| one.body["model"] == UPSTREAM_MODEL);
    let booked = booked(kernel);
    let told = format!(
        "seen: {was_seen}, billed {true_pico}, {booked:?}: {}",
        booked.reason
    );

    assert!(booked.cost_pico >= true_pico, "below the bill: {told}");
    let most_pico = booked.hold_pico.max(true_pico);
    assert!(booked.cost_pico <= most_pico, "charged twice: {told}");
    assert_eq!(booked.ends, i64::from(booked.hold_pico > 0), "{told}");
    if !was_seen {
        // The journal says that bytes may have gone. Either the egress was killed before it could say
        // more, or some did go, and were cut short when the worker was gone.
        let nobody_knows = step == Step::RedeemedNoByteYet && victims != [Victim::Admin];
        let cost_pico = if nobody_knows { booked.hold_pico } else { 0 };
        assert_eq!(booked.cost_pico, cost_pico, "never sent: {told}");
    }
    let agent = kernel.agent(AGENT);
    assert_eq!(agent["reserved_micro"], Value::from(0), "{agent}");
    assert_eq!(agent["in_flight"], Value::from(0), "{agent}");
}

#[test]
fn before_the_hold_commits() {
    at(Step::BeforeTheHoldCommits);
}

#[test]
fn committed_not_answered() {
    at(Step::CommittedNotAnswered);
}

#[test]
fn answered_not_sent() {
    at(Step::AnsweredNotSent);
}

#[test]
fn redeemed_no_byte_yet() {
    at(Step::RedeemedNoByteYet);
}

#[test]
fn in_mid_stream() {
    at(Step::InMidStream);
}

#[test]
fn stream_ended_not_settled() {
    at(Step::StreamEndedNotSettled);
}

#[test]
fn settled_not_answered() {
    at(Step::SettledNotAnswered);
}

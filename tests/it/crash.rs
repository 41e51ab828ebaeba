//! Programs killed under load: nothing is spent that the ledger does not know, nothing stays held.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use aex_tests::harness::{Kernel, process, wait_for};
use aex_tests::http::Connection;
use aex_tests::sim::{Behaviour, Sim};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::common::{bill_pico, hello, sim, spent_pico};

const CLIENTS: usize = 8;

fn slow(sim: &Sim) {
    sim.behave(Behaviour {
        delay_ms: 10,
        chunk_delay_ms: 1,
        ..Behaviour::default()
    });
}

/// Answers so far, of clients that never stop.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    served: AtomicUsize,
    /// Connections lost, and answers other than 200.
    failed: AtomicUsize,
}

impl Load {
    fn client(&self, kernel: &Kernel, token: &str, streamed: bool) {
        let bytes = Kernel::chat_bytes(token, &hello(json!({"stream": streamed})), &[]);
        while !self.stop.load(Relaxed) {
            let answer = Connection::tcp(kernel.addr).map(|mut connection| {
                connection.send(&bytes).ok()?;
                connection.response().ok()
            });
            match answer {
                Ok(Some(answer)) if answer.status == 200 && answer.complete => {
                    self.served.fetch_add(1, Relaxed);
                }
                _ => {
                    self.failed.fetch_add(1, Relaxed);
                }
            }
        }
    }

    fn wait_for_more(&self, count: usize) {
        let goal = self.served.load(Relaxed) + count;
        wait_for("more answers", || {
            (self.served.load(Relaxed) >= goal).then_some(())
        });
    }

    /// Runs `act` under the load of [`CLIENTS`] clients.
    fn during(kernel: &Kernel, token: &str, act: impl FnOnce(&Self)) -> Self {
        let load = Self::default();
        std::thread::scope(|scope| {
            for number in 0..CLIENTS {
                let load = &load;
                scope.spawn(move || load.client(kernel, token, number % 2 == 0));
            }
            // A failed wait must end the clients too, or the scope would never end.
            let ends = StopOnDrop(&load.stop);
            act(&load);
            drop(ends);
        });
        load
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Nothing is held, and nothing was spent that the ledger does not have.
fn assert_whole(kernel: &Kernel, sim: &Sim, agent: &str) {
    kernel.settled();
    wait_for("the provider's end", || {
        (sim.bill().in_flight == 0).then_some(())
    });
    let (bill, spent) = (bill_pico(&sim.bill()), spent_pico(kernel, agent));
    assert!(spent >= bill, "spent {spent}, billed {bill}");
    assert_eq!(kernel.agent(agent)["reserved_micro"], 0);
    assert_eq!(kernel.agent(agent)["in_flight"], 0);
    kernel.audit();
}

#[test]
fn one_of_two_workers_is_killed() {
    let sim = sim();
    slow(&sim);
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "5.00", 1_000_000, &[]);
    let before = kernel.worker_pids();
    assert_eq!(before.len(), 2);
    let load = Load::during(&kernel, &token, |load| {
        load.wait_for_more(50);
        process::send_signal(before[0], Signal::SIGKILL);
        load.wait_for_more(100);
        wait_for("two workers again", || {
            let now = kernel.worker_pids();
            let fresh = now.len() == 2 && !now.contains(&before[0]);
            fresh.then(|| assert!(now.contains(&before[1]), "the other one served on"))
        });
        load.wait_for_more(50);
    });
    let failed = load.failed.into_inner();
    assert!(failed <= 2 * CLIENTS, "{failed} requests failed");
    assert_whole(&kernel, &sim, "a");
}

#[test]
fn the_egress_is_killed() {
    let sim = sim();
    slow(&sim);
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "5.00", 1_000_000, &[]);
    Load::during(&kernel, &token, |load| {
        for _ in 0..2 {
            load.wait_for_more(50);
            let egress = kernel.pid("aex-egress");
            process::send_signal(egress, Signal::SIGKILL);
            wait_for("another egress", || {
                let now = kernel.status().egress_pid;
                now.filter(|&pid| pid != egress && process::is_alive(pid))
            });
        }
        load.wait_for_more(50);
    });
    assert_whole(&kernel, &sim, "a");
}

#[test]
fn the_admin_is_killed() {
    let sim = sim();
    slow(&sim);
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "5.00", 1_000_000, &[]);
    Load::during(&kernel, &token, |load| {
        for _ in 0..3 {
            load.wait_for_more(50);
            process::send_signal(kernel.pid("aex-admin"), Signal::SIGKILL);
            load.wait_for_more(50);
        }
    });
    assert_whole(&kernel, &sim, "a");
}

#[test]
fn all_are_killed_with_streams_open() {
    let sim = sim();
    sim.behave(Behaviour {
        chunk_delay_ms: 20,
        natural_tokens: Some(500),
        ..Behaviour::default()
    });
    let mut kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "5.00", 1000, &[]);
    let body = hello(json!({"stream": true, "max_tokens": 500}));
    let mut streams: Vec<_> = (0..3).map(|_| kernel.chat_stream(&token, &body)).collect();
    for stream in &mut streams {
        assert!(stream.nth(5).is_some());
    }
    let daemon = kernel.pid("daemon");
    let mut pids = process::children(daemon);
    pids.insert(0, daemon);
    for &pid in &pids {
        process::send_signal(pid, Signal::SIGKILL);
    }
    wait_for("their end", || {
        pids.iter()
            .all(|&pid| !process::is_alive(pid))
            .then_some(())
    });
    drop(streams);
    sim.behave(Behaviour::default());
    kernel.start_again();
    assert_whole(&kernel, &sim, "a");
    assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200);
}

#[test]
fn the_supervisor_alone_is_killed() {
    let sim = sim();
    let mut kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "5.00", 1000, &[]);
    assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200);
    let orphans = process::children(kernel.pid("daemon"));
    let daemon = kernel.pid("daemon");
    process::send_signal(daemon, Signal::SIGKILL);
    wait_for("its end", || (!process::is_alive(daemon)).then_some(()));
    kernel.start_again();
    assert!(
        orphans.iter().all(|&pid| !process::is_alive(pid)),
        "the old ones were ended"
    );
    assert_eq!(kernel.chat(&token, &hello(json!({}))).status, 200);
    kernel.audit();
}

#[test]
fn a_stop_lets_requests_finish() {
    let sim = sim();
    sim.behave(Behaviour {
        chunk_delay_ms: 50,
        ..Behaviour::default()
    });
    let mut kernel = Kernel::on(&sim);
    let token = kernel.create_agent("a", "5.00", 1000, &[]);
    let mut events = kernel.chat_stream(&token, &hello(json!({"stream": true})));
    assert!(events.nth(2).is_some());
    let reader = std::thread::spawn(move || {
        let last = events.by_ref().last().map(|event| event.data);
        (last, events.complete)
    });
    kernel.stop();
    let (last, complete) = reader.join().unwrap();
    assert!(complete && last.as_deref() == Some("[DONE]"), "{last:?}");
    kernel.start_again();
    assert_eq!(
        spent_pico(&kernel, "a"),
        bill_pico(&sim.bill()),
        "settled before the end"
    );
    kernel.audit();
}

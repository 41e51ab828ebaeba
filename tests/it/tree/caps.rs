//! Requests at once, under a cap of the kernel and one of each group: by the simulator's own count.

use std::sync::Barrier;
use std::time::Duration;

use aex_tests::harness::{Kernel, process, wait_for, wait_until};
use aex_tests::http::{Events, Response};
use aex_tests::sim::{Behaviour, Sim};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{assert_above, endless, make_group, member, streamed, try_chat};
use crate::common::{DEAR_MODEL, MODEL, assert_error, sim};

const OF_KERNEL: u64 = 10;
const OF_GROUP: u64 = 4;
const STREAMS: usize = 200;
/// The simulator's name of [`DEAR_MODEL`].
const LONE_UPSTREAM: &str = "vendor/sim-large";

/// Two groups, and agents in none. Each part has a model of its own, so that the simulator can tell them
/// apart.
struct House {
    sim: Sim,
    kernel: Kernel,
    red: Part,
    blue: Part,
    lone: Part,
}

struct Part {
    model: &'static str,
    tokens: Vec<String>,
}

impl Part {
    fn new(kernel: &Kernel, model: &'static str, names: &[&str], options: &[&str]) -> Self {
        let tokens = names.iter().map(|name| member(kernel, name, options));
        Self {
            model,
            tokens: tokens.collect(),
        }
    }

    fn body(&self, max_tokens: u64) -> Value {
        streamed(&json!({"model": self.model, "max_tokens": max_tokens}))
    }
}

impl House {
    fn new() -> Self {
        let sim = sim();
        // Who hangs up frees the slot at once, and not when the provider is done.
        let kernel = Kernel::builder()
            .default_models_and(&sim, "on_disconnect: abort")
            .start();
        kernel.aex_json(&["group", "set", "kernel", "--max-concurrency", "10"]);
        for name in ["red", "blue"] {
            make_group(&kernel, name, &["--max-concurrency", "4"]);
        }
        let red = Part::new(&kernel, MODEL, &["red-1", "red-2"], &["--group", "red"]);
        let blue = Part::new(
            &kernel,
            "sim-free",
            &["blue-1", "blue-2"],
            &["--group", "blue"],
        );
        let lone = Part::new(&kernel, DEAR_MODEL, &["lone-1", "lone-2"], &[]);
        Self {
            sim,
            kernel,
            red,
            blue,
            lone,
        }
    }

    fn within_caps(&self) {
        let bill = self.sim.bill();
        assert!(bill.peak_in_flight <= OF_KERNEL, "{}", bill.peak_in_flight);
        for model in [self.red.model, self.blue.model] {
            let peak = bill.model_peaks.get(model).copied().unwrap_or(0);
            assert!(peak <= OF_GROUP, "{model}: {peak}");
        }
    }

    /// All 200 at the same moment; those that are refused come again until they are served.
    fn crowd(&self, client: impl Fn(&str, &Value) -> Option<()> + Sync) {
        let parts = [&self.red, &self.blue, &self.lone];
        let start = Barrier::new(STREAMS);
        std::thread::scope(|scope| {
            for number in 0..STREAMS {
                let (start, client) = (&start, &client);
                scope.spawn(move || {
                    let part = parts[number % parts.len()];
                    let token = &part.tokens[number / parts.len() % part.tokens.len()];
                    let body = part.body(10);
                    start.wait();
                    let served = wait_until(Duration::from_secs(60), || client(token, &body));
                    assert!(served.is_some(), "never served");
                });
            }
        });
        self.comes_free();
    }

    fn comes_free(&self) {
        wait_for("the provider's end", || {
            (self.sim.bill().in_flight == 0).then_some(())
        });
        self.kernel.settled();
        self.within_caps();
    }

    fn opens(&self, part: &Part, index: usize) -> Events {
        let events = self
            .kernel
            .chat_stream(&part.tokens[index % 2], &part.body(4000));
        assert_eq!(events.head.status, 200, "{:?}", events.head);
        events
    }

    fn refused(&self, part: &Part, by: &str) {
        let answer = self.kernel.chat(&part.tokens[0], &part.body(10));
        assert_error(&answer, 429, "rate_limit_exceeded");
        assert_eq!(answer.detail(), "Concurrency limit exceeded");
        assert_above(&answer, by);
    }

    /// Every slot can be had, and not one more.
    fn fills(&self) -> Vec<Events> {
        self.sim.behave(endless());
        let mut open: Vec<Events> = (0..4).map(|index| self.opens(&self.red, index)).collect();
        self.refused(&self.red, "group");
        open.extend((0..4).map(|index| self.opens(&self.blue, index)));
        self.refused(&self.blue, "group");
        open.extend((0..2).map(|index| self.opens(&self.lone, index)));
        self.refused(&self.lone, "kernel");
        wait_for("all ten at the provider", || {
            (self.sim.bill().in_flight == OF_KERNEL).then_some(())
        });
        self.within_caps();
        open
    }

    fn fills_and_comes_free(&self) {
        drop(self.fills());
        self.comes_free();
    }
}

/// Nothing for a 429: the client comes again.
fn served(events: Events) -> Option<Events> {
    match events.head.status {
        429 => None,
        _ => Some(events),
    }
}

#[test]
fn two_hundred_streams_stay_under_both_caps_and_every_end_frees_its_slot() {
    let house = House::new();
    let (sim, kernel) = (&house.sim, &house.kernel);

    sim.behave(Behaviour {
        delay_ms: 10,
        chunk_delay_ms: 3,
        ..Behaviour::default()
    });
    house.crowd(|token, body| {
        let mut events = served(kernel.chat_stream(token, body))?;
        assert_eq!(events.head.status, 200);
        let last = events.by_ref().last().map(|event| event.data);
        assert!(
            events.complete && last.as_deref() == Some("[DONE]"),
            "{last:?}"
        );
        Some(())
    });
    let bill = sim.bill();
    assert_eq!(bill.total().requests, STREAMS as u64);
    assert_eq!(bill.model_peaks[MODEL], OF_GROUP, "the cap is used");
    assert!(bill.model_peaks[LONE_UPSTREAM] > 2, "{bill:?}");
    house.fills_and_comes_free();

    sim.behave(Behaviour {
        status: Some(400),
        delay_ms: 20,
        ..Behaviour::default()
    });
    house.crowd(|token, body| {
        let events = served(kernel.chat_stream(token, body))?;
        assert_eq!(events.head.status, 400);
        Some(())
    });
    house.fills_and_comes_free();

    sim.behave(endless());
    house.crowd(|token, body| {
        let mut events = served(kernel.chat_stream(token, body))?;
        assert_eq!(events.head.status, 200);
        assert!(events.nth(2).is_some());
        Some(())
    });
    house.fills_and_comes_free();
    kernel.audit();
}

#[test]
fn the_slots_of_a_killed_worker_come_free() {
    let house = House::new();
    let kernel = &house.kernel;
    let open = house.fills();
    let before = kernel.worker_pids();
    process::send_signal(before[0], Signal::SIGKILL);
    // While the other worker's streams go on. Which of the two had what is chance.
    let again: Response = wait_for("a slot", || {
        let parts = [&house.red, &house.blue, &house.lone];
        let asked = parts.into_iter().find_map(|part| {
            house.sim.behave(Behaviour::default());
            let answer = try_chat(kernel, &part.tokens[0], &part.body(5))?;
            (answer.status == 200).then_some(answer)
        });
        let none_died = || {
            kernel
                .look()
                .is_some_and(|status| status.open_holds == OF_KERNEL)
        };
        asked.or_else(|| {
            let fresh = kernel.look()?.workers.iter().all(|w| w.pid != before[0]);
            (fresh && none_died()).then(Response::default)
        })
    });
    drop(again);
    wait_for("two workers again", || {
        let now = kernel.worker_pids();
        (now.len() == 2 && !now.contains(&before[0])).then_some(())
    });
    house.within_caps();
    drop(open);
    house.comes_free();
    house.fills_and_comes_free();
    kernel.audit();
}

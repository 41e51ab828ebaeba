//! One round: a behaviour, one request or several at once, and the books afterwards.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aex_tests::harness::{Kernel, wait_for};
use aex_tests::http::request;
use aex_tests::sim::{Shape, Sim};

use super::faults::{self, Honesty};
use super::requests::{self, MODELS, Request};
use crate::common::sim;
use crate::disk::Chance;

const INPUT_PICO: u64 = 1_000_000;
const OUTPUT_PICO: u64 = 4_000_000;
/// Between two looks of somebody who may leave.
const LOOK: Duration = Duration::from_millis(5);

pub(super) struct Table {
    kernel: Kernel,
    sim: Sim,
    poor: String,
    rich: String,
}

/// When a client hangs up.
#[derive(Debug, Clone, Copy)]
enum Leaving {
    Never,
    /// Once the provider has its request.
    Early,
    /// Once it has read so many bytes.
    After(usize),
}

/// The books of one hold.
#[derive(Debug)]
struct Booked {
    held: i64,
    charged: i64,
    overrun: bool,
}

impl Table {
    pub(super) fn lay(on_disconnect: &str) -> Self {
        let sim = sim();
        let addr = sim.addr;
        let model =
            "provider: sim, price: { input_per_mtok: 1, output_per_mtok: 4 }, image_tokens: 85";
        let yaml = format!(
            "providers:
  sim: {{ base_url: http://{addr}/v1, request_timeout: 1s }}
models:
  bytes: {{ {model}, hidden_output: false }}
  exact: {{ {model}, hidden_output: false, tokenizer: o200k_base }}
  hidden: {{ {model} }}
default_output_tokens: 500
hold_wait: 300ms
on_disconnect: {on_disconnect}
"
        );
        let kernel = Kernel::builder()
            .models_yaml(yaml)
            .env("SIM_API_KEY", Kernel::SIM_KEY)
            .start();
        let poor = kernel.create_agent("poor", "0.01", 1_000_000, &[]);
        let rich = kernel.create_agent("rich", "100000", 1_000_000, &[]);
        Self {
            kernel,
            sim,
            poor,
            rich,
        }
    }

    pub(super) fn clear(self) {
        self.kernel.audit();
    }

    pub(super) fn play(&self, chance: &mut Chance, round: usize) {
        let model = MODELS[chance.below(MODELS.len())];
        let (behaviour, honesty) = faults::draw(chance, model);
        // Which of several was billed too much, nobody could tell.
        let count = if honesty == Honesty::Overbills {
            1
        } else {
            [1, 1, 1, 2, 4][chance.below(5)]
        };
        let mut requests: Vec<_> = (0..count)
            .map(|_| (requests::draw(chance, model), leaving(chance, count)))
            .collect();
        if behaviour.shape == Shape::LlamaCpp {
            // Which counts each answer by itself, and knows of none that it does not show.
            for (request, _) in &mut requests {
                request.body.as_object_mut().unwrap().remove("best_of");
            }
        }
        let token = if honesty == Honesty::Overbills {
            &self.rich
        } else {
            // From too little for anything to enough for all of them.
            let free = [200, 2_000, 20_000, 200_000, 2_000_000][chance.below(5)];
            self.kernel.sqlite(&format!(
                "UPDATE agents SET budget_micro = spent_micro + {free} WHERE name = 'poor'"
            ));
            &self.poor
        };
        let last = self.last_event();
        self.sim.reset();
        self.sim.behave(behaviour.clone());
        self.send_all(&requests, token);
        self.kernel.settled();
        wait_for("the provider's end", || {
            (self.sim.bill().in_flight == 0).then_some(())
        });
        let told = || {
            let bodies: Vec<String> = requests
                .iter()
                .map(|(request, leaving)| {
                    let body: String = request.body.to_string().chars().take(700).collect();
                    format!("{:?} {leaving:?} {body}", request.route)
                })
                .collect();
            format!("round {round}: {behaviour:?}\n{}", bodies.join("\n"))
        };
        self.judge(last, honesty, told);
    }

    fn send_all(&self, requests: &[(Request, Leaving)], token: &str) {
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    self.watch();
                }
            });
            let clients: Vec<_> = requests
                .iter()
                .map(|(request, leaving)| scope.spawn(|| self.send(request, *leaving, token)))
                .collect();
            let joined: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
            ended.store(true, Ordering::Relaxed);
            watch.join().unwrap();
            joined.into_iter().for_each(Result::unwrap);
        });
    }

    /// What is spent and held is within the budget, at this moment.
    fn watch(&self) {
        let over = self.kernel.sqlite(
            "SELECT name, budget_micro, spent_micro, carry_pico, held_pico FROM agents WHERE \
             spent_micro * 1000000 + carry_pico + held_pico > budget_micro * 1000000",
        );
        assert_eq!(over, "", "above the budget");
    }

    fn send(&self, asked: &Request, leaving: Leaving, token: &str) {
        let authorization = format!("Bearer {token}");
        let headers = [
            ("authorization", authorization.as_str()),
            ("content-type", "application/json"),
            ("connection", "close"),
        ];
        let path = format!("/v1{}", asked.route.path());
        let bytes = request("POST", &path, &headers, asked.body.to_string().as_bytes());
        if matches!(leaving, Leaving::Never) {
            let answer = self.kernel.raw(&bytes);
            let of_the_provider = answer.text().contains("simulated");
            assert!(answer.status != 500 || of_the_provider, "{}", answer.text());
            return;
        }
        let mut stream = TcpStream::connect(self.kernel.addr).unwrap();
        stream.write_all(&bytes).unwrap();
        stream.set_read_timeout(Some(LOOK)).unwrap();
        let mut read = 0;
        let mut chunk = [0; 256];
        loop {
            match stream.read(&mut chunk) {
                Ok(0) => return,
                Ok(count) => read += count,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return,
            }
            let enough = match leaving {
                Leaving::Early => read > 0 || self.sim.bill().requests > 0,
                Leaving::After(bytes) => read >= bytes,
                Leaving::Never => false,
            };
            if enough {
                return;
            }
        }
    }

    fn last_event(&self) -> i64 {
        self.kernel.sqlite_number("SELECT MAX(id) FROM events")
    }

    fn booked_since(&self, last: i64) -> Vec<Booked> {
        let rows = self.kernel.sqlite(&format!(
            "SELECT o.held_pico, COALESCE(SUM(c.cost_pico), 0), \
             MAX(COALESCE(json_extract(c.detail, '$.overrun'), 0)) FROM events o JOIN events c \
             ON c.hold = o.hold AND c.id > o.id WHERE o.action = 'hold.open' AND o.id > {last} \
             GROUP BY o.id"
        ));
        let booked = |row: &str| {
            let numbers: Vec<i64> = row.split('|').map(|n| n.parse().unwrap()).collect();
            Booked {
                held: numbers[0],
                charged: numbers[1],
                overrun: numbers[2] != 0,
            }
        };
        rows.lines().map(booked).collect()
    }

    fn judge(&self, last: i64, honesty: Honesty, told: impl Fn() -> String) {
        let booked = self.booked_since(last);
        let total = self.sim.bill().total();
        let billed = total.cost_pico(INPUT_PICO, INPUT_PICO, OUTPUT_PICO);
        let billed = i64::try_from(billed).unwrap();
        assert_eq!(total.fees, 0, "a fee: {}", told());
        let charged: i64 = booked.iter().map(|one| one.charged).sum();
        let shown = || format!("billed {billed} {total:?}, {booked:?}\n{}", told());
        for one in &booked {
            let within = one.charged <= one.held;
            match honesty {
                Honesty::Honest | Honesty::TellsLess => {
                    assert!(within && !one.overrun, "above the hold: {}", shown());
                }
                Honesty::Overbills => assert_eq!(within, !one.overrun, "{}", shown()),
            }
        }
        match honesty {
            Honesty::Honest => assert!(billed <= charged, "a leak: {}", shown()),
            Honesty::TellsLess => {}
            Honesty::Overbills => {
                let whole = booked.iter().all(|one| one.charged >= one.held);
                assert!(charged >= billed || whole, "a leak: {}", shown());
            }
        }
    }
}

fn leaving(chance: &mut Chance, clients: usize) -> Leaving {
    match chance.below(8) {
        0 if clients == 1 => Leaving::Early,
        1 => Leaving::After(1 + chance.below(2000)),
        _ => Leaving::Never,
    }
}

//! What strangers and one tenant can do to the others by connections alone: slow heads and bodies, ten
//! thousand idle connections, connections without end, half-closed ones, garbage, and more requests at once
//! than there is room for. The others' 99th percentile at most doubles, memory stays bounded, nothing
//! crashes.
//!
//! The model answers in 100 ms, so that the percentile is of requests, not of the machine's moods; and what
//! is measured is measured again where the machine was busy with something else: a flood that hurts does so
//! each time. A binary of its own: nothing else is tested beside it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use aex_admin_proto::clock::boot_ms;
use aex_tests::harness::{Kernel, process, wait_for};
use aex_tests::sim::{Behaviour, Sim, SimConfig};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

const MODEL_MS: u64 = 100;
/// Requests of which a percentile is taken.
const CLIENTS: usize = 4;
const ASKED_EACH: usize = 50;
const ROUNDS: usize = 6;
const IDLE: usize = 10_000;
/// What both workers together may grow by: 128 MiB each for the bodies of one tenant, and buffers of
/// connections.
const GROWS_KB: u64 = 2 * (128 + 50) * 1024;

fn sim() -> Sim {
    Sim::start(SimConfig::default()).unwrap()
}

/// A short chat request of a user who says `text`.
fn chat(text: &str) -> Value {
    json!({
        "model": "gpt-oss-20b",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 20,
    })
}

/// Time that requests of a well-behaved tenant take, a few at a time: the 99th percentile.
fn p99_ms(kernel: &Kernel, token: &str) -> u64 {
    let ask = || {
        let begun_ms = boot_ms();
        let answer = kernel.chat(token, &chat("Say hello."));
        assert_eq!(answer.status, 200, "{answer:?}");
        boot_ms() - begun_ms
    };
    let mut took: Vec<u64> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(|| (0..ASKED_EACH).map(|_| ask()).collect::<Vec<_>>()))
            .collect();
        let joined = clients.into_iter().map(|client| client.join().unwrap());
        joined.flatten().collect()
    });
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

fn workers_kb(kernel: &Kernel) -> u64 {
    let resident = |pid: &u32| process::status_kb(*pid, "RssAnon:");
    kernel.worker_pids().iter().filter_map(resident).sum()
}

/// One flood at a time: they are not to be measured beside each other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn many_descriptors() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let wanted = soft.max(16_384).min(hard);
    assert!(wanted >= 12_000, "this test needs 12,000 descriptors");
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).unwrap();
}

/// Somebody who goes on until told to stop, on a thread; its connections may end whenever they like.
struct Flood {
    stop: Arc<AtomicBool>,
    begun: Arc<AtomicU64>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Flood {
    /// `step` is called over and over, with what it has open; never more often than each `pace`.
    fn start(
        addr: SocketAddr,
        pace: Duration,
        mut step: impl FnMut(SocketAddr, &mut Vec<TcpStream>) + Send + 'static,
    ) -> Self {
        let (stop, begun) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (told, counted) = (Arc::clone(&stop), Arc::clone(&begun));
        let thread = thread::spawn(move || {
            let mut open = Vec::new();
            while !told.load(Ordering::Relaxed) {
                step(addr, &mut open);
                counted.fetch_add(1, Ordering::Relaxed);
                // The pace of an attacker, not a wait for anything.
                thread::sleep(pace);
            }
        });
        Self {
            stop,
            begun,
            thread: Some(thread),
        }
    }

    /// Until it is under way.
    fn rolling(self, steps: u64) -> Self {
        wait_for("a flood under way", || {
            (self.begun.load(Ordering::Relaxed) >= steps).then_some(())
        });
        self
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn connect(addr: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect_timeout(&addr, Duration::from_secs(2)).ok()?;
    stream.set_nonblocking(true).ok()?;
    Some(stream)
}

/// Keeps `most` open, and gives each in turn a byte of something that never ends.
fn trickle(most: usize, begins: &'static str) -> impl FnMut(SocketAddr, &mut Vec<TcpStream>) {
    let mut turn = 0;
    move |addr, open| {
        for _ in 0..50 {
            if open.len() < most
                && let Some(mut stream) = connect(addr)
            {
                let _ = stream.write_all(begins.as_bytes());
                open.push(stream);
            }
        }
        turn = (turn + 1) % 10;
        let mut number = 0;
        open.retain_mut(|stream| {
            number += 1;
            if number % 10 != turn {
                return true;
            }
            match stream.write_all(b"x") {
                Ok(()) => true,
                Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
            }
        });
    }
}

/// A well-behaved tenant beside an attack; prints the figures.
#[expect(clippy::print_stderr, reason = "the figures of the test")]
fn beside(name: &str, attack: impl FnOnce(&Kernel, &str) -> Vec<Flood>) {
    let _alone = alone();
    many_descriptors();
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("good", "100.00", 1_000_000, &[]);
    let attacker = kernel.create_agent("flood", "100.00", 1_000_000, &[]);
    sim.behave(Behaviour {
        delay_ms: MODEL_MS,
        ..Behaviour::default()
    });
    let before = kernel.worker_pids();
    let quiet = p99_ms(&kernel, &token);
    let quiet_kb = workers_kb(&kernel);
    let floods = attack(&kernel, &attacker);
    let mut flooded = u64::MAX;
    for _ in 0..ROUNDS {
        flooded = flooded.min(p99_ms(&kernel, &token));
        if flooded <= 2 * quiet {
            break;
        }
    }
    let flooded_kb = workers_kb(&kernel);
    drop(floods);
    eprintln!(
        "{name}: p99 {} ms quiet, {} ms beside it; workers {} MB, then {} MB",
        quiet,
        flooded,
        quiet_kb / 1024,
        flooded_kb / 1024
    );
    assert!(
        flooded <= 2 * quiet,
        "{name}: p99 {flooded} ms, {quiet} ms when it was quiet"
    );
    assert!(
        flooded_kb <= quiet_kb + GROWS_KB,
        "{name}: workers grew from {quiet_kb} to {flooded_kb} KB"
    );
    assert_eq!(
        before,
        kernel.worker_pids(),
        "{name}: a worker was restarted"
    );
    kernel.settled();
    kernel.audit();
}

#[test]
fn slow_heads() {
    beside("slow heads", |kernel, _| {
        let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-slow: ";
        let pace = Duration::from_millis(100);
        vec![Flood::start(kernel.addr, pace, trickle(2_000, head)).rolling(40)]
    });
}

#[test]
fn slow_bodies_without_a_token_that_is_one() {
    beside("slow bodies", |kernel, _| {
        let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n\
                    authorization: Bearer aex_not_a_token\r\ncontent-type: application/json\r\n\
                    content-length: 60000\r\n\r\n{";
        let pace = Duration::from_millis(100);
        vec![Flood::start(kernel.addr, pace, trickle(1_000, head)).rolling(20)]
    });
}

#[test]
fn slow_bodies_of_one_tenant() {
    beside("a tenant's slow bodies", |kernel, attacker| {
        let addr = kernel.addr;
        // Each small by itself, and each large: places of connections, and room for bodies.
        let floods = [60_000, 10_000_000].map(|bytes| {
            let head = format!(
                "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n\
                 authorization: Bearer {attacker}\r\ncontent-type: application/json\r\n\
                 content-length: {bytes}\r\n\r\n{{"
            );
            let pace = Duration::from_millis(100);
            Flood::start(addr, pace, trickle(1_000, head.leak())).rolling(20)
        });
        // The others' large bodies still find room.
        let token = kernel.create_agent("large", "100.00", 1_000, &[]);
        let text = "word ".repeat(400_000);
        let large = chat(&text);
        // Without a share it would wait 10 s for room, and be refused.
        let answer = kernel.chat(&token, &large);
        assert_eq!(answer.status, 200, "{answer:?}");
        floods.into()
    });
}

#[test]
fn ten_thousand_idle_connections() {
    beside("idle connections", |kernel, _| {
        let idle = move |addr, open: &mut Vec<TcpStream>| {
            for _ in 0..200 {
                if open.len() < IDLE {
                    open.extend(connect(addr));
                }
            }
        };
        let pace = Duration::from_millis(10);
        vec![Flood::start(kernel.addr, pace, idle).rolling(60)]
    });
}

#[test]
fn connections_without_end() {
    beside("connection flood", |kernel, _| {
        let churn = move |addr, _: &mut Vec<TcpStream>| {
            for _ in 0..10 {
                drop(connect(addr));
            }
        };
        let pace = Duration::from_millis(10);
        vec![Flood::start(kernel.addr, pace, churn).rolling(20)]
    });
}

#[test]
fn half_closed_connections_and_garbage() {
    beside("half-closed and garbage", |kernel, _| {
        let half = move |addr, open: &mut Vec<TcpStream>| {
            for text in [
                "",
                "POST /v1/chat/completions HTTP/1.1\r\n",
                "GET /healthz HTTP/1.1\r\n\r\n",
            ] {
                if open.len() < 2_000
                    && let Some(mut stream) = connect(addr)
                {
                    let _ = stream.write_all(text.as_bytes());
                    let _ = stream.shutdown(std::net::Shutdown::Write);
                    open.push(stream);
                }
            }
        };
        let garbage = move |addr, open: &mut Vec<TcpStream>| {
            open.truncate(100);
            if let Some(mut stream) = connect(addr) {
                let pipelined = "GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n".repeat(200);
                let _ = stream.write_all(pipelined.as_bytes());
                let _ =
                    stream.write_all(&[0x16, 0x03, 0x01, 0xff, 0x00, 0x0a, 0x0d, 0x80].repeat(500));
                let _ = stream.read(&mut [0; 64]);
                open.insert(0, stream);
            }
        };
        let pace = Duration::from_millis(10);
        vec![
            Flood::start(kernel.addr, pace, half).rolling(50),
            Flood::start(kernel.addr, pace, garbage).rolling(50),
        ]
    });
}

#[test]
fn a_tenant_that_floods_is_held_to_its_share() {
    let _alone = alone();
    many_descriptors();
    let sim = sim();
    let kernel = Kernel::on(&sim);
    let token = kernel.create_agent("good", "100.00", 1_000_000, &[]);
    let attacker = kernel.create_agent("flood", "1000.00", 1_000_000, &[]);
    // Streams that stay open: each has an exchange with the provider.
    sim.behave(Behaviour {
        chunk_delay_ms: 60_000,
        ..Behaviour::default()
    });
    let mut asked = chat("Say hello.");
    asked["stream"] = json!(true);
    let stream = Kernel::chat_bytes(&attacker, &asked, &[]);
    let mut open: Vec<TcpStream> = Vec::new();
    let mut refused = 0;
    while open.len() < 2_000 && refused == 0 {
        for _ in 0..100 {
            let mut connection = TcpStream::connect(kernel.addr).unwrap();
            connection.write_all(&stream).unwrap();
            open.push(connection);
        }
        for connection in open.iter_mut().rev().take(100) {
            let mut head = [0; 12];
            connection.read_exact(&mut head).unwrap();
            refused += usize::from(&head == b"HTTP/1.1 429");
        }
    }
    assert!(refused > 0, "nothing of {} was refused", open.len());
    let held = sim.bill().in_flight;
    assert!(held < 1024, "{held} exchanges of one tenant");
    sim.behave(Behaviour::default());
    for _ in 0..50 {
        let answer = kernel.chat(&token, &chat("Say hello."));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    drop(open);
    assert!(kernel.aex(&["agent", "sever", "flood"]).status.success());
    kernel.settled();
    kernel.audit();
}

//! A closed loop over keep-alive HTTP/1.1 connections: each sends its request again as soon as the
//! answer is whole.
//!
//! The request's bytes are made once, and an answer is read no further than to find its end and its
//! status, so that the generator takes little of the machine that it measures.

use std::io;
use std::net::SocketAddr;

use nix::time::{ClockId, clock_gettime};
use serde::Serialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// A buffer is read into in steps of this.
const READ_BYTES: usize = 16 * 1024;
/// An answer longer than this is not one of the simulator's.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// Microseconds of the monotonic clock: the shared clock's milliseconds are too coarse to time by.
#[must_use]
pub fn now_us() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux has a monotonic clock");
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    part(time.tv_sec()) * 1_000_000 + part(time.tv_nsec()) / 1000
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    Plain,
    Streamed,
}

impl Mode {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Streamed => "streamed",
        }
    }
}

/// A chat request of about 1 KB that asks for 16 tokens.
#[must_use]
pub fn chat_request(mode: Mode, token: &str) -> Vec<u8> {
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(18);
    let mut body = json!({
        "model": "gpt-oss-20b",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 16,
    });
    if mode == Mode::Streamed {
        body["stream"] = json!(true);
    }
    let authorization = format!("Bearer {token}");
    let headers = [
        ("authorization", authorization.as_str()),
        ("content-type", "application/json"),
    ];
    crate::http::request(
        "POST",
        "/v1/chat/completions",
        &headers,
        body.to_string().as_bytes(),
    )
}

/// What one run saw.
#[derive(Debug, Default)]
pub struct Tally {
    pub requests: u64,
    /// Answers other than 200, and broken connections.
    pub errors: u64,
    /// Of each request that was answered with 200.
    pub latencies_us: Vec<u32>,
    pub elapsed_us: u64,
}

impl Tally {
    pub fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.latencies_us.extend(other.latencies_us);
        self.elapsed_us += other.elapsed_us;
    }
}

/// Loads `addr` with `connections` for `time_us`.
///
/// # Errors
/// The first connections cannot be made.
pub fn run(
    addr: SocketAddr,
    request: &[u8],
    connections: usize,
    time_us: u64,
) -> io::Result<Tally> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut wires = Vec::with_capacity(connections);
        for _ in 0..connections {
            wires.push(Wire::connect(addr).await?);
        }
        let started_us = now_us();
        let mut tasks = JoinSet::new();
        for wire in wires {
            tasks.spawn(drive(wire, request.to_vec(), started_us + time_us));
        }
        let mut all = Tally::default();
        while let Some(tally) = tasks.join_next().await {
            all.add(tally?);
        }
        all.elapsed_us = now_us() - started_us;
        Ok(all)
    })
}

async fn drive(mut wire: Wire, request: Vec<u8>, end_us: u64) -> Tally {
    let mut tally = Tally::default();
    let mut before_us = now_us();
    while before_us < end_us {
        let answered = wire.exchange(&request).await;
        let after_us = now_us();
        match answered {
            Ok(200) => {
                tally.requests += 1;
                let taken = u32::try_from(after_us - before_us).unwrap_or(u32::MAX);
                tally.latencies_us.push(taken);
            }
            Ok(_) => tally.errors += 1,
            Err(_) => {
                tally.errors += 1;
                match Wire::connect(wire.addr).await {
                    Ok(fresh) => wire = fresh,
                    Err(_) => return tally,
                }
            }
        }
        before_us = after_us;
    }
    tally
}

/// Times from a request's first byte to its first streamed event, one after the other.
///
/// # Errors
/// An answer is no stream.
pub fn first_events(addr: SocketAddr, request: &[u8], count: usize) -> io::Result<Vec<u32>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut wire = Wire::connect(addr).await?;
        let mut times_us = Vec::with_capacity(count);
        for _ in 0..count {
            let before_us = now_us();
            wire.stream.write_all(request).await?;
            wire.buffer.clear();
            wire.read_until(|bytes| position(bytes, b"data: ")).await?;
            let taken = now_us() - before_us;
            times_us.push(u32::try_from(taken).unwrap_or(u32::MAX));
            wire.read_until(|bytes| Answer::of(bytes)?.is_whole(bytes).then_some(()))
                .await?;
        }
        Ok(times_us)
    })
}

struct Wire {
    addr: SocketAddr,
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    async fn connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            addr,
            stream,
            buffer: Vec::with_capacity(READ_BYTES),
        })
    }

    /// One request and its whole answer; its status.
    async fn exchange(&mut self, request: &[u8]) -> io::Result<u16> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let answer = self.read_until(Answer::of).await?;
        self.read_until(|bytes| answer.is_whole(bytes).then_some(()))
            .await?;
        Ok(answer.status)
    }

    async fn read_until<T>(&mut self, found: impl Fn(&[u8]) -> Option<T>) -> io::Result<T> {
        loop {
            if let Some(found) = found(&self.buffer) {
                return Ok(found);
            }
            if self.buffer.len() > MAX_ANSWER_BYTES {
                return Err(io::Error::other("answer too long"));
            }
            self.buffer.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

fn position(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// As much of an answer's head as its end needs.
struct Answer {
    status: u16,
    /// Offset of the body's end; absent for a chunked one.
    end: Option<usize>,
}

impl Answer {
    fn of(bytes: &[u8]) -> Option<Self> {
        let head = position(bytes, b"\r\n\r\n")? + 4;
        let digits = bytes.get(9..12)?;
        let status = std::str::from_utf8(digits).ok()?.parse().ok()?;
        let length = bytes[..head].split(|&byte| byte == b'\n').find_map(|line| {
            let (name, value) = line.split_at_checked(15)?;
            if !name.eq_ignore_ascii_case(b"content-length:") {
                return None;
            }
            std::str::from_utf8(value)
                .ok()?
                .trim()
                .parse::<usize>()
                .ok()
        });
        Some(Self {
            status,
            end: length.map(|length| head + length),
        })
    }

    fn is_whole(&self, bytes: &[u8]) -> bool {
        match self.end {
            Some(end) => bytes.len() >= end,
            // Neither JSON nor an event ends in a way that looks like the last chunk.
            None => bytes.ends_with(b"\r\n0\r\n\r\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Behaviour, Sim, SimConfig};

    #[test]
    fn every_request_is_counted_once_plain_and_streamed() {
        for mode in [Mode::Plain, Mode::Streamed] {
            let sim = Sim::start(SimConfig::default()).unwrap();
            let tally = run(sim.addr, &chat_request(mode, "t"), 4, 50_000).unwrap();
            assert!(tally.requests > 0 && tally.errors == 0);
            assert_eq!(tally.requests, sim.bill().requests);
            assert_eq!(tally.requests, tally.latencies_us.len() as u64);
            assert_eq!(sim.bill().total().completion_tokens, 16 * tally.requests);
        }
    }

    #[test]
    fn errors_are_no_requests() {
        let sim = Sim::start(SimConfig::default()).unwrap();
        sim.behave(Behaviour {
            status: Some(429),
            ..Behaviour::default()
        });
        let tally = run(sim.addr, &chat_request(Mode::Plain, "t"), 1, 20_000).unwrap();
        assert!(tally.errors > 0 && tally.requests == 0);
    }

    #[test]
    fn the_first_event_is_timed_from_the_request() {
        let sim = Sim::start(SimConfig::default()).unwrap();
        sim.behave(Behaviour {
            delay_ms: 20,
            chunk_delay_ms: 2,
            ..Behaviour::default()
        });
        let times = first_events(sim.addr, &chat_request(Mode::Streamed, "t"), 3).unwrap();
        assert!(
            times.iter().all(|&us| (20_000..50_000).contains(&us)),
            "{times:?}"
        );
    }
}

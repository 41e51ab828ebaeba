//! The simulator's own bill: what it generated or would charge for, whoever read it, and the last
//! requests as they were received.
//!
//! Kept in tokens; what they cost is the caller's to compute.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hyper::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::behaviour::{Behaviour, Plans};
use super::plan::Plan;

/// Requests kept in the log, and bytes of each one's body.
const MAX_LOGGED: usize = 1000;
const MAX_LOGGED_BODY_BYTES: usize = 64 * 1024;

/// What a model's requests were billed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelBill {
    pub requests: u64,
    /// Includes the cached ones.
    pub prompt_tokens: u64,
    pub cached_tokens: u64,
    pub completion_tokens: u64,
    /// Things that are billed by the piece: searches, hosted tools, audio.
    #[serde(default)]
    pub fees: u64,
    /// Wishes that the provider keep something, or go on from what it kept.
    #[serde(default)]
    pub kept: u64,
}

impl ModelBill {
    /// The bill of the tokens in picodollars, at prices in picodollars a token.
    #[must_use]
    pub fn cost_pico(&self, input: u64, cached: u64, output: u64) -> u128 {
        let line = |tokens: u64, price: u64| u128::from(tokens) * u128::from(price);
        line(self.prompt_tokens - self.cached_tokens, input)
            + line(self.cached_tokens, cached)
            + line(self.completion_tokens, output)
    }
}

/// How a request ended, as the simulator saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Ended {
    Open,
    Complete,
    /// The connection went away, or was dropped on purpose, before the end.
    Cut,
    /// Answered with an error status.
    Refused,
}

/// One received request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedRequest {
    pub path: String,
    /// Names and values as received, in order.
    pub headers: Vec<(String, String)>,
    /// The body's JSON; a string when it is none, or too long to keep.
    pub body: Value,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    pub ended: Ended,
    /// Unix milliseconds.
    pub at_ms: i64,
}

impl LoggedRequest {
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// `GET /_sim/bill`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bill {
    /// All that came to the billed routes, refused ones included.
    pub requests: u64,
    pub in_flight: u64,
    pub peak_in_flight: u64,
    /// Of each model.
    #[serde(default)]
    pub model_peaks: BTreeMap<String, u64>,
    pub models: BTreeMap<String, ModelBill>,
    /// The last thousand, oldest first.
    pub log: Vec<LoggedRequest>,
}

impl Bill {
    /// All models together.
    #[must_use]
    pub fn total(&self) -> ModelBill {
        self.models
            .values()
            .fold(ModelBill::default(), |sum, model| ModelBill {
                requests: sum.requests + model.requests,
                prompt_tokens: sum.prompt_tokens + model.prompt_tokens,
                cached_tokens: sum.cached_tokens + model.cached_tokens,
                completion_tokens: sum.completion_tokens + model.completion_tokens,
                fees: sum.fees + model.fees,
                kept: sum.kept + model.kept,
            })
    }
}

#[derive(Debug, Default)]
struct Totals {
    requests: AtomicU64,
    prompt: AtomicU64,
    cached: AtomicU64,
    completion: AtomicU64,
    fees: AtomicU64,
    kept: AtomicU64,
    in_flight: AtomicU64,
    peak_in_flight: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    path: String,
    headers: HeaderMap,
    body: Bytes,
    at_ms: i64,
    prompt: AtomicU64,
    completion: AtomicU64,
    ended: AtomicU8,
}

#[derive(Debug, Default)]
struct Inner {
    plans: Plans,
    models: HashMap<String, Arc<Totals>>,
    log: VecDeque<Arc<Entry>>,
    requests: u64,
    in_flight: u64,
    peak_in_flight: u64,
}

/// Everything that the simulator remembers.
#[derive(Debug, Default)]
pub struct Memory {
    inner: Mutex<Inner>,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it holds the lock.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn behave(&self, behaviour: Behaviour) {
        self.lock().plans.set(behaviour);
    }

    /// Forgets the bill and the log; requests that still run are billed to nobody.
    pub fn reset(&self) {
        let mut inner = self.lock();
        inner.models.clear();
        inner.log.clear();
        inner.requests = 0;
        inner.peak_in_flight = inner.in_flight;
    }

    /// A request came: it is logged, and told how to be answered.
    pub(super) fn receive(
        self: &Arc<Self>,
        path: &str,
        headers: HeaderMap,
        body: &Bytes,
        at_ms: i64,
    ) -> (Running, Arc<Behaviour>) {
        let kept = if body.len() <= MAX_LOGGED_BODY_BYTES {
            body.clone()
        } else {
            Bytes::from(format!("\"{} bytes, not kept\"", body.len()))
        };
        let entry = Arc::new(Entry {
            path: path.to_owned(),
            headers,
            body: kept,
            at_ms,
            prompt: AtomicU64::new(0),
            completion: AtomicU64::new(0),
            ended: AtomicU8::new(Ended::Open as u8),
        });
        let mut inner = self.lock();
        inner.requests += 1;
        inner.in_flight += 1;
        inner.peak_in_flight = inner.peak_in_flight.max(inner.in_flight);
        let oldest = if inner.log.len() == MAX_LOGGED {
            inner.log.pop_front()
        } else {
            None
        };
        inner.log.push_back(Arc::clone(&entry));
        let behaviour = inner.plans.next();
        drop(inner);
        // Freed outside the lock.
        drop(oldest);
        let running = Running {
            memory: Arc::clone(self),
            entry,
            totals: None,
            factor: 1,
        };
        (running, behaviour)
    }

    pub fn bill(&self) -> Bill {
        let inner = self.lock();
        let models = inner.models.iter().map(|(name, totals)| {
            let bill = ModelBill {
                requests: totals.requests.load(Relaxed),
                prompt_tokens: totals.prompt.load(Relaxed),
                cached_tokens: totals.cached.load(Relaxed),
                completion_tokens: totals.completion.load(Relaxed),
                fees: totals.fees.load(Relaxed),
                kept: totals.kept.load(Relaxed),
            };
            (name.clone(), bill)
        });
        Bill {
            requests: inner.requests,
            in_flight: inner.in_flight,
            peak_in_flight: inner.peak_in_flight,
            model_peaks: (inner.models.iter())
                .map(|(name, totals)| (name.clone(), totals.peak_in_flight.load(Relaxed)))
                .collect(),
            models: models.collect(),
            log: inner.log.iter().map(|entry| entry.view()).collect(),
        }
    }
}

impl Entry {
    fn view(&self) -> LoggedRequest {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let ended = [Ended::Open, Ended::Complete, Ended::Cut, Ended::Refused]
            [usize::from(self.ended.load(Relaxed)).min(3)];
        LoggedRequest {
            path: self.path.clone(),
            headers: self
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), text(value.as_bytes())))
                .collect(),
            body: serde_json::from_slice(&self.body)
                .unwrap_or_else(|_| Value::from(text(&self.body))),
            prompt_tokens: self.prompt.load(Relaxed),
            completion_tokens: self.completion.load(Relaxed),
            ended,
            at_ms: self.at_ms,
        }
    }
}

/// A request under way. Dropped before it is ended, it was cut.
#[derive(Debug)]
pub(super) struct Running {
    memory: Arc<Memory>,
    entry: Arc<Entry>,
    totals: Option<Arc<Totals>>,
    /// Tokens that one is billed as.
    factor: u64,
}

impl Running {
    /// The prompt was read: from here it costs.
    pub(super) fn bill_prompt(&mut self, model: &str, plan: &Plan) {
        self.factor = plan.factor;
        let (prompt, cached) = (plan.prompt * plan.factor, plan.cached * plan.factor);
        let mut inner = self.memory.lock();
        let totals = match inner.models.get(model) {
            Some(totals) => Arc::clone(totals),
            None => Arc::clone(inner.models.entry(model.to_owned()).or_default()),
        };
        drop(inner);
        let open = totals.in_flight.fetch_add(1, Relaxed) + 1;
        totals.peak_in_flight.fetch_max(open, Relaxed);
        totals.requests.fetch_add(1, Relaxed);
        totals.prompt.fetch_add(prompt, Relaxed);
        totals.cached.fetch_add(cached, Relaxed);
        totals.fees.fetch_add(plan.fees, Relaxed);
        totals.kept.fetch_add(plan.kept, Relaxed);
        self.entry.prompt.fetch_add(prompt, Relaxed);
        self.totals = Some(totals);
    }

    /// Tokens were generated.
    pub(super) fn bill_output(&self, tokens: u64) {
        let tokens = tokens * self.factor;
        if let Some(totals) = &self.totals {
            totals.completion.fetch_add(tokens, Relaxed);
            self.entry.completion.fetch_add(tokens, Relaxed);
        }
    }

    pub(super) fn end(&self, ended: Ended) {
        self.entry.ended.store(ended as u8, Relaxed);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let open = Ended::Open as u8;
        let _ = self
            .entry
            .ended
            .compare_exchange(open, Ended::Cut as u8, Relaxed, Relaxed);
        if let Some(totals) = &self.totals {
            totals.in_flight.fetch_sub(1, Relaxed);
        }
        self.memory.lock().in_flight -= 1;
    }
}
